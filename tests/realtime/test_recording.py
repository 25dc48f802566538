"""Skeleton sources: our recordings, lines on standard input, and files as data sets publish them."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader

from realtime.clock import Clock
from realtime.errors import SourceError, UsageError
from realtime.feed import Tally
from realtime.messages import PoseMessage
from realtime.recording import RecordingWriter, read_recording
from realtime.schema import SECOND_NS, Pose
from realtime.skeleton import AZURE_32, KINECT_V1_20, KINECT_V2_25, LAYOUTS, Layout
from realtime.source import open_source
from realtime.wire import pose_message

STEP_NS = SECOND_NS // 30


def make_pose(index: int, track: int = 1, layout: Layout = KINECT_V2_25) -> Pose:
    rng = np.random.default_rng(100 * index + track)
    joints = rng.normal(0, 1, (len(layout), 3)).astype(np.float32)
    return Pose(
        index, 7 * SECOND_NS + index * STEP_NS, track, layout, joints, rng.random(len(layout)).astype(np.float32)
    )


def message(index: int, tracks=(1,), layout: Layout = KINECT_V2_25, source: str = "cam0") -> PoseMessage:
    poses = [make_pose(index, track, layout) for track in tracks]
    captured_ns = 7 * SECOND_NS + index * STEP_NS
    return pose_message(
        poses,
        frame=index,
        captured_ns=captured_ns,
        layout=layout,
        session="s",
        seq=index,
        source=source,
        clock=Clock.now(),
    )


def record(path: Path, frames: int = 30, **options) -> Path:
    with RecordingWriter(path) as writer:
        for index in range(frames):
            writer.write(message(index, **options))
    return path


def line(index: int = 0, **changes) -> dict:
    joints = [[0.1, 0.2, 2.0]] * 25
    return {
        "schema": "pose/1",
        "time": {"mono_ns": index * STEP_NS},
        "frame": index,
        "layout": "KINECT_V2_25",
        "persons": [{"track": 1, "joints": joints, "confidence": [1.0] * 25}],
    } | changes


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


def piped(*lines: dict | str) -> int:
    """A descriptor from which these lines can be read, as from standard input."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as file:
        file.write("".join((entry if isinstance(entry, str) else json.dumps(entry)) + "\n" for entry in lines))
    return reading


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
def test_a_recording_gives_back_what_was_written(tmp_path: Path, layout: Layout) -> None:
    path = record(tmp_path / "walk.mcap", 5, tracks=(1, 4), layout=layout)
    frames = list(read_recording(path))
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    for frame in frames:
        assert frame.captured_ns == 7 * SECOND_NS + frame.index * STEP_NS
        for pose, track in zip(frame.poses, (1, 4), strict=True):
            sent = make_pose(frame.index, track, layout)
            assert (pose.track, pose.layout, pose.captured_ns) == (track, layout, frame.captured_ns)
            np.testing.assert_array_equal(pose.joints, sent.joints)
            np.testing.assert_array_equal(pose.confidence, sent.confidence)
    source = open_source(str(path), fast=True)
    assert (source.info.id, source.info.kind, source.info.layout) == ("walk", "poses", layout.name)
    source.close()


def test_a_recording_is_an_mcap_that_others_can_read(tmp_path: Path) -> None:
    with record(tmp_path / "r.mcap", 3).open("rb") as file:
        for schema, channel, entry in make_reader(file).iter_messages():
            assert (channel.topic, channel.message_encoding, schema.encoding) == ("pose.cam0", "json", "jsonschema")
            assert json.loads(schema.data)["$schema"] and json.loads(entry.data)["schema"] == "pose/1"
            assert entry.log_time == json.loads(entry.data)["time"]["mono_ns"]


def test_a_recording_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "r.mcap"
    writer = RecordingWriter(path)
    for index in range(290):
        writer.write(message(index))
    assert not path.exists()
    crashed = tmp_path / "crashed.mcap.partial"
    crashed.write_bytes(writer.partial.read_bytes())  # what a SIGKILL would leave
    writer.close()
    writer.close()
    assert path.exists() and not writer.partial.exists()
    assert len(list(read_recording(path))) == 290
    frames = []
    with pytest.raises(SourceError, match=r"cut short after message 2\d\d"):
        for frame in open_source(str(crashed), fast=True):
            frames.append(frame)  # noqa: PERF402 - those before the error count
    assert 220 < len(frames) < 290


def test_recording_into_a_folder_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot record to"):
        RecordingWriter(tmp_path / "no" / "r.mcap")


def test_a_recording_plays_at_live_pace(tmp_path: Path) -> None:
    source = open_source(str(record(tmp_path / "r.mcap", 10)), fast=False)
    frames = [frame for frame in source if frame is not None]
    assert len(frames) + source.dropped == 10
    assert abs((frames[-1].captured_ns - frames[0].captured_ns) - 9 * STEP_NS) <= 9 * STEP_NS // 9 * 2


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_truncated_recording_plays_what_is_whole_and_then_says_so(tmp_path: Path, share: float) -> None:
    path = record(tmp_path / "r.mcap", 200)
    data = path.read_bytes()
    path.write_bytes(data[: max(1, int(len(data) * share))])
    assert "is damaged or cut short" in refusal(path)


def test_a_flipped_byte_never_passes_as_a_pose(tmp_path: Path) -> None:
    path = record(tmp_path / "r.mcap", 60)
    whole, data = list(read_recording(path)), path.read_bytes()
    for at in np.random.default_rng(1).integers(0, len(data), 60):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        try:
            for frame, sent in zip(read_recording(path), whole, strict=False):
                np.testing.assert_array_equal(frame.poses[0].joints, sent.poses[0].joints)
        except SourceError:
            pass


