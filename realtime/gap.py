"""What an `EventSubscriber` tells besides events and status: where it joined, what it missed, that nobody speaks."""

from __future__ import annotations

from dataclasses import dataclass

from realtime.messages import ActionEvent, Status


@dataclass(frozen=True, slots=True)
class Joined:
    """From here on every event is told, or said to be lost.

    session: of the publisher; None where it has published nothing yet. previous: the session before, where the
    publisher was started anew. statuses, events: the last status of each source and the newest message of each
    event that was open at this point; none with a new session, whose messages are told from its first one.
    snapshot: False where the publisher did not answer, so that neither is known.
    """

    session: str | None
    previous: str | None = None
    statuses: tuple[Status, ...] = ()
    events: tuple[ActionEvent, ...] = ()
    snapshot: bool = True


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages `first` to `last` (included) of a family did not come by themselves.

    recovered: how many of them were had again, all told before this; lost: how many are gone for good. last and lost
    are None where nobody knows how many there were: a session that broke off, and of which nothing is kept.
    """

    session: str
    family: str
    first: int
    last: int | None
    lost: int | None
    recovered: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing was heard for so long, not even a heartbeat: the line, or the way to it, is gone. Told once."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Refused:
    """Something came that is no message; reading goes on."""

    reason: str


class GapError(Exception):
    """A gap, where `on_gap` is "raise"; receiving may go on after it."""

    def __init__(self, gap: Gap) -> None:
        super().__init__(f"{gap.family} messages {gap.first} to {gap.last} of session {gap.session} were missed")
        self.gap = gap
