"""MediaPipe as a stage: real people stay, sandals and chairs do not, bad pictures and broken graphs do no harm."""

import importlib.util
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from realtime.body import Belief, Landmarks, believe
from realtime.errors import LineError, UsageError
from realtime.pose import MediaPipePose, PassThrough, _load_mediapipe, refuse_foreign_models
from realtime.quiet import quiet_stderr
from realtime.schema import Frame, Pose
from realtime.skeleton import BLAZEPOSE_33, KINECT_V2_25

STEP = 33_333_333  # ns
needs_mediapipe = pytest.mark.skipif(importlib.util.find_spec("mediapipe") is None, reason="mediapipe is not installed")
J = KINECT_V2_25.index
Pictures = Callable[..., list[np.ndarray]]


@pytest.fixture(scope="module")
def pictures(shared: Path) -> Pictures:
    """The first BGR pictures of a video, from one on."""
    av = pytest.importorskip("av")

    def read(name: str, count: int, first: int = 0) -> list[np.ndarray]:
        found = []
        with av.open(str(shared / "videos" / name)) as container:
            for i, frame in enumerate(container.decode(video=0)):
                if len(found) == count:
                    break
                if i >= first:
                    found.append(frame.to_ndarray(format="bgr24"))
        return found

    return read


def play(images: list[np.ndarray], stage: MediaPipePose | None = None) -> list[Pose | None]:
    """What the stage finds in pictures at 30 a second, None for nobody."""
    stage = stage or MediaPipePose()
    found = [stage.find(Frame(i, (i + 1) * STEP, image)) for i, image in enumerate(images)]
    stage.close()
    return [poses[0] if poses else None for poses in found]


def test_ready_poses_pass_through() -> None:
    pose = Pose(3, 7, 1, KINECT_V2_25, np.zeros((25, 3), np.float32), np.ones(25, np.float32))
    assert PassThrough().find(Frame(3, 7, poses=(pose,))) == (pose,)
    assert PassThrough().find(Frame(3, 7)) == ()


def test_skeleton_sources_need_neither_mediapipe_nor_cv2() -> None:
    code = "import sys, realtime.pose; assert not {'mediapipe', 'cv2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@needs_mediapipe
def test_a_weightlifter_is_one_well_formed_person(pictures: Pictures) -> None:
    images = pictures("weightlifting.mp4", 30)
    poses = play(images)
    assert poses[:2] == [None, None] and None not in poses[2:]  # the third sighting begins the track
    assert {pose.track for pose in poses[2:]} == {1}
    pose = poses[-1]
    assert (pose.index, pose.captured_ns, pose.layout) == (29, 30 * STEP, KINECT_V2_25)
    assert pose.joints.shape == (25, 3) and pose.joints.dtype == pose.confidence.dtype == np.float32
    assert np.isfinite(pose.joints).all() and pose.confidence.min() >= 0 and pose.confidence.max() <= 1
    # Kinect axes: up is +y, and a person who faces the camera has the right side at the larger x …
    up, across = pose.joints[:, 1], pose.joints[:, 0]
    assert up[J("head")] > up[J("shoulder_center")] > up[J("hip_center")] > up[J("left_knee")] > up[J("left_ankle")]
    assert across[J("right_shoulder")] - across[J("left_shoulder")] > 0.2
    assert across[J("right_hip")] > across[J("left_hip")]
    # … but at the left of the picture, whose y points down.
    x, y, width, height = pose.box
    assert pose.image_joints[J("right_shoulder"), 0] < pose.image_joints[J("left_shoulder"), 0]
    assert pose.image_joints[J("head"), 1] < pose.image_joints[J("left_ankle"), 1]
    assert 0 <= x < x + width <= 1 and 0 <= y < y + height <= 1 and height > 0.5


@needs_mediapipe
def test_a_walk_swings_the_legs_and_keeps_the_bones(pictures: Pictures) -> None:
    poses = play(pictures("treadmill_walk.mp4", 75))[2:]
    joints = np.stack([pose.joints for pose in poses])
    swing = joints[:, J("left_ankle")] - joints[:, J("right_ankle")]
    forward = swing[:, [0, 2]] @ np.linalg.svd(swing[:, [0, 2]] - swing[:, [0, 2]].mean(axis=0))[2][0]
    assert ((np.diff(np.sign(forward)) != 0).sum()) >= 3  # the feet pass each other
    assert np.ptp(forward) > 0.3
    for upper, lower in (("hip", "knee"), ("knee", "ankle")):
        for side in ("left", "right"):
            bone = np.linalg.norm(joints[:, J(f"{side}_{upper}")] - joints[:, J(f"{side}_{lower}")], axis=1)
            assert 0.3 < bone.mean() < 0.55 and bone.std() < 0.15 * bone.mean()


