"""Control: a running line answers, changes what it is told to, and what it refuses changes nothing."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from realtime.bundle import shipped_interactions
from realtime.commands import Commands
from realtime.control import Control, ask, control
from realtime.errors import BundleError, LineError, SourceError, UsageError
from realtime.keys import Allowed, load_server, make_client, make_server
from realtime.zap import Gate, secure_server
from tests.realtime.hands import ended, free_address, start

# --- Requests -------------------------------------------------------------------------------------------------------


class Waves:
    """A line that only remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []

    def stats(self) -> dict[str, Any]:
        return {"fps": 30.0}

    def actions(self) -> list[dict[str, Any]]:
        times = {"on": 0.6, "off": 0.4, "min_on_s": 0.2, "min_off_s": 0.3}
        return [{"id": name, "name": name.upper(), **times, "enabled": True} for name in ("wave", "point")]

    def enable(self, action: str) -> None:
        self.asked.append(("enable", action))

    def disable(self, action: str) -> None:
        self.asked.append(("disable", action))

    def reload(self, bundle: Path) -> str:
        self.asked.append(("reload", str(bundle)))
        if bundle.name == "broken":
            raise BundleError("bundle broken: model.onnx has 3 bytes")
        if bundle.name == "strange":
            raise RuntimeError("rtsp://u:p@ss@cam/x")
        return "other"

    def shutdown(self) -> None:
        self.asked.append(("shutdown", None))


@pytest.mark.parametrize(
    ("request_", "answer", "asked"),
    [
        ({"command": "stats"}, {"ok": True, "fps": 30.0}, []),
        ({"command": "stats", "id": 7}, {"ok": True, "fps": 30.0, "id": 7}, []),
        (b'{"command":"stats"}', {"ok": True, "fps": 30.0}, []),
        ({"command": "disable", "action": "wave"}, {"ok": True, "action": "wave", "enabled": False}, ["disable"]),
        ({"command": "enable", "action": "wave"}, {"ok": True, "action": "wave", "enabled": True}, ["enable"]),
        ({"command": "reload", "bundle": "/m/new"}, {"ok": True, "bundle": "other"}, ["reload"]),
        ({"command": "shutdown"}, {"ok": True}, ["shutdown"]),
    ],
)
def test_a_request_is_one_call_and_one_answer(request_, answer, asked):
    line = Waves()
    assert Commands(line).handle(request_) == answer
    assert [name for name, _ in line.asked] == asked


@pytest.mark.parametrize(
    ("request_", "error", "code"),
    [
        ({"command": "stat"}, "did you mean stats?", 2),
        ({"command": "xyz"}, "there are stats, actions", 2),
        ({"command": 3}, "unknown command 3", 2),
        ({}, "unknown command None", 2),
        ([], "unknown command None", 2),
        (b"{", "a request is a JSON object", 2),
        (b"\xff", "a request is a JSON object", 2),
        (b"[" * 100_000, "a request is a JSON object", 2),
        ({"command": "disable"}, "disable: Object missing required field `action`", 2),
        ({"command": "disable", "action": 3}, "Expected `str`", 2),
        ({"command": "disable", "action": "x" * 1000}, "length <= 200", 2),
        ({"command": "stats", "verbose": True}, "unknown field `verbose`", 2),
        ({"command": "disable", "action": "wav"}, "no action 'wav'; did you mean wave?", 2),
        ({"command": "enable", "action": "__class__"}, "there are wave, point", 2),
        ({"command": "reload", "bundle": "models/new"}, "by its whole path", 2),
        ({"command": "reload", "bundle": "/m/broken"}, "model.onnx has 3 bytes", 3),
        ({"command": "reload", "bundle": "/m/strange"}, "internal error", 1),
    ],
)
def test_a_request_that_cannot_be_is_refused_with_what_to_do(request_, error, code):
    line = Waves()
    answer = Commands(line).handle(request_)
    assert answer["ok"] is False and answer["code"] == code
    assert error in answer["error"] and "\n" not in answer["error"] and "p@ss" not in answer["error"]
    assert all(name == "reload" for name, _ in line.asked)
    json.dumps(answer)


