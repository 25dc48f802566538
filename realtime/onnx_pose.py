"""Frames to poses by a top-down ONNX pose network that the user brings, such as RTMPose. Its joints are flat."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from realtime.blazepose import Region
from realtime.body import Belief
from realtime.errors import LineError, UsageError
from realtime.finder import LOOK_AGAIN_NS, Lookout
from realtime.image import SmallRgb
from realtime.lens import Lens
from realtime.people import Body, PeopleTracker
from realtime.person import KINECT_AXES, STANDING_M, Person, box_around, is_picture, place_of
from realtime.schema import Frame, Pose
from realtime.skeleton import COCO_17
from realtime.topdown import TopDown

SEEN = 0.3  # below this confidence a joint's place is a guess: RTMPose's own bound for drawing
TRUNK_SEEN, LIMBS_SEEN = 0.4, 0.4  # mean confidence of a body that may begin a track
SAME_BODY = 0.04  # joints nearer than this part of the box's longer side, on average: one body followed twice
BEYOND = 1.1  # a body reaches this much further than its joints: the top of the head, the feet
LOOSE = 1.25  # a detector's region is this much larger than the body
_HIPS = [COCO_17.index(f"{side}_hip") for side in ("left", "right")]
_SHOULDERS = [COCO_17.index(f"{side}_shoulder") for side in ("left", "right")]
_TRUNK = _HIPS + _SHOULDERS
_LIMBS = [COCO_17.index(f"{s}_{j}") for s in ("left", "right") for j in ("elbow", "wrist", "knee", "ankle")]
# Bones by their ends and what they measure on a body of STANDING_M; trunk from the middle of the hips.
_BONES_M = {("shoulder", "elbow"): 0.29, ("elbow", "wrist"): 0.26, ("hip", "knee"): 0.42, ("knee", "ankle"): 0.41}
_BONES = [
    (COCO_17.index(f"{s}_{a}"), COCO_17.index(f"{s}_{b}"), m)
    for (a, b), m in _BONES_M.items()
    for s in ("left", "right")
]
_FROM, _TO = np.array([a for a, _, _ in _BONES]), np.array([b for _, b, _ in _BONES])
_METRES = np.array([m for _, _, m in _BONES])
TRUNK_M = 0.5


@dataclass(eq=False)
class _Followed:
    body: np.ndarray  # (4,) left, top, width, height in pixels, without margin
    believed_ns: int
    believed: bool = True

    @property
    def region(self) -> Region:
        """Its square, to tell the detector's finds from it."""
        side = float(self.body[2:].max()) * LOOSE
        return Region((self.body[:2] + self.body[2:] / 2).astype(np.float32), side, 0.0)


class OnnxPose:
    """Up to `persons` people per frame by an ONNX pose network (topdown.py says which), in COCO_17 and Kinect axes.

    What is lost against MediaPipe's networks: depth. The network tells where joints are in the picture, so all of a
    body's joints lie in one plane that faces the camera, at the body's estimated distance; a limb that points at the
    camera is short, and a turn of the body narrows it. COCO has no hands, feet or spine. Models trained on real depth
    recognise less from that. Metres come from the longest bones and trunk, taken for those of a body of 1.7 m.

    Everything else is as in LiteRtPose: bodies are found by MediaPipe's detector (so its wheel and LiteRT are
    needed), followed by their own joints, told apart by PeopleTracker, smoothed by capture time; all people go
    through the network in one batch where it takes one. confidence is the network's own peak, cut to [0, 1].
    Counters: refused (frames that are no picture or not later than the last), gated (finds not believed a body),
    crowded. lens: the camera's, where it was measured: joints are then undistorted.
    """

    def __init__(self, path: Path, persons: int = 2, threads: int = 2, lens: Lens | None = None) -> None:
        if persons < 1:
            raise UsageError(f"persons must be at least 1, got {persons}")
        self._network: TopDown | None = TopDown(path, threads)
        self._lookout = Lookout(persons, threads)
        self._tracker = PeopleTracker(persons=persons)
        self._small_rgb = SmallRgb()
        self._bodies: list[_Followed] = []
        self._people: dict[int, Person] = {}
        self._lens = lens
        self._captured_ns: int | None = None
        self.refused = self.gated = 0

    @property
    def crowded(self) -> int:
        """Bodies believed and seen often enough, but beyond the people wanted."""
        return self._tracker.crowded

    @property
    def device(self) -> str:
        """What the network runs on: cuda or cpu."""
        return self._network.device if self._network else "closed"

    def find(self, frame: Frame) -> tuple[Pose, ...]:
        """The poses in this BGR frame, in the order of their tracks. Raises BundleError where the network fails."""
        if self._network is None:
            raise LineError("the pose stage is closed; make a new one")
        if not is_picture(frame.image) or (self._captured_ns is not None and frame.captured_ns <= self._captured_ns):
            self.refused += 1
            return ()
        now_ns = self._captured_ns = frame.captured_ns
        rgb = self._small_rgb(frame.image)
        bodies = [one for one in self._bodies if now_ns - one.believed_ns < LOOK_AGAIN_NS]
        regions, believed = [one.region for one in bodies], sum(one.believed for one in bodies)
        for region, _ in self._lookout.new(rgb, now_ns, regions, believed):
            side = region.side / LOOSE
            bodies.append(_Followed(np.array((*(region.centre - side / 2), side, side)), now_ns))
        self._bodies = []
        found: list[tuple[np.ndarray, np.ndarray, Belief]] = []
        if bodies:
            boxes = self._network.boxes(np.array([one.body for one in bodies]))
            for body, joints, confidence in zip(bodies, *self._network(rgb, boxes), strict=True):
                belief = self._take(body, joints, confidence, [joints for joints, _, _ in found], now_ns)
                if belief is not None:
                    found.append((joints, confidence, belief))
        return self._poses(frame, found, rgb.shape[1], rgb.shape[0])

    def reset(self) -> None:
        """Lets go of the people in view; whoever is seen next gets a new track."""
        self._bodies, self._people = [], {}
        self._lookout.forget()
        self._tracker.forget()

    def close(self) -> None:
        """Frees the networks. May be called twice."""
        self._network = None
        self._lookout.close()

    def _take(
        self, body: _Followed, joints: np.ndarray, confidence: np.ndarray, others: list[np.ndarray], captured_ns: int
    ) -> Belief | None:
        """Whether this is a body, and where to look for it next; None where it was found before or there is nothing."""
        seen = confidence >= SEEN
        longest = float(body.body[2:].max())
        if not np.isfinite(joints).all() or seen.sum() < 3:
            return None
        if any(np.linalg.norm(joints - other, axis=1).mean() < SAME_BODY * longest for other in others):
            return None
        low, high = joints[seen].min(axis=0), joints[seen].max(axis=0)
        if (high - low).max() < 1:
            return None
        belief = believe_flat(confidence)
        middle, size = (low + high) / 2, (high - low) * BEYOND
        body.body, body.believed = np.concatenate((middle - size / 2, size)), belief is not Belief.NONE
        if body.believed:
            body.believed_ns = captured_ns
        self._bodies.append(body)
        return belief

    def _poses(
        self, frame: Frame, found: list[tuple[np.ndarray, np.ndarray, Belief]], width: int, height: int
    ) -> tuple[Pose, ...]:
        bodies, scales = [], []
        for joints, confidence, belief in found:
            if belief is Belief.NONE:
                self.gated += 1
                continue
            scale = scale_of_bones(joints, confidence)
            hips = joints[_HIPS].mean(axis=0)
            bodies.append(Body(joints, confidence, hips, STANDING_M * scale, belief is Belief.SURE))
            scales.append(scale)
        tracks = self._tracker.assign(frame.captured_ns, bodies)
        self.gated += sum(track is None and not body.sure for track, body in zip(tracks, bodies, strict=True))
        self._people = {track: one for track, one in self._people.items() if track in self._tracker.ids}
        poses = []
        for track, body, scale in zip(tracks, bodies, scales, strict=True):
            if track is not None:
                person = self._people.setdefault(track, Person(track))
                if self._lens is None:
                    flat, place = flat_by_scale(body, scale, width, height)
                else:
                    flat, place = flat_by_lens(body, self._lens, width, height)
                poses.append(_pose(frame, person, body, flat, place, width, height))
        return tuple(sorted(poses, key=lambda pose: pose.track))


