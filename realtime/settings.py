"""The flags of `python -m realtime.run`: one frozen dataclass per group, a comment per field.

The command line, the configuration file (realtime/config.py) and --print-config derive from these fields.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from realtime.bus import DEFAULT_ADDRESS
from realtime.errors import UsageError

NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")  # of a source, as topics can carry it
SHIPS = "ships"  # --interactions: the bundle that ships
MOST_PERSONS = 8  # people followed in skeletons unless --persons says otherwise
PERSONS_IN_PICTURES = 2  # and in pictures, where each costs time


@dataclass(frozen=True)
class InputFlags:
    """Where frames come from."""

    source: Annotated[str, tyro.conf.arg(aliases=("--camera",), metavar="SOURCE")] = "0"
    """Camera index, /dev/videoN, video file, folder of pictures, rtsp:// or http:// stream, skeletons (.mcap .jsonl
    .npz, NTU .skeleton, NW-UCLA .json), a depth camera or a recording of one (depth:orbbec, depth:realsense,
    depth:oak, depth:FOLDER), - for pose messages on standard input, or synthetic. ${NAME} in an address is taken from
    the environment, so that a password need not stand here."""
    source_from: Path | None = None
    """Read the source from the first line of this file instead: for addresses with passwords."""
    name: str | None = None
    """Name of the source in messages and topics; of several cameras in --config, the one to run. Default: made of the
    source's address."""
    mirror: bool = False
    """The camera gives mirrored pictures (a selfie preview): turn them back, so that left is left."""
    fast: bool = False
    """Files: every frame, as fast as possible. Otherwise live pace, and the newest frame wins."""
    loop: bool = False
    """Files: begin again at the end, for ever."""
    duration: float | None = None
    """Stop after so many seconds of the source's own time; silence of a live source counts. Default: never."""
    fps: float | None = None
    """Frames a second of what tells none: folders of pictures, NW-UCLA, .npz without times, synthetic. Default: 30,
    NW-UCLA 12."""
    seed: int | None = None
    """Of the source synthetic: the same seed, the same person."""


@dataclass(frozen=True)
class RecognitionFlags:
    """How people and actions are recognised."""

    bundle: Path | None = None
    """Folder of the model. Default: the one that ships."""
    interactions: Path | None = None
    """Folder of a second model, for what two people do together, or `ships` for the one that ships. Default: none."""
    calib: Path | None = None
    """What was measured at this site by python -m calib.camera, calib.floor, calib.thresholds and calib.depth: one of
    their files, or a folder of them. Default: nothing is known of the site."""
    pose: Annotated[str, tyro.conf.arg(metavar="auto|litert|mediapipe|FILE.onnx")] = "auto"
    """What finds skeletons in pictures: MediaPipe's two networks run by LiteRT (several people), MediaPipe itself (one
    person), or an ONNX pose model (COCO-17 joints). auto: LiteRT where it is installed, else MediaPipe."""
    persons: int | None = None
    """People to follow at most. Default: 2 in pictures, 8 in skeletons."""
    backend: Literal["auto", "trt", "rtx", "ort-cuda", "ort"] = "auto"
    """What runs the model: TensorRT, TensorRT-RTX, ONNX Runtime on the GPU or on the CPU. auto: the first of these
    that is ready here; the line says which, and why none before it."""
    precision: Literal["auto", "fp32", "fp16", "int8"] = "auto"
    """What the model computes in. auto: the fastest that passed its gate; a CPU times fp32 and int8 at the start."""
    engine: Path | None = None
    """Take this TensorRT engine file, its sidecar beside it, instead of the one built into this user's cache."""
    trust: bool = False
    """Load --engine although it was copied here or others may write to its folder: an engine can run code."""
    threads: int = 1
    """CPU threads of the model."""


@dataclass(frozen=True)
class OutputFlags:
    """What is told, and where."""

    pub: str = DEFAULT_ADDRESS
    """ZeroMQ address to publish on, or none. Any address but this machine's own needs --keys."""
    keys: Path | None = None
    """Folder of CURVE keys made by realtime.keys: messages are encrypted, and only listed subscribers are let in."""
    control: str | None = None
    """ZeroMQ address of the control socket. Default: none."""
    http: str | None = None
    """HOST:PORT on this machine for a page to watch, /metrics and /healthz. Default: none."""
    events: Path | None = None
    """Also append events to this file, one JSON message a line."""
    journal: Path | None = None
    """Also append events and status to this file, which is turned over at 64 MB, so that subscribers can have them
    again after a restart."""
    record: Path | None = None
    """Record every frame's skeletons to this new MCAP file (no pictures); a file that is there is refused."""
    publish_poses: bool = False
    """Also publish every frame's skeletons (topic pose.)."""
    publish_scores: bool = False
    """Also publish every window's probabilities (topic scores.)."""
    wait_subscriber: float | None = None
    """Wait up to so many seconds for a subscriber before the first frame. Default: do not wait."""
    show: bool = False
    """Open a window with skeleton, label bars and history; without a display the line goes on without one."""
    headless: bool = False
    """No window, whatever else is said; so it is by itself where there is no display."""
    quiet: bool = False
    """Print errors only."""
    log_json: bool = False
    """Print what is logged as JSON lines, for machines."""


@dataclass(frozen=True)
class ProgramFlags:
    """About this program's run itself."""

    config: Path | None = None
    """TOML file with these flags as keys (docs/operations.md); what stands on the command line wins."""
    print_config: bool = False
    """Print every setting with its origin, and end."""
    check: bool = False
    """Check settings, bundle, source and addresses, say what was found, and end."""
    version: bool = False
    """Print the version of this program and of what it stands on, and end."""


@dataclass(frozen=True)
class Config:
    """Recognise human actions, live, and publish them as events over ZeroMQ."""

    input: InputFlags
    recognition: RecognitionFlags
    output: OutputFlags
    program: ProgramFlags


def check(config: Config) -> None:
    """UsageError where settings are out of their range or contradict each other."""
    for flag, value in (("duration", config.input.duration), ("wait-subscriber", config.output.wait_subscriber)):
        if value is not None and not 0 < value < 1e9:
            raise UsageError(f"--{flag} must be above 0 seconds, got {value}")
    if config.recognition.persons is not None and not 1 <= config.recognition.persons <= 64:
        raise UsageError(f"--persons must be in [1, 64], got {config.recognition.persons}")
    name = config.input.name
    if name is not None and not NAME.fullmatch(name):
        raise UsageError(f"--name must be 1 to 40 letters, digits, - and _, got {name!r}")
    files = {flag: getattr(config.output, flag) for flag in ("events", "journal", "record")}
    given = [(name, path) for name, path in files.items() if path is not None]
    for index, (name, path) in enumerate(given):
        for other, same in given[index + 1 :]:
            if path.absolute() == same.absolute():
                raise UsageError(f"--{name} and --{other} are both {path}; name two files")
    source = os.path.expanduser(config.input.source)
    for name, path in given:
        if os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
            raise UsageError(f"--{name} {path} is the source itself and would be overwritten; name another file")
