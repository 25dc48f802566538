"""Windows -> Scores by TensorRT or TensorRT-RTX: the one door of the runtime to both libraries.

The driver is asked before the library is imported, because TensorRT's runtime ends the process where there is none.
Whatever is called here is in TensorRT 10.3 to 11 and in TensorRT-RTX alike. `engine_host_code_allowed` stays off: an
engine may run on the GPU, not on the host.
"""

from __future__ import annotations

import re
from collections import deque
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numpy as np

from realtime.bundle import Bundle
from realtime.cuda import Buffer, Context, CudaError, Stream, devices, driver_problem
from realtime.errors import BundleError, GpuError
from realtime.graphs import FP32_FILE, Graph, graphs_of
from realtime.scoring import BundleEngine
from realtime.sidecar import (
    BACKENDS,
    NAMES,
    Expected,
    Sidecar,
    contract_id,
    find_cached,
    read_engine,
    read_sidecar,
    rebuild_command,
)

LEAST = (10, 3)  # of TensorRT: strongly typed networks as they are built here, and JetPack 6.1's
_INSTALL = {
    "tensorrt": "pip install tensorrt-cu13, or on a Jetson: sudo apt install python3-libnvinfer",
    "tensorrt_rtx": "pip install tensorrt-rtx-cu13",
}
_MENDED_BY_BUILDING = {"VERSION_MISMATCH", "MALFORMED_ENGINE"}  # of what get_engine_validity names
_OUTPUTS = ("logits", "embedding")


def library(kind: str, building: bool = False) -> ModuleType:
    """The library "tensorrt" or "tensorrt_rtx", once a driver and a GPU are known to be there.

    building: TensorRT-RTX's builder alone is wanted, which needs neither. Raises GpuError saying what to install.
    """
    backend = BACKENDS[kind]
    problem = None if building and kind == "tensorrt_rtx" else driver_problem()
    if problem:
        raise GpuError(f"backend {backend} was demanded but {problem}; use --backend ort")
    try:
        if kind == "tensorrt":
            import tensorrt as module
        else:
            import tensorrt_rtx as module
    except (ImportError, OSError, RuntimeError) as error:  # its own libraries are loaded in many ways
        raise GpuError(
            f"backend {backend} was demanded but {NAMES[kind]} cannot be imported ({_line(str(error))}); "
            f"{_INSTALL[kind]}"
        ) from error
    version = tuple(int(part) for part in re.findall(r"\d+", module.__version__)[:2])
    if kind == "tensorrt" and version < LEAST:
        raise GpuError(
            f"backend trt needs TensorRT {'.'.join(map(str, LEAST))} or later, this is {module.__version__}; "
            "on a Jetson, JetPack 6.1 or later brings it"
        )
    return module


def expected_here(bundle: Bundle, kind: str, precision: str) -> Expected:
    """What an engine of this bundle must be to run here, on the first GPU. Raises GpuError."""
    version, gpu = library(kind).__version__, devices()[0]
    return Expected.of(bundle, kind, precision, version, gpu.capability, gpu.name)


def cached_engine(bundle: Bundle, kind: str, precision: str) -> Path | None:
    """The newest engine of the user's cache that fits this bundle and this machine, or None. Raises GpuError."""
    return find_cached(expected_here(bundle, kind, precision))


