"""Measures how a depth camera and a colour camera stand to each other: python -m calib.depth --help."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from calib import stereo, vision, written
from calib.board import Board, Kind, make_board
from calib.depth_picture import share_covered, which_lies_where
from calib.lens_fit import fit
from calib.outliers import without_outliers
from calib.pairs import Seen, join, match, read_pairs
from calib.stereo import Pair, Stereo
from calib.views import View
from calib.written import say
from realtime.calibration import load_calibration
from realtime.command import run_command
from realtime.errors import SourceError, UsageError
from realtime.lens import Lens
from realtime.rig import Rig
from realtime.schema import Frame
from realtime.source import open_source

EXAMPLES = """examples:
  python -m calib.depth --color DIR --infrared DIR --board chessboard --corners 9x6 --square-mm 25 --out rig.json
                                                                   from pictures of a board that both cameras took
  python -m calib.depth --color DIR --infrared DIR --color-lens cam.json --out rig.json
                                                                   the colour lens as calib.camera measured it
  python -m calib.depth --source depth:realsense --out rig.json    what the device states itself
  python -m calib.depth --source depth:FOLDER --picture laid.png --out rig.json
                                                                   what a recording states, and a picture to judge it by
  python -m realtime.run --source depth:FOLDER --calib rig.json    use it

exit codes: 0 ok, 1 internal error, 2 usage, or pairs that make no calibration, 4 pictures or source cannot be opened,
  130 interrupted (Ctrl-C)
"""
LEAST_PAIRS = 6
MOST_RMS_PX, GOOD_RMS_PX = 1.0, 0.5
SAME_WAY_DEG = 12.0  # between the two boards that lean apart most
MOST_TURNED_DEG = 60.0  # two cameras that see one board and are turned so far: one picture lies on its side
WORSE_PX = 0.6  # a pair that is at least so bad, and much worse than the middle one, is left out
GOOD_UNSURE_MM = 1.5
COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


@dataclass(frozen=True)
class Config:
    """Measure how a depth camera and a colour camera stand to each other, or take what their maker states."""

    color: Path | None = None
    """Folder of the colour camera's pictures of the board."""
    infrared: Path | None = None
    """Folder of the depth camera's infrared pictures of it, taken at the same moments and named alike."""
    source: Annotated[str | None, tyro.conf.arg(metavar="depth:SOURCE")] = None
    """A depth camera or a recording of one: what it states is taken where no folders are given; --picture shows it."""
    board: Kind = "charuco"
    """charuco: a chessboard with markers, found also where a part of it is seen. chessboard: a plain one, whole."""
    corners: str = "9x6"
    """Inner corners of the board, across x down: where four squares meet."""
    square_mm: float = 25.0
    """Side of a square in mm; measure it on the paper: a wrong one makes every distance wrong."""
    marker_mm: float | None = None
    """Side of a marker in mm, of a charuco board. Default: 0.72 of a square."""
    color_lens: Path | None = None
    """The colour lens, a file of calib.camera. Default: measured from these pictures, too."""
    infrared_lens: Path | None = None
    """The depth camera's lens, likewise."""
    out: Path = Path("rig.json")
    """The file to write."""
    replace: bool = False
    """Write over files that are there."""
    picture: Path | None = None
    """Also write a picture of --source to this PNG file: its depth laid on its colours, to see whether they meet."""


def run(config: Config, console: Console) -> int:
    """Measures, or takes what is stated, and writes it; LineError with the reason where it cannot."""
    _check(config)
    if config.color is not None and config.infrared is not None:
        board = make_board(config.board, config.corners, config.square_mm, config.marker_mm)
        if board.kind == "chessboard" and board.columns == board.rows:
            raise UsageError(
                f"a chessboard of {config.corners} corners looks the same from four sides, so that two cameras may "
                "count its corners differently; take one with more columns than rows, or a charuco board"
            )
        rig, document, verdict = _measured(config.color, config.infrared, board, config, console)
    else:
        rig, document, verdict = _stated(str(config.source))
    if config.picture is not None:
        _draw(config.picture, str(config.source), rig, console)
    written.write_document(config.out, document)
    say(console, verdict, "bold")
    of = config.source or "depth:SOURCE"
    say(console, f"written: {config.out}; use it: python -m realtime.run --source {of} --calib {config.out}")
    return 0


