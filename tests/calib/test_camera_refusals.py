"""Broken input: each kind has its own sentence, its exit code, and a word on what to do; nothing is written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from calib import synthetic, vision
from calib.camera import Config, run
from realtime.errors import LineError, SourceError, UsageError
from tests.calib import boards

QUIET = Console(quiet=True)
CHESS, LENS = boards.CHESS, boards.LENS


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boards.write(tmp_path_factory.mktemp("good") / "views", boards.pictures(CHESS, LENS, 12))


def stood(poses: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    return [synthetic.picture(CHESS, LENS, turn, place, seed=index) for index, (turn, place) in enumerate(poses)]


def facing(index: int) -> tuple[np.ndarray, np.ndarray]:
    """A board that faces the camera squarely, here and there."""
    return np.eye(3), np.array((-0.28 + 0.09 * (index % 4), -0.2 + 0.09 * (index // 4), 0.5 + 0.02 * (index % 3)))


def in_one_corner(index: int) -> tuple[np.ndarray, np.ndarray]:
    tilt = 0.6 * np.array((np.cos(index * 0.8), np.sin(index * 0.8), 0))
    return vision.rotation(tilt), np.array((0.09 + 0.006 * (index % 4), 0.06 + 0.004 * (index % 3), 0.8))


def empty(folder: Path, good: Path) -> None:
    folder.mkdir()


def no_pictures(folder: Path, good: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("no pictures here")


def text_called_jpg(folder: Path, good: Path) -> None:
    folder.mkdir()
    for index in range(10):
        (folder / f"{index}.jpg").write_text("not a picture at all")


def all_damaged_but_a_few(folder: Path, good: Path) -> None:
    shutil.copytree(good, folder)
    for path in sorted(folder.iterdir())[4:]:
        path.write_bytes(path.read_bytes()[:2000])


def without_a_board(folder: Path, good: Path) -> None:
    wall = np.full((480, 640), 120, np.uint8)
    cv2.rectangle(wall, (200, 100), (400, 300), 30, -1)
    noise = np.random.default_rng(0)
    boards.write(folder, [np.clip(wall + noise.normal(0, 2, wall.shape), 0, 255).astype(np.uint8) for _ in range(9)])


def few(folder: Path, good: Path) -> None:
    boards.write(folder, boards.pictures(CHESS, LENS, 12)[:5])


def mixed_sizes(folder: Path, good: Path) -> None:
    shutil.copytree(good, folder)
    cv2.imwrite(str(folder / "03.png"), cv2.resize(cv2.imread(str(folder / "03.png")), (1280, 960)))


def one_turned(folder: Path, good: Path) -> None:
    shutil.copytree(good, folder)
    cv2.imwrite(str(folder / "03.png"), np.rot90(cv2.imread(str(folder / "03.png"))))


def blurred(sigma: float) -> Callable[[Path, Path], None]:
    def make(folder: Path, good: Path) -> None:
        boards.write(folder, [cv2.GaussianBlur(one, (0, 0), sigma) for one in boards.pictures(CHESS, LENS, 12)])

    return make


def smeared(folder: Path, good: Path) -> None:
    row = np.full((1, 13), 1 / 13, np.float32)
    boards.write(folder, [cv2.filter2D(one, -1, row) for one in boards.pictures(CHESS, LENS, 12)])


def dark(folder: Path, good: Path) -> None:
    random = np.random.default_rng(0)
    boards.write(folder, [random.integers(0, 6, (480, 640)).astype(np.uint8) for _ in range(9)])


def one_corner(folder: Path, good: Path) -> None:
    boards.write(folder, stood([in_one_corner(index) for index in range(10)]))


def one_pose(folder: Path, good: Path) -> None:
    turn, place = vision.rotation(np.array((0.3, 0.1, 0))), np.array((-0.13, -0.08, 0.35))
    boards.write(folder, stood([(turn, place)] * 10))


def never_tilted(folder: Path, good: Path) -> None:
    boards.write(folder, stood([facing(index) for index in range(12)]))


def copies(folder: Path, good: Path) -> None:
    boards.write(folder, [*boards.pictures(CHESS, LENS, 12)[:4], *boards.pictures(CHESS, LENS, 12)[:4] * 2])


def bent_board(folder: Path, good: Path) -> None:
    """A sheet that hangs in the hand, another way in each picture."""
    bent = []
    down, across = np.mgrid[0:480, 0:640].astype(np.float32)
    for index, one in enumerate(boards.pictures(CHESS, LENS, 12)):
        wave = (6 * np.sin(across / 45 + index), 6 * np.sin(down / 40 + 2 * index))
        bent.append(cv2.remap(one, across + wave[0].astype(np.float32), down + wave[1].astype(np.float32), 1))
    boards.write(folder, bent)


def charuco(folder: Path, good: Path) -> None:
    boards.write(folder, boards.pictures(boards.CHARUCO, LENS, 12)[:9])


BROKEN = {
    "empty folder": (empty, SourceError, "is empty; put 8 pictures of the board into it at least"),
    "no pictures": (no_pictures, SourceError, "none of its 1 files is a picture.*notes.txt"),
    "text called .jpg": (text_called_jpg, SourceError, "none of its 10 pictures can be read"),
    "damaged": (all_damaged_but_a_few, UsageError, "8 of 12 pictures are damaged.*copy them again"),
    "no board": (without_a_board, UsageError, "no board of 9x6 inner corners is in any of the 9 pictures: is all"),
    "too few": (few, UsageError, "too few views: 5 of 5 pictures.*8 are needed"),
    "mixed sizes": (mixed_sizes, UsageError, "not of one size: 11 are 640x480, 1 are 1280x960.*03.png"),
    "one turned": (one_turned, UsageError, "480x640.*camera turned"),
    "blurred": (blurred(2.5), UsageError, "12 of 12 pictures are blurred"),
    "so blurred that nothing is found": (blurred(25), UsageError, "are blurred, and no board is found.*focus"),
    "smeared by a moving hand": (smeared, UsageError, "blurred.*hold the board still"),
    "dark": (dark, UsageError, "too dark.*switch on a light"),
    "poor coverage": (one_corner, UsageError, "poor coverage: the board was in [0-9]+% of the picture only"),
    "one pose": (one_pose, UsageError, "all 10 views are of nearly one pose"),
    "never tilted": (never_tilted, UsageError, "held the same way in all views.*tilt it by some 30 degrees"),
    "copies": (copies, UsageError, "8 of 12 pictures are there twice, which leaves 4"),
    "bent board": (bent_board, UsageError, "RMS error [0-9.]+ px is over 1 px.*flat and stiff"),
    "another kind of board": (charuco, UsageError, "it is a ChArUco board; say --board charuco"),
}


@pytest.mark.parametrize(("make", "error", "complaint"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_pictures_have_their_own_sentence(
    tmp_path: Path, good: Path, make: Callable[[Path, Path], None], error: type[LineError], complaint: str
):
    make(tmp_path / "views", good)
    out = tmp_path / "cam.json"
    with pytest.raises(error, match=complaint) as caught:
        run(Config(images=tmp_path / "views", board="chessboard", out=out), QUIET)
    assert "\n" not in str(caught.value)
    assert not out.exists()


FLAGS = {
    "no such folder": ({"images": Path("nowhere")}, SourceError, "nowhere: no such folder"),
    "a file for a folder": ({"images": Path(__file__)}, SourceError, "is a file, not a folder"),
    "corners in words": ({"corners": "nine by six"}, UsageError, "columns x rows of inner corners"),
    "squares without a side": ({"square_mm": 0.0}, UsageError, "--square-mm must be above 0"),
    "squares counted": ({"corners": "10x7"}, UsageError, "--corners 10x7 is wrong, a board of 9x6.*say --corners 9x6"),
    "a part of the board": ({"corners": "8x6"}, UsageError, "say --corners 9x6"),
    "no folder to write to": ({"out": Path("nowhere/cam.json")}, UsageError, "there is no folder nowhere"),
    "a chessboard without markers": ({"board": "charuco"}, UsageError, "with markers, but a chessboard of 9x6 is"),
    "too few wanted": ({"views": 3}, UsageError, "--views must be in"),
    "time that does not pass": ({"duration": 0.0}, UsageError, "--duration must be above 0"),
    "pictures kept twice": ({"keep": Path("kept")}, UsageError, "--keep is for views taken from a camera"),
}


@pytest.mark.parametrize(("flags", "error", "complaint"), FLAGS.values(), ids=FLAGS.keys())
def test_wrong_flags_have_their_own_sentence(
    tmp_path: Path, good: Path, flags: dict, error: type[LineError], complaint: str
):
    config = replace(Config(images=good, board="chessboard", out=tmp_path / "cam.json"), **flags)
    with pytest.raises(error, match=complaint):
        run(config, QUIET)


def test_a_file_that_is_there_is_kept_unless_told_otherwise(tmp_path: Path, good: Path):
    out = tmp_path / "cam.json"
    out.write_text("mine")
    config = Config(images=good, board="chessboard", out=out)
    with pytest.raises(UsageError, match="--replace"):
        run(config, QUIET)
    assert out.read_text() == "mine"
    assert run(replace(config, replace=True), QUIET) == 0
    assert "calib-camera/1" in out.read_text()
    with pytest.raises(UsageError, match="is a folder"):
        run(replace(config, out=tmp_path), QUIET)


def test_one_bad_picture_among_good_ones_is_left_out_and_told(tmp_path: Path, good: Path):
    folder = tmp_path / "views"
    shutil.copytree(good, folder)
    (folder / "bad.png").write_bytes(b"nothing")
    (folder / "[red]cut.png").write_bytes((folder / "01.png").read_bytes()[:5000])
    shutil.copy(folder / "02.png", folder / "twice.png")
    console = Console(record=True, quiet=False, file=open(tmp_path / "said", "w"), width=60)  # noqa: SIM115
    assert run(Config(images=folder, board="chessboard", out=tmp_path / "cam.json"), console) == 0
    said = console.export_text()
    assert "left out bad.png: it is no picture that can be read" in said
    assert "left out [red]cut.png: " in said
    assert "left out twice.png: it is the same picture as 02.png" in said
