"""Prints the messages of a running line, each checked against its schema: `python -m realtime.tail ADDRESS`.

Exit codes: 0 ok · 1 a message broke its schema · 2 usage · 4 nothing, or not enough, came in time · 130 interrupted.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from realtime.bus import DEFAULT_ADDRESS
from realtime.command import run_command
from realtime.errors import SourceError, UsageError
from realtime.gap import Gap, Joined, Refused, Silence
from realtime.messages import (
    ActionEvent,
    AnyMessage,
    Heartbeat,
    MessageError,
    PoseMessage,
    ScoresMessage,
    Status,
    encode,
)
from realtime.printable import one_line, printable
from realtime.subscriber import EventSubscriber, Item, Subscriber
from realtime.wire import topic
from realtime.zap import security

EXAMPLES = """examples:
  python -m realtime.tail                                    events and status of the line on this machine
  python -m realtime.tail tcp://127.0.0.1:5557 --pretty      another address, one short line each
  python -m realtime.tail --topics action.cam0.start.        only starts of one camera
  python -m realtime.tail --recover                          every event and status, also what was missed on the way
  python -m realtime.tail --topics pose. > poses.jsonl       poses, to be played again: realtime.run --source -
  python -m realtime.tail tcp://LINE:5556 --keys wall.client another machine's line, with the key it gave us
  python -m realtime.tail --count 1 --timeout-s 5            is the line alive? exit code 4 if not
"""


@dataclass(frozen=True)
class Tail:
    """Print the messages of a running line as JSON lines, each checked against its schema."""

    address: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ADDRESS")] = DEFAULT_ADDRESS
    """Where the line publishes (its --pub)."""
    topics: tuple[str, ...] = ("action.", "status.")
    """Topic prefixes. Also: heartbeat. scores. pose. Narrower: action.cam0. (with its dot: cam1 is part of cam10)."""
    recover: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Ask the line for messages that were missed, and say what is lost for good; events and status only."""
    count: int | None = None
    """Stop after so many messages (default: never)."""
    timeout_s: float | None = None
    """Stop when no message came for so many seconds (default: never)."""
    keys: Path | None = None
    """The client's file made by realtime.keys, for a line with --keys."""
    pretty: bool = False
    """One short line for people instead of JSON."""


def tail(options: Tail) -> int:
    """Prints to standard output until the count, the timeout or an interrupt; returns the exit code."""
    for name, value in (("--count", options.count), ("--timeout-s", options.timeout_s)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UsageError(f"{name} must be above 0, got {value}")
    if not options.topics:
        raise UsageError("--topics needs at least one prefix, such as action.")
    if options.recover:
        return follow(options)
    printed = 0
    with Subscriber(options.address, options.topics, security(options.keys)) as subscriber:
        while options.count is None or printed < options.count:
            try:
                received = subscriber.receive(options.timeout_s)
            except MessageError as error:
                print(printable(f"refused: {error}"), file=sys.stderr)
                continue
            if received is None:
                break
            if received.lost:
                print(f"lost: {received.lost} messages before this one", file=sys.stderr)
            print(pretty(received.message) if options.pretty else one_line(received.payload), flush=True)
            printed += 1
        refused = subscriber.refused
    _enough(options, printed)
    return 1 if refused else 0


def follow(options: Tail) -> int:
    """The same with nothing missed, or a line about what is; returns the exit code."""
    other = [prefix for prefix in options.topics if prefix.partition(".")[0] not in ("action", "status")]
    if other:
        raise UsageError(f"--recover follows action. and status., not {other[0]!r}; leave out one of the two")
    printed = 0
    with EventSubscriber(options.address, timeout_s=options.timeout_s, secure=security(options.keys)) as subscriber:
        for item in subscriber:
            if isinstance(item, ActionEvent | Status):
                if topic(item).startswith(options.topics):
                    print(pretty(item) if options.pretty else one_line(encode(item)), flush=True)
                    printed += 1
            else:
                print(remark(item), file=sys.stderr, flush=True)
            if printed == options.count:
                break
        refused = subscriber.refused
    _enough(options, printed)
    return 1 if refused else 0


def remark(item: Item) -> str:
    """What a follower tells beside messages, as one line."""
    return printable(_remark(item))


def _remark(item: Item) -> str:
    if isinstance(item, Gap):
        end = "" if item.last is None else f" to {item.last}"
        lost = "nobody knows how many" if item.lost is None else item.lost
        why = f" ({item.reason})" if item.reason else ""
        return f"gap: {item.family} {item.first}{end}: {item.recovered} recovered, {lost} lost{why}"
    if isinstance(item, Joined):
        names = ", ".join(f"{event.action.id} (track {event.track.id})" for event in item.events) or "nothing"
        before = "" if item.previous is None else f", after {item.previous}"
        return f"joined: session {item.session}{before}, open: {names}"
    if isinstance(item, Silence):
        return f"silence: nothing was heard for {item.seconds:.1f} s"
    assert isinstance(item, Refused)
    return f"refused: {item.reason}"


def _enough(options: Tail, printed: int) -> None:
    if printed < (options.count or 1):
        raise SourceError(
            f"{printed} messages from {options.address} under {' '.join(options.topics)}, then none for "
            f"{options.timeout_s} s; is the line running with --pub {options.address}? "
            "A line with keys needs --keys FILE here"
        )


def pretty(message: AnyMessage) -> str:
    """One line for people, whatever text its sender put in."""
    return printable(_in_words(message))


def _in_words(message: AnyMessage) -> str:
    if isinstance(message, ActionEvent):
        score, when = message.score, message.time
        ended = f" {message.end_reason}, {_lasted_s(message):.1f} s" if message.phase == "end" else ""
        return (
            f"{when.decided}  {message.source.id} track {message.track.id}  {message.phase:6} "
            f"{message.action.name} {score.value:.2f}{ended}"
        )
    head = f"{message.time.utc or message.time.mono_ns}  {message.source}"
    if isinstance(message, Status):
        track = "" if message.track is None else f" track {message.track}"
        return f"{head}{track}  {message.state}{': ' + message.reason if message.reason else ''}"
    if isinstance(message, Heartbeat):
        age = "-" if message.frame_age_ms is None else f"{message.frame_age_ms.p95:.0f}"
        fps = "-" if message.fps is None else f"{message.fps:.1f}"
        names = " ".join(f"{one.action}({one.track})" for one in message.open_events) or "nothing"
        return f"{head}  {fps} fps, age p95 {age} ms, drops {message.drops}, persons {message.persons}, open: {names}"
    if isinstance(message, ScoresMessage):
        best = sorted(message.probabilities.items(), key=lambda entry: -entry[1])[:3]
        return f"{head} track {message.track}  " + " ".join(f"{name} {value:.2f}" for name, value in best)
    assert isinstance(message, PoseMessage)
    return f"{head}  frame {message.frame}: {len(message.persons)} persons in {message.layout}"


def _lasted_s(message: ActionEvent) -> float:
    end_ns = message.time.offset_mono_ns or message.time.decided_mono_ns
    return (end_ns - message.time.onset_mono_ns) / 1e9


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Tail, "realtime.tail", EXAMPLES, lambda options, _: tail(options))


if __name__ == "__main__":
    sys.exit(main())
