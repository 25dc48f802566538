"""The GPU through its driver alone: ctypes on libcuda.so.1, no CUDA toolkit and no torch.

Every call's return code is checked and named. `driver_problem` comes before anything of TensorRT: on a machine
without a driver, TensorRT's runtime object ends the process instead of raising an error.
One thread at a time uses a Context and what was made on it; it may be another thread later.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np

from realtime.errors import GpuError

LIBRARY = "libcuda.so.1"
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for other users of the default stream
_CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR

# cuda.h: a CUdevice is an int, a CUdeviceptr 64 bits, a CUcontext and a CUstream a pointer each.
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDeviceTotalMem_v2": (POINTER(c_size_t), c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxSetCurrent": (c_void_p,),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemHostAlloc": (POINTER(c_void_p), c_size_t, c_uint),
    "cuMemFreeHost": (c_void_p,),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
}


class CudaError(GpuError):
    """A call of the driver that failed: its name, the code's name and meaning. code: the CUresult, -1 for none."""

    def __init__(self, message: str, code: int = -1) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU. capability: compute capability such as "8.7"."""

    index: int
    name: str
    capability: str
    memory_bytes: int


class Driver:
    """The driver's functions. library: libcuda as ctypes loads it. Raises CudaError where it lacks a function."""

    def __init__(self, library: Any) -> None:
        self._library = library
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name, None)
            if function is None:
                raise CudaError(f"the NVIDIA driver ({LIBRARY}) is too old: it has no {name}; update the driver")
            function.argtypes, function.restype = arguments, c_int

    def call(self, name: str, *arguments: Any, about: str = "") -> None:
        """Calls a function. about: what it was asked, for the message. Raises CudaError for any code but 0."""
        code = getattr(self._library, name)(*arguments)
        if code:
            raise CudaError(f"{name} failed{about and f' ({about})'}: {self._meaning(code)}", code)

    def _meaning(self, code: int) -> str:
        """Such as "CUDA_ERROR_OUT_OF_MEMORY, out of memory"."""
        found = []
        for name in ("cuGetErrorName", "cuGetErrorString"):
            text = c_char_p()
            if getattr(self._library, name)(code, byref(text)) == 0 and text.value:
                found.append(text.value.decode(errors="replace"))
        return ", ".join(found) or f"error {code}"


def load() -> Driver:
    """The driver of this machine, initialised. Raises CudaError."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise CudaError(f"no NVIDIA driver is installed ({error})") from error
    driver = Driver(library)
    driver.call("cuInit", 0)
    return driver


def driver_problem() -> str | None:
    """Why no GPU can be used here, in words; None where a driver and a GPU are there."""
    try:
        return None if devices_of(load()) else "the NVIDIA driver finds no GPU"
    except CudaError as error:
        return str(error)


def devices() -> tuple[Device, ...]:
    """The GPUs in the driver's order; none where there is no driver."""
    try:
        return devices_of(load())
    except CudaError:  # driver_problem says why
        return ()


def devices_of(driver: Driver) -> tuple[Device, ...]:
    """The GPUs that a driver shows. Raises CudaError."""
    count = c_int()
    driver.call("cuDeviceGetCount", byref(count))
    return tuple(_device(driver, index) for index in range(count.value))


def _device(driver: Driver, index: int) -> Device:
    handle, memory, name = c_int(), c_size_t(), ctypes.create_string_buffer(256)
    driver.call("cuDeviceGet", byref(handle), index)
    driver.call("cuDeviceGetName", name, len(name), handle.value)
    driver.call("cuDeviceTotalMem_v2", byref(memory), handle.value)
    parts = []
    for attribute in _CAPABILITY:
        value = c_int()
        driver.call("cuDeviceGetAttribute", byref(value), attribute, handle.value)
        parts.append(str(value.value))
    return Device(index, name.value.decode(errors="replace"), ".".join(parts), memory.value)


