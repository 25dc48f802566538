"""How a person moves: for each action, smooth curves of the figure's channels over time (see puppet.py).

All curves are our own, written from what people do and checked for height, lean, cadence and duration against
public Kinect recordings; no recording is copied. Letters: T frames, C channels.
Each action starts and ends in the posture it was given (sit_down and stand_up change it), so actions can follow
one another in any order without a jump.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from realtime.generator.gait import jog, walk
from realtime.generator.gestures import clap, wave
from realtime.generator.keyframes import Key, Scene, Take, both, curve, handed, mirrored
from realtime.generator.puppet import COLUMN

_SEATED = {"pelvis_y": -0.33, "pelvis_z": -0.42, "lean": 0.0, "chest": 0.02}
_LAP = {"wrist_x": 0.02, "wrist_y": -0.80, "wrist_z": 0.40, "elbow_x": 0.6, "elbow_y": -0.3, "elbow_z": -0.8}


def seated(rest: np.ndarray) -> np.ndarray:
    """The sitting posture (C,) of a person with this standing posture (C,), hands on the thighs."""
    row = rest.copy()
    for name, value in {**_SEATED, **both(**_LAP, foot_z=0.02, knee_out=0.12)}.items():
        row[COLUMN[name]] = value
    return row


def _repeat(
    scene: Scene, keys: Sequence[Key], seconds: float, end: np.ndarray | None = None, on: np.ndarray | None = None
) -> Take:
    """Plays keyed postures as often as they fit the scene, each a little different.

    keys: (fraction of one repetition, channels changed from the base or `on`). seconds: the natural length of one.
    end: the posture (C,) it ends in where that is not the base; then it is played once.
    """
    seconds = seconds / scene.style.speed
    count = max(1, round(scene.duration_s / (1.15 * seconds))) if end is None else 1
    slot = scene.duration_s / count
    length = min(slot, 1.2 * seconds)
    knots: list[tuple[float, np.ndarray]] = [(0.0, scene.base)]
    for turn in range(count):
        begin = turn * slot + scene.rng.uniform(0.25, 0.75) * (slot - length)
        size = scene.style.amplitude * scene.rng.normal(1.0, 0.10)
        early = scene.rng.normal(0.0, 0.02)  # what comes before the middle of a repetition may take longer or shorter
        knots.append((begin, scene.base))
        for fraction, change in keys:
            at = fraction + early * 4 * fraction * (1 - fraction)
            knots.append((begin + at * length, scene.changed(change, size, on)))
        knots.append((begin + length, scene.base if end is None else end))
    knots.append((scene.duration_s, knots[-1][1]))
    return Take(curve(knots, scene.t))


def throw(scene: Scene) -> Take:
    """Overarm: the hand back behind the ear, forward past the head, down across the body, with a short step."""
    step = scene.rng.uniform(0.0, 0.28)
    foot = {"left_foot_z": step, "pelvis_z": 0.45 * step, "pelvis_y": -0.12 * step}
    lift = {"left_foot_y": 0.25 * step, "left_foot_z": 0.5 * step, "pelvis_z": -0.1 * step}
    land = {"left_foot_z": 0.5 * step, "left_foot_y": 0.12 * step}
    # The elbow swings under the line from shoulder to wrist; where it would lie on that line, it could flip over.
    keys = [
        (0.20, {**_arm(0.55, -0.25, 0.12), **_elbow(0.5, -0.2, -0.9), "twist": -0.22, "left_wrist_z": 0.15}),
        (0.40, {**_arm(0.42, 0.42, -0.34), **_elbow(0.7, -0.6, 0.2), "twist": -0.50, "lean": -0.04, **lift,
                "left_wrist_z": 0.32, "left_wrist_y": -0.85}),
        (0.49, {**_arm(0.36, 0.60, -0.26), **_elbow(0.8, -0.5, 0.2), "twist": -0.42, "left_wrist_z": 0.28, **foot}),
        (0.575, {**_arm(0.16, 0.66, 0.55), **_elbow(1.0, -0.3, 0.0), "twist": 0.12, "lean": 0.12, **foot}),
        (0.64, {**_arm(-0.15, 0.10, 0.93), **_elbow(0.9, -0.4, -0.1), "twist": 0.38, "lean": 0.20, **foot}),
        (0.74, {**_arm(-0.42, -0.52, 0.60), **_elbow(0.9, -0.4, -0.3), "twist": 0.42, "lean": 0.22, **foot}),
        (0.86, {**_arm(0.0, -0.82, 0.30), **_elbow(0.7, -0.3, -0.6), "twist": 0.15, **land}),
    ]  # fmt: skip
    return _repeat(scene, [(at, handed(scene, change)) for at, change in keys], 2.1)


def _arm(x: float, y: float, z: float) -> dict[str, float]:
    return {"right_wrist_x": x, "right_wrist_y": y, "right_wrist_z": z}


def _elbow(x: float, y: float, z: float) -> dict[str, float]:
    return {"right_elbow_x": x, "right_elbow_y": y, "right_elbow_z": z}


def push(scene: Scene) -> Take:
    """From the chest straight forward, one hand or ("both") two."""
    elbow = {"right_elbow_x": 0.7, "right_elbow_y": -0.8, "right_elbow_z": -0.3}
    keys = [
        (0.28, {**_arm(0.05, -0.24, 0.26), **elbow, "twist": -0.10}),
        (0.40, {**_arm(0.02, -0.10, 0.26), **elbow, "twist": -0.12, "lean": 0.02}),
        (0.56, {**_arm(0.0, 0.02, 0.96), **elbow, "twist": 0.20, "lean": 0.12, "right_flex": -0.7}),
        (0.66, {**_arm(0.0, 0.02, 0.97), **elbow, "twist": 0.20, "lean": 0.13, "right_flex": -0.7}),
        (0.84, {**_arm(0.08, -0.65, 0.45), "twist": 0.05}),
    ]
    if scene.variant == "both":
        keys = [(at, {**change, **mirrored(change), "twist": 0.0}) for at, change in keys]
        return _repeat(scene, keys, 1.9)
    return _repeat(scene, [(at, handed(scene, change)) for at, change in keys], 1.9)


def kick(scene: Scene) -> Take:
    """One leg back, then forward to about knee height, the arms keeping the balance."""
    base = {"pelvis_x": -0.09, "roll": -0.03, "left_wrist_z": 0.25, "right_wrist_z": -0.12}
    keys = [
        (0.18, {"pelvis_x": -0.09, "right_foot_y": 0.05, "right_foot_z": -0.06}),
        (0.34, {**base, "right_foot_y": 0.20, "right_foot_z": -0.34, "right_toe": -0.6, "lean": 0.14}),
        (0.50, {**base, "right_foot_y": 0.32, "right_foot_z": 0.62, "lean": -0.08, "twist": 0.15, "right_toe": 0.5}),
        (0.58, {**base, "right_foot_y": 0.46, "right_foot_z": 0.78, "lean": -0.14, "twist": 0.18, "right_toe": 0.6}),
        (0.76, {"pelvis_x": -0.07, "right_foot_y": 0.16, "right_foot_z": 0.22, "lean": 0.02}),
    ]
    return _repeat(scene, [(at, handed(scene, change)) for at, change in keys], 1.7)


def squat(scene: Scene) -> Take:
    """Hips down and back, arms stretched forward, and up again."""
    deep = scene.rng.uniform(0.85, 1.1)
    fore = both(wrist_x=-0.05, wrist_y=-0.02, wrist_z=0.93, elbow_x=0.5, elbow_y=-0.9, elbow_z=0.0)
    low = {"pelvis_y": -0.42 * deep, "pelvis_z": -0.20 * deep, "lean": 0.38 * deep, "nod": -0.1, **both(knee_out=0.25)}
    keys = [(0.20, {**fore, "pelvis_y": -0.06, "lean": 0.08}), (0.46, {**fore, **low}), (0.54, {**fore, **low}),
            (0.80, {**fore, "pelvis_y": -0.05, "lean": 0.08})]  # fmt: skip
    return _repeat(scene, keys, 2.9)


def pick_up(scene: Scene) -> Take:
    """Down to the floor, stooping or crouching over a forward foot, a grip, and up with the thing at the waist."""
    crouch = float(np.clip(scene.rng.normal(0.30, 0.35), 0.0, 1.0))
    stride = scene.rng.uniform(0.08, 0.40)
    down = {
        "pelvis_y": -0.04 - 0.44 * crouch,
        "pelvis_z": 0.5 * stride - 0.10,
        "lean": scene.rng.normal(1.08, 0.14) - 0.22 * crouch,
        "chest": 0.30,
        "twist": 0.18,
        "left_foot_z": stride,
        "right_foot_z": -0.3 * stride,
        "right_foot_y": 0.25 * stride,
        "left_knee_out": 0.2 * crouch,
        "right_knee_out": 0.2 * crouch,
        **_arm(-0.05, -0.93, 0.20 - 0.15 * (1 - crouch)),
        **_other_arm(scene),
    }
    held = {**_arm(0.04, -0.74, 0.32), "right_elbow_y": -0.3, "lean": 0.10, "nod": 0.2}
    half = {name: 0.5 * value for name, value in down.items() if "wrist" not in name and "elbow" not in name}
    keys = [(0.18, {**half, **_arm(0.05, -0.9, 0.18), "left_foot_y": 0.2 * stride}), (0.40, down), (0.45, down),
            (0.64, {**half, **_arm(0.0, -0.84, 0.25)}), (0.78, held), (0.86, held)]  # fmt: skip
    if scene.variant == "both":
        keys = [(at, {**change, **_copied(change), "twist": 0.0}) for at, change in keys]
    return _repeat(scene, [(at, handed(scene, change)) for at, change in keys], 2.7)


def _other_arm(scene: Scene) -> dict[str, float]:
    """Where the left arm is while the right one reaches down: hanging, on the knee, or out behind for balance."""
    ways = [(0.10, -0.93, -0.05, 0.5), (0.08, -0.60, 0.42, 0.9), (0.20, -0.76, -0.42, 0.6)]
    x, y, z, out = ways[scene.rng.choice(3, p=(0.4, 0.2, 0.4))]
    return {"left_wrist_x": x, "left_wrist_y": y, "left_wrist_z": z, "left_elbow_x": out}


def _copied(change: Mapping[str, float]) -> dict[str, float]:
    """The right arm's channels, for the left arm too."""
    parts = ("right_wrist", "right_elbow")
    return {name.replace("right_", "left_"): value for name, value in change.items() if name.startswith(parts)}


