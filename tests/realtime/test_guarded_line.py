"""A line with keys, as a person runs it: who is listed reads and steers it from anywhere, and nobody else does."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from realtime.control import Control, control
from realtime.errors import LineError, SourceError
from realtime.keys import make_client, make_server, revoke
from realtime.messages import Status, decode
from realtime.outlet import Outlet, OutletSpec
from realtime.schema import State
from realtime.subscriber import Subscriber
from realtime.tail import Tail, tail
from realtime.zap import security
from tests.realtime.hands import ended, free_address, start

MOMENT = {"mono_ns": 1, "utc": "2026-01-01T00:00:00.000Z"}


def status(seq: int, state: State = "online") -> Status:
    fields = {"schema": "status/1", "session": "s", "seq": seq, "source": "cam0", "time": MOMENT, "state": state}
    message = decode(json.dumps(fields))
    assert isinstance(message, Status)
    return message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_server(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def outlet(folder: Path) -> Iterator[Outlet]:
    with Outlet(OutletSpec("tcp://127.0.0.1:*", folder)) as made:
        made.open()
        yield made


def publishing(outlet: Outlet, true: Callable[[], bool], seconds: float, seq: list[int]) -> bool:
    """Publishes a status every 20 ms until it is true or the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        outlet.publish(status(seq[0]))
        outlet.tend()
        seq[0] += 1
        if true():
            return True
        time.sleep(0.02)
    return False


def hears(subscriber: Subscriber) -> bool:
    came = False
    while subscriber.receive(0) is not None:
        came = True
    return came


def test_a_revoked_subscriber_is_dropped_from_a_running_outlet_and_the_other_comes_back(outlet: Outlet, folder: Path):
    seq = [0]
    wall, door = make_client(folder, "wall"), make_client(folder, "door")
    wall_keys = security(wall)
    with (
        Subscriber(outlet.address, ["status."], wall_keys) as out,
        Subscriber(outlet.address, ["status."], security(door)) as stays,
        Subscriber(outlet.address, ["status."]) as plain,
    ):
        heard = {"out": False, "stays": False}

        def both() -> bool:
            heard["out"] |= hears(out)
            heard["stays"] |= hears(stays)
            return all(heard.values())

        assert publishing(outlet, both, 10, seq)
        revoke(folder, "wall")
        assert publishing(outlet, lambda: outlet.restarts > 0, 5, seq)
        hears(out)  # what was on its way
        hears(stays)
        assert publishing(outlet, lambda: hears(stays), 10, seq)
        assert not publishing(outlet, lambda: hears(out) or hears(plain), 1.0, seq)
        assert hears(stays)


@pytest.fixture
def guarded(folder: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str, str, Path]]:
    """A running line with keys: its process, bus and control addresses, and a client's file."""
    wall = make_client(folder, "wall")
    bus, control = free_address(), free_address()
    flags = ("--pub", bus.replace("127.0.0.1", "0.0.0.0"), "--control", control.replace("127.0.0.1", "0.0.0.0"))
    process = start(
        "--source", "synthetic", "--duration", 60, "--keys", folder, *flags, "--events", tmp_path / "e.jsonl"
    )
    try:
        yield process, bus, control, wall
    finally:
        process.kill()
        process.communicate()


def answer(capsys: pytest.CaptureFixture[str], control_: str, *words: object, keys: Path | None, timeout_s: float = 40):
    """What realtime.control prints, or the exit code of its error."""
    try:
        assert control(Control((control_, *map(str, words)), keys=keys, timeout_s=timeout_s, json=True)) == 0
    except LineError as error:
        return error.exit_code
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def beats(bus: str, keys: Path | None, timeout_s: float) -> bool:
    """Whether realtime.tail hears a heartbeat in time."""
    try:
        return tail(Tail(bus, ("heartbeat.",), count=1, timeout_s=timeout_s, keys=keys)) == 0
    except SourceError:
        return False


def test_a_listed_client_reads_and_steers_a_line_that_is_open_to_the_network_and_others_do_not(guarded, capsys):
    process, bus, control_, wall = guarded
    assert answer(capsys, control_, "stats", keys=wall)[0]["source"] == "synthetic"
    assert beats(bus, wall, 10)
    capsys.readouterr()
    for keys in (None, make_client(make_other(wall), "wall")):
        assert answer(capsys, control_, "shutdown", keys=keys, timeout_s=1) == 4
        assert not beats(bus, keys, 2)
    assert capsys.readouterr().out == ""
    assert answer(capsys, control_, "events", "since", 0, "status", keys=wall)[0]["state"] == "online"
    assert answer(capsys, control_, "reload", "/no/such/bundle", keys=wall) == 3
    assert process.poll() is None
    assert answer(capsys, control_, "shutdown", keys=wall) == [{"ok": True}]
    assert ended(process)[0] == 0


def make_other(wall: Path) -> Path:
    """The keys of another line."""
    folder = wall.parent.parent / "other"
    make_server(folder)
    return folder


def test_a_client_is_let_in_no_more_once_revoked_and_the_line_goes_on(guarded, folder: Path, capsys):
    process, _, control_, wall = guarded
    kept = wall.parent.parent / "wall.client"
    kept.write_bytes(wall.read_bytes())
    kept.chmod(0o600)
    assert answer(capsys, control_, "stats", keys=kept)[0]["ok"]
    revoke(folder, "wall")
    assert answer(capsys, control_, "shutdown", keys=kept, timeout_s=1) == 4
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 0


@pytest.mark.parametrize("flag", ["--pub", "--control"])
def test_without_keys_an_address_of_the_network_is_refused_before_anything_opens(flag: str):
    process = start("--source", "synthetic", flag, "tcp://0.0.0.0:5599")
    code, said = ended(process)
    assert code == 2 and "run: python -m realtime.keys make server, then add --keys" in said


def test_keys_that_others_can_read_keep_the_line_from_starting(folder: Path):
    (folder / "server.secret").chmod(0o644)
    code, said = ended(start("--source", "synthetic", "--pub", free_address(), "--keys", folder))
    assert code == 2 and f"run: chmod 600 {folder / 'server.secret'}" in said and "Traceback" not in said


def test_an_ipc_socket_is_for_this_user_alone_whatever_the_umask(tmp_path: Path):
    before = os.umask(0)
    try:
        with Outlet(OutletSpec(f"ipc://{tmp_path}/bus", control=f"ipc://{tmp_path}/control")):
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir() if path.is_socket()}
    finally:
        os.umask(before)
    assert modes == {"bus": 0o600, "bus.replay": 0o600, "control": 0o600}
