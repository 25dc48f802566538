"""Where a capture thread leaves frames and the line takes them: the newest frame wins, and no change is lost."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace

from realtime.schema import Frame, State

MOST = 8  # frames and changes kept for a line that does not take them


@dataclass(frozen=True, slots=True)
class Change:
    """A source's state changed; it stands among the frames, so none before it belongs to what follows.

    state: online, stalled (no frame comes), frozen (the same picture again and again), dark (nothing to be seen),
    degraded (too slow to recognise anything) or reconnecting. reason: one line for people, without secrets.
    captured_ns: when it was noticed. reset: why every person's window begins anew, None where the windows go on.
    """

    state: State
    captured_ns: int
    reason: str | None = None
    reset: str | None = None


class Slot:
    """Frames and changes in order, handed from one thread to another."""

    def __init__(self, ahead: int | None = None) -> None:
        """ahead: keep every frame, and let the giver wait while so many are untaken; None: keep the newest."""
        self._ahead = ahead
        self._items: deque[Frame | Change] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: Frame | Change) -> int:
        """Leaves one thing; gives the number of frames that it overwrote. Does nothing once closed."""
        with self._changed:
            if self._ahead is not None:
                self._changed.wait_for(lambda: len(self._items) < (self._ahead or 0) or self._closed)
            if self._closed:
                return 0
            lost = self._make_room(item) if self._ahead is None else 0
            self._items.append(item)
            self._changed.notify_all()
            return lost

    def take(self, timeout_s: float) -> Frame | Change | None:
        """The oldest thing, None where there is none within the time or all was taken and the giver is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, timeout_s)
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self, forget: bool = False) -> None:
        """No more comes, and nobody waits any longer. forget: what was not taken is dropped as well."""
        with self._changed:
            self._closed = True
            if forget:
                self._items.clear()
            self._changed.notify_all()

    @property
    def over(self) -> bool:
        """Whether it is closed and everything was taken."""
        with self._changed:
            return self._closed and not self._items

    def _make_room(self, item: Frame | Change) -> int:
        """Drops the frame that a newer one follows; where changes pile up, all of them become one."""
        if isinstance(item, Frame):
            if self._items and isinstance(self._items[-1], Frame):
                self._items.pop()
                return 1
            return 0
        if len(self._items) < MOST:
            return 0
        changes = [kept for kept in self._items if isinstance(kept, Change)]
        resets = [kept.reset for kept in changes if kept.reset is not None]
        lost = len(self._items) - len(changes)
        self._items.clear()
        if resets:  # frames are missing here, and what followed a reset must not be joined to what went before
            self._items.append(replace(changes[-1], reset=resets[-1]))
        return lost
