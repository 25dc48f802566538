"""Cameras that give depth beside pictures, behind one seam: recorded folders and three makers' devices.

A `DepthSource` (depth_source.py) gives sights; here they become the frames of a source like any other. Each device
has a small file of its own (depth_orbbec.py, depth_realsense.py, depth_oak.py), whose library is loaded only when it is
asked for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from realtime.depth_source import DepthSource, Sight
from realtime.errors import SourceError
from realtime.feed import SILENCE_S, Opened, SourceInfo, after_first
from realtime.schema import Frame

DEVICES = ("orbbec", "realsense", "oak")

log = logging.getLogger(__name__)


def open_device(name: str) -> Opened:
    """One of DEVICES. SourceError where its library is not installed, none is plugged in, or it gives no picture."""
    return opened(device(name))


def device(name: str) -> DepthSource:
    """One of DEVICES, streaming."""
    if name == "orbbec":
        from realtime.depth_orbbec import Orbbec

        return Orbbec()
    if name == "realsense":
        from realtime.depth_realsense import RealSense

        return RealSense()
    if name == "oak":
        from realtime.depth_oak import Oak

        return Oak()
    raise SourceError(f"depth:{name}: no such device; devices are {', '.join(DEVICES)}")


def open_recorded(path: Path) -> Opened:
    """A depth recording, a folder or the depth.json in it; SourceError says what is wrong with it."""
    from realtime.depth_recording import RecordedDepth  # loads cv2

    return opened(RecordedDepth(path))


def opened(source: DepthSource) -> Opened:
    """A depth source as one that plays; its first sight is read now, so that a bad one is refused on opening.

    Whether the lenses it states are those of its pictures is left to who takes them: measured ones come first.
    """
    try:
        first, frames = after_first(
            _frames(source), f"{source.named}: it gives no picture at all; record it again, or check its cable"
        )
        info = _info(source, first)
    except SourceError:
        source.close()
        raise
    return Opened(info, frames, source.close, source.tally)


def _first(source: DepthSource) -> Sight | None:
    """The first sight; of a camera, whose two streams do not begin at once, the first with depth within SILENCE_S."""
    until_s = time.monotonic() + SILENCE_S
    sight = source.read()
    while source.live and sight is not None and sight.depth is None and time.monotonic() < until_s:
        sight = source.read()
    return sight


def _info(source: DepthSource, first: Frame) -> SourceInfo:
    assert first.image is not None
    if first.depth is None:
        raise SourceError(
            f"{source.named} gives no depth pictures for {SILENCE_S:.0f} s; check its cable (USB 3) and power"
            if source.live
            else f"{source.named}: its first picture has no depth; record it again, or leave depth: out"
        )
    (height, width), size = first.image.shape[:2], (first.depth.shape[1], first.depth.shape[0])
    return SourceInfo(
        source.id, source.kind, width, height, source.fps, live=source.live, depth_size=size, rig=source.rig
    )


def _frames(source: DepthSource) -> Iterator[Frame]:
    index, size, sight = 0, None, _first(source)
    while sight is not None:
        depth = sight.depth
        if depth is not None and (depth.dtype != np.uint16 or depth.ndim != 2):
            raise SourceError(
                f"{source.named}: a depth picture must be (h, w) uint16 millimetres, got {depth.shape} {depth.dtype}"
            )
        size = depth.shape if size is None and depth is not None else size
        if depth is not None and depth.shape != size:
            if not source.tally.corrupt:
                log.warning("%s: a depth picture has another size than the first; it is left out", source.named)
            source.tally.corrupt += 1
            depth = None
        yield Frame(index, sight.captured_ns, sight.image, depth=depth)
        index, sight = index + 1, source.read()