def _hands_aside(scene: Scene) -> dict[str, float]:
    """Where the hands are while the body bends over the feet: trailing behind, by the seat, or on the knees."""
    ways = [(0.10, -0.88, -0.28), (0.14, -0.80, -0.10), (0.0, -0.74, 0.34)]
    x, y, z = ways[scene.rng.choice(3, p=(0.5, 0.3, 0.2))]
    return both(wrist_x=x, wrist_y=y, wrist_z=z, elbow_x=0.7, elbow_y=0.0, elbow_z=-0.8)


def sit_down(scene: Scene) -> Take:
    """Lean forward, hips back and down onto the seat, upright again; the hands end on the thighs."""
    hands, bend = _hands_aside(scene), scene.rng.normal(0.68, 0.13)
    keys = [
        (0.22, {"lean": 0.4 * bend, "pelvis_z": -0.10, "pelvis_y": -0.02, "nod": 0.2, **both(wrist_y=-0.94)}),
        (0.48, {"lean": bend, "pelvis_z": -0.28, "pelvis_y": -0.15, "chest": 0.08, **hands}),
        (0.70, {"lean": 0.8 * bend, "pelvis_z": -0.40, "pelvis_y": -0.32, "chest": 0.06, **hands}),
        (0.84, {"lean": 0.3 * bend, "pelvis_z": -0.42, "pelvis_y": -0.33, **both(wrist_y=-0.88, wrist_z=0.2)}),
    ]
    return _repeat(scene, keys, 1.9, end=scene.seat)


