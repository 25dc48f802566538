"""Fixtures that tests of every folder use."""

import signal
from pathlib import Path

import pytest

import realtime  # noqa: F401 - before ONNX Runtime, whose telemetry it keeps off

# A shell starts what it puts into the background deaf to Ctrl-C, and so would be the programs that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of research material beside the checkout; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"research material is not there: {folder}")
    return folder
