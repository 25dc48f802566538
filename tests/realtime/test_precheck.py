"""--check: each thing is tried once, each gets a line, and the code is that of the first fault."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from realtime import run as program
from realtime.errors import AddressError, SourceError, UsageError
from realtime.feed import SourceInfo
from realtime.precheck import first_frame, free, writable
from realtime.schema import Frame
from tests.realtime.hands import free_address, write_hands


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
        (("--source", "/nowhere.mp4"), "source", 4),
        (("--events", "/nowhere/e.jsonl"), "events", 2),
        (("--pub", "tcp://127.0.0.1"), "pub", 2),
        (("--pub", "tcp://0.0.0.0:5556"), "pub", 2),  # without keys
        (("--control", "tcp://*:5558"), "control", 2),
        (("--http", "0.0.0.0:8080"), "http", 2),
    ],
)
def test_a_fault_has_its_own_line_and_code_and_hides_no_other(checked, flags, what, code):
    pub = () if "--pub" in flags else ("--pub", free_address())
    found, rows = checked(*pub, *flags)
    assert (found, rows[what]) == (code, "error")
    assert {"settings", "bundle", "engine", "source", "pub"} <= set(rows)


def test_the_first_fault_decides_the_code(checked):
    code, rows = checked("--source", "/nowhere.mp4", "--pub", "none", "--events", "/nowhere/e.jsonl")
    assert code == 4 and rows["source"] == rows["events"] == "error"


def test_an_address_in_use_is_5_also_the_one_for_replays(checked):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code, rows = checked("--pub", f"tcp://127.0.0.1:{port}")
        assert (code, rows["pub"]) == (5, "error")
        with pytest.raises(AddressError, match=f"port {port}"):
            free(f"tcp://127.0.0.1:{port - 1}", ports=2)
        assert free(f"127.0.0.1:{port - 1}").endswith("is free")


def test_sockets_in_folders(tmp_path):
    assert free(f"ipc://{tmp_path}/s").endswith("is free")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        assert free(f"ipc://{tmp_path}/s").endswith("is free")  # stale: nobody listens
        server.listen()
        with pytest.raises(AddressError, match="in use"):
            free(f"ipc://{tmp_path}/s")
    with pytest.raises(UsageError, match="no folder"):
        free("ipc:///nowhere/s")


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:*", "tcp://*:*", "127.0.0.1:0", "tcp://[::1]:0"])
def test_any_free_port_is_free(address):
    assert "free" in free(address, ports=2)


def test_ports_end_at_65535():
    with pytest.raises(UsageError, match="65536"):
        free("tcp://127.0.0.1:65535", ports=2)


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
        writable(tmp_path / "a.mcap", new=True)
    with pytest.raises(UsageError, match="is a folder"):
        writable(tmp_path)
    (tmp_path / "e.jsonl").write_bytes(b"kept")
    writable(tmp_path / "e.jsonl")
    assert (tmp_path / "e.jsonl").read_bytes() == b"kept"
