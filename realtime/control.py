"""Asks a running line, or tells it what to do: `python -m realtime.control ADDRESS? COMMAND …`.

Exit codes: 0 ok · 2 usage, or the line refused · 3 the bundle was refused · 4 no answer in time · 130 interrupted.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
import zmq

from realtime.addresses import DEFAULT_CONTROL, is_local
from realtime.command import gather, run_command
from realtime.control_messages import COMMANDS, nearest
from realtime.errors import SourceError, UsageError
from realtime.keys import load_client
from realtime.printable import one_line, printable
from realtime.zap import secure_client

EXAMPLES = f"""examples:
  python -m realtime.run --camera 0 --control {DEFAULT_CONTROL}       a line that can be asked; then, elsewhere:
  python -m realtime.control stats                         how it is doing
  python -m realtime.control actions                       what it recognises, and from which score on
  python -m realtime.control disable wave           ends what is open of it, and starts it no more
  python -m realtime.control enable wave
  python -m realtime.control events since 120              events again from number 120 on, one JSON a line
  python -m realtime.control events since 0 status SESSION another family, another session
  python -m realtime.control reload models/new             another bundle, if it is a good one; else nothing changes
  python -m realtime.control shutdown                      ends open events, then the line
  python -m realtime.control tcp://LINE:5656 stats --keys wall.client      on another machine

exit codes: 0 ok, 2 usage or refused, 3 bundle refused, 4 no answer in time, 130 interrupted
"""
WORDS = {"stats": 1, "actions": 1, "enable": 2, "disable": 2, "reload": 2, "shutdown": 1}


@dataclass(frozen=True)
class Control:
    """Ask a running line how it does, or tell it what to do."""

    words: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[ADDRESS] COMMAND …")]
    """The line's --control address (default: tcp://127.0.0.1:5656), then one of: stats · actions · enable ACTION ·
    disable ACTION · events since NUMBER [FAMILY] [SESSION] · reload BUNDLE · shutdown."""
    keys: Path | None = None
    """The client's file made by realtime.keys, for a line with --keys."""
    timeout_s: float = 10.0
    """How long to wait for the answer; a bundle takes a moment to load."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the answer as it came, JSON on one line."""


def control(options: Control) -> int:
    """Asks, and prints the answer to standard output; returns the exit code."""
    if not (math.isfinite(options.timeout_s) and 0 < options.timeout_s <= 3600):
        raise UsageError(f"--timeout-s must be in (0, 3600], got {options.timeout_s}")
    words = list(options.words)
    address = words.pop(0) if words and "://" in words[0] else DEFAULT_CONTROL
    request = _request(words, address)
    answer, messages = ask(address, request, options.keys, options.timeout_s)
    if "get" in request:
        return _print_events(answer, messages)
    if not answer.get("ok"):
        raise _Refused(str(answer.get("error", answer)), answer.get("code"))
    print(json.dumps(answer) if options.json else "\n".join(_for_people(words[0], answer)))
    return 0


def ask(
    address: str, request: dict[str, Any], keys: Path | None, timeout_s: float
) -> tuple[dict[str, Any], list[bytes]]:
    """One request and its answer: a JSON object, and messages where events were asked for.

    Errors: UsageError (address, keys), SourceError where no answer came in time.
    """
    with zmq.Context() as context, context.socket(zmq.DEALER) as asker:
        for option, value in ((zmq.LINGER, 0), (zmq.IPV6, int("[" in address)), (zmq.MAXMSGSIZE, 4 << 20)):
            asker.setsockopt(option, value)
        if keys is not None:
            secure_client(asker, load_client(keys))
        try:
            asker.connect(address)
        except zmq.ZMQError as error:
            raise UsageError(f"cannot connect to {address!r}: {error}; try {DEFAULT_CONTROL}") from error
        asker.send(json.dumps(request).encode())
        if not asker.poll(round(timeout_s * 1000)):
            also = "a line with keys needs --keys FILE here" if keys is None else f"is the key of {keys} on its list?"
            raise SourceError(
                f"no answer from {address} within {timeout_s:g} s; is the line running with --control {address}? {also}"
            )
        head, *messages = asker.recv_multipart()
    try:
        answer = json.loads(head)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise SourceError(f"{address} answers, but not as a line does; name the address of its --control")
    return answer, messages


class _Refused(UsageError):
    """The line said no; with the exit code it named."""

    def __init__(self, why: str, code: Any) -> None:
        super().__init__(printable(why))
        self.exit_code = code if isinstance(code, int) and 1 <= code <= 7 else 2


def _request(words: Sequence[str], address: str) -> dict[str, Any]:
    verb = words[0] if words else ""
    if verb == "events":
        return _events_request(words)
    if verb not in WORDS:
        raise UsageError(f"unknown command {verb!r}; {nearest(verb, (*COMMANDS, 'events'))}")
    if len(words) != WORDS[verb]:
        what = {"reload": "one folder", "enable": "one action", "disable": "one action"}.get(verb, "nothing more")
        raise UsageError(f"{verb} takes {what}, got {' '.join(words[1:])!r}")
    if verb in ("enable", "disable"):
        return {"command": verb, "action": words[1]}
    if verb == "reload":  # the line has another folder of its own
        return {"command": verb, "bundle": os.path.abspath(words[1]) if is_local(address) else words[1]}
    return {"command": verb}


def _events_request(words: Sequence[str]) -> dict[str, Any]:
    if not (3 <= len(words) <= 5 and words[1] == "since" and words[2].isascii() and words[2].isdigit()):
        raise UsageError(f"events takes: since NUMBER [FAMILY] [SESSION], got {' '.join(words[1:])!r}")
    family, session = (*words[3:], *("action", "")[len(words) - 3 :])
    request = {"get": "since", "from": int(words[2]), "family": family}
    return request | ({"session": session} if session else {})


def _print_events(answer: dict[str, Any], messages: list[bytes]) -> int:
    kind = answer.get("answer")
    if kind == "gone":
        gone = f"events from {answer.get('from')} on are gone; the oldest kept is {answer.get('oldest')}"
        raise SourceError(printable(gone))
    if kind != "since":
        raise UsageError(printable(f"the line refused: {answer.get('reason') or answer.get('error') or answer}"))
    for message in messages:
        print(one_line(message))
    following = answer.get("next")
    if isinstance(following, int) and messages and len(messages) + int(answer.get("from", 0)) < following:
        last = json.loads(messages[-1])["seq"]
        print(f"more: events since {last + 1}", file=sys.stderr)
    return 0


def _for_people(verb: str, answer: dict[str, Any]) -> list[str]:
    """The answer as lines."""
    if verb == "actions":
        return [
            f"{_plain(one['id']):24} {'on ' if one['enabled'] else 'OFF'}  starts at {one['on']:.2f} for "
            f"{one['min_on_s']:g} s, ends below {one['off']:.2f} for {one['min_off_s']:g} s  {_plain(one['name'])}"
            for one in answer["actions"]
        ]
    told = {name: value for name, value in answer.items() if name not in ("ok", "id")}
    return [f"{_plain(name)}: {_plain(value)}" for name, value in told.items()] or ["ok"]


def _plain(value: Any) -> str:
    """As JSON; a text without its quotes."""
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def main() -> int:
    """Command line; returns the exit code."""
    sys.argv[1:] = gather(sys.argv[1:], "--json")
    return run_command(Control, "realtime.control", EXAMPLES, lambda options, _: control(options))


if __name__ == "__main__":
    sys.exit(main())