@needs_mediapipe
def test_nobody_is_nobody(pictures: Pictures) -> None:
    stage = MediaPipePose()
    assert play(pictures("nobody_pool.mp4", 80), stage) == [None] * 80
    assert stage.gated > 40  # MediaPipe sees a body in a sandal


@needs_mediapipe
def test_an_empty_chair_and_a_face_are_nobody(pictures: Pictures) -> None:
    chair = [image[100:, :220] for image in pictures("office_fall_from_chair.mp4", 30)]
    face = [image[40:300, 850:1250] for image in pictures("treadmill_walk.mp4", 30)]
    assert play(chair) == [None] * 30
    assert play(face) == [None] * 30


@needs_mediapipe
def test_colours_reach_mediapipe_in_its_order(pictures: Pictures) -> None:
    images = pictures("weightlifting.mp4", 6)
    ours = play(images)[-1].image_joints[J("head")]

    def head(order: int) -> np.ndarray:
        graph = _load_mediapipe().Pose(model_complexity=1, smooth_landmarks=False)
        graph.process(np.zeros((64, 64, 3), np.uint8))
        for image in images:
            landmarks = graph.process(np.ascontiguousarray(image[..., ::order])).pose_landmarks.landmark
        graph.close()
        ears = [landmarks[BLAZEPOSE_33.index(ear)] for ear in ("left_ear", "right_ear")]
        return np.mean([(ear.x, ear.y) for ear in ears], axis=0)

    np.testing.assert_allclose(ours, head(-1), atol=1e-6)
    assert np.abs(ours - head(1)).max() > 1e-4


@needs_mediapipe
def test_views_and_big_pictures_are_as_good_as_copies(pictures: Pictures) -> None:
    images = pictures("treadmill_walk.mp4", 4)
    whole = play(images)[-1]
    wide = [np.pad(image, ((0, 0), (50, 30), (0, 0)))[:, 50:-30] for image in images]
    reversed_twice = [np.ascontiguousarray(image[::-1, ::-1])[::-1, ::-1] for image in images]
    for views in (wide, reversed_twice):
        views[0].setflags(write=False)
        np.testing.assert_array_equal(play(views)[-1].joints, whole.joints)


@needs_mediapipe
def test_bad_pictures_are_counted_and_do_no_harm(pictures: Pictures) -> None:
    images = pictures("weightlifting.mp4", 6)
    bad = [
        None,
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((0, 640, 3), np.uint8),
        np.zeros((48, 64), np.uint8),
        np.zeros((48, 64, 4), np.uint8),
        np.zeros((48, 64, 3), np.uint16),
        np.full((48, 64, 3), np.nan, np.float32),
    ]
    stage = MediaPipePose()
    for i, image in enumerate(images[:3]):
        found = stage.find(Frame(i, (10 + i) * STEP, image))
    assert found
    for image in bad:
        assert stage.find(Frame(4, 13 * STEP, image)) == ()
    assert stage.find(Frame(4, 12 * STEP, images[3])) == ()  # no later than the last
    assert (stage.refused, stage.rebuilt) == (len(bad) + 1, 0)
    assert stage.find(Frame(5, 14 * STEP, images[4]))[0].track == 1
    assert len(stage.find(Frame(6, 15 * STEP, np.zeros((1, 1, 3), np.uint8)))) <= 1
    stage.close()
    stage.close()
    with pytest.raises(LineError, match="closed"):
        stage.find(Frame(7, 16 * STEP, images[5]))


@needs_mediapipe
def test_a_broken_graph_is_replaced_and_one_that_stays_broken_is_told(pictures: Pictures) -> None:
    class Broken:
        def process(self, image: np.ndarray) -> None:
            raise RuntimeError("Graph has errors")

        def close(self) -> None:
            raise RuntimeError("Graph has errors")

    images = pictures("weightlifting.mp4", 4)
    stage = MediaPipePose()
    stage.close()
    stage._graph = Broken()
    assert [bool(stage.find(Frame(i, (i + 1) * STEP, image))) for i, image in enumerate(images)][-1]
    assert stage.rebuilt == 1
    stage.close()
    stage._graph, stage._build = Broken(), Broken
    with pytest.raises(LineError, match="failed on 3 frames in a row: Graph has errors"):
        for i in range(3):
            stage.find(Frame(i, (i + 10) * STEP, images[0]))
    assert stage.rebuilt == 3


@needs_mediapipe
def test_mediapipe_is_made_to_let_go_of_what_is_no_body() -> None:
    def landmark(i: int) -> object:
        return type("P", (), {"x": i / 40, "y": i / 40, "z": 0.0, "visibility": 0.4})

    class Fixed:  # sees the same thing, which is no body, in every picture but black ones
        def __init__(self) -> None:
            self.blacks = 0

        def process(self, image: np.ndarray) -> object:
            self.blacks += not image.any()
            found = type("L", (), {"landmark": [landmark(i) for i in range(33)]}) if image.any() else None
            return type("R", (), {"pose_landmarks": found, "pose_world_landmarks": found})

        def close(self) -> None: ...

    stage = MediaPipePose()
    stage.close()
    stage._graph = graph = Fixed()
    for i in range(95):  # 3.1 s
        assert stage.find(Frame(i, 10**12 + i * STEP, np.full((48, 64, 3), 9, np.uint8))) == ()
    assert stage.gated == 95 and graph.blacks in (3, 4)


