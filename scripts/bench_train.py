"""Measures how fast CTR-GCN trains here, ours beside a plain one: python -m scripts.bench_train --help

Both networks hold the same weights and see the same clips, forward and backward in turns of one step each, so that
whatever else this machine does hits both alike. The plain one has a convolution for every subset and branch, projects
every frame before it takes the mean, and mixes the joints by einsum; the tests prove that the two are one function.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from realtime.command import run_command
from realtime.errors import GpuError, UsageError
from realtime.skeleton import LAYOUTS
from scripts.plain_ctrgcn import PlainCTRGCN
from train.backbones import build, macs
from train.ctrgcn import CTRGCN

PEAK_TFLOPS = {  # dense peak of a GPU by a word of its name, (fp32 as TF32 where it has it, bf16), the vendor's figures
    "H200": (494.0, 989.0),
    "H100": (494.0, 989.0),
    "A100": (156.0, 312.0),
    "4090": (82.6, 165.2),
    "3090": (35.6, 71.0),
}
EXAMPLES = """examples:
  python -m scripts.bench_train                                     ctrgcn in fp32 and bf16, on a GPU where there is one
  python -m scripts.bench_train --device cpu --backbone ctrgcn-edge --channels 6 --layout CORE_16 --batch 32
  python -m scripts.bench_train --compile --seconds 60 --json out.json  both through torch.compile, also as JSON

exit codes: 0 measured, 2 usage, 6 a GPU demanded and not there, 130 interrupted
"""


@dataclass(frozen=True)
class Config:
    """Clips per second of one training step's forward and backward: our CTR-GCN beside a plain one."""

    backbone: tuple[Literal["ctrgcn", "ctrgcn-edge"], ...] = ("ctrgcn",)
    """Which widths."""
    batch: int = 16
    """Clips in a step."""
    frames: int = 64
    """Frames in a clip."""
    layout: str = "KINECT_V2_25"
    """Joints, by the name of their layout."""
    bodies: int = 1
    """Bodies in a clip."""
    channels: int = 3
    """Channels of a joint."""
    precision: tuple[Literal["fp32", "bf16"], ...] = ("fp32", "bf16")
    """fp32 (TF32 on a GPU), or bf16 by autocast."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where."""
    threads: int = 2
    """Threads on a CPU."""
    seconds: float = 20.0
    """How long to measure each row, after one step of each to warm up; three pairs at least."""
    compile: bool = False
    """Run both through torch.compile."""
    json: Path | None = None
    """Also write the figures to this file."""


@dataclass(frozen=True)
class Row:
    """What one backbone in one precision does: medians over the pairs of steps, and the spread of the pairs' ratios."""

    backbone: str
    precision: str
    pairs: int
    ours_clips_per_s: float
    plain_clips_per_s: float
    ratio: float
    ratio_low: float
    ratio_high: float
    cpu_ratio: float
    peak_share: float | None


def step_s(network: nn.Module, x: Tensor, precision: str) -> tuple[float, float]:
    """Seconds of one forward and backward, by the clock and of all threads of this process."""
    _wait(x)
    begun, spent = time.perf_counter(), time.process_time()
    with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
        loss = network(x).float().square().mean()
    loss.backward()
    _wait(x)
    seconds = time.perf_counter() - begun, time.process_time() - spent
    network.zero_grad()
    return seconds


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize()


def measure(config: Config, backbone: str, precision: str, device: torch.device) -> Row:
    """One row: pairs of steps until the time is over."""
    layout = LAYOUTS[config.layout]
    x = torch.randn(config.batch, config.channels, config.frames, len(layout), config.bodies, device=device)
    ours = build(backbone, layout, config.channels, config.bodies)
    assert isinstance(ours, CTRGCN)
    networks: list[nn.Module] = [ours.to(device), PlainCTRGCN(ours).to(device)]
    work = 6 * macs(networks[0].eval(), x)  # a multiply and an add, forward and twice that backward
    networks = [torch.compile(n.train()) if config.compile else n.train() for n in networks]  # type: ignore[misc]
    for network in networks:
        step_s(network, x, precision)
    times: list[list[tuple[float, float]]] = [[], []]
    end = time.perf_counter() + config.seconds
    while time.perf_counter() < end or len(times[0]) < 3:
        for network, taken in zip(networks, times, strict=True):
            taken.append(step_s(network, x, precision))
    clock = [[s for s, _ in taken] for taken in times]
    ratios = [plain / mine for mine, plain in zip(*clock, strict=True)]
    quarters = statistics.quantiles(ratios, n=4)
    mine_s, plain_s = (statistics.median(c) for c in clock)
    cpu_s = [statistics.median(s for _, s in taken) for taken in times]
    peak = _peak(precision, device)
    return Row(
        backbone, precision, len(ratios), config.batch / mine_s, config.batch / plain_s,
        statistics.median(ratios), quarters[0], quarters[2], cpu_s[1] / cpu_s[0],
        work / mine_s / 1e12 / peak if peak else None,
    )  # fmt: skip


def _peak(precision: str, device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peaks[precision == "bf16"] for word, peaks in PEAK_TFLOPS.items() if word in name), None)


def place(config: Config) -> torch.device:
    """The device to measure on. UsageError for numbers that cannot be, GpuError where a GPU is demanded in vain."""
    for name, least in (("batch", 2), ("frames", 4), ("bodies", 1), ("channels", 1), ("threads", 1)):
        if getattr(config, name) < least:
            raise UsageError(f"--{name} must be at least {least}, got {getattr(config, name)}")
    if config.layout not in LAYOUTS:
        raise UsageError(f"--layout must be one of {', '.join(LAYOUTS)}, got {config.layout!r}")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise GpuError("--device cuda, but torch sees no GPU; use --device cpu")
    return torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")


def show(rows: list[Row], title: str) -> None:
    """The table on standard output."""
    heads = ("backbone", "precision", "ours, clips/s", "plain, clips/s", "ratio", "middle half", "ratio of CPU time")
    table = Table(*heads, "pairs", "share of peak", title=title, title_justify="left")
    for row in rows:
        table.add_row(
            row.backbone, row.precision, f"{row.ours_clips_per_s:.1f}", f"{row.plain_clips_per_s:.1f}",
            f"{row.ratio:.2f}", f"{row.ratio_low:.2f} to {row.ratio_high:.2f}", f"{row.cpu_ratio:.2f}",
            str(row.pairs), "" if row.peak_share is None else f"{100 * row.peak_share:.0f} %",
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def bench(config: Config, console: Console) -> int:
    """Measures every row, shows and writes them."""
    device = place(config)
    torch.set_num_threads(config.threads)
    torch.set_float32_matmul_precision("high")
    rows = []
    for backbone in config.backbone:
        for precision in config.precision:
            console.print(f"{backbone} in {precision}, {config.seconds:g} s")
            rows.append(measure(config, backbone, precision, device))
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {config.threads} threads"
    busy = ""
    with suppress(OSError):
        busy = f", load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    sizes = f"batch {config.batch}, {config.frames} frames, {config.layout}, {config.bodies} bodies"
    show(rows, f"forward and backward, {sizes}; {hardware}{busy}; torch {torch.__version__}")
    if config.json:
        about = {"hardware": hardware, "machine": platform.machine(), "torch": torch.__version__}
        config.json.write_text(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(Config, "scripts.bench_train", EXAMPLES, bench))
