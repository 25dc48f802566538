"""A page to watch lines that run already: `python -m realtime.web --connect tcp://127.0.0.1:5556`.

A program of its own: it subscribes to each line and serves what it hears. Figures need lines with --publish-poses.
Exit codes: 0 stopped · 1 internal error · 2 usage · 5 address in use · 130 interrupted.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from realtime.addresses import DEFAULT_ADDRESS as BUS_ADDRESS
from realtime.command import run_command
from realtime.errors import LineError, UsageError
from realtime.messages import MessageError
from realtime.printable import printable
from realtime.subscriber import Subscriber
from realtime.web.server import WebServer
from realtime.web.stats import DEFAULT_ADDRESS
from realtime.web.stream import FAMILIES
from realtime.zap import security

EXAMPLES = """examples:
  python -m realtime.run --camera 0 --publish-poses                in one terminal
  python -m realtime.web                                           in another; then open http://127.0.0.1:8787/
  python -m realtime.web --connect hall=tcp://127.0.0.1:5556 yard=tcp://127.0.0.1:5557
                                                                   two lines on one page, each under a name of its own
  python -m realtime.web --connect tcp://LINE:5556 --keys wall.client
                                                                   another machine's line, with the key it gave us
  ssh -L 8787:127.0.0.1:8787 HOST                                  the page of another machine, at the same address here
"""
BREATH_S = 0.5  # how often a wait looks whether it is to stop


@dataclass(frozen=True)
class Watch:
    """Serve a page to watch running lines, with /metrics and /healthz, on this machine."""

    connect: tuple[str, ...] = (BUS_ADDRESS,)
    """Where lines publish (their --pub). NAME=ADDRESS shows a line's source under another name, which two lines whose
    sources are called alike need."""
    http: str = DEFAULT_ADDRESS
    """HOST:PORT of this machine's loopback to serve on; port 0 for any free one."""
    keys: Path | None = None
    """The client's file made by realtime.keys, for lines with --keys."""


class Claims:
    """Which line each source belongs to, so that two whose sources are called alike are not mixed up."""

    def __init__(self) -> None:
        self._owners: dict[str, str] = {}
        self._lock = threading.Lock()

    def take(self, source: str, address: str) -> str | None:
        """None where this line may tell of the source, else the address of the line that does."""
        with self._lock:
            owner = self._owners.setdefault(source, address)
        return None if owner == address else owner


class Bridge(threading.Thread):
    """Passes the messages of one line on to the page, under another name if one is wanted."""

    def __init__(
        self, name: str | None, subscriber: Subscriber, address: str, server: WebServer, claims: Claims,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        super().__init__(name=f"bridge {address}", daemon=True)
        self._rename, self._subscriber, self._address = name, subscriber, address
        self._server, self._claims, self._say = server, claims, say
        self._told: set[str] = set()
        self._over = threading.Event()

    def run(self) -> None:
        """Until stopped."""
        with self._subscriber as subscriber:
            while not self._over.is_set():
                try:
                    received = subscriber.receive(BREATH_S)
                except MessageError as error:
                    self._once("refused", f"{self._address}: refused a message: {error}")
                    continue
                if received is not None:
                    self._pass_on(received.topic, received.payload)

    def stop(self) -> None:
        """Asks the thread to end."""
        self._over.set()

    def _pass_on(self, topic: str, payload: bytes) -> None:
        if self._rename is not None:
            topic, payload = renamed(topic, payload, self._rename)
        source = topic.split(".")[1]
        owner = self._claims.take(source, self._address)
        if owner is None:
            self._server.feed(topic, payload)
            return
        self._once(
            source,
            f"{self._address} is left out: its source is called {source} as that of {owner}; "
            f"name it: --connect NAME={self._address}",
        )

    def _once(self, key: str, text: str) -> None:
        if key not in self._told:
            self._told.add(key)
            self._say(text)


def renamed(topic: str, payload: bytes, name: str) -> tuple[str, bytes]:
    """The same message as if its source were called so."""
    family, _, *rest = topic.split(".")
    message = json.loads(payload)
    if isinstance(message["source"], dict):
        message["source"]["id"] = name
    else:
        message["source"] = name
    return ".".join((family, name, *rest)), json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


def lines(connect: tuple[str, ...]) -> list[tuple[str | None, str]]:
    """Name (or None) and address of each line; UsageError where a name is no topic's part or an address comes twice."""
    if not connect:
        raise UsageError(f"--connect needs the address of a line, such as {BUS_ADDRESS}")
    found: list[tuple[str | None, str]] = []
    for text in connect:
        name, mark, address = text.partition("=") if re.match(r"[^:/]*=", text) else ("", "", text)
        if mark and not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            raise UsageError(f"a name is made of letters, digits, _ and -, got {name!r} in --connect {text}")
        found.append((name if mark else None, address))
    for values in ([address for _, address in found], [name for name, _ in found if name]):
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            raise UsageError(f"--connect names {twice[0]} twice; give each line once, under a name of its own")
    return found


def check_alive(server: WebServer, bridges: Sequence[Bridge]) -> None:
    """LineError where a thread has ended that nobody asked to: half a page would look like a whole one."""
    ended = [bridge.name for bridge in bridges if not bridge.is_alive()]
    if not server.alive:
        ended.append("the page")
    if ended:
        raise LineError(f"the thread of {', '.join(ended)} ended, by a fault or for lack of memory; start it again")


def watch(options: Watch, console: Console) -> int:
    """Serves until interrupted or terminated."""
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: over.set())

    def say(text: str) -> None:
        console.print(printable(text), markup=False, soft_wrap=True)

    named, claims, topics = lines(options.connect), Claims(), [f"{family}." for family in FAMILIES]
    secure = security(options.keys)
    with WebServer(options.http) as server:
        bridges = [
            Bridge(name, Subscriber(address, topics, secure), address, server, claims, say) for name, address in named
        ]
        for bridge in bridges:
            bridge.start()
        say(f"watching {', '.join(address for _, address in named)} at {server.url}")
        try:
            while not over.wait(BREATH_S):  # short waits, so that Ctrl-C is heard
                check_alive(server, bridges)
        finally:
            for bridge in bridges:
                bridge.stop()
            for bridge in bridges:
                bridge.join(timeout=2)
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Watch, "realtime.web", EXAMPLES, watch)


if __name__ == "__main__":
    sys.exit(main())
