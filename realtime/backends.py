"""Which engine runs the model on this machine, and why; and how a line goes on when a GPU fails under it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np

from realtime.bundle import Bundle, load_reference
from realtime.cache import all_cached
from realtime.cuda import driver_problem
from realtime.engine import OrtEngine
from realtime.errors import BundleError, GpuError, UsageError
from realtime.graphs import PRECISIONS as GRAPH_PRECISIONS
from realtime.graphs import Graph
from realtime.schema import Scores, Window
from realtime.scoring import Engine, verify
from realtime.sidecar import BACKENDS as ENGINES
from realtime.sidecar import rebuild_command
from realtime.trt import TrtEngine, cached_engine

BACKENDS = ("auto", "trt", "rtx", "ort-cuda", "ort")
PRECISIONS = ("auto", *GRAPH_PRECISIONS)
WORTH_TIMING = {"cpu": ("fp32", "int8"), "cuda": ("fp32", "fp16")}  # fp16 is slower than fp32 on a CPU
TIMING_S = 0.03  # for each graph: a start-up waits for it
LEAST_RUNS = 5
WORTH_LEAVING = 0.9  # of fp32's time: whatever takes longer is not faster enough to be told from chance at each start
KINDS = {backend: kind for kind, backend in ENGINES.items()}  # backend: the library
ON_A_GPU = ("fp16", "fp32", "int8")  # in this order where auto precision finds several engines
_DEMANDED = "backend {} was demanded but "
Result = TypeVar("Result")


def open_engine(
    bundle: Bundle,
    backend: str = "auto",
    threads: int = 1,
    precision: str = "fp32",
    engine: Path | None = None,
    trust: bool = False,
) -> Engine:
    """An engine for the bundle, proven on its reference; `why` says what was chosen and why.

    backend: one of BACKENDS; "auto" takes the first that is ready here. precision: one of PRECISIONS; "auto" takes
    the fastest of those whose gates were passed. engine: this TensorRT engine and no other; trust: although it may
    come from elsewhere. An engine on a GPU is Falling: should the GPU fail later, the CPU goes on.
    Raises GpuError where a demanded backend is not there, BundleError where bundle, graph or engine are refused,
    UsageError for names that are unknown or do not go together.
    """
    for name, value, known in (("backend", backend, BACKENDS), ("precision", precision, PRECISIONS)):
        if value not in known:
            raise UsageError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}")
    if engine is not None:
        if backend in ("ort", "ort-cuda"):
            raise UsageError(f"an engine file is TensorRT's, --backend {backend} takes none; leave one of them out")
        found = _open_file(bundle, engine, KINDS.get(backend), None if precision == "auto" else precision, trust)
        return Falling(found, bundle, threads, precision)
    if trust:
        raise UsageError("--trust is about the file that --engine names; name one or leave it out")
    if backend == "auto":
        return _first_ready(bundle, threads, precision)
    if backend == "ort":
        return _open_ort(bundle, threads, precision, "cpu")
    return Falling(_open_gpu(bundle, backend, threads, precision), bundle, threads, precision)


def _first_ready(bundle: Bundle, threads: int, precision: str) -> Engine:
    """TensorRT, TensorRT-RTX, ONNX Runtime on the GPU or on the CPU; `why` has the reason against each before it."""
    problem = driver_problem()
    candidates = ["trt", "rtx", "ort-cuda"] if problem is None else []
    reasons = [] if problem is None else [problem.partition(" (")[0]]
    if problem is None and next(all_cached(), None) is None:  # NVIDIA's libraries take a second to load
        candidates, reasons = ["ort-cuda"], [f"no TensorRT engine was built here: {_build_command(bundle, 'trt')}"]
    for backend in candidates:
        try:
            engine = _open_gpu(bundle, backend, threads, precision)
        except (GpuError, BundleError) as error:
            reasons.append(f"not {backend}: {str(error).removeprefix(_DEMANDED.format(backend))}")
            continue
        engine.why = "; ".join([engine.why, *reasons])
        return Falling(engine, bundle, threads, precision)
    cpu = _open_ort(bundle, threads, precision, "cpu")
    cpu.why = "; ".join([cpu.why, *reasons])
    return cpu


def _open_gpu(bundle: Bundle, backend: str, threads: int, precision: str) -> OrtEngine | TrtEngine:
    """A demanded backend on the GPU. The driver is asked before any library of NVIDIA's is touched."""
    build = "" if backend == "ort-cuda" else _build_command(bundle, backend, precision)
    problem = driver_problem()
    if problem is not None:
        later = f"; on a machine with an NVIDIA GPU build the engine first: {build}" if build else ""
        raise GpuError(f"{_DEMANDED.format(backend)}{problem}; use --backend ort{later}")
    if backend == "ort-cuda":
        return _open_ort(bundle, threads, precision, "cuda")
    for name in ON_A_GPU if precision == "auto" else (precision,):
        path = cached_engine(bundle, KINDS[backend], name)
        if path is not None:
            return _open_file(bundle, path, KINDS[backend], name, trust=False)
    raise BundleError(
        f"bundle {bundle.path}: no {backend} engine of it for this machine was built yet; build one: {build}"
    )


def _build_command(bundle: Bundle, backend: str, precision: str = "auto") -> str:
    return rebuild_command(bundle.path, KINDS[backend], "fp16" if precision == "auto" else precision)


