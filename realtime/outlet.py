"""Where the line's messages leave it: a journal, and a child process that holds every network socket.

The line's own process opens no socket that a stranger could talk to: it binds the addresses and hands them to the
child (realtime/outlet_child.py). A child that dies or hangs is started anew; session and numbers go on, and it is
given what it needs to answer for what was published before. Nothing here ever waits for the child, but `open`,
`wait_for_subscriber` and `close`, each for a bounded time.
"""

from __future__ import annotations

import logging
import select
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from realtime.addresses import check_bind
from realtime.backoff import Backoff
from realtime.child import BACKLOG_FULL, Child
from realtime.errors import LineError, UsageError
from realtime.history import History
from realtime.journal import Journal
from realtime.listener import Listener, listen_pair
from realtime.messages import ActionEvent, AnyMessage, Status, encode
from realtime.outlet_wire import (
    AGAIN,
    ANSWER,
    BOUND,
    CLOSE,
    CONFIG,
    KEEP,
    MESSAGE,
    NEWEST,
    OVER,
    PUBLISH,
    PULSE,
    REFUSED,
    REQUEST,
    TELL,
    Parcel,
    frame,
    heard,
    say,
)  # fmt: skip
from realtime.web.address import bound, listen
from realtime.wire import family, topic

OPEN_S = 15.0  # how long the child may take to be there
HANG_S = 2.0  # silence after which it is taken for hung
CLOSE_S = 1.5  # how long it may take to let the last messages out
TURN_S = 0.05  # publishing alone looks after the child so often
BACK_OFF_S = (0.1, 5.0)  # bounds of the wait before the second restart in a row and later ones; the first is at once
HEALTHY_S = 60.0  # after which the row begins anew
SETTLE_S = 0.05  # the subscriptions of one subscriber arrive together

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OutletSpec:
    """What a line opens. publish, control: ZeroMQ addresses; http: HOST:PORT; keys: the folder of --keys.

    journal: the file that action and status messages are also appended to. memory_mb: the most that the child takes.
    """

    publish: str | None = None
    keys: Path | None = None
    control: str | None = None
    http: str | None = None
    journal: Path | None = None
    memory_mb: int = 256


@dataclass(frozen=True, slots=True)
class Request:
    """A control request; its body is a stranger's JSON object."""

    number: int
    body: dict[str, Any]
    child: int = 0


