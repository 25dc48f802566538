"""Server-sent events: how a message is written, and what waits for one reader, bounded whatever the reader does."""

from __future__ import annotations

from collections import Counter, deque

FAMILIES = ("action", "status", "heartbeat", "pose")
MOST_POSES = 16
MOST_POSE_BYTES = 512 * 1024
MOST_WAITING = 1024
MOST_WAITING_BYTES = 1024 * 1024
_AT_ONCE = 64 * 1024


def sse(event: str, payload: bytes, number: str = "") -> bytes:
    """One event as it goes over the wire. In JSON a line break stands outside of strings alone, and is white space."""
    line = payload.replace(b"\r", b" ").replace(b"\n", b" ")
    head = f"event: {event}\nid: {number}\n" if number else f"event: {event}\n"
    return head.encode() + b"data: " + line + b"\n\n"


class Stream:
    """What waits for one reader of /events.

    Poses are the first to go: the newest few are kept. Where so much else waits that the bound is reached, all of it is
    dropped and counted in `lost`, for the reader to be told; from then until it is told nothing is kept for it.
    """

    def __init__(self, families: frozenset[str]) -> None:
        self.families = families
        self.lost: Counter[str] = Counter()  # by family, since the reader was last told
        self.dropped_poses = 0
        self._poses: deque[bytes] = deque()
        self._rest: deque[tuple[str, bytes]] = deque()
        self._pose_bytes = self._rest_bytes = 0

    def __bool__(self) -> bool:
        """Whether there is anything to send, a gap to tell included."""
        return bool(self._rest or self._poses or self.lost)

    def put(self, family: str, chunk: bytes) -> None:
        """Keeps one written event for the reader, if it asked for this family."""
        if family not in self.families:
            return
        if family == "pose":
            self._put_pose(chunk)
        elif self.lost:
            self.lost[family] += 1
        else:
            self._rest.append((family, chunk))
            self._rest_bytes += len(chunk)
            if len(self._rest) > MOST_WAITING or self._rest_bytes > MOST_WAITING_BYTES:
                self.lost.update(name for name, _ in self._rest)
                self._rest.clear()
                self._rest_bytes = 0

    def lose(self, families: Counter[str]) -> None:
        """Messages that never came this far were lost for this reader as well."""
        self.lost.update({name: count for name, count in families.items() if name in self.families})

    def take(self) -> bytes:
        """The next bytes to send, empty where nothing waits. Not to be asked while `lost` is untold."""
        chunks, size = [], 0
        while self._rest and size < _AT_ONCE:
            _, chunk = self._rest.popleft()
            self._rest_bytes -= len(chunk)
            chunks.append(chunk)
            size += len(chunk)
        while self._poses and not self._rest and size < _AT_ONCE:
            chunk = self._poses.popleft()
            self._pose_bytes -= len(chunk)
            chunks.append(chunk)
            size += len(chunk)
        return b"".join(chunks)

    def told(self) -> Counter[str]:
        """What was lost, by family; from here on messages are kept again."""
        lost, self.lost = self.lost, Counter()
        return lost

    def _put_pose(self, chunk: bytes) -> None:
        self._poses.append(chunk)
        self._pose_bytes += len(chunk)
        while len(self._poses) > MOST_POSES or (self._pose_bytes > MOST_POSE_BYTES and len(self._poses) > 1):
            self._pose_bytes -= len(self._poses.popleft())
            self.dropped_poses += 1
