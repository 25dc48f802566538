"""A jointed figure: body proportions, the channels that pose it, and forward kinematics to Kinect v2 joints.

Letters: T frames, V = 25 joints, C channels. The body frame has x to the person's right, y up, z backwards, so a
person with yaw 0 faces the sensor and the body frame's axes are the camera's (+x sensor's left, +y up, +z away).
Limb lengths: segment fractions of stature of Drillis and Contini (Winter, Biomechanics and Motor Control of Human
Movement, ch. 4), shortened where a Kinect joint lies inside the anatomical one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from realtime.skeleton import KINECT_V2_25

SIDES = ("right", "left")


@dataclass(frozen=True)
class Body:
    """Lengths of one person, in metres."""

    height: float = 1.74
    upper_arm: float = 0.292
    forearm: float = 0.252
    hand: float = 0.078
    thigh: float = 0.420
    shank: float = 0.418
    foot: float = 0.115
    ankle_height: float = 0.075
    shoulder_width: float = 0.345
    shoulder_drop: float = 0.055  # shoulder line below shoulder_center
    hip_width: float = 0.160
    hip_drop: float = 0.045  # hip joints below hip_center
    trunk: float = 0.500  # hip_center to shoulder_center
    neck: float = 0.085
    head: float = 0.130

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not 0.01 <= value <= 2.3:
                raise ValueError(f"body {item.name} must be in [0.01, 2.3] m, got {value}")

    @property
    def leg(self) -> float:
        """Hip joint to ankle with a straight knee, metres."""
        return self.thigh + self.shank

    @property
    def arm(self) -> float:
        """Shoulder to wrist with a straight elbow, metres."""
        return self.upper_arm + self.forearm

    @property
    def standing(self) -> float:
        """Height of hip_center above the floor of a person who stands at ease, metres."""
        return self.ankle_height + self.leg + self.hip_drop


def random_body(rng: np.random.Generator) -> Body:
    """A plausible adult: stature about 1.71 m +- 0.09, each limb within some 4 % of its share."""
    base = Body()
    height = float(np.clip(rng.normal(1.71, 0.09), 1.50, 1.95))
    scale = {item.name: height / base.height * rng.normal(1.0, 0.025) for item in fields(base)}
    scale["height"] = height / base.height
    return Body(**{name: float(getattr(base, name) * factor) for name, factor in scale.items()})


# One number each per frame. Lengths are fractions: of the leg for pelvis and feet, of the arm for wrists.
# pelvis_*: offset of hip_center from where it stands at ease (right, up, forward). *_wrist_*: the wrist from the
# shoulder, (outward, up, forward) of the upright person. *_elbow_*: where the elbow points, same axes.
# *_foot_*: the ankle from its place under the hip. Angles in radians, forward bend and turn to the left positive.
CHANNELS = (
    *("pelvis_x", "pelvis_y", "pelvis_z", "yaw", "lean", "roll", "twist", "chest", "nod", "look", "hip_turn"),
    *(f"{side}_{part}_{axis}" for side in SIDES for part in ("wrist", "elbow", "foot") for axis in "xyz"),
    *(f"{side}_{part}" for side in SIDES for part in ("toe", "knee_out", "flex")),
)
COLUMN = {name: i for i, name in enumerate(CHANNELS)}
REST = {
    **{f"{side}_wrist_{axis}": value for side in SIDES for axis, value in zip("xyz", (0.13, -0.96, 0.06), strict=True)},
    **{f"{side}_elbow_{axis}": value for side in SIDES for axis, value in zip("xyz", (0.45, -0.1, -1.0), strict=True)},
    **{f"{side}_foot_x": 0.03 for side in SIDES},
    **{f"{side}_foot_z": -0.04 for side in SIDES},  # sensors see the hips before the ankles
    "lean": 0.03,
    "nod": 0.06,
}


def posture(**channels: float) -> np.ndarray:
    """The channels (C,) of a person at rest, with some of them set; ValueError for a name that does not exist."""
    row = np.zeros(len(CHANNELS))
    for name, value in {**REST, **channels}.items():
        if name not in COLUMN:
            raise ValueError(f"no channel {name!r}; channels are {', '.join(CHANNELS)}")
        row[COLUMN[name]] = value
    return row


def _turn(axis: int, angle: np.ndarray) -> np.ndarray:
    """Right-handed rotations (T, 3, 3) about one axis by angle (T,)."""
    matrix = np.zeros((len(angle), 3, 3))
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix[:, axis, axis] = 1.0
    matrix[:, first, first] = matrix[:, second, second] = np.cos(angle)
    matrix[:, second, first] = np.sin(angle)
    matrix[:, first, second] = -np.sin(angle)
    return matrix


def _apply(matrix: np.ndarray, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    """A fixed vector turned by each of the matrices (T, 3, 3)."""
    return matrix @ np.array([x, y, z])


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-9)


def two_bones(
    start: np.ndarray, target: np.ndarray, pole: np.ndarray, first: float, second: float
) -> tuple[np.ndarray, np.ndarray]:
    """Middle and end (T, 3) of two bones from start towards target, bent towards pole; lengths are always kept.

    A target out of reach is approached softly, so that a straightening limb never jerks; one too near is held off.
    """
    line = target - start
    distance = np.linalg.norm(line, axis=-1)
    longest, knee = 0.999 * (first + second), 0.965 * (first + second)
    over = np.maximum(distance - knee, 0.0) / (longest - knee)
    reach = np.where(distance > knee, knee + (longest - knee) * np.tanh(over), distance)
    reach = np.maximum(reach, abs(first - second) + 0.18 * min(first, second))
    direction = _unit(line)
    side = _unit(pole - (pole * direction).sum(-1, keepdims=True) * direction)
    along = (first**2 - second**2 + reach**2) / (2.0 * reach)
    across = np.sqrt(np.maximum(first**2 - along**2, 0.0))
    return start + direction * along[:, None] + side * across[:, None], start + direction * reach[:, None]


@dataclass(frozen=True)
class _Figure:
    """One body being posed: its channels by name (T,), its upright frame (T, 3, 3), and the joints found so far."""

    body: Body
    take: dict[str, np.ndarray]
    upright: np.ndarray  # (T, 3, 3)
    joints: dict[str, np.ndarray]  # each (T, 3)

    def sided(self, name: str, sign: float) -> np.ndarray:
        """Channels name_x, _y, _z (outward, up, forward) as camera-axis vectors (T, 3)."""
        vector = np.stack([self.take[f"{name}_x"] * sign, self.take[f"{name}_y"], -self.take[f"{name}_z"]], axis=-1)
        return np.einsum("tij,tj->ti", self.upright, vector)


def pose_body(body: Body, channels: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Joints (T, 25, 3) in metres, camera axes, floor at y = 0, of a figure posed by channels (T, C).

    root: (T, 2) camera x and z of the person's standing place. Bone lengths are those of `body` in every frame.
    """
    if channels.ndim != 2 or channels.shape[1] != len(CHANNELS):
        raise ValueError(f"channels must be (T, {len(CHANNELS)}), got {channels.shape}")
    take = {name: channels[:, i] for name, i in COLUMN.items()}
    upright = _turn(1, take["yaw"])  # (T, 3, 3), body frame to camera
    place = np.stack([root[:, 0], np.zeros(len(root)), root[:, 1]], axis=-1)  # (T, 3)
    offset = np.stack([take["pelvis_x"], take["pelvis_y"], -take["pelvis_z"]], axis=-1) * body.leg
    offset[:, 1] += body.standing
    joints: dict[str, np.ndarray] = {"hip_center": place + np.einsum("tij,tj->ti", upright, offset)}
    # Negative: a forward bend turns +y towards -z, which is against the right-handed sense about +x.
    trunk = upright @ _turn(1, take["twist"] * 0.3) @ _turn(0, -take["lean"]) @ _turn(2, take["roll"])
    chest = trunk @ _turn(1, take["twist"] * 0.7) @ _turn(0, -take["chest"])
    pelvis = upright @ _turn(1, take["hip_turn"]) @ _turn(0, -take["lean"] * 0.6) @ _turn(2, take["roll"] * 0.5)
    joints["spine"] = joints["hip_center"] + _apply(trunk, y=0.5 * body.trunk)
    joints["shoulder_center"] = joints["spine"] + _apply(chest, y=0.5 * body.trunk)
    joints["neck"] = joints["shoulder_center"] + _apply(chest, y=body.neck)
    skull = chest @ _turn(1, take["look"]) @ _turn(0, -take["nod"])
    joints["head"] = joints["neck"] + _apply(skull, y=body.head)
    figure = _Figure(body, take, upright, joints)
    for side, sign in zip(SIDES, (1.0, -1.0), strict=True):
        _arm(figure, side, sign, chest)
        _leg(figure, side, sign, pelvis, place)
    return np.stack([joints[name] for name in KINECT_V2_25.joints], axis=1)


