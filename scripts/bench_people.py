"""What several tracked people cost after the pose: `python -m scripts.bench_people`.

Plays 1, 2, 4 and 8 people, all moving, through window, model and decoder at 30 frames a second of capture time, and
holds the time of a frame to the time that a frame has. People come into view at once, so that all their windows are
due at the same frame: the worst that can happen. Exit code 0 when every figure is within its bound, 1 when not.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from any folder, installed or not

from realtime.backends import open_engine  # noqa: E402
from realtime.bundle import default_bundle, load_bundle  # noqa: E402
from realtime.command import run_command  # noqa: E402
from realtime.decoder import Decoder  # noqa: E402
from realtime.pipeline import Pipeline  # noqa: E402
from realtime.pose import PassThrough  # noqa: E402
from realtime.recording import read_recording  # noqa: E402
from realtime.run import make_decoder  # noqa: E402
from realtime.schema import SECOND_NS, Frame  # noqa: E402
from realtime.window import WindowBuffer  # noqa: E402

DEMO = ROOT / "realtime" / "assets" / "demo.mcap"
FPS = 30.0
EXAMPLES = """examples:
  python -m scripts.bench_people
  python -m scripts.bench_people --people 8 16 --stride-frames 4
"""


@dataclass(frozen=True)
class Config:
    """Measure what several tracked people cost after the pose, on this machine."""

    people: tuple[int, ...] = (1, 2, 4, 8)
    """How many at once."""
    stride_frames: int = 8
    """Frames of the camera between two windows of a person."""
    seconds: float = 30.0
    """Of the camera's time, for each row."""
    bundle: Path | None = None
    """Folder of the model. Default: the one that ships."""
    threads: int = 2
    """CPU threads of the model."""


def frames_of(people: int, seconds: float) -> list[Frame]:
    """Frames with so many people, each at another place of the demo's recording."""
    poses = [frame.poses[0] for frame in read_recording(DEMO) if frame.poses]
    step_ns = round(SECOND_NS / FPS)
    return [
        Frame(
            i,
            (i + 1) * step_ns,
            poses=tuple(
                replace(poses[(i + 53 * k) % len(poses)], track=k + 1, captured_ns=(i + 1) * step_ns)
                for k in range(people)
            ),
        )
        for i in range(round(seconds * FPS))
    ]


def measure(people: int, config: Config) -> np.ndarray:
    """Milliseconds of window, model and decoder for each frame (T, 3)."""
    bundle = load_bundle(config.bundle or default_bundle())
    engine = open_engine(bundle, "ort", config.threads)
    rows = max(1, round(config.stride_frames / FPS * bundle.fps))
    windows = WindowBuffer(bundle.layout, bundle.window, bundle.fps, rows, max_tracks=people)
    decoder: Decoder = make_decoder(bundle)
    pipeline = Pipeline(PassThrough(), windows, engine, decoder)
    frames = frames_of(people, config.seconds)
    spent = np.array([pipeline.step(frame).stage_ns[1:] for frame in frames])
    engine.close()
    return spent[round(FPS * 4) :] / 1e6  # the first windows are not full


def bench(config: Config, console: Console) -> int:
    """Measures, prints and judges."""
    frame_ms, good = 1000 / FPS, True
    table = Table("people", "mean ms a frame", "p95", "longest", "bound", "", title_justify="left")
    table.title = f"action stage at stride {config.stride_frames} frames of {FPS:g} a second, {config.threads} threads"
    for people in config.people:
        begun = time.monotonic()
        with console.status(f"{people} people"):
            total = measure(people, config).sum(axis=1)
        held = float(np.percentile(total, 99)) <= frame_ms
        good &= held
        figures = (f"{total.mean():.2f}", f"{np.percentile(total, 95):.2f}", f"{total.max():.2f}")
        table.add_row(str(people), *figures, f"p99 {frame_ms:.1f}", "[green]ok" if held else "[red]FAILED")
        console.log(f"{people} people: {time.monotonic() - begun:.1f} s") if console.is_terminal else None
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 0 if good else 1


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "scripts.bench_people", EXAMPLES, bench)


if __name__ == "__main__":
    sys.exit(main())
