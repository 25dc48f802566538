"""Two people in the training pool: who acts in a clip, and pairs that do nothing together.

Clips of two people give each order of actor and partner. What one does to the other is told of who does it, and the
other order is "nothing". Clips and recordings of single people are put side by side, as pairs that do nothing
together. R rows, T frames, M = 2 bodies, V joints.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.random import Generator

from realtime.features import PAIR_NORMALISATION, normalisation_of
from realtime.interactions import shares
from realtime.pairs import offline_pairs, swapped
from realtime.resample import resample, runs
from realtime.scoring import softmax
from realtime.skeleton import CORE_16, convert
from train.augment import rotation
from train.data.clip import Clip, Recording, cut
from train.pool import Pool, Unit
from train.vocabulary import DIRECTED, NOTHING, PAIR_CLASSES, action_of

ACTS_FROM = 0.85  # share of the other's reach (or way) from which one is said to act as well
PAIRS_A_SET = 400  # pairs put together of the people of one set
APART_M = (0.5, 2.3)  # how far from each other they are put
CLOSEST_M, DRIFT_M = 0.3, 0.6  # pairs that come nearer, or whose distance changes more, may look like an approach
LONGEST_S = 8.0
FACING_SHARE = 0.5  # of the pairs stand face to face, give or take FACING_DEG
FACING_DEG = 30.0
# Words in labels of what one does to somebody or something: of these none stands face to face with another.
AT_SOMEBODY = (
    *("kick", "punch", "push", "box", "throw", "hammer", "knock", "shoot"),
    *("swipe", "catch", "shaking", "hugging", "exchanging"),
)
_ENDS = {"kick_someone": ("left_ankle", "right_ankle")}
_HANDS = ("left_wrist", "right_wrist")


class PairPool(Pool):
    """Rows (R, 2, V, 3) float32 metres about the actor's root, and the units in them."""

    classes = PAIR_CLASSES

    def add(self, items: Iterable[Clip | Recording]) -> Pool:
        """Takes in clips of two people, and people of every set side by side. Returns the pool."""
        alone: dict[str, list[tuple[str, np.ndarray]]] = {}
        for item in items:
            if isinstance(item, Clip) and item.joints.shape[1] == 2:
                self._add_pair(item)
            # Also of clips of two: else the set itself, and not what its people do, would tell them from "nothing".
            alone.setdefault(item.data, []).extend(people_of(item, self.fps))
        for data, people in alone.items():
            rng = np.random.default_rng([len(people), len(data)])
            for rows in side_by_side(people, PAIRS_A_SET, self.fps, rng):
                self._unit(data, 0, rows)
        return self

    def _add_pair(self, clip: Clip) -> None:
        action = action_of(clip.data, clip.label, bodies=2)
        if action is None:
            return
        there = (clip.confidence > 0).any(axis=2).all(axis=1)  # both are there
        times = clip.times_ns[there]
        for run in runs(times):
            bodies = []
            for body in (0, 1):
                made = convert(clip.joints[there, body][run], clip.confidence[there, body][run], clip.layout, CORE_16)
                bodies.append(resample(times[run], *made, self.fps)[0])
            rows = np.stack(bodies, axis=1)  # (R, 2, V, 3)
            for order, acts in zip((rows, swapped(rows)), acting(rows, action), strict=True):
                self._unit(clip.data, self.classes.index(action) if acts else 0, order)

    def _unit(self, data: str, action: int, rows: np.ndarray) -> None:
        low, high = self._rows, self._rows + len(rows)
        self._of.clear()
        self._parts.append(rows - rows[:, :1, [CORE_16.root]])
        self._rows = high
        self.units.append(Unit(data, action, low, high, low, high, True))


def acting(rows: np.ndarray, action: str) -> tuple[bool, bool]:
    """Which of two people (R, 2, V, 3) does an action: both, where it is not directed.

    No file of SBU says so: who walks up to somebody or away walks further along the floor, who kicks reaches furthest
    towards the other with a foot, who pushes or punches with a hand. Both act where the lesser comes near the other.
    """
    if action not in DIRECTED:
        return True, True
    roots = rows[:, :, CORE_16.root]  # (R, 2, 3)
    if action in ("approach", "depart"):
        told = np.linalg.norm(np.ptp(roots[..., [0, 2]], axis=0), axis=1)  # (2,)
    else:
        ends = [CORE_16.index(name) for name in _ENDS.get(action, _HANDS)]
        towards = roots[:, ::-1] - roots
        towards = towards / np.maximum(np.linalg.norm(towards, axis=2, keepdims=True), 1e-6)
        reach = np.einsum("rmvi,rmi->rmv", rows[:, :, ends] - roots[:, :, None], towards)
        told = reach.max(axis=(0, 2))
    first, second = told >= ACTS_FROM * told.max()
    return bool(first), bool(second)


