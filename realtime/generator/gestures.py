"""Gestures that go on: a hand held up and swung, two hands that clap. Periodic curves of the figure's channels."""

from __future__ import annotations

import numpy as np

from realtime.generator.keyframes import Scene, Take, both, fade, handed
from realtime.generator.puppet import CHANNELS, COLUMN, posture

_VIA = {"right_wrist_x": 0.22, "right_wrist_z": 0.28}


def wave(scene: Scene) -> Take:
    """One hand up beside the head, swinging from side to side; "both": two arms in wide arcs."""
    style, rng = scene.style, scene.rng
    up = fade(scene.t, scene.duration_s, min(0.75 / style.speed, 0.3 * scene.duration_s))
    wide = scene.variant == "both"
    rate = style.speed * (rng.uniform(0.8, 1.1) if wide else rng.uniform(1.5, 2.1))
    swing = np.sin(2 * np.pi * rate * scene.t * (1 + 0.03 * np.sin(1.3 * scene.t)) + rng.uniform(0, 6.28))
    high = rng.uniform(0.0, 1.0)
    raised = {
        "right_wrist_x": 0.52 - 0.12 * high,
        "right_wrist_y": 0.50 + 0.18 * high,
        "right_wrist_z": 0.48 - 0.2 * high,
        "right_elbow_x": 0.75,
        "right_elbow_y": -0.65,
        "right_elbow_z": 0.1,
        "twist": 0.04,
        "look": 0.04,
    }
    reach = {"right_wrist_x": 0.30, "right_wrist_y": -0.07, "right_elbow_x": 0.12, "roll": 0.02, "right_flex": 0.12}
    if wide:
        raised = both(wrist_x=0.66, wrist_y=0.48, wrist_z=0.22, elbow_x=0.9, elbow_y=-0.5, elbow_z=-0.1)
        reach = both(wrist_x=0.33, wrist_y=-0.30, wrist_z=0.03)
    high_row = scene.changed(handed(scene, raised), 1.0) - scene.base
    swing_row = np.zeros(len(CHANNELS))
    for name, value in handed(scene, reach).items():
        swing_row[COLUMN[name]] = value * style.amplitude
    # The hand leaves the hip outwards and forwards, not through the trunk.
    via = np.zeros(len(CHANNELS))
    for name, value in handed(scene, both(wrist_x=0.25, wrist_z=0.25) if wide else _VIA).items():
        via[COLUMN[name]] = value
    arc = (4 * up * (1 - up))[:, None]
    hold = fade(scene.t, scene.duration_s, min(1.0 / style.speed, 0.36 * scene.duration_s)) ** 2
    rows = scene.base + up[:, None] * high_row + (hold * swing)[:, None] * swing_row + arc * via
    return Take(rows)


def clap(scene: Scene) -> Take:
    """Both hands before the chest, meeting two to three times a second."""
    style, rng = scene.style, scene.rng
    up = fade(scene.t, scene.duration_s, min(0.65 / style.speed, 0.3 * scene.duration_s))
    hold = fade(scene.t, scene.duration_s, min(0.9 / style.speed, 0.36 * scene.duration_s)) ** 2
    rate = style.speed * rng.uniform(1.9, 2.6)
    opened = 0.5 + 0.5 * np.sin(2 * np.pi * rate * scene.t + rng.uniform(0, 6.28))
    meet = both(wrist_x=-0.23, wrist_y=-0.30, wrist_z=0.50, elbow_x=0.7, elbow_y=-0.8, elbow_z=-0.25)
    open_ = np.zeros(len(CHANNELS))
    for name, value in both(wrist_x=0.34, wrist_y=0.02, wrist_z=-0.03).items():
        open_[COLUMN[name]] = value * style.amplitude
    via = posture(**both(wrist_x=0.13 + 0.15, wrist_z=0.06 + 0.12)) - posture()
    rows = scene.base + up[:, None] * (scene.changed(meet, 1.0) - scene.base)
    return Take(rows + (hold * opened)[:, None] * open_ + (4 * up * (1 - up))[:, None] * via)
