"""--calib: one file or a folder of them; what is none is refused by name, and what is there reaches the line."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from calib.record_depth import synthetic_rig
from realtime import run as program
from realtime.calibration import Calibration, Measured, load_calibration
from realtime.errors import UsageError
from realtime.feed import SourceInfo
from realtime.generator import synthetic_frames
from realtime.lens import Lens
from realtime.recording import open_recording, read_recording
from realtime.schema import Frame
from realtime.settings import RecognitionFlags
from realtime.stage import Fitting, open_stage

FLOOR = {"schema": "calib-floor/1", "up": [0.0, 0.8660254, -0.5], "height_m": 2.0, "orientation": 0, "measured": {}}
LENS = {"schema": "calib-camera/1", "width": 640, "height": 480, "fx": 500.0, "fy": 500.0, "cx": 320.0, "cy": 240.0,
        "distortion": [0.0, 0.0, 0.0, 0.0, 0.0], "model": "pinhole", "rms_px": 0.2, "measured": {}}  # fmt: skip


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_nothing_measured_is_nothing_known():
    assert load_calibration(None) == Calibration()


def test_a_folder_holds_one_file_of_each_kind(tmp_path):
    write(tmp_path / "floor.json", FLOOR)
    write(tmp_path / "cam.json", LENS)
    site = load_calibration(tmp_path)
    assert site.floor is not None and site.lens is not None and site.rig is None and site.thresholds is None
    assert (site.floor.height_m, site.lens.fx) == (2.0, 500.0)
    write(tmp_path / "other.json", {**FLOOR, "height_m": 3.0})
    with pytest.raises(UsageError, match=r"floor.json and other.json are of one kind"):
        load_calibration(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        ("[1, 2]", r"schema is None"),
        ({"schema": "calib-floor/9"}, r"schema is 'calib-floor/9', not one of calib-camera/1"),
        ({"schema": ["calib-floor/1"]}, "not one of"),
        ({**FLOOR, "up": [0, 2, 0]}, r"'up' must be a list of 3 numbers, a vector of length 1"),
        ({**FLOOR, "orientation": 45}, r"'orientation' must be 0, 90, 180 or 270, got 45"),
        ({key: value for key, value in FLOOR.items() if key != "up"}, r"lacks the key 'up'"),
        ({**FLOOR, "down": 1}, r"has the key 'down'"),
        ({**LENS, "fx": -1}, "fx"),
        ("x" * 5_000_000, "over 4000000 bytes"),
    ],
)
def test_what_is_no_calibration_is_refused_by_name(tmp_path, content, words):
    path = write(tmp_path / "site.json", content)
    with pytest.raises(UsageError, match=words) as refusal:
        load_calibration(path)
    assert str(path) in str(refusal.value)


def test_a_pipe_and_a_name_that_cannot_be_are_refused(tmp_path):
    os.mkfifo(tmp_path / "floor.json")
    with pytest.raises(UsageError, match="is no file"):
        load_calibration(tmp_path)
    with pytest.raises(UsageError, match="File name too long"):
        load_calibration(tmp_path / ("long" * 100))


def test_no_file_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no such file or folder"):
        load_calibration(tmp_path / "none.json")
    with pytest.raises(UsageError, match=r"holds no \.json"):
        load_calibration(tmp_path)


def test_poses_of_a_camera_that_looks_down_come_upright_from_the_stage(tmp_path):
    site = load_calibration(write(tmp_path / "floor.json", FLOOR))
    level = next(iter(synthetic_frames(seed=1))).poses[0]
    assert site.floor is not None and site.floor.pitch == pytest.approx(30)
    seen = level.joints @ site.floor.turn.astype(np.float32)  # rows times R: the inverse of bringing upright
    frame = next(iter(synthetic_frames(seed=1)))
    tilted = frame.__class__(
        0, frame.captured_ns, None, (level.__class__(0, 0, 1, level.layout, seen, level.confidence),)
    )
    info = SourceInfo("a", "synthetic", layout=level.layout.name)
    stage, _, _ = open_stage(RecognitionFlags(), info, site)
    found = stage.find(tilted)[0].joints
    np.testing.assert_allclose(found, level.joints + np.array((0, 2, 0)), atol=1e-5)
    plain, _, _ = open_stage(RecognitionFlags(), info, Calibration())
    assert plain.find(tilted)[0] is tilted.poses[0]


@pytest.fixture
def handlers():
    """The process's own signal handlers, back after a line has run in it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_a_recording_made_with_a_floor_is_not_turned_again(tmp_path, monkeypatch):
    """Live with a floor, played with it, and recorded anew while it plays: the same poses each time."""
    floor = write(tmp_path / "floor.json", FLOOR)

    def line(source: object, out: str, *flags: object) -> Path:
        given = ["run", "--source", source, "--pub", "none", "--record", tmp_path / out, "--headless", "--fast", *flags]
        monkeypatch.setattr("sys.argv", [str(flag) for flag in given])
        assert program.main() == 0
        return tmp_path / out

    def joints(path: Path) -> np.ndarray:
        return np.array([frame.poses[0].joints for frame in read_recording(path)])

    level = line("synthetic", "level.mcap", "--duration", 1)
    live = line(level, "live.mcap", "--calib", floor)
    again = line(live, "again.mcap", "--calib", floor)
    third = line(again, "third.mcap", "--calib", floor)
    marks = [open_recording(path).info.marks for path in (level, live, again, third)]
    assert marks == [frozenset(), *[frozenset({"upright"})] * 3]
    assert abs(joints(live) - joints(level)).max() > 0.5
    np.testing.assert_array_equal(joints(again), joints(live))
    np.testing.assert_array_equal(joints(third), joints(live))


class Standing:
    """A pose stage that sees somebody in every picture."""

    refused = gated = crowded = 0

    def find(self, frame):
        return (frame.index,)


@pytest.mark.parametrize(
    ("lens", "rig", "fit", "other"),
    [
        (Lens.of(Measured(Path("cam.json"), LENS, Lens.KEYS)), None, (240, 320), (180, 320)),
        (None, synthetic_rig(), None, None),
    ],
)
def test_pictures_of_another_shape_are_left_out_and_said_once_until_they_fit_again(lens, rig, fit, other, caplog):
    if rig is not None:
        fit, other = (rig.color.height, rig.color.width), (rig.color.height // 2, rig.color.width)
    depth = None if rig is None else np.zeros((rig.depth.height, rig.depth.width), np.uint16)
    stage = Fitting(Standing(), lens, rig)

    def found(shape, depth=depth):
        return stage.find(Frame(1, 1, np.zeros((*shape, 3), np.uint8), depth=depth))

    assert found(fit) and not found(other) and not found(other) and found(fit) and not found(other)
    assert stage.refused == 3 and len(caplog.records) == 2
    assert "another shape" in caplog.text
    if rig is not None:
        assert not found(fit, np.zeros((rig.depth.height, 2 * rig.depth.width), np.uint16))
    assert stage.find(Frame(2, 2, None)) == (2,)  # no picture: the stage inside says what it is worth
