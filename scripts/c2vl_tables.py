"""Makes the pre-training tables of docs/results.md: python -m scripts.c2vl_tables --help.

Every row is a run of train.pretrain or train.fit and probes of it by train.probe, as a person would type them; a run
or probe that is finished is not made again, so the program goes on where it was stopped.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, STDOUT

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from realtime.command import run_command
from realtime.errors import LineError, UsageError
from train.statistics import mean_std

EXAMPLES = """examples:
  python -m scripts.c2vl_tables --prepared prepared --knowledge knowledge --out runs/c2vl --jobs 2
  python -m scripts.c2vl_tables --prepared prepared --knowledge knowledge --out runs/c2vl --sets utd_mhad --seeds 0
"""
# What each set is split by, passes of pre-training over its training clips, and passes with all labels.
SETS = {
    "nw_ucla": ("xview", 16, 30),
    "utd_mhad": ("xsub", 30, 40),
    "msr_action3d": ("subjects:9", 40, 60),
    "msrc12": ("xsub", 14, 20),
    "pooled": ("merged", 8, 12),
}
BACKBONE = ("--backbone", "graphnet", "--widths", "32", "32", "64", "128")
SCHEDULE = ("--batch", "64", "--warm-up", "2", "--schedule", "cosine")
# How the objective is read where the paper is open: as chosen in trials of another seed on UTD-MHAD (docs/results.md).
READING = ("--inter", "swapped", "--inter-share", "0.3", "--intra-temperature", "1")
ONE_HOT = ("--beta", "0", "--alpha-first", "1", "--alpha-last", "1")
# The rows: the paper's Table VII in our reading of its lost ticks (docs/training.md), then what was tried beside it.
OBJECTIVES: dict[str, tuple[str, ...]] = {
    "InfoNCE": ONE_HOT,
    "+ intra": ("--alpha-first", "1", "--alpha-last", "1"),
    "+ inter": ("--alpha-first", "0", "--alpha-last", "0"),
    "full": (),
}
VARIANTS: dict[str, tuple[str, ...]] = {
    "full": (),
    "without partition": ("--no-partition",),
    "without progress (own features)": ("--teacher", "self"),
    "averaged teacher": ("--teacher", "ema", "--ema", "0.98"),
    "beta 0.1": ("--beta", "0.1"),
    "beta 0.5": ("--beta", "0.5"),
    "alpha 0.9 to 0.5": ("--alpha-last", "0.5"),
    "alpha 0.5 all along": ("--alpha-first", "0.5", "--alpha-last", "0.5"),
    "pairs' own cosines weigh (--inter pairs)": ("--inter", "pairs"),
    "all soft (--inter-share 1)": ("--inter-share", "1"),
    "as by default (both, tau inside)": ("--inter", "pairs", "--inter-share", "1", "--intra-temperature", "0"),
}
BACKBONES = ("graphnet", "stgcn-edge", "ctrgcn-edge")


@dataclass(frozen=True)
class Config:
    """Pre-train, probe and tabulate, with sets from train.prepare and what train.knowledge says of them."""

    prepared: Path
    """Folder that holds a prepared set by each name."""
    knowledge: Path
    """Folder that holds the knowledge of each by the same name."""
    out: Path
    """Folder for runs, and for a .md file of each table."""
    sets: tuple[str, ...] = tuple(SETS)
    """Which sets, of nw_ucla utd_mhad msr_action3d msrc12 pooled."""
    tables: tuple[str, ...] = ("objectives", "labels", "semi", "transfer", "variants", "backbones")
    """Which tables."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the tables objectives and labels; the others take the first."""
    methods: tuple[str, ...] = ("ce", "pcle")
    """Methods of the table labels."""
    jobs: int = 1
    """Runs side by side, one thread each."""
    transfers: tuple[str, ...] = ("msrc12:utd_mhad", "utd_mhad:msr_action3d", "msrc12:nw_ucla")
    """Pairs of sets FROM:TO."""


@dataclass(frozen=True)
class Line:
    """A row of a table: words, then cells of one or more figures, each the mean of some results."""

    words: tuple[str, ...]
    cells: tuple[tuple[Sequence[Path], ...], ...]

    def text(self) -> str:
        """The row in Markdown, once its results are there."""
        return row_of((*self.words, *(" / ".join(shown(results) for results in cell) for cell in self.cells)))


@dataclass(frozen=True)
class Table:
    """What a table shows, its columns and its rows."""

    about: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]


Step = tuple[Path, tuple[str, ...]]  # what is made, and the command


