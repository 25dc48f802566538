"""Frames to poses of several people, by MediaPipe's networks in LiteRT and without MediaPipe."""

from __future__ import annotations

from realtime.body import Belief, Landmarks, believe
from realtime.errors import LineError, UsageError
from realtime.finder import Followed, Follower
from realtime.image import SmallRgb
from realtime.lens import Lens
from realtime.people import Body, PeopleTracker
from realtime.person import KINECT_AXES, Person, is_picture, standing
from realtime.schema import Frame, Pose


class LiteRtPose:
    """Up to `persons` people per frame by MediaPipe's BlazePose networks, in KINECT_V2_25 and Kinect axes.

    The camera must not be mirrored. The landmarks are MediaPipe's own (smooth_landmarks=False) to a fraction of a
    pixel; what is made of them differs in one thing from MediaPipePose: joints lie in camera space, about an
    estimated place (person.py), so that where people are to each other can be used.

    Joints are metres of bodies of generic size, smoothed by capture time, one filter per track; confidence is
    the visibility, 0 below 0.1. A pose comes out only for what `believe` takes for a body, once it was sure in 3 of 5
    frames (people.py says when a track begins, goes on and ends).
    Counters: refused (frames that are no picture or not later than the last), gated (bodies that the networks saw and
    the gate did not believe), crowded. Not thread-safe. threads: CPU threads of the networks.
    lens: the camera's, where it was measured: places are then solved from undistorted landmarks (person.place_seen).
    """

    def __init__(self, persons: int = 2, threads: int = 2, lens: Lens | None = None) -> None:
        if persons < 1:
            raise UsageError(f"persons must be at least 1, got {persons}")
        self._follower: Follower | None = Follower(persons, threads)
        self._tracker = PeopleTracker(persons=persons)
        self._people: dict[int, Person] = {}
        self._lens = lens
        self._small_rgb = SmallRgb()
        self._captured_ns: int | None = None
        self.refused = self.gated = 0

    def find(self, frame: Frame) -> tuple[Pose, ...]:
        """The poses in this BGR frame, in the order of their tracks. Raises LineError where LiteRT fails."""
        if self._follower is None:
            raise LineError("the pose stage is closed; make a new one")
        if not is_picture(frame.image) or (self._captured_ns is not None and frame.captured_ns <= self._captured_ns):
            self.refused += 1
            return ()
        self._captured_ns = frame.captured_ns
        rgb = self._small_rgb(frame.image)
        height, width = rgb.shape[:2]
        found = []
        for followed in self._follower.find(rgb, frame.captured_ns):
            assert followed.found is not None
            landmarks = followed.found.landmarks(width, height, KINECT_AXES)
            belief = believe(landmarks, followed.part)
            followed.judge(belief is not Belief.NONE, frame.captured_ns)
            found.append((followed, landmarks, belief))
        return self._poses(frame, found, width, height)

    def reset(self) -> None:
        """Lets go of the people in view; whoever is seen next gets a new track."""
        if self._follower is not None:
            self._follower.forget()
        self._tracker.forget()
        self._people = {}

    def close(self) -> None:
        """Frees the networks. May be called twice."""
        if self._follower is not None:
            self._follower.close()
            self._follower = None

    @property
    def crowded(self) -> int:
        """Bodies believed and seen often enough, but beyond the people wanted."""
        return self._tracker.crowded

    def _poses(
        self, frame: Frame, found: list[tuple[Followed, Landmarks, Belief]], width: int, height: int
    ) -> tuple[Pose, ...]:
        """Gives believed bodies to the tracker and makes poses of those it knows."""
        bodies = [one for one in found if one[2] is not Belief.NONE]
        tracks = self._tracker.assign(frame.captured_ns, [_body(*one[1:], width, height) for one in bodies])
        self.gated += len(found) - len(bodies)
        alive = self._tracker.ids
        self._people = {track: person for track, person in self._people.items() if track in alive}
        poses = []
        for track, (followed, landmarks, belief) in zip(tracks, bodies, strict=True):
            followed.known = track is not None
            if track is not None:
                person = self._people.setdefault(track, Person(track, self._lens))
                poses.append(person.pose(frame, landmarks, width, height))
            elif belief is not Belief.SURE:
                self.gated += 1
        return tuple(sorted(poses, key=lambda pose: pose.track))


def _body(found: Landmarks, belief: Belief, width: int, height: int) -> Body:
    hips, tall = standing(found, width, height)
    return Body(found.image * (width, height), found.visibility, hips, tall, belief is Belief.SURE)
