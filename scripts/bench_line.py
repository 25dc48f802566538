"""Measures the line on this machine against its bounds: python -m scripts.bench_line --help

Measurements on one video with a person, and one on a video with several:
start   the line as its own process: seconds to the first pose that a subscriber holds, and peak memory over the file;
age     how old frames are when a consumer takes them that only manages 7 a second, at live pace;
rate    the whole line beside a bare MediaPipe loop, in turns of some frames each, so that whatever else this machine
        does hits both alike. The bare loop decodes with the same reader, makes the same small picture and calls
        MediaPipe with the same settings; it does nothing else;
people  the line's rate where it follows two people (LiteRT only).
"""

from __future__ import annotations

import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from realtime.backends import open_engine
from realtime.bundle import Bundle, default_bundle, load_bundle
from realtime.command import run_command
from realtime.errors import LineError, UsageError
from realtime.feed import Change
from realtime.line import Line
from realtime.messages import ActionEvent, PoseMessage
from realtime.meter import Reading
from realtime.pipeline import STAGES, Step
from realtime.pose import MediaPipePose
from realtime.pose_choice import open_pose
from realtime.report import Outputs, Reporter
from realtime.run import make_pipeline
from realtime.schema import Event, Frame
from realtime.scoring import Engine
from realtime.source import Source, open_source
from realtime.stop import Stop
from realtime.subscriber import Subscriber
from realtime.terminal import Terminal
from scripts.figures import Figure, show, write

ROOT = Path(__file__).resolve().parent.parent
VIDEO = ROOT.parent / "shared" / "videos" / "treadmill_walk.mp4"
PEOPLE = VIDEO.with_name("three_people_exercise.avi")
LINE_TO_BARE = {"litert": 1.4, "mediapipe": 0.9}  # what the line must keep, or gain, of a bare MediaPipe loop's rate
STARTS = 3
FIRST_POSE_S = 60.0
BLOCK = 30  # frames in a row for each of the two loops
SLOW_FPS = 7.0

EXAMPLES = """examples:
  python -m scripts.bench_line                                 the video of the research material, the shipped bundle
  python -m scripts.bench_line --pose mediapipe                the line with MediaPipe itself
  python -m scripts.bench_line --video FILE --json out.json    any video with one person in it, figures also as JSON

exit codes: 0 every figure is within its bound, 1 one is not, 2 usage, 3 bundle refused, 4 video cannot be opened,
  130 interrupted
"""


@dataclass(frozen=True)
class Config:
    """Measure the line on this machine: frame rate, cost of the action stage, frame age, memory and start-up time."""

    video: Path | None = None
    """A video file with one person in it, ten seconds or longer. Default: ../shared/videos/treadmill_walk.mp4."""
    people: Path | None = None
    """A video file with two or more people in it. Default: ../shared/videos/three_people_exercise.avi."""
    pose: Literal["litert", "mediapipe"] = "litert"
    """The line's pose stage; the bare loop is always MediaPipe."""
    bundle: Path | None = None
    """Folder of the model. Default: the one that ships."""
    json: Path | None = None
    """Also write the figures to this file."""
    age_seconds: float = 10.0
    """How long to watch the age of frames, seconds."""
    most_memory_mb: float = 700.0
    """Bound of the peak resident memory, MB."""
    most_start_s: float = 5.0
    """Bound of the time from process start to first pose, seconds."""


class TimedReporter(Reporter):
    """A reporter that keeps what each frame cost: the pipeline's stages and the telling, in nanoseconds."""

    def __init__(self, outputs: Outputs, bundle: Bundle, engine: Engine, source: Source) -> None:
        super().__init__(outputs, bundle, engine.backend, source.info, engine.precision)
        self.rows: list[tuple[int, ...]] = []
        self.beats_ns = self.people = 0

    def step(self, step: Step) -> list[ActionEvent]:
        """Tells as ever, and notes the time."""
        begun = time.perf_counter_ns()
        told = super().step(step)
        self.rows.append((*step.stage_ns, time.perf_counter_ns() - begun))
        self.people += bool(step.poses)
        return told

    def heartbeat(
        self,
        reading: Reading,
        drops: int,
        refused: int,
        open_events: Sequence[Event],
        persons: int,
        reconnects: int = 0,
    ) -> None:
        """Beats as ever, and notes the time."""
        begun = time.perf_counter_ns()
        super().heartbeat(reading, drops, refused, open_events, persons, reconnects)
        self.beats_ns += time.perf_counter_ns() - begun


