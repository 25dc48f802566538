"""TensorRT as its runner sees it, in ordinary memory: it multiplies, and fails where it is told to."""

from __future__ import annotations

import ctypes
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from realtime.bundle import Bundle
from realtime.sidecar import contract_id, contract_of

WIDTH = 4  # D of the embedding


class FakeTrt(ModuleType):
    """The library. What it deserialises, whatever the bytes are, is an engine of this bundle.

    name, tensors, least, most, type: of that engine. fail: names of the calls that fail, each with what the logger is
    told. calls: what was called, in order. gain: of the logits; another one stands for other weights.
    """

    float32 = "DataType.FLOAT"
    TensorIOMode = SimpleNamespace(INPUT="INPUT", OUTPUT="OUTPUT")

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING = range(3)

    def __init__(self, bundle: Bundle, kind: str, version: str) -> None:
        super().__init__(kind)
        self.__version__, self.name = version, contract_id(contract_of(bundle))
        one = (bundle.channels, bundle.window, len(bundle.layout))
        self.tensors = {"skeleton": (-1, *one), "logits": (-1, len(bundle.classes)), "embedding": (-1, WIDTH)}
        self.least, self.most, self.type, self.gain = (1, *one), (4, *one), self.float32, 1.0
        self.fail, self.calls = dict[str, str](), list[str]()

    def fails(self, call: str) -> bool:
        """Notes the call; where it is to fail, tells the logger why."""
        self.calls.append(call)
        if call in self.fail:
            self.logger.log(self.ILogger.ERROR, self.fail[call])
            self.logger.log(self.ILogger.WARNING, "a warning that nobody quotes")
        return call in self.fail

    def Runtime(self, logger: Any) -> Any:
        """The runtime: a bare object with the one method that may be called."""
        self.logger = logger
        return None if self.fails("Runtime") else SimpleNamespace(deserialize_cuda_engine=self._deserialise)

    def _deserialise(self, plan: bytes) -> FakeEngine | None:
        return None if self.fails("deserialize_cuda_engine") else FakeEngine(self)


class FakeEngine:
    """What deserialising gives."""

    def __init__(self, trt: FakeTrt) -> None:
        self._trt, self.name, self.num_io_tensors = trt, trt.name, len(trt.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self._trt.tensors)[index]

    def get_tensor_mode(self, name: str) -> str:
        return "INPUT" if name == "skeleton" else "OUTPUT"

    def get_tensor_dtype(self, name: str) -> str:
        return self._trt.type

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._trt.tensors[name]

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        return [self._trt.least, self._trt.least, self._trt.most]

    def create_execution_context(self) -> FakeExecution | None:
        return None if self._trt.fails("create_execution_context") else FakeExecution(self._trt)


class FakeExecution:
    """Runs on the addresses it was given, as soon as it is asked."""

    def __init__(self, trt: FakeTrt) -> None:
        self._trt, self._places = trt, dict[str, int]()

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._places[name] = address
        return not self._trt.fails("set_tensor_address")

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shape = shape
        return not self._trt.fails("set_input_shape") and shape[0] <= self._trt.most[0]

    def execute_async_v3(self, stream: int) -> bool:
        skeleton = self._array("skeleton", self._shape)
        logits, embedding = answers(skeleton, self._trt.tensors["logits"][1], self._trt.gain)
        self._array("logits", logits.shape)[:] = logits
        self._array("embedding", embedding.shape)[:] = embedding
        return not self._trt.fails("execute_async_v3")

    def _array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        memory = (ctypes.c_float * int(np.prod(shape))).from_address(self._places[name])
        return np.ctypeslib.as_array(memory).reshape(shape)


def answers(skeleton: np.ndarray, classes: int, gain: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """What the fake engine gives for skeleton (N, C, T, V): logits (N, K) and embedding (N, D) of length 1."""
    flat = skeleton.reshape(len(skeleton), -1)
    logits = np.stack([gain * flat[:, k] for k in range(classes)], axis=1)
    return logits, np.tile(np.eye(1, WIDTH, dtype=np.float32), (len(skeleton), 1))


def install(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle, kind: str = "tensorrt", version: str = "10.3.0"
) -> FakeTrt:
    """Puts the fake in the place of the library of this kind."""
    fake = FakeTrt(bundle, kind, version)
    monkeypatch.setitem(sys.modules, kind, fake)
    return fake
