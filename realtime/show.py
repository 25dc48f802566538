"""What a person sees: skeletons, label bars, the last events and the rate, drawn over the picture; and the window.

Drawing only: nothing here decides anything. Pictures are (H, W, 3) uint8, BGR. The picture is never mirrored here.
"""

from __future__ import annotations

import glob
import os
import socket
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from realtime.errors import UsageError
from realtime.pipeline import Step
from realtime.schema import SECOND_NS, Event, Pose, Scores

CANVAS = (480, 640)  # height, width of the picture drawn for skeletons that come without one
FOCAL = 0.85  # of the canvas's width: about the field of view of a Kinect's colour camera
DISTANCE_M = 2.8  # where a skeleton is put that is given about its own hips
UNSURE = 0.3  # joints below this confidence are drawn grey
BARS = 3
HISTORY = 6
FONT = cv2.FONT_HERSHEY_SIMPLEX
COLOURS = ((80, 200, 80), (60, 160, 255), (230, 160, 60), (200, 90, 220), (80, 220, 230), (140, 140, 255))
INK, GREY, DARK = (245, 245, 245), (150, 150, 150), (30, 30, 30)


@dataclass(frozen=True)
class Line:
    """One line of the history: when it began in seconds of the stream, of whom, and for how long if it is over."""

    event: str
    action: str
    track: int
    at_s: float
    lasted_s: float | None = None


class Board:
    """Remembers what one frame alone does not tell: each person's newest scores, open events, those that were.

    names: what an action's id is called on screen; ids without a name stand for themselves.
    """

    def __init__(self, classes: Sequence[str], names: Mapping[str, str] | None = None) -> None:
        self.classes = tuple(classes)
        self.names = dict(names or {})
        self.scores: dict[int, Scores] = {}
        self.open: dict[str, Event] = {}
        self.history: deque[Line] = deque(maxlen=HISTORY)
        self._zero_ns: int | None = None

    def take(self, step: Step) -> None:
        """Takes in what one frame brought about."""
        if self._zero_ns is None:
            self._zero_ns = step.frame.captured_ns
        for scores in step.scores:
            self.scores[scores.track] = scores
        for track in step.lost:
            self.scores.pop(track, None)
        for event in step.events:
            self._note(event)

    def draw(self, image: np.ndarray | None, poses: Sequence[Pose], fps: float | None = None) -> np.ndarray:
        """A new picture with everything known drawn on it."""
        shown = [scores for scores in self.scores.values() if any(pose.track == scores.track for pose in poses)]
        return draw(
            image, poses, shown, tuple(self.open.values()),
            classes=self.classes, names=self.names, history=tuple(self.history), fps=fps,
        )  # fmt: skip

    def _note(self, event: Event) -> None:
        if event.phase == "end":
            self.open.pop(event.id, None)
        else:
            self.open[event.id] = event
        begun = (event.onset_ns - (self._zero_ns or 0)) / SECOND_NS
        lasted = None if event.offset_ns is None else (event.offset_ns - event.onset_ns) / SECOND_NS
        line = Line(event.id, event.action, event.track, begun, lasted)
        places = [i for i, old in enumerate(self.history) if old.event == event.id]
        if places:
            self.history[places[0]] = line
        elif event.phase == "start":
            self.history.append(line)


def draw(
    image: np.ndarray | None,
    poses: Sequence[Pose],
    scores: Sequence[Scores] = (),
    events: Sequence[Event] = (),
    *,
    classes: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
    history: Sequence[Line] = (),
    fps: float | None = None,
) -> np.ndarray:
    """A copy of the picture (H, W, 3), or an empty canvas, with skeletons, open events, bars, history and rate.

    image: uint8 BGR or None. scores: the newest of each person, in the order of classes. events: those open now.
    Poses with image_joints lie where these say; others are seen through a Kinect's lens.
    """
    picture = np.full((*CANVAS, 3), DARK, np.uint8) if image is None else np.array(image, np.uint8)
    called = dict(names or {})
    size = max(0.4, picture.shape[0] / 800.0)
    for pose in poses:
        opened = [event for event in events if event.track == pose.track]
        _skeleton(picture, pose, size, opened, called)
    tracks = {pose.track for pose in poses}
    top = 8
    for scores_of_one in [one for one in scores if one.track in tracks][:3]:
        top = _bars(picture, scores_of_one, classes, called, size, top)
    _history(picture, history, called, size)
    if fps is not None:
        text = f"{fps:.1f} fps"
        width = cv2.getTextSize(text, FONT, size, 1)[0][0]
        _text(picture, text, (picture.shape[1] - width - 10, int(30 * size) + 4), size, INK)
    return picture


