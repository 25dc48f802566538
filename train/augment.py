"""Batched augmentation of windows in NumPy, aimed at what other sensors and other places change.

All take and give joints (N, T, V, 3) in metres and Kinect axes, root-relative; N windows, T frames, V joints.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from realtime.skeleton import CORE_16, Layout

_LIMB_ENDS = tuple(
    CORE_16.index(name)
    for name in ("head", *(f"{s}_{j}" for s in ("left", "right") for j in ("elbow", "wrist", "knee", "ankle")))
)


def mirror(joints: np.ndarray, layout: Layout = CORE_16) -> np.ndarray:
    """The mirrored person: left and right joints swapped, x negated. Twice is the identity."""
    return joints[..., list(layout.mirror()), :] * np.array([-1.0, 1.0, 1.0], np.float32)


def rotation(yaw: np.ndarray, pitch: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """Rotation matrices (N, 3, 3): yaw about y, then pitch about x, then roll about z; radians."""
    matrices = []
    for angle, (a, b) in ((yaw, (2, 0)), (pitch, (1, 2)), (roll, (0, 1))):
        matrix = np.zeros((len(angle), 3, 3), np.float32)
        matrix[:, [0, 1, 2], [0, 1, 2]] = 1.0
        matrix[:, a, a] = matrix[:, b, b] = np.cos(angle)
        matrix[:, a, b], matrix[:, b, a] = -np.sin(angle), np.sin(angle)
        matrices.append(matrix)
    return matrices[2] @ matrices[1] @ matrices[0]


def _smooth_noise(rng: Generator, shape: tuple[int, ...], knots: int) -> np.ndarray:
    """Unit noise (N, T, ...) that changes slowly: linear between random knots along axis 1."""
    n, t, *rest = shape
    values = rng.standard_normal((n, knots, *rest), dtype=np.float32)
    at = np.linspace(0, knots - 1, t)
    low = np.minimum(at.astype(int), knots - 2)
    part = (at - low).astype(np.float32).reshape(1, t, *([1] * len(rest)))
    return values[:, low] * (1 - part) + values[:, low + 1] * part


def drop_joints(joints: np.ndarray, rng: Generator, share: float, hold: int = 5) -> np.ndarray:
    """In a share of the windows one limb end is missing for a while: held for `hold` frames, then on its parent."""
    n, t = joints.shape[:2]
    out = joints.copy()
    for i in np.flatnonzero(rng.random(n) < share):
        joint = int(rng.choice(_LIMB_ENDS))
        start = int(rng.integers(0, t - 1))
        stop = start + int(rng.integers(2, t))
        out[i, start : min(start + hold, stop), joint] = out[i, start, joint]
        out[i, start + hold : stop, joint] = out[i, start + hold : stop, CORE_16.parents[joint]]
        for child in (c for p, c in CORE_16.bones if p == joint):
            out[i, start : min(start + hold, stop), child] = out[i, start, child]
            out[i, start + hold : stop, child] = out[i, start + hold : stop, joint]
    return out


def augment(joints: np.ndarray, rng: Generator, strength: float = 1.0) -> np.ndarray:
    """One random view, sensor and body for each window; `strength` scales every range, 0 changes nothing.

    In order: any heading; the depth axis squeezed and disturbed slowly (a monocular depth estimate); joints
    defined a few centimetres elsewhere; white noise; a camera that looks up, down or askew; missing limb ends.
    """
    if strength == 0:
        return joints
    return drop_joints(_seen_anew(joints, rng, strength), rng, 0.15 * strength)


def augment_pair(joints: np.ndarray, rng: Generator, strength: float = 1.0) -> np.ndarray:
    """The same for pairs (N, T, 2, V, 3): one view and sensor for both bodies, who also stand a little elsewhere.

    The partner's place is wrong by a few centimetres and drifts, as places told from pictures or by a sensor that is
    not metric are.
    """
    n, t, m, v, _ = joints.shape
    if strength == 0:
        return joints
    out = joints.copy()
    shift = strength * (rng.normal(0, 0.06, (n, 1, 3)) + 0.04 * _smooth_noise(rng, (n, t, 3), max(3, t // 10)))
    out[:, :, 1] += (shift * (1.0, 0.3, 1.0))[:, :, None].astype(np.float32)
    out = _seen_anew(out.reshape(n, t, m * v, 3), rng, strength).reshape(n, t, m, v, 3)
    bodies = [drop_joints(out[:, :, body], rng, 0.1 * strength) for body in range(m)]
    return np.stack(bodies, axis=2)


def _seen_anew(joints: np.ndarray, rng: Generator, strength: float) -> np.ndarray:
    """All of `augment` but the missing limb ends; joints (N, T, V, 3) may be those of several bodies together."""
    n, t, v, _ = joints.shape
    zero = np.zeros(n, np.float32)
    out = joints @ rotation(rng.uniform(-np.pi, np.pi, n), zero, zero).transpose(0, 2, 1)[:, None]
    estimated = rng.random((n, 1, 1)) < 0.5  # half of the windows come from a "monocular" sensor
    out[..., 2] *= np.where(estimated, 1 + strength * rng.uniform(-0.35, 0.15, (n, 1, 1)), 1.0)
    wobble = strength * rng.uniform(0, 0.05, (n, 1, 1)) * _smooth_noise(rng, (n, t, v), max(3, t // 10))
    out[..., 2] += np.where(estimated, wobble, 0.0)
    out += strength * rng.uniform(0, 0.03, (n, 1, 1, 1)) * rng.standard_normal((n, 1, v, 3))
    out += strength * rng.uniform(0, 0.012, (n, 1, 1, 1)) * rng.standard_normal((n, t, v, 3))
    turn = rotation(zero, *(strength * rng.normal(0, np.radians(d), n) for d in (10.0, 5.0)))
    out = out @ turn.transpose(0, 2, 1)[:, None]
    return out.astype(np.float32)
