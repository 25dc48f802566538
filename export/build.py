"""Builds TensorRT engines of ONNX graphs: the one door to Polygraphy and to the builders of both TensorRTs.

The precision lies in the graph, the network is strongly typed, and TF32 is off, so an engine computes what its graph
says and nothing less. One recipe serves TensorRT 10.3 to 11 and TensorRT-RTX, whose builder needs neither GPU nor
driver.
"""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from realtime.cache import cache_folder
from realtime.cuda import devices
from realtime.errors import BundleError, UsageError
from realtime.fields import short
from realtime.sidecar import BACKENDS, NAMES
from realtime.trt import library, logger_of

KINDS = {backend: kind for kind, backend in BACKENDS.items()}  # "trt": "tensorrt", "rtx": "tensorrt_rtx"
MAX_BATCH = 8  # people in one call, unless said otherwise
MOST_BATCH = 1024
WORKSPACE_MB = 512
RTX_OWN_CHOICE = "8.0+"  # the documented 8.0, 8.6, 8.9, 12.0 and later
_QUOTED = 300  # characters of TensorRT's own words in an error
Step = Callable[[float], None]  # told the share of the build that is done


class Target(NamedTuple):
    """What a backend builds with and for on this machine."""

    version: str  # of the library
    capability: str  # "8.7"; "8.0+" for TensorRT-RTX's own choice
    gpu: str | None  # the name of this machine's; None without one


class Phases:
    """The share of a build that is done, from TensorRT's nested phases of unequal and unknown length."""

    def __init__(self) -> None:
        self._open: dict[str, list[int]] = {}  # phase: steps done, steps in all; the innermost last
        self.share = 0.0

    def start(self, name: str, steps: int) -> None:
        """A phase begins, inside those that are open."""
        self._open[name] = [0, max(steps, 1)]

    def step(self, name: str, number: int) -> None:
        """Step `number` (from 0) of a phase is done."""
        if name in self._open:
            self._open[name][0] = number + 1
            self._look()

    def finish(self, name: str) -> None:
        """A phase has ended."""
        self._open.pop(name, None)

    def _look(self) -> None:
        share, width = 0.0, 1.0
        for done, steps in self._open.values():
            share += width * min(done, steps) / steps
            width /= steps
        self.share = max(self.share, min(share, 1.0))  # phases may begin again; what is shown never goes back


def build_plan(
    graph: bytes, name: str, backend: str, *, max_batch: int = MAX_BATCH, opt_batch: int = 1,
    workspace_mb: int = WORKSPACE_MB, capabilities: Sequence[str] = (), step: Step | None = None,
) -> bytes:  # fmt: skip
    """Parses the graph and builds its engine for batches of 1 to max_batch, fastest at opt_batch: the plan's bytes.

    name: what the engine bears as its own name, the id of its contract. capabilities: such as "8.6", for TensorRT-RTX
    alone; its own choice where not given. Raises BundleError quoting TensorRT where it refuses the graph, GpuError
    where the backend is not there, UsageError for numbers that cannot be.
    """
    if not 1 <= opt_batch <= max_batch <= MOST_BATCH:
        raise UsageError(
            f"an engine needs 1 <= opt batch <= max batch <= {MOST_BATCH}, got {opt_batch} and {max_batch}"
        )
    builder = _Builder(backend, capabilities)
    network = builder.parse(graph)
    network.name = name
    batches, settings = (1, opt_batch, max_batch), {"WORKSPACE": workspace_mb << 20}
    with builder.polygraphy.quiet(), _cancellable() as cancelled:
        return builder.build(batches, settings, _monitor(builder.trt, step, cancelled), cancelled)


def target_of(backend: str, capabilities: Sequence[str] = ()) -> Target:
    """What `build_plan` would build with and for; the same errors, before any work."""
    trt = library(KINDS[backend], building=True)
    here = next(iter(devices()), None)
    chosen = _capabilities(trt, backend, capabilities, here.capability if here else None)
    return Target(trt.__version__, "+".join(chosen) or RTX_OWN_CHOICE, here.name if here else None)


