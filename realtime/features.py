"""What the network sees of a window: one canonical body, turned to face the sensor, as streams of channels.

The same code prepares the numbers in training and on the device. Everything here is made from bone
*directions*: each bone is laid at a canonical length, so the size and proportions of a person, and the way a
sensor measures them (MediaPipe's hips are 22 cm apart, Kinect's 13), do not reach the network. Where the
person is, and how the window as a whole is turned about the vertical, do not reach it either.

A window of a pair has two bodies, the actor first. Both are laid out so, but turned together, by the actor's heading;
a last stream says where the partner's own joints are, seen from the actor's root.
N windows, T frames, M = 2 bodies of a pair, V = 16 joints of CORE_16, C channels.
"""

from __future__ import annotations

import numpy as np

from realtime.skeleton import CORE_16

NORMALISATION = "canonical-body/1"
PAIR_NORMALISATION = "canonical-pair/1"
PAIR_STREAMS = ("partner_joint", "partner_bone", "partner_motion", "relation")  # only a pair has these
STREAM_CHANNELS = dict.fromkeys(("joint", "bone", "motion", *PAIR_STREAMS), 3)
REACH_OF_RELATION_M = 3.0  # the relation stream is cut here: further away it makes no difference
MOTION_GAIN = 5.0  # metres per row are small numbers; this brings the motion stream to the others' size
_TINY = 1e-6

# joint: (the joint it hangs on, direction from, direction to, metres). Trunk and hips are taken as one bone
# each, because Kinect v1 puts the spine 7 cm from the hip centre, where 1 cm of noise turns everything above.
_CHAIN: dict[str, tuple[str, str, str, float]] = {
    "spine": ("hip_center", "hip_center", "shoulder_center", 0.25),
    "shoulder_center": ("hip_center", "hip_center", "shoulder_center", 0.50),
    "head": ("shoulder_center", "shoulder_center", "head", 0.24),
    "left_hip": ("hip_center", "right_hip", "left_hip", 0.10),
    "right_hip": ("hip_center", "left_hip", "right_hip", 0.10),
    **{
        f"{side}_{joint}": (anchor.format(side), start.format(side), f"{side}_{joint}", length)
        for side in ("left", "right")
        for joint, anchor, start, length in (
            ("shoulder", "shoulder_center", "shoulder_center", 0.18),
            ("elbow", "{}_shoulder", "{}_shoulder", 0.28),
            ("wrist", "{}_elbow", "{}_elbow", 0.25),
            ("knee", "{}_hip", "{}_hip", 0.42),
            ("ankle", "{}_knee", "{}_knee", 0.40),
        )
    },
}
_ORDER = [joint for joint in CORE_16.joints if joint in _CHAIN]
_CHILD = np.array([CORE_16.index(joint) for joint in _ORDER])
_START = np.array([CORE_16.index(_CHAIN[joint][1]) for joint in _ORDER])
_END = np.array([CORE_16.index(_CHAIN[joint][2]) for joint in _ORDER])
_LENGTH = np.array([_CHAIN[joint][3] for joint in _ORDER], np.float32)
_LEFT = np.array([CORE_16.index("left_hip"), CORE_16.index("left_shoulder")])
_RIGHT = np.array([CORE_16.index("right_hip"), CORE_16.index("right_shoulder")])


def _chain_matrix() -> np.ndarray:
    """(V, B) matrix of zeros and ones: the bones whose vectors add up to each joint's position."""
    rows = np.zeros((len(CORE_16), len(_ORDER)), np.float32)
    for joint in CORE_16.joints:
        at = joint
        while at in _CHAIN:
            rows[CORE_16.index(joint), _ORDER.index(at)] = 1.0
            at = _CHAIN[at][0]
    return rows


_SUM = _chain_matrix()
_PARENT = np.array(CORE_16.parents)


def channels(streams: tuple[str, ...]) -> int:
    """Number of channels that `features` gives for these streams; ValueError names an unknown one."""
    unknown = [stream for stream in streams if stream not in STREAM_CHANNELS]
    if unknown or not streams:
        raise ValueError(f"streams must be some of {', '.join(STREAM_CHANNELS)}, got {streams}")
    return sum(STREAM_CHANNELS[stream] for stream in streams)


def normalisation_of(streams: tuple[str, ...]) -> str:
    """The normalisation that these streams belong to: a pair's as soon as one of them needs a partner."""
    return PAIR_NORMALISATION if set(streams) & set(PAIR_STREAMS) else NORMALISATION


