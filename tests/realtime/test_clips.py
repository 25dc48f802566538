"""Skeleton files as data sets publish them: NTU, NW-UCLA and test clips."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from realtime.clips import NW_UCLA_FPS
from realtime.errors import SourceError
from realtime.schema import SECOND_NS
from realtime.skeleton import AZURE_32, KINECT_V1_20
from realtime.source import open_source
from train.data import nw_ucla


def played(spec: Path | str, **options) -> list:
    source = open_source(str(spec), fast=True, **options)
    frames = [frame for frame in source if frame is not None]
    source.close()
    return frames


def refusal(spec: Path | str, **options) -> str:
    with pytest.raises(SourceError) as caught:
        played(spec, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def ntu_body(body: int, x: float, states: str = "2" * 25) -> str:
    joints = [f"{x + j / 100} 0.5 2.5 200.1 201.2 900.3 500.4 0.1 0.2 0.3 0.4 {s}" for j, s in enumerate(states)]
    return "\n".join([f"{body} 0 1 1 1 1 0 0.02 -0.1 2", "25", *joints])


FIRST, SECOND = 72057594037944738, 72057594037944739  # one apart: a float would take them for the same


@pytest.fixture
def ntu(tmp_path: Path) -> Path:
    """Five frames: one body, two, none, the second alone, the first again."""
    frames = [
        f"1\n{ntu_body(FIRST, 0.1)}",
        f"2\n{ntu_body(SECOND, 0.9)}\n{ntu_body(FIRST, 0.2)}",
        "0",
        f"1\n{ntu_body(SECOND, 0.8)}",
        f"1\n{ntu_body(FIRST, 0.3, '01' + '2' * 23)}",
    ]
    path = tmp_path / "S001C001P001R001A001.skeleton"
    path.write_text("5\n" + "\n".join(frames) + "\n")
    return path


def test_ntu_bodies_keep_their_track_while_they_come_and_go(ntu: Path) -> None:
    source = open_source(str(ntu), fast=True)
    assert (source.info.id, source.info.fps, source.info.layout) == ("S001C001P001R001A001", 30.0, "KINECT_V2_25")
    frames = list(source)
    assert [[pose.track for pose in frame.poses] for frame in frames] == [[1], [2, 1], [], [2], [1]]
    assert [round(float(frame.poses[0].joints[0, 0]), 3) for frame in frames if frame.poses] == [0.1, 0.9, 0.8, 0.3]
    assert frames[4].poses[0].confidence.tolist() == [0.0, 0.5] + [1.0] * 23
    assert frames[4].captured_ns - frames[0].captured_ns == round(4 / 30 * SECOND_NS)


@pytest.mark.parametrize(
    "old, new, sentence",
    [
        ("5\n1\n", "5\nx\n", "line 2: the number of bodies must be in [0, 64], got 'x'"),
        ("5\n1\n", "five\n1\n", "line 1: the number of frames"),
        ("\n25\n", "\n24\n", "line 4: KINECT_V2_25 has 25 joints, got 24"),
        (" 0.4 2\n", " 0.4 7\n", "tracking state must be 0, 1 or 2"),
        ("0.1 0.5 2.5 200.1", "0.1 0,5 2.5 200.1", "line 5: a joint is 12 numbers, got '0.1 0,5"),
    ],
)
def test_a_damaged_ntu_file_names_line_and_rule(ntu: Path, old: str, new: str, sentence: str) -> None:
    ntu.write_text(ntu.read_text().replace(old, new, 1))
    assert sentence in refusal(ntu)


def test_a_truncated_ntu_file_names_its_last_line(ntu: Path) -> None:
    ntu.write_text("\n".join(ntu.read_text().splitlines()[:40]))
    assert "line 41: the file is cut short where a joint should be" in refusal(ntu)


def test_nan_in_an_ntu_file_is_counted(ntu: Path) -> None:
    ntu.write_text(ntu.read_text().replace("0.1 0.5 2.5", "nan 0.5 2.5", 1))
    source = open_source(str(ntu), fast=True)
    assert next(source).poses[0].confidence.tolist() == [0.0] + [1.0] * 24
    assert source.refused == 1
    source.close()


def ucla(path: Path, skeletons) -> Path:
    path.write_text(json.dumps({"file_name": "a01_s01_e00_v01", "skeletons": skeletons, "label": 1}))
    return path


def test_nw_ucla_joints_at_zero_are_missing(tmp_path: Path) -> None:
    skeleton = [[0.1, 0.2, 2.0]] * 20
    path = ucla(tmp_path / "a01.json", [skeleton, [[0, 0, 0]] * 2 + skeleton[2:], [[0, 0, 0]] * 20])
    frames = played(path, fps=15)
    assert [len(frame.poses) for frame in frames] == [1, 1, 0]
    assert frames[0].poses[0].layout == KINECT_V1_20
    assert frames[1].poses[0].confidence.tolist() == [0.0, 0.0] + [1.0] * 18
    assert frames[2].captured_ns - frames[0].captured_ns == round(2 / 15 * SECOND_NS)


def test_nw_ucla_plays_at_the_rate_at_which_it_is_trained_on(tmp_path: Path) -> None:
    path = ucla(tmp_path / "a01.json", [[[0.1, 0.2, 2.0]] * 20] * 13)
    frames = played(path)
    assert frames[12].captured_ns - frames[0].captured_ns == SECOND_NS
    assert nw_ucla.FPS == NW_UCLA_FPS


def test_json_that_is_not_nw_ucla_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert "frame 1: KINECT_V1_20 is 20 joints x 3" in refusal(ucla(path, [[[0.1] * 3] * 20, [[0.1] * 3] * 19]))
    assert "frame 0" in refusal(ucla(path, [["a"] * 20]))
    assert "holds no frame" in refusal(ucla(path, []))
    no_list = "no list `skeletons`"
    for text, sentence in (
        ('{"skeletons": [[', "not JSON, or cut short"),
        ("[1, 2]", no_list),
        ('{"skeletons": 5}', no_list),
        ('{"skeletons": null}', no_list),
    ):
        path.write_text(text)
        assert sentence in refusal(path)


def test_an_npz_clip_in_millimetres_and_image_axes_becomes_metres_and_kinect_axes(tmp_path: Path) -> None:
    joints = np.zeros((3, 2, 32, 3), np.int16)
    joints[:, 0] = (100, 200, 2500)
    joints[1, 1] = (-100, 0, 1500)
    times_ns = np.array([0, 40, 90], np.int64) * 1_000_000
    path = tmp_path / "clip.npz"
    np.savez(path, joints=joints, layout="AZURE_32", units="mm", axes="image", times_ns=times_ns)
    frames = played(path)
    assert [[pose.track for pose in frame.poses] for frame in frames] == [[1], [1, 2], [1]]
    np.testing.assert_allclose(frames[0].poses[0].joints[5], (-0.1, -0.2, 2.5), rtol=1e-6)
    assert frames[0].poses[0].layout == AZURE_32
    assert np.diff([frame.captured_ns for frame in frames]).tolist() == [40_000_000, 50_000_000]


GOOD = {"joints": np.ones((2, 17, 3)), "layout": "COCO_17"}
BAD_CLIPS = {
    "layout": (GOOD | {"layout": "COCO_18"}, "layout must be one of KINECT_V1_20"),
    "no layout": ({"joints": GOOD["joints"]}, "layout must be one of"),
    "joints": (GOOD | {"joints": np.ones((2, 16, 3))}, "V = 17, got float64 (2, 16, 3)"),
    "text": (GOOD | {"joints": np.full((2, 17, 3), "a")}, "needs joints"),
    "confidence": (GOOD | {"confidence": np.full((2, 17), 1.5)}, "confidence must be (2, 1, 17) in [0, 1]"),
    "times": (GOOD | {"times_ns": np.array([5, 5])}, "times_ns must rise; it does not after frame 0"),
    "fps": (GOOD | {"fps": 0.0}, "fps must be a number in (0, 1000], got 0.0"),
    "fps as text": (GOOD | {"fps": "thirty"}, "fps must be a number in (0, 1000], got thirty"),
    "two fps": (GOOD | {"fps": [30, 25]}, "fps must be a number in (0, 1000], got [30 25]"),
    "confidence as text": (GOOD | {"confidence": np.full((2, 17), "a")}, "confidence must be (2, 1, 17) in [0, 1]"),
    "units": (GOOD | {"units": "inch"}, "units must be one of m, mm, got 'inch'"),
    "pickle": (GOOD | {"joints": np.array([None])}, "not a readable .npz"),
}


@pytest.mark.parametrize("arrays, sentence", BAD_CLIPS.values(), ids=BAD_CLIPS)
def test_a_bad_clip_names_the_rule(tmp_path: Path, arrays: dict, sentence: str) -> None:
    np.savez(tmp_path / "c.npz", **arrays)
    assert sentence in refusal(tmp_path / "c.npz")


def test_a_truncated_clip_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", **GOOD)
    data = (tmp_path / "c.npz").read_bytes()
    for size in (10, 300, len(data) - 30):
        (tmp_path / "c.npz").write_bytes(data[:size])
        assert "not a readable .npz" in refusal(tmp_path / "c.npz")


def test_nan_in_a_clip_is_counted_in_the_given_tally(tmp_path: Path) -> None:
    joints = np.ones((2, 17, 3))
    joints[0, 3] = np.nan
    joints[1] = np.nan  # nobody
    np.savez(tmp_path / "c.npz", joints=joints, layout="COCO_17", fps=25)
    source = open_source(str(tmp_path / "c.npz"), fast=True)
    frames = list(source)
    assert source.info.fps == pytest.approx(25)
    assert [len(frame.poses) for frame in frames] == [1, 0] and source.refused == 1