# --- The command line, over a socket ---------------------------------------------------------------------------------


class Server(threading.Thread):
    """What the child that holds the sockets does with control: hands requests on, answers for the ring itself."""

    def __init__(self, line: Waves, folder: Path | None = None) -> None:
        super().__init__(daemon=True)
        self._context, self._commands, self._over = zmq.Context(), Commands(line), threading.Event()
        self._gate = Gate(self._context, Allowed(folder), lambda _: None) if folder else None
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 200)
        if folder:
            secure_server(self._socket, load_server(folder))
        self.address = f"tcp://127.0.0.1:{self._socket.bind_to_random_port('tcp://127.0.0.1')}"
        self.seen: list[dict[str, Any]] = []
        self.start()

    def run(self) -> None:
        while not self._over.is_set():
            if self._gate:
                self._gate.answer()
            if self._socket.poll(5):
                sender, body = self._socket.recv_multipart()
                self.seen.append(json.loads(body))
                self._socket.send_multipart([sender, *self._answer(self.seen[-1])])
        self._context.destroy()

    def _answer(self, fields: dict[str, Any]) -> list[bytes]:
        if "get" not in fields:
            return [json.dumps(self._commands.handle(fields)).encode()]
        if fields["from"] < 5:
            return [json.dumps({"answer": "gone", "from": fields["from"], "oldest": 5}).encode()]
        messages = [json.dumps({"seq": fields["from"] + i}).encode() for i in range(2)]
        head = {"answer": "since", "from": fields["from"], "oldest": 5, "next": 20, "count": 2}
        return [json.dumps(head).encode(), *messages]

    def stop(self) -> None:
        self._over.set()
        self.join()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(Waves())
    yield made
    made.stop()


def test_the_command_line_asks_and_prints(server: Server, capsys: pytest.CaptureFixture[str]):
    assert control(Control((server.address, "stats"))) == 0
    assert capsys.readouterr().out == "fps: 30.0\n"
    control(Control((server.address, "stats"), json=True))
    assert json.loads(capsys.readouterr().out) == {"ok": True, "fps": 30.0}
    control(Control((server.address, "actions")))
    assert "starts at 0.60 for 0.2 s, ends below 0.40 for 0.3 s  WAVE" in capsys.readouterr().out
    control(Control((server.address, "reload", "models/new")))
    assert server.seen[-1] == {"command": "reload", "bundle": str(Path.cwd() / "models/new")}


def test_events_are_asked_for_by_number_family_and_session(server: Server, capsys: pytest.CaptureFixture[str]):
    assert control(Control((server.address, "events", "since", "10"))) == 0
    printed = capsys.readouterr()
    assert [json.loads(line)["seq"] for line in printed.out.splitlines()] == [10, 11]
    assert printed.err == "more: events since 12\n"
    control(Control((server.address, "events", "since", "18", "status", "abc")))
    assert server.seen[-1] == {"get": "since", "from": 18, "family": "status", "session": "abc"}
    assert capsys.readouterr().err == ""
    with pytest.raises(SourceError, match="are gone; the oldest kept is 5"):
        control(Control((server.address, "events", "since", "1")))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "unknown command ''"),
        (("stat",), "did you mean stats?"),
        (("stats", "all"), "stats takes nothing more"),
        (("enable",), "enable takes one action"),
        (("reload", "a", "b"), "reload takes one folder"),
        (("events", "10"), "since NUMBER"),
        (("events", "since", "x"), "since NUMBER"),
        (("events", "since", "1", "a", "b", "c"), "since NUMBER"),
    ],
)
def test_words_that_cannot_be_are_refused_before_anybody_is_asked(words, complaint):
    with pytest.raises(UsageError, match=complaint.replace("?", r"\?")):
        control(Control(words))


