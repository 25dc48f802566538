"""MediaPipe's two pose networks, found in its wheel, and LiteRT, which runs them: the one door to ai_edge_litert.

mediapipe itself is never imported. The networks are known by their SHA-256, which is the same in the wheels of
0.10.18 (aarch64) and 0.10.21; the bytes that were hashed are the bytes that run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from realtime.errors import BundleError, LineError, UsageError
from realtime.quiet import quiet_stderr
from realtime.tflite import without_outputs


@dataclass(frozen=True)
class NetworkFile:
    """One .tflite file of the mediapipe wheel."""

    path: str  # below the folder that holds the package mediapipe
    sha256: str
    unread: tuple[int, ...] = ()  # outputs that nobody here reads, with what only they need


DETECTOR = NetworkFile(
    "mediapipe/modules/pose_detection/pose_detection.tflite",
    "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
)
LANDMARKS = NetworkFile(
    "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
    "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
    unread=(2,),  # the silhouette
)


def unavailable() -> str | None:
    """Why LiteRT cannot run MediaPipe's networks here, in a few words; None where it can.

    Says what is absent only: a network that is there but is not the known one is refused when it is read.
    """
    if importlib.util.find_spec("ai_edge_litert") is None:
        return "ai-edge-litert is not installed"
    folder = _wheel()
    if folder is None:
        return "mediapipe, whose networks it runs, is not installed"
    absent = [file.path for file in (DETECTOR, LANDMARKS) if not (folder / file.path).is_file()]
    return f"the installed mediapipe has no {absent[0]}" if absent else None


def read_network(file: NetworkFile, folder: Path | None = None) -> bytes:
    """The network of this file, in folder or where mediapipe is installed, checked and without what is never read.

    Raises UsageError where it is absent, BundleError where it is another one than the known one.
    """
    folder = folder or _wheel()
    if folder is None:
        raise UsageError("mediapipe is not installed, and LiteRT runs its networks: run `make install`")
    path = folder / file.path
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the pose network {path}: {error.strerror}; run `make install`") from error
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise BundleError(
            f"pose network {path}: its SHA-256 begins with {found[:16]}, the known one's with {file.sha256[:16]}; it "
            "is damaged or of another release: run `make clean install`"
        )
    return without_outputs(content, file.unread) if file.unread else content


def _wheel() -> Path | None:
    """The folder that the package mediapipe is installed in."""
    try:
        return Path(str(metadata.distribution("mediapipe").locate_file("")))
    except metadata.PackageNotFoundError:
        return None


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Network:
    """A .tflite network with one input, run on `threads` CPU threads, at most one a core.

    Not thread-safe. Raises UsageError where ai_edge_litert is not installed, LineError where it fails.
    """

    def __init__(self, content: bytes, threads: int, name: str) -> None:
        if threads < 1:
            raise UsageError(f"threads must be at least 1, got {threads}")
        self._name = name
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise UsageError(f"ai-edge-litert does not load ({error}): run `make install`") from error
        try:
            with quiet_stderr():
                self._interpreter: Any = Interpreter(model_content=content, num_threads=min(threads, cores()))
                self._interpreter.allocate_tensors()
                self._input = self._interpreter.get_input_details()[0]["index"]
                self._outputs = [output["index"] for output in self._interpreter.get_output_details()]
                self._interpreter.invoke()  # the first time is slow, and may chatter
        except (RuntimeError, ValueError) as error:
            raise LineError(f"LiteRT cannot load the {name} network ({error}): run `make install`") from error

    def __call__(self, picture: np.ndarray) -> list[np.ndarray]:
        """The outputs (1, …) float32, in the file's order, for the input (1, …) float32."""
        if self._interpreter is None:
            raise LineError("the pose stage is closed; make a new one")
        try:
            self._interpreter.set_tensor(self._input, picture)
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise LineError(f"LiteRT failed in the {self._name} network: {error}") from error
        return [self._interpreter.get_tensor(index) for index in self._outputs]

    def close(self) -> None:
        """Frees it. May be called twice."""
        self._interpreter = None
