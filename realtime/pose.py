"""Frames to poses. The only door to mediapipe.

MediaPipe 0.10.21 carries its model in the wheel, needs no network and sends nothing. What it gets wrong is handled
here: bodies seen in sandals, a filter on a made-up clock, models taken from the current folder, chatter on stderr,
graphs that stay broken after one bad picture.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
import types
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np

from realtime.body import Belief, Landmarks, believe
from realtime.errors import LineError, UsageError
from realtime.lens import Lens
from realtime.person import KINECT_AXES, UNSEEN, Person, box_around, is_picture, standing
from realtime.quiet import quiet_stderr
from realtime.schema import SECOND_NS, Frame, Pose
from realtime.skeleton import BLAZEPOSE_33, KINECT_V2_25, convert, mapping
from realtime.smooth import OneEuro
from realtime.track import OnePersonTracker

LOOK_AGAIN_NS = SECOND_NS
BLACK = np.zeros((64, 64, 3), np.uint8)
FAILURES_IN_A_ROW = 3


class PassThrough:
    """The pose stage of sources that bring poses themselves."""

    refused = gated = crowded = 0

    def find(self, frame: Frame) -> tuple[Pose, ...]:
        """The frame's own poses."""
        return frame.poses or ()

    def reset(self) -> None:
        """Follows nobody: the source does."""

    def close(self) -> None:
        """Holds nothing."""


class MediaPipePose:
    """One person per frame by MediaPipe BlazePose (complexity 1), in KINECT_V2_25 and Kinect axes.

    The camera must not be mirrored. Joints are metres about the middle of the hips, of a body of generic size,
    smoothed by capture time, one filter per track; confidence is MediaPipe's visibility, 0 below 0.1. image_joints
    and box are not smoothed. A pose comes out only for what `believe` takes for a body, once it was sure in 3 of 5
    frames (track.py says when a track begins, goes on and changes).

    One instance serves one thread: MediaPipe crashes the process otherwise.
    Counters: refused (frames that are no picture or not later than the last), gated (bodies that MediaPipe saw and
    the gate did not believe), rebuilt (graphs replaced after a failure). lens: the camera's, where it was measured:
    joints then lie in camera space, about the place solved from undistorted landmarks (person.place_seen).
    """

    def __init__(self, lens: Lens | None = None) -> None:
        self._library = _load_mediapipe()
        from realtime.image import SmallRgb  # here, so that skeleton sources do without cv2

        self._small_rgb = SmallRgb()
        self._tracker, self._smooth = OnePersonTracker(), OneEuro()
        self._track, self._lens = 0, lens
        self._person: Person | None = None
        self._captured_ns: int | None = None
        self._believed_ns = 0
        self._thread: int | None = None
        self._failures = 0
        self.refused = self.gated = self.crowded = self.rebuilt = 0
        self._graph = self._build()

    def find(self, frame: Frame) -> tuple[Pose, ...]:
        """The pose in this BGR frame, or none.

        Raises LineError when called from a second thread or when MediaPipe fails on frame after frame.
        """
        self._check_thread()
        if not is_picture(frame.image) or (self._captured_ns is not None and frame.captured_ns <= self._captured_ns):
            self.refused += 1
            return ()
        self._captured_ns = frame.captured_ns
        rgb = self._small_rgb(frame.image)
        found = self._landmarks(rgb)
        if found is None:
            self._tracker.nobody()
            self._believed_ns = frame.captured_ns
            return ()
        belief = believe(found)
        track = self._follow(frame.captured_ns, found, rgb.shape, belief)
        if track is None and belief is not Belief.SURE:
            self.gated += 1
            self._look_elsewhere(frame.captured_ns)
            return ()
        self._believed_ns = frame.captured_ns
        if track is None:
            return ()
        if self._lens is None:
            return (self._pose(frame, track, found),)
        if self._person is None or self._person.track != track:
            self._person = Person(track, self._lens)
        return (self._person.pose(frame, found, rgb.shape[1], rgb.shape[0]),)

    def reset(self) -> None:
        """Lets go of the person in view; whoever is seen next gets a new track."""
        self._tracker.forget()
        self._landmarks(BLACK)  # MediaPipe looks for a body anew

    def close(self) -> None:
        """Stops the graph. May be called twice."""
        graph, self._graph = self._graph, None
        if graph is not None:
            with suppress(RuntimeError):  # a broken graph says so again when it is closed
                graph.close()

    def _build(self) -> Any:
        refuse_foreign_models(Path(self._library.__file__).parents[2])
        self._chatty_frames = 2
        try:
            with quiet_stderr():
                graph = self._library.Pose(model_complexity=1, smooth_landmarks=False)
                graph.process(BLACK)  # the constructor returns, and chatters on, while its threads load the models
        except (RuntimeError, FileNotFoundError) as error:
            raise LineError(f"MediaPipe does not start ({error}): run `make install`") from error
        return graph

    def _check_thread(self) -> None:
        here = threading.get_ident()
        if self._thread is None:
            self._thread = here
        if self._thread != here:
            raise LineError("one MediaPipePose was used from two threads, which crashes MediaPipe; make one per thread")

    def _landmarks(self, rgb: np.ndarray) -> Landmarks | None:
        if self._graph is None:
            raise LineError("the pose stage is closed; make a new one")
        try:
            with quiet_stderr() if self._chatty_frames else nullcontext():
                result = self._graph.process(rgb)
        except RuntimeError as error:
            self._replace_graph(error)
            return None
        self._failures = 0
        if not result.pose_world_landmarks or not result.pose_landmarks:
            return None
        self._chatty_frames = max(self._chatty_frames - 1, 0)
        world = np.array([(p.x, p.y, p.z) for p in result.pose_world_landmarks.landmark], np.float32)
        image = np.array([(p.x, p.y, p.visibility) for p in result.pose_landmarks.landmark], np.float32)
        return Landmarks(world * KINECT_AXES, image[:, :2], image[:, 2])

    def _replace_graph(self, error: RuntimeError) -> None:
        self._failures += 1
        if self._failures >= FAILURES_IN_A_ROW:
            raise LineError(f"MediaPipe failed on {self._failures} frames in a row: {error}") from error
        self.close()
        self._graph = self._build()
        self.rebuilt += 1

    def _look_elsewhere(self, captured_ns: int) -> None:
        """Makes MediaPipe let go of a thing that has been no body for a second.

        It follows what it once took for a body and looks nowhere else; a black picture ends that (18 ms, a reset
        takes 60).
        """
        if captured_ns - self._believed_ns >= LOOK_AGAIN_NS:
            self._believed_ns = captured_ns
            self._landmarks(BLACK)

    def _follow(self, captured_ns: int, found: Landmarks, shape: tuple[int, ...], belief: Belief) -> int | None:
        if belief is Belief.NONE:
            self._tracker.nobody()
            return None
        hips, height = standing(found, shape[1], shape[0])
        return self._tracker.seen(captured_ns, hips, height, sure=belief is Belief.SURE)

    def _pose(self, frame: Frame, track: int, found: Landmarks) -> Pose:
        if track != self._track:
            self._smooth.reset()
            self._track = track
        seen = found.visibility >= UNSEEN
        world = self._smooth(found.world, frame.captured_ns)
        joints, confidence = convert(world, found.visibility * seen, BLAZEPOSE_33, KINECT_V2_25)
        places = mapping(BLAZEPOSE_33, KINECT_V2_25) @ found.image  # (25, 2)
        box = box_around(found.image[seen])
        return Pose(frame.index, frame.captured_ns, track, KINECT_V2_25, joints, confidence, places, box)