class _Builder:
    """One library with what it needs to parse one graph and build it."""

    def __init__(self, backend: str, capabilities: Sequence[str]) -> None:
        self.backend, self.trt = backend, library(KINDS[backend], building=True)
        self.name = f"{NAMES[KINDS[backend]]} {self.trt.__version__}"
        self.polygraphy = _polygraphy(backend)
        self._capability = target_of(backend, capabilities).capability
        self._logger = logger_of(self.trt)
        self._words = self._logger.words

    def parse(self, graph: bytes) -> Any:
        """The graph as a strongly typed network."""
        self._words.clear()
        self._builder = self.trt.Builder(self._logger)
        flags = 1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)  # TensorRT 11 knows nothing else
        self._network = self._builder.create_network(flags)
        self._parser = self.trt.OnnxParser(self._network, self._logger)
        if not self._parser.parse(graph):
            errors = [self._parser.get_error(i) for i in range(self._parser.num_errors)]
            said = [f"{e.node_operator()} {e.node_name()}: {e.desc()}".lstrip(" :") for e in errors] or [*self._words]
            raise BundleError(
                f"{self.name} refuses this graph ({_quote(said)}); export it again with: "
                "python -m export.trt CKPT --replace"
            )
        if self._network.num_inputs != 1:
            raise BundleError(
                f"this graph has {self._network.num_inputs} inputs and not the one that windows go into; export it "
                "again with: python -m export.trt CKPT --replace"
            )
        return self._network

    def build(
        self, batches: tuple[int, int, int], limits: dict[str, int], monitor: Any, cancelled: threading.Event
    ) -> bytes:
        """The plan for these fewest, usual and most people. KeyboardInterrupt where it was cancelled."""
        trt, given = self.trt, self._network.get_input(0)
        rest = tuple(given.shape)[1:]  # (C, T, V) or (C, T, V, M)
        profile = self.polygraphy.Profile().add(given.name, *((batch, *rest) for batch in batches))
        cache = _timing_cache(trt.__version__, self._capability) if self.backend == "trt" else None
        settings: dict[str, Any] = {
            "profiles": [profile],
            "memory_pool_limits": {getattr(trt.MemoryPoolType, name): size for name, size in limits.items()},
            "builder_optimization_level": 3,
            "profiling_verbosity": trt.ProfilingVerbosity.LAYER_NAMES_ONLY,
            "progress_monitor": monitor,
        }
        if cache is not None and cache.exists():
            settings["load_timing_cache"] = str(cache)
        if self.backend == "rtx" and self._capability != RTX_OWN_CHOICE:
            wanted = [entry.split(".") for entry in self._capability.split("+")]
            settings["compute_capabilities"] = [(int(major), int(minor)) for major, minor in wanted]
        config = self.polygraphy.CreateConfig(**settings)(self._builder, self._network)
        config.clear_flag(trt.BuilderFlag.TF32)  # Polygraphy leaves it set for TensorRT-RTX
        self._words.clear()
        parsed, save = (self._builder, self._network, self._parser), None if cache is None else str(cache)
        try:
            return bytes(self.polygraphy.EngineBytesFromNetwork(parsed, config=config, save_timing_cache=save)())
        except self.polygraphy.PolygraphyException:
            if cancelled.is_set():
                raise KeyboardInterrupt from None
            what = f"{self.name} cannot build an engine of this graph ({_quote(self._words)})"
            raise BundleError(f"{what}; {_remedy(self.backend, self._words)}") from None


@dataclass(frozen=True)
class _Polygraphy:
    """What is used of Polygraphy, imported for one of the two TensorRTs."""

    Profile: Any
    CreateConfig: Any
    EngineBytesFromNetwork: Any
    PolygraphyException: type[Exception]
    quiet: Callable[[], Any]


