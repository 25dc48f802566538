"""Measures the exported graphs against the networks that they were made of: python -m scripts.bench_engine --help

Every form of a network answers the same windows in turns, so that whatever else this machine does hits all alike; the
ratios are medians over the turns. Beside each time stands the one that its multiply-adds need at the core's peak, which
large matrix products in this same run reached.
"""

from __future__ import annotations

import copy
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime
import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from export.graph import to_onnx
from export.precision import to_int8
from export.windows import gather
from export.wrapper import deployed
from realtime.bundle import load_bundle
from realtime.command import run_command
from realtime.errors import UsageError
from realtime.features import channels
from realtime.skeleton import CORE_16
from scripts.engine_cost import Macs, Peaks, macs, session
from scripts.engine_gpu import GpuRow, gpu_rows
from scripts.plain_ctrgcn import PlainCTRGCN
from scripts.plain_stgcn import PlainSTGCN
from train import backbones
from train.compose import Trained
from train.ctrgcn import CTRGCN
from train.model import Recogniser
from train.stgcn import STGCN

WINDOW, FPS, CLASSES, STREAMS = 64, 30.0, 45, ("joint", "bone", "motion")
PUBLISHED, TRAINED, FOLDED, FAST, INT8 = "published", "trained", "folded", "folded, fast", "int8"
EXAMPLES = """examples:
  python -m scripts.bench_engine                                  ST-GCN and CTR-GCN, batch 1 and 8, one thread
  python -m scripts.bench_engine --backbone stgcn-edge --batch 1 --seconds 5 --json out.json
  python -m scripts.bench_engine --bundle bundles/first           also the engines built of it here, where a GPU is

exit codes: 0 measured, 2 usage, 3 bundle refused, 130 interrupted
"""


@dataclass(frozen=True)
class Config:
    """Time of one call of each network as published, as trained, folded for ONNX Runtime, and in int8; on the CPU."""

    backbone: tuple[str, ...] = ("stgcn", "ctrgcn")
    """Which networks: stgcn, stgcn-edge, ctrgcn, ctrgcn-edge, graphnet."""
    batch: tuple[int, ...] = (1, 8)
    """Windows in a call."""
    threads: int = 1
    """Threads of torch and of ONNX Runtime."""
    seconds: float = 12.0
    """How long to measure each network at each batch; seven turns at least."""
    skip_int8: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Leave int8 out."""
    bundle: Path | None = None
    """A bundle whose TensorRT engines, built on this machine, are measured too; needs a GPU."""
    json: Path | None = None
    """Also write the figures to this file."""


@dataclass(frozen=True)
class Row:
    """One form of a network at one batch; ratios say how many times faster it is than other forms."""

    backbone: str
    batch: int
    form: str
    engine: str
    turns: int
    ms: float
    low_ms: float
    high_ms: float
    ratios: dict[str, float]
    macs: int
    int8_macs: int  # of them, of int8
    peak_ms: float = 0.0


@dataclass(frozen=True)
class Form:
    """A form of a network: what to call with windows (N, C, T, V), and its multiply-adds at a batch."""

    name: str
    engine: str
    call: Callable[[np.ndarray], object]
    macs: Callable[[int], Macs]


def untrained(backbone: str, windows: np.ndarray) -> Trained:
    """A checkpoint's content without training: fresh weights, statistics of real windows."""
    torch.manual_seed(0)
    built = backbones.build(backbone, CORE_16, windows.shape[1], 1)
    network = Recogniser(built, CLASSES, 384)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("strength"):  # of CTR-GCN's refinement, which starts at 0
                parameter.fill_(0.5)
        for part in np.array_split(windows[:32], 4):
            network.train()(torch.from_numpy(part.copy()))
    model = {
        "layout": CORE_16.name, "channels": windows.shape[1], "bodies": 1, "window": WINDOW, "backbone": backbone,
        "classes": [str(number) for number in range(CLASSES)],
    }  # fmt: skip
    return Trained(network.eval(), {"model": model}, None, 1.0)


def published(network: Recogniser) -> Recogniser | None:
    """The network with its backbone as its authors publish it, and the same weights; None where it is our own."""
    made = copy.deepcopy(network)
    if isinstance(network.backbone, STGCN):
        made.backbone = PlainSTGCN(network.backbone)
    elif isinstance(network.backbone, CTRGCN):
        made.backbone = PlainCTRGCN(network.backbone)
    else:
        return None
    return made.eval()


def forms(config: Config, backbone: str, windows: np.ndarray) -> list[Form]:
    """Every form of a network."""
    trained = untrained(backbone, windows)
    plain = published(trained.network)
    made = [_eager(PUBLISHED, plain)] if plain is not None else []
    made.append(_eager(TRAINED, trained.network))
    shape = windows.shape[1:]
    graph = to_onnx(deployed(trained), shape)
    made.append(_exported(FOLDED, graph, config.threads))
    if isinstance(trained.network.backbone, STGCN):
        made.append(_exported(FAST, to_onnx(deployed(trained, fast=True), shape), config.threads))
    if not config.skip_int8:
        made.append(_exported(INT8, to_int8(graph, windows), config.threads))
    return made


def _eager(name: str, network: nn.Module) -> Form:
    def call(x: np.ndarray) -> object:
        with torch.inference_mode():
            return network(torch.from_numpy(x))

    def cost(batch: int) -> Macs:
        return Macs(backbones.macs(network, torch.zeros(batch, channels(STREAMS), WINDOW, len(CORE_16))), 0)

    return Form(name, "torch", call, cost)


