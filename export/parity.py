"""Whether a graph answers as the one that it was made of: proofs against the trained network, gates between precisions.

Needs no torch but to prove a trained network. N windows, K classes, D width of the embedding.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from export.precision import for_tensorrt
from export.windows import LEAST_GATE, LabelledClip, Windows
from realtime.bundle import Reference
from realtime.errors import ParityError, UsageError

if TYPE_CHECKING:
    from torch import nn

NEEDED = {"fp16": 0.999, "int8": 0.99}  # top-1 agreement with fp32
PROOF_BATCHES = (1, 3, 8)
PROOF_TOLERANCE = 1e-4  # of the largest value of an output
TIMED_BATCHES = (1, 8)
TIMED_S = 1.0  # for each batch size, both graphs together
LEAST_RUNS = 5
BATCH = 32
MOST_DIFFERENCE = 1e6
Tell = Callable[[float], None]  # told the share that is done, from 0 to 1


@dataclass(frozen=True)
class Gate:
    """How a graph compares with its fp32 one, and whether that is enough; an int8 graph also in TensorRT's form of it.

    windows: how many were compared; `source` says whose, and where fp32 gives all of them one class. agreement: share
    with the same best class. allowed: let in although it failed. worst_logits: largest difference of a logit.
    reference: largest difference of each output from reference.npz. accuracy: clips, and the share that "fp32" and
    "this" graph name rightly; None without clips.
    latency_ms: lower quartile at batch "1" and "8" on ONNX Runtime, one core, the two graphs turn by turn.
    """

    precision: str
    windows: int
    source: str
    agreement: float
    needed: float
    passed: bool
    allowed: bool
    worst_logits: float
    reference: dict[str, float]
    accuracy: dict[str, float] | None
    bytes: int
    fp32_bytes: int
    latency_ms: dict[str, float]
    fp32_latency_ms: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """As bundle.json carries it."""
        return asdict(self)


class Session:
    """A graph on ONNX Runtime, on one core: windows (N, C, T, V[, M]) to logits (N, K) and embedding (N, D)."""

    def __init__(self, graph: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def run(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One call."""
        logits, embedding = self._session.run(["logits", "embedding"], {"skeleton": windows})
        return logits, embedding

    def logits(self, windows: np.ndarray, tell: Tell | None = None, span: tuple[float, float] = (0, 1)) -> np.ndarray:
        """Logits of many windows, some at a time. tell hears of the way from the first to the second share of span."""
        parts = []
        for at in range(0, len(windows), BATCH):
            parts.append(self.run(windows[at : at + BATCH])[0])
            if tell:
                tell(span[0] + (span[1] - span[0]) * min(at + BATCH, len(windows)) / len(windows))
        return np.concatenate(parts)


def judge(
    precision: str, fp32: bytes, graph: bytes, windows: Windows, reference: Reference, progress: Tell | None = None
) -> Gate:
    """Compares a graph of less precision with the fp32 one. UsageError for too few windows or an unknown precision."""
    if precision not in NEEDED:
        raise UsageError(f"a gate is for one of {', '.join(NEEDED)}, got {precision!r}")
    if len(windows.gate) < LEAST_GATE:
        raise UsageError(f"a gate needs at least {LEAST_GATE} windows, got {len(windows.gate)}; give more data")
    tell = progress or (lambda share: None)
    theirs, ours = Session(fp32), Session(graph)
    engine = for_tensorrt(graph)  # an engine is made of this form: both must pass
    forms = [ours] if engine is graph else [ours, Session(engine)]
    wanted = theirs.logits(windows.gate, tell, (0.0, 0.3))
    agreement, worst, outputs = 1.0, 0.0, {"logits": 0.0, "embedding": 0.0}
    for form, until in zip(forms, (0.6, 0.9), strict=False):
        logits = form.logits(windows.gate, tell, (until - 0.3, until))
        agreement = min(agreement, float((wanted.argmax(axis=1) == logits.argmax(axis=1)).mean()))
        worst = max(worst, difference(logits, wanted))
        for name, got, kept in zip(outputs, form.run(reference.skeleton), reference[1:], strict=True):
            outputs[name] = max(outputs[name], difference(got, kept))
    accuracy = None
    if windows.clips:
        right = [share_right(session, windows.clips, windows.nothing) for session in (theirs, ours)]
        accuracy = {"clips": len(windows.clips), "fp32": right[0], "this": right[1]}
    fp32_latency, latency = _latencies(theirs, ours, windows.gate)
    tell(1.0)
    source = windows.source
    if len(set(wanted.argmax(axis=1))) == 1:  # then agreement shows little, and whoever reads it must know
        source += ", all of one class to fp32"
    return Gate(
        precision, len(windows.gate), source, agreement, NEEDED[precision],
        agreement >= NEEDED[precision] and worst < MOST_DIFFERENCE, False, worst, outputs, accuracy, len(graph),
        len(fp32), latency, fp32_latency,
    )  # fmt: skip


