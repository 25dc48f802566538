"""Whether what was seen makes a calibration to rely on: reasons to refuse it, each with its sentence, and a verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from calib import vision
from calib.board import Board
from calib.coverage import LEAST, Coverage
from calib.lens_fit import Fit, Model
from calib.views import LEAST_VIEWS, Reading
from realtime.errors import UsageError

LEAST_DISTINCT = 5  # views that differ
MOST_RMS_PX = 1.0
SAME_WAY = 12.0  # degrees between the two boards that lean apart most: below, the focal length cannot be told
MOST_UNSURE = 3.0  # percent of the focal length, two standard deviations
MOST_STRETCH = 0.1  # by which fx and fy may differ
OFF_CENTRE = 0.25  # of the picture, from its middle: the farthest that a lens points beside it
DARK, BRIGHT = 30.0, 225.0  # mean grey
LOOKED_AT = 3  # pictures, to find out why there is no board
GOOD_RMS_PX, GOOD_UNSURE, GOOD_SHARE, GOOD_HOLD_OUT = 0.5, 0.6, 0.55, 1.6
_USUAL = ((9, 6), (8, 6), (7, 5), (7, 6), (10, 7), (8, 5), (11, 8), (9, 7), (6, 5), (6, 4), (5, 4), (7, 7), (8, 8))

Look = Callable[[int], list[np.ndarray]]  # the first so many pictures that are asked for


def check_views(reading: Reading, board: Board, pictures: Look) -> None:
    """UsageError with the reason where the views are too few to go on; pictures(n): some of those looked at."""
    found, of = len(reading.views), len(reading.views) + len(reading.left_out)
    if reading.count("no board") == of and of:
        raise UsageError(_no_board(reading, board, pictures))
    if found < LEAST_VIEWS:
        raise UsageError(_too_few(reading, found, of))
    if board.kind == "chessboard":
        markers = min((vision.count_markers(one) for one in pictures(2)), default=0)
        if markers >= 4:  # its corners are found, but the markers pull at them
            raise UsageError(
                f"the board in the pictures has {markers} markers: it is a ChArUco board; say --board charuco"
            )
        larger = _larger(board, pictures)
        if larger is not None:
            raise UsageError(
                f"the board in the pictures is larger than --corners {board.columns}x{board.rows}: it has "
                f"{larger[0]}x{larger[1]} inner corners; say --corners {larger[0]}x{larger[1]}"
            )


def _no_board(reading: Reading, board: Board, pictures: Look) -> str:
    asked = f"no board of {board.columns}x{board.rows} inner corners is in any of the {len(reading.left_out)} pictures"
    if reading.unsharp is not None:
        return (
            f"the pictures are blurred, and no board is found in them: their sharpest edges are "
            f"{reading.unsharp:.0f} pixels wide; set the focus, wipe the lens, hold the board still"
        )
    light = float(np.median(reading.light))
    if not DARK <= light <= BRIGHT:
        how, advice = ("dark", "switch on a light") if light < DARK else ("bright", "turn the exposure down")
        return f"{asked}: they are too {how} (mean grey {light:.0f} of 255); {advice}"
    some = pictures(LOOKED_AT)
    markers = int(np.median([vision.count_markers(one) for one in some])) if some else 0
    if markers >= 4 and board.kind == "chessboard":
        return f"{asked}, but {markers} markers are: it is a ChArUco board; say --board charuco"
    if markers >= 4:
        return (
            f"{asked}, but {markers} markers are: its number of corners is another one, or another program made it; "
            "count where four squares meet, or print a board with --print"
        )
    other = _other(board, some)
    if other is not None:
        if board.kind == "charuco":
            return f"{asked} with markers, but a chessboard of {other[0]}x{other[1]} is; say --board chessboard"
        return (
            f"{asked}: --corners {board.columns}x{board.rows} is wrong, a board of {other[0]}x{other[1]} is in them; "
            f"inner corners are where four squares meet: say --corners {other[0]}x{other[1]}"
        )
    return (
        f"{asked}: is all of it in the picture, flat, evenly lit, with a white border? Is --board {board.kind} right?"
    )


def _other(board: Board, pictures: Sequence[np.ndarray]) -> tuple[int, int] | None:
    """The corners of another chessboard that these pictures show."""
    columns, rows = board.columns, board.rows
    # Squares counted for corners first, then one too many or too few, then boards as they are sold.
    near = [(columns, rows)] if board.kind == "charuco" else []
    near += [(columns - 1, rows - 1), (columns + 1, rows + 1), (columns - 1, rows), (columns, rows - 1)]
    near += [(columns + 1, rows), (columns, rows + 1), (columns - 2, rows - 2), *_USUAL]
    for one in dict.fromkeys(pair for pair in near if min(pair) >= 3):
        if any(vision.find_chessboard(picture, *one, thorough=False) is not None for picture in pictures):
            return one
    return None


def _larger(board: Board, pictures: Look) -> tuple[int, int] | None:
    """The corners of the larger board that this one is a part of: a part can be found, and then means nothing."""
    some = pictures(2)
    columns, rows = board.columns, board.rows
    for one in ((columns + 1, rows), (columns, rows + 1), (columns + 1, rows + 1), (columns + 2, rows + 2)):
        if some and all(vision.find_chessboard(picture, *one, thorough=False) is not None for picture in some):
            return one
    return None


def _too_few(reading: Reading, found: int, of: int) -> str:
    lack = f"too few views: {found} of {of} pictures can be used and {LEAST_VIEWS} are needed at least"
    reasons = {reason: reading.count(reason) for reason in ("blurred", "duplicate", "few corners", "no board")}
    if reading.unsharp is not None:  # so blurred that the board was not even found
        reasons["blurred"] += reasons.pop("no board")
    reasons["damaged"] = reading.count("unreadable") + reading.count("cut")
    worst = max(reasons, key=lambda reason: reasons[reason])
    count = reasons[worst]
    if count == 0 or found + count < LEAST_VIEWS:
        return f"{lack}; take more, 15 to 30, the board elsewhere and tilted otherwise in each"
    return {
        "blurred": f"{count} of {of} pictures are blurred, which leaves {found} of the {LEAST_VIEWS} that are needed; "
        "set the focus, hold the board still, use more light",
        "duplicate": f"{count} of {of} pictures are there twice, which leaves {found} of the {LEAST_VIEWS} that are "
        "needed; a copy tells nothing new: take more",
        "few corners": f"{count} of {of} pictures show too little of the board, which leaves {found} of the "
        f"{LEAST_VIEWS} that are needed; bring more of it into the picture",
        "no board": f"{lack}: in {count} the board is not found; is it whole in the picture, flat and evenly lit?",
        "damaged": f"{count} of {of} pictures are damaged, which leaves {found} of the {LEAST_VIEWS} that are needed; "
        "copy them again",
    }[worst]


def check_coverage(coverage: Coverage) -> None:
    """UsageError where the board was always at one place, or in too small a part of the picture."""
    if coverage.distinct < LEAST_DISTINCT:
        raise UsageError(
            f"all {len(coverage.stances)} views are of nearly one pose of the board: move it to other places, nearer "
            "and farther, and tilt it"
        )
    if coverage.share < LEAST:
        raise UsageError(
            f"poor coverage: the board was in {coverage.share:.0%} of the picture only, and {LEAST:.0%} are needed at "
            f"least; take more views: {coverage.missing()}"
        )


def check_fit(fit: Fit, coverage: Coverage, hold_out_px: float, model: Model) -> None:
    """UsageError with the reason where this is no lens to rely on."""
    lens = fit.lens
    apart = spread_of_tilts(fit)
    unsure = unsure_percent(fit)
    if apart < SAME_WAY:
        raise UsageError(
            f"the board was held the same way in all views (within {apart:.0f} degrees), so that a long lens far away "
            "and a short one near by look alike: tilt it by some 30 degrees, each edge away in turn"
        )
    if lens.rms_px > MOST_RMS_PX:
        raise UsageError(
            f"RMS error {lens.rms_px:.2f} px is over {MOST_RMS_PX:g} px: is the board flat and stiff, --board and "
            f"--corners right, the focus fixed?{' Wide lenses need --model fisheye.' if model != 'fisheye' else ''}"
        )
    if unsure > MOST_UNSURE:
        raise UsageError(
            f"the focal length is known to ±{unsure:.1f} % only, and ±{MOST_UNSURE:g} % are the most: take more views, "
            "tilted by some 30 degrees each way, and some with the board near"
        )
    middle = np.abs((lens.cx / lens.width - 0.5, lens.cy / lens.height - 0.5)).max()
    if middle > OFF_CENTRE or abs(lens.fx / lens.fy - 1) > MOST_STRETCH:
        raise UsageError(
            f"the lens found is none that exists (focal lengths {lens.fx:.0f} and {lens.fy:.0f} px, axis at "
            f"{lens.cx:.0f}, {lens.cy:.0f} of {lens.width}x{lens.height}): are the pictures cropped or stretched? "
            f"Otherwise take more views: {coverage.missing() or 'tilt the board more'}"
        )
    if hold_out_px > max(MOST_RMS_PX, 4 * lens.rms_px):
        raise UsageError(
            f"the lens explains the views it was fitted to ({lens.rms_px:.2f} px) not others ({hold_out_px:.2f} px): "
            f"take more views: {coverage.missing() or 'the board elsewhere and tilted otherwise in each'}"
        )


def spread_of_tilts(fit: Fit) -> float:
    """Degrees between the two boards that lean apart most."""
    normals = fit.rotations[:, :, 2]
    return float(np.degrees(np.arccos(np.clip(np.abs(normals @ normals.T), 0, 1)).max()))


def unsure_percent(fit: Fit) -> float:
    """Two standard deviations of the focal length, in percent of it."""
    return float(200 * fit.deviations[0] / fit.lens.fx)


@dataclass(frozen=True, slots=True)
class Verdict:
    """good or usable, and why."""

    good: bool
    words: str


def judge(fit: Fit, coverage: Coverage, hold_out_px: float) -> Verdict:
    """What a person needs to know of a calibration that was not refused."""
    lens, unsure = fit.lens, unsure_percent(fit)
    known = f"the focal length is known to ±{max(unsure, 0.01):.2g} %"
    error = f"corners lie {lens.rms_px:.2f} px from where they should (hold-out {hold_out_px:.2f} px)"
    but = []
    if lens.rms_px > GOOD_RMS_PX:
        but.append(f"the error is over {GOOD_RMS_PX:g} px; is the board really flat?")
    if unsure > GOOD_UNSURE:
        but.append(f"±{unsure:.2g} % is more than {GOOD_UNSURE:g} %; more tilted views would help")
    if coverage.share < GOOD_SHARE:
        but.append(f"the board was in {coverage.share:.0%} of the picture only: {coverage.missing()}")
    if hold_out_px > GOOD_HOLD_OUT * lens.rms_px + 0.1:
        but.append("views that it was not fitted to are much worse; take more")
    if not lens.whole:
        but.append("the lens model ends before the corners of the picture: take more views there, or another --model")
    if but:
        return Verdict(False, f"usable: {error}, {known}; but {'; '.join(but)}")
    return Verdict(True, f"good: {error}, {known}")
