"""Joint layouts by name, and the linear maps between them.

A layout is a tree of named joints. `mapping(source, target)` is a matrix whose rows say which joints of the
source make each joint of the target; a row of zeros is a joint that the source does not have.
Joint orders: NTU RGB+D / Kinect v2 and Kinect v1 (Microsoft), Azure Kinect body tracking, BlazePose GHUM,
COCO keypoints, OpenNI as in the SBU data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np


@dataclass(frozen=True)
class Layout:
    """A named set of joints and the tree that joins them.

    parents[i] is the index of joint i's parent; the root is its own parent.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.joints) != len(self.parents):
            raise ValueError(f"{self.name}: {len(self.joints)} joints but {len(self.parents)} parents")

    def __len__(self) -> int:
        return len(self.joints)

    @property
    def root(self) -> int:
        """Index of the joint that is its own parent."""
        return next(i for i, parent in enumerate(self.parents) if i == parent)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(parent, child) index pairs, root left out."""
        return tuple((parent, child) for child, parent in enumerate(self.parents) if parent != child)

    def index(self, joint: str) -> int:
        """Position of a joint by name; ValueError names the layout and what it has."""
        try:
            return self.joints.index(joint)
        except ValueError:
            raise ValueError(f"layout {self.name} has no joint {joint!r}; it has {', '.join(self.joints)}") from None

    def mirror(self) -> tuple[int, ...]:
        """For each joint the index of its left/right counterpart (itself where it has none)."""
        swapped = {"left": "right", "right": "left"}
        partners = []
        for joint in self.joints:
            side, _, rest = joint.partition("_")
            partners.append(self.index(f"{swapped[side]}_{rest}") if side in swapped else self.joints.index(joint))
        return tuple(partners)

    def order(self) -> tuple[int, ...]:
        """Joint indices, parents before children."""
        done: list[int] = [self.root]
        while len(done) < len(self.joints):
            done += [i for i, parent in enumerate(self.parents) if parent in done and i not in done]
        return tuple(done)


def _layout(name: str, tree: str) -> Layout:
    """Builds a layout from lines 'joint<parent', in joint order; the root stands alone."""
    pairs = [entry.partition("<") for entry in tree.split()]
    joints = tuple(joint for joint, _, _ in pairs)
    parents = tuple(joints.index(parent) if parent else i for i, (_, _, parent) in enumerate(pairs))
    return Layout(name, joints, parents)


KINECT_V1_20 = _layout(
    "KINECT_V1_20",
    """hip_center spine<hip_center shoulder_center<spine head<shoulder_center
    left_shoulder<shoulder_center left_elbow<left_shoulder left_wrist<left_elbow left_hand<left_wrist
    right_shoulder<shoulder_center right_elbow<right_shoulder right_wrist<right_elbow right_hand<right_wrist
    left_hip<hip_center left_knee<left_hip left_ankle<left_knee left_foot<left_ankle
    right_hip<hip_center right_knee<right_hip right_ankle<right_knee right_foot<right_ankle""",
)
KINECT_V2_25 = _layout(
    "KINECT_V2_25",
    """hip_center spine<hip_center neck<shoulder_center head<neck
    left_shoulder<shoulder_center left_elbow<left_shoulder left_wrist<left_elbow left_hand<left_wrist
    right_shoulder<shoulder_center right_elbow<right_shoulder right_wrist<right_elbow right_hand<right_wrist
    left_hip<hip_center left_knee<left_hip left_ankle<left_knee left_foot<left_ankle
    right_hip<hip_center right_knee<right_hip right_ankle<right_knee right_foot<right_ankle
    shoulder_center<spine left_tip<left_hand left_thumb<left_wrist right_tip<right_hand right_thumb<right_wrist""",
)
AZURE_32 = _layout(
    "AZURE_32",
    """hip_center spine<hip_center shoulder_center<spine neck<shoulder_center
    left_clavicle<shoulder_center left_shoulder<left_clavicle left_elbow<left_shoulder left_wrist<left_elbow
    left_hand<left_wrist left_tip<left_hand left_thumb<left_wrist
    right_clavicle<shoulder_center right_shoulder<right_clavicle right_elbow<right_shoulder right_wrist<right_elbow
    right_hand<right_wrist right_tip<right_hand right_thumb<right_wrist
    left_hip<hip_center left_knee<left_hip left_ankle<left_knee left_foot<left_ankle
    right_hip<hip_center right_knee<right_hip right_ankle<right_knee right_foot<right_ankle
    head<neck nose<head left_eye<head left_ear<head right_eye<head right_ear<head""",
)
BLAZEPOSE_33 = _layout(
    "BLAZEPOSE_33",
    """nose left_eye_inner<nose left_eye<left_eye_inner left_eye_outer<left_eye
    right_eye_inner<nose right_eye<right_eye_inner right_eye_outer<right_eye
    left_ear<left_eye_outer right_ear<right_eye_outer left_mouth<nose right_mouth<nose
    left_shoulder<nose right_shoulder<nose left_elbow<left_shoulder right_elbow<right_shoulder
    left_wrist<left_elbow right_wrist<right_elbow left_pinky<left_wrist right_pinky<right_wrist
    left_index<left_wrist right_index<right_wrist left_thumb<left_wrist right_thumb<right_wrist
    left_hip<left_shoulder right_hip<right_shoulder left_knee<left_hip right_knee<right_hip
    left_ankle<left_knee right_ankle<right_knee left_heel<left_ankle right_heel<right_ankle
    left_foot<left_ankle right_foot<right_ankle""",
)
COCO_17 = _layout(
    "COCO_17",
    """nose left_eye<nose right_eye<nose left_ear<left_eye right_ear<right_eye
    left_shoulder<nose right_shoulder<nose left_elbow<left_shoulder right_elbow<right_shoulder
    left_wrist<left_elbow right_wrist<right_elbow left_hip<left_shoulder right_hip<right_shoulder
    left_knee<left_hip right_knee<right_hip left_ankle<left_knee right_ankle<right_knee""",
)
OPENNI_15 = _layout(
    "OPENNI_15",
    """head<neck neck<spine spine left_shoulder<neck left_elbow<left_shoulder left_hand<left_elbow
    right_shoulder<neck right_elbow<right_shoulder right_hand<right_elbow
    left_hip<spine left_knee<left_hip left_foot<left_knee right_hip<spine right_knee<right_hip right_foot<right_knee""",
)
CORE_16 = _layout(
    "CORE_16",
    """hip_center spine<hip_center shoulder_center<spine head<shoulder_center
    left_shoulder<shoulder_center left_elbow<left_shoulder left_wrist<left_elbow
    right_shoulder<shoulder_center right_elbow<right_shoulder right_wrist<right_elbow
    left_hip<hip_center left_knee<left_hip left_ankle<left_knee
    right_hip<hip_center right_knee<right_hip right_ankle<right_knee""",
)
LAYOUTS = {
    layout.name: layout for layout in (KINECT_V1_20, KINECT_V2_25, AZURE_32, BLAZEPOSE_33, COCO_17, OPENNI_15, CORE_16)
}

# A joint that a source lacks, as a weighted mean of joints it has. The first rule whose joints are all there wins;
# a joint of the same name always comes first. BlazePose weights: measured against Kinect v2 on one clip, rounded.
_RULES: dict[str, tuple[dict[str, float], ...]] = {
    "hip_center": ({"left_hip": 0.5, "right_hip": 0.5},),
    "shoulder_center": ({"neck": 1.0}, {"left_shoulder": 0.5, "right_shoulder": 0.5}),
    "spine": (
        {"hip_center": 0.43, "shoulder_center": 0.57},
        {"left_hip": 0.215, "right_hip": 0.215, "left_shoulder": 0.285, "right_shoulder": 0.285},
    ),
    "neck": (
        {"shoulder_center": 0.6, "head": 0.4},
        {"left_shoulder": 0.36, "right_shoulder": 0.36, "left_ear": 0.14, "right_ear": 0.14},
    ),
    "head": ({"left_ear": 0.5, "right_ear": 0.5},),
    **{
        f"{side}_{joint}": rules
        for side in ("left", "right")
        for joint, rules in {
            "wrist": ({f"{side}_elbow": 0.24, f"{side}_hand": 0.76},),
            "ankle": ({f"{side}_knee": 0.2, f"{side}_foot": 0.8},),
            "hand": (
                {f"{side}_wrist": 1 / 3, f"{side}_pinky": 1 / 3, f"{side}_index": 1 / 3},
                {f"{side}_wrist": 1.35, f"{side}_elbow": -0.35},
            ),
            "tip": ({f"{side}_pinky": 0.5, f"{side}_index": 0.5}, {f"{side}_wrist": 1.7, f"{side}_elbow": -0.7}),
            "thumb": ({f"{side}_hand": 1.0},),
        }.items()
    },
}
# Where both layouts name a joint alike but mean different points.
_EXCEPTIONS: dict[tuple[str, str], dict[str, dict[str, float]]] = {
    ("BLAZEPOSE_33", "KINECT_V2_25"): {
        f"{side}_foot": {f"{side}_ankle": 0.4, f"{side}_heel": 0.2, f"{side}_foot": 0.4} for side in ("left", "right")
    },
}


@cache
def mapping(source: Layout, target: Layout) -> np.ndarray:
    """Matrix (V_target, V_source) float32 that makes the target's joints from the source's.

    Each row sums to 1, or to 0 for a joint that the source cannot give. Read-only.
    """
    matrix = np.zeros((len(target), len(source)), np.float32)
    exceptions = _EXCEPTIONS.get((source.name, target.name), {})
    for row, joint in enumerate(target.joints):
        rules = ({joint: 1.0}, *_RULES.get(joint, ()))
        rule = exceptions.get(joint) or next((r for r in rules if all(name in source.joints for name in r)), {})
        for name, weight in rule.items():
            matrix[row, source.index(name)] = weight
    matrix.setflags(write=False)
    return matrix


def convert(
    joints: np.ndarray, confidence: np.ndarray, source: Layout, target: Layout
) -> tuple[np.ndarray, np.ndarray]:
    """Joints (..., V, 3) and confidence (..., V) of one layout in another.

    A made joint is as sure as the least sure joint it is made of; one that cannot be made has confidence 0
    and lies at the origin, for the window to place. Units and axes are untouched.
    """
    if joints.shape[-2:] != (len(source), 3) or confidence.shape != joints.shape[:-1]:
        raise ValueError(
            f"layout {source.name} needs joints (..., {len(source)}, 3) and confidence (..., {len(source)}), "
            f"got {joints.shape} and {confidence.shape}"
        )
    if source == target:
        return joints, confidence
    matrix = mapping(source, target)
    used = matrix != 0
    least = np.where(used, confidence[..., None, :], np.inf).min(axis=-1)  # (..., V_target)
    made = np.where(used.any(axis=1), least, 0.0).astype(np.float32)
    return (matrix @ joints).astype(np.float32), made
