"""Fixtures that tests of every folder use."""

from pathlib import Path

import pytest

import realtime  # noqa: F401 - before ONNX Runtime, whose telemetry it keeps off


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of research material beside the checkout; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"research material is not there: {folder}")
    return folder
