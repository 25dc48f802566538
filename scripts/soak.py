"""Does it leak? `python -m scripts.soak --hours 24` plays a day of frames at full speed, `--live 600` ten real minutes.

A day: the demo's recording in a loop through window, model, decoder and bus, as fast as it goes, with a subscriber.
Live: a video in a loop over a real RTSP server, with a subscriber that stops reading for a while again and again.
Memory, descriptors and threads of the line and of its child are sampled; a robust slope (Theil-Sen, after what is
bounded is full) is held to a bound. Exit code 0 when every figure is within its bound, 1 when not.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from realtime.command import run_command
from realtime.errors import UsageError
from realtime.messages import ActionEvent, Heartbeat
from scripts.faults.line import ROOT, RunningLine, children, descriptors, memory_mb, threads

DEMO = ROOT / "realtime" / "assets" / "demo.mcap"
VIDEO = ROOT.parent / "shared" / "videos" / "treadmill_walk.mp4"
SLOPE_MB = 25.0  # memory may grow so much over the day, or must at least not be higher at the end than at the start
STEP_MB = 5.0
EXAMPLES = """examples:
  python -m scripts.soak --hours 24          a day of frames, some half an hour
  python -m scripts.soak --live 600          ten minutes of a looping RTSP video, a consumer that stalls
  python -m scripts.soak --hours 1 --json out.json
"""


@dataclass(frozen=True)
class Config:
    """Run the line long and watch what it holds."""

    hours: float | None = None
    """Play so many hours of frames at full speed."""
    live: float | None = None
    """Run so many seconds live, from a looping RTSP video."""
    video: Path = VIDEO
    """Of --live."""
    json: Path | None = None
    """Write samples and figures to this file."""


@dataclass(frozen=True)
class Sample:
    """What the line and its child hold at one moment. played_s: of the source's time."""

    at_s: float
    played_s: float
    line_mb: float
    child_mb: float
    files: int
    threads: int


@dataclass(frozen=True)
class Figure:
    """One figure and what it may be at most."""

    name: str
    value: float
    bound: float
    unit: str
    note: str = ""

    @property
    def good(self) -> bool:
        """Whether it is within its bound."""
        return self.value <= self.bound


def sample(line: RunningLine, played_s: float) -> Sample:
    """Looks at the line and its child."""
    pid, below = line.pid(), children(line.pid())
    return Sample(
        round(time.monotonic() - line.begun, 2), round(played_s, 1), round(memory_mb(pid), 3),
        round(sum(memory_mb(child) for child in below), 3), descriptors(pid) + sum(map(descriptors, below)),
        threads(pid) + sum(map(threads, below)),
    )  # fmt: skip


def slope(times: np.ndarray, values: np.ndarray) -> float:
    """The median slope of all pairs (Theil-Sen), in value a second."""
    if len(times) > 400:  # the pairs grow with the square
        keep = np.linspace(0, len(times) - 1, 400).astype(int)
        times, values = times[keep], values[keep]
    i, j = np.triu_indices(len(times), 1)
    return float(np.median((values[j] - values[i]) / (times[j] - times[i])))


