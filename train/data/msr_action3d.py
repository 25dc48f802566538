"""MSR-Action3D, the Real3D skeletons, at 15 frames a second: one text file a sequence, one joint a line.

Joints are published in camera space in metres with Kinect's axes, in an order of their own; checked: right
shoulder at the larger x in 99 % of frames, feet point to the front that the shoulders give in 98 %.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from realtime.errors import UsageError
from realtime.skeleton import KINECT_V1_20
from train.data.clip import Clip, checked, even_times
from train.data.files import find, table

DATA = "msr_action3d"
FPS = 15.0
LABELS = (
    "high_arm_wave",
    "horizontal_arm_wave",
    "hammer",
    "hand_catch",
    "forward_punch",
    "high_throw",
    "draw_x",
    "draw_tick",
    "draw_circle",
    "hand_clap",
    "two_hand_wave",
    "side_boxing",
    "bend",
    "forward_kick",
    "side_kick",
    "jogging",
    "tennis_swing",
    "tennis_serve",
    "golf_swing",
    "pick_up_and_throw",
)
_FILE_ORDER = (
    "left_shoulder",
    "right_shoulder",
    "shoulder_center",
    "spine",
    "left_hip",
    "right_hip",
    "hip_center",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hand",
    "right_hand",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
    "left_foot",
    "right_foot",
    "head",
)
_ORDER = [_FILE_ORDER.index(joint) for joint in KINECT_V1_20.joints]


def read(path: Path, subjects: Collection[int | str] | None = None) -> Iterator[Clip]:
    """The sequences `aXX_sXX_eXX_skeleton3D.txt` in or below a folder.

    Raises UsageError where there is none, or one is not as published.
    """
    expected = "MSR-Action3D skeletons such as a01_s01_e01_skeleton3D.txt"
    found = find(path, r"(a(\d+)_s(\d+)_e\d+)_skeleton3D\.txt", expected)
    wanted = [(file, m[1], int(m[2]), int(m[3])) for file, m in found if subjects is None or int(m[3]) in subjects]
    return (_clip(file, name, action, subject) for file, name, action, subject in wanted)


def _clip(file: Path, name: str, action: int, subject: int) -> Clip:
    if not 1 <= action <= len(LABELS):
        raise UsageError(f"{file}: the action in a name must be 1 to {len(LABELS)}, got {action}")
    rows = table(file, columns=4)  # x, y, z, confidence
    if len(rows) % len(KINECT_V1_20):
        raise UsageError(f"{file} line {len(rows)}: a frame is 20 lines, and the last one is cut off; unpack it again")
    frames = rows.reshape(-1, 1, len(KINECT_V1_20), 4)[:, :, _ORDER]  # (T, 1, V, 4)
    joints, confidence = checked(frames[..., :3], frames[..., 3])
    return Clip(DATA, name, subject, LABELS[action - 1], even_times(len(frames), FPS), joints, confidence, KINECT_V1_20)
