"""Looks at what a source gives: a picture that stands still or is dark, too few of them, another size, a gap.

Every decision is taken in capture time. Pictures of a frozen or dark camera are withheld, so that none reaches a
window; the line goes on beating without them, and the first picture that is different is delivered at once.

**Frozen** is the same picture, bit for bit, for 2 s while pictures keep coming. A sensor that sees a person is never
so still; a hung driver or encoder is. But a still, empty room that is well compressed can be: there, nothing is lost
by withholding it. So that such a room does not cry wolf all night, pictures are withheld from 2 s on every time, but
the time after which it is *told* doubles (2 s, 4 s … 60 s) with each spell that ends by itself, and is 2 s again after
ten minutes without one. What is not told needs no word either: a person's windows begin anew by themselves after a
gap of 0.5 s.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from realtime.resample import RESET_GAP_NS
from realtime.schema import SECOND_NS, Frame, State
from realtime.slot import Change

GRID = (18, 32)  # samples of a picture, rows and columns
DENSE = 8  # where the samples agree, every eighth pixel of every eighth row is compared
STILL_NS = 2 * SECOND_NS
PATIENCE_MOST_NS = 60 * SECOND_NS
FORGIVEN_NS = 600 * SECOND_NS
DARK_NS = SECOND_NS
DARK_MEAN, DARK_SPREAD = 16, 12  # of 255: darker and flatter than this nobody can be made out
LIT_MEAN, LIT_SPREAD = 20, 16  # and this is light again
SLOW_FPS, WELL_FPS = 4.0, 5.0  # below the first no two poses are near enough for the rows between to be observed
RATE_NS = 2 * SECOND_NS  # over which the rate is measured
SLOW_NS = SECOND_NS  # it must be low for so long, which a short silence alone does not bring about
RATE_CHANGE = 1.4  # a rate that changes by this factor, for 3 s, is another rate
RATE_CHANGE_NS = 3 * SECOND_NS


class Still:
    """The same thing again and again: from when it is withheld, and from when it is told."""

    def __init__(self, after_ns: int, most_ns: int) -> None:
        """after_ns: withheld from then on; most_ns: what the time until it is told doubles up to."""
        self._after_ns = self._patience_ns = after_ns
        self._most_ns = most_ns
        self._since_ns: int | None = None
        self._ended_ns: int | None = None  # when the last spell ended
        self.withheld = self.told = False

    def see(self, same: bool, now_ns: int) -> None:
        """Takes in whether this frame shows the same as the one before it."""
        if not same:
            if self.withheld:
                self._patience_ns = min(2 * self._patience_ns, self._most_ns)
                self._ended_ns = now_ns
            self._since_ns, self.withheld, self.told = now_ns, False, False
            return
        if self._since_ns is None:
            self._since_ns = now_ns
        lasted_ns = now_ns - self._since_ns
        if lasted_ns >= self._after_ns and not self.withheld:
            self.withheld = True
            if self._ended_ns is None or now_ns - self._ended_ns > FORGIVEN_NS:
                self._patience_ns = self._after_ns
        self.told = self.withheld and lasted_ns >= self._patience_ns


class Rate:
    """Frames a second over the last two seconds of capture time, and whether that is too few for a second."""

    def __init__(self) -> None:
        self.nominal: float | None = None  # what the source gives when it is well
        self.begin()

    def begin(self) -> None:
        """Measures anew; the nominal rate is kept."""
        self._times: deque[int] = deque()
        self._begun_ns: int | None = None
        self.fps: float | None = None  # None until two seconds were seen
        self.slow = False
        self._slow_since_ns: int | None = None
        self._other_since_ns: int | None = None

    def see(self, now_ns: int) -> str | None:
        """Takes in one frame; a sentence where the source gives another rate than before, for three seconds."""
        self._begun_ns = now_ns if self._begun_ns is None else self._begun_ns
        self._times.append(now_ns)
        while self._times[0] <= now_ns - RATE_NS:
            self._times.popleft()
        if now_ns - self._begun_ns < RATE_NS:
            return None
        self.fps = len(self._times) / (RATE_NS / SECOND_NS)
        if self.fps >= (WELL_FPS if self.slow else SLOW_FPS):
            self.slow, self._slow_since_ns = False, None
            return self._changed(self.fps, now_ns)
        self._slow_since_ns = now_ns if self._slow_since_ns is None else self._slow_since_ns
        self.slow = now_ns - self._slow_since_ns >= SLOW_NS
        self._other_since_ns = None
        return None

    def _changed(self, fps: float, now_ns: int) -> str | None:
        self.nominal = fps if self.nominal is None else self.nominal
        if 1 / RATE_CHANGE < fps / self.nominal < RATE_CHANGE:
            self._other_since_ns = None
            return None
        self._other_since_ns = now_ns if self._other_since_ns is None else self._other_since_ns
        if now_ns - self._other_since_ns < RATE_CHANGE_NS:
            return None
        before, self.nominal, self._other_since_ns = self.nominal, fps, None
        return f"it gives {fps:.0f} frames a second now, {before:.0f} before"


class Watch:
    """Watches one source's frames in the order of their capture; `see` gives what the line is to have of them."""

    def __init__(self) -> None:
        self.rate = Rate()
        self._size: tuple[int, int] | None = None  # height, width of the last picture
        self.begin()

    def begin(self) -> None:
        """The source was lost: what was seen before says nothing about the frames that follow.

        Its rate and size are kept, so that another camera at the same address is noticed.
        """
        self.state: State = "online"
        self.rate.begin()
        self._still, self._dark = Still(STILL_NS, PATIENCE_MOST_NS), Still(DARK_NS, DARK_NS)
        self._last: Frame | None = None
        self._grid: np.ndarray | None = None  # GRID, uint8, of the last picture
        self._interval_ns = 0  # between the last two frames

    def see(self, frame: Frame) -> tuple[Change | None, bool]:
        """The change that this frame brings about, which comes before it, and whether the frame is to be delivered."""
        now_ns, was = frame.captured_ns, self.state
        rate = self.rate.see(now_ns)
        if frame.image is not None:
            self._look(frame.image, now_ns)
        else:
            self._still.see(_same_poses(frame, self._last), now_ns)
        broken = self._break(frame)
        self._interval_ns = 0 if self._last is None else now_ns - self._last.captured_ns
        self._last = frame
        self.state = self._state()
        deliver = not (self._dark.withheld or self._still.withheld)
        if self.state == was:
            why = broken or (rate if was == "online" else None)
            return Change(was, now_ns, why, broken) if why else None, deliver
        unseen = [_UNSEEN[state] for state in (self.state, was) if state in _UNSEEN]
        return Change(self.state, now_ns, self._reason(was), broken or (unseen[0] if unseen else None)), deliver

    def _state(self) -> State:
        if self._dark.told:
            return "dark"
        if self._still.told and not self._dark.withheld:
            return "frozen"
        return "degraded" if self.rate.slow else "online"

    def _reason(self, was: State) -> str:
        if self.state == "dark":
            return "the picture is black; check the lens cover, the light and the cable"
        if self.state == "frozen":
            what = "picture" if self._grid is not None else "skeleton"
            return f"the same {what} again and again; plug the camera in again, unless it shows an empty room"
        if self.state == "degraded":
            few = f"{self.rate.fps or 0:.1f} frames a second, too few to recognise much (below {SLOW_FPS:.0f})"
            return f"{few}; check light, cable and network"
        back = {"dark": "there is light again", "frozen": "the picture changes again"}
        return back.get(was, "enough frames a second again")

    def _break(self, frame: Frame) -> str | None:
        """Why this picture does not continue the one before it: another size, or a gap in time."""
        if frame.image is None:
            return None  # the times of skeletons are their sender's, and the window stage goes by them
        height, width = frame.image.shape[:2]
        before, self._size = self._size, (height, width)
        if before not in (None, (height, width)):
            return f"the picture's size changed from {before[1]}x{before[0]} to {width}x{height}"
        if self._last is None or self.rate.slow:
            return None
        # The window stage would end the tracks by itself, and say that the people were not seen.
        gap_ns = frame.captured_ns - self._last.captured_ns
        usual = gap_ns < 2 * self._interval_ns  # a slow camera, not yet called so
        return None if usual or gap_ns <= RESET_GAP_NS else f"no frame came for {gap_ns / SECOND_NS:.1f} s"

    def _look(self, image: np.ndarray, now_ns: int) -> None:
        """Compares samples of the picture with those before, and takes their brightness."""
        height, width = image.shape[:2]
        rows, columns = max(height // GRID[0], 1), max(width // GRID[1], 1)
        grid = image[rows // 2 :: rows, columns // 2 :: columns, 1].copy()  # green carries most of the brightness
        same = self._grid is not None and grid.shape == self._grid.shape and grid.tobytes() == self._grid.tobytes()
        if same and self._last is not None and self._last.image is not None:
            same = np.array_equal(_dense(image), _dense(self._last.image))
        self._grid = grid
        self._still.see(same, now_ns)
        order = np.sort(grid, axis=None)
        edge = len(order) // 20  # a clock drawn into the picture, or a lamp on the wall, is no light
        mean, spread = int(order.sum()) / len(order), int(order[-1 - edge]) - int(order[edge])
        most, widest = (LIT_MEAN, LIT_SPREAD) if self._dark.withheld else (DARK_MEAN, DARK_SPREAD)
        self._dark.see(mean < most and spread < widest, now_ns)


_UNSEEN: dict[State, str] = {"dark": "the picture was black", "frozen": "the picture was frozen"}


def _dense(image: np.ndarray) -> np.ndarray:
    return image[DENSE // 2 :: DENSE, DENSE // 2 :: DENSE]


def _same_poses(frame: Frame, before: Frame | None) -> bool:
    """Whether somebody is there, and everybody's joints are those of the frame before, bit for bit."""
    if before is None or not frame.poses or not before.poses or len(frame.poses) != len(before.poses):
        return False
    return all(
        now.joints.shape == then.joints.shape and now.joints.tobytes() == then.joints.tobytes()
        for now, then in zip(frame.poses, before.poses, strict=True)
    )
