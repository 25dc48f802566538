"""Skeleton files as data sets publish them, frame by frame: NTU `.skeleton`, NW-UCLA `.json`, test clips `.npz`.

Everything comes out in the project's terms: metres, Kinect camera axes, confidence per joint, small track ids.
Frame.captured_ns is media time. Damaged files raise SourceError, which names the file, the place and the rule.
"""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from realtime.errors import SourceError
from realtime.feed import Opened, SourceInfo, Tally, after_first, topic_id
from realtime.schema import SECOND_NS, Frame, Pose
from realtime.skeleton import KINECT_V1_20, KINECT_V2_25, LAYOUTS, Layout

NTU_FPS = 30.0
# NW-UCLA states no rate. Inferred from the time in which the head falls or rises through the middle 60 % of its way
# (people who sit down, stand up, pick up: 3.2 to 4.3 frames) and from walkers, who make 0.064 to 0.080 strides a frame:
# 12 gives 0.3 s and 0.9 strides a second. Believe it to a third.
NW_UCLA_FPS = 12.0
FARTHEST_M = 1000.0  # a coordinate beyond this is no measurement, and its square would not stay finite for long
MOST_BODIES = 64
TRACKING = {0.0: 0.0, 1.0: 0.5, 2.0: 1.0}  # Kinect: not tracked, inferred, tracked
# x and y of image-like axes (right, down) turned into Kinect's (the sensor's left, up); not a mirror.
AXES = {"kinect": (1.0, 1.0, 1.0), "image": (-1.0, -1.0, 1.0)}
UNITS = {"m": 1.0, "mm": 0.001}

log = logging.getLogger(__name__)


def screened(joints: np.ndarray, confidence: np.ndarray, tally: Tally, named: str) -> tuple[np.ndarray, np.ndarray]:
    """Joints (V, 3) and confidence (V) as float32, finite: a joint that is not, or lies 1 km away, becomes missing.

    Missing is confidence 0 at the origin. Such joints are counted in tally.refused; the first is logged.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        joints = np.asarray(joints).astype(np.float32)
        confidence = np.asarray(confidence).astype(np.float32)
        bad = ~((np.abs(joints) <= FARTHEST_M).all(axis=1) & np.isfinite(confidence))
    count = int(np.count_nonzero(bad))
    if count:
        refuse(tally, count, f"{named}: joints that are not finite or beyond {FARTHEST_M:.0f} m are taken as missing")
        joints = np.where(bad[:, None], np.float32(0), joints)
        confidence = np.where(bad, np.float32(0), confidence)
    return joints, confidence


def refuse(tally: Tally, count: int, sentence: str) -> None:
    """Counts what was turned away; the first time it is also logged."""
    if not tally.refused:
        log.warning("%s; more are counted, not logged", sentence)
    tally.refused += count


def open_ntu(path: Path) -> Opened:
    """NTU RGB+D 60 and 120 `.skeleton` (README of the data set): 25 joints, 30 frames a second, bodies by id.

    Track ids count from 1 in order of appearance; a body that comes back keeps its own. Inferred joints have
    confidence 0.5. A frame without bodies has no poses.
    """
    info = SourceInfo(topic_id(path.stem), "poses", fps=NTU_FPS, layout=KINECT_V2_25.name)
    tally = Tally()
    try:
        lines = _Lines(path)
    except OSError as error:
        raise SourceError(f"recording {path}: {error.strerror}; check its permissions") from error
    try:
        _, frames = after_first(_ntu_frames(lines, tally), f"{lines.named} holds no frame; name another")
    except SourceError:
        lines.close()
        raise
    return Opened(info, frames, lines.close, tally)


class _Lines:
    """The lines of a text file as words and numbers; errors name the line."""

    def __init__(self, path: Path) -> None:
        self.named = f"recording {path}"
        self._file = path.open(encoding="ascii", errors="replace")
        self.close = self._file.close
        self._number = 0

    def wrong(self, rule: str) -> SourceError:
        """The error to raise about the line read last."""
        return SourceError(f"{self.named}, line {self._number}: {rule}")

    def words(self, what: str) -> list[str]:
        """The next line's words; SourceError when the file ends."""
        self._number += 1
        line = self._file.readline(10_000)
        if not line:
            raise self.wrong(f"the file is cut short where {what} should be; copy it again")
        return line.split()

    def count(self, most: int, what: str) -> int:
        """The next line's single whole number in [0, most]."""
        words = self.words(what)
        if len(words) != 1 or not words[0].isdecimal() or int(words[0]) > most:
            raise self.wrong(f"{what} must be in [0, {most}], got {' '.join(words)[:40]!r}")
        return int(words[0])

    def numbers(self, least: int, what: str) -> list[float]:
        """The next line's numbers, at least so many."""
        words = self.words(what)
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = []
        if len(values) < least:
            raise self.wrong(f"{what} is {least} numbers, got {' '.join(words)[:40]!r}")
        return values


