"""MediaPipe's networks without MediaPipe: the same landmarks frame by frame, several people, nobody where nobody is."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from realtime import litert
from realtime.blazepose import Region
from realtime.body import Landmarks
from realtime.errors import LineError, UsageError
from realtime.image import SmallRgb
from realtime.person import KINECT_AXES, Person, place_of, scale_of
from realtime.pose import MediaPipePose
from realtime.schema import Frame, Pose
from realtime.skeleton import KINECT_V2_25

pytestmark = pytest.mark.skipif(litert.unavailable() is not None, reason=str(litert.unavailable()))
if litert.unavailable() is None:
    from realtime.finder import LOOK_EVERY_NS, Followed, Follower, Lookout
    from realtime.litert_pose import LiteRtPose

needs_mediapipe = pytest.mark.skipif(importlib.util.find_spec("mediapipe") is None, reason="mediapipe is not installed")
STEP = 33_333_333  # ns, MediaPipe's own idea of a frame
J = KINECT_V2_25.index
Pictures = Callable[..., list[np.ndarray]]


@pytest.fixture(scope="module")
def pictures(shared: Path) -> Pictures:
    """The first BGR pictures of a video."""
    av = pytest.importorskip("av")

    def read(name: str, count: int) -> list[np.ndarray]:
        with av.open(str(shared / "videos" / name)) as container:
            return [
                frame.to_ndarray(format="bgr24")
                for _, frame in zip(range(count), container.decode(video=0), strict=False)
            ]

    return read


def play(images: Sequence[np.ndarray], stage: LiteRtPose) -> list[tuple[Pose, ...]]:
    found = [stage.find(Frame(i, (i + 1) * STEP, image)) for i, image in enumerate(images)]
    stage.close()
    return found


def apart(images: Sequence[np.ndarray], order: int = 1) -> tuple[float, float, float]:
    """How far our landmarks are from MediaPipe's on average: pixels, metres, visibility; order -1 mixes up colours."""
    theirs, ours, small = MediaPipePose(), Follower(1, 2), SmallRgb()
    rows = []
    for i, image in enumerate(images):
        rgb = small(image)
        result = theirs._landmarks(rgb)
        found = ours.find(np.ascontiguousarray(rgb[..., ::order]), (i + 1) * STEP)
        assert (result is None) == (not found)
        if result is None or found[0].found is None:
            continue
        found[0].judge(True, (i + 1) * STEP)
        height, width = rgb.shape[:2]
        mine = found[0].found.landmarks(width, height, KINECT_AXES)
        pixels = np.linalg.norm((mine.image - result.image) * (width, height), axis=1).mean()
        world = np.linalg.norm(mine.world - result.world, axis=1).mean()
        rows.append((pixels, world, np.abs(mine.visibility - result.visibility).mean()))
    theirs.close()
    ours.close()
    assert len(rows) > len(images) * 0.9
    pixels, world, visibility = np.mean(rows, axis=0)
    return float(pixels), float(world), float(visibility)


@needs_mediapipe
def test_landmarks_are_mediapipes_own_frame_by_frame(pictures: Pictures) -> None:
    pixels, world, visibility = apart(pictures("treadmill_walk.mp4", 60))
    assert pixels < 0.15 and world < 0.003 and visibility < 0.002  # measured 0.04 px, 0.7 mm over 150 frames
    pixels, world, visibility = apart(pictures("weightlifting.mp4", 60))
    assert pixels < 0.3 and world < 0.005 and visibility < 0.002


@needs_mediapipe
def test_mixed_up_colours_would_be_seen(pictures: Pictures) -> None:
    assert apart(pictures("treadmill_walk.mp4", 20), order=-1)[0] > 0.5