def figures_of(samples: list[Sample], per_s: float, settled: float) -> list[Figure]:
    """Growth of memory over `per_s` seconds of the source's time, and of descriptors and threads.

    settled: the share of the source's time after which what is bounded is full. The child keeps up to 32 MB of events
    for replay, which a day's events fill in about half of it.
    """
    kept = [one for one in samples if one.played_s >= settled * samples[-1].played_s]
    played = np.array([one.played_s for one in kept])
    found = []
    for name in ("line_mb", "child_mb"):
        values = np.array([getattr(one, name) for one in kept])
        tenth = max(len(values) // 10, 1)
        grown = slope(played, values) * per_s
        step = float(np.median(values[-tenth:]) - np.median(values[:tenth]))
        # A slope alone may be one late allocation; a step alone may be noise.
        figure = min(grown / SLOPE_MB, step / STEP_MB)
        found.append(
            Figure(
                f"memory of the {'line' if name == 'line_mb' else 'child'}", figure, 1.0, "of its bound",
                f"{values[0]:.1f} to {values[-1]:.1f} MB; slope {grown:+.2f} MB (bound {SLOPE_MB:g}), "
                f"step {step:+.2f} MB (bound {STEP_MB:g})",
            )
        )  # fmt: skip
    for name in ("files", "threads"):
        values = np.array([getattr(one, name) for one in kept])
        tenth = max(len(values) // 10, 1)
        grown = float(np.median(values[-tenth:]) - np.median(values[:tenth]))
        found.append(Figure(name, grown, 0, "more at the end", f"{values.min()} to {values.max()}"))
    return found


def replayed(hours: float, folder: Path, progress: Progress) -> tuple[list[Sample], list[Figure]]:
    """A day of frames at full speed."""
    seconds = hours * 3600
    task = progress.add_task(f"{hours:g} h of frames", total=seconds)
    samples: list[Sample] = []
    flags = ("--fast", "--loop", "--duration", str(seconds))
    with RunningLine(folder, str(DEMO), *flags) as line:
        line.wait_beat()
        frames, read, last = 0.0, 0, time.monotonic()
        while line.process.poll() is None:
            time.sleep(1.0)
            beats = [(at, message) for at, message in line.seen[read:] if isinstance(message, Heartbeat)]
            read = len(line.seen)
            for at, beat in beats:
                frames += (beat.fps or 0.0) * max(at - last, 0.0)
                last = at
            if line.process.poll() is None:
                samples.append(sample(line, frames / 30))
                progress.update(task, completed=min(frames / 30, seconds))
            _forget_old(line)
            read = len(line.seen)
        code, spent = line.process.returncode, time.monotonic() - line.begun
        lost = line.lost
    figures = figures_of(samples, 86_400, 0.5)
    note = f"{frames / 1e6:.2f} million frames in {spent / 60:.1f} min, {frames / spent:.0f} a second"
    figures.append(Figure("exit code", code, 0, "", note))
    figures.append(Figure("events lost unseen", lost, 0, "", f"{line.counted} events came"))
    return samples, figures


def live(seconds: float, video: Path, folder: Path, progress: Progress) -> tuple[list[Sample], list[Figure]]:
    """A looping RTSP video in real time, and a consumer that stalls."""
    from scripts.rtsp_server import RtspServer  # GStreamer's; says what to install where it is missing

    if not video.is_file():
        raise UsageError(f"there is no video {video}; give --video a file")
    task = progress.add_task("live", total=seconds)
    samples: list[Sample] = []
    with RtspServer(video=video) as server, RunningLine(folder, server.url) as line, Stalling(line.address) as stalling:
        line.wait_beat(fps=10)
        begun = time.monotonic()
        while time.monotonic() - begun < seconds and line.process.poll() is None:
            time.sleep(1.0)
            now = time.monotonic() - begun
            samples.append(sample(line, now))
            stalling.turn(now)
            progress.update(task, completed=now)
        beats = line.of(Heartbeat)[5:]
        code, spent = line.stop(signal.SIGTERM)
    ages = [beat.frame_age_ms.p95 for beat in beats if beat.frame_age_ms is not None]
    slow = [beat.fps for beat in beats if (beat.fps or 0) < 20]
    figures = figures_of(samples, seconds, 0.2)
    figures.append(Figure("exit code", code, 0, "", f"ended {spent:.2f} s after SIGTERM"))
    figures.append(Figure("frame age p95", float(np.median(ages)), 100, "ms", f"worst second {max(ages):.0f} ms"))
    figures.append(Figure("slow seconds", len(slow) / max(len(beats), 1), 0.02, "of all", f"{len(slow)} below 20 fps"))
    events = len(line.events())
    figures.append(Figure("seconds without any event", 0.0 if events else seconds, 0, "s", f"{events} event messages"))
    return samples, figures


class Stalling:
    """A subscriber in a process of its own that is stopped for 20 s of every 40."""

    def __init__(self, address: str) -> None:
        import subprocess

        self._process = subprocess.Popen(
            [sys.executable, "-m", "realtime.tail", address, "--topics", "action.", "status.", "heartbeat."],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._stopped = False

    def turn(self, now_s: float) -> None:
        """Stops and wakes it as the time says."""
        stopped = now_s % 40 > 20
        if stopped != self._stopped:
            os.kill(self._process.pid, signal.SIGSTOP if stopped else signal.SIGCONT)
            self._stopped = stopped

    def __enter__(self) -> Stalling:
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self._process.pid, signal.SIGCONT)
        self._process.kill()
        self._process.wait()


def _forget_old(line: RunningLine) -> None:
    """What was seen is dropped, or this program itself would grow."""
    kept = len(line.seen)
    line.counted += sum(isinstance(message, ActionEvent) for _, message in line.seen[:kept])
    del line.seen[:kept]


def show(figures: list[Figure], title: str) -> None:
    """The table on standard output."""
    table = Table("figure", "measured", "bound", "", "how", title=title, title_justify="left")
    for one in figures:
        verdict = "[green]ok" if one.good else "[red]FAILED"
        table.add_row(one.name, f"{one.value:.3g} {one.unit}", f"{one.bound:g}", verdict, one.note)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def soak(config: Config, console: Console) -> int:
    """Runs, prints and judges."""
    if (config.hours is None) == (config.live is None):
        raise UsageError("give --hours or --live, one of them")
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
    with (
        Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress,
        tempfile.TemporaryDirectory(prefix="soak-") as folder,
    ):
        if config.hours is not None:
            samples, figures = replayed(config.hours, Path(folder), progress)
        else:
            assert config.live is not None
            samples, figures = live(config.live, config.video, Path(folder), progress)
    show(figures, f"{config.hours:g} h of frames" if config.hours is not None else f"{config.live:g} s live")
    if config.json is not None:
        document = {"figures": [vars(one) for one in figures], "samples": [vars(one) for one in samples]}
        config.json.write_text(json.dumps(document) + "\n")
    return 0 if all(one.good for one in figures) else 1


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "scripts.soak", EXAMPLES, soak)


if __name__ == "__main__":
    sys.exit(main())
