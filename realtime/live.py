"""Plays a camera or stream for ever: what is lost is opened again, what hangs is left behind, and the line never waits.

A capture thread reads frames, looks at them (realtime/watch.py) and leaves them in the slot. It also tries again when
the source is lost, with back-off. The line's own thread is the watchdog: while nothing comes it says so after 2 s, and
a read that hangs in a driver is left behind with its thread, in favour of a new one. At most three hang at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from realtime.backoff import Backoff
from realtime.clock import Sleep
from realtime.errors import SourceError
from realtime.feed import BREATH_S, STALLED_S, Opened, Tally
from realtime.schema import Frame, State
from realtime.slot import Change, Slot
from realtime.watch import Watch

HANGING_MOST = 3  # threads that hang in a driver, for each of which it holds a device and a few megabytes
LOOK_S = 0.25  # how often a wait looks whether it is over


@dataclass(frozen=True)
class Limits:
    """Seconds after which a live source that gives nothing is stalled, or its read or opening is taken for hung.

    hung_s is above the 3 s after which readers give up by themselves; opening covers the first frame as well, for
    which a camera may take long.
    """

    stalled_s: float = STALLED_S
    hung_s: float = 4.0
    opening_s: float = 10.0


class _Reader:
    """One capture thread's own state; the line reads it."""

    def __init__(self, opened: Opened | None) -> None:
        self.opened = opened
        self.busy = True  # in a read or an opening, not in a wait of ours
        self.warm = False  # it gave a frame since it was opened
        self.since_s = time.monotonic()  # since when it is so
        self.thread: threading.Thread | None = None

    def turn(self, *, busy: bool, warm: bool = False) -> None:
        """Something new begins."""
        self.busy, self.warm, self.since_s = busy, warm, time.monotonic()


