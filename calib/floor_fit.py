"""Up and the floor's height, from bodies: three kinds of evidence, each with what it is worth, put together.

bodies   From ankles to head a person who stands is upright, but for a lean: heads are some 3 degrees in front of
         ankles. People who turn about show which part is lean and which is the camera; where all face one way, the
         lean is taken for the usual one, and the answer is less sure.
heads    The head of who walks about stays at one height.
feet     Planted feet stand on one plane. Heads and feet only where poses tell where bodies are; sensors bend space by
         some centimetres, so they say little unless people walk some metres.

All are robust: iteratively re-weighted least squares (Cauchy's weights) from the direction that most blocks share
(RANSAC, Fischler and Bolles 1981). Uncertainty: people's pieces drawn anew (bootstrap, Efron 1979) plus what no
amount of data mends. Tilts are 2 numbers, radians towards two level directions e (2, 3). B blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from calib.floor_bodies import Blocks, Bodies, Feet, planted_feet, unit, upright_blocks
from realtime.errors import UsageError

LEAN_DEG, LEAN_SPREAD_DEG = 2.8, 1.2  # ankles to head, forwards, of people who stand; and between people
SIDE_SPREAD_DEG = 0.7  # to the side
CONE_DEG = 15.0  # bodies that stand lie so near to up
OUTSIDE_DEG = 25.0  # who is straight and farther from it lies, or leans on something: left out
AGREE = 0.6  # of the upright blocks must share one direction
ALIKE = 4.0  # blocks that say the same thing: how a person stands changes over seconds
BODIES_DEG, GUESSED_DEG = 0.4, 1.0  # what no data mend in bodies seen by depth sensors, in pictures
BENT_M, GUESSED_M = 0.03, 0.10  # by how much places are wrong, of depth sensors, in pictures
ANKLE_M, HEIGHT_M = 0.085, 0.03  # an ankle joint above the floor, and how well that is known
DRAWS = 100  # of the bootstrap
PEOPLE = 4  # from so many on more people mend the lean no further
SEEN_S, UPRIGHT_S = 10.0, 6.0  # less is refused
WORST_DEG = 5.0  # and what is not known to so much (95 %)


@dataclass(frozen=True)
class Evidence:
    """What one kind of evidence says. tilt: (2,) radians from the joint up; within_deg: 95 %, the worse direction."""

    name: str
    off_deg: float
    within_deg: float


@dataclass(frozen=True)
class Found:
    """The floor. up: (3,) unit. Numbers within_*: 95 %. height_m: None where places of bodies are not known."""

    up: np.ndarray
    within_deg: float
    height_m: float | None
    height_within_m: float | None
    people: int
    seen_s: float
    upright_s: float
    share: float  # of the upright blocks, those that point this way
    one_way: float  # 0: people faced everywhere; 1: all faced one way
    evidence: tuple[Evidence, ...]
    why_no_height: str = ""
    standing: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))  # (N,) sightings that were used


@dataclass(frozen=True)
class _Tilt:
    """A tilt (2,) and its information matrix (2, 2), 1/rad²."""

    name: str
    tilt: np.ndarray
    information: np.ndarray


def find_floor(bodies: Bodies, seed: int = 0) -> Found:
    """Up and height from everybody seen. UsageError says what is lacking, each lack in its own words."""
    _need_people(bodies)
    blocks, feet = upright_blocks(bodies), planted_feet(bodies)
    _need_standing(bodies, blocks)
    rng = np.random.default_rng(seed)
    up, share = _consensus(blocks.axis, rng)
    if share < AGREE:
        raise UsageError(
            f"straight bodies point different ways (only {share:.0%} share one): the camera moved, or people lay; "
            "fasten it and let people walk and stand for a minute"
        )
    blocks = blocks.some(blocks.axis @ up > np.cos(np.radians(OUTSIDE_DEG)))
    placed = not bodies.centred
    bent = GUESSED_M if bodies.guessed_place else BENT_M
    for _ in range(4):
        tilts = _tilts(blocks, feet, up, placed, bent)
        up = _tilted(up, _joined(tilts)[0])
    tilts = _tilts(blocks, feet, up, placed, bent)
    covariance = _covariance(blocks, feet, up, placed, bent, tilts, bodies.guessed_place, rng)
    within = 2 * float(np.degrees(np.sqrt(np.linalg.eigvalsh(covariance).max())))
    if within > WORST_DEG:
        raise UsageError(
            f"up is known to no better than ±{within:.1f}°, worse than {WORST_DEG:.0f}°: let people stand upright and "
            "walk about for longer, facing different ways"
        )
    height, spread, why = _height(feet, up, covariance, bodies, rng)
    forward = np.cross(up, blocks.across)
    return Found(
        up, within, height, spread, len(np.unique(blocks.person)), bodies.seen_s, blocks.seconds, share,
        float(np.linalg.norm(forward.mean(axis=0))), _told(tilts), why, blocks.straight & _near(bodies, up),
    )  # fmt: skip


def _need_people(bodies: Bodies) -> None:
    if not len(bodies.times_s):
        raise UsageError(
            "nobody was seen: walk and stand where people will be, all of the body in view, for a minute, and try again"
        )
    if bodies.seen_s < SEEN_S:
        raise UsageError(
            f"people were seen for only {bodies.seen_s:.1f} s, {SEEN_S:.0f} are the least and 60 are good: "
            "walk and stand in view for longer"
        )


def _need_standing(bodies: Bodies, blocks: Blocks) -> None:
    if blocks.seconds >= UPRIGHT_S:
        return
    seen = f"people were seen for {bodies.seen_s:.0f} s"
    if bodies.legs_seen < 0.2:
        raise UsageError(
            f"{seen}, but knees and ankles hardly ever ({bodies.legs_seen:.0%}): step back, or turn the camera, until "
            "feet are in view"
        )
    raise UsageError(
        f"{seen}, but upright for only {blocks.seconds:.1f} s ({UPRIGHT_S:.0f} are the least): who sits, bends or "
        "squats does not show which way is up; stand and walk"
    )


def _consensus(axes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """The direction that most axes (B, 3) are near to, and the share of them that are."""
    tried = axes[rng.permutation(len(axes))[:300]]
    near = tried @ axes.T > np.cos(np.radians(CONE_DEG))  # (tries, B)
    best = near[int(near.sum(axis=1).argmax())]
    up = unit(np.median(axes[best], axis=0))
    return up, float((axes @ up > np.cos(np.radians(CONE_DEG))).mean())


def level_directions(up: np.ndarray) -> np.ndarray:
    """(2, 3) unit vectors e, level to up (3,) and to each other."""
    least = np.eye(3)[int(np.abs(up).argmin())]
    first = unit(np.cross(up, least))
    return np.stack((first, np.cross(up, first)))


def _tilted(up: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    return unit(up + tilt @ level_directions(up))


def _tilts(blocks: Blocks, feet: Feet, up: np.ndarray, placed: bool, bent: float) -> list[_Tilt]:
    """What each kind of evidence says about up, seen from `up`."""
    found = [_of_bodies(blocks, up)]
    if placed:
        found.append(_of_plane("heads", blocks.head, blocks.person, up, bent))
        if len(feet.ankle) >= 8:
            found.append(_of_plane("feet", feet.ankle, np.zeros(len(feet.ankle), int), up, bent))
    return found


def _weights(size: np.ndarray, least: float) -> tuple[np.ndarray, float]:
    """Cauchy's weights of residuals' sizes, and their scale by the median, at least `least`."""
    scale = max(1.2 * float(np.median(size)), least)
    return 1 / (1 + (size / scale) ** 2), scale


def _of_bodies(blocks: Blocks, up: np.ndarray) -> _Tilt:
    """Tilt from axes: axis = up + tilt + lean · forward + side · right, forward and right from the body itself."""
    e = level_directions(up)
    forward = unit(np.cross(up, blocks.across))
    right = np.cross(forward, up)
    seen = (blocks.axis / np.maximum(blocks.axis @ up, 0.3)[:, None]) @ e.T  # (B, 2)
    design = np.zeros((len(seen), 2, 4))
    design[:, 0, 0] = design[:, 1, 1] = 1
    design[:, :, 2], design[:, :, 3] = forward @ e.T, right @ e.T
    usual = np.array((0, 0, np.radians(LEAN_DEG), 0))
    prior = np.diag((0, 0, np.radians(LEAN_SPREAD_DEG) ** -2.0, np.radians(SIDE_SPREAD_DEG) ** -2.0))
    found = usual.copy()
    for _ in range(15):
        weights, scale = _weights(np.linalg.norm(seen - design @ found, axis=1), np.radians(1.5))
        by = weights / (ALIKE * scale**2)
        normal = np.einsum("b,bij,bik->jk", by, design, design) + prior
        found = np.linalg.solve(normal, np.einsum("b,bij,bi->j", by, design, seen) + prior @ usual)
    return _Tilt("bodies", found[:2], np.linalg.inv(np.linalg.inv(normal)[:2, :2]))


def _of_plane(name: str, places: np.ndarray, group: np.ndarray, up: np.ndarray, bent: float) -> _Tilt:
    """Tilt from places (B, 3) that are, within each group (B,), equally high; bent: the sensor's own error, metres."""
    _, group = np.unique(group, return_inverse=True)
    level, high = places @ level_directions(up).T, places @ up
    weights, tilt = np.ones(len(high)), np.zeros(2)
    for _ in range(15):
        total = np.maximum(np.bincount(group, weights), 1e-9)
        middle = np.stack([np.bincount(group, weights * column) / total for column in (*level.T, high)], axis=1)[group]
        x, y = level - middle[:, :2], high - middle[:, 2]
        normal = (x * weights[:, None]).T @ x
        # A trace of ridge: people who only stood say nothing, and then nothing is what comes out.
        tilt = -np.linalg.solve(normal + 1e-3 * np.eye(2), (x * weights[:, None]).T @ y)
        weights, scale = _weights(np.abs(y + x @ tilt), 0.01)
    spread = normal / max(weights.sum(), 1e-9)
    return _Tilt(name, tilt, spread / (bent**2 + ALIKE * scale**2 / max(weights.sum(), 1.0)))


