"""What a motion is played on: the scene one action gets, the take it gives, and smooth curves through postures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from realtime.generator.puppet import COLUMN

Key = tuple[float, Mapping[str, float]]
_LOOSE = {"wrist": 0.035, "elbow": 0.12}  # how far a repeated posture strays, by the part of the limb
_MIDLINE_FLIPS = ("pelvis_x", "roll", "twist", "look", "hip_turn")  # change sign in a mirror; sides swap names


@dataclass(frozen=True)
class Style:
    """How one person moves. speed and amplitude are factors around 1; hand is "right" or "left"."""

    speed: float
    amplitude: float
    hand: str


@dataclass(frozen=True)
class Scene:
    """What an action is played with. t: (T,) seconds from the start of the action.

    base: (C,) posture to start from. rest, seat: (C,) this person's standing and sitting posture.
    side: the hand or foot to use. leg_m: leg length, which turns strides into metres.
    """

    t: np.ndarray  # (T,)
    duration_s: float
    base: np.ndarray  # (C,)
    rest: np.ndarray  # (C,)
    seat: np.ndarray  # (C,)
    is_seated: bool
    style: Style
    side: str
    variant: str
    leg_m: float
    rng: np.random.Generator

    def changed(self, change: Mapping[str, float], size: float = 1.0, on: np.ndarray | None = None) -> np.ndarray:
        """The base posture (or `on`) with some channels set, a little differently every time.

        What the trunk does scales with size, what the limbs do by a third of that: a hand that has to meet
        something still meets it.
        """
        row = (self.base if on is None else on).copy()
        for name, value in change.items():
            limb = name.startswith(("right_", "left_"))
            loose = self.rng.normal(0.0, _LOOSE.get(name.split("_")[1] if limb else "", 0.0))
            row[COLUMN[name]] = value * (1.0 + 0.35 * (size - 1.0) if limb else size) + loose
        return row


@dataclass(frozen=True)
class Take:
    """The channels (T, C) of an action, and where the person went: (T, 2) metres right and forward of the start."""

    channels: np.ndarray  # (T, C)
    path: np.ndarray | None = None  # (T, 2)


def mirrored(change: Mapping[str, float]) -> dict[str, float]:
    """The same change done with the other side of the body."""
    swap = {"right": "left", "left": "right"}
    result = {}
    for name, value in change.items():
        side, _, rest = name.partition("_")
        result[f"{swap[side]}_{rest}" if side in swap else name] = -value if name in _MIDLINE_FLIPS else value
    return result


def both(**channels: float) -> dict[str, float]:
    """Channels without a side, set for right and left."""
    return {f"{side}_{name}": value for side in ("right", "left") for name, value in channels.items()}


def handed(scene: Scene, change: Mapping[str, float]) -> dict[str, float]:
    """A change written for the right hand, mirrored for a left-handed scene."""
    return dict(change) if scene.side == "right" else mirrored(change)


def minimum_jerk(phase: np.ndarray) -> np.ndarray:
    """0 to 1 with no speed and no acceleration at both ends (Flash and Hogan 1985, eq. 3)."""
    p = np.clip(phase, 0.0, 1.0)
    return p**3 * (10.0 - 15.0 * p + 6.0 * p**2)


def fade(t: np.ndarray, duration_s: float, ramp_s: float) -> np.ndarray:
    """0 at both ends of a segment, 1 between, with minimum-jerk ramps of ramp_s seconds."""
    ramp = max(ramp_s, 1e-3)
    return minimum_jerk(t / ramp) * minimum_jerk((duration_s - t) / ramp)


def curve(knots: Sequence[tuple[float, np.ndarray]], t: np.ndarray) -> np.ndarray:
    """Smooth rows (T, C) through postures at times; rests where a channel turns, flows through where it goes on.

    Quintic pieces with no acceleration at the knots; slopes are the monotone ones of Fritsch and Carlson (1980), so
    nothing overshoots a key. Knots at the same or an earlier time than the one before are merged into it.
    """
    times = [knots[0][0]]
    rows = [knots[0][1]]
    for time, row in knots[1:]:
        if time - times[-1] > 1e-6:
            times.append(time)
            rows.append(row)
    x, y = np.array(times), np.array(rows)  # (P,), (P, C)
    if len(x) == 1:
        return np.repeat(y, len(t), axis=0)
    h = np.diff(x)[:, None]
    rise = np.diff(y, axis=0) / h  # (P-1, C)
    slope = np.zeros_like(y)
    first, second = rise[:-1], rise[1:]
    same = first * second > 0
    a, b = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
    mean = (a + b) / np.where(same, a / np.where(same, first, 1.0) + b / np.where(same, second, 1.0), 1.0)
    slope[1:-1] = np.where(same, mean, 0.0)
    piece = np.clip(np.searchsorted(x, t, side="right") - 1, 0, len(x) - 2)
    u = np.clip((t - x[piece]) / h[piece, 0], 0.0, 1.0)[:, None]
    blend = u**3 * (10.0 - 15.0 * u + 6.0 * u**2)
    leave = u - 6 * u**3 + 8 * u**4 - 3 * u**5
    arrive = -4 * u**3 + 7 * u**4 - 3 * u**5
    value = y[piece] * (1 - blend) + y[piece + 1] * blend
    return value + h[piece] * (leave * slope[piece] + arrive * slope[piece + 1])