@needs_mediapipe
def test_poses_are_those_of_the_mediapipe_stage_in_another_place(pictures: Pictures) -> None:
    images = pictures("weightlifting.mp4", 30)
    other = MediaPipePose()
    theirs = [other.find(Frame(i, (i + 1) * STEP, image)) for i, image in enumerate(images)]
    other.close()
    ours = play(images, LiteRtPose(1))
    assert [len(poses) for poses in ours] == [len(poses) for poses in theirs]
    mine, his = ours[-1][0], theirs[-1][0]
    assert (mine.index, mine.captured_ns, mine.track, mine.layout) == (
        his.index,
        his.captured_ns,
        his.track,
        his.layout,
    )
    np.testing.assert_allclose(mine.joints - mine.joints[0], his.joints - his.joints[0], atol=0.02)
    np.testing.assert_allclose(mine.image_joints, his.image_joints, atol=0.02)
    np.testing.assert_allclose(mine.confidence, his.confidence, atol=0.05)
    np.testing.assert_allclose(mine.box, his.box, atol=0.01)
    assert mine.joints.dtype == mine.confidence.dtype == np.float32
    assert abs(mine.joints[0, 0]) < 0.5 and 1.5 < mine.joints[0, 2] < 5


def test_three_people_are_three_tracks_each_in_their_place(pictures: Pictures) -> None:
    found = play(pictures("three_people_exercise.avi", 60), LiteRtPose(3))
    assert [len(poses) for poses in found[30:]] == [3] * 30
    assert {tuple(pose.track for pose in poses) for poses in found[30:]} == {(1, 2, 3)}
    for poses in found[30:]:
        left, middle, right = sorted(poses, key=lambda pose: pose.image_joints[0, 0])
        across = [pose.joints[0, 0] for pose in (left, middle, right)]
        assert across[0] - 0.7 > across[1] > across[2] + 0.7  # +x is the sensor's left: the picture's left
        assert middle.joints[0, 2] < min(left.joints[0, 2], right.joints[0, 2])  # she stands in front
        assert all(np.isfinite(pose.joints).all() for pose in poses)


def test_no_more_people_than_wanted(pictures: Pictures) -> None:
    images = pictures("three_people_exercise.avi", 40)
    assert max(len(poses) for poses in play(images, LiteRtPose(2))) == 2
    assert max(len(poses) for poses in play(images, LiteRtPose(1))) == 1
    with pytest.raises(UsageError, match="persons must be at least 1, got 0"):
        LiteRtPose(0)


def test_nobody_is_nobody(pictures: Pictures) -> None:
    stage = LiteRtPose(2)
    assert play(pictures("nobody_pool.mp4", 170), stage) == [()] * 170
    assert stage.gated > 40  # a body in a sandal


def test_an_empty_chair_and_a_face_are_nobody(pictures: Pictures) -> None:
    chair = [image[100:, :220] for image in pictures("office_fall_from_chair.mp4", 45)]
    face = [image[40:300, 850:1250] for image in pictures("treadmill_walk.mp4", 30)]
    assert play(chair, LiteRtPose(2)) == [()] * 45
    assert play(face, LiteRtPose(2)) == [()] * 30


def test_bad_pictures_are_counted_and_do_no_harm(pictures: Pictures) -> None:
    images = pictures("weightlifting.mp4", 6)
    stage = LiteRtPose(1)
    for i, image in enumerate(images[:3]):
        found = stage.find(Frame(i, (10 + i) * STEP, image))
    assert found
    bad = [None, np.zeros((0, 640, 3), np.uint8), np.zeros((48, 64), np.uint8), np.zeros((48, 64, 3), np.float32)]
    for image in bad:
        assert stage.find(Frame(4, 13 * STEP, image)) == ()
    assert stage.find(Frame(4, 12 * STEP, images[3])) == ()  # no later than the last
    assert stage.refused == len(bad) + 1
    assert stage.find(Frame(5, 14 * STEP, images[4]))[0].track == 1
    stage.find(Frame(6, 15 * STEP, np.zeros((1, 1, 3), np.uint8)))
    stage.close()
    stage.close()
    with pytest.raises(LineError, match="closed"):
        stage.find(Frame(7, 16 * STEP, images[5]))


def test_after_a_reset_the_same_person_is_a_new_track(pictures: Pictures) -> None:
    images = pictures("weightlifting.mp4", 8)
    stage = LiteRtPose(1)
    tracks = []
    for i, image in enumerate(images):
        if i == 4:
            stage.reset()
        tracks.append([pose.track for pose in stage.find(Frame(i, (i + 1) * STEP, image))])
    stage.close()
    assert tracks == [[], [], [1], [1], [], [], [2], [2]]


