"""What both ends of the bus agree on: the default address, where replay is answered, and how messages are numbered."""

from __future__ import annotations

import uuid

from realtime.addresses import DEFAULT_ADDRESS as DEFAULT_ADDRESS

KEEPALIVE_S = (1, 10, 5, 3)  # on; TCP asks a silent peer after 10 s, every 5 s, and gives it up after 3 times
HIGH_WATER = 10_000  # messages kept for a slow subscriber; a burst can lose some from about half of it on


class Numbers:
    """The sequence numbers of one session: per topic family from 0, +1."""

    def __init__(self, session: str | None = None) -> None:
        self.session = session or uuid.uuid4().hex
        self._next: dict[str, int] = {}

    def take(self, name: str) -> int:
        """The number of the next message of a family (action, status, heartbeat, scores, pose)."""
        number = self._next.get(name, 0)
        self._next[name] = number + 1
        return number

    @property
    def next(self) -> dict[str, int]:
        """What each family's next message will carry; for heartbeats."""
        return dict(self._next)


def replay_address(address: str) -> str:
    """Where the publisher at `address` answers what was missed: the next port, or the path with .replay."""
    if address.startswith("ipc://"):
        return f"{address}.replay"
    stem, _, port = address.rpartition(":")
    return f"{stem}:{int(port) + 1}" if port.isdigit() else address