def test_what_the_line_refuses_ends_with_the_code_of_its_error(server: Server):
    for words, code in ((("disable", "wav"), 2), (("reload", "/m/broken"), 3), (("reload", "/m/strange"), 1)):
        with pytest.raises(LineError) as refusal:
            control(Control((server.address, *words)))
        assert refusal.value.exit_code == code


def test_a_line_that_is_not_there_is_exit_code_4(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SourceError, match=r"no answer from tcp://127\.0\.0\.1:9 within 0\.1 s") as refusal:
        control(Control(("tcp://127.0.0.1:9", "stats"), timeout_s=0.1))
    assert refusal.value.exit_code == 4


def test_with_keys_only_a_listed_client_is_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    make_server(tmp_path / "keys")
    wall = make_client(tmp_path / "keys", "wall")
    make_server(tmp_path / "other")
    stranger = make_client(tmp_path / "other", "wall")
    server = Server(Waves(), tmp_path / "keys")
    try:
        assert control(Control((server.address, "stats"), keys=wall)) == 0
        for keys in (None, stranger):
            with pytest.raises(SourceError, match="no answer"):
                control(Control((server.address, "shutdown"), keys=keys, timeout_s=0.4))
        assert [one["command"] for one in server.seen] == ["stats"]
    finally:
        server.stop()


@pytest.mark.parametrize("strange", ["\x1b[2J\x1b]0;title\x07", "\x9b31m", "a\nerror: b", "\u202eevil"])
def test_what_a_stranger_answers_steers_no_terminal(strange, monkeypatch, capsys):
    def answers(*given: Any) -> tuple[dict[str, Any], list[bytes]]:
        return answer, [json.dumps({"seq": 1, "name": strange}, ensure_ascii=False).encode()]

    monkeypatch.setattr("realtime.control.ask", answers)
    answer: dict[str, Any] = {"ok": True, strange: {"name": [strange]}, "model": strange}
    control(Control(("stats",)))
    one = {"id": strange, "name": strange, "enabled": True, "on": 0.6, "off": 0.4, "min_on_s": 0.2, "min_off_s": 0.3}
    answer = {"ok": True, "actions": [one]}
    control(Control(("actions",)))
    answer = {"answer": "since", "from": 1, "next": 2}
    control(Control(("events", "since", "1")))
    told = capsys.readouterr().out
    assert len(told.splitlines()) == 4 and told.replace("\n", "").isprintable()
    assert json.loads(told.splitlines()[-1]) == {"seq": 1, "name": strange}
    for refusal_, words in (
        ({"ok": False, "error": strange, "code": 3}, ("stats",)),
        ({"answer": "gone", "from": strange, "oldest": strange}, ("events", "since", "1")),
        ({"answer": "error", "reason": strange}, ("events", "since", "1")),
    ):
        answer = refusal_
        with pytest.raises(LineError) as refusal:
            control(Control(words))
        assert str(refusal.value).isprintable()


# --- A line that runs -----------------------------------------------------------------------------------------------


@pytest.fixture
def steered() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A running line and its control address."""
    address = free_address()
    process = start("--source", "synthetic", "--duration", 60, "--pub", "none", "--control", address)
    try:
        yield process, address
    finally:
        process.kill()
        process.communicate()


def test_a_bundle_of_pairs_does_not_take_the_place_of_the_first_and_the_line_goes_on(steered):
    process, address = steered

    def told(**request: Any) -> dict[str, Any]:
        return ask(address, request, None, 40)[0]

    before = told(command="stats")
    refused = told(command="reload", bundle=str(shipped_interactions()))
    assert (refused["ok"], refused.get("code")) == (False, 3) and "give it as --interactions" in refused["error"]
    for _ in range(3):  # each is answered after another frame
        after = told(command="stats")
    assert after["model"] == before["model"] and after["frames"] > before["frames"]
    assert told(command="shutdown")["ok"] and ended(process)[0] == 0
