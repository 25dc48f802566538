"""--check: each thing is tried once, each gets a line, and the code is that of the first fault."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime import run as program
from realtime.bundle import default_bundle
from realtime.errors import SourceError, UsageError
from realtime.feed import SourceInfo
from realtime.keys import make_server
from realtime.precheck import first_frame, writable
from realtime.schema import Frame
from tests.realtime.hands import free_address, write_hands
from tests.realtime.test_interactions import pair_bundle


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx", reason="the tiny model is made with the onnx package, which is not installed")
    return write_hands(tmp_path_factory.mktemp("check") / "hands")


@pytest.fixture
def checked(hands, monkeypatch, capsys):
    """Exit code of --check, and its lines by what they are about."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def check(*flags: object) -> tuple[int, dict[str, str]]:
        given = ["run", "--bundle", hands, "--source", "synthetic", "--check", *flags]
        monkeypatch.setattr("sys.argv", [str(flag) for flag in given])
        code = program.main()
        return code, {line.split()[1]: line.split()[0] for line in capsys.readouterr().out.splitlines()}

    yield check
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_line_that_can_run_is_told_so_and_nothing_is_left_behind(checked, tmp_path):
    files = ("--events", tmp_path / "e.jsonl", "--record", tmp_path / "r.mcap")
    code, rows = checked("--pub", free_address(), "--http", free_address()[6:], *files)
    assert code == 0
    assert list(rows) == ["settings", "bundle", "engine", "source", "pub", "http", "events", "record"]
    assert set(rows.values()) == {"ok"}
    assert not list(tmp_path.glob("[er].*"))


@pytest.mark.parametrize(
    ("flags", "what", "code"),
    [
        (("--persons", 900), "settings", 2),
        (("--bundle", "/nowhere"), "bundle", 3),
        (("--interactions", "/nowhere"), "interactions", 3),
        (("--calib", "/nowhere"), "calib", 2),
        (("--source", "/nowhere.mp4"), "source", 4),
        (("--events", "/nowhere/e.jsonl"), "events", 2),
        (("--pub", "tcp://127.0.0.1"), "pub", 2),
        (("--pub", "tcp://0.0.0.0:5556"), "pub", 2),  # without keys
        (("--control", "tcp://*:5656"), "control", 2),
        (("--http", "0.0.0.0:8080"), "http", 2),
    ],
)
def test_a_fault_has_its_own_line_and_code_and_hides_no_other(checked, flags, what, code):
    pub = () if "--pub" in flags else ("--pub", free_address())
    found, rows = checked(*pub, *flags)
    assert (found, rows[what]) == (code, "error")
    assert {"settings", "bundle", "engine", "source", "pub"} <= set(rows)


def test_a_lens_of_another_picture_is_a_fault_of_the_pose_stage(checked, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((48, 64, 3), np.uint8))
    lens = {"schema": "calib-camera/1", "width": 640, "height": 300, "fx": 500.0, "fy": 500.0, "cx": 320.0,
            "cy": 150.0, "distortion": [0.0] * 5, "model": "pinhole", "rms_px": 0.2, "measured": {}}  # fmt: skip
    path = tmp_path / "cam.json"
    path.write_text(json.dumps(lens))
    code, rows = checked("--source", tmp_path / "a.png", "--pub", "none", "--calib", path)
    assert code == 2 and rows["calib"] == "ok" and rows["pose"] == "error"
    path.write_text(json.dumps({**lens, "height": 480}))
    code, rows = checked("--source", tmp_path / "a.png", "--pub", "none", "--calib", path)
    assert code == 0 and rows["pose"] == "ok"


def test_the_first_fault_decides_the_code(checked):
    code, rows = checked("--source", "/nowhere.mp4", "--pub", "none", "--events", "/nowhere/e.jsonl")
    assert code == 4 and rows["source"] == rows["events"] == "error"


def test_an_address_in_use_is_5_also_the_one_for_replays(checked):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for flags, what in (
            (("--pub", f"tcp://127.0.0.1:{port}"), "pub"),
            (("--pub", f"tcp://127.0.0.1:{port - 1}"), "pub"),
            (("--pub", "none", "--control", f"tcp://127.0.0.1:{port}"), "control"),
            (("--pub", "none", "--http", f"127.0.0.1:{port}"), "http"),
        ):
            code, rows = checked(*flags)
            assert (code, rows[what]) == (5, "error"), flags


def test_two_flags_that_name_one_address_are_5(checked):
    bus = free_address()
    after = f"tcp://127.0.0.1:{int(bus.rpartition(':')[2]) + 1}"
    code, rows = checked("--pub", bus, "--control", after)
    assert (code, rows["pub"], rows["control"]) == (5, "ok", "error")


