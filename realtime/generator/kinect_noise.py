"""What a Kinect makes of true joints: jitter, flicker, guesses behind the body, and losses.

Letters: T frames, V = 25 joints of KINECT_V2_25.
"""

from __future__ import annotations

import numpy as np

from realtime.skeleton import KINECT_V2_25

_HANDS = tuple(f"{side}_{joint}" for side in ("left", "right") for joint in ("hand", "tip", "thumb"))
_FEET = ("left_foot", "right_foot", "left_ankle", "right_ankle")
_LIMBS = tuple(i for i, name in enumerate(KINECT_V2_25.joints) if name.startswith(("left_", "right_")))


def sense(joints: np.ndarray, rng: np.random.Generator, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """What a Kinect makes of true joints (T, V, 3): jitter, flicker, guesses and losses. Returns joints, confidence."""
    frames, count = joints.shape[:2]
    sigma = np.full(count, 0.005)
    for names, size in ((_HANDS, 0.011), (_FEET, 0.008)):
        sigma[[KINECT_V2_25.index(name) for name in names]] = size
    confidence = np.clip(rng.normal(0.96, 0.02, (frames, count)), 0.85, 1.0)
    hidden = _hidden(joints)
    confidence = np.where(hidden, rng.uniform(0.25, 0.5, (frames, count)), confidence)
    size = sigma * np.where(hidden, 2.5, 1.0)  # (T, V)
    slow = np.zeros_like(joints)
    step = rng.normal(size=joints.shape)
    keep = np.exp(-1.0 / (0.12 * fps))
    for frame in range(1, frames):
        slow[frame] = keep * slow[frame - 1] + np.sqrt(1 - keep**2) * step[frame]
    noisy = joints + size[..., None] * (0.7 * rng.normal(size=joints.shape) + 0.7 * slow)
    for joint in _LIMBS:
        for start in np.flatnonzero(rng.random(frames) < 0.10 / fps):  # about one flicker in ten seconds a joint
            stop = start + max(1, round(rng.uniform(0.03, 0.12) * fps))
            noisy[start:stop, joint] += rng.normal(0.0, 0.05, 3)
            confidence[start:stop, joint] = 0.0 if rng.random() < 0.3 else rng.uniform(0.2, 0.5)
    return noisy, confidence


def _hidden(joints: np.ndarray) -> np.ndarray:
    """(T, V) true where a limb's joint lies behind the trunk, seen from the sensor at the origin."""
    low, high = joints[:, :1], joints[:, KINECT_V2_25.index("shoulder_center")][:, None]  # (T, 1, 3)
    seen = [point[..., :2] / point[..., 2:] for point in (joints, low, high)]
    axis = seen[2] - seen[1]
    along = ((seen[0] - seen[1]) * axis).sum(-1) / np.maximum((axis**2).sum(-1), 1e-9)
    nearest = seen[1] + np.clip(along, 0.0, 1.0)[..., None] * axis
    trunk_depth = low[..., 2] + np.clip(along, 0.0, 1.0) * (high - low)[..., 2]
    aside = np.linalg.norm(seen[0] - nearest, axis=-1) * trunk_depth
    behind = (aside < 0.11) & (joints[..., 2] > trunk_depth + 0.08)
    behind[:, [i for i in range(joints.shape[1]) if i not in _LIMBS]] = False
    return behind
