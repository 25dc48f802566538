"""How frames travel from a source to the line: a capture thread, one slot where the newest frame wins, and pacing.

A reader is a generator of `Frame`; it knows nothing of threads. Three ways of playing it:
live      a camera: captured_ns is the monotonic clock at the grab, one slot, the newest frame wins (realtime/live.py);
paced     a file at live pace: each frame is due at start + media time, one slot, the newest frame wins;
every     a file as fast as it is consumed: every frame, read a few ahead.
A file's reader gives media time in captured_ns, from any zero; what comes out is start + media time.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from realtime.errors import SourceError
from realtime.rig import Rig
from realtime.schema import SECOND_NS, Frame
from realtime.secrets import redacted
from realtime.slot import Change, Slot

__all__ = ["Change", "Feed", "Opened", "Replay", "Source", "SourceInfo", "Tally"]

BREATH_S = 0.2  # the longest that the line waits before it is told that nothing new came
STALLED_S = 2.0  # a source that gives nothing for so long is said to be stalled
SILENCE_S = 3.0  # a camera that gives no frame for so long is lost
# A paced file that is read too slowly is put back on time when so late. The jump of the clock that this makes must stay
# well below the gap that ends a track (resample.RESET_GAP_NS).
LATE_NS = SECOND_NS // 5
AHEAD = 4  # frames read ahead of a consumer that wants every one: 25 MB at 1080p

log = logging.getLogger(__name__)


UPRIGHT, PLACED = MARKS = "upright", "placed"  # poses were turned by a floor; their places were measured by depth


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What is known of a source before its first frame.

    id: letters, digits, - and _, for topics. kind: camera, video, images, stream, poses or synthetic.
    width, height: pixels as delivered (rotation applied), None for skeletons and where unknown; fps: nominal.
    live: its frames cannot wait, and carry the time of their grab. layout: of the poses; None for pictures, and on
    stdin, which has not spoken yet. depth_size: width, height of the depth pictures beside the others, None where there
    are none. rig: how the two cameras stand to each other, where the source itself states it. marks: those of MARKS
    that were so when its poses were recorded.
    """

    id: str
    kind: str
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    live: bool = False
    layout: str | None = None
    depth_size: tuple[int, int] | None = None
    rig: Rig | None = None
    marks: frozenset[str] = frozenset()

    @property
    def skeletons(self) -> bool:
        """Whether its frames carry poses instead of a picture."""
        return self.kind in ("poses", "synthetic")


class Source(Protocol):
    """Frames and changes in order, or None when nothing new came within 0.2 s.

    Ends at the end of a file; SourceError when lost for good.
    """

    info: SourceInfo

    @property
    def paced(self) -> bool:
        """Whether frames come when they are due, so that now - captured_ns is their age."""

    @property
    def dropped(self) -> int:
        """Frames overwritten unread."""

    @property
    def refused(self) -> int:
        """Joints that were not finite, and malformed lines."""

    @property
    def corrupt(self) -> int:
        """Pictures that did not decode, or came out marked as damaged; none of them is delivered."""

    @property
    def reconnects(self) -> int:
        """How often it was opened again after it was lost."""

    def __iter__(self) -> Iterator[Frame | Change | None]:
        """Itself; iterate it in one thread."""

    def close(self) -> None:
        """Frees the device or file; a second call does nothing."""


@dataclass(slots=True)
class Tally:
    """What a source has lost so far; a reader counts into the same tally as its feed."""

    dropped: int = 0
    refused: int = 0
    corrupt: int = 0
    reconnects: int = 0


@dataclass(frozen=True, slots=True)
class Opened:
    """An open source, not yet playing. release frees what it holds, whether frames was begun or not, and twice too."""

    info: SourceInfo
    frames: Iterator[Frame | Change]
    release: Callable[[], None]
    tally: Tally


