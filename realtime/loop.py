"""A file that begins again at its end, for ever; its time goes on rising, and windows begin anew at the seam."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from realtime.feed import Opened, shifted
from realtime.schema import SECOND_NS, Frame
from realtime.slot import Change

SEAM = "the file began again"


class _Ring:
    """The file's rounds, one after the other."""

    def __init__(self, opened: Opened, reopen: Callable[[], Opened]) -> None:
        self._opened, self._reopen = opened, reopen
        self._closed = False
        self._tally = opened.tally
        self._step_ns = round(SECOND_NS / (opened.info.fps or 30.0))

    def frames(self) -> Iterator[Frame | Change]:
        """Frames in rising time, a Change before the first of each round but the first one."""
        index, last_ns = 0, None
        while not self._closed:
            begin_ns: int | None = None
            for item in self._opened.frames:
                if not isinstance(item, Frame):
                    continue
                if begin_ns is None:
                    begin_ns = item.captured_ns if last_ns is None else last_ns + self._step_ns
                    by_ns = begin_ns - item.captured_ns
                    if last_ns is not None:
                        yield Change("online", begin_ns, SEAM, SEAM)
                frame = replace(shifted(item, by_ns), index=index)
                index += 1
                if last_ns is not None and frame.captured_ns > last_ns and begin_ns != frame.captured_ns:
                    self._step_ns = frame.captured_ns - last_ns
                last_ns = frame.captured_ns
                yield frame
            self._turn()

    def _turn(self) -> None:
        before = self._opened
        before.release()
        if self._closed:
            return
        self._opened = self._reopen()
        self._tally.refused += 0 if before.tally is self._tally else before.tally.refused
        self._tally.corrupt += 0 if before.tally is self._tally else before.tally.corrupt

    def release(self) -> None:
        """Ends the rounds and frees the file; a second call does nothing."""
        self._closed = True
        self._opened.release()


def looped(opened: Opened, reopen: Callable[[], Opened]) -> Opened:
    """An opened file as one without end. reopen opens it again; its SourceError ends the playing."""
    ring = _Ring(opened, reopen)
    return replace(opened, frames=ring.frames(), release=ring.release)
