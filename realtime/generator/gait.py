"""Walking and jogging: periodic curves of the figure's channels, on the spot or along a path.

Phases after Perry, Gait Analysis (1992): stance some 60 % of a stride, the knee bending most early in swing, the
pelvis lowest when both feet are down, arms swinging against the legs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from realtime.generator.keyframes import Scene, Take, fade, minimum_jerk
from realtime.generator.puppet import COLUMN


@dataclass(frozen=True)
class Gait:
    """One way to go. Lengths in leg lengths, angles in radians, rate in strides (two steps) a second."""

    rate_hz: float
    step: float  # from one foot's contact to the other's
    stance: float  # share of the stride with the foot down
    lift: float  # highest ankle in swing
    heel: float  # where in swing it is highest, 0 to 1
    bob: float
    sink: float
    lean: float
    arm: float  # wrist swing to the front and back, in arm lengths
    elbow: float  # 0 hanging, 1 bent to a right angle
    turn: float


_WALK = Gait(0.93, 0.72, 0.60, 0.13, 0.30, 0.018, 0.030, 0.06, 0.42, 0.18, 0.09)
_PLACE = Gait(0.92, 0.05, 0.56, 0.11, 0.45, 0.008, 0.008, 0.03, 0.46, 0.08, 0.06)
_JOG = Gait(1.40, 0.40, 0.42, 0.26, 0.32, 0.035, 0.060, 0.12, 0.34, 0.95, 0.14)
_JOG_PLACE = Gait(1.38, 0.08, 0.44, 0.20, 0.45, 0.035, 0.050, 0.07, 0.28, 0.92, 0.08)


def walk(scene: Scene) -> Take:
    """Stays where it is ("treadmill"), marches on the spot ("place"), or goes out and back ("across", "depth")."""
    if scene.variant == "place":
        return _go(scene, _PLACE, None)
    side = scene.rng.choice([-1.0, 1.0])
    heading = {"treadmill": None, "across": side * np.pi / 2, "depth": side * np.pi}[scene.variant]
    return _go(scene, _WALK, heading)


def jog(scene: Scene) -> Take:
    """On the spot ("place"), or with full strides that go nowhere ("treadmill")."""
    return _go(scene, _JOG if scene.variant == "treadmill" else _JOG_PLACE, None)


def _go(scene: Scene, gait: Gait, heading: float | None) -> Take:
    style, t = scene.style, scene.t
    ramp = min(0.9, 0.3 * scene.duration_s)
    power = fade(t, scene.duration_s, ramp)  # (T,) 0 standing, 1 full stride
    yaw = np.zeros(len(t))
    if heading is not None:
        yaw, power = _out_and_back(scene, heading, power)
    rate = gait.rate_hz * style.speed * (0.75 + 0.25 * power)
    dt = np.gradient(t) if len(t) > 1 else np.ones(1)
    phase = scene.rng.choice([0.0, 0.5]) + np.cumsum(rate * dt) - rate[0] * dt[0]
    rows = np.repeat(scene.base[None], len(t), axis=0)
    size = power * style.amplitude
    for side, offset in (("right", 0.0), ("left", 0.5)):
        _foot(rows, side, (phase + offset) % 1.0, gait, size, power)
        _swing_arm(rows, side, (phase + offset) % 1.0, gait, size, power)
    beat = 2 * np.pi * phase
    add = rows.T  # (C, T) view
    add[COLUMN["pelvis_y"]] += -power * gait.sink - size * gait.bob * np.cos(2 * beat - 0.25)
    add[COLUMN["pelvis_x"]] += power * 0.026 * np.sin(beat + 0.3)
    add[COLUMN["lean"]] += power * (gait.lean - 0.02)
    add[COLUMN["hip_turn"]] += size * gait.turn * np.cos(beat)
    add[COLUMN["twist"]] += -size * gait.turn * 1.2 * np.cos(beat)
    add[COLUMN["roll"]] += size * 0.02 * np.sin(beat)
    add[COLUMN["yaw"]] += yaw
    if heading is None:
        return Take(rows)
    speed = 2 * gait.step * scene.leg_m * size * rate * dt  # metres a frame
    # Right of the start is +x; positive yaw turns to the left.
    path = np.cumsum(np.stack([-np.sin(yaw) * speed, np.cos(yaw) * speed], axis=-1), axis=0)
    return Take(rows, path - minimum_jerk(t / scene.duration_s)[:, None] * path[-1])


def _foot(rows: np.ndarray, side: str, phase: np.ndarray, gait: Gait, size: np.ndarray, power: np.ndarray) -> None:
    """One ankle: back at the body's speed while it is down, then up and forward. phase 0 is contact."""
    down = phase < gait.stance
    u = np.clip((phase - gait.stance) / (1 - gait.stance), 0.0, 1.0)
    travel = gait.step * 2 * gait.stance  # the body passes over a planted foot by this much
    stance_z = travel * (0.5 - phase / gait.stance)
    slope = -travel * (1 - gait.stance) / gait.stance  # leaves and lands with the ground's speed
    swing_z = travel * (u**2 * (3 - 2 * u) - 0.5) + slope * (u - 3 * u**2 + 2 * u**3)
    z = np.where(down, stance_z, swing_z)
    late = np.clip((phase - 0.6 * gait.stance) / (0.4 * gait.stance), 0.0, 1.0)
    roll_up = min(0.075, 0.14 * gait.step)  # the heel rises before the toes leave
    peak = np.where(
        u < gait.heel, np.sin(0.5 * np.pi * u / gait.heel), np.cos(0.5 * np.pi * (u - gait.heel) / (1 - gait.heel))
    )
    start = roll_up * late**2
    y = np.where(
        down, start, roll_up * (1 - u) ** 2 * (1 + 2 * u) + (gait.lift - 0.3 * roll_up) * np.maximum(peak, 0) ** 2
    )
    rows[:, COLUMN[f"{side}_foot_z"]] += size * z
    rows[:, COLUMN[f"{side}_foot_y"]] += np.sqrt(size) * y
    rows[:, COLUMN[f"{side}_toe"]] += power * np.where(
        down, 0.15 * (1 - phase / gait.stance) - 0.5 * late, 0.65 * u - 0.5
    )