def _load_mediapipe() -> Any:
    """The module mediapipe.python.solutions.pose, without what a device leaves out.

    `import mediapipe` runs two package files that load every solution with its drawing (matplotlib) and the tasks
    API. Both packages are put in as bare folders instead, so only the pose solution and what it imports is run.
    They stay: nothing else in the process may import mediapipe.
    """
    if "mediapipe" not in sys.modules:
        spec = importlib.util.find_spec("mediapipe")
        if spec is None or spec.origin is None:
            raise UsageError("mediapipe is not installed, so cameras and videos cannot be read: run `make install`")
        root = Path(spec.origin).parent
        for name, folder in {"mediapipe": root, "mediapipe.python.solutions": root / "python" / "solutions"}.items():
            bare = types.ModuleType(name)
            bare.__path__ = [str(folder)]
            sys.modules[name] = bare
    try:
        return importlib.import_module("mediapipe.python.solutions.pose")
    except ImportError as error:
        raise UsageError(f"mediapipe is installed but does not load ({error}): run `make install`") from error


def refuse_foreign_models(root: Path) -> None:
    """Refuses to start where ./mediapipe/modules would be read in place of the installed models in root.

    MediaPipe looks for its model files under the current folder first. Raises UsageError.
    """
    here = Path("mediapipe", "modules")
    if here.exists() and not here.samefile(root / "modules"):
        raise UsageError(
            f"MediaPipe would take its models from {here.absolute()} and not from {root}: start in another folder"
        )
