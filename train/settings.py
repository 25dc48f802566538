"""The settings of a training run, and what they must keep to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from realtime.errors import UsageError
from realtime.features import channels
from train.sources import parse_shares


@dataclass(frozen=True)
class Config:
    """Train the action network."""

    out: Path
    """Run folder: config.json, metrics.jsonl, TensorBoard curves, last.safetensors."""
    data: tuple[str, ...] = ()
    """Data sets as NAME:PATH (PATH is the folder of the published files)."""
    held_out: tuple[str, ...] = ()
    """Subjects kept out of training and scored, as NAME:S1,S2."""
    synthetic: int = 40
    """Generated recordings (about a minute each) added to the pool; 0 for none."""
    share: tuple[str, ...] = ("utkinect:0.8", "msr_action3d:1.2", "msrc12:1.0", "synthetic:0.25")
    """How often a set is drawn from, as NAME:WEIGHT (NAME may be synthetic); 1 where not named."""
    epochs: int = 60
    """Passes of `draws` windows."""
    draws: int = 5000
    """Windows an epoch."""
    batch: int = 64
    """Windows a step."""
    lr: float = 0.1
    """Peak learning rate of SGD with Nesterov momentum 0.9; cosine to zero after `warm_up` epochs."""
    warm_up: int = 3
    """Epochs of linear warm-up."""
    weight_decay: float = 5e-4
    """On weights of convolutions and linear layers only."""
    smoothing: float = 0.1
    """Label smoothing."""
    strength: float = 1.0
    """Scale of every augmentation; 0 for none."""
    widths: tuple[int, ...] = (64, 64, 64, 128, 128, 128, 192, 192)
    """Channels of the blocks."""
    groups: int = 8
    """Channel groups with an adjacency of their own."""
    dropout: float = 0.2
    """Before the classifier."""
    streams: tuple[str, ...] = ("joint", "bone", "motion")
    """Input streams."""
    window: int = 64
    """Frames of a window."""
    fps: float = 20.0
    """Frame rate of a window."""
    seed: int = 0
    """Of weights, order and augmentation."""
    threads: int = 0
    """CPU threads; 0 leaves PyTorch's choice."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs; auto: the GPU where PyTorch sees one. A resumed run stays where it began if not said."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 is autocast; auto: bf16 where the device has it, else fp32."""
    evaluate_every: int = 10
    """Epochs between scorings of the held-out subjects (and after the last)."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = field(default=False)
    """Continue the run in `out` with the settings it was started with; on a CPU it equals an uninterrupted run."""


def check(config: Config) -> None:
    """UsageError for settings that no training can run with."""
    for name in ("epochs", "draws", "batch", "window", "groups", "evaluate_every"):
        if getattr(config, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(config, name)}")
    if config.draws < config.batch:
        raise UsageError(f"--draws {config.draws} fills no batch of {config.batch}; raise --draws or lower --batch")
    if not 0 < config.fps < math.inf:
        raise UsageError(f"--fps must be above 0, got {config.fps}")
    unfit = [width for width in config.widths if width < 1 or width % 4 or width % config.groups]
    if unfit or not config.widths:
        raise UsageError(f"--widths must be multiples of 4 and of --groups {config.groups}, got {unfit or 'none'}")
    for name, allowed in (("device", ("auto", "cpu", "cuda")), ("precision", ("auto", "fp32", "bf16"))):
        if getattr(config, name) not in allowed:
            raise UsageError(f"--{name} must be one of {', '.join(allowed)}, got {getattr(config, name)!r}")
    try:
        channels(config.streams)
    except ValueError as error:
        raise UsageError(f"--streams: {error}") from None
    parse_shares(config.share)
