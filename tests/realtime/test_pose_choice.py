"""--pose: what was named is taken or refused, auto takes the best that is here and says why."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from realtime import litert
from realtime.errors import UsageError
from realtime.pose import MediaPipePose
from realtime.pose_choice import open_pose

needs_litert = pytest.mark.skipif(litert.unavailable() is not None, reason=str(litert.unavailable()))
needs_mediapipe = pytest.mark.skipif(importlib.util.find_spec("mediapipe") is None, reason="mediapipe is not installed")


@needs_litert
@pytest.mark.parametrize("choice", ["auto", "litert"])
def test_litert_follows_as_many_as_wanted(choice: str) -> None:
    stage, why = open_pose(choice, 3)
    stage.close()
    assert (type(stage).__name__, why) == ("LiteRtPose", "pose: MediaPipe's networks in LiteRT, up to 3 people")


@needs_mediapipe
def test_without_litert_auto_takes_mediapipe_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litert, "unavailable", lambda: "ai-edge-litert is not installed")
    stage, why = open_pose("auto", 3)
    stage.close()
    assert isinstance(stage, MediaPipePose)
    assert why == "pose: MediaPipe, one person, because ai-edge-litert is not installed"
    with pytest.raises(UsageError, match="--pose litert: ai-edge-litert is not installed: run `make install`"):
        open_pose("litert", 3)


@needs_mediapipe
def test_mediapipe_by_name() -> None:
    stage, why = open_pose("mediapipe", 2)
    stage.close()
    assert (type(stage), why) == (MediaPipePose, "pose: MediaPipe, one person")


def test_what_is_no_choice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--pose must be auto, litert, mediapipe or a FILE\.onnx, got openpose"):
        open_pose("openpose", 1)
    with pytest.raises(UsageError, match=r"nothing\.onnx: No such file"):
        open_pose(str(tmp_path / "nothing.onnx"), 1)


def test_the_choice_itself_loads_nothing() -> None:
    code = "import sys, realtime.pose_choice; assert not {'mediapipe', 'cv2', 'ai_edge_litert'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