class Work:
    """Runs that tables ask for: chains of commands, each in the order in which it was asked for."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.chains: dict[Path, list[Step]] = {}

    def pretrained(self, data: str, row: str, seed: int, flags: Sequence[str], more: Sequence[str] = BACKBONE) -> Path:
        """The run of an objective on a set."""
        folder = self.config.out / f"{data}-{row.replace(' ', '_')}-{seed}"
        split, epochs, _ = SETS[data]
        command = (
            *("train.pretrain", "--prepared", str(self.config.prepared / data)),
            *("--knowledge", str(self.config.knowledge / data), "--split", split, "--epochs", str(epochs)),
            *more, *SCHEDULE, "--seed", str(seed), "--threads", "1", *READING, *flags, "--out", str(folder),
        )  # fmt: skip
        self.chains.setdefault(folder, [(folder / "result.done", command)])
        return folder

    def objective(self, data: str, row: str, seed: int) -> Path:
        """The run of one of OBJECTIVES."""
        return self.pretrained(data, row, seed, OBJECTIVES[row])

    def variant(self, data: str, row: str, seed: int, flags: Sequence[str], more: Sequence[str] = BACKBONE) -> Path:
        """A run of the full objective with other flags."""
        return self.pretrained(data, row, seed, flags, more)

    def probed(self, folder: Path, protocol: str, *flags: str, name: str = "") -> list[Path]:
        """A probe of a run; name: its folder, the protocol where not given."""
        result = folder / "probe" / (name or protocol) / "result.json"
        command = ("train.probe", str(folder), "--protocol", protocol, *flags, "--threads", "1")
        if all(made != result for made, _ in self.chains[folder]):
            self.chains[folder].append((result, command))
        return [result]

    def fitted(self, data: str, method: str, seed: int, init: Path | None = None) -> Path:
        """A run of train.fit on the joints of a set, all labels known."""
        folder = self.config.out / f"{data}-{method}{'-init' if init else ''}-{seed}"
        split, _, epochs = SETS[data]
        command = (
            *("train.fit", "--method", method, "--prepared", str(self.config.prepared / data), "--split", split),
            *("--streams", "joint", *BACKBONE, "--epochs", str(epochs), "--batch", "32", "--seed", str(seed)),
            *("--evaluate-every", str(epochs), "--threads", "1", "--refresh-text", "4"),
            *(("--init", str(init)) if init else ()), "--out", str(folder),
        )  # fmt: skip
        chain = self.chains[init] if init else self.chains.setdefault(folder, [])
        chain.append((folder / "result.json", command))
        return folder / "result.json"

    def run(self, console: Console) -> None:
        """Makes what is not there; LineError names the command that failed."""
        left = [chain for chain in self.chains.values() if not all(made.exists() for made, _ in chain)]
        console.print(f"{len(self.chains) - len(left)} of {len(self.chains)} runs are there")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress, ThreadPoolExecutor(max(self.config.jobs, 1)) as pool:
            task = progress.add_task("making", total=len(left))
            for _ in pool.map(make, left):
                progress.advance(task)


def make(chain: Sequence[Step]) -> None:
    """Does one command after the other, but for those whose result is there."""
    for made, command in chain:
        if made.exists():
            continue
        begun = made.parent / "last.safetensors"
        if command[0] != "train.probe" and begun.exists():
            command = (command[0], "--out", str(made.parent), "--resume")
        done = subprocess.run([sys.executable, "-m", *command], stdout=PIPE, stderr=STDOUT, text=True, check=False)
        if done.returncode:
            raise LineError(f"python -m {shlex.join(command)} ended with {done.returncode}: {done.stdout[-600:]}")
        if made.suffix == ".done":
            made.touch()


def shown(results: Sequence[Path]) -> str:
    """Per cent of the test clips, mean ± sample deviation of some results; the mean of draws is one."""
    found = [json.loads(result.read_text(encoding="utf-8")) for result in results]
    tests = [100 * float(one["draws"]["mean"] if "draws" in one else one["test"]["accuracy"]) for one in found]
    mean, deviation = mean_std(tests)
    return f"{mean:.1f} ± {deviation:.1f}" if len(tests) > 1 else f"{mean:.1f}"


def row_of(cells: Sequence[str]) -> str:
    """A row in Markdown."""
    return "| " + " | ".join(cells) + " |"


def objectives(work: Work, config: Config) -> Table:
    """Each objective by nearest neighbour and linear probe; random: the same probes of weights of chance."""
    lines = []
    for data in config.sets:
        for protocol in ("knn", "linear"):
            cells: dict[str, list[Path]] = {row: [] for row in ("random", *OBJECTIVES)}
            for seed in config.seeds:
                for row in OBJECTIVES:
                    cells[row] += work.probed(work.objective(data, row, seed), protocol)
                first = work.objective(data, "InfoNCE", seed)
                chance = ("--scratch", "--seed", str(seed))
                cells["random"] += work.probed(first, protocol, *chance, name=f"{protocol}-scratch")
            lines.append(Line((data, protocol), tuple((cell,) for cell in cells.values())))
    return Table(str(objectives.__doc__), ("set", "protocol", "random", *OBJECTIVES), tuple(lines))


def labels(work: Work, config: Config) -> Table:
    """All labels by train.fit: from chance, and from the weights that the full objective gave for the same seed."""
    starts = [f"{method} {start}" for method in config.methods for start in ("from scratch", "from C²VL")]
    lines = []
    for data in config.sets:
        cells = []
        for method in config.methods:
            begun = [work.fitted(data, method, seed, work.objective(data, "full", seed)) for seed in config.seeds]
            cells += [([work.fitted(data, method, seed) for seed in config.seeds],), (begun,)]
        lines.append(Line((data,), tuple(cells)))
    return Table(str(labels.__doc__), ("set", *starts), tuple(lines))


def semi(work: Work, config: Config) -> Table:
    """Few labels, the whole network tuned: means of five draws, one seed of pre-training."""
    shares, seed, lines = ("0.01", "0.05", "0.1"), config.seeds[0], []
    for data in config.sets:
        first, full = (work.objective(data, row, seed) for row in ("InfoNCE", "full"))
        starts = ((first, "-scratch"), (first, ""), (full, ""))
        for share in shares:
            cells = [
                work.probed(folder, "semi", "--shares", share, *(("--scratch",) if scratch else ()),
                            name=f"semi-{float(share):g}{scratch}")
                for folder, scratch in starts
            ]  # fmt: skip
            lines.append(Line((data, f"{float(share):.0%}"), tuple((cell,) for cell in cells)))
    return Table(str(semi.__doc__), ("set", "labels", "from scratch", "InfoNCE", "full"), tuple(lines))


def transfer(work: Work, config: Config) -> Table:
    """All labels of another set, the whole network tuned; one seed."""
    lines = []
    for pair in config.transfers:
        first, _, second = pair.partition(":")
        where = ("--prepared", str(config.prepared / second), "--split", SETS[second][0])
        cells = []
        for row, scratch in (("InfoNCE", "-scratch"), ("InfoNCE", ""), ("full", "")):
            folder = work.objective(first, row, config.seeds[0])
            chance = ("--scratch",) if scratch else ()
            cells.append((work.probed(folder, "transfer", *where, *chance, name=f"transfer-{second}{scratch}"),))
        lines.append(Line((first, second), tuple(cells)))
    return Table(str(transfer.__doc__), ("from", "to", "from scratch", "InfoNCE", "full"), tuple(lines))


def _both(work: Work, folder: Path) -> tuple[list[Path], list[Path]]:
    return work.probed(folder, "knn"), work.probed(folder, "linear")


def variants(work: Work, config: Config) -> Table:
    """The full objective with one thing changed: KNN / linear, one seed."""
    seed = config.seeds[0]
    lines = [
        Line((row,), tuple(_both(work, work.variant(data, row, seed, flags)) for data in config.sets))
        for row, flags in VARIANTS.items()
    ]
    return Table(str(variants.__doc__), ("", *config.sets), tuple(lines))


def backbones(work: Work, config: Config) -> Table:
    """The full objective with other encoders: KNN / linear, one seed."""
    lines = []
    for name in BACKBONES:
        row, more = ("full", BACKBONE) if name == "graphnet" else (f"full {name}", ("--backbone", name))
        cells = [_both(work, work.variant(data, row, config.seeds[0], (), more)) for data in config.sets]
        lines.append(Line((name,), tuple(cells)))
    return Table(str(backbones.__doc__), ("", *config.sets), tuple(lines))


TABLES: dict[str, Callable[[Work, Config], Table]] = {
    "objectives": objectives,
    "labels": labels,
    "semi": semi,
    "transfer": transfer,
    "variants": variants,
    "backbones": backbones,
}


def run(config: Config, console: Console) -> int:
    """Makes what is missing and writes the tables."""
    for given, known in ((config.sets, tuple(SETS)), (config.tables, tuple(TABLES))):
        strange = [name for name in given if name not in known]
        if strange:
            raise UsageError(f"there is no {strange[0]!r}; there are {', '.join(known)}")
    config.out.mkdir(parents=True, exist_ok=True)
    for name in config.tables:
        work = Work(config)
        table = TABLES[name](work, config)
        console.print(f"table {name}")
        work.run(console)
        rule = "|" + "---|" * len(table.columns)
        text = "\n".join((table.about, "", row_of(table.columns), rule, *(line.text() for line in table.lines)))
        console.print(text, markup=False, soft_wrap=True)
        (config.out / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "scripts.c2vl_tables", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
