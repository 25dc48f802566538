"""The door to LiteRT: known networks only, run as they are, in silence, and cut without changing an answer."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from realtime import litert
from realtime.errors import BundleError, LineError, UsageError
from realtime.litert import DETECTOR, LANDMARKS, Network, read_network
from realtime.tflite import without_outputs

pytestmark = pytest.mark.skipif(litert.unavailable() is not None, reason=str(litert.unavailable()))
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the installed networks, to break."""
    wheel = litert._wheel()
    assert wheel is not None
    for file in (DETECTOR, LANDMARKS):
        (tmp_path / file.path).parent.mkdir(parents=True)
        (tmp_path / file.path).write_bytes((wheel / file.path).read_bytes())
    return tmp_path


def test_the_installed_networks_are_the_known_ones(folder: Path) -> None:
    assert read_network(DETECTOR) == read_network(DETECTOR, folder)
    assert len(read_network(LANDMARKS)) > 6_000_000


def test_one_wrong_bit_is_refused_by_name(folder: Path) -> None:
    path = folder / LANDMARKS.path
    content = bytearray(path.read_bytes())
    content[1234567] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"pose_landmark_full\.tflite: its SHA-256 begins with .*e9a5c5cb17f736fa"):
        read_network(LANDMARKS, folder)
    read_network(DETECTOR, folder)


def test_an_absent_network_says_what_to_do(folder: Path) -> None:
    (folder / DETECTOR.path).unlink()
    with pytest.raises(UsageError, match=r"pose_detection\.tflite: No such file.*make install"):
        read_network(DETECTOR, folder)


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    with monkeypatch.context() as patch:
        patch.setattr(metadata, "distribution", absent)
        assert "mediapipe" in str(litert.unavailable())
        with pytest.raises(UsageError, match=r"mediapipe is not installed.*make install"):
            read_network(DETECTOR)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "ai-edge-litert is not installed" in str(litert.unavailable())
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(UsageError, match=r"ai-edge-litert does not load.*make install"):
        Network(b"", 1, "detector")


def test_without_the_silhouette_every_other_answer_is_the_same_to_the_bit(folder: Path) -> None:
    whole = (folder / LANDMARKS.path).read_bytes()
    picture = np.random.default_rng(0).random((1, 256, 256, 3), np.float32)
    before, after = (Network(content, 1, "landmark")(picture) for content in (whole, read_network(LANDMARKS)))
    assert [answer.shape for answer in before] == [(1, 195), (1, 1), (1, 256, 256, 1), (1, 64, 64, 39), (1, 117)]
    del before[2]
    assert len(after) == 4
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match=r"unwanted outputs must be in \[0, 4\], got \[7\]"):
        without_outputs(whole, {7})


def test_what_is_no_network_and_a_closed_one_are_told() -> None:
    with pytest.raises(LineError, match="LiteRT cannot load the odd network"):
        Network(b"not a network", 1, "odd")
    with pytest.raises(UsageError, match="threads must be at least 1, got 0"):
        Network(b"", 0, "odd")
    network = Network(read_network(DETECTOR), 64, "detector")  # more threads than cores are no harm
    network.close()
    network.close()
    with pytest.raises(LineError, match="closed"):
        network(np.zeros((1, 224, 224, 3), np.float32))


def test_it_runs_in_silence_and_without_mediapipe() -> None:
    code = """
import sys, numpy as np
from realtime.litert_pose import LiteRtPose
from realtime.schema import Frame
stage = LiteRtPose()
stage.find(Frame(0, 1, np.zeros((48, 64, 3), np.uint8)))
assert not {"mediapipe", "matplotlib", "jax", "scipy"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
