"""Picture files: names that are no text, headers that lie, what is no file, and writing whole or not at all."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from calib import vision
from realtime.atomic import write_whole
from realtime.image import MOST_PIXELS, decoded, read_picture, read_plain, write_picture
from realtime.source import open_source

LATIN = os.fsdecode(b"bild-\xfc")  # as Windows of old wrote it: not UTF-8
PICTURE = np.arange(48 * 64 * 3, dtype=np.uint32).reshape(48, 64, 3).astype(np.uint8)


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header says so, with next to nothing in it."""
    parts = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0")))
    made = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + made + b"\0\0\0\0IEND\xaeB`\x82"


def jpeg_of(width: int, height: int) -> bytes:
    """A good JPEG but for what its header says of its size."""
    content = cv2.imencode(".jpg", PICTURE)[1].tobytes()
    place = content.index(b"\xff\xc0") + 5
    return content[:place] + struct.pack(">HH", height, width) + content[place + 4 :]


def test_a_name_that_is_no_text_is_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / f"{LATIN}.png"
    write_picture(path, PICTURE)
    np.testing.assert_array_equal(read_picture(path), PICTURE)
    np.testing.assert_array_equal(read_plain(path), PICTURE)
    assert vision.read_picture(path) is not None
    assert [frame.image.shape for frame in open_source(str(tmp_path), fast=True) if frame] == [PICTURE.shape]


@pytest.mark.parametrize("name", ["\ud800.png", "a\0b.png", "a" * 300 + ".png", "nowhere.png", "."])
def test_a_name_that_no_file_has_is_no_picture(tmp_path: Path, name: str) -> None:
    assert read_picture(tmp_path / name) is None and read_plain(tmp_path / name) is None


def test_a_pipe_and_a_link_to_itself_are_no_pictures_and_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    assert read_picture(tmp_path / "pipe.png") is None and read_plain(tmp_path / "loop.png") is None


@pytest.mark.parametrize(
    "content",
    [
        png_of(100_000, 100_000), png_of(8_001, 8_000), png_of(0, 7), jpeg_of(65_500, 65_500), jpeg_of(8_001, 8_000),
        b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"\xff\xd8" + b"\xff" * 5000, b"\xff\xd8" + b"\xff\xe0\0\0" * 5000,
    ],
)  # fmt: skip
def test_a_header_that_lies_is_no_picture(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    assert read_picture(tmp_path / "a.png") is None and read_plain(tmp_path / "a.png") is None
    assert vision.read_picture(tmp_path / "a.png") is None
    assert decoded(np.frombuffer(content, np.uint8)) is None


def test_too_many_pixels_are_refused_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(cv2, "imdecode", lambda *_: asked.append(1))
    for content in (png_of(8_001, 8_000), jpeg_of(8_001, 8_000)):
        assert decoded(np.frombuffer(content, np.uint8)) is None
    assert not asked
    for content in (png_of(8_000, 8_000), jpeg_of(8_000, 8_000)):  # as many as there may be
        decoded(np.frombuffer(content, np.uint8))
    assert len(asked) == 2 and MOST_PIXELS == 8_000 * 8_000


def test_a_kind_whose_header_is_not_looked_at_is_refused_by_what_came_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime.image.MOST_PIXELS", 1000)
    assert decoded(cv2.imencode(".bmp", PICTURE)[1]) is None


def test_a_folder_counts_a_picture_whose_header_lies(tmp_path: Path) -> None:
    for number in (0, 2):
        write_picture(tmp_path / f"{number}.jpg", PICTURE)
    (tmp_path / "1.png").write_bytes(png_of(100_000, 100_000))
    os.mkfifo(tmp_path / "3.png")
    source = open_source(str(tmp_path), fast=True)
    assert len([frame for frame in source if frame]) == 2 and source.corrupt == 2


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "a", b"before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("realtime.atomic.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "a", b"after")
    assert (tmp_path / "a").read_bytes() == b"before" and [one.name for one in tmp_path.iterdir()] == ["a"]