def _swing_arm(rows: np.ndarray, side: str, phase: np.ndarray, gait: Gait, size: np.ndarray, power: np.ndarray) -> None:
    """One wrist: forward while the other leg is, that is back at this foot's contact."""
    swing = -np.cos(2 * np.pi * phase - 0.2)
    bent = gait.elbow * power * (1 + 0.25 * swing)
    forward = 0.5 * bent + size * gait.arm * swing
    rows[:, COLUMN[f"{side}_wrist_z"]] += forward
    rows[:, COLUMN[f"{side}_wrist_y"]] += 0.58 * bent + 0.35 * size * gait.arm * np.maximum(swing, 0) ** 2
    rows[:, COLUMN[f"{side}_wrist_x"]] += -0.10 * size * np.maximum(swing, 0) - 0.06 * bent
    rows[:, COLUMN[f"{side}_elbow_x"]] += 0.15 * bent


def _out_and_back(scene: Scene, heading: float, power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Facing (T,) and effort (T,) of laps out along heading, a turn, and back to where and how each began.

    A lap takes some five seconds, which keeps the walker within two metres of home, in the sensor's view.
    """
    lap = scene.duration_s / max(1, round(scene.duration_s / 5.0))
    t = scene.t % lap
    turn = min(1.1, 0.2 * lap)
    about = -np.sign(heading) * np.pi  # by way of the sensor
    yaw = heading * minimum_jerk(t / turn)
    yaw = yaw + about * minimum_jerk((t - 0.5 * lap + 0.5 * turn) / turn)
    yaw = yaw - (heading + about) * minimum_jerk((t - lap + turn) / turn)
    nearest = np.minimum(np.minimum(t, lap - t), np.abs(t - 0.5 * lap))  # seconds to the nearest turn
    return yaw, power * (1 - 0.55 * np.exp(-((nearest / (0.4 * turn)) ** 2)))
