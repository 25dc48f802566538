"""The driver is asked first, each of its failures is named, and closing never fails."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from realtime import cuda
from realtime.cuda import Buffer, Context, CudaError, Device, Stream, devices, driver_problem
from realtime.errors import GpuError
from tests.realtime.fake_cuda import FakeCuda, install

# What other tests left for the garbage collector is no concern of these.
pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return install(monkeypatch)


def here_is_a_driver() -> bool:
    try:
        ctypes.CDLL(cuda.LIBRARY)
    except OSError:
        return False
    return True


@pytest.mark.skipif(here_is_a_driver(), reason="this machine has an NVIDIA driver")
def test_a_machine_without_a_driver_says_so():
    problem = driver_problem()
    assert problem is not None and "no NVIDIA driver is installed" in problem and "\n" not in problem
    assert devices() == ()
    with pytest.raises(GpuError, match="no NVIDIA driver is installed") as caught:
        Context()
    assert caught.value.exit_code == 6


@pytest.mark.skipif(not here_is_a_driver(), reason="this machine has no NVIDIA driver")
def test_a_real_gpu_keeps_what_it_is_sent():
    context = Context()
    stream, buffer = Stream(context), Buffer(context, (4, 3))
    sent = np.arange(12, dtype=np.float32).reshape(4, 3)
    buffer.send(sent, stream)
    stream.wait()
    buffer._array[:] = -1
    buffer.fetch(4, stream)
    stream.wait()
    np.testing.assert_array_equal(buffer.rows(4), sent)
    for held in (buffer, stream, context):
        held.close()


def test_a_gpu_is_told_by_name_capability_and_memory(gpu):
    assert driver_problem() is None
    assert devices() == (Device(0, "Orin", "8.7", 8 << 30),)


def test_a_driver_that_finds_no_gpu_is_a_problem(gpu):
    gpu.gpus = 0
    assert driver_problem() == "the NVIDIA driver finds no GPU"
    with pytest.raises(CudaError, match="GPU 0 is not there: the NVIDIA driver finds 0"):
        Context()


def test_a_driver_that_does_not_start_is_quoted(gpu):
    gpu.fail["cuInit"] = 100
    assert driver_problem() == "cuInit failed: CUDA_ERROR_NO_DEVICE, in words"
    assert devices() == ()


def test_a_code_that_the_driver_cannot_name_is_shown(gpu):
    gpu.fail["cuInit"] = 999
    assert driver_problem() == "cuInit failed: error 999"


def test_an_old_driver_is_named_by_what_it_lacks(gpu):
    del gpu.cuMemHostAlloc
    problem = driver_problem()
    assert problem is not None and "too old: it has no cuMemHostAlloc" in problem


def test_what_is_sent_comes_back_and_copies_are_our_own(gpu):
    context = Context()
    stream, buffer = Stream(context), Buffer(context, (4, 3))
    sent = np.arange(6, dtype=np.float32).reshape(2, 3)
    buffer.send(sent, stream)
    stream.wait()
    buffer._array[:] = -1
    buffer.fetch(2, stream)
    stream.wait()
    got = buffer.rows(2)
    buffer.close()
    np.testing.assert_array_equal(got, sent)


def test_closing_gives_everything_back_once(gpu):
    context = Context()
    held = [Buffer(context, (4, 3)), Stream(context), context]
    assert len(gpu.memory) == 3 and gpu.retained == 1
    for thing in (*held, *held):
        thing.close()
    assert gpu.memory == {} and gpu.retained == 0


@pytest.mark.parametrize("name", ["cuMemAlloc_v2", "cuMemHostAlloc"])
def test_memory_that_is_not_there_names_how_much_was_asked_and_keeps_nothing(gpu, name):
    context = Context()
    gpu.fail[name] = 2
    with pytest.raises(CudaError, match=rf"{name} failed \(48 .*\): CUDA_ERROR_OUT_OF_MEMORY") as caught:
        Buffer(context, (4, 3))
    assert caught.value.code == 2 and gpu.memory == {}


def test_a_context_that_cannot_be_made_current_is_given_back(gpu):
    gpu.fail["cuCtxSetCurrent"] = 2
    with pytest.raises(CudaError, match="cuCtxSetCurrent"):
        Context()
    assert gpu.retained == 0


def test_after_an_error_that_sticks_closing_still_ends(gpu):
    context = Context()
    stream, buffer = Stream(context), Buffer(context, (4, 3))
    gpu.fail.update(dict.fromkeys(cuda._SIGNATURES, 700))
    del gpu.fail["cuGetErrorName"], gpu.fail["cuGetErrorString"]
    with pytest.raises(CudaError, match="cuStreamSynchronize failed: CUDA_ERROR_ILLEGAL_ADDRESS, in words"):
        stream.wait()
    for thing in (buffer, stream, context):
        thing.close()


def test_the_declared_types_carry_64_bits():
    """A pointer declared as int would be cut in half on the way."""
    for name in ("cuMemFree_v2", "cuMemFreeHost", "cuCtxSetCurrent", "cuStreamSynchronize"):
        assert ctypes.sizeof(cuda._SIGNATURES[name][0]) == 8
    assert all(ctypes.sizeof(cuda._SIGNATURES["cuMemcpyHtoDAsync_v2"][i]) == 8 for i in range(4))


def test_the_fake_has_every_function():
    assert all(hasattr(FakeCuda(), name) for name in cuda._SIGNATURES)