class TrtEngine(BundleEngine):
    """A TensorRT engine and its memory on the GPU, used by one thread at a time.

    kind, precision: where given, what the engine must be. trust: see `read_engine`. Raises GpuError where the driver,
    the library or the GPU's memory is missing or fails, BundleError where the engine does not fit.
    `warnings` says what is odd about the engine and stops nothing; `graph` has its gate, for `verify`.
    """

    def __init__(
        self,
        bundle: Bundle,
        path: Path,
        kind: str | None = None,
        precision: str | None = None,
        trust: bool = False,
    ) -> None:
        problem = driver_problem()
        if problem:
            raise GpuError(f"engine {path}: {problem}; use --backend ort")
        found = read_sidecar(path, rebuild_command(bundle.path, kind or "tensorrt", precision or "fp16"))
        kind, precision = kind or found.kind, precision or found.build.precision
        super().__init__(bundle, precision)
        self.path, self._mend = path, rebuild_command(bundle.path, kind, precision, anew=True)
        self._trt: Any = library(kind)
        plan, self.sidecar, self.warnings = read_engine(path, expected_here(bundle, kind, precision), trust)
        self.graph = _graph(bundle, self.sidecar, self._mend)
        self._failed = False
        self._cuda: Context | None = Context()
        self._held: list[Buffer | Stream] = []
        self._runtime: Any = None
        self._engine: Any = None
        self._execution: Any = None
        try:
            self._load(plan)
            self._shapes = self._check_tensors()
            self._prepare()
        except (RuntimeError, TypeError) as error:  # what TensorRT's bindings raise, where they do not give None
            self.close()
            raise GpuError(f"engine {path}: {self._name} fails ({_line(str(error))}); use --backend ort") from error
        except BaseException:
            self.close()
            raise

    @property
    def backend(self) -> str:
        """Name, version and device, such as tensorrt-10.3.0/Orin."""
        return f"{self.sidecar.kind.replace('_', '-')}-{self._trt.__version__}/{self._gpu}"

    @property
    def file(self) -> str:
        """The engine's name."""
        return self.path.name

    def close(self) -> None:
        """Gives everything back, TensorRT's objects before the memory under them. Never raises."""
        self._execution = self._engine = self._runtime = None
        while self._held:
            self._held.pop().close()
        if self._cuda is not None:
            self._cuda.close()
            self._cuda = None

    def _load(self, plan: bytes) -> None:
        """Deserialises the plan, which read_engine let pass; TensorRT's own words go into what is raised."""
        assert self._cuda is not None
        self._gpu = self._cuda.device.name
        self._log = logger_of(self._trt)
        self._log.words.clear()
        self._runtime = self._trt.Runtime(self._log)
        if not self._runtime:
            raise GpuError(f"engine {self.path}: {self._name} does not start ({self._said()}); use --backend ort")
        self._check_validity(plan)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            self._refuse(f"{self._name} cannot load it ({self._said()})")
        wanted = contract_id(self.sidecar.contract)
        if self._engine.name != wanted:
            self._refuse(f"it calls itself {self._engine.name!r} where its sidecar's contract is {wanted!r}")
        self._execution = self._engine.create_execution_context()
        if self._execution is None:
            raise GpuError(f"engine {self.path}: the GPU has no room for it ({self._said()}); use --backend ort")

    def _check_validity(self, plan: bytes) -> None:
        """Asks TensorRT-RTX itself whether the plan runs here; TensorRT has no such question."""
        if not hasattr(self._runtime, "get_engine_validity"):
            return
        validity, bits = self._runtime.get_engine_validity(plan)
        known = self._trt.EngineInvalidityDiagnostics.__members__
        reasons = [name for name, member in known.items() if int(bits) & int(member)]
        said = f"{self._name} calls it {validity.name}" + "".join(f" {name}" for name in reasons)
        if validity == self._trt.EngineValidity.SUBOPTIMAL:
            self.warnings += (said,)
        elif validity != self._trt.EngineValidity.VALID:
            said += f" on {self._gpu} ({self._said()})"
            if reasons and _MENDED_BY_BUILDING.issuperset(reasons):
                self._refuse(said)
            raise GpuError(f"engine {self.path}: {said}; use --backend ort")

    def _check_tensors(self) -> dict[str, tuple[int, ...]]:
        """Largest shape of each tensor, once inputs, outputs, types and shapes are those of the bundle."""
        bundle, engine, trt = self._bundle, self._engine, self._trt
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        modes = {name: engine.get_tensor_mode(name) for name in names}
        wanted = {"skeleton": trt.TensorIOMode.INPUT, **dict.fromkeys(_OUTPUTS, trt.TensorIOMode.OUTPUT)}
        if modes != wanted:
            self._refuse(f"it must have the tensors {', '.join(wanted)}, has {', '.join(modes)}")
        least, _, most = (tuple(shape) for shape in engine.get_tensor_profile_shape("skeleton", 0))
        self.max_batch = most[0]
        rest = (bundle.channels, bundle.window, len(bundle.layout))
        if least != (1, *rest) or most[1:] != rest:
            self._refuse(f"skeleton must go from {(1, *rest)} up, goes from {least} to {most}")
        shapes: dict[str, tuple[int, ...]] = {"skeleton": most}
        for name, rule in (("logits", len(bundle.classes)), ("embedding", None)):
            _, *width = engine.get_tensor_shape(name)
            if len(width) != 1 or width[0] < 1 or rule not in (None, width[0]):
                self._refuse(f"{name} must be (N, {rule or 'D'}), is (N, {', '.join(map(str, width))})")
            shapes[name] = (self.max_batch, *width)
        for name in shapes:
            if engine.get_tensor_dtype(name) != trt.float32:
                self._refuse(f"{name} must be float32, is {engine.get_tensor_dtype(name)}")
        return shapes

    def _prepare(self) -> None:
        """All memory for the largest batch, once: nothing is allocated while the line runs."""
        assert self._cuda is not None
        self._stream = Stream(self._cuda)
        self._held.append(self._stream)
        self._buffers: dict[str, Buffer] = {}
        for name, shape in self._shapes.items():
            buffer = Buffer(self._cuda, shape)
            self._held.append(buffer)
            self._buffers[name] = buffer
            if not self._execution.set_tensor_address(name, buffer.address):
                self._fail(f"it took no memory for {name}")

    def _run(self, skeleton: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._cuda is None or self._failed:
            raise GpuError(f"engine {self.path}: it {'failed before' if self._failed else 'is closed'}; open it again")
        starts = range(0, len(skeleton), self.max_batch)
        try:
            self._cuda.use()
            chunks = [self._run_chunk(skeleton[start : start + self.max_batch]) for start in starts]
        except (CudaError, RuntimeError) as error:  # RuntimeError: what TensorRT's bindings raise
            self._fail(str(error), error)
        logits, embedding = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
        return logits, embedding

    def _run_chunk(self, skeleton: np.ndarray) -> tuple[np.ndarray, ...]:
        """At most `max_batch` windows: copied there, run, copied back, waited for."""
        self._log.words.clear()
        count = len(skeleton)
        if not self._execution.set_input_shape("skeleton", skeleton.shape):
            self._fail(f"it refuses the shape {skeleton.shape}")
        self._buffers["skeleton"].send(skeleton, self._stream)
        if not self._execution.execute_async_v3(self._stream.handle):
            self._fail(f"it does not run {count} windows")
        for name in _OUTPUTS:
            self._buffers[name].fetch(count, self._stream)
        self._stream.wait()
        return tuple(self._buffers[name].rows(count) for name in _OUTPUTS)

    @property
    def _name(self) -> str:
        return f"{NAMES[self.sidecar.kind]} {self._trt.__version__}"

    def _said(self) -> str:
        return _line("; ".join(dict.fromkeys(self._log.words))) or "it says nothing of why"

    def _fail(self, what: str, cause: BaseException | None = None) -> NoReturn:
        """A GPU that failed once may not be asked again: most of its errors stick to the process."""
        self._failed = True
        raise GpuError(f"engine {self.path}: {what} ({self._name} on {self._gpu}: {self._said()})") from cause

    def _refuse(self, what: str, cause: BaseException | None = None) -> NoReturn:
        raise BundleError(f"engine {self.path}: {what}; build it here: {self._mend}") from cause


def _graph(bundle: Bundle, sidecar: Sidecar, mend: str) -> Graph:
    """The graph that the engine was built from: the bundle's, or the one that was converted for this build.

    Raises BundleError where its gate is missing, or failed and nobody overruled it.
    """
    precision, gate = sidecar.build.precision, sidecar.source.gate
    graph = bundle.graphs.get(precision)
    if graph is None:
        entries = {"fp32": {"file": FP32_FILE, "gate": None}, precision: {"file": FP32_FILE, "gate": gate}}
        try:
            graph = graphs_of(bundle.path, entries, (FP32_FILE,))[precision]
        except BundleError as error:
            raise BundleError(
                f"bundle {bundle.path}: it has no {precision} graph, and the engine's sidecar no gate for the one it "
                f"was built from; build it again: {mend}"
            ) from error
    if not graph.usable:
        raise BundleError(
            f"bundle {bundle.path}: its {precision} graph {graph.judged()}; use another precision, or overrule the "
            f"gate where it was made: python -m export.trt RUN --precision {precision} --allow-drop"
        )
    return graph


@lru_cache
def logger_of(trt: Any) -> Any:
    """The one logger for a library, building included, since TensorRT holds on to the first logger that it is given.

    `words` has the last errors, a line each.
    """

    class Keeping(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.words: deque[str] = deque(maxlen=8)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.words.append(" ".join(message.split()))

    return Keeping()


def _line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:297] + "..."