class Bare:
    """A MediaPipe loop and nothing else, run some frames at a time."""

    def __init__(self, video: Path) -> None:
        self._source = open_source(str(video), fast=True)
        self._stage = MediaPipePose()
        self.blocks_s: list[float] = []

    def run(self, frames: int) -> None:
        """Takes so many frames through MediaPipe; keeps how long that took unless the video ends before."""
        process, small = self._stage._graph.process, self._stage._small_rgb  # what MediaPipePose calls, without it
        begun = time.perf_counter()
        done = 0
        for frame in self._source:
            if isinstance(frame, Frame):
                assert frame.image is not None
                process(small(frame.image))
                done += 1
                if done == frames:
                    self.blocks_s.append(time.perf_counter() - begun)
                    return

    def close(self) -> None:
        """Frees graph and file."""
        self._stage.close()
        self._source.close()


@dataclass
class Turns:
    """The source of the line, which after each block of frames lets the bare loop have the same ones."""

    source: Source
    bare: Bare
    progress: Progress
    task: TaskID
    blocks_s: list[float] = field(default_factory=list)

    def __getattr__(self, name: str) -> object:
        return getattr(self.source, name)

    def __iter__(self) -> Iterator[Frame | Change | None]:
        taken, begun = 0, time.perf_counter()
        for frame in self.source:
            yield frame
            taken += isinstance(frame, Frame)
            if isinstance(frame, Frame) and taken % BLOCK == 0:
                self.blocks_s.append(time.perf_counter() - begun)
                self.bare.run(BLOCK)
                self.progress.update(self.task, completed=taken)
                begun = time.perf_counter()


@contextmanager
def listening(address: str) -> Iterator[None]:
    """A subscriber in its own process, as in real use."""
    command = [sys.executable, "-m", "realtime.tail", address]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measure_start(video: Path, bundle: Path, pose: str, folder: str, progress: Progress) -> tuple[list[float], float]:
    """Seconds from process start to the first pose that a subscriber holds, for each start; peak memory in MB."""
    task = progress.add_task("start", total=STARTS)
    seconds, peak = [], 0.0
    for number in range(STARTS):
        to_the_end = number == STARTS - 1
        address = f"ipc://{folder}/{number}"  # in a folder of its own: killed, the line leaves its socket there
        with Subscriber(address, ("pose.",)) as subscriber:
            command = [sys.executable, "-m", "realtime.run", "--source", str(video), "--bundle", str(bundle)]
            command += ["--pub", address, "--publish-poses", "--headless", "--quiet", "--fast", "--pose", pose]
            begun = time.monotonic()
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL)
            try:
                seconds.append(_first_pose_s(subscriber, process, begun, video))
                while to_the_end and process.poll() is None:
                    peak = max(peak, _peak_mb(process.pid))
                    subscriber.receive(0.1)
            finally:
                process.kill()
                process.wait()
        progress.update(task, advance=1)
    return seconds, peak


def _first_pose_s(subscriber: Subscriber, process: subprocess.Popen[bytes], begun: float, video: Path) -> float:
    while time.monotonic() - begun < FIRST_POSE_S:
        received = subscriber.receive(0.1)
        if received is not None and isinstance(received.message, PoseMessage) and received.message.persons:
            return time.monotonic() - begun
        if received is None and process.poll() is not None:
            if process.returncode:  # it has said why
                raise LineError(f"the line ended with exit code {process.returncode} on {video}")
            break
    raise UsageError(f"nobody was seen in {video}; give --video a file with one person in full view")


