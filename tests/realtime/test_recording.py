"""Skeleton sources: our recordings, and lines on standard input."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.writer import Writer

from realtime.clock import Clock
from realtime.errors import SourceError, UsageError
from realtime.feed import Tally
from realtime.messages import MessageError, PoseMessage
from realtime.recording import RecordingWriter, read_recording
from realtime.schema import SECOND_NS, Pose
from realtime.skeleton import KINECT_V2_25, LAYOUTS, Layout
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
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        writer.finish()
    assert "holds no pose message" in refusal(path)


def test_a_recording_of_nothing_leaves_no_file_and_takes_none_away(tmp_path: Path) -> None:
    path = record(tmp_path / "r.mcap", 3)
    for name in ("r.mcap", "none.mcap"):
        with pytest.raises(MessageError), RecordingWriter(tmp_path / name) as writer:
            writer.write(message(0, source="not a source"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.mcap"]
    assert len(list(read_recording(path))) == 3


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
    if "must rise" not in sentence:  # what a network brings late is left out
        assert sentence in refusal("-", stdin=piped(line(0), broken))


def test_a_line_that_comes_too_late_on_standard_input_is_counted_and_left_out(caplog) -> None:
    source = open_source("-", fast=False, stdin=piped(line(0), line(2), line(1), line(2), line(3)))
    assert [frame.index for frame in source if frame is not None] == [0, 2, 3]
    assert source.refused == 2 and not source.paced
    assert [entry.getMessage() for entry in caplog.records] == [
        "stdin, message 3: time.mono_ns must rise, got 33333333, 0.033 s before the message before it; it is left out; "
        "more are counted, not logged"
    ]


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
    assert not source.info.live and source.info.skeletons and source.info.id == "stdin"
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


def test_reading_counts_into_the_tally_it_is_given(tmp_path: Path) -> None:
    record(tmp_path / "r.mcap", 2)
    tally = Tally()
    assert len(list(read_recording(tmp_path / "r.mcap", tally))) == 2
    assert tally.refused == 0