def stand_up(scene: Scene) -> Take:
    """Lean forward until the weight is over the feet, then hips forward and up."""
    hands, bend = _hands_aside(scene), scene.rng.normal(0.66, 0.13)
    keys = [
        (0.26, {"lean": bend, "pelvis_z": -0.39, "pelvis_y": -0.32, "chest": 0.08, **hands}),
        (0.50, {"lean": 0.9 * bend, "pelvis_z": -0.24, "pelvis_y": -0.14, "chest": 0.05, **hands}),
        (0.76, {"lean": 0.25 * bend, "pelvis_z": -0.06, "pelvis_y": -0.01, **both(wrist_y=-0.95)}),
    ]
    return _repeat(scene, keys, 1.9, end=scene.rest, on=scene.rest)


def raise_arms(scene: Scene) -> Take:
    """Both arms out to the sides and overhead, and down."""
    out = both(wrist_x=0.92, wrist_y=0.10, wrist_z=0.12, elbow_x=0.3, elbow_y=-0.6, elbow_z=-0.6)
    top = both(wrist_x=0.18, wrist_y=0.93, wrist_z=0.12, elbow_x=0.9, elbow_y=0.0, elbow_z=-0.4)
    return _repeat(scene, [(0.24, out), (0.44, top), (0.58, top), (0.78, out)], 3.2)