def canonical(joints: np.ndarray) -> np.ndarray:
    """The canonical body's joints (N, T, V, 3), root at the origin, from joints (N, T, V, 3) of CORE_16.

    Kinect axes. The window is turned about the vertical so that the body's right, averaged over the window,
    points to +x. A bone of no length (a missing joint placed on its parent) stays of no length.
    """
    if joints.ndim != 4 or joints.shape[2:] != (len(CORE_16), 3):
        raise ValueError(f"features need joints (N, T, {len(CORE_16)}, 3), got {joints.shape}")
    return _laid(joints, _heading(joints))


def canonical_pair(joints: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Actor's and partner's canonical bodies and the relation, (N, T, V, 3) each, from joints (N, T, 2, V, 3).

    All three are turned by the actor's heading. relation: the partner's joints as they are, from the actor's root of
    the same row, in metres, cut at REACH_OF_RELATION_M along each axis.
    """
    if joints.ndim != 5 or joints.shape[2:] != (2, len(CORE_16), 3):
        raise ValueError(f"features of a pair need joints (N, T, 2, {len(CORE_16)}, 3), got {joints.shape}")
    actor, partner = joints[:, :, 0], joints[:, :, 1]
    turn = _heading(actor)
    relation = (partner - actor[:, :, [CORE_16.root]]) @ turn.transpose(0, 2, 1)[:, None]
    relation = np.clip(relation, -REACH_OF_RELATION_M, REACH_OF_RELATION_M).astype(np.float32)
    return _laid(actor, turn), _laid(partner, turn), relation


def _heading(joints: np.ndarray) -> np.ndarray:
    """(N, 3, 3) float32 turns about the vertical that bring the body's right, averaged over the window, to +x."""
    across = (joints[:, :, _RIGHT] - joints[:, :, _LEFT]).sum(axis=(1, 2))  # (N, 3)
    norm = np.maximum(np.hypot(across[:, 0], across[:, 2]), _TINY)
    cos, sin = across[:, 0] / norm, across[:, 2] / norm
    cos = np.where(norm > _TINY, cos, 1.0)  # a window that says nothing of its heading is left as it is
    turn = np.zeros((len(joints), 3, 3), np.float32)
    turn[:, 0, 0], turn[:, 0, 2], turn[:, 1, 1], turn[:, 2, 0], turn[:, 2, 2] = cos, sin, 1.0, -sin, cos
    return turn


def _laid(joints: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Joints (N, T, V, 3) with each bone at its canonical length, turned, the root at the origin."""
    bones = joints[:, :, _END] - joints[:, :, _START]  # (N, T, B, 3)
    size = np.sqrt(np.einsum("ntbi,ntbi->ntb", bones, bones))
    bones = bones * (_LENGTH / np.maximum(size, _TINY))[..., None]
    turned = bones @ turn.transpose(0, 2, 1)[:, None]  # (N, T, B, 3)
    return (_SUM @ turned).astype(np.float32)


def features(joints: np.ndarray, confidence: np.ndarray, streams: tuple[str, ...]) -> np.ndarray:
    """Network input (N, C, T, V) float32 from joints (N, T, V, 3) metres and confidence (N, T, V).

    Streams, in the order given, 3 channels each: joint (canonical positions in metres), bone (joint minus its
    parent), motion (next row minus this one, times MOTION_GAIN; the last row is zero). For a pair, joints
    (N, T, 2, V, 3) and confidence (N, T, 2, V), also the partner's three and relation (see `canonical_pair`).
    `confidence` fixes the shape only: how missing joints are filled is the window's rule. Non-finite input, and
    streams that do not go with the number of bodies, raise ValueError.
    """
    if confidence.shape != joints.shape[:-1]:
        raise ValueError(f"confidence must be {joints.shape[:-1]}, got {confidence.shape}")
    if not np.isfinite(joints).all():
        raise ValueError("features got a non-finite joint position; the source or the window let it through")
    width, pair = channels(streams), normalisation_of(streams) == PAIR_NORMALISATION
    if pair != (joints.ndim == 5):
        raise ValueError(
            f"streams {', '.join(streams)} need {'two bodies' if pair else 'one body'}, got {joints.shape}"
        )
    bodies: tuple[np.ndarray, ...] = canonical_pair(joints) if pair else (canonical(joints),)
    out = np.zeros((*bodies[0].shape[:3], width), np.float32)
    for i, stream in enumerate(streams):
        part, body = out[..., 3 * i : 3 * i + 3], bodies[stream.startswith("partner_")]
        kind = stream.removeprefix("partner_")
        if kind == "joint":
            part[:] = body
        elif kind == "bone":
            part[:] = body - body[:, :, _PARENT]
        elif kind == "motion":
            part[:, :-1] = MOTION_GAIN * (body[:, 1:] - body[:, :-1])
        else:
            part[:] = bodies[2]
    return np.ascontiguousarray(out.transpose(0, 3, 1, 2))
