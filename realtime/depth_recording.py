"""Recordings of a depth camera: a folder that any tool can read and write.

    FOLDER/depth.json        {"schema": "depth-recording/1", "fps": 30.0, "depth_unit_m": 0.001, "rig": {...} or null}
    FOLDER/frames.jsonl      a line a frame: {"t_ms": 33.3, "color": "color/000001.jpg", "depth": "depth/000001.png",
                             "depth_t_ms": 35.0}
    FOLDER/color, FOLDER/depth   pictures, and 16-bit grey PNG: depth in units, 0 where nothing was seen

rig is what calib.depth writes, without schema and measured (realtime/rig.py). depth may be null, and depth_t_ms left
out. Frames are read one by one, so a recording may be of any length; what a crash leaves can be played.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from realtime.depth_source import Sight
from realtime.errors import LineError, SourceError
from realtime.feed import Tally, topic_id
from realtime.fields import Fields, short
from realtime.image import read_picture, read_plain, write_picture
from realtime.rig import Rig, rig_of
from realtime.schema import SECOND_NS

SCHEMA = "depth-recording/1"
REMEDY = "record it again with python -m calib.record_depth"
LONGEST_LINE = 10_000
MS_NS = SECOND_NS // 1000

log = logging.getLogger(__name__)


class Stated(Fields):
    """depth.json of a recording."""

    what = "depth recording"
    file = "depth.json"
    remedy = REMEDY
    error = SourceError
    constants = True


class RecordedDepth:
    """A recording, read frame by frame; a `DepthSource`."""

    kind, live = "depth", False

    def __init__(self, path: Path) -> None:
        """path: the folder, or its depth.json. SourceError says what is missing or wrong."""
        self.folder = path if path.is_dir() else path.parent
        self.named = f"depth recording {self.folder}"
        self.id = topic_id(self.folder.resolve().name)
        about = self._about(self.folder / "depth.json")
        stated = Stated(self.folder, about, ("schema", "fps", "depth_unit_m", "rig"))
        stated.need(stated.values["schema"] == SCHEMA, "schema", repr(SCHEMA))
        self.fps: float | None = stated.number("fps", 0.1, 1000)
        self._unit_mm = 1000 * stated.number("depth_unit_m", 1e-6, 0.1)
        rig = stated.values["rig"]
        self.rig: Rig | None = None if rig is None else rig_of(self.folder, rig, "depth recording", REMEDY)
        self.tally = Tally()
        self._last_ns: int | None = None
        self._count = 0
        try:
            lines = self.folder / "frames.jsonl"
            if lines.exists() and not lines.is_file():  # a pipe would be waited for
                raise SourceError(f"{self.named}: frames.jsonl is no file; {REMEDY}")
            self._lines = lines.open("rb")
        except OSError as error:
            raise SourceError(f"{self.named} has no frames.jsonl ({error.strerror}); {REMEDY}") from error

    def read(self) -> Sight | None:
        """The next frame whose colour picture can be read; None at the end."""
        while line := self._lines.readline(LONGEST_LINE):
            self._count += 1
            if not line.strip():
                continue
            row = self._row(line)
            if row is None:
                continue
            image = read_picture(self._inside(row["color"]))
            if image is None:
                self._lose(f"{row['color']} is not there or cannot be read")
                continue
            return Sight(self._time(row["t_ms"]), image, self._depth(row))
        return None

    def close(self) -> None:
        """Closes the list of frames."""
        self._lines.close()

    def _about(self, path: Path) -> Any:
        if not path.exists():
            raise SourceError(f"{self.named} has no depth.json, so it is none; name a folder that has, or {REMEDY}")
        return Stated.document(self.folder, path)

    def _row(self, line: bytes) -> dict[str, Any] | None:
        """A line's object; None for the last one of a recording that was cut off, which is counted."""
        where = f"{self.named}: frames.jsonl line {self._count}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if not line.endswith(b"\n") and len(line) < LONGEST_LINE and self._last_ns is not None:
                self._lose("the last line of frames.jsonl is cut off")
                return None
            raise SourceError(f"{where} is not valid JSON ({short(str(error))}); {REMEDY}") from error
        if not isinstance(row, dict) or not isinstance(row.get("color"), str):
            raise SourceError(f"{where} names no color picture, got {short(row)}; {REMEDY}")
        for key in ("t_ms", "depth_t_ms"):
            value = row.get(key, 0 if key == "depth_t_ms" else None)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) < 1e12:
                raise SourceError(f"{where}: {key} must be milliseconds, got {short(value)}; {REMEDY}")
        if not isinstance(row.get("depth"), (str, type(None))):
            raise SourceError(f"{where}: depth must be a file's name or null, got {short(row['depth'])}; {REMEDY}")
        return row

    def _time(self, t_ms: float) -> int:
        captured_ns = round(t_ms * MS_NS)
        if self._last_ns is not None and captured_ns <= self._last_ns:
            raise SourceError(
                f"{self.named}: frames.jsonl line {self._count}: t_ms must grow, got {t_ms} after "
                f"{self._last_ns / MS_NS}; {REMEDY}"
            )
        self._last_ns = captured_ns
        return captured_ns

    def _depth(self, row: dict[str, Any]) -> np.ndarray | None:
        """The depth picture in millimetres; None where none belongs to this frame or, after the first, it is bad."""
        if row.get("depth") is None:
            return None
        if abs(row.get("depth_t_ms", row["t_ms"]) - row["t_ms"]) > 500 / (self.fps or 30.0):
            return None  # of another moment: half a frame's time away or more
        depth = read_plain(self._inside(row["depth"]))
        wrong = None
        if depth is None:
            wrong = f"{row['depth']} is not there or cannot be read"
        elif depth.dtype != np.uint16 or depth.ndim != 2:
            wrong = f"{row['depth']} is {depth.dtype} {depth.shape}, and depth must be one 16-bit channel, a PNG"
        if wrong is not None and self._count == 1:
            raise SourceError(f"{self.named}: {wrong}; {REMEDY}")
        if wrong is not None or depth is None:
            self._lose(wrong or "")
            return None
        if self._unit_mm == 1.0:
            return depth
        return np.clip(np.rint(depth * self._unit_mm), 0, 65535).astype(np.uint16)

    def _inside(self, name: str) -> Path:
        """A picture of the folder; a recording may not name files elsewhere, nor lead to them by links."""
        path = self.folder / name
        away = os.path.isabs(name) or ".." in Path(name).parts
        if away or (os.path.isfile(path) and not path.resolve().is_relative_to(self.folder.resolve())):
            raise SourceError(f"{self.named}: {short(name)} leads out of the folder; {REMEDY}")
        return path

    def _lose(self, why: str) -> None:
        if not self.tally.corrupt:
            log.warning("%s: %s; it is left out, and others like it", self.named, why)
        self.tally.corrupt += 1


