"""Bad input: one clear line, the documented exit code, and no event that did not happen."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from realtime import run as program
from realtime.cuda import driver_problem
from realtime.messages import ActionEvent, AnyMessage, Status
from realtime.recording import read_recording
from realtime.schema import SECOND_NS
from realtime.subscriber import Subscriber
from tests.realtime.hands import (
    check_story,
    ended,
    frames,
    free_address,
    lines,
    read_events,
    start,
    write_hands,
    write_recording,
)
from tests.realtime.telling import opened

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx", reason="the tiny model is made with the onnx package, which is not installed")
    return write_hands(tmp_path_factory.mktemp("bad") / "hands")


@pytest.fixture
def bundle(hands: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(hands, tmp_path / "bundle"))


@pytest.fixture
def refused(hands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> Iterator[Callable[..., str]]:
    """Runs the program in this process, which must end with `code`; gives the one line that it says.

    An exception would come through as such, so there is no traceback. Nothing may be told of a line that never ran.
    """
    monkeypatch.setattr("realtime.stop.signal.signal", lambda *_: None)

    def run(code: int, *flags: object, events: Path | None = tmp_path / "events.jsonl") -> str:
        given = [str(flag) for flag in flags]
        for flag, value in (("--bundle", hands), ("--pub", "none"), ("--source", "synthetic"), ("--duration", 1)):
            given += [] if flag in given else [flag, str(value)]
        given += ["--events", str(events)] if events is not None else []
        monkeypatch.setattr("sys.argv", ["run", "--fast", "--quiet", *given])
        assert program.main() == code
        out, said = capfd.readouterr()
        assert out == ""
        assert said.count("\n") == 1 and said.startswith("error: "), said
        assert len(said) > 30  # what, the value, the next thing to try
        if events is not None and events.is_file():
            assert events.read_bytes() == b""
        return said

    yield run


@pytest.fixture
def poses() -> list[dict]:
    """A raised hand as pose messages."""
    return [json.loads(line) for line in lines(frames())]


def written(path: Path, messages: list[dict]) -> Path:
    path.write_text("".join(json.dumps(message) + "\n" for message in messages))
    return path


def test_a_missing_file_is_named_with_its_likeliest_neighbour(refused, tmp_path):
    (tmp_path / "walk.mp4").write_bytes(b"x")
    said = refused(4, "--source", tmp_path / "walk.mp")
    assert "is not there; did you mean" in said and "walk.mp4" in said
    assert "there is no folder" in refused(4, "--source", tmp_path / "none" / "walk.mp4")


def test_an_empty_video_is_told_from_a_damaged_one(refused, tmp_path):
    (tmp_path / "empty.mp4").touch()
    assert "is empty (0 bytes)" in refused(4, "--source", tmp_path / "empty.mp4")
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    assert "no video that can be read" in refused(4, "--source", tmp_path / "noise.mp4")


def test_text_named_mp4_is_said_to_be_text(refused, tmp_path):
    (tmp_path / "notes.mp4").write_text("this is no film\n" * 50)
    assert "it is text, not video" in refused(4, "--source", tmp_path / "notes.mp4")


@pytest.mark.parametrize("name", ["text.mcap", "text.skeleton", "text.json", "text.jsonl", "text.npz", "text.partial"])
def test_text_under_the_name_of_a_recording_is_refused(refused, tmp_path, name):
    (tmp_path / name).write_text("these are no skeletons\n" * 20)
    assert str(tmp_path / name) in refused(4, "--source", tmp_path / name)


def test_a_folder_without_pictures_and_a_camera_that_is_not_there_are_refused(refused, tmp_path):
    assert "holds no pictures" in refused(4, "--source", tmp_path)
    if not Path("/dev/video77").exists():
        assert "camera /dev/video77 is not there" in refused(4, "--camera", 77, "--source", "77")


def test_a_recording_with_nan_plays_and_the_joints_are_counted(hands, tmp_path):
    poses = [json.loads(line) for line in lines(frames([(None, 1.0), ("right", 2.0)]))]
    for message in poses[::3]:
        message["persons"][0]["joints"][4] = [float("nan"), 0.1, 2.0]
    path, address = written(tmp_path / "nan.jsonl", poses), free_address()
    flags = ("--source", path, "--bundle", hands, "--pub", address, "--wait-subscriber", 20)
    with Subscriber(address, ("heartbeat.", "action.")) as subscriber:
        process = start(*flags, "--events", tmp_path / "events.jsonl")  # live pace: there must be a heartbeat
        counted, told = 0, 0
        while told < 1:
            received = subscriber.receive(20)
            assert received is not None
            counted = max(counted, getattr(received.message, "refused", 0))
            told += isinstance(received.message, ActionEvent)
        process.terminate()
        code, said = ended(process)
    assert code == 0 and "error" not in said
    assert said.count("not finite") == 1  # told once, then counted
    assert counted >= 10
    assert {event.action.id for event in read_events(tmp_path / "events.jsonl")} == {"right_up"}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"layout": "KINECT_V2_25"}, "16"),
        ({"layout": "MY_OWN_16"}, "MY_OWN_16"),
        ({"schema": "pose/9"}, "pose/9"),
        ({"time": {"mono_ns": -1}}, "mono_ns"),
    ],
)
def test_a_recording_with_the_wrong_joints_is_refused_by_message_and_rule(refused, tmp_path, poses, change, rule):
    said = refused(4, "--source", written(tmp_path / "wrong.jsonl", [poses[0] | change, *poses[1:]]))
    assert "message 1" in said and rule in said


def test_wrong_joints_midway_end_what_was_begun(hands, tmp_path, poses):
    poses[105]["persons"][0]["joints"].pop()
    path = written(tmp_path / "wrong.jsonl", poses)
    process = start("--bundle", hands, "--source", path, "--fast", "--pub", "none", "--events", tmp_path / "e.jsonl")
    code, said = ended(process)
    assert code == 4 and said.splitlines()[-1].startswith("error: recording") and "message 106" in said
    assert said.count("error: ") == 1 and "Traceback" not in said
    assert [event.end_reason for event in read_events(tmp_path / "e.jsonl") if event.phase == "end"] == ["source_lost"]


def test_a_bundle_with_a_flipped_byte_is_refused(refused, bundle):
    model = bytearray((bundle / "model.onnx").read_bytes())
    model[len(model) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(model)
    assert "model.onnx has sha256" in refused(3, "--bundle", bundle)


@pytest.mark.parametrize("key", ["schema", "classes", "temperature", "stride", "files"])
def test_a_bundle_that_lacks_a_key_is_refused_by_its_name(refused, bundle, key):
    document = json.loads((bundle / "bundle.json").read_text())
    del document[key]
    (bundle / "bundle.json").write_text(json.dumps(document))
    assert f"lacks the key {key!r}" in refused(3, "--bundle", bundle)


def test_a_bundle_that_is_not_there_or_lost_its_model_is_refused(refused, bundle, tmp_path):
    assert "no such folder" in refused(3, "--bundle", tmp_path / "none")
    (bundle / "model.onnx").unlink()
    assert "model.onnx cannot be read" in refused(3, "--bundle", bundle)


def test_a_port_in_use_is_refused_with_another_to_try(refused, tmp_path):
    with opened() as other:
        said = refused(5, "--pub", other.address)
        assert f"{other.address} is in use" in said and "try --pub tcp://127.0.0.1:" in said
    assert not (tmp_path / "events.jsonl").exists()
    with socket.socket() as plain:  # any program, not only ours
        plain.bind(("127.0.0.1", 0))
        plain.listen()
        assert "in use" in refused(5, "--pub", f"tcp://127.0.0.1:{plain.getsockname()[1]}")


def test_an_address_that_the_network_could_reach_is_refused(refused):
    assert "can be reached from the network" in refused(2, "--pub", "tcp://0.0.0.0:5556")
    assert "must be tcp://127.0.0.1:PORT" in refused(2, "--pub", "localhost")


def test_outputs_that_cannot_be_written_are_refused_before_anything_is_told(refused, tmp_path):
    assert "cannot write events to" in refused(2, events=tmp_path / "none" / "events.jsonl")
    assert "cannot write events to" in refused(2, events=tmp_path)
    assert "cannot record to" in refused(2, "--record", tmp_path / "none" / "kept.mcap")
    assert "cannot record to" in refused(2, "--record", tmp_path)


def test_a_source_is_never_its_own_output(refused, tmp_path, poses):
    path = written(tmp_path / "kept.jsonl", poses)
    before = path.read_bytes()
    assert "is the source" in refused(2, "--source", path, "--record", path)
    (tmp_path / "same.jsonl").symlink_to(path)
    assert "is the source" in refused(2, "--source", path, "--events", tmp_path / "same.jsonl", events=None)
    partial = write_recording(tmp_path / "kept.mcap.partial", frames())
    whole = partial.read_bytes()
    assert "kept.mcap.partial is there" in refused(2, "--source", partial, "--record", tmp_path / "kept.mcap")
    assert partial.read_bytes() == whole
    assert "are both" in refused(2, "--record", tmp_path / "events.jsonl")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--duration", "0"), "--duration must be above 0 seconds, got 0.0"),
        (("--duration", "nan"), "--duration must be above 0 seconds, got nan"),
        (("--wait-subscriber", "-1"), "--wait-subscriber must be above 0 seconds, got -1.0"),
        (("--persons", "0"), "--persons must be in [1, 64], got 0"),
        (("--fps", "0"), "fps must be in (0, 1000], got 0.0"),
        (("--threads", "0"), "threads must be at least 1, got 0"),
    ],
)
def test_a_value_out_of_range_is_refused_by_flag_and_value(refused, flags, words):
    assert words in refused(2, *flags)


@pytest.mark.parametrize("flags", [("--cammera", "0"), ("--persons", "two"), ("--backend", "gpu"), ("--events",)])
def test_flags_that_do_not_exist_or_do_not_parse_are_usage_errors(monkeypatch, capsys, flags):
    monkeypatch.setattr("sys.argv", ["run", *flags])
    with pytest.raises(SystemExit) as end:
        program.main()
    assert end.value.code == 2
    assert flags[0].strip("-") in capsys.readouterr().err.replace("cameras", "")


@pytest.mark.skipif(driver_problem() is None, reason="this machine has an NVIDIA driver and a GPU")
@pytest.mark.parametrize("backend", ["trt", "rtx"])
def test_a_gpu_that_is_not_there_is_told_with_what_to_do(refused, backend):
    said = " ".join(refused(6, "--backend", backend).split())
    assert f"backend {backend} was demanded but no NVIDIA driver" in said and "use --backend ort" in said
    assert said.endswith(f"--backend {backend} --precision fp16") and "python -m export.trt" in said
    assert "use --backend ort" in refused(6, "--backend", "ort-cuda")


def test_a_precision_that_the_bundle_lacks_is_refused(refused):
    assert "it has no int8 graph, only fp32" in refused(3, "--precision", "int8")


def test_flags_of_engines_that_do_not_go_together_are_refused(refused):
    assert "--backend ort takes none" in refused(2, "--backend", "ort", "--engine", "model.engine")
    assert "--engine names" in refused(2, "--trust")


def test_waiting_for_a_subscriber_who_never_comes_tells_nothing(refused):
    said = refused(2, "--pub", free_address(), "--wait-subscriber", "0.3")
    assert "no subscriber came to" in said


def test_a_full_disk_is_one_line_and_every_other_output_is_whole(hands, tmp_path, poses):
    if not Path("/dev/full").exists():
        pytest.skip("this machine has no /dev/full")
    path, address = written(tmp_path / "hand.jsonl", poses), free_address()
    flags = ("--bundle", hands, "--source", path, "--fast", "--pub", address, "--wait-subscriber", 20)
    messages: list[AnyMessage] = []
    with Subscriber(address, ("action.", "status.")) as subscriber:
        process = start(*flags, "--events", "/dev/full", "--record", tmp_path / "kept.mcap")
        code, said = ended(process)
        while (received := subscriber.receive(0.3)) is not None:
            messages.append(received.message)
    assert code == 1
    assert said.splitlines()[-1].startswith("error: cannot write /dev/full: No space left on device")
    assert said.count("error: ") == 1 and "Traceback" not in said
    check_story([message for message in messages if isinstance(message, ActionEvent)])
    assert [m.phase for m in messages if isinstance(m, ActionEvent)] == ["start", "end"]
    last = messages[-1]
    assert isinstance(last, Status) and last.state == "offline" and "cannot write /dev/full" in str(last.reason)
    kept = list(read_recording(tmp_path / "kept.mcap"))
    assert 2 < (kept[-1].captured_ns - kept[0].captured_ns) / SECOND_NS < 4  # up to the event that did not fit


def test_lines_that_come_faster_than_they_were_captured_have_no_age(hands):
    process = start("--bundle", hands, "--source", "-", "--pub", "none", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b"".join(lines(frames())))  # six seconds at once, and then silence past a heartbeat
    process.stdin.flush()
    time.sleep(4)
    code, said = ended(process)
    assert code == 0 and "Traceback" not in said, said


def test_standard_input_that_is_no_pose_message_is_refused_and_nothing_hangs(hands, tmp_path):
    for given in (b"hello\n", b"", b'{"schema": "pose/1"}\n'):
        begun = time.monotonic()
        process = start("--bundle", hands, "--source", "-", "--pub", "none", "--events", tmp_path / "e.jsonl", stdin=-1)
        code, said = ended(process, given)
        assert code == 4 and said.splitlines()[-1].startswith("error: stdin"), said
        assert time.monotonic() - begun < 10
        assert read_events(tmp_path / "e.jsonl") == []
