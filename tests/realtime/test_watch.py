"""What is seen in the frames of a source that misbehaves, in capture time alone."""

from __future__ import annotations

import time

import numpy as np
import pytest

from realtime.schema import SECOND_NS, Frame, Pose
from realtime.skeleton import CORE_16
from realtime.slot import Change
from realtime.watch import Watch

RNG = np.random.default_rng(0)
STILL = RNG.integers(0, 255, (120, 160, 3), np.uint8)
BLACK = np.zeros((120, 160, 3), np.uint8)


def noise(height: int = 120, width: int = 160) -> np.ndarray:
    return RNG.integers(0, 255, (height, width, 3), np.uint8)


class Story:
    """Frames given to a watch one after the other, what it told and what it let through."""

    def __init__(self) -> None:
        self.watch, self.at_s, self.told, self.through = Watch(), 100.0, [], []

    def show(self, picture, seconds: float, fps: float = 20.0) -> list[tuple[float, str]]:
        """Pictures for so long; (seconds since their beginning, state) of every change."""
        begun, told = self.at_s, []
        for _ in range(round(seconds * fps)):
            self.at_s += 1 / fps
            image = picture() if callable(picture) else picture
            change, deliver = self.watch.see(Frame(0, round(self.at_s * SECOND_NS), image))
            if change is not None:
                told.append((round(self.at_s - begun, 2), change.state))
                self.told.append(change)
            if deliver:
                self.through.append(self.at_s)
        return told


def test_a_lively_picture_says_nothing_and_goes_through():
    story = Story()
    assert story.show(noise, 10) == []
    assert len(story.through) == 200


def test_the_same_picture_for_two_seconds_is_frozen_and_the_next_other_one_comes_at_once():
    story = Story()
    story.show(noise, 1)
    assert story.show(STILL, 5) == [(2.05, "frozen")]
    assert max(story.through) < 100 + 1 + 2.06  # nothing since
    assert story.told[0].reset == "the picture was frozen"  # what it already gave is thrown away
    assert story.show(noise, 1) == [(0.05, "online")]
    assert story.told[1].reset == "the picture was frozen"
    assert sum(at > 106 for at in story.through) == 20


def test_one_pixel_of_a_still_scene_is_enough_to_be_no_frozen_one():
    story = Story()

    def nearly():
        image = STILL.copy()
        image[60, 4::8] ^= RNG.integers(0, 2, (20, 3), np.uint8)  # off the coarse samples
        return image

    assert story.show(nearly, 6) == []


def test_a_still_room_that_is_well_compressed_does_not_cry_wolf_all_night():
    story = Story()
    told = []
    for _ in range(450):  # half an hour: a new key picture every 4 s, and nothing else changes
        told += story.show(noise(), 4, fps=10)
    assert len(told) <= 2
    story.show(noise, 1)
    before = len(story.through)
    story.show(noise, 1)
    assert len(story.through) - before == 20  # whoever comes in is seen at once


def test_ten_minutes_later_a_frozen_picture_is_told_after_two_seconds_again():
    story = Story()
    for _ in range(3):
        story.show(STILL, 5, fps=10)
        story.show(noise, 1, fps=10)
    story.show(noise, 601, fps=5)
    assert story.show(STILL, 4, fps=10) == [(2.1, "frozen")]


def test_a_black_picture_is_dark_after_a_second_and_a_dim_one_is_not():
    story = Story()
    story.show(noise, 1)
    assert story.show(BLACK, 5) == [(1.0, "dark")]  # not frozen as well
    assert story.show(lambda: noise() // 6, 2) == [(0.05, "online")]
    assert [change.reset for change in story.told] == ["the picture was black"] * 2
    clock = BLACK.copy()
    clock[2:8, 4:40] = 255  # the time, drawn into the picture
    assert story.show(clock, 2) == [(1.0, "dark")]


def test_a_flicker_at_the_threshold_does_not_flap():
    story = Story()
    story.show(BLACK, 2)
    assert story.show(lambda: np.full_like(BLACK, RNG.integers(14, 19)), 5) == []  # dark until it is clearly lit


@pytest.mark.parametrize("fps", [0.4, 1.0, 3.0])
def test_too_few_frames_are_told_once_within_three_seconds_and_still_go_through(fps):
    story = Story()
    story.show(noise, 3)
    before = len(story.through)
    told = [at for at, state in story.show(noise, 30, fps) if state == "degraded"]
    assert len(told) == 1 and told[0] <= max(3.4, 2 / fps + 0.1)
    assert len(story.through) - before == round(30 * fps)
    back = story.show(noise, 3)
    assert [state for _, state in back] == ["online"] and back[0][0] <= 0.5


def test_a_rate_between_the_thresholds_keeps_the_state_it_had():
    story = Story()
    story.show(noise, 4, fps=2)
    assert [state for _, state in story.show(noise, 10, fps=4.5)] == []
    assert story.watch.state == "degraded"


def test_another_size_begins_windows_anew_and_says_both():
    story = Story()
    story.show(noise, 1)
    story.show(lambda: noise(240, 320), 1)
    story.show(lambda: noise(320, 240), 1)
    assert [change.reset for change in story.told] == [
        "the picture's size changed from 160x120 to 320x240",
        "the picture's size changed from 320x240 to 240x320",
    ]
    assert len(story.through) == 60


def test_another_rate_is_told_and_begins_nothing_anew():
    story = Story()
    story.show(noise, 4, fps=30)
    assert [state for _, state in story.show(noise, 8, fps=15)] == ["online"]
    assert story.told[0].reason == "it gives 15 frames a second now, 30 before" and story.told[0].reset is None


def test_a_gap_in_capture_time_is_told_for_what_it_is():
    story = Story()
    story.show(noise, 1)
    story.at_s += 1.0
    assert story.show(noise, 1) == [(0.05, "online")]
    assert story.told[0].reset == "no frame came for 1.1 s"


def test_skeletons_that_stand_still_to_the_last_bit_are_frozen_and_an_empty_room_is_not():
    watch = Watch()
    joints = RNG.normal(size=(16, 3)).astype(np.float32)

    def see(at_s: float, given: np.ndarray | None) -> tuple[Change | None, bool]:
        at = round(at_s * SECOND_NS)
        poses = () if given is None else (Pose(0, at, 1, CORE_16, given, np.ones(16, np.float32)),)
        return watch.see(Frame(0, at, poses=poses))

    told = [see(step / 20, joints if step else joints + 1) for step in range(100)]
    assert [change.state for change, _ in told if change] == ["frozen"]
    assert "skeleton" in next(change.reason for change, _ in told if change)
    assert sum(deliver for _, deliver in told) in (40, 41, 42)  # two seconds of them
    change, deliver = see(5.0, joints + 0.001)
    assert change.state == "online" and deliver
    assert all(see(5.05 + step / 20, None) == (None, True) for step in range(100))


def test_looking_costs_little():
    watch, picture = Watch(), RNG.integers(0, 255, (1080, 1920, 3), np.uint8)
    pictures = [np.roll(picture, step, axis=1) for step in range(4)]
    spent = []
    for step in range(100):
        frame = Frame(step, step * SECOND_NS // 30, pictures[step % 4])
        begun = time.perf_counter()
        watch.see(frame)
        spent.append(time.perf_counter() - begun)
    assert np.percentile(spent, 25) < 0.5e-3  # 0.05 ms on an idle machine
