"""Measures the lens of a camera with a printed board: python -m calib.camera --help."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from calib import synthetic, vision, written
from calib.board import Board, Kind, Paper, board_page, make_board
from calib.coverage import Coverage
from calib.lens_fit import Fit, Model, fit_without_outliers, hold_out
from calib.live import Capture, Told, play, until
from calib.map_picture import draw_map
from calib.verdict import Verdict, check_coverage, check_fit, check_views, judge, unsure_percent
from calib.views import LEAST_VIEWS, Finder, Reading, View, list_pictures, read_folder
from calib.written import say
from realtime.command import run_command
from realtime.errors import UsageError
from realtime.feed import Source
from realtime.schema import SECOND_NS, Frame
from realtime.secrets import source_of
from realtime.slot import Change
from realtime.source import open_source

EXAMPLES = """examples:
  python -m calib.camera --print board.pdf                         a board to print on A4 and to glue on something flat
  python -m calib.camera --camera 0 --out cam.json                 hold it up: views are taken by themselves
  python -m calib.camera --images DIR --board chessboard --corners 9x6 --square-mm 25 --out cam.json
                                                                   from pictures taken before, of a chessboard
  python -m calib.camera --source board.mp4 --out cam.json         from a video of the board
  python -m calib.camera --camera 0 --headless --map map.png --keep views --out cam.json
                                                                   no screen: the map in the terminal and as a picture
  python -m calib.camera --camera 0 --model fisheye --out cam.json a lens of more than about 120 degrees
  python -m calib.camera --source synthetic --out cam.json         a generated board and lens: needs no camera
  python -m realtime.run --camera 0 --calib cam.json               use it

exit codes: 0 ok, 1 internal error, 2 usage, or views that make no calibration, 4 pictures or source cannot be opened,
  130 interrupted (Ctrl-C)
"""
SYNTHETIC_VIEWS = 60
USE = "python -m realtime.run --camera 0"
COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


@dataclass(frozen=True)
class Config:
    """Measure the lens of a camera with a printed board: focal length, middle and distortion."""

    source: Annotated[str, tyro.conf.arg(aliases=("--camera",), metavar="SOURCE")] = "0"
    """Where the board is held into: a camera index, a stream, a video file, as of realtime.run; or synthetic."""
    images: Path | None = None
    """Measure from the pictures in this folder instead."""
    print: Path | None = None
    """Write the board as a PDF at true scale to this file, and end."""
    board: Kind = "charuco"
    """charuco: a chessboard with markers, found also where a part of it is seen. chessboard: a plain one, whole."""
    corners: str = "9x6"
    """Inner corners of the board, across x down: where four squares meet."""
    square_mm: float = 25.0
    """Side of a square in mm; measure it on the paper."""
    marker_mm: float | None = None
    """Side of a marker in mm, of a charuco board. Default: 0.72 of a square."""
    paper: Paper = "a4"
    """Of --print; fit makes a page as large as the board."""
    model: Model = "pinhole"
    """pinhole: 5 coefficients, for most cameras. rational: 8, for wide lenses up to some 120 degrees. fisheye: 4, for
    wider ones."""
    out: Path = Path("cam.json")
    """The file to write."""
    replace: bool = False
    """Write over files that are there."""
    map: Path | None = None
    """Also write the coverage map, with every corner and its error, to this PNG file."""
    keep: Path | None = None
    """Keep the picture of each view that is taken in this new folder; --images can measure from it again."""
    views: int | None = None
    """Take so many views. Default: until enough of the picture and enough tilts were seen, 15 at least."""
    duration: float | None = None
    """Stop taking views after so many seconds."""
    mirror: bool = False
    """The camera gives mirrored pictures, as --mirror of realtime.run."""
    headless: bool = False
    """No window; the map is drawn in the terminal. So it is by itself where there is no display."""


def run(config: Config, console: Console) -> int:
    """Prints a board, or measures a lens and writes it; raises LineError with the reason where it cannot."""
    board = make_board(config.board, config.corners, config.square_mm, config.marker_mm)
    if config.print is not None:
        written.check_free(config.print, config.replace, "--print")
        written.write(config.print, board_page(board, config.paper).pdf(), "--print")
        say(console, f"{config.print}: {board}. Print it at 100 % and glue it on something flat and stiff; then run")
        say(console, f"  python -m calib.camera --camera 0 {_flags(config, board)} --out cam.json")
        return 0
    _check(config)
    finder = Finder(board)
    if config.images is not None:
        reading, pictures = _from_folder(config.images, finder, console)
    else:
        reading, pictures = _from_source(config, finder, console)
    for one in reading.left_out if config.images is not None else ():
        say(console, f"left out {one.name}: {one.why}")
    check_views(reading, board, pictures)
    coverage = _cover(reading.views, board)
    try:
        check_coverage(coverage)
        found, kept, verdict, hold_out_px = _measure(reading.views, board, config.model, coverage, console)
    except UsageError:
        say(console, coverage.text())
        if config.map is not None:
            _write_map(config.map, coverage, reading.views, None, "refused")
        raise
    if len(kept) < len(reading.views):
        coverage = _cover(kept, board)
    written.write_document(config.out, document(found, kept, board, coverage, hold_out_px, verdict))
    if config.map is not None:
        _write_map(config.map, coverage, kept, found, verdict.words)
    _report(console, found, kept, coverage)
    say(console, verdict.words, "bold")
    made = config.images is None and config.source == "synthetic"
    use = "this lens is a generated one and fits no camera" if made else f"use it: {USE} --calib {config.out}"
    say(console, f"written: {config.out}; {use}")
    return 0


def document(
    found: Fit, views: list[View], board: Board, coverage: Coverage, hold_out_px: float, verdict: Verdict
) -> dict[str, Any]:
    """The file's content; `measured` is for people."""
    wide, tall = found.lens.field_of_view
    return {
        "schema": "calib-camera/1",
        **found.lens.described(),
        "measured": {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "verdict": verdict.words,
            "hold_out_px": round(hold_out_px, 4),
            "focal_known_to_percent": round(unsure_percent(found), 4),
            "deviations_px": {
                key: round(float(one), 4) for key, one in zip(("fx", "fy", "cx", "cy"), found.deviations, strict=False)
            },
            "field_of_view_degrees": [round(wide, 2), round(tall, 2)],
            "coverage": round(coverage.share, 3),
            "board": str(board),
            "views": {view.name: round(float(error), 4) for view, error in zip(views, found.errors, strict=True)},
        },
    }