def _ntu_frames(lines: _Lines, tally: Tally) -> Iterator[Frame]:
    tracks: dict[str, int] = {}
    for index in range(lines.count(10_000_000, "the number of frames")):
        captured_ns = round(index / NTU_FPS * SECOND_NS)
        poses: dict[int, Pose] = {}
        for _ in range(lines.count(MOST_BODIES, "the number of bodies")):
            body = (lines.words("a body") or [""])[0]  # ids exceed what a float can hold: kept as text
            track = tracks.setdefault(body, len(tracks) + 1)
            joints, confidence = _ntu_body(lines, tally)
            if track in poses:
                refuse(tally, 1, f"{lines.named}, frame {index}: body {body} comes twice, the second is left out")
                continue
            poses[track] = Pose(index, captured_ns, track, KINECT_V2_25, joints, confidence)
        yield Frame(index, captured_ns, poses=tuple(poses.values()))


def _ntu_body(lines: _Lines, tally: Tally) -> tuple[np.ndarray, np.ndarray]:
    """Joints (25, 3) and confidence (25): x y z, eight numbers that are not used, tracking state."""
    count = lines.count(1000, "the number of joints")
    if count != len(KINECT_V2_25):
        raise lines.wrong(f"{KINECT_V2_25.name} has {len(KINECT_V2_25)} joints, got {count}")
    rows = [lines.numbers(12, "a joint") for _ in range(count)]
    states = [TRACKING.get(row[11]) for row in rows]
    if None in states:
        raise lines.wrong(f"a joint's tracking state must be 0, 1 or 2, got {[row[11] for row in rows]}")
    joints = np.array([row[:3] for row in rows])
    return screened(joints, np.where(joints.any(axis=1), np.array(states, float), 0.0), tally, lines.named)


def open_nw_ucla(path: Path, *, fps: float = NW_UCLA_FPS) -> Opened:
    """NW-UCLA `.json` (`skeletons` T x 20 x 3), one person. The set states no frame rate: fps is what to play it at.

    All-zero joints were not tracked and have confidence 0.
    """
    named = f"recording {path}"
    try:
        skeletons = json.loads(path.read_bytes())["skeletons"]
        if not isinstance(skeletons, list):
            raise TypeError
    except OSError as error:
        raise SourceError(f"{named}: {error.strerror}; check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{named} is not JSON, or cut short: {error}; copy it again") from error
    except (KeyError, TypeError):
        raise SourceError(f"{named} has no list `skeletons` as NW-UCLA's files do; name such a file") from None
    tally = Tally()
    info = SourceInfo(topic_id(path.stem), "poses", fps=fps, layout=KINECT_V1_20.name)
    _, frames = after_first(_nw_ucla_frames(skeletons, fps, tally, named), f"{named} holds no frame; name another")
    return Opened(info, frames, lambda: None, tally)


def _nw_ucla_frames(skeletons: Any, fps: float, tally: Tally, named: str) -> Iterator[Frame]:
    for index, skeleton in enumerate(skeletons):
        try:
            joints = np.array(skeleton, np.float64)
        except (TypeError, ValueError):
            joints = np.empty(0)
        if joints.shape != (len(KINECT_V1_20), 3):
            raise SourceError(f"{named}, frame {index}: {KINECT_V1_20.name} is 20 joints x 3, got {_shape(skeleton)}")
        captured_ns = round(index / fps * SECOND_NS)
        confidence = joints.any(axis=1)
        pose = Pose(index, captured_ns, 1, KINECT_V1_20, *screened(joints, confidence, tally, named))
        yield Frame(index, captured_ns, poses=(pose,) if confidence.any() else ())


def _shape(rows: Any) -> str:
    return f"{len(rows)} rows" if isinstance(rows, list) else f"{type(rows).__name__}"


