"""Pictures of clips: sixteen evenly spaced frames of a video file or of a folder of pictures named after the clip.

H, W height and width of a picture, RGB uint8 everywhere.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from realtime.errors import UsageError
from realtime.image import read_picture

PICTURES = (".jpg", ".jpeg", ".png", ".bmp")
VIDEOS = (".mp4", ".avi", ".mkv", ".mov")
FRAMES = 16
MARGIN = 0.10  # of the box, added on each side
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


def places(length: int, count: int) -> list[int]:
    """Which frames of a clip of this length are taken: `count` in the middle of even parts, each once."""
    return sorted({(2 * i + 1) * length // (2 * count) for i in range(count)})


def pictures_of(folder: Path, name: str, count: int = FRAMES) -> list[np.ndarray]:
    """Up to `count` pictures (H, W, 3) of the clip FOLDER/NAME/*.jpg, FOLDER/NAME.mp4 or NAME_rgb.avi, evenly spaced.

    UsageError where there is neither, and for a picture or video that cannot be read.
    """
    if (folder / name).is_dir():
        files = sorted(file for file in (folder / name).iterdir() if file.suffix.lower() in PICTURES)
        if not files:
            raise UsageError(f"{folder / name} holds no picture ({', '.join(PICTURES)})")
        return [_picture(files[i]) for i in places(len(files), count)]
    for ending in (f"{middle}{suffix}" for middle in ("", "_rgb") for suffix in VIDEOS):  # _rgb: NTU RGB+D's
        if (folder / f"{name}{ending}").is_file():
            return _video(folder / f"{name}{ending}", count)
    raise UsageError(f"{folder} has no pictures of {name}; expected the folder {name}/ or a video {name}{VIDEOS[0]}")


def _picture(path: Path) -> np.ndarray:
    picture = read_picture(path)
    if picture is None:
        raise UsageError(f"{path} is not a picture that can be read")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))


def _video(path: Path, count: int) -> list[np.ndarray]:
    """Decoded twice, once to count: what a file says of its length is not always so."""
    length = sum(1 for _ in _decoded(path))
    wanted = set(places(length, count)) if length else set()
    if not wanted:
        raise UsageError(f"{path} has no frame that can be read")
    return [cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) for i, frame in enumerate(_decoded(path)) if i in wanted]


def _decoded(path: Path):
    try:
        str(path).encode()
    except UnicodeEncodeError as error:  # OpenCV would crash
        raise UsageError(f"{path} has a name that is not valid Unicode; rename it, or the folder it is in") from error
    video = cv2.VideoCapture(str(path))
    try:
        while True:
            there, frame = video.read()
            if not there:
                return
            yield frame
    finally:
        video.release()


def around(boxes: list[Box], width: int, height: int) -> tuple[int, int, int, int]:
    """One crop for all boxes, a margin wider, inside the picture; the whole picture where there is none."""
    if not boxes:
        return 0, 0, width, height
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[2] for box in boxes), max(box[3] for box in boxes)
    x, y = MARGIN * (right - left), MARGIN * (bottom - top)
    crop = (max(int(left - x), 0), max(int(top - y), 0), min(round(right + x), width), min(round(bottom + y), height))
    return crop if crop[2] > crop[0] and crop[3] > crop[1] else (0, 0, width, height)