def places(pose: Pose, height: int, width: int) -> np.ndarray:
    """Where a pose's joints lie in a picture, (V, 2) pixels; not finite for a joint that has no place."""
    if pose.image_joints is not None:
        return pose.image_joints.astype(np.float64) * (width, height)
    joints = pose.joints.astype(np.float64)  # (V, 3)
    depth = joints[:, 2]
    if np.median(depth) < 0.5:  # about its own hips, not before a sensor
        depth = depth + DISTANCE_M
    depth = np.where(depth > 0.2, depth, np.nan)
    # +x is the sensor's left, which is the left of the picture.
    return np.stack([0.5 * width - FOCAL * width * joints[:, 0] / depth,
                     0.5 * height - FOCAL * width * joints[:, 1] / depth], axis=-1)  # fmt: skip


def _skeleton(picture: np.ndarray, pose: Pose, size: float, opened: Sequence[Event], called: Mapping[str, str]) -> None:
    height, width = picture.shape[:2]
    colour = COLOURS[pose.track % len(COLOURS)]
    where = places(pose, height, width)
    near = np.isfinite(where).all(axis=1) & (np.abs(where) < 4 * max(height, width)).all(axis=1)
    seen = near & (pose.confidence > 0)
    points = np.where(seen[:, None], where, 0.0).round().astype(int)
    thick = max(1, round(3 * size))
    for parent, child in pose.layout.bones:
        if seen[parent] and seen[child]:
            sure = min(pose.confidence[parent], pose.confidence[child]) >= UNSURE
            start, end = tuple(points[parent].tolist()), tuple(points[child].tolist())
            cv2.line(picture, start, end, colour if sure else GREY, thick if sure else 1, cv2.LINE_AA)
    for joint in np.flatnonzero(seen):
        sure = pose.confidence[joint] >= UNSURE
        cv2.circle(picture, tuple(points[joint].tolist()), thick + 1, INK if sure else GREY, -1, cv2.LINE_AA)
    if seen.any():
        label = " + ".join(called.get(event.action, event.action) for event in opened)
        text = f"{pose.track}  {label}" if label else f"{pose.track}"
        top = points[seen].min(axis=0)
        spot = (int(np.clip(top[0], 4, width - 60)), int(np.clip(top[1] - 14 * size, 24 * size, height - 8)))
        _text(picture, text, spot, 1.1 * size, colour if label else GREY)


