"""What a person at the terminal reads: the status line, advice and warnings."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from realtime.bundle import load_bundle
from realtime.feed import SourceInfo
from realtime.meter import Reading
from realtime.terminal import Terminal
from tests.realtime.hands import ended, frames, lines, start, write_hands

INFO = SourceInfo("figure", "poses", layout="CORE_16")


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx", reason="the tiny model is made with the onnx package, which is not installed")
    return write_hands(tmp_path_factory.mktemp("terminal") / "hands")


def test_the_status_line_tells_the_second_and_goes_away(hands):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    terminal = Terminal(console, load_bundle(hands), INFO, quiet=False, show=False)
    terminal.beat(Reading(29.7, (20.0, 45.0), {}), drops=3, refused=0, persons=1, gated=0)
    time.sleep(0.2)
    terminal.close()
    terminal.close()
    assert "29.7 fps, frame age p95 45 ms, 3 dropped, 1 in view: nothing" in screen.getvalue()
    assert "\x1b[?25h" in screen.getvalue()  # the cursor is back


def test_too_few_frames_a_second_are_said_once(hands):
    screen = io.StringIO()
    terminal = Terminal(Console(file=screen, width=200), load_bundle(hands), INFO, quiet=False, show=False)
    for fps, age in [(3.0, None)] * 9 + [(2.0, (9.0, 9.0))] * 4 + [(9.0, (9.0, 9.0))] + [(3.0, (9.0, 9.0))] * 4:
        terminal.beat(Reading(fps, age, {}), drops=0, refused=0, persons=1, gated=0)
    assert screen.getvalue() == ""
    for _ in range(20):
        terminal.beat(Reading(3.0, (9.0, 9.0), {}), drops=0, refused=0, persons=1, gated=0)
    assert screen.getvalue().count("3.0 frames a second are too few to recognise anything; at least 5 are needed") == 1


def test_a_slow_live_source_tells_so_itself_and_a_machine_that_is_too_slow_for_it_is_told_of(hands):
    screen = io.StringIO()
    info = SourceInfo("door", "camera", live=True)
    terminal = Terminal(Console(file=screen, width=200), load_bundle(hands), info, quiet=False, show=False)
    for _ in range(9):
        terminal.beat(Reading(3.0, (9.0, 9.0), {}), drops=2, refused=0, persons=1, gated=0)
    assert screen.getvalue() == ""
    for second in range(9):
        terminal.beat(Reading(3.0, (9.0, 9.0), {}), drops=2 + 20 * second, refused=0, persons=1, gated=0)
    assert screen.getvalue().count("are too few to recognise anything") == 1
    assert "free this machine of other work" in screen.getvalue()


def test_warnings_are_printed_and_not_with_quiet(hands, tmp_path):
    given = [json.loads(one) for one in lines(frames())]
    given[5]["persons"][0]["joints"][3][0] = float("nan")
    (tmp_path / "nan.jsonl").write_text("".join(json.dumps(one) + "\n" for one in given))
    process = start("--bundle", hands, "--source", tmp_path / "nan.jsonl", "--fast", "--pub", "none")
    code, said = ended(process)
    assert code == 0 and "not finite" in said
    assert [one for one in said.splitlines() if one.startswith("warning: recording ")]
    process = start("--bundle", hands, "--source", tmp_path / "nan.jsonl", "--fast", "--pub", "none", "--quiet")
    assert ended(process) == (0, "")
