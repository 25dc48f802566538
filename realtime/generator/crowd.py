"""Generated people who cross each other's way: several walkers before one camera, with known truth.

`SCENES` says who goes where; `crowd` plays one scene. What a pose model makes of it: sightings.py.
Letters: P people, T frames, V = 25 joints (KINECT_V2_25), Kinect camera space in metres.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from realtime.errors import UsageError
from realtime.generator.keyframes import curve
from realtime.generator.perform import perform
from realtime.schema import SECOND_NS
from realtime.skeleton import KINECT_V2_25

CAMERA_HEIGHT_M = 1.3
_ROOT, _FEET = KINECT_V2_25.root, [KINECT_V2_25.index(f"{side}_ankle") for side in ("left", "right")]
_STRIDE_M_S = 1.0  # from this speed on a person walks with full strides
Way = tuple[tuple[float, float, float], ...]  # (seconds, x, z) to pass through
Plan = tuple[Way, ...]


@dataclass(frozen=True)
class Crowd:
    """What happens. times_ns: (T,) from 0. joints: (P, T, 25, 3). heights: (P,) of the standing bodies, metres."""

    times_ns: np.ndarray  # (T,)
    joints: np.ndarray  # (P, T, V, 3)
    heights: np.ndarray  # (P,)


def _pass(rng: np.random.Generator) -> Plan:
    """Two people walk past each other, one clearly nearer."""
    return _through(rng, apart=rng.uniform(0.5, 1.5))


def _brush(rng: np.random.Generator) -> Plan:
    """Two people walk past each other at nearly the same distance from the camera: equally large in the picture."""
    return _through(rng, apart=rng.uniform(0.25, 0.45))


def _through(rng: np.random.Generator, apart: float) -> Plan:
    near = rng.uniform(2.7, 3.3)
    ends = (rng.uniform(3.0, 4.0), rng.uniform(3.0, 4.0))
    side = rng.choice([-1.0, 1.0])
    first = ((0.5, -2 * side, near), (0.5 + ends[0], 2 * side, near + rng.normal(0, 0.2)))
    second = ((0.5, 2 * side, near + apart), (0.5 + ends[1], -2 * side, near + apart + abs(rng.normal(0, 0.2))))
    return first, second


def _turn_back(rng: np.random.Generator) -> Plan:
    """Two people walk towards each other, stand before each other in the picture, and go back where they came from."""
    near, apart, stay = rng.uniform(2.7, 3.3), rng.uniform(0.3, 1.2), rng.uniform(0.0, 0.6)
    plan = []
    for side, z in ((-1.0, near), (1.0, near + apart)):
        meet = side * rng.uniform(-0.15, 0.15)
        plan.append(((0.5, 1.9 * side, z), (2.4, meet, z), (2.4 + stay, meet, z), (4.6 + stay, 1.9 * side, z)))
    return tuple(plan)


def _three(rng: np.random.Generator) -> Plan:
    """Three people at three distances, one against the other two, all in the middle at about the same time."""
    depths = rng.permutation([2.7, 3.4, 4.1]) + rng.normal(0, 0.1, 3)
    plan = []
    for side, z in zip((-1.0, 1.0, 1.0), depths, strict=True):
        begin = rng.uniform(0.3, 0.9)
        plan.append(((begin, -1.9 * side, float(z)), (begin + rng.uniform(3.2, 4.2), 1.9 * side, float(z))))
    return tuple(plan)


def _behind(rng: np.random.Generator) -> Plan:
    """One stands; another walks by in front."""
    x, z = rng.uniform(-0.5, 0.5), rng.uniform(3.3, 4.0)
    front = z - rng.uniform(0.5, 1.2)
    return ((0.0, x, z), (6.0, x, z)), ((0.5, -2.0, front), (0.5 + rng.uniform(3.0, 4.5), 2.0, front))


def _hidden(rng: np.random.Generator) -> Plan:
    """One stands; another stops in front, hides the first for a while, and goes on or back."""
    x, z, stay = rng.uniform(-0.4, 0.4), rng.uniform(3.5, 4.0), rng.uniform(0.2, 1.5)
    front = z - rng.uniform(0.8, 1.2)
    at, leaves = x * front / z, rng.choice([-2.0, 2.0])
    return ((0.0, x, z), (7.0, x, z)), (
        (0.5, -2.0, front),
        (2.2, at, front),
        (2.2 + stay, at, front),
        (5.2, leaves, front),
    )


def _overtake(rng: np.random.Generator) -> Plan:
    """Two people walk the same way; the quicker one passes the other."""
    near, apart, side = rng.uniform(2.7, 3.2), rng.uniform(0.4, 1.0), rng.choice([-1.0, 1.0])
    slow = ((0.3, -1.5 * side, near + apart), (5.5, 1.6 * side, near + apart))
    return slow, ((1.0, -2.1 * side, near), (1.0 + rng.uniform(3.2, 3.8), 2.1 * side, near))


def _around(rng: np.random.Generator) -> Plan:
    """Two people walk once round each other, as in a dance."""
    z, radius, turn, phase = rng.uniform(3.2, 3.7), rng.uniform(0.45, 0.7), rng.uniform(3.0, 4.5), rng.uniform(0, 6.28)
    spin = rng.choice([-1.0, 1.0])
    plan = []
    for half in (0.0, np.pi):
        angles = phase + half + spin * np.linspace(0, 2 * np.pi, 17)
        times = 0.5 + np.linspace(0, turn, 17)
        plan.append(
            tuple(
                (float(t), float(radius * np.cos(a)), float(z + radius * np.sin(a)))
                for t, a in zip(times, angles, strict=True)
            )
        )
    return tuple(plan)


def _relay(rng: np.random.Generator) -> Plan:
    """One walks out of the picture, and another comes in where the first went, a little later."""
    z, side, later = rng.uniform(3.0, 3.5), rng.choice([-1.0, 1.0]), rng.uniform(0.2, 1.5)
    out = ((0.3, -0.5 * side, z), (2.8, 2.9 * side, z), (3.9, 4.5 * side, z), (7.0, 4.5 * side, z))
    come = ((2.0 + later, 4.0 * side, z), (3.0 + later, 2.9 * side, z), (5.5 + later, -0.5 * side, z))
    return out, come


def _beside(rng: np.random.Generator) -> Plan:
    """Two people stand shoulder to shoulder."""
    z, gap = rng.uniform(3.0, 3.6), rng.uniform(0.45, 0.7)
    return ((0.0, -gap / 2, z), (6.0, -gap / 2, z)), ((0.0, gap / 2, z), (6.0, gap / 2, z + rng.normal(0, 0.15)))


SCENES: Mapping[str, Callable[[np.random.Generator], Plan]] = {
    "pass": _pass,
    "brush": _brush,
    "turn_back": _turn_back,
    "three": _three,
    "behind": _behind,
    "hidden": _hidden,
    "overtake": _overtake,
    "around": _around,
    "relay": _relay,
    "beside": _beside,
}


def crowd(scene: str, seed: int, fps: float = 30.0) -> Crowd:
    """Plays one of SCENES. The same seed gives the same people on the same ways at every frame rate.

    Raises UsageError for a scene that does not exist.
    """
    if scene not in SCENES:
        raise UsageError(f"no scene {scene!r}; scenes are {', '.join(SCENES)}")
    rng = np.random.default_rng([seed, list(SCENES).index(scene)])
    plan = SCENES[scene](rng)
    seconds = max(way[-1][0] for way in plan) + 0.5
    t = np.arange(round(seconds * fps)) / fps  # (T,)
    seeds = rng.integers(2**31, size=len(plan))
    people = [_walker(way, t, fps, int(own)) for way, own in zip(plan, seeds, strict=True)]
    joints = np.stack([joints for joints, _ in people])
    return Crowd(np.round(t * SECOND_NS).astype(np.int64), joints, np.array([height for _, height in people]))


def _walker(way: Way, t: np.ndarray, fps: float, seed: int) -> tuple[np.ndarray, float]:
    """Joints (T, V, 3) of one person on its way, and how tall it is."""
    seconds = float(len(t) / fps)
    walking = perform([("walk:treadmill", seconds)], seed=seed, fps=fps, noise=False)
    standing = perform([("nothing", seconds)], seed=seed, fps=fps, noise=False)  # the same person
    path = curve([(at, np.array(place)) for at, *place in way], t)  # (T, 2) x and z
    speed = np.gradient(path, 1 / fps, axis=0)
    stride = np.clip(np.linalg.norm(speed, axis=1) / _STRIDE_M_S, 0, 1)[:, None, None]
    # Two postures of one body, mixed: bones come out a little short on the way from one to the other.
    joints = stride * _upright(walking.joints) + (1 - stride) * _upright(standing.joints)
    towards = speed + np.array([0.0, -0.1])  # who stands faces the camera
    length = np.linalg.norm(towards, axis=1)
    sin, cos = -towards[:, 0] / length, -towards[:, 1] / length
    x, z = joints[..., 0] * cos[:, None] + joints[..., 2] * sin[:, None], joints[..., 2] * cos[:, None]
    z = z - joints[..., 0] * sin[:, None]
    placed = np.stack([x + path[:, :1], joints[..., 1] - CAMERA_HEIGHT_M, z + path[:, 1:]], axis=-1)
    return placed, walking.body.height


def _upright(joints: np.ndarray) -> np.ndarray:
    """Joints (T, V, 3) about the person's own vertical axis, feet on a floor at 0."""
    centred = joints.astype(float)
    centred[..., [0, 2]] -= centred[:, _ROOT : _ROOT + 1, [0, 2]]
    centred[..., 1] -= centred[:, _FEET, 1].min() - 0.07
    return centred