def test_one_body_followed_twice_is_one(pictures: Pictures) -> None:
    rgb = SmallRgb()(pictures("weightlifting.mp4", 1)[0]).copy()
    follower = Follower(2, 2)
    (first,) = follower.find(rgb, STEP)
    moved = Region(first.region.centre + 8, first.region.side, first.region.angle)
    follower._bodies.append(Followed(moved, STEP))
    assert follower.find(rgb, 2 * STEP) == [first]
    follower.close()


class Counting:
    """A detector that finds the same two bodies and counts how often it is asked, and where."""

    def __init__(self) -> None:
        self.squares: list[Region] = []

    def __call__(self, rgb: np.ndarray, square: Region) -> list[Region]:
        self.squares.append(square)
        return [Region(np.array((x, 100.0), np.float32), 120.0, 0.0) for x in (100.0, 400.0)]


def test_the_detector_rests_while_everybody_is_followed() -> None:
    rgb = np.zeros((360, 640, 3), np.uint8)
    lookout = Lookout(2, 1)
    detector = lookout._detect = Counting()  # type: ignore[assignment]
    first, second = (one for one, _ in lookout.new(rgb, STEP, [], 0))
    assert lookout.new(rgb, 2 * STEP, [first, second], 2) == [] and len(detector.squares) == 1
    asked = [len(detector.squares)]
    for i in range(3, 33):  # one is lost: a look every 0.15 s, and only who is new is told
        new = lookout.new(rgb, i * STEP, [first], 1)
        assert all(one is not first and abs(one.centre[0] - 400) < 1 for one, _ in new) and len(new) <= 1
        asked.append(len(detector.squares))
    assert asked[-1] - 1 == pytest.approx(30 * STEP / LOOK_EVERY_NS, abs=2)
    assert len({one.side for one in detector.squares}) == 3  # the whole, and parts of two sizes
    for i in range(40, 44):  # nobody is followed: every frame
        assert len(lookout.new(rgb, i * STEP, [], 0)) == 2
    assert len(detector.squares) == asked[-1] + 4


def test_the_place_comes_from_the_picture_and_the_size() -> None:
    rng = np.random.default_rng(0)
    world = rng.normal(0, 0.3, (33, 3)).astype(np.float32)

    def seen(scale: float, middle: tuple[float, float]) -> Landmarks:
        pixels = world[:, :2] * KINECT_AXES[:2] * scale + middle
        return Landmarks(world, (pixels / (640, 360)).astype(np.float32), np.ones(33, np.float32))

    near, far = (scale_of(seen(scale, (320, 180)), 640, 360) for scale in (200, 50))
    assert (near, far) == (pytest.approx(200, rel=1e-4), pytest.approx(50, rel=1e-4))
    middle = place_of(np.array((320.0, 180.0)), 200, 640, 360)
    np.testing.assert_allclose(middle, (0, 0, 320 / np.tan(np.radians(30)) / 200), atol=1e-5)
    left_below = place_of(np.array((120.0, 280.0)), 100, 640, 360)
    np.testing.assert_allclose(left_below[:2], (2, -1), atol=1e-5)
    assert left_below[2] == pytest.approx(2 * middle[2])


def test_a_trembling_distance_does_not_reach_the_posture() -> None:
    rng = np.random.default_rng(0)
    joints = rng.normal(0, 0.3, (33, 3)).astype(np.float32)
    person = Person(1)
    places = np.array((0, 0, 3), np.float32) + rng.normal(0, 0.05, (90, 1)).astype(np.float32) * (0, 0, 1)
    moved = np.array([person.steady(joints, place, (i + 1) * STEP) for i, place in enumerate(places)])
    assert np.abs((moved - moved[:, :1]) - (joints - joints[0])).max() < 1e-5
    assert moved[30:, 0, 2].std() < 0.02


def test_who_is_known_stays_and_a_newcomer_beyond_the_wanted_is_let_go(pictures: Pictures) -> None:
    rgb = SmallRgb()(pictures("three_people_exercise.avi", 1)[0]).copy()
    follower = Follower(3, 2)
    for i in range(12):
        bodies = list(follower.find(rgb, (i + 1) * 5 * STEP))
        for one in bodies:
            one.judge(True, (i + 1) * 5 * STEP)
    assert len(bodies) == 3
    follower._persons = follower._lookout._persons = 2
    bodies[1].known = bodies[2].known = True
    assert set(map(id, follower.find(rgb, 62 * STEP))) == {id(bodies[1]), id(bodies[2])}
    follower.close()
