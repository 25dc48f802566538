"""What every engine shares: checks of what goes in and comes out, windows to Scores, and the proof on the reference.

NumPy only; engine.py (ONNX Runtime) and trt.py (TensorRT) put a library under it, backends.py chooses between them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NoReturn, Protocol

import numpy as np

from realtime.bundle import Bundle, load_reference
from realtime.errors import BundleError
from realtime.features import features
from realtime.fields import REMEDY
from realtime.graphs import Graph
from realtime.pipeline import ScoresWindows
from realtime.schema import Scores, Window

TOLERANCE = 1e-3  # largest difference of fp32 from the trained model's own outputs
SPREAD = 2.0  # how much farther than its gate found a graph of less precision may be on another machine


class Engine(ScoresWindows, Protocol):
    """What scores windows with a bundle's model."""

    @property
    def backend(self) -> str:
        """Name, version and device, such as onnxruntime-1.20.0/cpu."""

    @property
    def precision(self) -> str:
        """fp32, fp16 or int8."""

    @property
    def graph(self) -> Graph:
        """The graph that runs or that the engine was built from, with its gate."""

    @property
    def why(self) -> str:
        """Why this engine and not another: one line for people, or "" where none was chosen from others."""

    def infer(self, skeleton: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Network input (N, C, T, V) float32 -> logits (N, K), embedding (N, D) float32, all finite."""

    def close(self) -> None:
        """Gives back what the engine holds. May be called twice."""


class BundleEngine(ABC):
    """An engine of a bundle's model. A library's own engine gives `backend` and `_run`."""

    def __init__(self, bundle: Bundle, precision: str) -> None:
        self._bundle, self._precision = bundle, precision
        self.graph = bundle.graphs.get(precision, bundle.graphs["fp32"])  # an engine of a graph made here says so
        self.why = ""

    @property
    @abstractmethod
    def backend(self) -> str:
        """Name, version and device."""

    @property
    def precision(self) -> str:
        """fp32, fp16 or int8."""
        return self._precision

    @property
    def file(self) -> str:
        """What is running, as refusals name it."""
        return self.graph.file

    @abstractmethod
    def _run(self, skeleton: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Checked input (N, C, T, V) float32, N at least 1 -> logits (N, K), embedding (N, D), not yet checked."""

    def infer(self, skeleton: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Network input (N, C, T, V) float32 -> logits (N, K), embedding (N, D).

        Raises ValueError for input of another shape or not finite, BundleError where the model fails or gives
        something that is not finite, GpuError where a GPU fails.
        """
        bundle = self._bundle
        shape = (bundle.channels, bundle.window, len(bundle.layout))
        if skeleton.ndim != 4 or skeleton.shape[1:] != shape or skeleton.dtype != np.float32:
            raise ValueError(f"the model needs float32 (N, {shape}), got {skeleton.dtype} {skeleton.shape}")
        if not np.isfinite(skeleton).all():
            raise ValueError(
                "the model's input 'skeleton' has values that are not finite; the features let them through"
            )
        logits, embedding = self._run(skeleton)
        for name, array in (("logits", logits), ("embedding", embedding)):
            if len(array) != len(skeleton):
                self._refuse(f"gave {len(array)} rows of {name} for {len(skeleton)} windows")
            if not np.isfinite(array).all():
                self._refuse(f"gave values of {name} that are not finite")
        return logits, embedding

    def score(self, windows: Sequence[Window]) -> list[Scores]:
        """One Scores for each window, in order, from one batch. Raises as `infer` does."""
        if not windows:
            return []
        joints = np.stack([window.joints for window in windows])  # (N, T, V, 3), of pairs (N, T, 2, V, 3)
        confidence = np.stack([window.confidence for window in windows])  # (N, T, V)
        for window, finite in zip(windows, np.isfinite(joints).reshape(len(joints), -1).all(axis=1), strict=True):
            if not finite:
                raise ValueError(f"the window of track {window.track} at frame {window.index} has non-finite joints")
        logits, embedding = self.infer(features(joints, confidence, self._bundle.streams))
        probabilities = softmax(logits, self._bundle.temperature)
        return [
            Scores(w.index, w.captured_ns, w.track, w.start_ns, logits[i], probabilities[i], embedding[i], w.partner)
            for i, w in enumerate(windows)
        ]

    def _refuse(self, what: str, cause: BaseException | None = None) -> NoReturn:
        raise BundleError(f"bundle {self._bundle.path}: {self.file} {what}; {REMEDY}") from cause


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities (..., K) float32 of logits (..., K) divided by the temperature."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)


def tolerances(graph: Graph) -> dict[str, float]:
    """How far "logits" and "embedding" may be from the reference: 1e-3, and twice what the graph's gate found."""
    return {name: TOLERANCE + SPREAD * found for name, found in graph.reference.items()}


def verify(engine: Engine, bundle: Bundle, allowed: dict[str, float] | None = None, remedy: str = REMEDY) -> float:
    """Proves the engine on the bundle's reference: every output near enough to the trained model's own.

    allowed: largest difference of "logits" and "embedding"; by default as `tolerances` says of the engine's graph. So
    the best class can be another only where the trained model's two best are nearer to each other than twice that.
    remedy: what refusals end in. Returns the largest difference. Raises BundleError where the proof fails.
    """
    reference = load_reference(bundle)
    allowed = allowed or tolerances(engine.graph)
    where = f"bundle {bundle.path}: in {engine.precision} on {engine.backend}"
    worst = 0.0
    outputs = engine.infer(reference.skeleton)
    for name, got, wanted in zip(("logits", "embedding"), outputs, reference[1:], strict=True):
        if got.shape != wanted.shape:
            raise BundleError(f"{where} {name} is {got.shape}, reference.npz says {wanted.shape}; {remedy}")
        difference = float(np.abs(got - wanted).max())
        if not difference <= allowed[name]:
            raise BundleError(
                f"{where} {name} differs from reference.npz by {difference:.3g} (at most {allowed[name]:.3g}); {remedy}"
            )
        worst = max(worst, difference)
    length = np.linalg.norm(outputs[1], axis=1)
    if np.abs(length - 1).max() > 0.01:
        raise BundleError(f"{where} embeddings must have length 1, got {length.max():.3g}; {remedy}")
    return worst
