"""Pictures from USB cameras, streams, video files and folders. The only door to cv2 for capture, and to av.

USB cameras go through OpenCV, everything else through PyAV: it has timeouts, typed errors, each frame's real size
and time, and marks damaged frames. Readers are generators of Frame (BGR), played by a `Feed` (files) or a `Live`.
PyAV's exceptions hold the full address with its password, so they are never chained nor quoted here.
"""

from __future__ import annotations

import errno
import glob
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
from av.codec.context import Flags
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from realtime.errors import SourceError
from realtime.feed import SILENCE_S, Opened, SourceInfo, Tally, after_first, topic_id
from realtime.image import MOST_PIXELS, read_picture
from realtime.pipe import Pipe
from realtime.schema import SECOND_NS, Frame
from realtime.secrets import redacted, sendable

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
SCHEMES = ("rtsp", "rtsps", "http", "https", "tcp", "udp", "rtp")
OPEN_READ_TIMEOUT_S = (SILENCE_S, SILENCE_S)
FIRST_BYTES_S = 8.0  # a named pipe is waited for so long when it is opened
BACKLOG_NS = SECOND_NS  # a stream's first pictures are left out for so long at most
HELD_NS = 400_000_000  # after a silence of more than this a picture's own time is looked at
# Files may only name files: a playlist in disguise must not make this machine call others, nor the other way round.
_FILE_OPTIONS = {"protocol_whitelist": "file"}
_STREAM_OPTIONS = {"protocol_whitelist": "udp,rtp,tcp,rtsp,tls,http,https,crypto", "fflags": "nobuffer"}
# Without these RTSP opens in 1.0 s instead of 0.3 s and begins with a second of old frames; UDP loses packets.
_RTSP_OPTIONS = {"rtsp_transport": "tcp", "probesize": "50000", "analyzeduration": "200000"}

_SILENT = f"no answer within {SILENCE_S:.0f} s; check address, power and network"
_HUNG_UP = "the sender closed it; check that it still runs"
# A JPEG that is damaged or cut short would else come out with a grey half and be called good.
_STRICT = {"err_detect": "explode"}

log = logging.getLogger(__name__)


def camera_path(device: int | str) -> str:
    """The device node of a camera by index or path."""
    return f"/dev/video{device}" if isinstance(device, int) else device


def open_camera(device: int | str, *, mirror: bool = False) -> Opened:
    """A USB or built-in camera by index or /dev/videoN. SourceError says which ones there are."""
    path = camera_path(device)
    if sys.platform == "linux":
        _check_device(path)
    number = re.search(r"([0-9]+)$", os.path.realpath(path))  # /dev/v4l/by-id/... are links
    if number is None:
        raise SourceError(f"camera {device} is not a /dev/videoN{_devices()}")
    index = int(number.group(1))
    cv2.setLogLevel(0)  # its warnings repeat what the SourceError says
    capture = cv2.VideoCapture(index, cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY)
    if not capture.isOpened():
        raise SourceError(
            f"camera {device}: it is there but does not open; close other programs that use it, "
            f"or try another node: a camera often has two{_devices()}"
        )
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the driver's queue would hand out old frames
    width, height, fps = (
        capture.get(key) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS)
    )
    info = SourceInfo(
        f"cam{index}", "camera", int(width) or None, int(height) or None, fps if 0 < fps < 1000 else None, live=True
    )
    tally = Tally()
    return Opened(info, _camera_frames(capture, path, mirror, tally), capture.release, tally)


def _check_device(path: str) -> None:
    if not os.path.exists(path):
        raise SourceError(f"camera {path} is not there{_devices()}")
    if not os.access(path, os.R_OK | os.W_OK):
        raise SourceError(
            f"camera {path}: no permission; run `sudo usermod -aG video $USER`, then log out and in again"
        )


def _devices() -> str:
    if sys.platform != "linux":
        return ""
    found = sorted(glob.glob("/dev/video*"))
    if not found:
        return "; this machine has no /dev/video*: plug a camera in, or try --source synthetic"
    return f"; this machine has {', '.join(found)}"


