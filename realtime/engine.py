"""Windows -> Scores by ONNX Runtime, on the CPU or on an NVIDIA GPU: the one door to onnxruntime."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from realtime.bundle import Bundle
from realtime.errors import BundleError, GpuError, UsageError
from realtime.fields import short
from realtime.scoring import BundleEngine
from realtime.sidecar import contract_of

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_CUDA_OPTIONS = {
    "use_tf32": "0",  # fp32 means fp32, as it is proven on the reference
    "cudnn_conv_algo_search": "HEURISTIC",  # the default tries every algorithm anew for each number of people
}
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


class OrtEngine(BundleEngine):
    """ONNX Runtime with one graph of the bundle. provider: "cpu" or "cuda".

    The bytes that were hashed are the bytes that are loaded. Raises BundleError where the bundle has no such graph,
    its gate failed, it cannot be loaded or its inputs and outputs are not those that bundle.json promises; GpuError
    where CUDA was demanded and this onnxruntime does not run on it.
    """

    def __init__(self, bundle: Bundle, threads: int = 1, precision: str = "fp32", provider: str = "cpu") -> None:
        if threads < 1:
            raise UsageError(f"threads must be at least 1, got {threads}")
        _check_graph_of(bundle, precision)
        super().__init__(bundle, precision)
        self._provider = provider
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4  # what goes wrong is raised below; the library's own lines are noise
        # Threads that spin between two frames would take the pose stage's time.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # ARM's own choice would leave convolutions in float whose input is unsigned and output signed; x86 does this.
        options.add_session_config_entry("session.qdqisint8allowed", "0")
        if provider == "cuda":
            _prepare_cuda()
        providers = ["CPUExecutionProvider"] if provider == "cpu" else [(PROVIDERS[provider], _CUDA_OPTIONS)]
        model = bundle.read(self.file)
        try:
            # Unless told not to, onnxruntime itself takes the CPU when the GPU fails, and goes on.
            self._session = onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
        except _ORT_ERRORS as error:
            if provider != "cpu":
                raise GpuError(f"{self.backend} cannot load {self.file} ({_line(error)}); use --backend ort") from error
            self._refuse(f"cannot be loaded by {self.backend} ({_line(error)})", error)
        if PROVIDERS[provider] not in self._session.get_providers():  # onnxruntime takes the CPU and says nothing
            raise GpuError(
                f"backend ort-cuda was demanded but {self.backend} fell back to the CPU: its CUDA or cuDNN libraries "
                "do not load; pip install 'onnxruntime-gpu[cuda,cudnn]', or use --backend ort"
            )
        self._check_puts()
        self._check_contract()

    @property
    def backend(self) -> str:
        """Name, version and device."""
        return f"onnxruntime-{onnxruntime.__version__}/{self._provider}"

    @property
    def file(self) -> str:
        """The graph's file; a CPU has one of its own where that is faster."""
        return (self._provider == "cpu" and self.graph.cpu) or self.graph.file

    def close(self) -> None:
        """Frees the session; nothing can be inferred any more."""
        if hasattr(self, "_session"):
            del self._session

    def _run(self, skeleton: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        try:
            logits, embedding = self._session.run(["logits", "embedding"], {"skeleton": skeleton})
        except _ORT_ERRORS as error:
            if self._provider != "cpu":
                raise GpuError(f"{self.backend} failed on {len(skeleton)} windows ({_line(error)})") from error
            self._refuse(f"failed on {len(skeleton)} windows ({_line(error)})", error)
        return logits, embedding

    def _check_puts(self) -> None:
        """Refuses a graph whose inputs and outputs are not as bundle.json says; None stands for any number."""
        bundle, session = self._bundle, self._session
        skeleton = {"skeleton": (None, bundle.channels, bundle.window, len(bundle.layout))}
        outputs = {"logits": (None, len(bundle.classes)), "embedding": (None, None)}
        self._check_kind("input", session.get_inputs(), skeleton)
        self._check_kind("output", session.get_outputs(), outputs)

    def _check_contract(self) -> None:
        """Refuses a graph that says of itself that it is for other joints, classes and so on; old ones say nothing."""
        text = self._session.get_modelmeta().custom_metadata_map.get("contract")
        if text is None:
            return
        try:
            told = json.loads(text)
        except (ValueError, RecursionError) as error:
            self._refuse(f"has a contract in its metadata that is not JSON ({_line(error)})", error)
        for key, wanted in contract_of(self._bundle).items():
            if not isinstance(told, dict) or told.get(key) != wanted:
                got = short(told.get(key) if isinstance(told, dict) else told)
                self._refuse(f"says that its {key} is {got}, bundle.json says {short(wanted)}")

    def _check_kind(self, kind: str, found: list, wanted: Mapping[str, tuple[int | None, ...]]) -> None:
        names = [put.name for put in found]
        if sorted(names) != sorted(wanted):
            self._refuse(f"must have the {kind}s {', '.join(wanted)}, has {', '.join(names)}")
        for put in found:
            rule = wanted[put.name]
            fits = len(put.shape) == len(rule) and all(r in (None, s) for r, s in zip(rule, put.shape, strict=True))
            if not fits or put.type != "tensor(float)" or isinstance(put.shape[0], int):
                shape = f"({', '.join('N' if i == 0 else str(r or 'D') for i, r in enumerate(rule))})"
                self._refuse(f"must have float32 {put.name} {shape}, has {put.type} {put.shape}")


class PlainSession:
    """ONNX Runtime with any network that comes as a file: on CUDA where this onnxruntime has it, else on the CPU.

    TensorRT's provider is left out: it builds for minutes, anew for each number of people. named: what errors call
    the network. Raises BundleError where it cannot be loaded or fails.
    """

    def __init__(self, model: bytes, named: str, threads: int) -> None:
        self._named = named
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        cuda = PROVIDERS["cuda"] in onnxruntime.get_available_providers()
        if cuda:
            _prepare_cuda()
        providers = [PROVIDERS["cuda"], PROVIDERS["cpu"]] if cuda else [PROVIDERS["cpu"]]
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=providers)
        except _ORT_ERRORS as error:
            raise BundleError(f"{named}: onnxruntime cannot load it ({_line(error)}); name an ONNX file") from error
        self.device = "cuda" if PROVIDERS["cuda"] in self._session.get_providers() else "cpu"
        self.inputs = [(put.name, put.type, list(put.shape)) for put in self._session.get_inputs()]
        self.outputs = [put.name for put in self._session.get_outputs()]

    def __call__(self, batch: np.ndarray) -> list[np.ndarray]:
        """The outputs, in the network's order, for its first input."""
        try:
            return self._session.run(None, {self.inputs[0][0]: batch})
        except _ORT_ERRORS as error:
            raise BundleError(f"{self._named}: onnxruntime failed on input {batch.shape} ({_line(error)})") from error


