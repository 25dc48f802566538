"""What was published, kept for those who missed it: the last messages by number, and the newest of what is going on.

Standard library only; the child that holds the sockets fills it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from realtime.outlet_wire import KEEP, NEWEST, OVER, Parcel

MESSAGES_AT_MOST = 65_536  # of each family
BYTES_AT_MOST = 32 << 20  # in all
KEYS_AT_MOST = 4096  # open events and sources


@dataclass(frozen=True, slots=True)
class Found:
    """What a ring has of one family of one session within the numbers asked for.

    oldest: the smallest number kept, None where nothing is. next: one more than the largest that was ever kept; a
    message with a number below `oldest` is gone. messages: by rising number.
    """

    oldest: int | None
    next: int
    messages: tuple[tuple[int, bytes], ...]


class Ring:
    """The newest messages of each family, bounded by count and bytes; the oldest of the largest family goes first."""

    def __init__(self, messages: int = MESSAGES_AT_MOST, size: int = BYTES_AT_MOST) -> None:
        self._most, self._largest, self.size = messages, size, 0
        self._kept: dict[str, OrderedDict[tuple[str, int], bytes]] = {}
        self._sizes: dict[str, int] = {}
        self._spans: dict[tuple[str, str], list[int]] = {}  # session, family -> oldest, next
        self._newest: OrderedDict[str, Parcel] = OrderedDict()
        self.session: str | None = None

    def add(self, parcel: Parcel) -> None:
        """Takes a message of the running session in."""
        if parcel.session != self.session:
            self.session = parcel.session
            self._newest.clear()  # events of an earlier session do not go on
        if parcel.does & OVER:
            self._newest.pop(parcel.key, None)
        if parcel.does & NEWEST:
            self._newest.pop(parcel.key, None)
            self._newest[parcel.key] = parcel
            if len(self._newest) > KEYS_AT_MOST:
                self._newest.popitem(last=False)
        if parcel.does & KEEP:
            self.keep(parcel.family, parcel.session, parcel.seq, parcel.payload)

    def keep(self, family: str, session: str, seq: int, payload: bytes) -> None:
        """Keeps one message for replay, of this session or an earlier one; numbers rise within a session."""
        span = self._spans.setdefault((session, family), [seq, seq])
        if seq < span[1]:  # told twice
            return
        span[1] = seq + 1
        kept = self._kept.setdefault(family, OrderedDict())
        kept[session, seq] = payload
        self._grow(family, len(payload))
        if len(kept) > self._most:
            self._drop(family)
        while self.size > self._largest:
            self._drop(max(self._sizes, key=self._sizes.__getitem__))

    def started(self, session: str, following: dict[str, int]) -> None:
        """Says which session runs and what each family's next message will carry, where nothing of it is kept."""
        self.session = session
        for family, number in following.items():
            self._spans.setdefault((session, family), [number, number])

    def since(self, session: str, family: str, first: int, last: int, count: int, size: int) -> Found:
        """Messages `first` to `last` (included), at most `count` and about `size` bytes of them."""
        kept = self._kept.get(family, OrderedDict())
        oldest, following = self._spans.get((session, family), (0, 0))
        found: list[tuple[int, bytes]] = []
        total = 0
        for seq in range(max(first, oldest), min(last + 1, following)):
            payload = kept.get((session, seq))
            if payload is None:  # it never came this far, as where the disk of a journal was full
                continue
            if len(found) >= count or (found and total + len(payload) > size):
                break
            found.append((seq, payload))
            total += len(payload)
        return Found(oldest if following > oldest else None, following, tuple(found))

    def newest(self) -> tuple[Parcel, ...]:
        """The last status of each source and the newest message of each open event, in the order they came."""
        return tuple(self._newest.values())

    def following(self) -> dict[str, int]:
        """What each kept family's next message of the running session will carry."""
        return {family: span[1] for (session, family), span in self._spans.items() if session == self.session}

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    def _grow(self, family: str, by: int) -> None:
        self._sizes[family] = self._sizes.get(family, 0) + by
        self.size += by

    def _drop(self, family: str) -> None:
        (session, seq), payload = self._kept[family].popitem(last=False)
        self._grow(family, -len(payload))
        self._spans[session, family][0] = seq + 1
        if session != self.session and self._spans[session, family][0] >= self._spans[session, family][1]:
            del self._spans[session, family]  # else the sessions of years would pile up