def _camera_frames(capture: cv2.VideoCapture, path: str, mirror: bool, tally: Tally) -> Iterator[Frame]:
    index, good_ns = 0, time.monotonic_ns()
    while True:
        try:
            good, image = capture.read()
        except cv2.error as error:
            raise SourceError(f"camera {path}: its driver refused a read ({error.code}); plug it in again") from error
        captured_ns = time.monotonic_ns()
        if good and image is not None and image.size:
            yield Frame(index, captured_ns, _upright(image, 0, mirror))
            index, good_ns = index + 1, captured_ns
            continue
        # One damaged JPEG also reads as a failure, so only the silence that follows, or a vanished device, is a loss.
        tally.corrupt += 1
        if sys.platform == "linux" and not os.path.exists(path):
            raise SourceError(f"camera {path} has gone; plug it in again")
        if captured_ns - good_ns > SILENCE_S * SECOND_NS:
            raise SourceError(f"camera {path} gives no good picture for {SILENCE_S:.0f} s; check its cable and hub")
        time.sleep(0.01)


def open_video(path: Path, *, mirror: bool = False) -> Opened:
    """A video file; its frames carry media time. SourceError tells text, damaged and picture-less files apart."""
    named = f"video {path}"
    if path.is_fifo():
        return _open_pipe(path, mirror)
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise SourceError(f"{named}: {error.strerror}; check the path and its permissions") from error
    container = _opened(str(path), named, _FILE_OPTIONS, "text, not video" if _is_text(head) else None)
    return _recorded(container, named, topic_id(path.stem), mirror)


def open_stream(url: str, *, mirror: bool = False) -> Opened:
    """An RTSP, HTTP or raw network stream: live, unless it has a length, as a video file behind HTTP has."""
    scheme = url.partition("://")[0].lower()
    named = f"stream {redacted(url)}"
    if scheme not in SCHEMES:
        raise SourceError(f"{named}: cannot play {scheme}://; known are {', '.join(SCHEMES)}")
    options = _STREAM_OPTIONS | (_RTSP_OPTIONS if scheme.startswith("rtsp") else {})
    return _open_live(sendable(url), named, topic_id(url), options, mirror)


def _open_pipe(path: Path, mirror: bool) -> Opened:
    """A named pipe that somebody writes a video to: live. SourceError where nobody begins within 8 s."""
    named = f"pipe {path}"
    try:
        pipe = Pipe(path, SILENCE_S, FIRST_BYTES_S)
    except OSError as error:
        raise SourceError(f"{named}: {error.strerror}; check the path and its permissions") from error
    try:
        container = _opened(pipe, named, _FILE_OPTIONS)
        opened = _live(container, named, topic_id(path.stem), mirror)
    except SourceError:
        pipe.close()
        raise

    def release() -> None:
        container.close()
        pipe.close()

    return replace(opened, release=release)


def _open_live(url: str, named: str, name: str, options: dict[str, str], mirror: bool) -> Opened:
    container = _opened(url, named, options)
    if container.duration is not None:
        return _recorded(container, named, name, mirror)
    return _live(container, named, name, mirror)


def _live(container: InputContainer, named: str, name: str, mirror: bool) -> Opened:
    stream = _pictures(container, named)
    info = SourceInfo(name, "stream", stream.width or None, stream.height or None, _rate(stream), live=True)
    tally = Tally()
    return Opened(info, _stream_frames(container, stream, named, mirror, tally), container.close, tally)


def _recorded(container: InputContainer, named: str, name: str, mirror: bool) -> Opened:
    stream = _pictures(container, named)
    tally = Tally()
    try:
        first, frames = after_first(
            _video_frames(container, stream, named, mirror, tally),
            f"{named}: not one picture could be decoded; re-encode it, for example with ffmpeg -i IN -c:v libx264 OUT",
        )
    except SourceError:
        container.close()
        raise
    assert first.image is not None
    height, width = first.image.shape[:2]
    info = SourceInfo(name, "video", width, height, _rate(stream))
    return Opened(info, frames, container.close, tally)


def _opened(url: str | Pipe, named: str, options: dict[str, str], suspicion: str | None = None) -> InputContainer:
    try:
        return av.open(url, timeout=OPEN_READ_TIMEOUT_S, options=options)  # type: ignore[call-overload, return-value]
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = f"it is {suspicion}; name a video file" if suspicion else _reason(error)
    raise SourceError(f"{named}: {reason}")