def test_other_files_named_mcap_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.mcap"
    path.write_text("no recording at all, but text")
    assert "damaged or cut short at its beginning" in refusal(path)
    RecordingWriter(path).close()
    assert "holds no pose message" in refusal(path)


def test_two_sources_in_one_recording_are_refused(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "r.mcap") as writer:
        writer.write(message(0, source="cam0"))
        writer.write(message(1, source="cam1"))
    assert "message 2: it comes from 'cam1', those before from 'cam0'" in refusal(tmp_path / "r.mcap")


BROKEN = {
    "wrong joints": (line(1, layout="KINECT_V1_20"), "message 2: frame 1, track 1: KINECT_V1_20 has 20 joints, got 25"),
    "unknown layout": (line(1, layout="KINECT_V9"), "message 2: unknown layout 'KINECT_V9'; known: KINECT_V1_20"),
    "reversed time": (line(1, time={"mono_ns": 0}), "message 2: time.mono_ns must rise, got 0"),
    "negative time": (line(1, time={"mono_ns": -5}), "message 2: time.mono_ns must not be negative, got -5"),
    "same track twice": (line(1, persons=line()["persons"] * 2), "a track comes twice"),
}


@pytest.mark.parametrize("broken, sentence", BROKEN.values(), ids=BROKEN)
def test_a_broken_rule_is_named_with_its_message(tmp_path: Path, broken: dict, sentence: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(f"{json.dumps(line(0))}\n{json.dumps(broken)}\n")
    assert sentence in refusal(path)
    assert sentence in refusal("-", stdin=piped(line(0), broken))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1e39", "5000", "null"])
def test_a_number_that_is_not_finite_makes_its_joint_missing_and_is_counted(caplog, number: str) -> None:
    texts = [json.dumps(line(index)).replace("0.1", number, 2) for index in range(3)]
    source = open_source("-", fast=True, stdin=piped(*texts))
    frames = [frame for frame in source if frame is not None]
    assert len(frames) == 3 and source.refused == 6
    for frame in frames:
        assert np.isfinite(frame.poses[0].joints).all()
        assert frame.poses[0].confidence.tolist() == [0.0, 0.0] + [1.0] * 23
    warnings = [entry for entry in caplog.records if entry.levelno == logging.WARNING]
    assert len(warnings) == 1 and "taken as missing" in warnings[0].getMessage()


def test_a_confidence_or_box_that_is_not_finite_is_refused_too() -> None:
    text = json.dumps(line(0)).replace("1.0]", "NaN]").replace('"track": 1', '"track": 1, "box": [0, 0, NaN, 1]')
    source = open_source("-", fast=True, stdin=piped(text))
    pose = next(source).poses[0]
    assert source.refused == 1 and pose.box is None and pose.confidence.tolist() == [1.0] * 24 + [0.0]


def test_lines_that_are_no_pose_messages_are_counted_logged_once_and_left_out(caplog) -> None:
    descriptor = piped(line(0), '{"schema": "pose', "", '{"schema":"pose/1"}', "[" * 5000, line(1))
    source = open_source("-", fast=True, stdin=descriptor)
    assert source.info.live and source.info.skeletons and source.info.id == "stdin"
    assert [frame.index for frame in source if frame is not None] == [0, 1]
    assert source.refused == 3
    assert [entry.getMessage() for entry in caplog.records if "line 2 is left out" in entry.getMessage()]
    assert len(caplog.records) == 1


def test_standard_input_that_begins_wrong_or_gives_nothing_is_refused() -> None:
    assert "stdin, message 1: not a message" in refusal("-", stdin=piped("hello", line(0)))
    assert "stdin ended without a pose message" in refusal("-", stdin=piped(""))
    assert "a line is longer than" in refusal("-", stdin=_long_line())


def _long_line() -> int:
    file = os.memfd_create("line")
    os.write(file, b"x" * (2 << 20))
    os.lseek(file, 0, os.SEEK_SET)
    return file


def test_a_sender_that_restarts_with_its_clock_at_zero_goes_on() -> None:
    lines = [line(5, session="a"), line(6, session="a"), line(0, session="b"), line(1, session="b")]
    frames = played("-", stdin=piped(*lines))
    assert np.diff([frame.captured_ns for frame in frames]).tolist() == [STEP_NS, SECOND_NS, STEP_NS]


def test_mirror_exchanges_left_and_right(tmp_path: Path) -> None:
    path = record(tmp_path / "r.mcap", 1)
    plain, mirrored = (played(path, mirror=on)[0].poses[0] for on in (False, True))
    left, right = KINECT_V2_25.index("left_hand"), KINECT_V2_25.index("right_hand")
    np.testing.assert_array_equal(mirrored.joints[left], plain.joints[right] * np.float32((-1, 1, 1)))
    assert mirrored.confidence[left] == plain.confidence[right]
    assert mirrored.joints.dtype == np.float32


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


def test_json_that_is_not_nw_ucla_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert "frame 1: KINECT_V1_20 is 20 joints x 3" in refusal(ucla(path, [[[0.1] * 3] * 20, [[0.1] * 3] * 19]))
    assert "frame 0" in refusal(ucla(path, [["a"] * 20]))
    assert "holds no frame" in refusal(ucla(path, []))
    for text, sentence in (('{"skeletons": [[', "not JSON, or cut short"), ("[1, 2]", "no list `skeletons`")):
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
    "fps": (GOOD | {"fps": 0.0}, "fps must be in (0, 1000], got 0.0"),
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


def test_reading_counts_into_the_tally_it_is_given(tmp_path: Path) -> None:
    record(tmp_path / "r.mcap", 2)
    tally = Tally()
    assert len(list(read_recording(tmp_path / "r.mcap", tally))) == 2
    assert tally.refused == 0