class Live:
    """A source that is live and comes back; a `Source`. It ends only when closed, or by a fault of our own."""

    paced = True

    def __init__(
        self,
        opened: Opened,
        reopen: Callable[[], Opened],
        *,
        there: Callable[[], bool] | None = None,
        limits: Limits | None = None,
        backoff: Backoff | None = None,
        watch: Watch | None = None,
        sleep: Sleep | None = None,
    ) -> None:
        """reopen: opens it once more, bounded in time, or raises SourceError. there: whether a device is plugged in.

        A wait between two attempts ends at once when a device that was not there comes back.
        """
        self.info = opened.info
        self._reopen, self._there = reopen, there
        self._limits, self._backoff = limits or Limits(), backoff or Backoff()
        self._watch, self._sleep = watch or Watch(), sleep or Sleep()
        self._slot = Slot()
        self._lock = threading.RLock()  # what follows belongs to the current reader and the line
        self._reader = _Reader(opened)
        self._left: list[_Reader] = []  # they hang, or did
        self._past = Tally()  # of all readers before
        self._closing = threading.Event()
        self._error: Exception | None = None
        self._state: State = "online"  # as last told
        self._lost = False  # since its last frame it was lost, not only silent
        self._attempts = 0  # since its last frame
        self._index = 0  # of the next frame
        self._last_s = time.monotonic()  # when the last frame came
        self._healthy_since_s: float | None = None
        self._damaged = 0  # pictures, when the last good one came
        self._told_hanging = False

    @property
    def dropped(self) -> int:
        """Frames overwritten unread."""
        return self._past.dropped

    @property
    def refused(self) -> int:
        """Joints that were not finite; a camera gives none."""
        return self._past.refused

    @property
    def corrupt(self) -> int:
        """Pictures that did not decode, or came out marked as damaged; none of them is delivered."""
        with self._lock:
            opened = self._reader.opened
            return self._past.corrupt + (opened.tally.corrupt if opened else 0)

    @property
    def reconnects(self) -> int:
        """How often it gave frames again after it was lost."""
        return self._past.reconnects

    def __iter__(self) -> Iterator[Frame | Change | None]:
        return self

    def __next__(self) -> Frame | Change | None:
        """The next frame or change, None after 0.2 s without one; StopIteration only when closed."""
        if self._reader.thread is None:
            self._last_s = time.monotonic()
            self._start(self._reader)
        item = self._slot.take(BREATH_S)
        if item is not None:
            return item
        if self._error is not None:
            raise self._error
        if self._closing.is_set():
            raise StopIteration
        with self._lock:
            return self._tend()

    def close(self) -> None:
        """Stops the thread and frees the device; a second call does nothing."""
        self._closing.set()
        self._slot.close(forget=True)
        reader = self._reader
        if reader.thread is not None:
            reader.thread.join(timeout=1.0)  # a read of a silent network ends within 3 s; it is left behind
        elif reader.opened is not None:
            reader.opened.release()

    # The line's thread.

    def _start(self, reader: _Reader) -> None:
        reader.turn(busy=True)
        reader.thread = threading.Thread(target=self._run, args=(reader,), name=f"capture-{self.info.id}", daemon=True)
        reader.thread.start()

    def _tend(self) -> Change | None:
        """Nothing came: says so once, and leaves a read behind that hangs."""
        reader, now_s = self._reader, time.monotonic()
        spent_s = now_s - reader.since_s
        if reader.busy and spent_s >= (self._limits.hung_s if reader.warm else self._limits.opening_s):
            return self._leave_behind(reader, spent_s)
        silent_s = now_s - self._last_s
        # A source that is known to be slow may take its time.
        most_s = self._limits.hung_s if self._state == "degraded" else self._limits.stalled_s
        if self._state in ("stalled", "reconnecting") or silent_s < most_s:
            return None
        self._state = "stalled"
        damaged = " but damaged pictures" if self.corrupt > self._damaged else ""
        why = f"nothing{damaged} came for {silent_s:.1f} s"
        return Change("stalled", time.monotonic_ns(), f"{why}; check its cable, power and network", why)

    def _leave_behind(self, reader: _Reader, spent_s: float) -> Change | None:
        self._left = [left for left in self._left if left.thread is not None and left.thread.is_alive()]
        if len(self._left) >= HANGING_MOST:
            if self._told_hanging:
                return None
            self._told_hanging, self._state = True, "reconnecting"
            why = f"{HANGING_MOST + 1} reads hang in the driver; unplug the camera, or restart this program"
            return Change("reconnecting", time.monotonic_ns(), why, "the camera was lost")
        self._left.append(reader)
        doing = "a read" if reader.warm else "opening it"
        self._note_loss(reader)
        self._reader = _Reader(None)
        self._start(self._reader)
        return self._loss(f"{doing} hangs for {spent_s:.1f} s; plug the camera in again if it goes on")

    # The capture thread.

    def _run(self, reader: _Reader) -> None:
        try:
            while self._current(reader):
                if reader.opened is not None:
                    self._play(reader, reader.opened)
                else:
                    self._try_again(reader)
        except Exception as caught:  # noqa: BLE001 - a fault of ours is raised in the line's thread
            if self._current(reader):
                self._error = caught
                self._slot.close()
        finally:
            if reader.opened is not None:
                reader.opened.release()

    def _current(self, reader: _Reader) -> bool:
        return self._reader is reader and not self._closing.is_set()

    def _play(self, reader: _Reader, opened: Opened) -> None:
        """Delivers frames until the source is lost, and says that it is."""
        lost = f"{self.info.kind} {self.info.id} ended"
        try:
            for item in opened.frames:
                if isinstance(item, Frame) and not self._deliver(reader, item):
                    return
        except SourceError as error:
            lost = str(error)
        opened.release()
        with self._lock:
            if self._current(reader):
                self._note_loss(reader)
                reader.opened = None
                self._put(self._loss(lost))

    def _deliver(self, reader: _Reader, frame: Frame) -> bool:
        """Hands a frame over with what is to be said before it; False where this reader is no longer the one."""
        with self._lock:
            if not self._current(reader):
                return False
            frame = replace(frame, index=self._index)
            self._index += 1
            away_s = self._note_frame(reader)
            if self._lost:
                self._watch.begin()
            change, deliver = self._watch.see(frame)
            change = self._returned(frame, away_s, change)
            slept_s = self._sleep.slept_s()
            if slept_s:
                slept = f"the machine slept for {slept_s:.0f} s"
                change = Change(self._watch.state, frame.captured_ns, slept, slept)
            if change is not None:
                self._state = change.state
                self._put(change)
            if deliver:
                self._past.dropped += self._slot.put(frame)
            return True

    def _note_frame(self, reader: _Reader) -> float:
        """Notes that a good frame came; gives the seconds since the one before it."""
        now_s = time.monotonic()
        away_s, self._last_s = now_s - self._last_s, now_s
        if not reader.warm:
            self._healthy_since_s = now_s
        reader.turn(busy=True, warm=True)
        self._damaged = self.corrupt
        return away_s

    def _returned(self, frame: Frame, away_s: float, seen: Change | None) -> Change | None:
        """What is said before the first frame after a silence, and else what was seen in the frame."""
        if self._state not in ("stalled", "reconnecting"):
            return seen
        lost, attempts = self._lost, self._attempts
        self._lost, self._attempts, self._told_hanging = False, 0, False
        named = "camera" if self.info.kind == "camera" else "stream"
        why = f"the {named} was lost for {away_s:.1f} s" if lost else f"no frame came for {away_s:.1f} s"
        if lost:
            self._past.reconnects += 1
        tried = f", back at attempt {attempts}" if attempts else ""
        also = f"; {seen.reason}" if lost and seen is not None and seen.reason else ""  # another size
        return Change(self._watch.state, frame.captured_ns, why + tried + also, why)

    def _note_loss(self, reader: _Reader) -> None:
        if reader.opened is not None:
            self._past.corrupt += reader.opened.tally.corrupt
        if self._healthy_since_s is not None:
            self._backoff.was_healthy(self._last_s - self._healthy_since_s)
            self._healthy_since_s = None

    def _loss(self, why: str) -> Change | None:
        """What is said of a loss or of an attempt that failed: of those in a row the 1st, 2nd, 4th, 8th and so on."""
        self._lost = True
        if self._state != "reconnecting":
            self._state = "reconnecting"
            named = "camera" if self.info.kind == "camera" else "stream"
            return Change("reconnecting", time.monotonic_ns(), f"{why}; trying again", f"the {named} was lost")
        if self._attempts & (self._attempts - 1):
            return None
        return Change("reconnecting", time.monotonic_ns(), f"{why} (attempt {self._attempts}, trying again)")

    def _try_again(self, reader: _Reader) -> None:
        """Waits, then opens the source once; where that fails, says so now and then."""
        reader.turn(busy=False)
        self._wait(reader, self._backoff.wait_s())
        if not self._current(reader):
            return
        reader.turn(busy=True)
        try:
            opened = self._reopen()
        except SourceError as error:
            self._failed(reader, str(error))
            return
        if not opened.info.live:
            opened.release()
            self._failed(reader, "it is a file with an end now; check the address")
            return
        with self._lock:
            self._attempts += 1
            reader.opened = opened  # released by _run where this reader was left behind meanwhile
            reader.turn(busy=True)

    def _failed(self, reader: _Reader, why: str) -> None:
        with self._lock:
            if self._current(reader):
                self._attempts += 1
                self._put(self._loss(why))

    def _put(self, change: Change | None) -> None:
        if change is not None:
            self._past.dropped += self._slot.put(change)

    def _wait(self, reader: _Reader, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        was_there = self._there is None or self._there()
        while self._current(reader) and (left_s := until_s - time.monotonic()) > 0:
            self._closing.wait(min(left_s, LOOK_S))
            if self._there is not None and not was_there and self._there():
                return