def _reason(error: Exception) -> str:
    """What went wrong and what to try, without the words of the exception: they hold the address and its password."""
    reasons: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (av.error.ConnectionRefusedError, "connection refused; check that it is switched on, and the port"),
        ((av.error.ExitError, TimeoutError), _SILENT),
        (av.error.HTTPUnauthorizedError, "user or password refused (401); check both"),
        (av.error.HTTPForbiddenError, "access refused (403); check the user's rights"),
        (av.error.HTTPNotFoundError, "the host answers but has no such path (404); check the path"),
        (av.error.InvalidDataError, "its content is no video that can be read: damaged, cut short or another format"),
        (
            av.error.ProtocolNotFoundError,
            "it refers to another protocol than its own, which is refused; name it direct",
        ),
    )
    for kind, words in reasons:
        if isinstance(error, kind):
            return words
    if getattr(error, "errno", None) == errno.EIO:
        return "the host's name is not known, or it sends nothing; check the spelling and the network"
    return f"{getattr(error, 'strerror', None) or type(error).__name__}; check the address and that it plays elsewhere"


def _is_text(head: bytes) -> bool:
    return b"\0" not in head and all(byte >= 32 or byte in b"\t\r\n\f" for byte in head)


def _pictures(container: InputContainer, named: str) -> VideoStream:
    if not container.streams.video:
        container.close()
        raise SourceError(f"{named} holds no pictures (sound only?); name another file or stream")
    return container.streams.video[0]


def _rate(stream: VideoStream) -> float | None:
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate else None


def _packets(
    container: InputContainer, stream: VideoStream, named: str, tally: Tally, live: bool = False
) -> Iterator[tuple[int, VideoFrame]]:
    """(monotonic ns at which its packet came, picture); damaged pictures are counted and left out.

    live: SourceError where only damaged ones come, and what the decoder still held at the end is too old to be given.
    """
    packets = container.demux(stream)
    good_ns = time.monotonic_ns()
    while True:
        asked_ns = time.monotonic_ns()
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, OSError) as error:
            reason = _HUNG_UP if live and getattr(error, "errno", None) == errno.EIO else _reason(error)
            break
        if packet is None or (live and not packet.size):
            return
        arrived_ns = time.monotonic_ns()
        if live and arrived_ns - asked_ns >= SILENCE_S * SECOND_NS:
            # What comes when a read ran out of time is what a parser had held back before the silence.
            reason = _SILENT
            break
        try:
            pictures = packet.decode()
        except av.error.FFmpegError:
            tally.corrupt += 1
            pictures = []
        for picture in pictures:
            if picture.is_corrupt:
                tally.corrupt += 1
            else:
                good_ns = arrived_ns
                yield arrived_ns, picture
        if live and arrived_ns - good_ns > SILENCE_S * SECOND_NS:
            reason = f"no picture of {SILENCE_S:.0f} s could be decoded; check the network and the camera's settings"
            break
    raise SourceError(f"{named} was lost: {reason}")


class _Fresh:
    """Tells old pictures from those taken just now, by when they came.

    A server that had kept some sends them faster than they were taken: they end with the first one that waited for its
    turn. And demuxer and parser hold a picture back until the next one begins, so that the first after a silence, or at
    the end, are from before it: their own time goes on by much less than the silence lasted.
    """

    def __init__(self, fps: float | None, held_back: bool) -> None:
        """held_back: whether the pictures have times of their own, and a parser."""
        self._period_ns, self._held_back = SECOND_NS / (fps or 30.0), held_back
        self._first_ns: int | None = None
        self._last_ns, self._media_s = 0, 0.0
        self._live = False

    def see(self, arrived_ns: int, media_s: float | None) -> bool:
        """Whether the picture that came now, with this time of its own, is to be delivered."""
        waited_ns, passed_s = arrived_ns - self._last_ns, (media_s or 0.0) - self._media_s
        self._last_ns, self._media_s = arrived_ns, media_s or 0.0
        old = self._held_back and waited_ns > HELD_NS and passed_s < waited_ns / SECOND_NS / 2
        if self._first_ns is None or (self._live and old):
            self._first_ns, self._live = arrived_ns, False
        elif not self._live:
            self._live = waited_ns > self._period_ns / 2 or arrived_ns - self._first_ns > BACKLOG_NS
        return self._live