def test_sockets_in_folders(checked, tmp_path):
    address = f"ipc://{tmp_path}/s"
    assert checked("--pub", address, "--control", f"{address}.control")[0] == 0
    assert not list(tmp_path.iterdir())
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.replay"))
        assert checked("--pub", address)[0] == 0  # stale: nobody listens
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.replay"))
        server.listen()
        assert checked("--pub", address)[0] == 5
    assert checked("--pub", "ipc:///nowhere/s")[0] == 2


@pytest.mark.parametrize("flags", [("--pub", "tcp://127.0.0.1:*"), ("--pub", "none", "--http", "[::1]:0")])
def test_any_free_port_is_free(checked, flags):
    assert checked(*flags)[0] == 0


def test_ports_end_at_65535(checked):
    assert checked("--pub", "tcp://127.0.0.1:65535")[0] == 2


def test_bundles_that_do_not_go_together_are_told(checked, hands, tmp_path):
    pairs = pair_bundle(tmp_path / "pairs").path
    for flags, row in ((("--bundle", pairs), "bundle"), (("--interactions", pairs), "interactions")):  # 24 rows, and 64
        code, rows = checked("--pub", "none", *flags)
        assert (code, rows[row]) == (3, "error")
    code, rows = checked("--pub", "none", "--interactions", hands)  # of single people
    assert (code, rows["bundle"], rows["interactions"]) == (3, "ok", "error")


def test_the_bundle_of_pairs_that_ships_goes_with_the_one_that_ships(checked):
    code, rows = checked("--bundle", default_bundle(), "--interactions", "ships", "--pub", "none")
    assert (code, rows["interactions"]) == (0, "ok")


def test_keys_are_looked_at_as_the_line_does(checked, tmp_path):
    folder = tmp_path / "keys"
    code, rows = checked("--pub", free_address(), "--keys", folder)
    assert (code, rows["keys"]) == (2, "error")
    make_server(folder)
    code, rows = checked("--pub", free_address().replace("127.0.0.1", "0.0.0.0"), "--keys", folder)
    assert (code, rows["keys"], rows["pub"]) == (0, "ok", "ok")
    (folder / "server.secret").chmod(0o644)
    code, rows = checked("--pub", free_address(), "--keys", folder)
    assert (code, rows["keys"]) == (2, "error")


def test_a_journal_is_none_other_than_a_journal(checked, tmp_path):
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear")
    code, rows = checked("--pub", "none", "--journal", letter)
    assert (code, rows["journal"]) == (2, "error")
    letter.write_text("{")
    assert checked("--pub", "none", "--journal", letter)[0] == 0 and letter.read_text() == "{"
    for flag in ("--journal", "--events"):
        assert checked("--pub", "none", flag, tmp_path / ("x" * 300))[0] == 2  # no file system takes such a name


def test_what_finds_skeletons_is_tried_where_there_are_pictures(checked, monkeypatch, tmp_path):
    cv2 = pytest.importorskip("cv2")
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((48, 64, 3), number, np.uint8))
    pictures = ("--source", tmp_path, "--pub", "none")
    for pose in ("no.onnx", "magic"):
        code, rows = checked(*pictures, "--pose", pose)
        assert (code, rows["pose"], rows["source"]) == (2, "error", "ok"), pose
    monkeypatch.setattr("realtime.litert.unavailable", lambda: "ai-edge-litert is not installed")
    code, rows = checked(*pictures, "--pose", "litert")
    assert (code, rows["pose"]) == (2, "error")
    assert "pose" not in checked("--pub", "none", "--pose", "litert")[1]  # a synthetic person needs none


class Silent:
    info = SourceInfo("door", "camera", live=True)
    closed = False

    def __iter__(self) -> Iterator[Frame | None]:
        while True:
            yield None

    def close(self) -> None:
        self.closed = True


def test_a_camera_that_gives_no_frame_is_an_error_and_is_closed():
    source = Silent()
    with pytest.raises(SourceError, match="camera door: no frame within"):
        first_frame(lambda: source, within_s=0.05)  # type: ignore[arg-type]
    assert source.closed


def test_recordings_are_not_overwritten(tmp_path):
    (tmp_path / "a.mcap.partial").write_bytes(b"x")
    with pytest.raises(UsageError, match="would be lost"):
        writable(tmp_path / "a.mcap", "record")
    with pytest.raises(UsageError, match="is a folder"):
        writable(tmp_path)
    (tmp_path / "e.jsonl").write_bytes(b"kept")
    writable(tmp_path / "e.jsonl")
    assert (tmp_path / "e.jsonl").read_bytes() == b"kept"
