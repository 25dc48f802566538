"""Pictures for the pose model, small and RGB, and picture files. The second door to cv2, next to camera.py.

NumPy alone took 0.4 to 1.8 ms for the colour order of a 640 x 360 picture, and has no resize; cv2 takes 0.04 ms.
"""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import cv2
import numpy as np

from realtime.atomic import write_whole

MOST_PIXELS = 64_000_000  # 8K has 33 million; more is no camera, and would fill the memory
MOST_BYTES = 8 * MOST_PIXELS  # of a picture's file: four channels of 16 bits, not packed
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_JPEG_PARTS = 200  # that are looked at; before its size one has some ten
_JPEG_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of the parts that hold a JPEG's height and width


def read_picture(path: Path) -> np.ndarray | None:
    """A picture file as (H, W, 3) uint8 BGR, upright by its EXIF mark.

    None where there is none, it cannot be read, or it has more than MOST_PIXELS: who asks says what is wrong.
    """
    return _read(path, cv2.IMREAD_COLOR)


def read_plain(path: Path) -> np.ndarray | None:
    """A picture file as it is, any type and channels, such as (H, W) uint16; None as above."""
    return _read(path, cv2.IMREAD_UNCHANGED)


def read_deep(path: Path) -> np.ndarray | None:
    """A picture file upright by its EXIF mark, of its own type, grey or BGR, such as (H, W) uint16; None as above."""
    return _read(path, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)


def decoded(packed: np.ndarray, how: int = cv2.IMREAD_COLOR) -> np.ndarray | None:
    """A JPEG, PNG or other picture in memory, (n,) uint8, as (H, W, 3) uint8 BGR, or as `how` says; None as above."""
    width, height = _stated_size(packed.data)
    if not len(packed) or width * height > MOST_PIXELS:
        return None
    cv2.setLogLevel(0)
    try:
        image = cv2.imdecode(packed, how)
    except cv2.error:  # such as a header with more pixels than it believes
        return None
    return None if image is None or image.shape[0] * image.shape[1] > MOST_PIXELS else image


def _read(path: Path, how: int) -> np.ndarray | None:
    """By its bytes: OpenCV crashes at a name that is not valid Unicode. A pipe would be waited for, so only files."""
    if not os.path.isfile(path):
        return None
    try:
        content = path.read_bytes() if path.stat().st_size <= MOST_BYTES else b""
    except OSError:
        return None
    return decoded(np.frombuffer(content, np.uint8), how)


def _stated_size(content: memoryview) -> tuple[int, int]:
    """Width and height as the header of a PNG or JPEG has them; 0, 0 where it is cut short or of another kind."""
    if bytes(content[:8]) == _PNG and bytes(content[12:16]) == b"IHDR" and len(content) >= 24:
        width, height = struct.unpack_from(">II", content, 16)
        return width, height
    place = 2 if bytes(content[:2]) == _JPEG else len(content)
    for _ in range(_JPEG_PARTS):
        while place + 1 < len(content) and content[place] == content[place + 1] == 0xFF:  # bytes that fill up
            place += 1
        if place + 9 > len(content) or content[place] != 0xFF:
            break
        if content[place + 1] in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", content, place + 5)
            return width, height
        place += 2 + struct.unpack_from(">H", content, place + 2)[0]
    return 0, 0


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Writes (H, W, 3) uint8 BGR or (H, W) uint8 or uint16 as the name's ending says, whole or not at all.

    PNG is packed lightly: a depth picture takes 4 ms instead of 20 and a tenth more space. Raises OSError.
    """
    packing = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_JPEG_QUALITY, 92)
    good, content = cv2.imencode(path.suffix, picture, packing)
    if not good:
        raise OSError(errno.EINVAL, f"a picture of {picture.shape} cannot be packed as {path.suffix}")
    write_whole(path, content.tobytes())


class SmallRgb:
    """Turns BGR pictures of any size into RGB ones of at most `longest` pixels a side, in buffers it keeps."""

    def __init__(self, longest: int = 640) -> None:
        self._longest = longest
        self._bgr = self._rgb = np.empty((0, 0, 3), np.uint8)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 BGR, not empty -> (h, w, 3) uint8 RGB, contiguous; overwritten by the next call.

        Keeps the aspect ratio to a pixel and never enlarges.
        """
        height, width = image.shape[:2]
        scale = self._longest / max(height, width)
        if scale < 1:
            height, width = max(round(height * scale), 1), max(round(width * scale), 1)
        if self._rgb.shape[:2] != (height, width):
            self._bgr, self._rgb = np.empty((height, width, 3), np.uint8), np.empty((height, width, 3), np.uint8)
        if scale < 1:
            # Linear, not area: the nets see 256 pixels at most, and area costs 2.8 ms at 1080p against 0.7.
            image = cv2.resize(image, (width, height), dst=self._bgr, interpolation=cv2.INTER_LINEAR)
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=self._rgb)