def people_of(item: Clip | Recording, fps: float) -> Iterator[tuple[str, np.ndarray]]:
    """(label, rows (R, V, 3)) of everybody in a clip or in a recording's pieces, where they really stood."""
    labelled = isinstance(item, Recording) and item.data != "synthetic"  # whose actions are known and harm nobody
    for clip in cut(item) if labelled else (item,):  # type: ignore[arg-type]
        for body in range(clip.joints.shape[1]):
            seen = (clip.confidence[:, body] > 0).any(axis=1)
            joints, confidence = convert(clip.joints[seen, body], clip.confidence[seen, body], clip.layout, CORE_16)
            times = clip.times_ns[seen]
            for run in runs(times):
                rows = resample(times[run], joints[run], confidence[run], fps)[0]
                if len(rows) >= fps:
                    yield (clip.label if isinstance(clip, Clip) else ""), rows


def side_by_side(people: list[tuple[str, np.ndarray]], count: int, fps: float, rng: Generator) -> Iterator[np.ndarray]:
    """At most `count` pairs (R, 2, V, 3) of people (label, rows) who have nothing to do with each other.

    Each is put somewhere near the other, turned any way; half of them face to face where none does what one does to
    somebody. Pairs whose distance changes much are left out.
    """
    if len(people) < 2:
        return
    for _ in range(count):
        chosen = [people[int(i)] for i in rng.choice(len(people), 2, replace=False)]
        length = min(*(len(rows) for _, rows in chosen), int(LONGEST_S * fps))
        facing = rng.random() < FACING_SHARE and not any(word in label for label, _ in chosen for word in AT_SOMEBODY)
        angle, apart = rng.uniform(-np.pi, np.pi), rng.uniform(*APART_M)
        way = np.array([np.cos(angle), 0.0, np.sin(angle)], np.float32)
        bodies = []
        for (_, rows), place, towards in zip(chosen, (0 * way, apart * way), (way, -way), strict=True):
            start = int(rng.integers(len(rows) - length + 1))
            bodies.append(_put(rows[start : start + length], place, towards if facing else None, rng))
        pair = np.stack(bodies, axis=1)
        between = np.linalg.norm((pair[:, 1] - pair[:, 0])[:, CORE_16.root][:, [0, 2]], axis=1)
        if between.min() >= CLOSEST_M and np.ptp(between) <= DRIFT_M:
            yield pair


def _put(rows: np.ndarray, place: np.ndarray, towards: np.ndarray | None, rng: Generator) -> np.ndarray:
    """A person (R, V, 3) who starts at a place (3,) on the floor, facing a direction (3,), or any way."""
    angle = rng.uniform(-np.pi, np.pi)
    if towards is not None:
        across = (rows[:, CORE_16.index("right_shoulder")] - rows[:, CORE_16.index("left_shoulder")]).mean(axis=0)
        right = np.array([-towards[2], 0.0, towards[0]])  # of somebody who faces that way
        angle = np.arctan2(right[0], right[2]) - np.arctan2(across[0], across[2])  # about y, which turns z towards x
        angle += np.radians(rng.uniform(-FACING_DEG, FACING_DEG))
    zero = np.zeros(1, np.float32)
    turned = rows @ rotation(np.array([angle]), zero, zero)[0].T
    floor = turned[..., 1].min(axis=1).mean()
    start = turned[0, CORE_16.root] * (1, 0, 1)
    return (turned - start + place - (0, floor, 0)).astype(np.float32)


def clip_pairs(clip: Clip, window: int, fps: float, since: float, stride: int) -> np.ndarray:
    """Windows (2 W, T, 2, V, 3) that a device would have seen of a clip of two, either order of each in turn.

    Every `stride` rows, the last at the clip's end, from when the share `since` of it was seen.
    """
    every = offline_pairs(clip.times_ns, clip.joints, clip.confidence, clip.layout, window, fps, 1, 1).joints
    last = len(every) - 1
    chosen = every[np.arange(last, min(last, int(since * last)) - 1, -stride)[::-1]]
    return np.stack([chosen, swapped(chosen)], axis=1).reshape(-1, *chosen.shape[1:])


def said(logits: np.ndarray, streams: tuple[str, ...], classes: Sequence[str]) -> np.ndarray:
    """Logits (N, K) as they are; of pairs, either order in turn, logits of what each order speaks for."""
    if normalisation_of(streams) != PAIR_NORMALISATION or not len(logits):
        return logits
    either = softmax(logits).reshape(-1, 2, len(classes))
    return np.log(np.maximum(shares(either, classes, NOTHING, DIRECTED), 1e-9)).reshape(-1, len(classes))
