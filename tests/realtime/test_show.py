"""The overlay: what is drawn where, and when there is no window to draw in."""

from __future__ import annotations

import socket

import numpy as np
import pytest

from realtime.errors import UsageError
from realtime.generator import perform
from realtime.pipeline import Step
from realtime.schema import SECOND_NS, Event, Frame, Pose, Scores
from realtime.show import Board, Screen, draw, no_display, places
from realtime.skeleton import KINECT_V2_25

CLASSES = ("nothing", "wave", "walk")


@pytest.fixture
def pose() -> Pose:
    motion = perform([("nothing", 1.0)], seed=1, noise=False)
    return Pose(0, 0, 1, KINECT_V2_25, motion.joints[15], np.ones(25, np.float32))


def scores(track: int = 1) -> Scores:
    return Scores(0, 0, track, 0, np.zeros(3, np.float32), np.array([0.1, 0.7, 0.2], np.float32))


def event(phase: str, at_s: float, action: str = "wave") -> Event:
    at = int(at_s * SECOND_NS)
    ended = {"offset_ns": at, "end_reason": "score"} if phase == "end" else {}
    return Event(f"1-{action}", phase, 1, action, 0.7, 0.7, 0.8, 0.6, 0.4, 0.5, SECOND_NS, at, **ended)


def step(at_s: float, *events: Event, some: tuple[Scores, ...] = (), lost: tuple[int, ...] = ()) -> Step:
    return Step(Frame(0, int(at_s * SECOND_NS)), (), [], list(some), list(events), list(lost), (0, 0, 0, 0))


def test_a_skeleton_without_a_picture_is_drawn_whole_and_the_right_way_round(pose):
    picture = draw(None, [pose])
    assert picture.shape == (480, 640, 3)
    where = places(pose, 480, 640)
    assert ((where > 0) & (where < (640, 480))).all()
    right, left, head, foot = (
        where[KINECT_V2_25.index(name)] for name in ("right_hand", "left_hand", "head", "left_foot")
    )
    assert right[0] < left[0]  # facing the camera, the right hand is on the left of the picture
    assert head[1] < foot[1]
    x, y = where[KINECT_V2_25.index("head")].round().astype(int)
    assert picture[y, x].max() > 200


def test_the_picture_given_is_left_as_it_was(pose):
    image = np.full((360, 640, 3), 90, np.uint8)
    before = image.copy()
    image.setflags(write=False)
    drawn = draw(image, [pose], [scores()], [event("start", 1.0)], classes=CLASSES, fps=29.97)
    assert np.array_equal(image, before)
    assert drawn.shape == image.shape
    assert not np.array_equal(drawn, image)


def test_a_joint_that_was_not_seen_is_not_drawn(pose):
    seen = draw(None, [pose])
    confidence = np.ones(25, np.float32)
    wrist = KINECT_V2_25.index("right_tip")
    confidence[wrist] = 0
    unseen = draw(None, [Pose(0, 0, 1, KINECT_V2_25, pose.joints, confidence)])
    x, y = places(pose, 480, 640)[wrist].round().astype(int)
    assert seen[y, x].max() > 200 > unseen[y, x].max()


def test_odd_numbers_break_nothing(pose):
    joints = pose.joints.copy()
    joints[3], joints[5], joints[7] = np.nan, (1e30, 0, 2), (0, 0, 0)
    image_joints = np.full((25, 2), 0.5, np.float32)
    image_joints[4] = (np.inf, -9.0)
    nobody = Pose(0, 0, 1, KINECT_V2_25, pose.joints, np.zeros(25, np.float32))
    for one in (
        Pose(0, 0, 9, KINECT_V2_25, joints, np.ones(25, np.float32)),
        Pose(0, 0, 2, KINECT_V2_25, joints - joints[0], np.ones(25, np.float32), image_joints),
        nobody,
    ):
        for shape in ((480, 640, 3), (48, 64, 3), (1, 1, 3)):
            assert draw(np.zeros(shape, np.uint8), [one], [scores(one.track)], classes=CLASSES, fps=0.0).shape == shape


def test_bars_need_the_classes_of_the_scores(pose):
    with pytest.raises(ValueError, match="2 classes but 3 probabilities"):
        draw(None, [pose], [scores()], classes=("nothing", "wave"))


def test_the_board_keeps_open_events_and_one_line_of_history_each():
    board = Board(CLASSES, {"wave": "waving"})
    board.take(step(0.0, some=(scores(),)))
    board.take(step(1.5, event("start", 1.5)))
    board.take(step(2.5, event("update", 2.5)))
    assert list(board.open) == ["1-wave"]
    assert [(line.action, line.at_s, line.lasted_s) for line in board.history] == [("wave", 1.0, None)]
    board.take(step(3.5, event("end", 3.5), lost=(1,)))
    assert not board.open
    assert not board.scores
    assert [(line.action, line.lasted_s) for line in board.history] == [("wave", 2.5)]


def test_what_the_board_draws_changes_with_the_score(pose):
    board = Board(CLASSES, {"wave": "waving"})
    empty = board.draw(None, [pose])
    board.take(step(0.0, event("start", 1.0), some=(scores(), scores(2))))
    assert not np.array_equal(board.draw(None, [pose]), empty)
    assert np.array_equal(board.draw(None, []), Board(CLASSES).draw(None, [])) is False  # the history stays


@pytest.mark.parametrize(
    ("environment", "platform", "why"),
    [
        ({}, "linux", "neither DISPLAY"),
        ({"DISPLAY": ""}, "linux", "neither DISPLAY"),
        ({"DISPLAY": ":971"}, "linux", "no display answers"),
        ({"DISPLAY": "localhost:-1"}, "linux", "no display answers"),
        ({"DISPLAY": "nonsense"}, "linux", "no display answers"),
        ({}, "darwin", None),
        ({}, "win32", None),
    ],
)
def test_where_no_display_is_the_line_is_headless(environment, platform, why):
    found = no_display(environment, platform)
    assert found is None if why is None else why in found


def test_a_display_that_answers_is_one():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if port < 6000:
            pytest.skip(f"the system gave port {port}, below X11's")
        assert no_display({"DISPLAY": f"127.0.0.1:{port - 6000}.0"}, "linux") is None


def test_a_window_without_a_display_says_what_to_do(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("realtime.show.no_display", lambda: "no display answers at DISPLAY=:9")
    with pytest.raises(UsageError, match="--headless"):
        Screen()
