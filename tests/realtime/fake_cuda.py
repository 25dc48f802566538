"""A driver in ordinary memory: what ctypes would find in libcuda.so.1, for the tests of what lies above it."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from realtime import cuda

NAMES = {2: b"CUDA_ERROR_OUT_OF_MEMORY", 100: b"CUDA_ERROR_NO_DEVICE", 700: b"CUDA_ERROR_ILLEGAL_ADDRESS"}


class FakeCuda:
    """One GPU called Orin of compute capability 8.7. fail: name of a function to the code it gives from now on.

    calls: what was called, in order. memory: what is allocated and not yet freed, by address.
    """

    def __init__(self, gpus: int = 1) -> None:
        self.gpus, self.fail, self.calls = gpus, dict[str, int](), list[str]()
        self.memory: dict[int, Any] = {}
        self.retained = 0
        for name in cuda._SIGNATURES:
            setattr(self, name, self._function(name, getattr(self, f"_{name}", None)))

    def _function(self, name: str, act: Any) -> Any:
        def function(*arguments: Any) -> int:
            self.calls.append(name)
            if name in self.fail:
                return self.fail[name]
            return (act(*arguments) if act else 0) or 0

        return function

    def _cuDeviceGetCount(self, count: Any) -> None:
        count._obj.value = self.gpus

    def _cuDeviceGetName(self, name: Any, size: int, device: int) -> None:
        name.value = b"Orin"

    def _cuDeviceGetAttribute(self, value: Any, attribute: int, device: int) -> None:
        value._obj.value = {75: 8, 76: 7}[attribute]

    def _cuDeviceTotalMem_v2(self, memory: Any, device: int) -> None:
        memory._obj.value = 8 << 30

    def _cuDevicePrimaryCtxRetain(self, context: Any, device: int) -> None:
        context._obj.value, self.retained = 1, self.retained + 1

    def _cuDevicePrimaryCtxRelease_v2(self, device: int) -> None:
        self.retained -= 1

    def _cuMemAlloc_v2(self, pointer: Any, size: int) -> None:
        block = ctypes.create_string_buffer(size)
        pointer._obj.value = ctypes.addressof(block)
        self.memory[pointer._obj.value] = block

    def _cuMemHostAlloc(self, pointer: Any, size: int, flags: int) -> None:
        self._cuMemAlloc_v2(pointer, size)

    def _cuMemFree_v2(self, pointer: int) -> None:
        del self.memory[pointer]

    _cuMemFreeHost = _cuMemFree_v2

    def _cuMemcpyHtoDAsync_v2(self, to: int, source: int, size: int, stream: int) -> None:
        ctypes.memmove(to, source, size)

    _cuMemcpyDtoHAsync_v2 = _cuMemcpyHtoDAsync_v2

    def _cuStreamCreate(self, stream: Any, flags: int) -> None:
        stream._obj.value = 7
        self.memory[7] = "a stream"

    def _cuStreamDestroy_v2(self, stream: int) -> None:
        del self.memory[stream]

    def _cuGetErrorName(self, code: int, text: Any) -> int:
        text._obj.value = NAMES.get(code)
        return 0 if code in NAMES else 1

    def _cuGetErrorString(self, code: int, text: Any) -> int:
        text._obj.value = b"in words"
        return 0 if code in NAMES else 1


def install(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """Puts a fake GPU in the place of this machine's driver."""
    fake = FakeCuda()
    monkeypatch.setattr(cuda.ctypes, "CDLL", lambda name: fake)
    return fake