def _check(config: Config) -> None:
    given = [config.color, config.infrared]
    if any(given) and not all(given):
        raise UsageError("--color and --infrared go together: a folder of each camera's pictures of the board")
    if not any(given) and config.source is None:
        raise UsageError("name two folders, --color and --infrared, or a --source depth:... that states its own lenses")
    if config.source is not None and not config.source.startswith("depth:"):
        raise UsageError(f"--source must begin with depth:, such as depth:oak or depth:FOLDER, got {config.source}")
    if not any(given) and (config.color_lens or config.infrared_lens):
        raise UsageError("--color-lens and --infrared-lens go with --color and --infrared; a source states its lenses")
    if config.picture is not None and config.source is None:
        raise UsageError("--picture needs --source depth:... to show something of")
    for path, flag in ((config.out, "--out"), (config.picture, "--picture")):
        if path is not None:
            written.check_free(path, config.replace, flag)


def _measured(
    color: Path, infrared: Path, board: Board, config: Config, console: Console
) -> tuple[Rig, dict[str, Any], str]:
    """From pictures of a board; UsageError with the reason where they make no calibration."""
    files = match(color, infrared)
    with Progress(*COLUMNS, console=console, transient=True) as progress:
        task = progress.add_task("looking for the board", total=len(files))
        seen = read_pairs(files, board, lambda done, of: progress.update(task, completed=done, total=of))
        for one in seen.left_out:
            say(console, f"left out {one.name}: {one.why}")
        _enough(seen)
        progress.update(task, description="fitting the lenses", completed=0, total=3)
        lenses = (
            _lens(config.color_lens, seen.color, board, "--color-lens"),
            _lens(config.infrared_lens, seen.depth, board, "--infrared-lens"),
        )
        progress.update(task, description="fitting the cameras", completed=1)
        found, pairs, out = without_outliers(
            join(seen, board, *lenses), lambda kept: stereo.fit_stereo(kept, *lenses), LEAST_PAIRS, WORSE_PX
        )
        progress.update(task, description="hold-out", completed=2)
        hold_out_px = stereo.hold_out(pairs, *lenses)
        progress.update(task, completed=3)
    for pair, error in out:
        say(console, f"left out {pair.name}: it contradicts the others ({error:.1f} px); did the board move?")
    refuse(found, hold_out_px)
    table = Table("pair", "corners", "error px")
    for pair, error in zip(pairs, found.errors, strict=True):
        table.add_row(pair.name, str(len(pair.points)), f"{error:.3f}")
    console.print(table)
    verdict = judge(found, hold_out_px, len(pairs))
    return found.rig, found.rig.document(about(found, hold_out_px, pairs, board, verdict)), verdict


def _enough(seen: Seen) -> None:
    if len(seen.color) < LEAST_PAIRS:
        worst = max(seen.left_out, key=lambda one: sum(o.reason == one.reason for o in seen.left_out), default=None)
        why = f"; most others: {worst.why} ({worst.name})" if worst else ""
        raise UsageError(
            f"too few pairs: the board is found by both cameras in {len(seen.color)} of {seen.of} and {LEAST_PAIRS} "
            f"are needed{why}. Light the board with a lamp (infrared needs daylight or a bulb, and the projector "
            "covered), hold it still, and look at --board and --corners"
        )


def _lens(path: Path | None, views: Sequence[View], board: Board, flag: str) -> Lens:
    """The lens of a file, at the size of these pictures, or the one that these views tell."""
    size = views[0].size
    if path is None:
        found = fit(views, board, "pinhole").lens
        if found.rms_px > MOST_RMS_PX:
            raise UsageError(
                f"no lens explains the pictures well ({found.rms_px:.2f} px): is the board flat, --corners right? A "
                f"very wide lens is measured with python -m calib.camera --model fisheye and named with {flag}"
            )
        return found
    lens = load_calibration(path).lens
    if lens is None:
        raise UsageError(f"{flag} {path} is no file of calib.camera; measure it with python -m calib.camera")
    if (lens.width, lens.height) != size:
        raise UsageError(
            f"{flag} {path} was measured at {lens.width}x{lens.height}, the pictures are {size[0]}x{size[1]}; take "
            "them at that size, or leave the flag out"
        )
    return lens


