"""`python -m realtime.tail`, as a user runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from realtime.clock import Clock
from realtime.gap import Gap, Joined, Refused
from realtime.messages import Action, Heartbeat, Model, OpenEvent, PoseMessage, ScoresMessage, Source, Status, encode
from realtime.printable import one_line
from realtime.schema import Event
from realtime.tail import pretty, remark
from realtime.wire import action_event, moment
from tests.realtime.telling import opened, unheard

ROOT = Path(__file__).resolve().parents[2]
CLOCK = Clock(mono_ns=0, utc_ns=0)
NOW = moment(1_500_000_000, CLOCK)


def status(seq=0):
    return Status(session="s", seq=seq, source="cam0", time=NOW, state="stalled", reason="no frame for 2 s")


def action(phase="start", **changes):
    event = Event("id0", phase, 1, "wave", 0.9, 0.9, 0.9, 0.6, 0.4, 0.5, onset_ns=0, decided_ns=10**9, **changes)
    model = Model(name="demo", sha256="ab", backend="onnxruntime/cpu", window=64, stride=4)
    source = Source(id="cam0", kind="synthetic")
    names = Action(id="wave", name="waving")
    return action_event(event, session="s", seq=0, source=source, action=names, model=model, clock=CLOCK)


@contextmanager
def tail(*flags):
    command = [sys.executable, "-m", "realtime.tail", *flags]
    program = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield program
    finally:
        program.kill()
        program.communicate()


@pytest.fixture
def publisher():
    with opened() as made:
        yield made


def test_it_prints_checked_messages_as_json_lines(publisher):
    with tail(publisher.address, "--count", "2") as program:
        assert publisher.wait_for_subscriber(20)
        for message in (status(), action()):
            publisher.publish(message)
        out, errors = program.communicate(timeout=20)
    assert out.splitlines() == [encode(status()).decode(), encode(action()).decode()]
    assert (program.returncode, errors) == (0, "")


def test_it_tells_of_lost_messages(publisher):
    with tail(publisher.address, "--topics", "status.", "--count", "2") as program:
        assert publisher.wait_for_subscriber(20)
        for seq in (0, 4):
            publisher.publish(status(seq))
        out, errors = program.communicate(timeout=20)
    assert [json.loads(row)["seq"] for row in out.splitlines()] == [0, 4]
    assert errors == "lost: 3 messages before this one\n"


def test_an_interrupt_ends_it_with_130(publisher):
    with tail(publisher.address) as program:
        assert publisher.wait_for_subscriber(20)
        time.sleep(0.1)  # until it waits for messages
        program.send_signal(signal.SIGINT)
        out, errors = program.communicate(timeout=20)
    assert (program.returncode, out, errors) == (130, "", "")


@pytest.mark.parametrize(
    ("flags", "code", "complaint"),
    [
        (("tcp://127.0.0.1:1", "--timeout-s", "0.2"), 4, "is the line running with --pub tcp://127.0.0.1:1?"),
        (("nonsense",), 2, "cannot connect to 'nonsense'"),
        (("--count", "0"), 2, "--count must be above 0, got 0"),
        (("--timeout-s", "nan"), 2, "--timeout-s must be above 0, got nan"),
    ],
)
def test_what_cannot_be_gets_one_line_and_its_exit_code(flags, code, complaint):
    with tail(*flags) as program:
        out, errors = program.communicate(timeout=20)
    assert (program.returncode, out) == (code, "")
    assert errors.startswith("error: ") and complaint in errors
    assert len(errors.splitlines()) == 1


def test_a_message_that_breaks_its_schema_is_refused_and_gives_1(publisher, monkeypatch):
    payload = json.dumps({**json.loads(encode(status())), "state": "asleep\x1b[2J"}).encode()
    with tail(publisher.address, "--count", "1") as program:
        assert publisher.wait_for_subscriber(20)
        monkeypatch.setattr("realtime.outlet.encode", lambda message: payload)
        publisher.publish(status())
        monkeypatch.undo()
        publisher.publish(status(1))
        out, errors = program.communicate(timeout=20)
    assert (program.returncode, out) == (1, encode(status(1)).decode() + "\n")
    assert errors.startswith("refused: ") and "asleep" in errors and errors.rstrip("\n").isprintable()


def test_a_reader_that_has_gone_is_no_error(publisher):
    with tail(publisher.address) as program:
        assert publisher.wait_for_subscriber(20)
        program.stdout.close()
        publisher.publish(status())
        assert program.wait(timeout=20) == 0
        assert program.stderr.read() == ""
        program.stdout = None


def test_help_ends_with_examples():
    with tail("--help") as program:
        out, _ = program.communicate(timeout=20)
    assert program.returncode == 0
    assert "python -m realtime.tail --count 1 --timeout-s 5" in out


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (action(), "1970-01-01T00:00:01.000Z  cam0 track 1  start  waving 0.90"),
        (
            action("end", offset_ns=750_000_000, end_reason="score"),
            "1970-01-01T00:00:01.000Z  cam0 track 1  end    waving 0.90 score, 0.8 s",
        ),
        (status(), "1970-01-01T00:00:01.500Z  cam0  stalled: no frame for 2 s"),
        (
            Heartbeat(
                session="s",
                seq=0,
                source="cam0",
                time=NOW,
                fps=29.9,
                frame_age_ms=None,
                drops=3,
                refused=0,
                stage_ms={},
                open_events=(OpenEvent(id="a", track=1, action="wave"),),
                persons=1,
            ),
            "1970-01-01T00:00:01.500Z  cam0  29.9 fps, age p95 - ms, drops 3, persons 1, open: wave(1)",
        ),
        (
            ScoresMessage(
                session="s",
                seq=0,
                source="cam0",
                time=NOW,
                frame=1,
                track=2,
                window_start_mono_ns=0,
                probabilities={"nothing": 0.2, "wave": 0.8},
            ),
            "1970-01-01T00:00:01.500Z  cam0 track 2  wave 0.80 nothing 0.20",
        ),
        (
            PoseMessage(source="cam0", time=NOW, frame=7, layout="COCO_17", persons=()),
            "1970-01-01T00:00:01.500Z  cam0  frame 7: 0 persons in COCO_17",
        ),
    ],
)
def test_pretty_lines(message, expected):
    assert pretty(message) == expected


STRANGE = "\x1b[2J\x9b31m\u202e\nfake"


@pytest.mark.parametrize(
    "message",
    [
        Status(session="s", seq=0, source="cam0", time=NOW, state="stalled", reason=STRANGE),
        msgspec.structs.replace(action(), action=Action(id="wave", name=STRANGE)),
    ],
)
def test_a_publishers_text_steers_no_terminal(message):
    assert pretty(message).isprintable() and "[2J" in pretty(message)


def test_nor_does_what_a_follower_is_told_beside_messages():
    gap = Gap(STRANGE, "action", 1, 2, 0, 2, STRANGE)
    for item in (Refused(STRANGE), gap, Joined(STRANGE, STRANGE)):
        assert remark(item).isprintable()


def test_json_stays_the_same_json_whatever_is_in_it():
    payload = json.dumps({"a": STRANGE, "b": "\U000e0041é\\"}, ensure_ascii=False, indent="\t").encode()
    assert one_line(payload).isprintable() and json.loads(one_line(payload)) == json.loads(payload)
    plain = '{"a": "é \\n", "b": 1}'
    assert one_line(plain.encode()) == plain


def test_recover_prints_what_was_missed_and_says_so(publisher):
    publisher.publish(status(0))
    with tail(publisher.address, "--recover", "--count", "3") as program:
        assert publisher.wait_for_subscriber(20)
        assert program.stderr.readline() == "joined: session s, open: nothing\n"
        unheard(publisher, status(1), status(2))
        publisher.publish(status(3))
        out, errors = program.communicate(timeout=20)
    assert out.splitlines() == [encode(status(seq)).decode() for seq in (1, 2, 3)]
    assert errors == "gap: status 1 to 2: 2 recovered, 0 lost\n"


def test_recover_takes_events_and_status_only(publisher):
    with tail(publisher.address, "--recover", "--topics", "pose.") as program:
        _, errors = program.communicate(timeout=20)
    assert program.returncode == 2 and "--recover follows action. and status., not 'pose.'" in errors
