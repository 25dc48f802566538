"""A synthetic person: scripts of actions played by a jointed figure and seen by a noisy depth sensor.

Feeds the demo, the tests and the source `synthetic`. Joints are KINECT_V2_25 in Kinect camera space, metres:
+x to the sensor's left, +y up, +z away; a person who faces the sensor has the right shoulder at the larger x.
Letters: T frames, V = 25 joints, C channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from realtime.errors import UsageError
from realtime.generator.keyframes import Scene, Style
from realtime.generator.kinect_noise import sense
from realtime.generator.motions import ACTIONS, seated
from realtime.generator.puppet import COLUMN, REST, Body, pose_body, posture, random_body
from realtime.schema import SECOND_NS, Frame, Pose
from realtime.skeleton import KINECT_V2_25

Script = Sequence[tuple[str, float]]
DEMO_SCRIPT: Script = (
    ("nothing", 4.0),
    ("wave:right", 4.5),
    ("nothing", 2.5),
    ("walk:treadmill", 7.0),
    ("nothing", 2.5),
    ("sit_down", 2.6),
    ("nothing", 5.0),
    ("stand_up", 2.6),
    ("nothing", 2.5),
    ("throw:right", 2.6),
    ("nothing", 2.5),
    ("clap", 4.0),
    ("nothing", 3.5),
)
_FOREVER = ("wave", "walk", "throw", "clap", "pick_up", "jog", "kick", "squat", "push")


@dataclass(frozen=True)
class Segment:
    """Ground truth: this action fills [start_ns, end_ns) of the motion."""

    label: str
    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class Motion:
    """What the sensor saw of one script. times_ns: (T,) int64 from 0. joints: (T, 25, 3) float32 metres.

    confidence: (T, 25) float32 in [0, 1]; 0 where the sensor lost the joint.
    """

    times_ns: np.ndarray  # (T,)
    joints: np.ndarray  # (T, 25, 3)
    confidence: np.ndarray  # (T, 25)
    segments: tuple[Segment, ...]
    fps: float
    body: Body


@dataclass(frozen=True)
class _Person:
    """Everything that stays with one person before one sensor."""

    body: Body
    style: Style
    rest: np.ndarray  # (C,)
    place: np.ndarray  # (2,) camera x and z, metres
    sensor_height: float
    yaw: float


def perform(
    script: Script,
    *,
    seed: int,
    fps: float = 30.0,
    body: Body | None = None,
    yaw_deg: float = 0.0,
    noise: bool = True,
) -> Motion:
    """Plays a script of (action, seconds) and returns what the sensor sees.

    Actions are the keys of `motions.ACTIONS`, with a variant after a colon if one is wanted ("wave:left",
    "walk:treadmill"); without one the seed chooses. A script that begins with stand_up begins seated. The same seed
    gives the same motion at every frame rate, with and without noise. yaw_deg: facing; 0 faces the sensor, positive
    is turned to the person's left. Raises UsageError for an unknown action, variant, or an order no body can follow.
    """
    if not 1.0 <= fps <= 240.0:
        raise UsageError(f"fps must be in [1, 240], got {fps}; use the rate of the camera that you imitate, such as 30")
    rng = np.random.default_rng(seed)
    person = _make_person(rng, body, yaw_deg)
    return _play(person, script, rng, fps, noise)


def _make_person(rng: np.random.Generator, body: Body | None, yaw_deg: float) -> _Person:
    drawn = random_body(rng)
    style = Style(
        float(rng.uniform(0.84, 1.20)), float(rng.uniform(0.85, 1.18)), str(rng.choice(["right"] * 9 + ["left"]))
    )
    rest = posture()
    for side in ("right", "left"):
        rest[COLUMN[f"{side}_wrist_x"]] += rng.normal(0.0, 0.04)
        rest[COLUMN[f"{side}_wrist_z"]] += rng.normal(0.0, 0.06)
        rest[COLUMN[f"{side}_foot_x"]] += rng.uniform(-0.03, 0.08)
        rest[COLUMN[f"{side}_foot_z"]] += rng.normal(0.0, 0.025)
    rest[COLUMN["lean"]] = REST["lean"] + rng.normal(0.0, 0.03)
    place = np.array([rng.uniform(-0.25, 0.25), rng.uniform(2.7, 3.4)])
    return _Person(body or drawn, style, rest, place, float(rng.uniform(0.85, 1.25)), float(np.radians(yaw_deg)))


def _parse(script: Script) -> list[tuple[str, str, float]]:
    """(action, variant or "", seconds) for each entry; UsageError names what is wrong and what there is."""
    if not script:
        raise UsageError("a script needs at least one (action, seconds), got none; try [('wave', 4.0)]")
    entries = []
    sitting = script[0][0].partition(":")[0] == "stand_up"
    for entry, seconds in script:
        name, _, variant = entry.partition(":")
        if name not in ACTIONS:
            raise UsageError(f"no action {name!r}; actions are {', '.join(ACTIONS)}")
        action = ACTIONS[name]
        if variant and variant not in action.variants:
            raise UsageError(f"{name} has no variant {variant!r}; it has {', '.join(action.variants) or 'none'}")
        if not action.least_s <= seconds <= 3600.0:
            raise UsageError(f"{name} takes {action.least_s} to 3600 seconds, got {seconds}")
        if action.start != "any" and sitting != (action.start == "seated"):
            raise UsageError(
                f"{name} needs a {action.start} person; put {'sit_down' if not sitting else 'stand_up'} first"
            )
        sitting = name == "sit_down" or (sitting and name != "stand_up")
        entries.append((name, variant, float(seconds)))
    return entries


def _play(person: _Person, script: Script, rng: np.random.Generator, fps: float, noise: bool) -> Motion:
    entries = _parse(script)
    seat = seated(person.rest)
    total = sum(seconds for _, _, seconds in entries)
    t = np.arange(max(1, round(total * fps))) / fps  # (T,)
    channels = np.empty((len(t), len(person.rest)))
    path = np.zeros((len(t), 2))
    segments, begin, sitting = [], 0.0, entries[0][0] == "stand_up"
    for order, (name, variant, seconds) in enumerate(entries):
        own = np.random.default_rng(rng.integers(2**63))
        scene = _scene(person, name, variant, seconds, sitting, seat, own)
        last = order == len(entries) - 1
        here = (t >= begin - 1e-9) & ((t < begin + seconds - 1e-9) | last)
        # Played on a fine clock of its own, so that the motion does not depend on the frame rate asked for.
        take = ACTIONS[name].move(scene)
        channels[here] = _sample(take.channels, scene.t, t[here] - begin)
        if take.path is not None:
            path[here] = _sample(take.path, scene.t, t[here] - begin)
        segments.append(Segment(name, round(begin * SECOND_NS), round((begin + seconds) * SECOND_NS)))
        begin += seconds
        sitting = name == "sit_down" or (sitting and name != "stand_up")
    channels += _sway(t, total, np.random.default_rng(rng.integers(2**63)))
    joints = _place(person, channels, path)
    confidence = np.ones(joints.shape[:2])
    if noise:
        joints, confidence = sense(joints, np.random.default_rng(rng.integers(2**63)), fps)
    times = np.round(t * SECOND_NS).astype(np.int64)
    return Motion(times, joints.astype(np.float32), confidence.astype(np.float32), tuple(segments), fps, person.body)


def _scene(
    person: _Person, name: str, variant: str, seconds: float, sitting: bool, seat: np.ndarray, rng: np.random.Generator
) -> Scene:
    chosen = variant or (str(rng.choice(ACTIONS[name].variants)) if ACTIONS[name].variants else "")
    if chosen in ("right", "left") and not variant:
        chosen = person.style.hand
    clock = np.linspace(0.0, seconds, max(2, int(np.ceil(seconds * 120)) + 1))
    pace = Style(
        person.style.speed * float(rng.normal(1.0, 0.04)),
        person.style.amplitude * float(rng.normal(1.0, 0.04)),
        person.style.hand,
    )
    side = chosen if chosen in ("right", "left") else person.style.hand
    base = seat if sitting else person.rest
    return Scene(clock, seconds, base, person.rest, seat, sitting, pace, side, chosen, person.body.leg, rng)


def _sample(rows: np.ndarray, clock: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Rows (S, C) on an even clock (S,) read at times t (T,) by linear interpolation."""
    at = np.clip(t / (clock[1] - clock[0]), 0.0, len(clock) - 1.0)
    low = np.minimum(at.astype(int), len(clock) - 2)
    part = (at - low)[:, None]
    return rows[low] * (1 - part) + rows[low + 1] * part