def refuse(found: Stereo, hold_out_px: float) -> None:
    """UsageError with the reason where this is nothing to rely on."""
    if found.rms_px > MOST_RMS_PX:
        raise UsageError(
            f"stereo RMS {found.rms_px:.2f} px is over {MOST_RMS_PX:g} px: were the two pictures of each pair taken at "
            "the same moment, with the board still, and of one board?"
        )
    if hold_out_px > max(2 * MOST_RMS_PX, 5 * found.rms_px):
        raise UsageError(
            f"the cameras' places explain the pairs they were fitted to ({found.rms_px:.2f} px) but not others "
            f"({hold_out_px:.2f} px): take more pairs, the board near and far, everywhere, tilted every way"
        )
    apart = float(np.degrees(np.arccos(np.clip(np.abs(found.normals @ found.normals.T), 0, 1)).max()))
    if apart < SAME_WAY_DEG:
        raise UsageError(
            f"the board was held the same way in all pairs (within {apart:.0f} degrees); tilt it by some 30 degrees, "
            "each edge away in turn"
        )
    if found.rig.angle_deg > MOST_TURNED_DEG:
        raise UsageError(
            f"one camera is turned by {found.rig.angle_deg:.0f} degrees against the other: does one of the pictures "
            "lie on its side or upside down? Turn them the same way round"
        )


def judge(found: Stereo, hold_out_px: float, pairs: int) -> str:
    """What a person needs to know of a calibration that was not refused."""
    rig, unsure_mm = found.rig, 2000 * float(found.unsure_m.max())
    words = (
        f"stereo RMS {found.rms_px:.2f} px over {pairs} pairs (hold-out {hold_out_px:.2f} px), the cameras are "
        f"{1000 * rig.baseline_m:.1f} mm apart (±{max(unsure_mm, 0.1):.1f} mm), turned by {rig.angle_deg:.2f} degrees"
    )
    but = []
    if found.rms_px > GOOD_RMS_PX:
        but.append(f"the error is over {GOOD_RMS_PX:g} px; is the board really flat, and was it still?")
    if unsure_mm > GOOD_UNSURE_MM:
        but.append(f"±{unsure_mm:.1f} mm is more than {GOOD_UNSURE_MM:g} mm; more pairs, nearer and tilted, would help")
    if hold_out_px > 2 * found.rms_px + 0.2:
        but.append("pairs that it was not fitted to are much worse; take more")
    return f"usable: {words}; but {'; '.join(but)}" if but else f"good: {words}"


def about(found: Stereo, hold_out_px: float, pairs: Sequence[Pair], board: Board, verdict: str) -> dict[str, Any]:
    """What people may want to know, for the file."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "from": "pictures of a board",
        "board": str(board),
        "pairs": len(pairs),
        "rms_px": round(found.rms_px, 4),
        "hold_out_px": round(hold_out_px, 4),
        "baseline_mm": round(1000 * found.rig.baseline_m, 2),
        "unsure_mm": round(2000 * float(found.unsure_m.max()), 2),
        "rotation_deg": round(found.rig.angle_deg, 3),
        "unsure_deg": round(2 * float(found.unsure_deg.max()), 4),
        "verdict": verdict,
    }


def _stated(source: str) -> tuple[Rig, dict[str, Any], str]:
    """What a device or a recording says of itself."""
    with closing(open_source(source, fast=True)) as opened:
        info = opened.info
    rig = info.rig
    if rig is None:
        raise SourceError(
            f"{source} states nothing of its lenses; take pictures of a board with both cameras, and name their "
            "folders with --color and --infrared"
        )
    size = (info.width, info.height) if info.width and info.height else None
    rig.fits(size, info.depth_size, source)
    verdict = (
        f"stated by {info.id}, not measured: the cameras are {1000 * rig.baseline_m:.1f} mm apart and turned by "
        f"{rig.angle_deg:.2f} degrees; --picture shows whether depth and colours meet"
    )
    date = datetime.now().astimezone().isoformat(timespec="seconds")
    measured = {"date": date, "from": f"stated by {source}", "verdict": verdict}
    return rig, rig.document(measured), verdict


def _draw(path: Path, source: str, rig: Rig, console: Console) -> None:
    """The first frame's depth on its colours."""
    with closing(open_source(source, fast=True)) as opened:
        frame = next((item for item in opened if isinstance(item, Frame) and item.depth is not None), None)
    if frame is None or frame.image is None or frame.depth is None:
        raise SourceError(f"{source}: no frame with depth came; --picture has nothing to show")
    (height, width), (rows, columns) = frame.image.shape[:2], frame.depth.shape
    rig.fits((width, height), (columns, rows), source)
    shown, laid = which_lies_where(rig, frame.image, frame.depth)
    written.write(path, vision.write_picture(shown), "--picture")
    say(console, f"{path}: edges of depth (yellow) must follow those of things; {share_covered(laid):.0%} has depth")


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "calib.depth", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