def _stream_frames(
    container: InputContainer, stream: VideoStream, named: str, mirror: bool, tally: Tally
) -> Iterator[Frame]:
    stream.codec_context.flags |= Flags.low_delay
    if stream.codec_context.name == "mjpeg":
        stream.codec_context.options = _STRICT
    fresh = _Fresh(_rate(stream), container.format.name != "mpjpeg")
    for index, (arrived_ns, picture) in enumerate(_packets(container, stream, named, tally, live=True)):
        image = _converted(picture, mirror, tally) if fresh.see(arrived_ns, picture.time) else None
        if image is not None:
            yield Frame(index, arrived_ns, image)
    raise SourceError(f"{named} was lost: {_HUNG_UP}")


def _video_frames(
    container: InputContainer, stream: VideoStream, named: str, mirror: bool, tally: Tally
) -> Iterator[Frame]:
    """Frames at media time. A picture without a time, or with one not after its forerunner's, follows by 1/fps."""
    step_ns = round(SECOND_NS / (_rate(stream) or 30.0))
    media_ns = -step_ns
    for index, (_, picture) in enumerate(_packets(container, stream, named, tally)):
        told_ns = None if picture.time is None else round(picture.time * SECOND_NS)
        media_ns = told_ns if told_ns is not None and (index == 0 or told_ns > media_ns) else media_ns + step_ns
        image = _converted(picture, mirror, tally)
        if image is not None:
            yield Frame(index, media_ns, image)


def _converted(picture: VideoFrame, mirror: bool, tally: Tally) -> np.ndarray | None:
    """The picture as (H, W, 3) uint8 BGR, upright; None where it is too large or cannot be converted, and counted."""
    try:
        if picture.width * picture.height > MOST_PIXELS:
            raise ValueError(f"a picture of {picture.width}x{picture.height} pixels")
        return _upright(picture.to_ndarray(format="bgr24"), picture.rotation, mirror)
    except (av.error.FFmpegError, ValueError, MemoryError, cv2.error) as error:
        if not tally.corrupt:
            log.warning("a picture cannot be converted, and is left out like others after it: %s", error)
        tally.corrupt += 1
        return None


def _upright(image: np.ndarray, rotation: int, mirror: bool) -> np.ndarray:
    """Turned counter-clockwise by rotation degrees (quarter turns) as the file asks, and mirrored where wanted."""
    turns = round(rotation / 90) % 4
    if turns:
        image = np.ascontiguousarray(np.rot90(image, turns))
    return cv2.flip(image, 1) if mirror else image


def open_images(folder: Path, *, fps: float = 30.0, mirror: bool = False) -> Opened:
    """A folder of pictures in natural order of name (2 before 10), fps a second. SourceError where it has none."""
    named = f"folder {folder}"
    try:
        paths = sorted((p for p in folder.iterdir() if p.suffix.lower() in PICTURES), key=_natural)
    except OSError as error:
        raise SourceError(f"{named}: {error.strerror}; check its permissions") from error
    if not paths:
        raise SourceError(f"{named} holds no pictures ({' '.join(PICTURES)}); name a folder that does, or a video file")
    tally = Tally()
    first, frames = after_first(
        _image_frames(paths, fps, mirror, tally),
        f"{named}: none of its {len(paths)} pictures can be read; check that they are complete",
    )
    assert first.image is not None
    height, width = first.image.shape[:2]
    info = SourceInfo(topic_id(folder.resolve().name), "images", width, height, fps)
    return Opened(info, frames, lambda: None, tally)


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"([0-9]+)", path.name)]


def _image_frames(paths: list[Path], fps: float, mirror: bool, tally: Tally) -> Iterator[Frame]:
    for index, path in enumerate(paths):
        image = read_picture(path)
        if image is None:
            if not tally.corrupt:
                log.warning("picture %s cannot be read; it and others like it are left out", path)
            tally.corrupt += 1
            continue
        yield Frame(index, round(index / fps * SECOND_NS), _upright(image, 0, mirror))