def _bars(
    picture: np.ndarray, scores: Scores, classes: Sequence[str], called: Mapping[str, str], size: float, top: int
) -> int:
    """The likeliest classes of one person as bars from the left edge; returns where the next block may begin."""
    if len(classes) != len(scores.probabilities):
        raise ValueError(f"{len(classes)} classes but {len(scores.probabilities)} probabilities; give the bundle's")
    row, length = max(14, int(34 * size)), int(0.30 * picture.shape[1])
    best = np.argsort(scores.probabilities)[::-1][:BARS]
    _shade(picture, 4, top, length + 12, row * len(best) + 8)
    for line, index in enumerate(best):
        value = float(np.clip(scores.probabilities[index], 0.0, 1.0))
        low = top + 4 + line * row
        colour = COLOURS[scores.track % len(COLOURS)]
        cv2.rectangle(picture, (8, low + row - max(4, row // 5)), (8 + int(value * length), low + row - 2), colour, -1)
        name = called.get(classes[index], classes[index])
        _text(picture, f"{name} {value:.0%}", (10, low + row - max(6, row // 4) - 2), 0.8 * size, INK)
    return top + row * len(best) + 16


def _history(picture: np.ndarray, history: Sequence[Line], called: Mapping[str, str], size: float) -> None:
    """The last occurrences at the bottom left, the newest lowest."""
    if not history:
        return
    row = max(14, int(32 * size))
    top = picture.shape[0] - row * len(history) - 10
    _shade(picture, 4, top - 4, int(0.46 * picture.shape[1]), row * len(history) + 10)
    for number, line in enumerate(history):
        ended = f", {line.lasted_s:.1f} s" if line.lasted_s is not None else " ..."
        minutes, seconds = divmod(max(0.0, line.at_s), 60.0)
        text = f"{int(minutes):d}:{seconds:04.1f}  {line.track}  {called.get(line.action, line.action)}{ended}"
        colour = COLOURS[line.track % len(COLOURS)] if line.lasted_s is None else INK
        _text(picture, text, (10, top + number * row + int(0.72 * row)), 0.8 * size, colour)


def _shade(picture: np.ndarray, x: int, y: int, width: int, height: int) -> None:
    """Darkens a box so that writing on it can be read."""
    box = picture[max(y, 0) : y + height, x : x + width]
    box[:] = (box * 0.45).astype(np.uint8)


def _text(picture: np.ndarray, text: str, spot: tuple[int, int], size: float, colour: tuple[int, int, int]) -> None:
    """Writes with a dark edge. OpenCV's font has ASCII only; other letters become '?'."""
    plain = text.encode("ascii", "replace").decode()
    thin = max(1, round(1.4 * size))
    cv2.putText(picture, plain, spot, FONT, size, (0, 0, 0), thin + 2, cv2.LINE_AA)
    cv2.putText(picture, plain, spot, FONT, size, colour, thin, cv2.LINE_AA)


def no_display(environment: Mapping[str, str] = os.environ, platform: str = sys.platform) -> str | None:
    """Why no window can be opened here, or None where one can.

    On Linux it looks before OpenCV does: OpenCV's window library ends the whole process where no display answers.
    """
    if not platform.startswith("linux"):
        return None
    display, wayland = environment.get("DISPLAY", ""), environment.get("WAYLAND_DISPLAY", "")
    if not display and not wayland:
        return "neither DISPLAY nor WAYLAND_DISPLAY is set"
    if display:
        return None if _answers(display) else f"no display answers at DISPLAY={display}"
    plugins = Path(cv2.__file__).parent / "qt" / "plugins" / "platforms"
    if plugins.is_dir() and not glob.glob(f"{plugins}/libqwayland*"):
        return "OpenCV's windows need X11 and only Wayland is there; start XWayland, which sets DISPLAY"
    return None


def _answers(display: str) -> bool:
    """Whether an X server takes connections at this display, such as :0 or localhost:10.0."""
    host, _, rest = display.rpartition(":")
    number = rest.partition(".")[0]
    if not number.isdigit():
        return False
    try:
        if host in ("", "unix"):
            for address in (f"/tmp/.X11-unix/X{number}", f"\0/tmp/.X11-unix/X{number}"):
                with socket.socket(socket.AF_UNIX) as knock:
                    knock.settimeout(0.5)
                    if knock.connect_ex(address) == 0:
                        return True
            return False
        with socket.create_connection((host, 6000 + int(number)), timeout=0.5):
            return True
    except (OSError, OverflowError):
        return False


class Screen:
    """A window that shows pictures. UsageError where there is no display; `no_display` tells that beforehand."""

    def __init__(self, title: str = "pcle-live") -> None:
        why = no_display()
        if why:
            raise UsageError(f"cannot open a window: {why}; run with --headless")
        self.title = title
        self._shown = False
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        except cv2.error as error:
            raise UsageError("this OpenCV was built without windows; run with --headless") from error

    def show(self, picture: np.ndarray) -> bool:
        """Shows a picture; False once the user pressed q or Esc or closed the window."""
        cv2.imshow(self.title, picture)
        if not self._shown:
            cv2.resizeWindow(self.title, picture.shape[1], picture.shape[0])
        key = cv2.waitKey(1) & 0xFF
        closed = self._shown and cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) < 1
        self._shown = True
        return key not in (ord("q"), 27) and not closed

    def close(self) -> None:
        """Closes the window; a second call does nothing."""
        if self._shown:
            self._shown = False
            cv2.destroyWindow(self.title)
            cv2.waitKey(1)
