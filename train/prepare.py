"""Reads a published data set once into arrays that training maps into memory: python -m train.prepare --help."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from realtime.command import run_command
from realtime.errors import LineError, UsageError
from train.data import ntu, pku_mmd
from train.data.jobs import MISSING, SETS, Job, leave_out, part_of
from train.data.prepared import Lists, key_of, write

EXAMPLES = """examples:
  python -m train.prepare nw_ucla DOWNLOADED prepared/nw_ucla
  python -m train.prepare ntu60 nturgb+d_skeletons prepared/ntu60 --missing NTU_RGBD_samples_with_missing_skeletons.txt
  python -m train.prepare pku_mmd1 PKUMMD prepared/pku_mmd1 --split-file cross-subject.txt cross-view.txt
"""
PARTS = ".parts"
FILES_A_PART = 100
FAULTS_SHOWN = 20
FORM = 1  # what a part holds for the same files; a higher number has them read again


@dataclass(frozen=True)
class Config:
    """Prepare a data set for training.

    Stopped or killed, the same command goes on where it was: files that are in finished parts are not read again.
    A broken file is named and ends the command with exit code 2.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Data set: ntu60 ntu120 pku_mmd1 pku_mmd2 nw_ucla utd_mhad utkinect msr_action3d msrc12 sbu."""
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")]
    """Folder that holds the published files, unpacked, at any depth."""
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")]
    """Folder to write joints.npy, index.npz and prepared.json into."""
    workers: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """Processes that read files."""
    missing: tuple[Path, ...] = ()
    """NTU: the set's published list of missing skeletons (302 or 535 names), whose files are skipped and counted.
    Lists in SRC named as published, ...missing_skeletons.txt, are found."""
    split_file: tuple[Path, ...] = ()
    """PKU-MMD: its published lists cross-subject.txt and cross-view.txt (part II: cross_subject_v2.txt,
    cross_view_v2.txt), where they do not lie in SRC."""
    keep_going: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Read on after a broken file and name them all (the first 20) at the end; the exit code is 2 all the same."""


@dataclass(frozen=True)
class Task:
    """Files that make one part, where it goes and what it is made from."""

    data: str
    jobs: tuple[Job, ...]
    path: Path
    key: str
    keep_going: bool


def read_task(task: Task) -> list[str]:
    """Reads a task's files and saves the part; the faults, in which case there is no part."""
    part, faults = part_of(SETS[task.data], list(task.jobs), task.keep_going)
    if part is not None:
        part.save(task.path, task.key)
    return faults


def tasks_of(config: Config, jobs: Sequence[Job]) -> list[Task]:
    """All tasks of a set, in order of its files."""
    tasks = []
    for number, first in enumerate(range(0, len(jobs), FILES_A_PART)):
        chunk = tuple(jobs[first : first + FILES_A_PART])
        path = config.folder / PARTS / f"{number:05d}.npz"
        tasks.append(Task(config.data, chunk, path, _key(config.data, chunk), config.keep_going))
    return tasks