@needs_mediapipe
def test_a_second_thread_is_refused() -> None:
    stage, errors = MediaPipePose(), []

    def use() -> None:
        try:
            stage.find(Frame(1, STEP, np.zeros((48, 64, 3), np.uint8)))
        except LineError as error:
            errors.append(str(error))

    stage.find(Frame(0, 1, np.zeros((48, 64, 3), np.uint8)))
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    stage.close()
    assert errors and "one per thread" in errors[0]


@needs_mediapipe
def test_it_starts_in_silence_and_without_what_a_device_leaves_out(shared: Path) -> None:
    code = f"""
import sys, av
from realtime.pose import MediaPipePose
from realtime.schema import Frame
stage = MediaPipePose()
for i, frame in zip(range(4), av.open({str(shared / "videos" / "weightlifting.mp4")!r}).decode(video=0)):
    found = stage.find(Frame(i, i + 1, frame.to_ndarray(format="bgr24")))
assert found
assert not {{"matplotlib", "jax", "sounddevice", "scipy"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=Path(__file__).parents[2], check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_silence_lets_everything_else_through() -> None:
    code = """
import os
from realtime.quiet import quiet_stderr
with quiet_stderr():
    os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\\n")
    os.write(2, b"W0000 00:00:17.2 1 inference_feedback_manager.cc:114] Feedback\\n")
    os.write(2, b"E0000 00:00:17.2 1 graph.cc:1] bad\\n")
    os.write(2, b"disk full\\n")
os.write(2, b"after\\n")
os.close(2)
with quiet_stderr():
    pass
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=Path(__file__).parents[2], check=True)
    assert done.stderr == b"E0000 00:00:17.2 1 graph.cc:1] bad\ndisk full\nafter\n"


def test_stderr_comes_back_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), quiet_stderr():
        raise RuntimeError
    print("here", file=sys.stderr)
    assert capfd.readouterr().err == "here\n"


def test_models_in_the_current_folder_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "site" / "mediapipe"
    (root / "modules").mkdir(parents=True)
    monkeypatch.chdir(root.parent)
    refuse_foreign_models(root)  # the installed ones themselves
    foreign = tmp_path / "else"
    (foreign / "mediapipe" / "modules").mkdir(parents=True)
    monkeypatch.chdir(foreign)
    with pytest.raises(UsageError, match="start in another folder"):
        refuse_foreign_models(root)


def test_without_mediapipe_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mediapipe", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"mediapipe is not installed.*make install"):
        MediaPipePose()


def body(visible: float = 1.0) -> Landmarks:
    """A standing body, all of it seen to the same degree."""
    image = np.full((33, 2), 0.5, np.float32)
    world = np.zeros((33, 3), np.float32)
    for name in ("left_shoulder", "right_shoulder"):
        world[BLAZEPOSE_33.index(name), 1] = 0.5
    return Landmarks(world, image, np.full(33, visible, np.float32))


def changed(found: Landmarks, values: dict[str, float], field: str) -> Landmarks:
    array = getattr(found, field).copy()
    for name, value in values.items():
        array[BLAZEPOSE_33.index(name)] = value
    return found._replace(**{field: array})


LIMBS = [f"{side}_{joint}" for side in ("left", "right") for joint in ("elbow", "wrist", "knee", "ankle")]


@pytest.mark.parametrize(
    ("found", "belief"),
    [
        (body(), Belief.SURE),
        (body(visible=0.5), Belief.NONE),
        (changed(body(), {"left_hip": 1.01}, "image"), Belief.NONE),
        (changed(body(), {"left_hip": 0.6}, "visibility"), Belief.DOUBTFUL),
        (changed(body(), dict.fromkeys(LIMBS, 0.4), "visibility"), Belief.DOUBTFUL),
        (changed(body(), dict.fromkeys(LIMBS, 0.2), "visibility"), Belief.NONE),  # the empty chair
        (changed(body(), dict.fromkeys(LIMBS, 1.5), "image"), Belief.NONE),
        (changed(body(), {"left_shoulder": 0.1, "right_shoulder": 0.1}, "world"), Belief.NONE),
        (changed(body(), {"nose": float("nan")}, "world"), Belief.NONE),
        (changed(body(), {"nose": float("nan")}, "visibility"), Belief.NONE),
    ],
)
def test_what_is_taken_for_a_body(found: Landmarks, belief: Belief) -> None:
    assert believe(found) is belief
