"""What two people do together: a second model beside the first, fed with windows of pairs.

Each pair is scored twice, with either person as the actor. An action that both do (a handshake) is one event, of the
lower track number, by the mean of the two; of one that is done by one to the other (a kick) each order decides for
itself, so the event's track is who kicks and its partner who is kicked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from realtime.bundle import Bundle
from realtime.decoder import Decoder
from realtime.errors import BundleError
from realtime.pairs import PairWindows
from realtime.pipeline import ScoresWindows
from realtime.schema import SECOND_NS, EndReason, Event, Scores, Window

SILENT_NS = SECOND_NS  # a pair without windows for longer is none any more: its event ends as "timeout"


def check_pair_bundle(bundle: Bundle, beside: Bundle) -> None:
    """BundleError where a bundle is not of pairs, or its windows are not made of those of the bundle beside it."""
    if not bundle.of_pairs:
        raise BundleError(
            f"bundle {bundle.path} is for one person: give it as --bundle, and --interactions one of pairs"
        )
    for name in ("window", "fps"):
        own, theirs = getattr(bundle, name), getattr(beside, name)
        if own != theirs:
            raise BundleError(
                f"bundle {bundle.path} has a {name} of {own:g} and {beside.path} one of {theirs:g}; pairs are made of "
                f"the windows of single people: train one of them anew with --{name} of the other"
            )


def shares(probabilities: np.ndarray, classes: Sequence[str], nothing: str, directed: Sequence[str]) -> np.ndarray:
    """Probabilities (N, 2, K) of either order of N pairs -> what each order speaks for, (N, 2, K), summing to 1.

    Directed actions stay with their order. The others go to the first order, as the mean of both; the second has none
    of them. What is left is nothing's.
    """
    out = np.array(probabilities, np.float32)
    shared = [k for k, name in enumerate(classes) if name != nothing and name not in directed]
    none = list(classes).index(nothing)
    out[:, 0, shared], out[:, 1, shared] = probabilities[:, :, shared].mean(axis=1), 0
    out[:, :, none] = 0
    total = out.sum(axis=2)
    out[:, :, none] = np.maximum(1 - total, 0)
    return out / np.maximum(total, 1)[..., None]


class Interactions:
    """Pairs, the engine and the decoder of a bundle of two people, joined."""

    def __init__(self, bundle: Bundle, pairs: PairWindows, engine: ScoresWindows, decoder: Decoder) -> None:
        self._bundle, self._pairs, self._engine, self._decoder = bundle, pairs, engine, decoder

    def step(
        self, captured_ns: int, windows: Sequence[Window], lost: Sequence[int]
    ) -> tuple[list[Window], list[Event]]:
        """The windows of the pairs that are due with these of single people, and the events they bring about."""
        events = [event for track in lost for event in self._decoder.close(captured_ns, "track_lost", track)]
        made = self._pairs.of(windows)
        if made:
            events += self._decoder.decide(self._shared(self._engine.score(made)))
        return made, events + self._decoder.expire(captured_ns, SILENT_NS)

    def _shared(self, scores: list[Scores]) -> list[Scores]:
        """Scores of either order of each pair, one after the other, made to speak for different events."""
        bundle = self._bundle
        given = np.stack([one.probabilities for one in scores]).reshape(-1, 2, len(bundle.classes))
        said = shares(given, bundle.classes, bundle.nothing, bundle.directed).reshape(-1, len(bundle.classes))
        return [replace(one, probabilities=row) for one, row in zip(scores, said, strict=True)]

    @property
    def open_events(self) -> tuple[Event, ...]:
        """Events that have started and not ended."""
        return self._decoder.open

    @property
    def disabled(self) -> frozenset[str]:
        """The actions that do not start."""
        return self._decoder.disabled

    def enable(self, action: str) -> None:
        """Lets an action start again. ValueError where there is none of the name."""
        self._decoder.enable(action)

    def disable(self, action: str, captured_ns: int) -> list[Event]:
        """From now on the action does not start; the ends of what is open of it. ValueError as in `enable`."""
        return self._decoder.disable(action, captured_ns)

    def close(self, captured_ns: int, reason: EndReason) -> list[Event]:
        """Ends every open event."""
        return self._decoder.close(captured_ns, reason)