def difference(got: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference; MOST_DIFFERENCE where it is beyond that or not a number, so that JSON can carry it."""
    with np.errstate(invalid="ignore", over="ignore"):
        largest = float(np.abs(got - wanted).max())
    return largest if largest <= MOST_DIFFERENCE else MOST_DIFFERENCE


def require(gate: Gate, allow_drop: bool) -> Gate:
    """The gate where it was passed; where it was not, marked as allowed if allow_drop. ParityError otherwise."""
    if gate.passed:
        return gate
    if allow_drop:
        return replace(gate, allowed=True)
    cost = ""
    if gate.accuracy:
        cost = f", accuracy {gate.accuracy['fp32']:.1%} -> {gate.accuracy['this']:.1%}"
    other = " or take --precision fp16" if gate.precision == "int8" else ""
    raise ParityError(
        f"{gate.precision} gives fp32's answer in {gate.agreement:.2%} of {gate.windows} windows of {gate.source}, and "
        f"{gate.needed:.1%} are needed (worst logit difference {gate.worst_logits:.3g}{cost}); nothing was written: "
        f"leave {gate.precision} out{other}, calibrate on other people (--data, --held-out), or overrule with "
        "--allow-drop"
    )


def prove(network: nn.Module, graph: bytes, shape: tuple[int, ...]) -> float:
    """Compares a network's own answers with the graph's on ONNX Runtime, for windows of shape (C, T, V[, M]).

    Returns the largest difference of an output as a share of its largest value. ParityError above PROOF_TOLERANCE.
    """
    import torch

    session, worst = Session(graph), 0.0
    for batch in PROOF_BATCHES:
        windows = np.random.default_rng(batch).normal(0, 0.5, (batch, *shape)).astype(np.float32)
        with torch.inference_mode():
            wanted = [output.numpy() for output in network.eval()(torch.from_numpy(windows))]
        for name, got, own in zip(("logits", "embedding"), session.run(windows), wanted, strict=True):
            if got.shape != own.shape:
                raise ParityError(f"the graph's {name} are {got.shape}, the network's {own.shape}; export it anew")
            share = float(np.abs(got - own).max() / max(np.abs(own).max(), 1e-9))
            if not share <= PROOF_TOLERANCE:  # NaN is no proof either
                raise ParityError(
                    f"the graph's {name} differ from the network's by {share:.2g} of their size at batch {batch} (at "
                    f"most {PROOF_TOLERANCE:g}): the graph is not of these weights, or a fold is wrong; export it anew"
                )
            worst = max(worst, share)
    return worst


def share_right(session: Session, clips: Sequence[LabelledClip], nothing: int | None) -> float:
    """Share of the clips whose class the graph names, as train.evaluate answers one. UsageError for none."""
    if not clips:
        raise UsageError("accuracy needs at least one labelled clip, got none")
    every = session.logits(np.concatenate([clip.windows for clip in clips]))
    ends = np.cumsum([len(clip.windows) for clip in clips])[:-1]
    answers = (_answer(logits, nothing) for logits in np.split(every, ends))
    return float(np.mean([answer == clip.truth for answer, clip in zip(answers, clips, strict=True)]))


def _answer(logits: np.ndarray, nothing: int | None) -> int:
    """The class that a clip's windows (W, K) speak for; by their mean where no class stands for "no action"."""
    if nothing is None:
        return int(logits.mean(axis=0).argmax()) if len(logits) else -1
    from train.evaluate import clip_answer  # labelled clips were read by train as well

    return clip_answer(logits, nothing)


def _latencies(theirs: Session, ours: Session, windows: np.ndarray) -> tuple[dict[str, float], dict[str, float]]:
    """Milliseconds of both graphs by batch size, turn by turn: what others on the machine do meets both alike."""
    found: tuple[dict[str, float], dict[str, float]] = ({}, {})
    for batch in TIMED_BATCHES:
        picked = np.ascontiguousarray(windows[:batch])
        times: tuple[list[float], list[float]] = ([], [])
        end = time.perf_counter() + TIMED_S
        while len(times[0]) < LEAST_RUNS or time.perf_counter() < end:
            for session, taken in zip((theirs, ours), times, strict=True):
                started = time.perf_counter()
                session.run(picked)
                taken.append(1e3 * (time.perf_counter() - started))
        for kept, taken in zip(found, times, strict=True):
            kept[str(batch)] = round(statistics.quantiles(taken, n=4)[0], 3)
    return found
