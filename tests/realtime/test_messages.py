"""The wire: golden bytes, refusals by name, poses both ways, JSON Schema files."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from realtime.clock import Clock
from realtime.messages import (
    Action,
    Heartbeat,
    Latency,
    MessageError,
    Model,
    OpenEvent,
    Percentiles,
    PoseMessage,
    Source,
    Status,
    decode,
    encode,
)
from realtime.schema import Event, Pose, Scores, Window
from realtime.skeleton import COCO_17, KINECT_V2_25
from realtime.wire import action_event, moment, pose_message, poses, scores_message, span_of, topic, track_of

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "golden"
CLOCK = Clock(mono_ns=5_000_000_000, utc_ns=1_790_856_000_000_000_000)  # 2026-10-01T12:00:00Z
SECOND = 1_000_000_000


def event(**changes):
    fields = {
        "id": "01J9Z0000000000000000000AB",
        "phase": "start",
        "track": 3,
        "action": "wave",
        "value": 0.91,
        "raw": 0.88,
        "peak": 0.94,
        "on": 0.8,
        "off": 0.6,
        "margin": 0.6,
        "onset_ns": 8_120_000_000,
        "decided_ns": 9_020_999_999,
        "alternatives": (("stretch", 0.31),),
    }
    return Event(**fields | changes)


def wire_event(one=None, **changes):
    fields = {
        "session": "5f2c",
        "seq": 1842,
        "source": Source(id="cam0", kind="usb", width=1280, height=720, fps=29.8),
        "action": Action(id="wave", name="waving", label_set="demo"),
        "model": Model(name="demo", sha256="ab12", backend="onnxruntime/cpu", window=64, stride=4, precision="int8"),
        "clock": CLOCK,
        "latency": Latency(capture_to_publish=84.0, pose=27.1, model=2.3, queue=4.0),
    }
    return action_event(one or event(), **fields | changes)


def heartbeat(**changes):
    fields = {
        "session": "5f2c",
        "seq": 7,
        "source": "cam0",
        "time": moment(9_000_000_000, CLOCK),
        "fps": 29.8,
        "frame_age_ms": Percentiles(p50=41.0, p95=62.5),
        "drops": 2,
        "refused": 0,
        "stage_ms": {"pose": Percentiles(p50=27.0, p95=31.0)},
        "open_events": (OpenEvent(id="01J9Z", track=3, action="wave"),),
        "persons": 1,
        "next_seq": {"action": 4, "status": 1},
    }
    return Heartbeat(**fields | changes)


def status(**changes):
    fields = {"session": "5f2c", "seq": 0, "source": "cam0", "time": moment(5_000_000_000, CLOCK), "state": "online"}
    fields["backend"] = "onnxruntime/cpu"
    return Status(**fields | changes)


def scores(probabilities=(0.25, 0.75)):
    return Scores(12, 9 * SECOND, 3, 6 * SECOND, np.zeros(2, np.float32), np.asarray(probabilities, np.float32))


def wire_scores(one):
    return scores_message(one, classes=("nothing", "wave"), session="5f2c", seq=1, source="cam0", clock=CLOCK)


def pose(layout=COCO_17, track=3, **changes):
    joints = np.arange(len(layout) * 3, dtype=np.float32).reshape(-1, 3) / 4
    return Pose(12, 9 * SECOND, track, layout, joints, np.full(len(layout), 0.5, np.float32), **changes)


def wire_poses(*found, layout=COCO_17):
    return pose_message(
        found, frame=12, captured_ns=9 * SECOND, layout=layout, session="5f2c", seq=2, source="cam0", clock=CLOCK
    )


EXAMPLES = {
    "action-event-1": wire_event,
    "heartbeat-1": heartbeat,
    "status-1": status,
    "scores-1": lambda: wire_scores(scores()),
    "pose-1": lambda: wire_poses(pose(box=(0.1, 0.2, 0.3, 0.4))),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_message_has_its_golden_bytes(name):
    golden = (GOLDEN / f"{name}.json").read_bytes().rstrip(b"\n")
    assert encode(EXAMPLES[name]()) == golden
    assert decode(golden) == EXAMPLES[name]()


def test_messages_of_publishers_that_knew_fewer_fields_are_read():
    event = json.loads((GOLDEN / "action-event-1.json").read_bytes())
    del event["model"]["precision"]
    assert decode(json.dumps(event)).model.precision is None
    one = json.loads((GOLDEN / "status-1.json").read_bytes())
    del one["backend"]
    assert decode(json.dumps(one)) == status(backend=None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("action-event-1", "action.cam0.start.wave"),
        ("heartbeat-1", "heartbeat.cam0"),
        ("status-1", "status.cam0"),
        ("scores-1", "scores.cam0"),
        ("pose-1", "pose.cam0"),
    ],
)
def test_each_message_goes_out_under_its_topic(name, expected):
    assert topic(EXAMPLES[name]()) == expected


@pytest.mark.parametrize("source", ["cam.0", "", "cam 0", "cam0.start"])
def test_a_source_that_would_break_the_topic_is_refused(source):
    with pytest.raises(MessageError, match="letters, digits"):
        topic(status(source=source))


def test_unknown_keys_are_ignored():
    loose = encode(status()).replace(b'"seq"', b'"mood":{"x":[1]},"seq"')
    assert decode(loose) == status()


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (b"{}", "schema"),
        (b"nonsense", "malformed"),
        (b'\xff\xfe{"', "malformed"),
        (b'{"schema":"action-event/2"}', "action-event/2"),
        (encode(status()).replace(b'"seq":0', b'"seq":-1'), r"\$\.seq"),
        (encode(status()).replace(b'"online"', b'"fine"'), r"\$\.state"),
        (encode(status()).replace(b"12:00:00.000Z", b"12:00:00+01:00"), r"\$\.time\.utc"),
        (encode(wire_event()).replace(b'"value":0.91', b'"value":1.5'), r"\$\.score\.value"),
        (encode(wire_poses(pose())).replace(b"[0.0,", b"[NaN,"), "write null"),
        (encode(wire_poses(pose())).replace(b"[0.0,", b"[1e999,"), "out of range"),
    ],
)
def test_what_breaks_its_schema_is_refused_by_name(payload, complaint):
    with pytest.raises(MessageError, match=complaint):
        decode(payload)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (heartbeat(fps=float("nan")), r"Heartbeat\.fps must be finite, got nan"),
        (heartbeat(stage_ms={"pose": Percentiles(p50=1.0, p95=float("inf"))}), r"stage_ms\.pose\.p95"),
        (wire_event(event(margin=float("nan"))), r"score\.margin"),
        (wire_poses(pose(box=(0.0, float("nan"), 1.0, 1.0))), r"persons\[0\]\.box\[1\]"),
        (wire_event(event(value=-0.1)), r"score\.value"),
        (status(state="fine"), r"\$\.state"),
    ],
)
def test_nothing_that_a_reader_would_refuse_is_written(message, complaint):
    with pytest.raises(MessageError, match=complaint):
        encode(message)


def test_poses_come_back_to_the_last_bit():
    rng = np.random.default_rng(0)
    sent = tuple(
        Pose(
            index=12,
            captured_ns=9 * SECOND,
            track=track,
            layout=KINECT_V2_25,
            joints=rng.normal(size=(25, 3)).astype(np.float32),
            confidence=rng.random(25, np.float32),
            image_joints=rng.random((25, 2), np.float32),
            box=(0.1, 0.2, 0.3, 0.4),
        )
        for track in (1, 2)
    )
    message = decode(encode(wire_poses(*sent, layout=KINECT_V2_25)))
    assert isinstance(message, PoseMessage)
    for before, after in zip(sent, poses(message), strict=True):
        for name in ("joints", "confidence", "image_joints"):
            np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
            assert getattr(after, name).dtype == np.float32
        assert (after.index, after.captured_ns, after.track) == (before.index, before.captured_ns, before.track)
        assert (after.layout, after.box) == (before.layout, before.box)


def test_a_null_coordinate_or_one_beyond_float32_is_a_missing_joint():
    payload = encode(wire_poses(pose())).replace(b"[0.75,", b"[null,").replace(b"[1.5,", b"[1e200,")
    (found,) = poses(decode(payload))
    assert np.flatnonzero(found.confidence == 0).tolist() == [1, 2]
    assert np.isfinite(found.joints).all()


def test_a_line_written_by_hand_needs_only_what_a_pose_is():
    line = {"schema": "pose/1", "time": {"mono_ns": 5}, "frame": 0, "layout": "COCO_17"}
    (found,) = poses(decode(json.dumps(line | {"persons": [{"track": 1, "joints": [[0, 1, 2]] * 17}]})))
    assert found.joints.shape == (17, 3)
    assert (found.confidence == 1).all()


def test_nobody_is_a_message_too():
    assert poses(decode(encode(wire_poses()))) == ()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"layout": "OCTOPUS_8"}, "unknown layout 'OCTOPUS_8'; known: KINECT_V1_20"),
        ({"layout": "KINECT_V2_25"}, "KINECT_V2_25 has 25 joints, got 17 joints"),
        ({"persons": [{"track": 1, "joints": [[0, 1, 2]] * 17}] * 2}, "twice"),
        ({"persons": [{"track": 1, "joints": [[0, 1, 2]] * 17, "confidence": [1]}]}, "got 1 confidence"),
    ],
)
def test_poses_that_do_not_fit_their_layout_are_refused(change, complaint):
    line = json.loads(encode(wire_poses(pose()))) | change
    with pytest.raises(MessageError, match=complaint):
        poses(decode(json.dumps(line)))


def test_one_message_has_one_layout():
    with pytest.raises(MessageError, match="one layout"):
        wire_poses(pose(), layout=KINECT_V2_25)


def test_an_end_tells_when_and_why():
    message = wire_event(event(phase="end", offset_ns=12 * SECOND, decided_ns=13 * SECOND, end_reason="track_lost"))
    assert message.time.offset == "2026-10-01T12:00:07.000Z"
    assert message.end_reason == "track_lost"
    assert topic(message) == "action.cam0.end.wave"


def test_an_event_is_not_sent_under_another_name_or_track():
    with pytest.raises(MessageError, match="wave"):
        wire_event(action=Action(id="walk", name="walking"))
    with pytest.raises(MessageError, match="track 3"):
        wire_event(track=track_of(pose(track=4), 1.0))


def test_a_softmax_a_hair_above_one_is_one():
    assert wire_scores(scores((0.0, 1.0000001))).probabilities["wave"] == 1.0


def test_the_window_and_person_behind_an_event_are_told():
    joints = np.zeros((64, 16, 3), np.float32)
    window = Window(12, 9 * SECOND, 3, 6 * SECOND, joints, joints[..., 0], observed=61)
    message = wire_event(track=track_of(pose(), 12.4), window=span_of(window, CLOCK, 20.0))
    assert (message.time.window.start_s, message.time.window.end_s) == (1.0, 4.0)
    assert (message.time.window.frames, message.time.window.observed) == (64, 61)
    assert (message.track.visible_joints, message.track.quality) == (17, 0.5)
    assert decode(encode(message)) == message


def test_reported_time_follows_the_clock_taken_at_the_start():
    assert CLOCK.utc(CLOCK.mono_ns) == "2026-10-01T12:00:00.000Z"
    assert CLOCK.utc(CLOCK.mono_ns - 1) == "2026-10-01T11:59:59.999Z"
    assert CLOCK.seconds(CLOCK.mono_ns + SECOND // 2) == 0.5


def test_schema_files_are_current():
    spec = importlib.util.spec_from_file_location("make_schema", ROOT / "scripts" / "make_schema.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    written = {path.name: path.read_text(encoding="utf-8") for path in script.FOLDER.glob("*.json")}
    assert written == script.schema_files(), "run: python scripts/make_schema.py"
    assert set(written) == {f"{name}.json" for name in EXAMPLES}