def _arm(figure: _Figure, side: str, sign: float, chest: np.ndarray) -> None:
    """Adds one arm's joints: the wrist goes to its target, the hand follows the forearm."""
    body, joints, upright = figure.body, figure.joints, figure.upright
    shoulder = joints["shoulder_center"] + _apply(chest, x=sign * body.shoulder_width / 2, y=-body.shoulder_drop)
    target = shoulder + figure.sided(f"{side}_wrist", sign) * body.arm
    pole = figure.sided(f"{side}_elbow", sign)
    elbow, wrist = two_bones(shoulder, target, pole, body.upper_arm, body.forearm)
    forearm = _unit(wrist - elbow)
    normal = _unit(np.cross(forearm, _unit(elbow - shoulder)) + 0.05 * _apply(upright, x=sign))
    bend = figure.take[f"{side}_flex"][:, None]
    along = np.cos(bend) * forearm + np.sin(bend) * _unit(np.cross(normal, forearm))
    joints[f"{side}_shoulder"], joints[f"{side}_elbow"], joints[f"{side}_wrist"] = shoulder, elbow, wrist
    joints[f"{side}_hand"] = wrist + along * body.hand
    joints[f"{side}_tip"] = joints[f"{side}_hand"] + along * body.hand
    # The thumb keeps a constant distance from the wrist: towards the inside of the hand, and forward of it.
    inside = _unit(np.cross(along, normal))
    joints[f"{side}_thumb"] = wrist + (0.8 * along + 0.6 * inside) * 0.8 * body.hand


