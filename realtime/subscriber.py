"""For readers of a bus: `EventSubscriber`, every event or a word about what is lost; `Subscriber`, all topics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Literal

from realtime.bus import DEFAULT_ADDRESS, replay_address
from realtime.client import Received as Received
from realtime.client import ReplayClient, Secure
from realtime.client import Subscriber as Subscriber
from realtime.gap import Gap, GapError, Joined, Refused, Silence
from realtime.messages import ActionEvent, AnyMessage, Heartbeat, MessageError, Status, decode
from realtime.wire import family

FAMILIES = ("action", "status")
Item = ActionEvent | Status | Joined | Gap | Silence | Refused
Flow = Iterator[Item | None]  # None: nothing yet, look at the clock

BREATH_S = 0.1  # the longest wait after which the clock is looked at
ANSWER_S = 1.0  # how long an answer may take
TRIES = 5  # questions before what was missed is given up
SKIP_AT_MOST = 100_000  # messages passed over in one go


class EventSubscriber(AbstractContextManager["EventSubscriber"]):
    """Follows a line and receives every action and status message; for one thread.

    It subscribes, asks what is going on (`Joined`), and from there on misses nothing: a jump in the numbers, also one
    that only a heartbeat shows, is asked for and told in order, then `Gap` says how many were recovered and lost.
    on_gap: "recover", "skip" (told as lost, nothing is asked for) or "raise" (GapError; receiving may go on).
    max_lag_s: a reader that is further behind skips to now, told as a `Gap`. silence_s: after which a publisher that
    says nothing is told as `Silence`. timeout_s: how long iterating waits for an item before it ends; None for ever.
    secure: as of Subscriber. Counters: lost, recovered, refused. alive: whether the publisher speaks.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        on_gap: Literal["recover", "skip", "raise"] = "recover",
        max_lag_s: float | None = None,
        silence_s: float = 3.0,
        timeout_s: float | None = None,
        secure: Secure | None = None,
    ) -> None:
        """Errors: UsageError where the address is malformed."""
        self.lost = self.recovered = self.refused = 0
        self.alive = False
        self.session: str | None = None
        self._on_gap, self._max_lag_s = on_gap, max_lag_s
        self._silence_s, self._timeout_s = silence_s, timeout_s
        self._live = Subscriber(address, (*(f"{name}." for name in FAMILIES), "heartbeat."), secure)
        self._replay = ReplayClient(replay_address(address), secure)
        self._expected: dict[str, int] = {}  # family -> number of the next message
        self._finished = False  # the last status was a last one
        self._past: list[str] = []  # sessions before this one
        self._nearest_s: float | None = None  # the smallest difference of the two clocks seen
        self._heard_s, self._silent = time.monotonic(), False
        self._step_s = 0.0
        self._flow = self._follow()

    def receive(self, timeout_s: float | None = None) -> Item | None:
        """The next item, or None when none came in time (None waits for ever).

        Errors: GapError with on_gap "raise".
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self._step_s = BREATH_S if deadline is None else min(max(deadline - time.monotonic(), 0.0), BREATH_S)
            item = next(self._flow)
            if isinstance(item, Gap):
                self.lost += item.lost or 0
                if self._on_gap == "raise":
                    raise GapError(item)
            if item is not None or (deadline is not None and time.monotonic() >= deadline):
                return item

    def __iter__(self) -> Iterator[Item]:
        """Items until none came for `timeout_s`."""
        while (item := self.receive(self._timeout_s)) is not None:
            yield item

    def close(self) -> None:
        """Disconnects."""
        self._live.close()
        self._replay.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _follow(self) -> Flow:
        """Joins and then reads for ever. It never raises, so that it can always go on."""
        yield from self._join()
        while True:
            try:
                received = self._live.receive(self._step_s)
            except MessageError as error:
                self.refused += 1
                yield Refused(str(error))
                continue
            if received is None:
                yield from self._listen_to_silence()
                yield None
                continue
            self._heard_s, self.alive, self._silent = time.monotonic(), True, False
            yield from self._take(received)

    def _join(self) -> Flow:
        """Asks what is going on; messages published meanwhile wait in the socket."""
        asked, sent_s = 0, float("-inf")
        while True:
            if time.monotonic() - sent_s > (ANSWER_S if asked else BREATH_S):
                asked += self._replay.ask(get="last")
                sent_s = time.monotonic()
            answer = self._replay.answer(min(self._step_s, BREATH_S))
            if answer is not None and answer[0].get("answer") == "last":
                yield self._joined(*answer)
                return
            unanswered = asked >= 2 or time.monotonic() - self._heard_s > 2 * ANSWER_S
            if unanswered and self._live.waiting():  # somebody publishes who does not answer
                yield Joined(None, snapshot=False)
                return
            yield from self._listen_to_silence()
            yield None

    def _joined(self, head: dict[str, Any], payloads: list[bytes]) -> Joined:
        self._heard_s, self.alive, self._silent = time.monotonic(), True, False
        messages: list[AnyMessage] = []
        for payload in payloads:
            try:
                messages.append(decode(payload))
            except MessageError:
                self.refused += 1
        session, following = head.get("session"), head.get("next_seq")
        self.session = session if isinstance(session, str) else None
        self._expected = {name: _number(following, name) or 0 for name in FAMILIES}
        statuses = tuple(message for message in messages if isinstance(message, Status))
        self._finished = bool(statuses) and _last_word(statuses[-1])
        events = tuple(message for message in messages if isinstance(message, ActionEvent))
        return Joined(self.session, None, statuses, events)

    def _take(self, received: Received) -> Flow:
        message = received.message
        if message.session in self._past:
            return
        if message.session != self.session:
            yield from self._change(message)
        if isinstance(message, Heartbeat):
            for name in FAMILIES:
                yield from self._miss(name, message.next_seq.get(name, 0))
            yield from self._hurry(message)
        elif isinstance(message, ActionEvent | Status):
            yield from self._miss(family(message), message.seq)
            if message.seq >= self._expected[family(message)]:
                self._expected[family(message)] = message.seq + 1
                yield self._told(message)

    def _change(self, message: AnyMessage) -> Flow:
        """The publisher was started anew: what is left of the old session, then the new one from its first message."""
        previous, self._nearest_s = self.session, None
        if previous is not None:
            for name in FAMILIES:
                yield from self._recover(previous, name, self._expected.get(name, 0), None)
            self._past = [*self._past[-15:], previous]
        joined_blind = previous is None and not self._expected
        self.session, self._finished = message.session, False
        self._expected = dict.fromkeys(FAMILIES, 0)
        if joined_blind:  # nobody told what was before us
            if isinstance(message, Heartbeat):
                self._expected = {name: message.next_seq.get(name, 0) for name in FAMILIES}
            else:
                self._expected[family(message)] = message.seq
        elif previous is not None:
            yield Joined(message.session, previous)

    def _miss(self, name: str, reached: int) -> Flow:
        """What lies between the number expected and the one reached."""
        expected = self._expected.get(name, 0)
        if reached <= expected:
            return
        assert self.session is not None
        self._expected[name] = reached
        if self._on_gap == "recover":
            yield from self._recover(self.session, name, expected, reached - 1)
        else:
            yield Gap(self.session, name, expected, reached - 1, reached - expected, 0)

    def _recover(self, session: str, name: str, first: int, last: int | None) -> Flow:
        """Asks for messages `first` to `last`, or to the end of that session, and tells them in order."""
        at, begun, recovered = first, first, 0
        while last is None or at <= last:
            answer = yield from self._ask(get="since", family=name, session=session, **{"from": at}, to=last)
            head: dict[str, Any] = answer[0] if answer else {}
            payloads: list[bytes] = answer[1] if answer else []
            oldest, following = _number(head, "oldest"), _number(head, "next")
            partly = oldest is not None and at < oldest and (last is None or oldest <= last)
            if head.get("answer") == "gone" and oldest is not None and partly:
                yield Gap(session, name, at, oldest - 1, oldest - at, 0, "no longer kept")
                at = begun = oldest
                continue
            if last is None and (following is None or head.get("answer") != "since"):
                if not self._finished:
                    yield Gap(session, name, at, None, None, recovered, "that session broke off, and is not kept")
                return
            before = at
            for message in self._whole(payloads, session, name, at, last):
                if message.seq > at:
                    yield Gap(session, name, at, message.seq - 1, message.seq - at, 0, "never kept")
                at, recovered = message.seq + 1, recovered + 1
                self.recovered += 1
                yield self._told(message)
            if last is None and following is not None and at >= following:
                last = at - 1
            elif at == before:
                end = last if last is not None else (following or at + 1) - 1
                reason = "no longer kept" if head else "the publisher does not answer"
                yield Gap(session, name, begun, end, end - at + 1, recovered, reason)
                return
        if recovered:
            yield Gap(session, name, begun, last, 0, recovered)

    def _whole(
        self, payloads: list[bytes], session: str, name: str, at: int, last: int | None
    ) -> Iterator[ActionEvent | Status]:
        """The messages of an answer that are what was asked for."""
        for payload in payloads:
            try:
                message = decode(payload)
            except MessageError:
                self.refused += 1
                continue
            fits = message.session == session and family(message) == name and message.seq >= at
            if isinstance(message, ActionEvent | Status) and fits and (last is None or message.seq <= last):
                at = message.seq + 1
                yield message
            else:
                self.refused += 1

    def _ask(self, **request: Any) -> Any:
        """A generator that returns the answer, or None where none came."""
        for _ in range(TRIES):
            sent = self._replay.ask(**request)
            deadline = time.monotonic() + ANSWER_S
            while time.monotonic() < deadline:
                answer = self._replay.answer(BREATH_S / 2)
                if answer is not None:
                    return answer
                yield None
                if not sent:  # perhaps it is being started anew
                    sent = self._replay.ask(**request)
        return None

    def _hurry(self, beat: Heartbeat) -> Flow:
        """Passes over what waits where this reader is too far behind; the publisher's clock need not be ours."""
        behind_s = time.monotonic() - beat.time.mono_ns / 1e9
        self._nearest_s = behind_s if self._nearest_s is None else min(self._nearest_s, behind_s)
        if self._max_lag_s is None or behind_s - self._nearest_s <= self._max_lag_s:
            return
        reached = dict(self._expected)
        for _ in range(SKIP_AT_MOST):
            try:
                received = self._live.receive(0)
            except MessageError:
                self.refused += 1
                continue
            if received is None or received.message.session != self.session:
                break
            message = received.message
            told = message.next_seq if isinstance(message, Heartbeat) else {family(message): message.seq + 1}
            for name in FAMILIES:
                reached[name] = max(reached[name], told.get(name, 0))
        for name, number in reached.items():
            first, self._expected[name] = self._expected[name], number
            if number > first:
                assert self.session is not None
                yield Gap(self.session, name, first, number - 1, number - first, 0, "skipped: too far behind")

    def _listen_to_silence(self) -> Flow:
        seconds = time.monotonic() - self._heard_s
        if seconds > self._silence_s and not self._silent:
            self._silent, self.alive = True, False
            yield Silence(round(seconds, 3))

    def _told(self, message: ActionEvent | Status) -> ActionEvent | Status:
        if isinstance(message, Status):
            self._finished = _last_word(message)
        return message


def _last_word(status: Status) -> bool:
    return status.state in ("ended", "offline")


def _number(fields: Any, name: str) -> int | None:
    """A number from 0 that a publisher told, None where it told none."""
    value = fields.get(name) if isinstance(fields, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
