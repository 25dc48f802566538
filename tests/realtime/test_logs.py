"""What is said on standard error: bounded, as lines for people or for machines, and without secrets."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
from rich.console import Console

from realtime import logs as module
from realtime.logs import LINES_A_MINUTE, Limit, Logs, set_up, tell_error
from tests.realtime.hands import ROOT, ended, frames, start, write_hands, write_recording

log = logging.getLogger("realtime.somewhere")


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def said(clock) -> Iterator[tuple[io.StringIO, Logs]]:
    out = io.StringIO()
    before = sys.excepthook
    logs = set_up(Console(file=out, width=200), limit=Limit(now_s=clock))
    yield out, logs
    logs.close()
    sys.excepthook = before


def test_the_same_message_comes_once_a_minute_and_then_with_its_count(said, clock):
    out, _ = said
    for attempt in range(38):
        log.warning("camera %s is down, attempt %d", "door", attempt)
        clock.now_s += 1
    assert out.getvalue().splitlines() == ["warning: camera door is down, attempt 0"]
    clock.now_s = 60
    log.warning("another thing")
    assert out.getvalue().splitlines()[1:] == [
        "warning: camera door is down, attempt 37 ×37 in the last 60 s",
        "warning: another thing",
    ]


def test_what_was_held_back_is_told_at_the_end(said, clock):
    out, logs = said
    for _ in range(5):
        log.warning("down")
    clock.now_s = 7.4
    logs.close()
    assert out.getvalue().splitlines() == ["warning: down", "warning: down ×4 in the last 7 s"]


def test_what_was_held_back_is_told_although_nothing_more_is_said(monkeypatch):
    monkeypatch.setattr(module, "REPEAT_S", 0.2)
    out = io.StringIO()
    logs = set_up(Console(file=out, width=200), limit=Limit(repeat_s=0.2))
    log.warning("down")
    log.warning("down")
    timer = logs._handler._timer
    assert timer is not None and timer.daemon
    timer.join(5)
    assert out.getvalue().splitlines()[-1].startswith("warning: down ×1 in the last")
    logs.close()


def test_a_minute_never_has_more_lines_than_promised(said, clock):
    out, logs = said
    for number in range(20_000):  # an hour of a camera that flaps in ever new words
        log.warning(f"fault {number}")
        logs.say(f"door stalled: {number}")
        clock.now_s += 60 / 20_000
    lines = out.getvalue().splitlines()
    assert len(lines) <= 2 * LINES_A_MINUTE + 2
    clock.now_s += 61
    log.warning("calm again")
    last = out.getvalue().splitlines()[-2:]
    assert "more lines were left out" in last[0] and last[1] == "warning: calm again"
    left_out = sum(int(line.split()[1]) for line in out.getvalue().splitlines() if "left out" in line)
    printed = [line for line in out.getvalue().splitlines() if "left out" not in line]
    assert left_out + len(printed) == 40_001  # nothing is lost without a word


def test_json_lines_hold_everything_also_what_the_terminal_says(clock):
    out = io.StringIO()
    logs = set_up(Console(file=out), as_json=True, limit=Limit(now_s=clock))
    logs.name("door")
    logs.say("   1.20 s  person 1  start  waving  0.93\nsecond")
    log.warning("slow: %d ms", 90)
    try:
        raise ValueError("odd")
    except ValueError:
        log.exception("a fault")
    tell_error(Console(file=out), "the end")
    logs.close()
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(one["level"], one["module"], one["message"]) for one in told] == [
        ("info", "realtime.terminal", "   1.20 s  person 1  start  waving  0.93\nsecond"),
        ("warning", "realtime.somewhere", "slow: 90 ms"),
        ("error", "realtime.somewhere", "a fault"),
        ("error", "realtime", "the end"),
    ]
    assert all(one["source"] == "door" and one["time"].endswith("Z") and "T" in one["time"] for one in told)
    assert "ValueError: odd" in told[2]["trace"]


def test_quiet_lets_errors_through_alone():
    out = io.StringIO()
    logs = set_up(Console(file=out), quiet=True)
    logs.say("hello")
    log.warning("hm")
    log.error("no")
    logs.close()
    assert out.getvalue() == "error: no\n"


class Hide(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = record.getMessage().replace("s3cret", "***"), None
        if record.exc_info:
            record.exc_text = logging.Formatter().formatException(record.exc_info).replace("s3cret", "***")
            record.exc_info = None
        return True


@pytest.mark.parametrize("as_json", [False, True])
def test_a_filter_sees_all_that_is_said_before_it_is_printed(as_json):
    out = io.StringIO()
    logs = set_up(Console(file=out), as_json=as_json, filters=[Hide()])
    logs.say("opened rtsp://u:s3cret@h")
    log.warning("lost %s", "rtsp://u:s3cret@h")
    try:
        raise ValueError("s3cret")
    except ValueError:
        sys.excepthook(*sys.exc_info())  # as Python does at an internal error
    tell_error(Console(file=out), "cannot open rtsp://u:s3cret@h")
    logs.close()
    assert "s3cret" not in out.getvalue() and out.getvalue().count("***") >= 5
    assert "Traceback" in out.getvalue()


def test_a_filter_does_not_hide_that_a_message_comes_again(clock):
    out = io.StringIO()
    logs = set_up(Console(file=out), filters=[Hide()], limit=Limit(now_s=clock))
    for attempt in range(10):
        log.warning("attempt %d", attempt)
    logs.close()
    assert out.getvalue().splitlines() == ["warning: attempt 0", "warning: attempt 9 ×9 in the last 1 s"]


def test_a_full_disk_behind_standard_error_stops_nothing(tmp_path):
    program = (
        "import logging, sys; from rich.console import Console; from realtime.logs import set_up\n"
        "logs = set_up(Console(stderr=True), as_json=sys.argv[1] == 'json')\n"
        "for n in range(50):\n    logging.warning(f'fault {n}'); logs.say('x')\n"
        "print('alive')"
    )
    for kind in ("json", "plain"):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-c", program, kind], cwd=ROOT, stderr=full, stdout=subprocess.PIPE, check=False
            )
        assert done.stdout == b"alive\n"


def test_a_second_set_up_replaces_the_first():
    one, two = io.StringIO(), io.StringIO()
    set_up(Console(file=one))
    logs = set_up(Console(file=two))
    log.warning("once")
    logs.close()
    assert (one.getvalue(), two.getvalue()) == ("", "warning: once\n")


def test_the_line_s_standard_error_is_json_from_start_to_end(tmp_path):
    pytest.importorskip("onnx", reason="the tiny model is made with the onnx package, which is not installed")
    hands = write_hands(tmp_path / "hands")
    recording = write_recording(tmp_path / "hand.mcap", frames())
    flags = ("--bundle", hands, "--pub", "none", "--log-json")
    code, text = ended(start(*flags, "--source", recording, "--fast", "--name", "door"))
    told = [json.loads(line) for line in text.splitlines()]
    assert code == 0 and any("right hand up" in one["message"] for one in told)
    code, text = ended(start(*flags, "--source", tmp_path / "nothing.mp4"))
    assert code == 4
    assert json.loads(text.splitlines()[-1])["level"] == "error"