def _open_file(bundle: Bundle, path: Path, kind: str | None, precision: str | None, trust: bool) -> TrtEngine:
    """One TensorRT engine, proven: it may be as far from the reference as the gate of its graph allows."""
    engine = TrtEngine(bundle, path, kind, precision, trust)
    try:
        again = rebuild_command(bundle.path, engine.sidecar.kind, engine.precision, anew=True)
        verify(engine, bundle, remedy=f"build the engine again: {again}")
    except (GpuError, BundleError):
        engine.close()
        raise
    engine.why = "; ".join([f"{engine.precision} in {path.name}", *engine.warnings])
    return engine


def _open_ort(bundle: Bundle, threads: int, precision: str, provider: str) -> OrtEngine:
    """ONNX Runtime with the graph of this precision, or with the fastest one."""
    if precision != "auto":
        engine = OrtEngine(bundle, threads, precision, provider)
        verify(engine, bundle)
        engine.why = f"{precision}, as asked"
        return engine
    engines, left_out = [], []
    for name in WORTH_TIMING[provider]:
        graph = bundle.graphs.get(name)
        if graph is None or not graph.usable:
            left_out.append(f"its {name} graph {graph.judged()}" if graph else f"the bundle has no {name} graph")
            continue
        try:
            engine = OrtEngine(bundle, threads, name, provider)
            verify(engine, bundle)
            engines.append(engine)
        except (BundleError, GpuError) as error:
            if name == "fp32":
                raise
            left_out.append(f"{name} does not give its reference results here ({error})")
    if len(engines) == 1:
        engines[0].why = f"fp32: {'; '.join(left_out)}"
        return engines[0]
    best = _faster(engines, load_reference(bundle).skeleton)
    if best.graph.gate is not None and not best.graph.gate["passed"]:
        best.why += f"; its gate was {best.graph.judged()}"
    return best


def _faster(engines: Sequence[OrtEngine], skeleton: np.ndarray) -> OrtEngine:
    """The one of two engines that is faster at one window, fp32, the first, where it hardly is; the other is closed."""
    ms = timed(engines, skeleton)
    first, second = (1, 0) if ms[1] < WORTH_LEAVING * ms[0] else (0, 1)
    best = engines[first]
    best.why = f"{best.precision}: {ms[first]:.2g} ms a window against {ms[second]:.2g} for {engines[second].precision}"
    engines[second].close()
    return best


def timed(engines: Sequence[Engine], skeleton: np.ndarray) -> list[float]:
    """Milliseconds of each engine at one window of skeleton (n, C, T, V), taken in turns.

    The quarter of the runs that were fastest end there: what else the machine does makes runs slower, never faster.
    """
    spent: list[list[float]] = [[] for _ in engines]
    begun = time.perf_counter()
    run = 0
    while run < LEAST_RUNS or time.perf_counter() - begun < TIMING_S * len(engines):
        window = skeleton[run % len(skeleton)][None]  # (1, C, T, V)
        for engine, kept in zip(engines, spent, strict=True):
            before = time.perf_counter()
            engine.infer(window)
            kept.append((time.perf_counter() - before) * 1e3)
        run += 1
    return [float(np.quantile(kept, 0.25)) for kept in spent]


class Falling:
    """A GPU's engine that goes on as ONNX Runtime on the CPU, with the same windows, once the GPU fails.

    A GPU also fails by answers that are no numbers. `fell_back` then says what happened, and `backend`, `precision` and
    `why` are those of the new engine. What fails after that is an error.
    precision: what was asked for; the CPU keeps to fp32 where that was demanded, else it takes the faster graph.
    """

    def __init__(self, engine: Engine, bundle: Bundle, threads: int, precision: str = "auto") -> None:
        self._engine, self._bundle, self._threads = engine, bundle, threads
        self._precision = "fp32" if precision == "fp32" else "auto"
        self.fell_back: str | None = None

    @property
    def backend(self) -> str:
        """Name, version and device of what runs now."""
        return self._engine.backend

    @property
    def precision(self) -> str:
        """fp32, fp16 or int8."""
        return self._engine.precision

    @property
    def graph(self) -> Graph:
        """The graph that runs, with its gate."""
        return self._engine.graph

    @property
    def why(self) -> str:
        """Why this engine: the choice at the start, or what happened since."""
        return self.fell_back or self._engine.why

    def infer(self, skeleton: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As any engine's."""
        return self._go_on(lambda engine: engine.infer(skeleton))

    def score(self, windows: Sequence[Window]) -> list[Scores]:
        """As any engine's; no window is lost when the GPU fails on it."""
        return self._go_on(lambda engine: engine.score(windows))

    def close(self) -> None:
        """Gives back what the engine holds."""
        self._engine.close()

    def _go_on(self, work: Callable[[Engine], Result]) -> Result:
        try:
            return work(self._engine)
        except (GpuError, BundleError) as error:
            if self.fell_back is not None:
                raise
            failed = self._engine
            self._engine = _open_ort(self._bundle, self._threads, self._precision, "cpu")
            self.fell_back = (
                f"{failed.backend} failed while running ({error}); going on with {self.backend} in {self.precision}"
            )
            with suppress(GpuError):  # what failed may fail again on closing
                failed.close()
            return work(self._engine)