def open_npz(path: Path, *, fps: float = 30.0) -> Opened:
    """A test clip `.npz`, its bodies tracks 1, 2, ... in order; a body that is all zero or all NaN is absent.

    Arrays: joints (T, V, 3) or (T, M, V, 3); layout, a name. Optional: confidence like joints without its last axis,
    in [0, 1]; times_ns (T), rising, or fps; units "m" or "mm"; axes "kinect" or "image" (x right, y down, z away: what
    Azure and MediaPipe give).
    """
    named = f"clip {path}"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:  # np.load leaves a broken one open
            data = {name: arrays[name] for name in arrays.files}
    except OSError as error:
        raise SourceError(f"{named}: {error.strerror or error}; check the file and its permissions") from error
    except (ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise SourceError(f"{named} is not a readable .npz: {error}; write it again with numpy.savez") from error
    layout, joints, confidence, times_ns = _npz_arrays(data, named, fps)
    tally = Tally()
    rate = (len(times_ns) - 1) / max(1e-9, (times_ns[-1] - times_ns[0]) / SECOND_NS) if len(times_ns) > 1 else None
    info = SourceInfo(topic_id(path.stem), "poses", fps=rate, layout=layout.name)
    frames = _npz_frames(layout, joints, confidence, times_ns, tally, named)
    return Opened(info, frames, lambda: None, tally)


def _npz_arrays(
    data: dict[str, np.ndarray], named: str, fps: float
) -> tuple[Layout, np.ndarray, np.ndarray, np.ndarray]:
    """Layout, joints (T, M, V, 3) in metres and Kinect axes, confidence (T, M, V), times_ns (T)."""
    layout = LAYOUTS[_choice(data, "layout", None, LAYOUTS, named)]
    scale = UNITS[_choice(data, "units", "m", UNITS, named)] * np.array(
        AXES[_choice(data, "axes", "kinect", AXES, named)]
    )
    joints = data.get("joints", np.empty(0))
    if joints.ndim == 3:
        joints = joints[:, None]
    if joints.ndim != 4 or joints.shape[2:] != (len(layout), 3) or not joints.size or joints.dtype.kind not in "fiu":
        raise SourceError(
            f"{named}: {layout.name} needs joints (T, V, 3) or (T, M, V, 3) with V = {len(layout)}, "
            f"got {joints.dtype} {data.get('joints', joints).shape}"
        )
    confidence = data.get("confidence", np.ones(joints.shape[:3]))
    confidence = confidence[:, None] if confidence.ndim == 2 else confidence
    numbers = confidence.dtype.kind in "fiub"
    if confidence.shape != joints.shape[:3] or not numbers or ((confidence < 0) | (confidence > 1)).any():
        got = f"{confidence.dtype} {confidence.shape}"
        raise SourceError(f"{named}: confidence must be {joints.shape[:3]} in [0, 1], got {got}")
    rate = data.get("fps", np.array(fps))
    if rate.size != 1 or rate.dtype.kind not in "fiu" or not 0 < rate.item() <= 1000:
        raise SourceError(f"{named}: fps must be a number in (0, 1000], got {str(rate)[:40]}")
    even_ns = np.round(np.arange(len(joints)) / rate.item() * SECOND_NS).astype(np.int64)
    times_ns = data.get("times_ns", even_ns)
    if times_ns.shape != (len(joints),) or times_ns.dtype.kind not in "iu":
        raise SourceError(f"{named}: times_ns must be {len(joints)} integers, got {times_ns.dtype} {times_ns.shape}")
    late = np.flatnonzero(np.diff(times_ns.astype(np.int64)) <= 0)
    if late.size:
        raise SourceError(f"{named}: times_ns must rise; it does not after frame {late[0]}")
    return layout, joints * scale, confidence, times_ns


def _choice(data: dict[str, np.ndarray], name: str, default: str | None, known: Collection[str], named: str) -> str:
    value = str(data[name]) if name in data else default
    if value is None or value not in known:
        raise SourceError(f"{named}: {name} must be one of {', '.join(known)}, got {value!r}")
    return value


def _npz_frames(
    layout: Layout, joints: np.ndarray, confidence: np.ndarray, times_ns: np.ndarray, tally: Tally, named: str
) -> Iterator[Frame]:
    for index, captured_ns in enumerate(times_ns.tolist()):
        bodies = joints[index]
        there = (np.nan_to_num(bodies, posinf=1.0, neginf=1.0) != 0).any(axis=(1, 2))
        poses = tuple(
            Pose(index, captured_ns, int(m) + 1, layout, *screened(bodies[m], confidence[index, m], tally, named))
            for m in np.flatnonzero(there)
        )
        yield Frame(index, captured_ns, poses=poses)