class Feed:
    """Plays an opened source through a capture thread, which starts at the first frame asked for."""

    def __init__(self, opened: Opened, play: Literal["paced", "every"], stalled_s: float | None = None) -> None:
        """stalled_s: a source of which nothing comes for so long is said to be stalled, and waited for; None: never."""
        self.info = opened.info
        self._opened = opened
        self._tally = opened.tally
        self._play = play
        self._slot = Slot(AHEAD if play == "every" else None)
        self._closing = threading.Event()
        self._error: Exception | None = None
        self._stalled_s = stalled_s
        self._heard_s = 0.0  # when the last item came
        self._stalled = False
        self._held: Frame | Change | None = None  # what came after a stall, until that is said to be over
        self._thread: threading.Thread | None = None

    @property
    def paced(self) -> bool:
        """Whether frames come when they are due; not so of a file read as fast as it goes."""
        return self._play != "every"

    @property
    def dropped(self) -> int:
        """Frames overwritten unread."""
        return self._tally.dropped

    @property
    def refused(self) -> int:
        """Joints that were not finite, and malformed lines."""
        return self._tally.refused

    @property
    def corrupt(self) -> int:
        """Pictures that did not decode, or came out marked as damaged; none of them is delivered."""
        return self._tally.corrupt

    @property
    def reconnects(self) -> int:
        """How often it was opened again after it was lost."""
        return self._tally.reconnects

    def __iter__(self) -> Iterator[Frame | Change | None]:
        return self

    def __next__(self) -> Frame | Change | None:
        """The next frame or change, None after 0.2 s without one; StopIteration at the end, SourceError when lost."""
        if self._thread is None:
            self._heard_s = time.monotonic()
            self._thread = threading.Thread(target=self._run, name=f"capture-{self.info.id}", daemon=True)
            self._thread.start()
        item, self._held = self._held or self._slot.take(BREATH_S), None
        if item is not None:
            if not self._stalled:
                return item
            self._stalled, self._held = False, item
            return Change("online", item.captured_ns, "it goes on")
        if not self._slot.over:
            return self._silence()
        if self._error is not None:
            raise self._error
        raise StopIteration

    def close(self) -> None:
        """Stops the thread and frees the file; a second call does nothing."""
        self._closing.set()
        self._slot.close(forget=True)
        self._held = None
        if self._thread is None:
            self._opened.release()
        else:
            self._thread.join(timeout=1.0)  # one that waits for a silent sender is left behind

    def _silence(self) -> Change | None:
        """Says once that nothing comes. The windows go on: what a sender means by a pause is told by its times."""
        silent_s = time.monotonic() - self._heard_s
        if self._stalled_s is None or self._stalled or silent_s < self._stalled_s:
            return None
        self._stalled = True
        return Change("stalled", time.monotonic_ns(), f"nothing came for {silent_s:.1f} s; check that the sender runs")

    def _run(self) -> None:
        """The capture thread: what goes wrong in it is raised where the frames are consumed."""
        try:
            for item in self._on_time():
                self._tally.dropped += self._slot.put(item)
                self._heard_s = time.monotonic()
                if self._closing.is_set():
                    break
        except Exception as caught:  # noqa: BLE001 - whatever it is, it is raised again in the consumer's thread
            self._error = caught
        finally:
            self._opened.release()
            self._slot.close()

    def _on_time(self) -> Iterator[Frame | Change]:
        """Media time becomes start + media time; a paced file waits until each frame is due."""
        start_ns: int | None = None
        told = False
        for frame in self._opened.frames:
            now_ns = time.monotonic_ns()
            if start_ns is None:
                start_ns = now_ns - frame.captured_ns
            due_ns = start_ns + frame.captured_ns
            if self._play == "paced":
                if due_ns > now_ns:
                    self._closing.wait((due_ns - now_ns) / SECOND_NS)
                elif now_ns - due_ns > LATE_NS:
                    # Reading is slower than real time: a gap now keeps the age of later frames bounded.
                    if not told:
                        log.warning("%s is read slower than it plays; its time is stretched", self.info.id)
                        told = True
                    start_ns += now_ns - due_ns
            yield _later(frame, start_ns)


class Replay:
    """Plays skeletons as fast as they are consumed, in the consumer's thread: a hand-over costs more than reading."""

    def __init__(self, opened: Opened) -> None:
        self.info = opened.info
        self._opened = opened
        self._start_ns: int | None = None

    paced = False
    dropped = corrupt = reconnects = 0  # every frame is delivered, none is a picture, and a file is opened once

    @property
    def refused(self) -> int:
        """Joints that were not finite, and malformed lines."""
        return self._opened.tally.refused

    def __iter__(self) -> Iterator[Frame | Change | None]:
        return self

    def __next__(self) -> Frame | Change:
        """The next frame or change at start + media time; never None."""
        frame = next(self._opened.frames)
        if self._start_ns is None:
            self._start_ns = time.monotonic_ns() - frame.captured_ns
        return _later(frame, self._start_ns)

    def close(self) -> None:
        """Frees the file; a second call does nothing."""
        self._opened.release()


def shifted(frame: Frame, by_ns: int) -> Frame:
    """The frame and its poses at a later capture time."""
    captured_ns = frame.captured_ns + by_ns
    poses = frame.poses
    if poses:
        poses = tuple(replace(pose, captured_ns=captured_ns) for pose in poses)
    return replace(frame, captured_ns=captured_ns, poses=poses)


def _later(item: Frame | Change, by_ns: int) -> Frame | Change:
    return shifted(item, by_ns) if isinstance(item, Frame) else replace(item, captured_ns=item.captured_ns + by_ns)


def after_first(frames: Iterator[Frame], nothing: str) -> tuple[Frame, Iterator[Frame]]:
    """The first frame, read now so that a bad file is refused on opening, and all frames with it in front.

    SourceError with the sentence `nothing` where there is none.
    """
    first = next(frames, None)
    if first is None:
        raise SourceError(nothing)
    return first, _with(first, frames)


def _with(first: Frame, rest: Iterator[Frame]) -> Iterator[Frame]:
    yield first
    yield from rest


def topic_id(text: str) -> str:
    """Letters, digits, - and _ only, at most 40, never empty; an address gives its host and port."""
    if "://" in text:
        text = re.split(r"[/?#]", redacted(text).partition("://")[2].replace("***@", ""))[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:40] or "source"