class Context:
    """One GPU's primary context, shared with TensorRT, current on the calling thread. Raises CudaError."""

    def __init__(self, index: int = 0, driver: Driver | None = None) -> None:
        self.driver = driver or load()
        found = devices_of(self.driver)
        if index not in range(len(found)):
            raise CudaError(f"GPU {index} is not there: the NVIDIA driver finds {len(found)}")
        self.device = found[index]
        ordinal, handle = c_int(), c_void_p()
        self.driver.call("cuDeviceGet", byref(ordinal), index)
        self.driver.call("cuDevicePrimaryCtxRetain", byref(handle), ordinal.value, about=self.device.name)
        self._ordinal, self._handle = ordinal.value, handle.value
        try:
            self.use()
        except CudaError:
            self.close()
            raise

    def use(self) -> None:
        """Makes the context current on the calling thread."""
        self.driver.call("cuCtxSetCurrent", self._handle)

    def close(self) -> None:
        """Gives the context back. Never raises: a GPU that failed refuses this as well."""
        if self._handle is not None:
            self._handle = None
            release(self.driver, "cuDevicePrimaryCtxRelease_v2", self._ordinal)


class Stream:
    """A queue of work on the GPU. handle: for TensorRT. Raises CudaError."""

    def __init__(self, context: Context) -> None:
        self._driver = context.driver
        handle = c_void_p()
        self._driver.call("cuStreamCreate", byref(handle), _NON_BLOCKING)
        self.handle = handle.value or 0

    def wait(self) -> None:
        """Waits until all queued work is done. Raises CudaError where some of it failed."""
        self._driver.call("cuStreamSynchronize", self.handle)

    def close(self) -> None:
        """Never raises."""
        if self.handle:
            handle, self.handle = self.handle, 0
            release(self._driver, "cuStreamDestroy_v2", handle)


class Buffer:
    """One tensor's float32 memory: on the GPU, and pinned in the host for copies that do not wait.

    shape: the largest that it holds. address: on the GPU, for TensorRT. The pinned memory is never handed out, so
    no array outlives it. Raises CudaError.
    """

    def __init__(self, context: Context, shape: tuple[int, ...]) -> None:
        self._driver = context.driver
        count = int(np.prod(shape))
        self.address, self._host = 0, 0
        asked = f"{4 * count} bytes on {context.device.name}"
        on_gpu, pinned = c_uint64(), c_void_p()
        try:
            self._driver.call("cuMemAlloc_v2", byref(on_gpu), 4 * count, about=asked)
            self.address = on_gpu.value
            self._driver.call("cuMemHostAlloc", byref(pinned), 4 * count, 0, about=f"{4 * count} pinned bytes")
            self._host = pinned.value or 0
        except CudaError:
            self.close()
            raise
        memory = (ctypes.c_float * count).from_address(self._host)
        self._array = np.ctypeslib.as_array(memory).reshape(shape)

    def send(self, rows: np.ndarray, stream: Stream) -> None:
        """Queues the copy of the first rows (n, ...) float32 to the GPU; `wait` comes before the next."""
        self._array[: len(rows)] = rows
        self._driver.call("cuMemcpyHtoDAsync_v2", self.address, self._host, rows.nbytes, stream.handle)

    def fetch(self, count: int, stream: Stream) -> None:
        """Queues the copy of the first rows back from the GPU; after the stream's `wait`, `rows` gives them."""
        size = self._array[:count].nbytes
        self._driver.call("cuMemcpyDtoHAsync_v2", self._host, self.address, size, stream.handle)

    def rows(self, count: int) -> np.ndarray:
        """A copy of the first rows (n, ...) float32."""
        return self._array[:count].copy()

    def close(self) -> None:
        """Never raises."""
        address, self.address, host, self._host = self.address, 0, self._host, 0
        self._array = np.empty(0, np.float32)
        if address:
            release(self._driver, "cuMemFree_v2", address)
        if host:
            release(self._driver, "cuMemFreeHost", host)


def release(driver: Driver, name: str, handle: int) -> None:
    """Frees something whatever the driver says: after an error that sticks, every call gives that error again."""
    try:
        driver.call(name, handle)
    except CudaError:
        return