def _joined(tilts: list[_Tilt]) -> tuple[np.ndarray, np.ndarray]:
    """The tilt that all evidence together speaks for, each by its information, and the information of all."""
    information = np.sum([one.information for one in tilts], axis=0)
    return np.linalg.solve(information, np.sum([one.information @ one.tilt for one in tilts], axis=0)), information


def _told(tilts: list[_Tilt]) -> tuple[Evidence, ...]:
    rows = []
    for one in tilts:
        spread = np.sqrt(1 / max(float(np.linalg.eigvalsh(one.information).min()), 1e-6))
        rows.append(Evidence(one.name, float(np.degrees(np.linalg.norm(one.tilt))), 2 * float(np.degrees(spread))))
    return tuple(rows)


def _covariance(
    blocks: Blocks, feet: Feet, up: np.ndarray, placed: bool, bent: float, tilts: list[_Tilt], guessed: bool,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """(2, 2) of up's tilt: pieces drawn anew, what the evidence is worth, its disagreement, and what no data mend."""
    pieces = np.unique(blocks.piece)
    drawn = []
    for _ in range(DRAWS):
        chosen = rng.choice(pieces, len(pieces))
        drawn.append(_joined(_tilts(_some(blocks, chosen), _some_feet(feet, rng), up, placed, bent))[0])
    joined, information = _joined(tilts)
    gaps = [float((one.tilt - joined) @ one.information @ (one.tilt - joined)) for one in tilts]
    disagree = max(sum(gaps) / max(2 * (len(tilts) - 1), 1), 1.0)
    lean = np.radians(LEAN_SPREAD_DEG) / np.sqrt(min(len(np.unique(blocks.person)), PEOPLE))
    faced = (unit(np.cross(up, blocks.across)) @ level_directions(up).T).mean(axis=0)
    stays = np.radians(GUESSED_DEG if guessed else BODIES_DEG)
    of_data = np.maximum(np.cov(np.array(drawn).T), 0) if len(pieces) < 3 else np.cov(np.array(drawn).T)
    return of_data + disagree * np.linalg.inv(information) / 4 + lean**2 * np.outer(faced, faced) + stays**2 * np.eye(2)


def _some(blocks: Blocks, chosen: np.ndarray) -> Blocks:
    """The blocks of the chosen pieces, as often as each was chosen."""
    order = np.argsort(blocks.piece, kind="stable")
    ordered = blocks.piece[order]
    low, high = np.searchsorted(ordered, chosen, "left"), np.searchsorted(ordered, chosen, "right")
    rows = np.concatenate([order[a:b] for a, b in zip(low, high, strict=True)])
    return blocks.some(rows)


def _some_feet(feet: Feet, rng: np.random.Generator) -> Feet:
    if not len(feet.ankle):
        return feet
    rows = rng.integers(len(feet.ankle), size=len(feet.ankle))
    return Feet(feet.person[rows], feet.piece[rows], feet.ankle[rows])


def _near(bodies: Bodies, up: np.ndarray) -> np.ndarray:
    """(N,) sightings whose trunk is near to up."""
    at = bodies.joints
    trunk = unit(at[:, 2] - at[:, 0])  # shoulder_center from hip_center
    return trunk @ up > np.cos(np.radians(2 * CONE_DEG))


def _height(
    feet: Feet, up: np.ndarray, covariance: np.ndarray, bodies: Bodies, rng: np.random.Generator
) -> tuple[float | None, float | None, str]:
    """The camera's height above the floor, how well it is known (95 %), and why it is not."""
    if bodies.centred:
        return None, None, "these poses hang at their hips, so where the floor is cannot be told"
    if len(feet.ankle) < 8:
        return None, None, "no foot stood still in view, so where the floor is cannot be told"
    below = -(feet.ankle @ up)  # metres below the camera
    height = _lowest(below)
    pieces = np.unique(feet.piece)
    drawn = []
    for _ in range(DRAWS):
        rows = np.isin(feet.piece, rng.choice(pieces, len(pieces)))
        drawn.append(_lowest(below[rows]))
    away = feet.ankle.mean(axis=0) @ level_directions(up).T  # a floor that tilts falls with distance
    stays = GUESSED_M * 2 if bodies.guessed_place else HEIGHT_M
    spread = np.sqrt(np.var(drawn) + away @ covariance @ away + stays**2)
    return height + ANKLE_M, 2 * float(spread), ""


def _lowest(below: np.ndarray) -> float:
    """Where planted ankles are: from the lower ones on, the middle of those within reach; a foot on a stool is none."""
    height = float(np.quantile(below, 0.6))
    for _ in range(15):
        weights = 1 / (1 + ((below - height) / 0.03) ** 2)
        height = float((weights * below).sum() / weights.sum())
    return height
