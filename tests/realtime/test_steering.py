"""Steering: a running line changes what it is told to, says so, and what it refuses changes nothing."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from realtime.backends import open_engine
from realtime.bundle import load_bundle
from realtime.commands import Commands
from realtime.decoder import ActionRule, Decoder
from realtime.feed import Feed, Opened, SourceInfo, Tally
from realtime.line import Line
from realtime.messages import Status
from realtime.pose import PassThrough
from realtime.report import Outputs, Reporter
from realtime.run import make_pipeline
from realtime.schema import SECOND_NS, Frame, Scores
from realtime.steering import Steering
from realtime.stop import Stop
from realtime.terminal import Terminal
from tests.realtime.hands import ONE_HAND, frames, story, write_hands

np = pytest.importorskip("numpy")
CLASSES = ("nothing", "wave", "point")
RULES = [ActionRule(name, 0.6, 0.4, 0.0, 0.0) for name in CLASSES[1:]]


# --- The decoder ----------------------------------------------------------------------------------------------------


def scores(at_s: float, *probabilities: float, track: int = 1) -> Scores:
    values = np.array(probabilities, np.float32)
    at_ns = round(at_s * SECOND_NS)
    return Scores(0, at_ns, track, max(0, at_ns - SECOND_NS), values, values)


def told(events) -> list[tuple[str, str, str | None]]:
    return [(one.phase, one.action, one.end_reason) for one in events if one.phase != "update"]


WAVE, POINT = (0.1, 0.8, 0.1), (0.1, 0.1, 0.8)


def test_a_disabled_action_ends_what_is_open_of_it_and_starts_no_more():
    decoder = Decoder(CLASSES, "nothing", RULES, 0.0)
    decoder.decide([scores(1, *WAVE), scores(1, *WAVE, track=2), scores(1, *POINT, track=3)])
    ended = decoder.disable("wave", round(1.2 * SECOND_NS))
    assert told(ended) == [("end", "wave", "score")] * 2 and {one.track for one in ended} == {1, 2}
    assert [(one.offset_ns, one.decided_ns) for one in ended] == [(SECOND_NS, round(1.2 * SECOND_NS))] * 2
    assert [one.action for one in decoder.open] == ["point"]
    assert told(decoder.decide([scores(1.1, *WAVE), scores(1.1, *WAVE, track=2)])) == []
    assert decoder.disabled == {"wave"}


def test_nothing_starts_in_place_of_a_disabled_action():
    rules = [ActionRule("wave", 0.4, 0.3, 0.0, 0.0), ActionRule("point", 0.4, 0.3, 0.0, 0.0)]
    decoder = Decoder(CLASSES, "nothing", rules, 0.0)
    decoder.disable("wave", 0)
    assert decoder.decide([scores(1, 0.0, 0.55, 0.45)]) == []
    assert told(decoder.decide([scores(2, 0.0, 0.45, 0.55)])) == [("start", "point", None)]
    assert told(decoder.decide([scores(3, 0.0, 0.6, 0.4)])) == []  # and it replaces nothing


def test_an_action_that_is_enabled_again_has_its_onset_after_that():
    decoder = Decoder(CLASSES, "nothing", RULES, 0.0)
    decoder.disable("wave", 0)
    for at_s in (1, 2, 3):
        assert decoder.decide([scores(at_s, *WAVE)]) == []
    decoder.enable("wave")
    (start,) = decoder.decide([scores(4, *WAVE)])
    assert (start.phase, start.onset_ns) == ("start", 4 * SECOND_NS)


@pytest.mark.parametrize("name", ["nothing", "wav", ""])
def test_an_action_without_a_rule_can_be_neither_enabled_nor_disabled(name: str):
    decoder = Decoder(CLASSES, "nothing", RULES, 0.0)
    for switch in (decoder.enable, lambda action: decoder.disable(action, 0)):
        with pytest.raises(ValueError, match="there are wave, point"):
            switch(name)


# --- The line -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx", reason="the tiny model is made with the onnx package, which is not installed")
    return write_hands(tmp_path_factory.mktemp("control") / "hands")


class Steered:
    """A line over the figure that raises its hand; `at` maps frame numbers to what is asked just before them."""

    def __init__(self, hands: Path, events: Path, at: dict[int, Callable[[Commands], None]]) -> None:
        self.statuses: list[Status] = []
        self._at = at
        bundle = load_bundle(hands)
        engine = open_engine(bundle, "ort", 1, "fp32")
        info = SourceInfo("figure", "poses", fps=30.0, layout="CORE_16")
        source = Feed(Opened(info, self._frames(), lambda: None, Tally()), "every")
        reporter = Reporter(Outputs(events=events), bundle, engine.backend, info, engine.precision)
        publish = reporter._publish

        def remember(message: Any) -> bytes:
            if isinstance(message, Status):
                self.statuses.append(message)
            return publish(message)

        reporter._publish = remember  # type: ignore[method-assign]
        terminal = Terminal(Console(file=io.StringIO()), bundle, info, True, False)
        pose = PassThrough()

        def rebuild(folder: Path):
            other = load_bundle(folder)
            fresh = open_engine(other, "ort", 1, "fp32")
            return other, make_pipeline(pose, other, fresh, 1), fresh

        pipeline = make_pipeline(pose, bundle, engine, 1)
        self.stop = Stop.__new__(Stop)
        self.stop.code = None
        self.line = Line(source, pipeline, engine, reporter, terminal, self.stop)
        self.commands = Commands(Steering(self.line, rebuild))
        self._ask_between_frames()
        try:
            self.code = self.line.run(None)
        finally:
            reporter.close()
            self.line.close()

    def _frames(self) -> Iterator[Frame]:
        yield from frames((*ONE_HAND, ("right", 2.0), (None, 2.0)))

    def _ask_between_frames(self) -> None:
        """Asks in the line's own thread, as the real line does."""
        take = self.line._take

        def asked(given: Any) -> None:
            take(given)
            if given.frame.index in self._at:
                self._at.pop(given.frame.index)(self.commands)

        self.line._take = asked  # type: ignore[method-assign]


