"""What a pose model finds in a camera's picture of generated people, faults included: noise, people hidden by others.

The faults are those seen in real footage: of somebody hidden the joints wander to the person in front, the whole body
is found on the person in front, both become one body between them, or nothing is found; and the detector takes a while
to find a body again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from realtime.generator.crowd import Crowd
from realtime.people import Body
from realtime.schema import SECOND_NS
from realtime.skeleton import KINECT_V2_25

WIDTH, HEIGHT, FOCAL = 1280, 720, 900.0  # pixels: a view of 71 degrees
LIMB_M, TRUNK_M = 0.07, 0.15  # how far a bone hides what is behind it
_BONES = np.array(KINECT_V2_25.bones)
_HIPS = [KINECT_V2_25.index(f"{side}_hip") for side in ("left", "right")]
_TRUNK = {"spine", "shoulder_center", "neck"}
_RADII_M = np.array([TRUNK_M if KINECT_V2_25.joints[child] in _TRUNK else LIMB_M for _, child in _BONES])
Fault = Literal["gone", "snaps", "merges"]
_FAULTS: tuple[Fault, ...] = ("gone", "snaps", "merges")


@dataclass(frozen=True)
class Faults:
    """How bad the pose model is. Lengths in body heights, shares in [0, 1], times in seconds."""

    wander: float = 0.012  # slow errors of a joint, as long as 0.15 s
    jitter: float = 0.008
    size: float = 0.04  # of the height's logarithm
    missed: float = 0.02  # frames in which somebody in full view is not found
    phantom: float = 0.01  # frames in which somebody is found where nobody is
    both: float = 0.2  # encounters in which the one in front is not found either
    again_s: float = 0.17  # at most this long until somebody hidden is found again


class Sighting(NamedTuple):
    """The bodies found in one frame, in no order, and who each is: one person, two merged into one, or nobody."""

    captured_ns: int
    bodies: tuple[Body, ...]
    truth: tuple[frozenset[int], ...]


class _Encounter(NamedTuple):
    """What goes wrong while one person hides another."""

    fault: Fault
    both: bool
    again_s: float
    share: float  # where between the two a merged body lies


def project(joints: np.ndarray) -> np.ndarray:
    """Pixels (..., 2) of places (..., 3) in Kinect camera space, by a pinhole camera that is not mirrored."""
    return np.stack(
        [WIDTH / 2 - FOCAL * joints[..., 0] / joints[..., 2], HEIGHT / 2 - FOCAL * joints[..., 1] / joints[..., 2]],
        axis=-1,
    )


def sightings(crowd: Crowd, seed: int, faults: Faults = Faults()) -> Iterator[Sighting]:
    """Frame by frame what is found of a crowd. Same seed, same faults."""
    eye = _Eye(crowd, np.random.default_rng([seed, 1]), faults)
    for row in range(len(crowd.times_ns)):
        yield eye.look(row)


class _Eye:
    """The camera and the pose model. Letters: P people, V joints."""

    def __init__(self, crowd: Crowd, rng: np.random.Generator, faults: Faults) -> None:
        self._crowd, self._rng, self._faults = crowd, rng, faults
        self._pixels = project(crowd.joints)  # (P, T, V, 2)
        people = len(crowd.joints)
        self._slow = np.zeros((people, len(KINECT_V2_25), 2))
        self._size = np.zeros(people)
        self._encounters: dict[int, _Encounter] = {}
        self._hidden_ns = np.full(people, -SECOND_NS)  # when each was last not to be found

    def look(self, row: int) -> Sighting:
        """What is found in one frame."""
        now_ns = int(self._crowd.times_ns[row])
        self._err(now_ns - int(self._crowd.times_ns[row - 1]) if row else SECOND_NS)
        depth = self._crowd.joints[:, row, KINECT_V2_25.root, 2]  # (P,)
        found: dict[int, tuple[Body, frozenset[int]]] = {}
        unseen: set[int] = set()
        for who in np.argsort(depth).tolist():
            body, covered, front = self._one(who, row, depth)
            inside = ((body.joints >= 0) & (body.joints < (WIDTH, HEIGHT))).all(axis=1).mean()
            if inside < 0.6 or self._rng.random() < self._faults.missed:
                continue
            truth = frozenset({who})
            if covered.mean() > 0.3 and front is not None:
                encounter = self._encounters.setdefault(who, self._meet())
                if covered.mean() > 0.6 or self._late(who, encounter, now_ns):
                    self._hide(who, front, encounter, found, unseen, now_ns, covered.mean() > 0.6)
                    continue
                body = self._drawn(body, covered, found.get(front), encounter)
            elif who in self._encounters:
                if self._late(who, self._encounters[who], now_ns):
                    continue
                if covered.mean() < 0.1:
                    del self._encounters[who]
            found[who] = body, truth
        seen = [pair for who, pair in found.items() if who not in unseen]
        if self._rng.random() < self._faults.phantom:
            seen.append((self._phantom(), frozenset()))
        order = self._rng.permutation(len(seen))
        return Sighting(now_ns, tuple(seen[i][0] for i in order), tuple(seen[i][1] for i in order))

    def _err(self, elapsed_ns: int) -> None:
        """Lets the slow errors wander on."""
        stay = float(np.exp(-elapsed_ns / (0.15 * SECOND_NS)))
        fresh = float(np.sqrt(1 - stay**2))
        self._slow = stay * self._slow + fresh * self._rng.normal(0, self._faults.wander, self._slow.shape)
        self._size = stay * self._size + fresh * self._rng.normal(0, self._faults.size, self._size.shape)

    def _one(self, who: int, row: int, depth: np.ndarray) -> tuple[Body, np.ndarray, int | None]:
        """Somebody as found in full view; which joints (V,) others hide, and who hides most of them."""
        pixels, height = self._pixels[who, row], FOCAL * float(self._crowd.heights[who] / depth[who])
        covers = {
            other: _covered(pixels, self._pixels[other, row], FOCAL / float(depth[other]))
            for other in range(len(depth))
            if depth[other] < depth[who]
        }
        covered = np.any(list(covers.values()), axis=0) if covers else np.zeros(len(pixels), bool)
        front = max(covers, key=lambda other: int(covers[other].sum()), default=None)
        noise = self._slow[who] + self._rng.normal(0, self._faults.jitter, pixels.shape)
        noise = noise * np.where(covered, 3.0, 1.0)[:, None]
        joints = pixels + height * noise
        confidence = np.where(covered, 0.4, 0.95) * self._rng.uniform(0.9, 1.0, len(pixels))
        size = height * float(np.exp(self._size[who] + self._rng.normal(0, self._faults.size / 2)))
        return Body(joints, confidence, joints[_HIPS].mean(axis=0), size, bool(covered.mean() < 0.4)), covered, front

    def _meet(self) -> _Encounter:
        rng = self._rng
        return _Encounter(
            _FAULTS[rng.integers(3)],
            bool(rng.random() < self._faults.both),
            float(rng.uniform(0, self._faults.again_s)),
            float(rng.uniform(0.2, 0.5)),
        )

    def _late(self, who: int, encounter: _Encounter, now_ns: int) -> bool:
        """Whether somebody who was hidden is not yet found again."""
        return now_ns - int(self._hidden_ns[who]) < encounter.again_s * SECOND_NS

    def _hide(
        self,
        who: int,
        front: int,
        encounter: _Encounter,
        found: dict[int, tuple[Body, frozenset[int]]],
        unseen: set[int],
        now_ns: int,
        hidden: bool,
    ) -> None:
        """Does to what is found in front what the encounter's fault is."""
        if hidden:
            self._hidden_ns[who] = now_ns
        if not hidden or front not in found:
            return
        before, truth = found[front]
        if encounter.both and self._rng.random() < 0.7:
            unseen.add(front)
        elif encounter.fault == "snaps":
            noise = self._rng.normal(0, self._faults.jitter * before.height, before.joints.shape)
            found[who] = self._moved(before, before.joints + noise), truth
        elif encounter.fault == "merges":
            at = int(np.searchsorted(self._crowd.times_ns, now_ns))
            mixed = before.joints + encounter.share * (self._pixels[who, at] - before.joints)
            found[front] = self._moved(before, mixed), truth | {who}

    def _drawn(
        self, body: Body, covered: np.ndarray, front: tuple[Body, frozenset[int]] | None, encounter: _Encounter
    ) -> Body:
        """Somebody half hidden: where the fault is to snap, hidden joints are found on the one in front."""
        if front is None or encounter.fault != "snaps":
            return body
        return self._moved(body, np.where(covered[:, None], front[0].joints, body.joints))

    @staticmethod
    def _moved(body: Body, joints: np.ndarray) -> Body:
        return body._replace(joints=joints, hips=joints[_HIPS].mean(axis=0))

    def _phantom(self) -> Body:
        """A body where nobody is, for one frame."""
        height = float(self._rng.uniform(200, 500))
        hips = self._rng.uniform((100, 200), (WIDTH - 100, HEIGHT - 200))
        joints = hips + height * self._rng.normal(0, 0.2, (len(KINECT_V2_25), 2))
        return Body(joints, np.full(len(joints), 0.6), hips, height)


def _covered(joints: np.ndarray, front: np.ndarray, pixels_per_m: float) -> np.ndarray:
    """Which joints (V,) at pixels (V, 2) lie behind the bones of a body in front."""
    begin, end = front[_BONES[:, 0]], front[_BONES[:, 1]]  # (B, 2)
    along = end - begin
    off = joints[:, None] - begin  # (V, B, 2)
    share = np.clip((off * along).sum(axis=2) / np.maximum((along**2).sum(axis=1), 1e-9), 0, 1)
    distance = np.linalg.norm(off - share[..., None] * along, axis=2)
    return np.asarray((distance < _RADII_M * pixels_per_m).any(axis=1))