class DepthWriter:
    """Writes a recording, each frame as it comes. Use it in a with statement; LineError where the disk is full."""

    def __init__(self, folder: Path, rig: Rig | None, fps: float, picture: str = ".jpg") -> None:
        """folder: a new or empty one. picture: ending of the colour pictures; .png loses nothing and is four times."""
        self._folder, self._picture = folder, picture
        try:
            for name in ("color", "depth"):
                (folder / name).mkdir(parents=True)
            stated = rig.document() if rig is not None else None
            if stated is not None:
                stated = {key: value for key, value in stated.items() if key not in ("schema", "measured")}
            about = {"schema": SCHEMA, "fps": fps, "depth_unit_m": 0.001, "rig": stated}
            (folder / "depth.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
            self._lines = (folder / "frames.jsonl").open("x", encoding="utf-8")
        except FileExistsError as error:
            raise LineError(f"{folder} has a recording already; name a new folder") from error
        except OSError as error:
            raise LineError(f"cannot write to {folder}: {error.strerror}; name another folder") from error
        self.count = 0

    def write(self, captured_ns: int, image: np.ndarray, depth: np.ndarray | None) -> None:
        """Adds a frame: (H, W, 3) uint8 BGR and (h, w) uint16 millimetres. Times grow."""
        names = {"color": f"color/{self.count:06d}{self._picture}"}
        try:
            write_picture(self._folder / names["color"], image)
            if depth is not None:
                names["depth"] = f"depth/{self.count:06d}.png"
                write_picture(self._folder / names["depth"], depth)
            self._lines.write(json.dumps({"t_ms": round(captured_ns / MS_NS, 3), "depth": None, **names}) + "\n")
            self._lines.flush()
        except OSError as error:
            raise LineError(f"cannot write to {self._folder}: {error.strerror}; free some space") from error
        self.count += 1

    def __enter__(self) -> DepthWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