def _sway(t: np.ndarray, total: float, rng: np.random.Generator) -> np.ndarray:
    """What never stops: breathing, the sway of a standing body, a wandering head; zero at both ends. (T, C)."""
    rows = np.zeros((len(t), len(COLUMN)))

    def wander(size: float, slowest: float, fastest: float) -> np.ndarray:
        waves = [
            rng.normal() * np.sin(2 * np.pi * rng.uniform(slowest, fastest) * t + rng.uniform(0, 2 * np.pi))
            for _ in range(4)
        ]
        return size * np.sum(waves, axis=0) / 2.0

    for name, size in (("pelvis_x", 0.008), ("pelvis_z", 0.010), ("roll", 0.006), ("lean", 0.008), ("twist", 0.015)):
        rows[:, COLUMN[name]] = wander(size, 0.08, 0.5)
    for name, size in (("look", 0.06), ("nod", 0.04)):
        rows[:, COLUMN[name]] = wander(size, 0.05, 0.4)
    for side in ("right", "left"):
        for axis in "xz":
            rows[:, COLUMN[f"{side}_wrist_{axis}"]] = wander(0.012, 0.1, 0.6)
    rows[:, COLUMN["chest"]] += 0.008 * np.sin(2 * np.pi * rng.uniform(0.22, 0.3) * t)
    edge = np.clip(np.minimum(t, total - t) / 0.6, 0.0, 1.0)
    return rows * (edge**2 * (3 - 2 * edge))[:, None]