def _polygraphy(backend: str) -> _Polygraphy:
    """Polygraphy for this backend. It looks at the environment once, when it is first imported, and never again."""
    rtx, variable = backend == "rtx", "POLYGRAPHY_USE_TENSORRT_RTX"
    before = os.environ.get(variable)
    os.environ[variable] = str(int(rtx))
    try:
        from polygraphy import config
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX
        from polygraphy.backend.trt import CreateConfig, EngineBytesFromNetwork, Profile
        from polygraphy.exception import PolygraphyException
        from polygraphy.logger import G_LOGGER
    except ImportError as error:
        raise UsageError(
            f"building an engine needs Polygraphy, which cannot be imported ({short(str(error))}); install it with: "
            "pip install -e '.[trt]'"
        ) from error
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before
    if rtx != config.USE_TENSORRT_RTX:
        raise UsageError(
            f"this process has built with {NAMES[KINDS['trt' if rtx else 'rtx']]} already, and Polygraphy keeps to one "
            f"library; build with --backend {backend} in a process of its own"
        )
    return _Polygraphy(
        Profile,
        CreateConfigRTX if rtx else CreateConfig,
        EngineBytesFromNetwork,
        PolygraphyException,
        lambda: _quiet(G_LOGGER),
    )


@contextmanager
def _quiet(logger: Any) -> Iterator[None]:
    """Polygraphy prints nothing: what matters is raised. It also calls what TensorRT-RTX has deprecated."""
    with logger.verbosity(logger.CRITICAL + 1), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _capabilities(trt: Any, backend: str, wanted: Sequence[str], here: str | None) -> tuple[str, ...]:
    """The compute capabilities to build for; for TensorRT-RTX none of them is its own choice."""
    if backend == "trt":
        if here is None or (wanted and tuple(wanted) != (here,)):
            raise UsageError(
                f"TensorRT builds for the GPU of this machine ({here}) alone, not for {', '.join(wanted)}; leave "
                "--compute-capability out, or take --backend rtx"
            )
        return (here,)
    wanted = tuple(dict.fromkeys(wanted))
    members = [name[2:] for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    known = sorted((f"{name[:-1]}.{name[-1]}" for name in members), key=float)
    for entry in wanted:
        if entry not in known:
            raise UsageError(
                f"TensorRT-RTX {trt.__version__} builds for compute capability {', '.join(known)}, got {entry!r}"
            )
    # Its own choice leaves Turing out, so on such a GPU that is what must be asked for.
    return wanted or (("7.5",) if here == "7.5" else ())


def _timing_cache(version: str, capability: str) -> Path | None:
    """Where measured times are kept: of one release on one kind of GPU. TensorRT-RTX measures none when it builds.

    None where this user can keep none: times are then measured again, and an engine for --out is built all the same.
    """
    try:
        folder = cache_folder().parent / "timing"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, UsageError):
        return None
    if not os.access(folder, os.W_OK):
        return None
    return folder / f"trt{version}.sm{capability.replace('.', '')}.cache"


def _monitor(trt: Any, step: Step | None, cancelled: threading.Event) -> Any:
    """Tells `step` how far the build is, and stops it once `cancelled` is set. Nothing may be raised in here."""

    class Watching(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._phases = Phases()

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self._phases.start(name, steps)

        def step_complete(self, name: str, number: int) -> bool:
            self._phases.step(name, number)
            if step is not None:
                step(self._phases.share)
            return not cancelled.is_set()

        def phase_finish(self, name: str) -> None:
            self._phases.finish(name)

    return Watching()


@contextmanager
def _cancellable() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets while TensorRT's own code runs, where an exception would end the process."""
    cancelled = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield cancelled
        return
    before = signal.signal(signal.SIGINT, lambda *_: cancelled.set())
    try:
        yield cancelled
    finally:
        signal.signal(signal.SIGINT, before)
    if cancelled.is_set():
        raise KeyboardInterrupt


def _quote(words: Iterable[str]) -> str:
    """TensorRT's own words, in one line."""
    text = "; ".join(dict.fromkeys(" ".join(word.split()) for word in words)) or "it says nothing of why"
    return text if len(text) <= _QUOTED else text[: _QUOTED - 3] + "..."


def _remedy(backend: str, words: Iterable[str]) -> str:
    """What to try next, by what was said."""
    if any("memory" in word.lower() for word in words):
        return "free memory on the GPU, or give less room with a smaller --max-batch"
    if backend == "rtx" and any("FP32 GEMM" in word for word in words):
        return "take --precision fp16, which this compute capability can"
    return "try another --precision, or the portable way: python -m realtime.run --backend ort"