def _key(data: str, jobs: Sequence[Job]) -> str:
    """Changes with the files of a part: their names, sizes, times and whether they are skipped."""
    digest = hashlib.sha256(f"{FORM} {data}\n".encode())
    for job in jobs:
        for file in (job.file, *job.beside):
            facts = file.stat()
            digest.update(f"{file.name} {facts.st_size} {facts.st_mtime_ns} {job.name} {job.skip}\n".encode())
    return digest.hexdigest()


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes started within inherit deafness to Ctrl-C: it is for this one to stop them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, be it by kill -9."""
    parent: Any = multiprocessing.parent_process()

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def read_all(tasks: Sequence[Task], workers: int, done: Callable[[Task], None]) -> list[str]:
    """Reads tasks in `workers` processes and calls `done` after each; faults, the first one without keep_going."""
    faults: list[str] = []
    if workers == 1 or len(tasks) < 2:
        for task in tasks:
            faults += read_task(task)
            done(task)
            if faults and not task.keep_going:
                break
        return faults
    pool = ProcessPoolExecutor(
        min(workers, len(tasks)), multiprocessing.get_context("spawn"), initializer=_end_with_parent
    )
    try:
        with _deaf():
            futures: dict[Future[list[str]], Task] = {pool.submit(read_task, task): task for task in tasks}
        for future in as_completed(futures):
            faults += future.result()
            done(futures[future])
            if faults and not futures[future].keep_going:
                break
    except BrokenProcessPool as error:
        raise LineError(
            "a reading process was killed, most likely for want of memory; run again with fewer --workers"
        ) from error
    finally:
        _stop(pool)
    return faults


def _stop(pool: ProcessPoolExecutor) -> None:
    """Ends the reading processes at once: what they were at is read again by the next command."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def prepare(config: Config, console: Console) -> None:
    """Reads what has not been read yet, then puts the parts together and removes them."""
    if config.data not in SETS:
        raise UsageError(f"no data set {config.data!r}; there are {', '.join(SETS)}")
    if config.workers < 1:
        raise UsageError(f"--workers must be 1 or more, got {config.workers}")
    jobs, lists = _published(config)
    try:
        (config.folder / PARTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{config.folder} cannot be a folder ({error.strerror}); choose another DST") from error
    tasks = tasks_of(config, jobs)
    left = [task for task in tasks if key_of(task.path) != task.key]
    if len(left) < len(tasks):
        console.print(f"{len(tasks) - len(left)} of {len(tasks)} parts were read before and are kept")
    started = time.monotonic()
    faults = _read_shown(left, config.workers, console)
    if faults:
        raise UsageError(_told(faults))
    seconds, read = time.monotonic() - started, sum(not job.skip for task in left for job in task.jobs)
    data = SETS[config.data]
    parts = [task.path for task in tasks]
    content = write(config.folder, config.data, data.layout, data.classes, data.bodies, data.fps, parts, lists)
    shutil.rmtree(config.folder / PARTS)
    shown = (
        f"{config.folder}: {content['clips']} clips, {content['rows']} frames, {len(content['skipped'])} skipped; "
        f"{read} files read in {seconds:.1f} s" + (f", {read / seconds:.0f} files a second" if read else "")
    )
    console.print(shown, soft_wrap=True)
    for name, reason in list(content["skipped"].items())[:FAULTS_SHOWN]:
        console.print(f"  skipped {name}: {reason}", soft_wrap=True)


def _published(config: Config) -> tuple[list[Job], Lists]:
    """What there is to read, and what the set's own split lists say."""
    if config.missing and config.data not in ntu.ACTIONS:
        raise UsageError(f"--missing is the list of {' and '.join(ntu.ACTIONS)}; {config.data} has none, leave it out")
    if config.split_file and config.data not in pku_mmd.LISTS:
        raise UsageError(f"--split-file is for {' and '.join(pku_mmd.LISTS)}; the splits of {config.data} are built in")
    missing = frozenset().union(*(ntu.missing_names(file) for file in config.missing))
    jobs = leave_out(SETS[config.data].jobs(config.source), missing, MISSING)
    lists = pku_mmd.lists_of(config.data, config.source, config.split_file) if config.data in pku_mmd.LISTS else {}
    return jobs, lists


def _read_shown(tasks: Sequence[Task], workers: int, console: Console) -> list[str]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("files"))
    with Progress(
        *columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console
    ) as progress:
        bar = progress.add_task("reading", total=sum(len(task.jobs) for task in tasks))
        return read_all(tasks, workers, lambda task: progress.advance(bar, len(task.jobs)))


def _told(faults: Sequence[str]) -> str:
    if len(faults) == 1:
        return f"{faults[0]}. The files before it are kept; run the same command again"
    shown = "\n".join(f"  {fault}" for fault in faults[:FAULTS_SHOWN])
    more = f"\n  and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
    return f"{len(faults)} files are broken; mend them and run the same command again:\n{shown}{more}"


def run(config: Config, console: Console) -> int:
    """Prepares, and says how to go on where it is interrupted."""
    try:
        prepare(config, console)
    except KeyboardInterrupt:
        console.print(f"interrupted; go on with: python -m train.prepare {_again()}", markup=False, soft_wrap=True)
        return 130
    return 0


def _again() -> str:
    return shlex.join(sys.argv[1:])


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "train.prepare", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