def _place(person: _Person, channels: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Joints (T, 25, 3) in camera space of a person who stands, faces and walks where the sensor is."""
    channels = channels.copy()
    channels[:, COLUMN["yaw"]] += person.yaw
    sin, cos = np.sin(person.yaw), np.cos(person.yaw)
    right, forward = path[:, 0], path[:, 1]
    root = np.stack([right * cos - forward * sin, -right * sin - forward * cos], axis=-1) + person.place
    joints = pose_body(person.body, channels, root)
    joints[..., 1] -= person.sensor_height
    return joints


def synthetic_frames(
    seed: int | None = None,
    fps: float = 30.0,
    script: Script | None = None,
    forever: bool = True,
    start_ns: int = 0,
) -> Iterator[Frame]:
    """Frames that carry one synthetic person (track 1), captured at start_ns + index / fps; as fast as they are read.

    Without a script the person does the usual actions in a random order; forever goes on with new rounds by the same
    person, each joined to the one before without a jump. seed None gives another person every time.
    """
    rng = np.random.default_rng(seed)
    person = _make_person(rng, None, float(rng.uniform(-15.0, 15.0)))
    index = 0
    for _ in itertools.count() if forever else range(1):
        motion = _play(person, script or _random_script(rng), rng, fps, True)
        for joints, confidence in zip(motion.joints, motion.confidence, strict=True):
            captured = start_ns + round(index * SECOND_NS / fps)
            pose = Pose(index, captured, 1, KINECT_V2_25, joints, confidence)
            yield Frame(index, captured, poses=(pose,))
            index += 1


def _random_script(rng: np.random.Generator) -> Script:
    """One round: every usual action once in a random order, rests between, and a while on a chair."""
    script: list[tuple[str, float]] = [("nothing", float(rng.uniform(2.0, 4.0)))]
    for name in rng.permutation([*_FOREVER, "sit"]):
        if name == "sit":
            script += [("sit_down", 2.6), ("nothing", float(rng.uniform(3.0, 7.0))), ("stand_up", 2.6)]
        else:
            long = name in ("walk", "jog", "wave", "clap")
            script.append((str(name), float(rng.uniform(4.0, 8.0) if long else rng.uniform(2.6, 3.4))))
        script.append(("nothing", float(rng.uniform(2.0, 4.0))))
    return script