def _check(config: Config) -> None:
    """UsageError where flags contradict each other or a file could not be written, before any work."""
    written.check_free(config.out, config.replace)
    if config.map is not None:
        written.check_free(config.map, config.replace, "--map")
    if config.views is not None and not LEAST_VIEWS <= config.views <= 500:
        raise UsageError(f"--views must be in [{LEAST_VIEWS}, 500], got {config.views}")
    if config.duration is not None and not 0 < config.duration < 1e6:
        raise UsageError(f"--duration must be above 0 seconds, got {config.duration:g}")
    if config.keep is not None:
        if config.images is not None:
            raise UsageError("--keep is for views taken from a camera; with --images the pictures are kept already")
        if config.keep.exists() and (not config.keep.is_dir() or any(config.keep.iterdir())):
            raise UsageError(f"--keep {config.keep} is there already and not empty; name a new folder")


def _flags(config: Config, board: Board) -> str:
    given = f"--board {board.kind} --corners {board.columns}x{board.rows} --square-mm {board.square_mm:g}"
    return f"{given} --marker-mm {board.marker_mm:g}" if config.marker_mm is not None else given


def _from_folder(folder: Path, finder: Finder, console: Console) -> tuple[Reading, Any]:
    """What the pictures of a folder show, and a way to look at some of them again."""
    files = list_pictures(folder)
    with Progress(*COLUMNS, console=console, transient=True) as progress:
        task = progress.add_task("looking for the board", total=len(files))
        reading = read_folder(folder, finder, lambda done, of: progress.update(task, completed=done))
    names = [view.name for view in reading.views]
    names += [one.name for one in reading.left_out if one.reason == "no board"]

    def pictures(count: int) -> list[np.ndarray]:
        some = names[:: max(len(names) // count, 1)][:count]
        return [one for one in (vision.read_picture(folder / name) for name in some) if one is not None]

    return reading, pictures


def _from_source(config: Config, finder: Finder, console: Console) -> tuple[Reading, Any]:
    """Views taken from a camera, stream or video, and a way to look at some of its pictures."""
    with ExitStack() as opened:
        if config.source == "synthetic":
            frames: Iterator[Frame | Change | None] = synthetic_frames(finder.board)
            still = False
        else:
            source = open_source(source_of(config.source, None), fast=True, mirror=config.mirror)
            opened.callback(source.close)
            _needs_pictures(source, config.source)
            frames, still = iter(source), source.info.kind != "images"
        if config.keep is not None:
            try:
                config.keep.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"--keep {config.keep}: {error.strerror}; name another folder") from error
        capture = Capture(finder, config.views, config.keep, still)
        say(console, f"hold the board into the camera: {finder.board}")
        guide = opened.enter_context(Guide(console, capture, config.headless))
        try:
            play(until(frames, config.duration), capture, guide.tell)
        except KeyboardInterrupt:
            if config.keep is not None and capture.reading.views:
                say(console, f"the views so far are kept: go on with --images {config.keep}")
            raise
    return capture.reading, lambda count: capture.samples[:count]


def _needs_pictures(source: Source, spec: str) -> None:
    if source.info.skeletons:
        raise UsageError(f"--source {spec} gives skeletons, and a lens is measured in pictures; name a camera or video")


def synthetic_frames(board: Board) -> Iterator[Frame]:
    """A generated board before a generated lens."""
    lens = synthetic.SYNTHETIC
    for index, (turn, place) in enumerate(synthetic.stances(board, lens, SYNTHETIC_VIEWS)):
        picture = synthetic.picture(board, lens, turn, place, seed=index)
        yield Frame(index, index * SECOND_NS, np.repeat(picture[..., None], 3, axis=2))


class Guide:
    """Shows a person what to do: a window where there is a display, and the map in the terminal."""

    def __init__(self, console: Console, capture: Capture, headless: bool) -> None:
        from realtime.show import Screen, no_display

        self._console, self._capture = console, capture
        self._screen = None if headless or no_display() else Screen("calib.camera")
        self._progress = Progress(*COLUMNS, console=console)
        self._task = self._progress.add_task("views", total=capture.goal)
        self._live = Live(console=console, transient=True, refresh_per_second=4) if console.is_terminal else None

    def __enter__(self) -> Guide:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        if self._screen is not None:
            self._screen.close()

    def tell(self, what: Told | Change, picture: np.ndarray | None) -> bool:
        """Shows it; False where the person ended it in the window."""
        if isinstance(what, Change):
            say(self._console, f"{what.state}: {what.reason}")
            return True
        coverage = self._capture.coverage
        missing = (coverage.missing() if coverage else None) or ""
        if what.taken:
            self._progress.update(self._task, completed=len(self._capture.reading.views), total=self._capture.goal)
            if self._live is None and coverage is not None:
                say(self._console, f"{what.state}: {coverage.share:.0%} of the picture; {missing or 'enough'}")
        if self._live is not None:
            shown = Text(f"{coverage.text() if coverage else ''}\n{what.state}\nnext: {missing or 'hold the board up'}")
            self._live.update(Group(shown, self._progress))
        return self._screen is None or picture is None or self._screen.show(picture)


def _cover(views: list[View], board: Board) -> Coverage:
    coverage = Coverage(views[0].size, board)
    for view in views:
        coverage.add(view)
    return coverage


def _measure(
    views: list[View], board: Board, model: Model, coverage: Coverage, console: Console
) -> tuple[Fit, list[View], Verdict, float]:
    """The fit, the views it stands on, the verdict and the hold-out error; UsageError with the reason to refuse."""
    with Progress(*COLUMNS, console=console, transient=True) as progress:
        task = progress.add_task(f"fitting a {model} lens to {len(views)} views", total=None)
        found, kept, out = fit_without_outliers(views, board, model, LEAST_VIEWS)
        for view, error in out:
            say(
                console,
                f"left out {view.name}: it contradicts the others ({error:.2f} px); was the board bent or moved?",
            )
        each = lambda done, of: progress.update(task, description="hold-out", completed=done, total=of)  # noqa: E731
        hold_out_px = hold_out(kept, board, model, each)
    check_fit(found, coverage, hold_out_px, model)
    return found, kept, judge(found, coverage, hold_out_px), hold_out_px


def _write_map(path: Path, coverage: Coverage, views: list[View], found: Fit | None, text: str) -> None:
    written.write(path, vision.write_picture(draw_map(coverage, views, found, text)), "--map")


def _report(console: Console, found: Fit, views: list[View], coverage: Coverage) -> None:
    """The map, the numbers and each view's error."""
    lens = found.lens
    say(console, coverage.text())
    table = Table("view", "corners", "error px", "edges px")
    for view, error in zip(views, found.errors, strict=True):
        table.add_row(view.name, str(len(view.numbers)), f"{error:.3f}", f"{view.edge_px:.1f}")
    console.print(table)
    wide, tall = lens.field_of_view
    say(
        console,
        f"{lens.width}x{lens.height} {lens.model}: focal length {lens.fx:.2f} x {lens.fy:.2f} px, middle "
        f"{lens.cx:.2f}, {lens.cy:.2f}, distortion {' '.join(f'{one:.4f}' for one in lens.distortion)}, "
        f"sees {wide:.1f} x {tall:.1f} degrees",
    )


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "calib.camera", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