def _exported(name: str, graph: bytes, threads: int) -> Form:
    opened = session(graph, threads)
    return Form(name, "ONNX Runtime", lambda x: opened.run(None, {"skeleton": x}), lambda batch: macs(graph, batch))


def measure(config: Config, backbone: str, windows: np.ndarray, peaks: Peaks, progress: Progress) -> list[Row]:
    """The rows of one network: turns of all its forms, at each batch, until the time is over."""
    task = progress.add_task(f"{backbone}: exporting", total=config.seconds * len(config.batch))
    made, rows = forms(config, backbone, windows), []
    for batch in config.batch:
        progress.update(task, description=f"{backbone}, batch {batch}")
        x = np.ascontiguousarray(np.resize(windows, (batch, *windows.shape[1:])))
        taken: dict[str, list[float]] = {form.name: [] for form in made}
        for form in made:
            form.call(x)
        begun = last = time.perf_counter()
        while len(taken[TRAINED]) < 7 or last - begun < config.seconds:
            for form in made:
                start = time.perf_counter()
                form.call(x)
                taken[form.name].append(1e3 * (time.perf_counter() - start))
            if len(taken[TRAINED]) % 7 == 1:
                peaks.measure()
            now = time.perf_counter()
            progress.update(task, advance=min(now - last, config.seconds))
            last = now
        rows += [_row(backbone, batch, form, taken) for form in made]
    progress.remove_task(task)
    return rows


def _row(backbone: str, batch: int, form: Form, taken: dict[str, list[float]]) -> Row:
    times = taken[form.name]
    low, middle, high = statistics.quantiles(times, n=4)
    ratios = {
        other: statistics.median(theirs / ours for theirs, ours in zip(others, times, strict=True))
        for other, others in taken.items() if other != form.name
    }  # fmt: skip
    cost = form.macs(batch)
    return Row(backbone, batch, form.name, form.engine, len(times), middle, low, high, ratios, sum(cost), cost.int8)


def peak_ms(row: Row, peaks: Peaks) -> float:
    """The time that a row's multiply-adds need at the core's peak, each kind at its own."""
    return 1e3 * ((row.macs - row.int8_macs) / peaks.fp32 + row.int8_macs / peaks.int8)


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    against = [name for name in (PUBLISHED, TRAINED, FOLDED, FAST) if any(name in row.ratios for row in rows)]
    heads = ["network", "batch", "form", "engine", "ms", "middle half", *(f"x {name}" for name in against)]
    lines = ["| " + " | ".join([*heads, "million multiply-adds", "ms at the peak"]) + " |"]
    lines.append("|---|---:|---|---|" + "---:|" * (len(against) + 4))
    for row in rows:
        ratios = [f"{row.ratios[name]:.2f}" if name in row.ratios else "" for name in against]
        cells = [row.backbone, str(row.batch), row.form, row.engine, f"{row.ms:.2f}"]
        cells += [f"{row.low_ms:.2f} to {row.high_ms:.2f}", *ratios, f"{row.macs / 1e6:.0f}", f"{row.peak_ms:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def gpu_table(rows: list[GpuRow]) -> str:
    """The engines' rows in Markdown."""
    lines = [
        "| engine | precision | batch | p50 ms | p95 ms | least ms | x least |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        least = ("", "") if row.least_ms is None else (f"{row.least_ms:.4f}", f"{row.p50_ms / row.least_ms:.0f}")
        cells = [row.engine, row.precision, str(row.batch), f"{row.p50_ms:.3f}", f"{row.p95_ms:.3f}", *least]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def check(config: Config) -> None:
    """UsageError for numbers and names that cannot be."""
    for name in config.backbone:
        if name not in backbones.BACKBONES:
            raise UsageError(f"--backbone must be some of {', '.join(backbones.BACKBONES)}, got {name!r}")
    for flag, least in (("threads", config.threads), ("batch", min(config.batch, default=0))):
        if least < 1:
            raise UsageError(f"--{flag} must be at least 1, got {least}")


def bench(config: Config, console: Console) -> int:
    """Measures every network, shows and writes the figures."""
    check(config)
    bundle = load_bundle(config.bundle) if config.bundle else None
    torch.set_num_threads(config.threads)
    spec = {
        "layout": CORE_16.name, "streams": STREAMS, "window": WINDOW, "fps": FPS,
        "classes": [str(number) for number in range(CLASSES)], "nothing": "0",
    }  # fmt: skip
    console.print("making windows of generated people")
    windows = gather(spec, (), (), 0).calibration
    peaks = Peaks(config.threads)
    rows: list[Row] = []
    columns = (TextColumn("{task.description:24}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        for backbone in config.backbone:
            rows += measure(config, backbone, windows, peaks, progress)
    rows = [replace(row, peak_ms=peak_ms(row, peaks)) for row in rows]
    about = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {config.threads} threads",
        "fp32_gmacs_per_s": peaks.fp32 / 1e9, "int8_gmacs_per_s": peaks.int8 / 1e9,
        "torch": torch.__version__, "onnxruntime": onnxruntime.__version__,
    }  # fmt: skip
    with suppress(OSError):
        about["load"] = os.getloadavg()[0]
    print(
        "; ".join(
            f"{key}: {value:.1f}" if isinstance(value, float) else f"{key}: {value}" for key, value in about.items()
        )
    )
    print(f"\n{table(rows)}")
    on_gpu = gpu_rows(bundle, config.seconds / 4, console) if bundle else []
    if on_gpu:
        print(f"\n{gpu_table(on_gpu)}")
    if config.json:
        document = {**about, "rows": [asdict(row) for row in rows], "gpu": [asdict(row) for row in on_gpu]}
        config.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(Config, "scripts.bench_engine", EXAMPLES, bench))
