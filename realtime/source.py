"""What `--source` takes, turned into a source that plays: cameras, streams, files, skeletons, standard input."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from realtime.clips import NW_UCLA_FPS, open_npz, open_ntu, open_nw_ucla
from realtime.errors import SourceError, UsageError
from realtime.feed import STALLED_S, Feed, Opened, Replay, Source, SourceInfo, Tally
from realtime.live import Live
from realtime.loop import looped
from realtime.schema import Frame, Pose
from realtime.secrets import redacted
from realtime.skeleton import KINECT_V2_25
from realtime.slot import Change
from realtime.watch import Watch

__all__ = ["Source", "SourceInfo", "open_source", "redacted"]

FORMS = (
    "a camera index (0), /dev/videoN, a video file, a folder of pictures, rtsp:// or http://, a recording "
    "(.mcap .skeleton .json .jsonl .npz), a depth camera (depth:orbbec, depth:realsense, depth:oak) or a recording of "
    "one (depth:FOLDER), - for standard input, or synthetic"
)


def open_source(
    spec: str,
    *,
    fast: bool,
    mirror: bool = False,
    loop: bool = False,
    fps: float | None = None,
    stdin: int = 0,
    seed: int | None = None,
) -> Source:
    """Opens a source; what cannot be opened raises SourceError with what, why and the next thing to try.

    fast: files give every frame, as fast as it is consumed; else they play at live pace and the newest frame wins.
    Cameras and streams are always live, and are opened again for ever once they played; standard input always gives
    every line: its sender waits. loop: files begin again at their end; UsageError for what has none.
    mirror: for pictures that arrive mirrored, as a selfie preview does (and for skeletons made from such): turns
    them back, so that left is left again. fps: the rate of what states none (folders of pictures, NW-UCLA, .npz)
    and of `synthetic`; default 30, of NW-UCLA 12. stdin: file descriptor that `-` reads. seed: of `synthetic`.
    """
    if fps is not None and not 0 < fps <= 1000:
        raise UsageError(f"fps must be in (0, 1000], got {fps}")
    if spec == "-":
        _endless(spec, loop)
        return _open_stdin(stdin, mirror)
    if spec == "synthetic":
        return _played(partial(_open_synthetic, seed, fps or 30.0), fast, mirror, loop=False)  # it has no end
    if spec.startswith("depth:"):
        return _open_depth(spec.removeprefix("depth:"), fast, mirror, loop)
    if spec.isdecimal() or spec.startswith("/dev/") or "://" in spec:
        return _open_device(spec, fast, mirror, loop)
    path = _existing(spec)
    opener = _RECORDINGS.get(path.suffix.lower())
    if opener is not None and path.is_file():
        return _played(partial(opener, path, fps), fast, mirror, loop)
    from realtime import camera  # loads cv2 and av, which skeletons do without

    if path.is_dir():
        return _played(partial(camera.open_images, path, fps=fps or 30.0, mirror=mirror), fast, mirror, loop)
    return _played(partial(camera.open_video, path, mirror=mirror), fast, mirror, loop)


def _endless(spec: str, loop: bool) -> None:
    if loop:
        raise UsageError(f"--loop is for files; {redacted(spec)} has no end at which to begin again: leave it out")


def _played(
    opening: Callable[[], Opened],
    fast: bool,
    mirror: bool,
    loop: bool,
    there: Callable[[], bool] | None = None,
    spec: str = "this source",
) -> Source:
    """What `opening` opens, played as its kind is; it is opened now, and again as often as that takes."""
    opened = opening()
    if opened.info.live:
        if loop:
            opened.release()
        _endless(spec, loop)
        return Live(opened, opening, there=there)
    if opened.info.skeletons and mirror:  # pictures are mirrored where they are decoded
        opened, opening = _turned(opened), _turning(opening)
    if loop:
        opened = looped(opened, opening)
    if not fast:
        return Feed(opened, "paced")
    return Replay(opened) if opened.info.skeletons else Feed(opened, "every")


def _turned(opened: Opened) -> Opened:
    return replace(opened, frames=(_mirrored(item) if isinstance(item, Frame) else item for item in opened.frames))


def _turning(opening: Callable[[], Opened]) -> Callable[[], Opened]:
    return lambda: _turned(opening())


def _open_device(spec: str, fast: bool, mirror: bool, loop: bool) -> Source:
    from realtime import camera

    if "://" in spec:
        return _played(partial(camera.open_stream, spec, mirror=mirror), fast, mirror, loop, spec=spec)
    device = int(spec) if spec.isdecimal() else spec
    _endless(spec, loop)
    there = partial(os.path.exists, camera.camera_path(device)) if sys.platform == "linux" else None
    return _played(partial(camera.open_camera, device, mirror=mirror), fast, mirror, loop, there)


def _open_depth(spec: str, fast: bool, mirror: bool, loop: bool) -> Source:
    """A depth camera or a recording of one."""
    from realtime import depth

    if mirror:
        raise UsageError(
            f"--mirror: the lenses of depth:{spec} are those of its pictures as they come; turn the mirroring off "
            "where they are made, and leave --mirror out"
        )
    if spec in depth.DEVICES:
        return _played(partial(depth.open_device, spec), fast, mirror, loop, spec=f"depth:{spec}")
    if not spec:
        raise SourceError(f"depth: names no source; it is one of {', '.join(depth.DEVICES)}, or a recording's folder")
    return _played(partial(depth.open_recorded, _existing(spec)), fast, mirror, loop)


def _open_stdin(descriptor: int, mirror: bool) -> Source:
    from realtime.recording import open_lines

    if os.isatty(descriptor):
        raise SourceError("source - reads pose messages from standard input, which is a terminal; pipe them in")
    opened = open_lines(descriptor, "stdin")
    opened = replace(opened, frames=watched(opened.frames))
    return Feed(_turned(opened) if mirror else opened, "every", STALLED_S)


def watched(frames: Iterator[Frame | Change]) -> Iterator[Frame | Change]:
    """Skeletons of a sender that lives, without those that stand still to the last bit."""
    watch = Watch()
    for item in frames:
        change, deliver = watch.see(item) if isinstance(item, Frame) else (item, False)
        if change is not None:
            yield change
        if deliver:
            yield item


def _open_synthetic(seed: int | None, fps: float) -> Opened:
    from realtime.generator import synthetic_frames

    info = SourceInfo("synthetic", "synthetic", fps=fps, layout=KINECT_V2_25.name)
    return Opened(info, synthetic_frames(seed=seed, fps=fps), lambda: None, Tally())


def _mcap(path: Path, fps: float | None) -> Opened:
    from realtime.recording import open_recording

    return open_recording(path)


def _lines(path: Path, fps: float | None) -> Opened:
    from realtime.recording import open_lines_file

    return open_lines_file(path)


_RECORDINGS: dict[str, Callable[[Path, float | None], Opened]] = {
    ".mcap": _mcap,
    ".partial": _mcap,  # what a crash left of a recording
    ".jsonl": _lines,
    ".skeleton": lambda path, fps: open_ntu(path),
    ".json": lambda path, fps: open_nw_ucla(path, fps=fps or NW_UCLA_FPS),
    ".npz": lambda path, fps: open_npz(path, fps=fps or 30.0),
}


def _existing(spec: str) -> Path:
    """The path, where there is something to read."""
    path = Path(spec).expanduser()
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        raise SourceError(f"source {redacted(spec)!r} is not there; {_hint(path)}") from None
    except (OSError, ValueError) as error:
        raise SourceError(
            f"source {spec!r}: {getattr(error, 'strerror', error)}; check path and permissions"
        ) from error
    if path.is_file() and size == 0:
        raise SourceError(f"source {spec!r} is empty (0 bytes); copy or record it again")
    if not os.access(path, os.R_OK):
        raise SourceError(f"source {spec!r}: no permission to read it; run chmod +r on it, or ask its owner")
    return path


def _hint(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {folder} either; a source is {FORMS}"
    close = difflib.get_close_matches(path.name, os.listdir(folder), n=1, cutoff=0.75)
    return f"did you mean {folder / close[0]}?" if close else f"a source is {FORMS}"


_FLIP_3D = np.array((-1, 1, 1), np.float32)
_FLIP_2D, _SHIFT_2D = np.array((-1, 1), np.float32), np.array((1, 0), np.float32)


def _mirrored(frame: Frame) -> Frame:
    """Skeletons seen in a mirror: left and right change names, and x its sign."""
    return replace(frame, poses=tuple(_mirrored_pose(pose) for pose in frame.poses or ()))


def _mirrored_pose(pose: Pose) -> Pose:
    order = list(pose.layout.mirror())
    image_joints, box = pose.image_joints, pose.box
    if image_joints is not None:
        image_joints = image_joints[order] * _FLIP_2D + _SHIFT_2D
    if box is not None:
        box = (1 - box[0] - box[2], *box[1:])
    joints = pose.joints[order] * _FLIP_3D
    return replace(pose, joints=joints, confidence=pose.confidence[order], image_joints=image_joints, box=box)