def test_disabling_ends_the_open_event_at_once_and_the_status_says_why(hands: Path, tmp_path: Path):
    answers: list[dict[str, Any]] = []

    def disable(commands: Commands) -> None:
        answers.append(commands.handle({"command": "stats"}))
        answers.append(commands.handle({"command": "disable", "action": "right_up"}))
        answers.append(commands.handle({"command": "stats"}))
        answers.append(commands.handle({"command": "actions"}))

    ran = Steered(hands, tmp_path / "e.jsonl", {104: disable})
    assert ran.code == 0
    assert story(tmp_path / "e.jsonl") == [("start", "right_up", None), ("end", "right_up", "score")]  # of two raises
    before, switched, after, listed = answers
    assert [one["action"] for one in before["open_events"]] == ["right_up"] and after["open_events"] == []
    assert switched == {"ok": True, "action": "right_up", "enabled": False} and after["disabled"] == ["right_up"]
    assert {one["id"]: one["enabled"] for one in listed["actions"]} == {"left_up": True, "right_up": False}
    assert (before["model"], before["frames"], before["source"]) == ("hands", 105, "figure")
    assert ("online", "action right_up disabled (control)") in [(one.state, one.reason) for one in ran.statuses]


def test_an_action_disabled_from_the_start_never_starts_until_it_is_enabled(hands: Path, tmp_path: Path):
    off = {3: lambda commands: commands.handle({"command": "disable", "action": "right_up"})}
    Steered(hands, tmp_path / "off.jsonl", dict(off))
    assert story(tmp_path / "off.jsonl") == []
    on = {**off, 90: lambda commands: commands.handle({"command": "enable", "action": "right_up"})}
    Steered(hands, tmp_path / "on.jsonl", on)
    assert story(tmp_path / "on.jsonl") == [("start", "right_up", None), ("end", "right_up", "score")] * 2


def test_what_is_switched_off_stays_so_through_a_bundle_that_has_no_word_for_it(hands: Path, tmp_path: Path):
    other = tmp_path / "other"
    shutil.copytree(hands, other)
    spec = json.loads((other / "bundle.json").read_text().replace("right_up", "right_high"))
    (other / "bundle.json").write_text(json.dumps(spec))
    off: list[list[str]] = []

    def ask(command: str, **more: str) -> Callable[[Commands], None]:
        def asked(commands: Commands) -> None:
            assert commands.handle({"command": command, **more})["ok"]
            off.append(commands.handle({"command": "stats"})["disabled"])

        return asked

    there, back = ask("reload", bundle=str(other)), ask("reload", bundle=str(hands))
    Steered(hands, tmp_path / "e.jsonl", {3: ask("disable", action="right_up"), 20: there, 40: back})
    assert off == [["right_up"], [], ["right_up"]]
    again = {3: ask("disable", action="right_up"), 10: ask("enable", action="right_up"), 20: there, 40: back}
    off.clear()
    Steered(hands, tmp_path / "again.jsonl", again)
    assert off == [["right_up"], [], [], []]


def test_another_bundle_is_taken_and_a_bad_one_changes_nothing(hands: Path, tmp_path: Path):
    other, broken = tmp_path / "other", tmp_path / "broken"
    shutil.copytree(hands, other)
    shutil.copytree(hands, broken)
    text = (other / "bundle.json").read_text()
    (other / "bundle.json").write_text(text.replace('"name": "hands"', '"name": "other hands"'))
    (broken / "model.onnx").write_bytes(b"\0" + (broken / "model.onnx").read_bytes()[1:])
    answers: list[dict[str, Any]] = []

    def reload(folder: Path) -> Callable[[Commands], None]:
        def ask(commands: Commands) -> None:
            answers.append(commands.handle({"command": "reload", "bundle": str(folder)}))
            answers.append(commands.handle({"command": "stats"}))

        return ask

    off = {3: lambda commands: commands.handle({"command": "disable", "action": "left_up"})}
    ran = Steered(hands, tmp_path / "e.jsonl", {**off, 100: reload(broken), 104: reload(other)})
    refused, same, taken, new = answers
    assert refused["ok"] is False and refused["code"] == 3 and "sha256" in refused["error"]
    assert same["model"] == "hands" and len(same["open_events"]) == 1
    assert taken == {"ok": True, "bundle": "other hands"}
    assert new["model"] == "other hands" and new["open_events"] == [] and new["disabled"] == ["left_up"]
    assert story(tmp_path / "e.jsonl") == [
        ("start", "right_up", None),
        ("end", "right_up", "shutdown"),
        ("start", "right_up", None),
        ("end", "right_up", "score"),
    ]
    events = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert {one["model"]["name"] for one in events} == {"hands", "other hands"} and events[-1]["model"][
        "name"
    ] != "hands"
    said = [(one.state, one.reason) for one in ran.statuses]
    assert ("window_reset", "bundle other hands was loaded") in said
    assert ("online", f"bundle other hands was loaded from {other} (control)") in said


def test_shutdown_ends_the_open_event_and_the_line_with_0(hands: Path, tmp_path: Path):
    ran = Steered(hands, tmp_path / "e.jsonl", {104: lambda commands: commands.handle({"command": "shutdown"})})
    assert ran.code == 0 and ran.line.meter.frames == 105
    assert story(tmp_path / "e.jsonl")[-1] == ("end", "right_up", "shutdown")
    assert ran.statuses[-1].state == "ended"
