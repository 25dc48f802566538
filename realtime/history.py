"""What a restarted child must know, kept by the line in memory files that the child inherits. Linux only.

The line appends each kept message as a frame; a new child reads the frames that stand there when it is started and
hears everything later through its channel. So a restart costs the line nothing, however much there is to read.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace

from realtime.outlet_wire import KEEP, MESSAGE, NEWEST, OVER, PUBLISH, FrameError, Parcel, Reader, frame
from realtime.ring import BYTES_AT_MOST, KEYS_AT_MOST

_PIECE = 1 << 20

log = logging.getLogger(__name__)


class History:
    """The newest kept messages: two memory files, of which the older one goes when the newer one is full."""

    def __init__(self, size: int = BYTES_AT_MOST) -> None:
        self._half = size // 2
        self._files: list[int] = []  # descriptors, the newer one last
        self._written = 0
        self._newest: OrderedDict[str, Parcel] = OrderedDict()
        self.session: str | None = None
        self.following: dict[str, int] = {}  # family -> number of its next message

    def add(self, parcel: Parcel) -> None:
        """Keeps a message that is for replay, or for those who come late."""
        if parcel.session != self.session:
            self.session, self.following = parcel.session, {}
            self._newest.clear()
        if not parcel.does & (KEEP | NEWEST | OVER):
            return
        self.following[parcel.family] = parcel.seq + 1
        if parcel.does & (NEWEST | OVER):
            self._newest.pop(parcel.key, None)
        if parcel.does & NEWEST:
            self._newest[parcel.key] = parcel
            if len(self._newest) > KEYS_AT_MOST:
                self._newest.popitem(last=False)
        try:
            if not self._files or self._written >= self._half:
                self._turn_over()
            self._append(replace(parcel, does=parcel.does & ~PUBLISH))
        except OSError as error:
            log.warning("cannot keep messages for replay (%s); after a restart of the sockets some are gone", error)
            self.close()

    def files(self) -> list[tuple[int, int]]:
        """Descriptor and bytes of each file as of now, older first."""
        return [(descriptor, os.fstat(descriptor).st_size) for descriptor in self._files]

    def close(self) -> None:
        """Frees the memory."""
        for descriptor in self._files:
            os.close(descriptor)
        self._files, self._written = [], 0

    def _turn_over(self) -> None:
        self._files.append(os.memfd_create("pcle-live", os.MFD_CLOEXEC))
        self._written = 0
        while len(self._files) > 2:
            os.close(self._files.pop(0))
        for parcel in tuple(self._newest.values()):  # may be older than everything that is left
            self._append(replace(parcel, does=NEWEST))

    def _append(self, parcel: Parcel) -> None:
        data = frame(MESSAGE, parcel.body())
        if os.write(self._files[-1], data) != len(data):
            raise OSError("a memory file took a part of a message only")
        self._written += len(data)


def read_history(files: list[tuple[int, int]]) -> Iterator[Parcel]:
    """The messages in such files, oldest first; FrameError where they are not whole."""
    for descriptor, size in files:
        reader, at = Reader(), 0
        while at < size:
            piece = os.pread(descriptor, min(_PIECE, size - at), at)
            if not piece:
                raise FrameError(f"a memory file ends at {at} of {size} bytes")
            at += len(piece)
            for _, body in reader.feed(piece):
                yield Parcel.of(body)
