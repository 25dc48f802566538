"""How well ids were kept where it is known who is who."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from realtime.assignment import assign
from realtime.generator.sightings import Sighting
from realtime.schema import SECOND_NS
from realtime.track import TrackRules

LOST_NS = TrackRules().lost_after_s * SECOND_NS


@dataclass(frozen=True)
class Kept:
    """One scene's figures, or several scenes' added up.

    switches: times an id was given to another person than before. fragments: times a person got a further id.
    gaps: times a person was not found for longer than a track lives, so that a further id is right.
    sightings: of one person, not of two merged into one. named: those with an id. own: those whose id belongs mostly
    to that person. matched: those with the one id that the best pairing of ids and persons gives this person.
    identified: sightings with an id, phantoms among them.
    """

    scenes: int = 0
    switched_scenes: int = 0
    switches: int = 0
    fragments: int = 0
    gaps: int = 0
    sightings: int = 0
    named: int = 0
    own: int = 0
    matched: int = 0
    identified: int = 0

    def __add__(self, other: Kept) -> Kept:
        return Kept(*(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def purity(self) -> float:
        """Share of the named sightings whose id is mostly that person's."""
        return self.own / max(self.named, 1)

    @property
    def coverage(self) -> float:
        """Share of the sightings that have an id."""
        return self.named / max(self.sightings, 1)

    @property
    def idf1(self) -> float:
        """IDF1 (Ristani et al., 2016): 2 matched / (sightings + identified)."""
        return 2 * self.matched / max(self.sightings + self.identified, 1)


def judge(seen: Sequence[Sighting], ids: Sequence[Sequence[int | None]]) -> Kept:
    """Compares who was seen with the ids that were given, frame by frame and body by body."""
    owner: dict[int, int] = {}  # id -> the person it was last given to
    had: dict[int, set[int]] = {}  # person -> its ids
    counts: Counter[tuple[int, int]] = Counter()
    last: dict[int, int] = {}  # person -> when it was found
    switches = sightings = identified = gaps = 0
    for one, given in zip(seen, ids, strict=True):
        for who, number in zip(one.truth, given, strict=True):
            identified += number is not None and len(who) < 2
            if len(who) != 1:
                continue  # a body between two people is neither's
            (person,) = who
            sightings += 1
            gaps += one.captured_ns - last.get(person, one.captured_ns) > LOST_NS
            last[person] = one.captured_ns
            if number is None:
                continue
            counts[number, person] += 1
            switches += owner.get(number, person) != person
            owner[number] = person
            had.setdefault(person, set()).add(number)
    numbers, people = sorted(owner), sorted(had)
    table = np.array([[counts[number, person] for person in people] for number in numbers], float)
    table = table.reshape(len(numbers), len(people))
    pairs = assign(-table)
    return Kept(
        scenes=1,
        switched_scenes=int(switches > 0),
        switches=switches,
        fragments=sum(len(ids) - 1 for ids in had.values()),
        gaps=gaps,
        sightings=sightings,
        named=sum(counts.values()),
        own=int(table.max(axis=1).sum()) if len(numbers) else 0,
        matched=int(sum(table[row, column] for row, column in enumerate(pairs) if column is not None)),
        identified=identified,
    )