class Outlet(AbstractContextManager["Outlet"]):
    """Publishes messages, keeps the child alive and brings control requests; for one thread.

    address, control, http: where subscribers, commands and browsers connect, known at once. subscribers: connected
    now. restarts: how often the child was started anew, and failure, why the last time.
    """

    def __init__(self, spec: OutletSpec) -> None:
        """Takes the addresses and starts the child, without waiting for it: models load meanwhile.

        Errors: AddressError (in use), UsageError (an address or the journal cannot be), LineError (no child can be
        started).
        """
        self._spec = spec
        self.address: str | None = None
        self.control: str | None = None
        self.http: str | None = None
        self.subscribers = self.restarts = 0
        self.failure: str | None = None
        self._subscriptions = (0, 0.0)  # how many, and since when
        self._troubles: list[str] = []
        self._requests: list[Request] = []
        self._refusal: LineError | None = None
        self._open = False
        self._child: Child | None = None
        self._failures, self._started_s, self._restart_s, self._looked_s = 0, 0.0, 0.0, 0.0
        self._backoff = Backoff(*BACK_OFF_S, HEALTHY_S)
        self._listeners: dict[str, Listener] = {}
        self._page: socket.socket | None = None
        self._history = History()
        with ExitStack() as opening:
            opening.callback(self._history.close)
            self._journal = Journal(spec.journal) if spec.journal else None
            if self._journal:
                opening.callback(self._journal.close)
            if spec.publish:
                self._listeners["publish"], self._listeners["replay"] = listen_pair(spec.publish, spec.keys)
                opening.callback(self._close_listeners)
                self.address = self._listeners["publish"].address
            if spec.control:
                check_bind(spec.control, spec.keys, "--control")
                self._listeners["control"] = opening.enter_context(Listener(spec.control, "--control"))
                self.control = self._listeners["control"].address
            if spec.http:
                self._page = opening.enter_context(listen(spec.http))
                self.http = bound(self._page)
            if self._listeners or self._page:
                try:
                    self._start()
                except OSError as error:
                    raise LineError(
                        f"cannot start the process that holds the sockets: {error}; is there memory left, and room for "
                        "files and processes (ulimit -n -u)?"
                    ) from error
            opening.pop_all()

    def open(self) -> None:
        """Waits until all is served. Errors: UsageError, AddressError; LineError (the child does not start)."""
        deadline = time.monotonic() + OPEN_S
        while (self._child or self._restart_s) and not self._open:
            self._wait(TURN_S)
            if self._refusal is not None:
                raise self._refusal
            if time.monotonic() > deadline or self._failures >= 3:
                raise LineError(
                    f"the process that holds the sockets did not start ({self.failure or 'it says nothing'}); "
                    "try: python -m realtime.outlet_child"
                )

    @property
    def watched(self) -> bool:
        """Whether a page wants every pose."""
        return self._spec.http is not None

    def publish(self, message: AnyMessage, *, to_bus: bool = True) -> bytes:
        """Sends one message under its own topic and returns its payload; never blocks.

        to_bus: False for what is for the page alone. Errors: MessageError where the message breaks its schema; then
        nothing is sent.
        """
        name, payload = topic(message), encode(message)
        parcel = _parcel(message, name, payload, to_bus)
        if self._journal is not None and parcel.does & KEEP:
            self._write_down(self._journal, payload)
        if self._listeners or self._page:
            self._history.add(parcel)
            if self._child is not None and (to_bus or self._page):
                self._child.send(frame(MESSAGE, parcel.body()), spare=not parcel.does & KEEP)
            if time.monotonic() - self._looked_s > TURN_S:
                self._look()
        return payload

    def tend(self) -> list[Request]:
        """Looks after the child, at least every 0.2 s; returns control requests that came."""
        self._look()
        came, self._requests = self._requests, []
        return came

    def answer(self, request: Request, reply: dict[str, Any]) -> None:
        """Answers a control request; one of a child that is gone is dropped."""
        if self._child is not None and self._child.pid == request.child:
            self._child.send(say(ANSWER, number=request.number, reply=reply))

    def troubles(self) -> list[str]:
        """What went wrong since the last call and is to be told once, such as a journal that is off."""
        told, self._troubles = self._troubles, []
        return told

    def wait_for_subscriber(self, timeout_s: float) -> bool:
        """Whether somebody subscribed within the time; for demos and tests, where no message may be missed."""
        deadline = time.monotonic() + timeout_s
        while not self._subscriptions[0] or time.monotonic() - self._subscriptions[1] < SETTLE_S:
            left_s = deadline - time.monotonic()
            if left_s <= 0 and not self._subscriptions[0]:
                return False
            self._wait(min(SETTLE_S, max(left_s, 0.01)))
        return True

    def close(self) -> None:
        """Gives the last messages a moment to leave, then ends the child and frees the addresses."""
        child, self._child = self._child, None
        if child is not None:
            self._restart_s = 0.0
            child.send(say(CLOSE))
            deadline = time.monotonic() + CLOSE_S
            while child.backlog and not child.ended and time.monotonic() < deadline:
                select.select([], [child], [], 0.05)
                child.flush()
            if not child.gone(max(0.01, deadline - time.monotonic())):
                child.kill()
                child.gone(1.0)
            child.close()
        self._close_listeners()
        self._history.close()
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _close_listeners(self) -> None:
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        if self._page is not None:
            self._page.close()
            self._page = None

    def _write_down(self, journal: Journal, payload: bytes) -> None:
        try:
            journal.write(payload)
        except OSError as error:
            self._journal = None
            self._troubles.append(
                f"journal off: {(error.strerror or str(error)).lower()} at {self._spec.journal}; "
                "what is published from now on is not kept there"
            )
            journal.close()

    def _start(self, restarts: int = 0) -> None:
        """Starts the child. restarts: how often that makes. OSError where the system has no memory or file to spare."""
        history = self._history.files()
        descriptors = [one.fileno() for one in self._listeners.values()] + [fd for fd, _ in history]
        if self._page is not None:
            descriptors.append(self._page.fileno())
        self._child = Child(self._spec.memory_mb, descriptors)
        self._started_s, self._restart_s, self.restarts = time.monotonic(), 0.0, restarts
        sockets = {name: (one.fileno(), one.address) for name, one in self._listeners.items()}
        self._child.send(
            say(
                CONFIG,
                **{name: sockets.get(name) for name in ("publish", "replay", "control")},
                keys=str(self._spec.keys) if self._spec.keys else None,
                http=self._page.fileno() if self._page else None,
                journal=str(self._spec.journal.absolute()) if self._spec.journal else None,
                history=history,
                restarts=restarts,
                session=self._history.session,
                following=self._history.following,
            )
        )

    def _look(self) -> None:
        """Hears the child, hands over what waits, and starts it anew where it is gone."""
        self._looked_s = now_s = time.monotonic()
        child = self._child
        if child is None:
            if self._restart_s and now_s >= self._restart_s:
                self._start_anew(now_s)
            return
        for kind, body in child.listen():
            try:
                self._heed(kind, body)
            except (ValueError, KeyError, TypeError, RecursionError) as error:  # FrameError is a ValueError
                child.spoilt(error)
                break
        child.flush()
        if not child.ended and child.silent_s <= (HANG_S if self._open else OPEN_S) and child.backlog <= BACKLOG_FULL:
            return
        child.kill()
        if child.gone():  # else at the next look: a large process takes a moment to be taken down
            self._bury(child, now_s)

    def _start_anew(self, now_s: float) -> None:
        try:
            self._start(self.restarts + 1)
        except OSError as error:
            self.failure = f"it cannot be started: {error.strerror or error}"
            self._restart_s = now_s + self._pause_s()
            log.warning("the process that holds the sockets is away (%s); it is tried again", self.failure)

    def _pause_s(self) -> float:
        """How long to wait before the next restart, one more having failed."""
        self._failures += 1
        return self._backoff.wait_s() if self._failures > 1 else 0.0

    def _bury(self, child: Child, now_s: float) -> None:
        self.failure = child.fault or ("it hung" if child.hung else _cause(child))
        again = child.code == AGAIN
        if now_s - self._started_s >= HEALTHY_S or again:
            self._failures = 0
            self._backoff.was_healthy(HEALTHY_S)
        child.close()
        self._child, self._open = None, False
        self.subscribers, self._subscriptions = 0, (0, now_s)
        self._restart_s = now_s + (0.0 if again else self._pause_s())
        log.log(
            logging.INFO if again else logging.WARNING,
            "the process that holds the sockets ended (%s); it is started anew, and what it missed can be had again",
            self.failure,
        )

    def _heed(self, kind: int, body: bytes) -> None:
        fields = heard(body)
        if kind == PULSE:
            self.subscribers, subscriptions = int(fields["subscribers"]), int(fields["subscriptions"])
            if subscriptions != self._subscriptions[0]:
                self._subscriptions = (subscriptions, time.monotonic())
        elif kind == BOUND:
            self._open = True
        elif kind == REQUEST and self._child is not None:
            self._requests.append(Request(fields["number"], fields["body"], self._child.pid))
        elif kind == TELL:
            log.warning("%s", fields["text"])
        elif kind == REFUSED:
            self.failure = fields["error"]
            kinds: dict[int, Callable[[str], LineError]] = {one.exit_code: one for one in LineError.__subclasses__()}
            self._refusal = kinds.get(fields["code"], UsageError)(fields["error"])

    def _wait(self, within_s: float) -> None:
        """Waits a moment for the child to say something, and hears it."""
        if self._child is None:
            time.sleep(min(within_s, TURN_S))
        else:
            select.select([self._child], [], [], within_s)
        self._look()


def _parcel(message: AnyMessage, name: str, payload: bytes, to_bus: bool) -> Parcel:
    does, key = PUBLISH, ""
    if not to_bus:
        does = 0
    elif isinstance(message, ActionEvent):
        does, key = does | KEEP | (OVER if message.phase == "end" else NEWEST), message.id
    elif isinstance(message, Status):
        does, key = does | KEEP | (0 if message.state == "window_reset" else NEWEST), name
    return Parcel(does, family(message), message.session, message.seq, name, key, payload)


def _cause(child: Child) -> str:
    code, words = child.code, child.last_words()
    how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    return f"{how}: {words}" if words else how
