"""The printed board: at true scale, and the one that is looked for."""

from __future__ import annotations

import re

import numpy as np
import pytest

from calib import synthetic
from calib.board import Board, board_page, make_board
from calib.views import Finder
from realtime.errors import UsageError
from tests.calib.boards import CHARUCO, CHESS

BOARDS = pytest.mark.parametrize("board", [CHESS, CHARUCO, make_board("charuco", "7x5", 30, 20)], ids=str)
POINT_MM = 25.4 / 72


def rectangles(pdf: bytes) -> tuple[np.ndarray, np.ndarray]:
    """A page's width and height, and its black rectangles (n, 4): left, top, width, height, all in mm, y down."""
    text = pdf.decode("latin-1")
    box = re.search(r"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", text)
    assert box is not None
    page = np.array([float(one) for one in box.groups()]) * POINT_MM
    found = [[float(one) for one in line.split()[:4]] for line in text.splitlines() if line.endswith(" re")]
    marks = np.array(found) * POINT_MM
    marks[:, 1] = page[1] - marks[:, 1] - marks[:, 3]
    return page, marks


@BOARDS
def test_a_printed_square_measures_what_was_asked_for(board: Board):
    page, marks = rectangles(board_page(board, "a3").pdf())
    assert page == pytest.approx((420, 297), abs=0.01)
    squares = marks[np.abs(marks[:, 2:] - board.square_mm).max(axis=1) < 0.01]
    assert len(squares) == ((board.columns + 1) * (board.rows + 1) + 1) // 2
    low, high = squares[:, :2].min(axis=0), (squares[:, :2] + squares[:, 2:]).max(axis=0)
    assert high - low == pytest.approx(board.size_mm, abs=0.01)
    assert ((low >= 8) & (high <= page - 8)).all()
    bar = marks[np.abs(marks[:, 2] - 100) < 0.01]
    assert len(bar) == 1  # what a person measures with a ruler


@BOARDS
def test_the_pdf_is_whole(board: Board):
    pdf = board_page(board, "a3").pdf()
    start = int(pdf.rsplit(b"startxref\n", 1)[1].split()[0])
    assert pdf[start:].startswith(b"xref\n0 6\n")
    for number, place in enumerate(re.findall(rb"(\d{10}) 00000 n", pdf), 1):
        assert pdf[int(place) :].startswith(b"%d 0 obj" % number)
    length = re.search(rb"/Length (\d+) >>\nstream\n", pdf)
    assert length is not None and pdf[length.end() + int(length[1]) :].startswith(b"\nendstream")


@BOARDS
def test_the_printed_board_is_the_one_that_is_found(board: Board):
    page, marks = rectangles(board_page(board, "a3").pdf())
    scale = 5  # pixels to a millimetre
    paper = np.full((round(page[1] * scale), round(page[0] * scale)), 255, np.uint8)
    for left, top, width, height in marks * scale:
        paper[round(top) : round(top + height), round(left) : round(left + width)] = 0
    view = Finder(board)(paper, "printed")
    assert view is not None and len(view.numbers) == board.columns * board.rows
    squares = marks[np.abs(marks[:, 2:] - board.square_mm).max(axis=1) < 0.01]
    corner = squares[:, :2].min(axis=0) + board.square_mm
    expected = (corner + board.points[:, :2] * 1000) * scale - 0.5
    apart = np.abs(view.corners - expected[view.numbers])
    if board.kind == "chessboard":
        apart = min((apart, np.abs(view.corners[::-1] - expected)), key=np.max)
    assert apart.max() < 0.6  # the drawing above is rounded to whole pixels


def test_a_generated_picture_shows_corners_where_the_lens_puts_them():
    turn, place = next(synthetic.stances(CHARUCO, synthetic.SYNTHETIC, 1))
    view = Finder(CHARUCO)(synthetic.picture(CHARUCO, synthetic.SYNTHETIC, turn, place, noise=0), "one")
    assert view is not None and len(view.numbers) == 54
    expected = synthetic.SYNTHETIC.pixels(CHARUCO.points @ turn.T + place)
    assert np.linalg.norm(view.corners - expected, axis=1).max() < 0.2


def test_a_board_too_large_for_the_paper_says_what_fits():
    with pytest.raises(UsageError, match=r"500 x 350 mm.*--square-mm 26 at most, or --paper a3"):
        board_page(make_board("chessboard", "9x6", 50), "a4")
    page, _ = rectangles(board_page(make_board("chessboard", "9x6", 50), "fit").pdf())
    assert page[0] > 500


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (("chessboard", "nine by six", 25.0), "columns x rows.*'nine by six'"),
        (("chessboard", "9x", 25.0), "columns x rows"),
        (("chessboard", "2x6", 25.0), "3 to 50.*2x6"),
        (("chessboard", "9x6", 0.0), "--square-mm must be above 0.*0"),
        (("chessboard", "9x6", -25.0), "--square-mm must be above 0.*-25"),
        (("chessboard", "9x6", float("nan")), "--square-mm"),
        (("charuco", "9x6", 25.0, 25.0), "0.3 to 0.9 of the square's 25 mm, got 25"),
        (("chessboard", "9x6", 25.0, 18.0), "a chessboard has no markers"),
        (("charuco", "30x30", 25.0), "over 250 markers"),
    ],
)
def test_what_no_board_has_is_refused(given: tuple, complaint: str):
    with pytest.raises(UsageError, match=complaint):
        make_board(*given)
