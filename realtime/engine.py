"""Windows -> Scores: the one door to onnxruntime, and the seam where other engines come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn, Protocol

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from realtime.bundle import Bundle, load_reference
from realtime.errors import BundleError, GpuError, UsageError
from realtime.features import features
from realtime.fields import REMEDY
from realtime.pipeline import ScoresWindows
from realtime.schema import Scores, Window

TOLERANCE = 1e-3  # largest difference from the trained model's own outputs
BACKENDS = ("auto", "ort")
# onnxruntime's errors have no parent of their own.
_ORT_ERRORS = (
    ort_errors.EPFail,
    ort_errors.EngineError,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    RuntimeError,
)


class Engine(ScoresWindows, Protocol):
    """What scores windows with a bundle's model."""

    @property
    def backend(self) -> str:
        """Name, version and device, such as onnxruntime-1.20.0/cpu."""

    def infer(self, skeleton: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Network input (N, C, T, V) float32 -> logits (N, K), embedding (N, D) float32, all finite."""


class OrtEngine:
    """ONNX Runtime on the CPU.

    The bytes that were hashed are the bytes that are loaded. Raises BundleError where the model cannot be loaded or
    its inputs and outputs are not those that bundle.json promises.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        if threads < 1:
            raise UsageError(f"threads must be at least 1, got {threads}")
        self._bundle = bundle
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4  # what goes wrong is raised below; the library's own lines are noise
        # Threads that spin between two frames would take the pose stage's time.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        model = bundle.read("model.onnx")
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except _ORT_ERRORS as error:
            self._refuse(f"cannot be loaded by {self.backend} ({_line(error)})", error)
        self._check_graph()

    @property
    def backend(self) -> str:
        """Name, version and device."""
        return f"onnxruntime-{onnxruntime.__version__}/cpu"

    def infer(self, skeleton: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Network input (N, C, T, V) float32 -> logits (N, K), embedding (N, D).

        Raises ValueError for input of another shape or not finite, BundleError where the model fails or gives
        something that is not finite.
        """
        bundle = self._bundle
        shape = (bundle.channels, bundle.window, len(bundle.layout))
        if skeleton.ndim != 4 or skeleton.shape[1:] != shape or skeleton.dtype != np.float32:
            raise ValueError(f"the model needs float32 (N, {shape}), got {skeleton.dtype} {skeleton.shape}")
        if not np.isfinite(skeleton).all():
            raise ValueError(
                "the model's input 'skeleton' has values that are not finite; the features let them through"
            )
        try:
            logits, embedding = self._session.run(["logits", "embedding"], {"skeleton": skeleton})
        except _ORT_ERRORS as error:
            self._refuse(f"failed on {len(skeleton)} windows ({_line(error)})", error)
        for name, array in (("logits", logits), ("embedding", embedding)):
            if len(array) != len(skeleton):
                self._refuse(f"gave {len(array)} rows of {name} for {len(skeleton)} windows")
            if not np.isfinite(array).all():
                self._refuse(f"gave values of {name} that are not finite")
        return logits, embedding

    def score(self, windows: Sequence[Window]) -> list[Scores]:
        """One Scores for each window, in order, from one batch. Raises ValueError, BundleError as `infer`."""
        if not windows:
            return []
        joints = np.stack([window.joints for window in windows])  # (N, T, V, 3)
        confidence = np.stack([window.confidence for window in windows])  # (N, T, V)
        for window, finite in zip(windows, np.isfinite(joints).all(axis=(1, 2, 3)), strict=True):
            if not finite:
                raise ValueError(f"the window of track {window.track} at frame {window.index} has non-finite joints")
        logits, embedding = self.infer(features(joints, confidence, self._bundle.streams))
        probabilities = softmax(logits, self._bundle.temperature)
        return [
            Scores(w.index, w.captured_ns, w.track, w.start_ns, logits[i], probabilities[i], embedding[i])
            for i, w in enumerate(windows)
        ]

    def _check_graph(self) -> None:
        """Refuses a graph whose inputs and outputs are not as bundle.json says; None stands for any number."""
        bundle, session = self._bundle, self._session
        skeleton = {"skeleton": (None, bundle.channels, bundle.window, len(bundle.layout))}
        outputs = {"logits": (None, len(bundle.classes)), "embedding": (None, None)}
        self._check_puts("input", session.get_inputs(), skeleton)
        self._check_puts("output", session.get_outputs(), outputs)

    def _check_puts(self, kind: str, found: list, wanted: Mapping[str, tuple[int | None, ...]]) -> None:
        names = [put.name for put in found]
        if sorted(names) != sorted(wanted):
            self._refuse(f"must have the {kind}s {', '.join(wanted)}, has {', '.join(names)}")
        for put in found:
            rule = wanted[put.name]
            fits = len(put.shape) == len(rule) and all(r in (None, s) for r, s in zip(rule, put.shape, strict=True))
            if not fits or put.type != "tensor(float)" or isinstance(put.shape[0], int):
                shape = f"({', '.join('N' if i == 0 else str(r or 'D') for i, r in enumerate(rule))})"
                self._refuse(f"must have float32 {put.name} {shape}, has {put.type} {put.shape}")

    def _refuse(self, what: str, cause: BaseException | None = None) -> NoReturn:
        raise BundleError(f"bundle {self._bundle.path}: model.onnx {what}; {REMEDY}") from cause


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities (..., K) float32 of logits (..., K) divided by the temperature."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)


def verify(engine: Engine, bundle: Bundle) -> float:
    """Proves the engine on the bundle's reference: outputs within 1e-3 and the same best class.

    Returns the largest difference. Raises BundleError where the proof fails.
    """
    reference = load_reference(bundle)
    worst = 0.0
    outputs = engine.infer(reference.skeleton)
    for name, got, wanted in zip(("logits", "embedding"), outputs, reference[1:], strict=True):
        if got.shape != wanted.shape:
            raise BundleError(
                f"bundle {bundle.path}: {name} is {got.shape}, reference.npz says {wanted.shape}; {REMEDY}"
            )
        difference = float(np.abs(got - wanted).max())
        if not difference <= TOLERANCE:
            raise BundleError(
                f"bundle {bundle.path}: on {engine.backend} {name} differs from reference.npz by {difference:.3g} "
                f"(at most {TOLERANCE}); {REMEDY}"
            )
        worst = max(worst, difference)
    differing = np.flatnonzero(outputs[0].argmax(axis=1) != reference.logits.argmax(axis=1))
    if len(differing):
        raise BundleError(
            f"bundle {bundle.path}: on {engine.backend} the best class of reference window {differing[0]} is another; "
            f"{REMEDY}"
        )
    length = np.linalg.norm(outputs[1], axis=1)
    if np.abs(length - 1).max() > 0.01:
        raise BundleError(f"bundle {bundle.path}: embeddings must have length 1, got {length.max():.3g}; {REMEDY}")
    return worst


def open_engine(bundle: Bundle, backend: str = "auto", threads: int = 1) -> Engine:
    """An engine for the bundle, proven on its reference. backend: "auto" or "ort", which are the same today.

    Raises GpuError for "trt", UsageError for any other name, BundleError where the bundle is refused.
    """
    if backend == "trt":
        raise GpuError("backend trt was demanded but this release has no TensorRT engine; use --backend ort")
    if backend not in BACKENDS:
        raise UsageError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    engine = OrtEngine(bundle, threads)
    verify(engine, bundle)
    return engine


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 160 else text[:157] + "..."
