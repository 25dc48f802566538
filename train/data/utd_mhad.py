"""UTD-MHAD skeletons, Kinect v1 at 30 frames a second: one MATLAB file a sequence.

Joints are published in Kinect camera space in metres, in an order of their own (`Skeleton_joint_order.txt`);
checked: right shoulder at the larger x in all frames, feet point to the sensor in 98 %.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import scipy.io
from scipy.io.matlab import MatReadError

from realtime.errors import UsageError
from realtime.skeleton import KINECT_V1_20
from train.data.clip import Clip, checked, even_times
from train.data.files import find

DATA = "utd_mhad"
# The set names a sensor of 30 frames a second, but at 30 people would jog at 1.9 strides a second and sit down 1.6
# times as fast as in the other sets: frames seem to have been dropped in recording. At 20 the motions agree.
FPS = 20.0
LABELS = (
    "swipe_left",
    "swipe_right",
    "wave",
    "clap",
    "throw",
    "arm_cross",
    "basketball_shoot",
    "draw_x",
    "draw_circle_cw",
    "draw_circle_ccw",
    "draw_triangle",
    "bowling",
    "boxing",
    "baseball_swing",
    "tennis_swing",
    "arm_curl",
    "tennis_serve",
    "push",
    "knock",
    "catch",
    "pickup_throw",
    "jog",
    "walk",
    "sit2stand",
    "stand2sit",
    "lunge",
    "squat",
)
_FILE_ORDER = (
    "head",
    "shoulder_center",
    "spine",
    "hip_center",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
    "left_hand",
    "right_shoulder",
    "right_elbow",
    "right_wrist",
    "right_hand",
    "left_hip",
    "left_knee",
    "left_ankle",
    "left_foot",
    "right_hip",
    "right_knee",
    "right_ankle",
    "right_foot",
)
_ORDER = [_FILE_ORDER.index(joint) for joint in KINECT_V1_20.joints]


def read(path: Path, subjects: Collection[int | str] | None = None) -> Iterator[Clip]:
    """The sequences `aA_sS_tT_skeleton.mat` in or below a folder.

    Raises UsageError where there is none, or one is not as published.
    """
    found = find(path, r"(a(\d+)_s(\d+)_t\d+)_skeleton\.mat", "UTD-MHAD skeletons such as a1_s1_t1_skeleton.mat")
    wanted = [(file, m[1], int(m[2]), int(m[3])) for file, m in found if subjects is None or int(m[3]) in subjects]
    return (_clip(file, name, action, subject) for file, name, action, subject in wanted)


def _clip(file: Path, name: str, action: int, subject: int) -> Clip:
    if not 1 <= action <= len(LABELS):
        raise UsageError(f"{file}: the action in a name must be 1 to {len(LABELS)}, got {action}")
    try:
        content = scipy.io.loadmat(file, variable_names=["d_skel"])["d_skel"]
        joints = np.asarray(content, np.float64)
    except (LookupError, NotImplementedError, MatReadError, OSError, TypeError, ValueError, zlib.error) as error:
        # a MATLAB file has no lines to name
        raise UsageError(f"{file}: not a MATLAB file that holds `d_skel`: {error}; unpack it again") from error
    if joints.ndim == 2:  # MATLAB drops the last axis of a sequence of one frame
        joints = joints[..., None]
    if joints.shape[:2] != (len(KINECT_V1_20), 3):
        raise UsageError(f"{file}: d_skel must be 20 x 3 x T, got {joints.shape}")
    joints = joints.transpose(2, 0, 1)[:, None, _ORDER]  # (T, 1, V, 3)
    return Clip(DATA, name, subject, LABELS[action - 1], even_times(len(joints), FPS), *checked(joints), KINECT_V1_20)