def _prepare_cuda() -> None:
    """Refuses an onnxruntime without CUDA, and loads the CUDA libraries that came as wheels."""
    if PROVIDERS["cuda"] not in onnxruntime.get_available_providers():
        wheel = "onnxruntime-gpu" if platform.machine() == "x86_64" else "an onnxruntime-gpu made for this board"
        raise GpuError(
            f"backend ort-cuda was demanded but onnxruntime {onnxruntime.__version__} here has no CUDA provider: "
            f"pip uninstall onnxruntime, then pip install {wheel}"
        )
    if hasattr(onnxruntime, "preload_dlls"):  # since 1.21
        onnxruntime.preload_dlls()


def _check_graph_of(bundle: Bundle, precision: str) -> None:
    """Refuses a precision that the bundle lacks, or whose gate failed."""
    graph = bundle.graphs.get(precision)
    make = f"python -m export.trt RUN --precision {precision}"
    if graph is None:
        raise BundleError(
            f"bundle {bundle.path}: it has no {precision} graph, only {', '.join(bundle.graphs)}; "
            f"make a bundle that does: {make}"
        )
    if not graph.usable:
        raise BundleError(
            f"bundle {bundle.path}: its {precision} graph {graph.judged()}; use another precision, or overrule the "
            f"gate where it was made: {make} --allow-drop"
        )


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 160 else text[:157] + "..."
