"""Views taken by themselves while a person holds the board into the camera: sharp, still, and each a new one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calib import vision, written
from calib.coverage import VIEWS, Coverage
from calib.map_picture import draw_live
from calib.views import Finder, Reading, View, blurred, complete, look
from realtime.errors import UsageError
from realtime.schema import SECOND_NS, Frame
from realtime.slot import Change

STILL = 0.0035  # of the picture's width that corners may move between two frames; a moving board is smeared
PAUSE_NS = SECOND_NS // 2  # between two views
KEPT = 3  # pictures without a board that are kept, to find out why there is none


@dataclass(frozen=True, slots=True)
class Told:
    """What happened in one frame, for a person: a view was taken or not, and why."""

    taken: bool
    state: str
    coverage: Coverage | None


class Capture:
    """Takes views out of frames until nothing is missing.

    most: views to take at most, None: until the guide asks for nothing more. keep: a folder to put the pictures of the
    views in, so that they can be measured again with --images. still: whether the board must be still (not so where
    frames are single pictures).
    """

    def __init__(self, finder: Finder, most: int | None = None, keep: Path | None = None, still: bool = True) -> None:
        self.reading = Reading()
        self.coverage: Coverage | None = None
        self.samples: list[np.ndarray] = []  # pictures without a board, and the first with one
        self.view: View | None = None  # of the newest frame
        self._finder, self._most, self._keep, self._still = finder, most, keep, still
        self._before: View | None = None
        self._taken_ns: int | None = None

    def see(self, frame: Frame) -> Told:
        """Looks at one frame. UsageError where the pictures change their size."""
        assert frame.image is not None
        picture = vision.grey(frame.image)
        self.reading.read += 1
        self._before, self.view = self.view, self._finder(picture, f"view-{len(self.reading.views) + 1:03d}", False)
        state = self._why_not(frame)
        if state is not None:
            if self.view is None:
                self._note_missing(picture)
            return Told(False, state, self.coverage)
        if self.coverage is None:
            self.coverage = Coverage((picture.shape[1], picture.shape[0]), self._finder.board)
        return self._take(frame, picture)

    @property
    def done(self) -> bool:
        """Whether enough was taken."""
        if self._most is not None:
            return len(self.reading.views) >= self._most
        return self.coverage is not None and self.coverage.done

    @property
    def goal(self) -> int:
        """Views that will be about enough."""
        return self._most or max(VIEWS, len(self.reading.views) + (0 if self.done else 1))

    def _why_not(self, frame: Frame) -> str | None:
        """Why this frame gives no view, None where it does."""
        view, board = self.view, self._finder.board
        if view is None:
            return "no board in the picture"
        if self.coverage is not None and view.size != self.coverage.size:
            raise UsageError(
                f"the pictures are not of one size: they were {self.coverage.size[0]}x{self.coverage.size[1]} and are "
                f"{view.size[0]}x{view.size[1]} now; set the camera to one size and begin again"
            )
        if not complete(view, board):
            return (
                f"only {len(view.numbers)} of {board.columns * board.rows} corners: bring more of it into the picture"
            )
        if blurred(view, board):
            return f"blurred (edges {view.edge_px:.1f} px wide): hold it still, or set the focus"
        if self._still and self._moved() > STILL * view.size[0]:
            return "hold it still"
        if self._taken_ns is not None and self._still and frame.captured_ns - self._taken_ns < PAUSE_NS:
            return "taken; now move on"
        if self.coverage is not None and not self.coverage.fresh(view):
            return "seen so already"
        return None

    def _moved(self) -> float:
        """Pixels that the corners moved since the last frame, on average."""
        if self.view is None or self._before is None:
            return float("inf")
        both, here, there = np.intersect1d(self.view.numbers, self._before.numbers, return_indices=True)
        if not len(both):
            return float("inf")
        return float(np.linalg.norm(self.view.corners[here] - self._before.corners[there], axis=1).mean())

    def _take(self, frame: Frame, picture: np.ndarray) -> Told:
        # Looked at once more, thoroughly: the quick search is enough to see that there is a board.
        view = look(self.reading, self._finder, picture, f"view-{len(self.reading.views) + 1:03d}")
        if view is None:
            return Told(False, "no board in the picture", self.coverage)
        assert self.coverage is not None and frame.image is not None
        self.coverage.add(view)
        self._taken_ns = frame.captured_ns
        if len(self.reading.views) == 1:
            self.samples.insert(0, picture)
        if self._keep is not None:
            written.write(self._keep / f"{view.name}.png", vision.write_picture(frame.image), "--keep")
        return Told(True, f"view {len(self.reading.views)} taken", self.coverage)

    def _note_missing(self, picture: np.ndarray) -> None:
        if len(self.samples) < KEPT:
            self.samples.append(picture)
            look(self.reading, self._finder, picture, f"frame {self.reading.read}")


def play(
    frames: Iterable[Frame | Change | None], capture: Capture, tell: Callable[[Told | Change, np.ndarray | None], bool]
) -> None:
    """Frames into the capture until it is done, they end, or tell says False.

    tell(what, picture for a window) is called for each frame, and for each change of the source.
    """
    for item in frames:
        if isinstance(item, Change):
            if not tell(item, None):
                return
        elif item is not None and item.image is not None:
            told = capture.see(item)
            lines = (told.state, _next(capture))
            if not tell(told, draw_live(item.image, capture.coverage, capture.view, lines)) or capture.done:
                return


def _next(capture: Capture) -> str:
    missing = capture.coverage.missing() if capture.coverage else "hold the board so that all of it is in the picture"
    return f"next: {missing}" if missing else "enough; q ends it"


def until(frames: Iterator[Frame | Change | None], seconds: float | None) -> Iterator[Frame | Change | None]:
    """The frames of the first so many seconds of the source's own time."""
    first_ns: int | None = None
    for item in frames:
        if isinstance(item, Frame):
            first_ns = item.captured_ns if first_ns is None else first_ns
            if seconds is not None and item.captured_ns - first_ns > seconds * SECOND_NS:
                return
        yield item