class TurnPicture:
    """Turns pictures clockwise by 0, 90, 180 or 270 degrees, in a buffer it keeps."""

    def __init__(self, degrees: int) -> None:
        codes = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
        self._code = codes.get(degrees)
        self._swaps = degrees in (90, 270)
        self._turned = np.empty((0, 0, 3), np.uint8)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> the same turned, contiguous; overwritten by the next call. 0 degrees: the image itself."""
        if self._code is None:
            return image
        height, width = image.shape[:2]
        shape = (width, height, 3) if self._swaps else image.shape
        if self._turned.shape != shape:
            self._turned = np.empty(shape, np.uint8)
        # NumPy's rot90 made contiguous took ten times as long.
        return cv2.rotate(image, self._code, dst=self._turned)


class SquareCrop:
    """Cuts turned squares out of a picture and makes them a network's input, in buffers it keeps.

    size: pixels a side. low, high: what the values 0 and 255 become. spread: whether the edge's pixels go on
    outside the picture; otherwise it is black there.
    """

    def __init__(self, size: int, low: float, high: float, spread: bool) -> None:
        self._size = size
        self._border = cv2.BORDER_REPLICATE if spread else cv2.BORDER_CONSTANT
        self._gain, self._low = np.float32((high - low) / 255), np.float32(low)
        self._bytes = np.empty((size, size, 3), np.uint8)
        self._input = np.empty((1, size, size, 3), np.float32)

    def __call__(self, picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> (1, size, size, 3) float32, same colour order; overwritten by the next call.

        matrix: (3, 3), from pixels of the crop to pixels of the picture.
        """
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = (self._size, self._size)
        # MediaPipe's own way to cut: warpAffine saves 0.15 ms and lays the pixels a little differently.
        cv2.warpPerspective(picture, matrix, size, dst=self._bytes, flags=flags, borderMode=self._border)
        np.multiply(self._bytes, self._gain, out=self._input[0])
        if self._low:
            self._input += self._low
        return self._input


class BoxCrops:
    """Cuts upright boxes out of a picture and makes them one batch of a network's input.

    width, height: pixels of the input. mean, spread: (3,) taken off each colour, and what the rest is divided by.
    """

    def __init__(self, width: int, height: int, mean: tuple[float, ...], spread: tuple[float, ...]) -> None:
        self._size = (width, height)
        self._mean, self._gain = np.array(mean, np.float32), np.float32(1) / np.array(spread, np.float32)
        self._bytes = np.empty((height, width, 3), np.uint8)
        self._batch = np.empty((0, 3, height, width), np.float32)

    def __call__(self, picture: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> (N, 3, height, width) float32, same colour order; overwritten by the next call.

        boxes: (N, 4) left, top, width, height in pixels of the picture; black outside it.
        """
        if len(self._batch) < len(boxes):
            self._batch = np.empty((len(boxes), *self._batch.shape[1:]), np.float32)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        for place, (left, top, width, height) in enumerate(boxes):
            matrix = np.array(((width / self._size[0], 0, left), (0, height / self._size[1], top)))
            cv2.warpAffine(picture, matrix, self._size, dst=self._bytes, flags=flags)
            self._batch[place] = ((self._bytes - self._mean) * self._gain).transpose(2, 0, 1)
        return self._batch[: len(boxes)]