def _peak_mb(pid: int) -> float:
    """The highest resident memory of a process so far; what its parent had before the start does not count."""
    with suppress(OSError):  # it has just ended
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def measure_age(
    video: Path, seconds: float, bundle: Bundle, pose: str, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Ages in ms of the frames that a consumer of 7 fps takes at live pace: when taken, and when it is done."""
    task = progress.add_task("age", total=seconds)
    source = open_source(str(video), fast=False)
    engine, (stage, _) = open_engine(bundle, precision="auto"), open_pose(pose, 1)
    pipeline = make_pipeline(stage, bundle, engine, 1)
    reporter = Reporter(Outputs(), bundle, engine.backend, source.info, engine.precision)
    taken, done = [], []
    begun = time.monotonic()
    for frame in source:
        now_ns = time.monotonic_ns()
        if not isinstance(frame, Frame):
            continue
        taken.append((now_ns - frame.captured_ns) / 1e6)
        reporter.step(pipeline.step(frame))
        time.sleep(max(0.0, 1 / SLOW_FPS - (time.monotonic_ns() - now_ns) / 1e9))
        done.append((time.monotonic_ns() - frame.captured_ns) / 1e6)
        progress.update(task, completed=time.monotonic() - begun)
        if time.monotonic() - begun > seconds:
            break
    progress.update(task, completed=seconds)
    source.close()
    stage.close()
    reporter.close()
    return np.array(taken), np.array(done)


def measure_rate(
    video: Path, bundle: Bundle, pose: str, folder: str, progress: Progress
) -> tuple[np.ndarray, np.ndarray, TimedReporter]:
    """Seconds of each block of the line and of the bare loop, in pairs, and what the line's stages took."""
    source, bare = open_source(str(video), fast=True), Bare(video)
    task = progress.add_task("rate", total=None)
    engine, (stage, _), address = open_engine(bundle, precision="auto"), open_pose(pose, 1), f"ipc://{folder}/rate"
    reporter = TimedReporter(Outputs(publish=address), bundle, engine, source)
    turns = Turns(source, bare, progress, task)
    terminal = Terminal(Console(stderr=True), bundle, source.info, quiet=True, show=False)
    stop = Stop()
    with listening(address):
        reporter.wait_for_subscriber(20, stopped=lambda: stop.code is not None)
        line = Line(turns, make_pipeline(stage, bundle, engine, 1), engine, reporter, terminal, stop)  # type: ignore[arg-type]
        line.run(None)
        reporter.close()
    bare.close()
    source.close()
    stop.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if stop.code is not None:
        raise KeyboardInterrupt
    pairs = min(len(turns.blocks_s), len(bare.blocks_s))
    if pairs < 3:
        raise UsageError(f"{video} has fewer than {3 * BLOCK} frames; give --video a longer one")
    # The first block of each is left out: MediaPipe looks for the person and makes its buffers.
    return np.array(turns.blocks_s[1:pairs]), np.array(bare.blocks_s[1:pairs]), reporter


def measure_people(video: Path, bundle: Bundle, pose: str, progress: Progress) -> Figure:
    """Frames a second of the line where it follows two people, over the frames that show it both."""
    task = progress.add_task("people", total=None)
    source = open_source(str(video), fast=True)
    engine, (stage, _) = open_engine(bundle, precision="auto"), open_pose(pose, 2)
    pipeline = make_pipeline(stage, bundle, engine, 2)
    reporter = Reporter(Outputs(), bundle, engine.backend, source.info, engine.precision)
    seconds, begun = [], time.perf_counter()
    for frame in source:
        if isinstance(frame, Frame):
            step = pipeline.step(frame)
            reporter.step(step)
            if len(step.poses) == 2:
                seconds.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            progress.update(task, advance=1)
    source.close()
    stage.close()
    reporter.close()
    if len(seconds) < BLOCK:
        raise UsageError(f"two people were seen in {len(seconds)} frames of {video}; give --people another file")
    return Figure(
        "two people", len(seconds) / sum(seconds), 30.0, "fps", least=True,
        note=f"{video.name}, {len(seconds)} frames with both; p95 {1000 * _p95(np.array(seconds)):.0f} ms a frame",
    )  # fmt: skip


def rate_figures(line_s: np.ndarray, bare_s: np.ndarray, reporter: TimedReporter, least: float) -> list[Figure]:
    """What the line keeps of the bare loop's rate, and what the action stage costs of a frame's time."""
    line_fps, bare_fps = (BLOCK * len(blocks) / blocks.sum() for blocks in (line_s, bare_s))
    low, high = np.percentile(bare_s / line_s, [25, 75])
    frame_ms = 1000 / line_fps
    stage_ms = dict(zip((*STAGES, "bus"), np.mean(reporter.rows[BLOCK:], axis=0) / 1e6, strict=True))
    stage_ms["bus"] += reporter.beats_ns / 1e6 / max(len(reporter.rows), 1)
    action_ms = sum(value for name, value in stage_ms.items() if name != "pose")
    parts = ", ".join(f"{name} {value:.2f}" for name, value in stage_ms.items())
    return [
        Figure(
            "line / bare frame rate", line_fps / bare_fps, least, "", least=True,
            note=f"line {line_fps:.1f} fps, bare {bare_fps:.1f} fps; middle half of {len(line_s)} pairs "
            f"{low:.3f} to {high:.3f}",
        ),
        Figure(
            "action stage / frame time", 100 * action_ms / frame_ms, 10.0, "%",
            note=f"{action_ms:.2f} of {frame_ms:.1f} ms: {parts}; a person in {reporter.people} of "
            f"{len(reporter.rows)} frames",
        ),
    ]  # fmt: skip


def measure(config: Config, video: Path, bundle: Bundle, console: Console) -> list[Figure]:
    """All figures; progress goes to the console."""
    columns = (TextColumn("{task.description:6}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
    with (
        Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress,
        TemporaryDirectory(prefix="bench-line-") as folder,
    ):
        starts, peak_mb = measure_start(video, bundle.path, config.pose, folder, progress)
        taken, done = measure_age(video, config.age_seconds, bundle, config.pose, progress)
        line_s, bare_s, reporter = measure_rate(video, bundle, config.pose, folder, progress)
        people = config.people or PEOPLE
        two = [measure_people(people, bundle, config.pose, progress)] if config.pose == "litert" else []
    ages = f"middle {np.median(taken):.0f} ms, {len(taken)} frames; with its pause, when done: p95 {_p95(done):.0f} ms"
    return [
        *rate_figures(line_s, bare_s, reporter, LINE_TO_BARE[config.pose]),
        *two,
        Figure(f"frame age p95 at {SLOW_FPS:g} fps", _p95(taken), 150.0, "ms", note=ages),
        Figure("peak memory", peak_mb, config.most_memory_mb, "MB", note="resident, the whole video"),
        Figure(
            "start to first pose", statistics.median(starts), config.most_start_s, "s",
            note="each: " + ", ".join(f"{value:.1f}" for value in starts),
        ),
    ]  # fmt: skip


def _p95(values: np.ndarray) -> float:
    return float(np.percentile(values, 95))


def bench(config: Config, console: Console) -> int:
    """Measures, prints and judges."""
    video = config.video or VIDEO
    if not video.is_file():
        raise UsageError(f"there is no video {video}; give --video a file with one person in it")
    if config.pose == "litert" and not (config.people or PEOPLE).is_file():
        raise UsageError(f"there is no video {config.people or PEOPLE}; give --people a file with two people in it")
    bundle = load_bundle(config.bundle or default_bundle())
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, load before: {load}"
    figures = measure(config, video, bundle, console)
    show(figures, f"{config.pose}, {video.name} on {machine}")
    if config.json is not None:
        write(config.json, figures, machine, video)
    return 0 if all(one.good for one in figures) else 1


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "scripts.bench_line", EXAMPLES, bench)


if __name__ == "__main__":
    sys.exit(main())