def bow(scene: Scene) -> Take:
    """Bend forward from the hips and come up."""
    low = {"lean": 0.85, "chest": 0.25, "pelvis_z": -0.16, **both(wrist_y=-0.92, wrist_z=0.2)}
    return _repeat(scene, [(0.38, low), (0.55, low)], 2.6)


def point(scene: Scene) -> Take:
    """One arm out to the front, held, and down."""
    out = {**_arm(0.15, 0.02, 0.96), "right_elbow_x": 0.6, "right_elbow_y": -0.8, "look": -0.1}
    half = {**_arm(0.25, -0.55, 0.62)}
    keys = [(0.16, half), (0.32, out), (0.68, out), (0.84, half)]
    return _repeat(scene, [(at, handed(scene, change)) for at, change in keys], 2.8)


def nothing(scene: Scene) -> Take:
    """Standing or sitting about: the weight from foot to foot, a look aside, a hand that shifts its place."""
    rng = scene.rng
    shift = [
        {"pelvis_x": 0.055, "roll": -0.03, "pelvis_y": -0.006},
        {"pelvis_x": -0.05, "roll": 0.03, "pelvis_y": -0.006},
        {"look": 0.5, "twist": 0.06},
        {"look": -0.5, "twist": -0.06},
        {"nod": 0.32},
        {"right_wrist_z": 0.2, "right_wrist_y": -0.9},
        both(wrist_x=-0.2, wrist_y=-0.82, wrist_z=0.26),
    ]
    if scene.is_seated:
        shift = [*shift[2:5], {"lean": 0.14}, {"right_wrist_z": 0.36}, {"left_wrist_x": -0.16}, {"lean": -0.04}]
    knots: list[tuple[float, np.ndarray]] = [(0.0, scene.base)]
    now = rng.uniform(0.3, 1.2)
    while now + 1.8 < scene.duration_s:
        row = scene.changed(shift[rng.integers(len(shift))], rng.uniform(0.6, 1.1))
        ramp, stay = rng.uniform(0.6, 1.0), rng.uniform(0.3, 1.6)
        stay = min(stay, max(0.0, scene.duration_s - now - 2 * ramp))
        knots += [(now, scene.base), (now + ramp, row), (now + ramp + stay, row), (now + 2 * ramp + stay, scene.base)]
        now += 2 * ramp + stay + rng.uniform(0.2, 1.4)
    knots.append((scene.duration_s, scene.base))
    return Take(curve([knot for knot in knots if knot[0] <= scene.duration_s], scene.t))


@dataclass(frozen=True)
class Action:
    """One action: how to move, its variants, the posture it needs, and the shortest it can take."""

    move: Callable[[Scene], Take]
    variants: tuple[str, ...] = ()
    start: str = "standing"  # standing, seated or any
    least_s: float = 1.5  # shorter, and a body would have to move faster than bodies do


_HANDS = ("right", "left")
ACTIONS: dict[str, Action] = {
    "nothing": Action(nothing, start="any", least_s=0.1),
    "wave": Action(wave, (*_HANDS, "both"), start="any", least_s=2.0),
    "walk": Action(walk, ("treadmill", "place", "across", "depth"), least_s=2.5),
    "jog": Action(jog, ("place", "treadmill"), least_s=2.0),
    "sit_down": Action(sit_down),
    "stand_up": Action(stand_up, start="seated"),
    "throw": Action(throw, _HANDS, least_s=2.0),
    "pick_up": Action(pick_up, (*_HANDS, "both"), least_s=2.0),
    "clap": Action(clap, start="any", least_s=1.5),
    "kick": Action(kick, _HANDS),
    "squat": Action(squat, least_s=1.8),
    "push": Action(push, (*_HANDS, "both")),
    "point": Action(point, _HANDS),
    "raise_arms": Action(raise_arms, least_s=2.0),
    "bow": Action(bow),
}