def believe_flat(confidence: np.ndarray) -> Belief:
    """Whether joints of this confidence (17,) are a body: the trunk is seen, and the limbs on average."""
    trunk, limbs = float(confidence[_TRUNK].mean()), float(confidence[_LIMBS].mean())
    if trunk < SEEN:
        return Belief.NONE
    return Belief.SURE if trunk >= TRUNK_SEEN and limbs >= LIMBS_SEEN else Belief.DOUBTFUL


def scale_of_bones(joints: np.ndarray, confidence: np.ndarray) -> float:
    """Pixels in a metre, from joints (17, 2) in pixels: bones look shorter than they are, never longer, so the
    second longest for its kind counts.
    """
    trunk = float(np.linalg.norm(joints[_SHOULDERS].mean(axis=0) - joints[_HIPS].mean(axis=0))) / TRUNK_M
    seen = (confidence[_FROM] >= SEEN) & (confidence[_TO] >= SEEN)
    bones = np.linalg.norm(joints[_FROM] - joints[_TO], axis=1)[seen] / _METRES[seen]
    return max(float(np.sort([trunk, *bones])[-2:].min()), 1e-3)


def flat_by_scale(body: Body, scale: float, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Joints (17, 3) about the hips and the place of these (3,), in metres and Kinect axes, by an assumed lens."""
    flat = np.zeros((len(COCO_17), 3), np.float32)
    flat[:, :2] = (body.joints - body.hips) / scale
    return flat * KINECT_AXES, place_of(body.hips, scale, width, height)


def flat_by_lens(body: Body, lens: Lens, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """The same by the measured lens: the joints are undistorted, and the longest bones tell how far away they are."""
    rays = lens.rays(body.joints, width, height)
    away = 1 / max(scale_of_bones(rays, body.confidence), 1e-3)  # ray units in a metre, turned round
    hips = rays[_HIPS].mean(axis=0)
    flat = np.zeros((len(COCO_17), 3), np.float32)
    flat[:, :2] = (rays - hips) * away
    return flat * KINECT_AXES, np.array((*(hips * away), away), np.float32) * KINECT_AXES


def _pose(
    frame: Frame, person: Person, body: Body, flat: np.ndarray, place: np.ndarray, width: int, height: int
) -> Pose:
    joints = person.steady(flat, place, frame.captured_ns)
    seen = body.confidence >= SEEN
    places = ((body.joints + 0.5) / (width, height)).astype(np.float32)  # from pixels' centres to the picture's edge
    confidence = (body.confidence * seen).astype(np.float32)
    box = box_around(places[seen])
    return Pose(frame.index, frame.captured_ns, person.track, COCO_17, joints, confidence, places, box)