def _leg(figure: _Figure, side: str, sign: float, pelvis: np.ndarray, place: np.ndarray) -> None:
    """Adds one leg's joints: the ankle goes to its target on or above the floor, the knee points forward."""
    body, joints, upright = figure.body, figure.joints, figure.upright
    hip = joints["hip_center"] + _apply(pelvis, x=sign * body.hip_width / 2, y=-body.hip_drop)
    ground = place + _apply(upright, x=sign * body.hip_width / 2, y=body.ankle_height)
    target = ground + figure.sided(f"{side}_foot", sign) * body.leg
    out = figure.take[f"{side}_knee_out"]
    pole = np.einsum("tij,tj->ti", upright, np.stack([sign * out, 0.15 + 0 * out, -np.ones(len(out))], axis=-1))
    knee, ankle = two_bones(hip, target, pole, body.thigh, body.shank)
    toe = figure.take[f"{side}_toe"]
    sole = np.stack([sign * (0.15 + 0.4 * out), np.sin(toe) - 0.35, -np.cos(toe)], axis=-1)
    joints[f"{side}_hip"], joints[f"{side}_knee"], joints[f"{side}_ankle"] = hip, knee, ankle
    joints[f"{side}_foot"] = ankle + np.einsum("tij,tj->ti", upright, _unit(sole)) * body.foot
