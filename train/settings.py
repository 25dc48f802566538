"""The settings of a training run, and what they must keep to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, get_args

import tyro

from realtime.errors import UsageError
from realtime.features import PAIR_NORMALISATION, PAIR_STREAMS, channels, normalisation_of
from train.sources import parse_shares

Method = Literal["ce", "gap", "pcke", "pcle"]
Backbone = Literal["graphnet", "ctrgcn", "ctrgcn-edge", "stgcn", "stgcn-edge"]
CHOICES = {
    "method": get_args(Method),
    "backbone": get_args(Backbone),
    "device": ("auto", "cpu", "cuda"),
    "precision": ("auto", "fp32", "bf16"),
    "schedule": ("cosine", "step"),
    "context_position": ("end", "middle"),
    "gap_scale": ("raw", "exp"),
    "best_on": ("validation", "test", "none"),
}
_NOT_NEGATIVE = (
    *("contrast", "rank_before", "rank_after", "post", "distil", "margin", "gap_sharpness", "strength"),
    *("weight_decay", "lr", "interaction_lr", "context_lr", "tune_text", "warm_up", "seed", "threads"),
    *("synthetic", "window"),
)
_SHARES = ("validation", "dropout", "attention_dropout", "smoothing")
_FROM_ONE = (
    *("epochs", "draws", "batch", "groups", "evaluate_every", "repeat", "contexts", "parallel_contexts"),
    *("refresh_text", "hardest"),
)
LIVE_ONLY = ("data", "held_out", "share", "strength", "fps", "bodies")
_PREPARED_ONLY = ("split", "repeat", "validation", "best_on")


@dataclass(frozen=True)
class Config:
    """Train a recogniser of actions, on live windows of pooled sets (--data) or on one prepared set (--prepared)."""

    out: Path
    """Run folder: config, metrics, curves, weights, figures, result."""
    method: Method = "ce"
    """ce: classification alone. gap, pcke, pcle: with texts (see docs/method.md)."""
    backbone: Backbone = "graphnet"
    """Skeleton encoder; the edge ones have width 32."""
    data: tuple[str, ...] = ()
    """Live windows: data sets as NAME:PATH (PATH is the folder of the published files)."""
    held_out: tuple[str, ...] = ()
    """Subjects kept out of training and scored, as NAME:S1,S2."""
    bodies: int = 1
    """People in a live window: 1, or 2 for what two do together (clips of two people; all others are put side by side
    as pairs that do nothing together)."""
    synthetic: int = 40
    """Generated recordings (about a minute each) added to the pool; 0 for none."""
    share: tuple[str, ...] = ("utkinect:0.8", "msr_action3d:1.2", "msrc12:1.0", "synthetic:0.25")
    """How often a set is drawn from, as NAME:WEIGHT (NAME may be synthetic); 1 where not named."""
    draws: int = 5000
    """Live windows an epoch."""
    strength: float = 1.0
    """Scale of every augmentation of live windows; 0 for none."""
    prepared: Path | None = None
    """A set's folder made by train.prepare: train and test it by its published protocol."""
    split: str = ""
    """Split of the prepared set, such as xsub, xview, xset; the set's usual one where not given."""
    repeat: int = 1
    """Times that an epoch shows each clip of a prepared set."""
    validation: float = 0.0
    """Share of the prepared set's training clips kept out to choose the best weights by."""
    best_on: Literal["validation", "test", "none"] = "validation"
    """What best.safetensors is chosen by; test is optimistic, as published figures often are, and is said to be."""
    epochs: int = 60
    """Passes over the data."""
    batch: int = 64
    """Windows or clips a step, over all devices."""
    lr: float = 0.1
    """Peak learning rate of SGD with Nesterov momentum 0.9, after `warm_up` epochs."""
    interaction_lr: float = 0.02
    """The same for bridger, attention and projections."""
    context_lr: float = 4e-3
    """The same for learned contexts and a tuned text tower."""
    schedule: Literal["cosine", "step"] = "cosine"
    """To zero along a cosine, or by a tenth at 9/11 and 10/11 of the epochs."""
    warm_up: int = 3
    """Epochs of linear warm-up."""
    weight_decay: float = 5e-4
    """On weights of more than one axis, adjacencies included; not on norms, biases, scales, contexts."""
    smoothing: float = 0.1
    """Label smoothing of the classification."""
    average: bool = True
    """Keep an exponential moving average of the weights, which is what is tested and exported."""
    widths: tuple[int, ...] = (64, 64, 64, 128, 128, 128, 192, 192)
    """Channels of graphnet's blocks."""
    groups: int = 8
    """Graphnet's channel groups with an adjacency of their own."""
    dropout: float = 0.2
    """Before the classifier."""
    streams: tuple[str, ...] = ()
    """Live: joint bone motion. Prepared: joint, bone, joint_motion, bone_motion; several are fused early."""
    window: int = 0
    """Frames of a window or clip; 0: 64, and 52 for a prepared NW-UCLA, as published."""
    fps: float = 20.0
    """Frame rate of a live window."""
    encoder: str = "all-MiniLM-L6-v2"
    """Text encoder: all-MiniLM-L6-v2, ViT-B-32, ViT-B-16, ViT-L-14, ViT-L-14-336."""
    text_weights: Path | None = None
    """Weights of a CLIP encoder, where they are not to be fetched."""
    prompts: str = ""
    """Texts of the classes: a set's name or a file of train.prompts; the data's own where not given."""
    contrast: float = 1.0
    """Weight of the skeleton-text contrastive loss (GAP's a)."""
    interaction: bool = True
    """PCKE, PCLE: bridger and cross-modality attention."""
    rank_before: float = 0.5
    """Weight of the ranking loss before the interaction."""
    rank_after: float = 0.5
    """And after it."""
    post: float = 0.5
    """Weight of the classification after the interaction."""
    distil: float = 0.0
    """Weight of the distillation of that classification into the skeleton-only one."""
    margin: float = 0.2
    """Of the ranking, in cosines."""
    hardest: int = 5
    """Wrong classes, or clips, that each ranking looks at."""
    attention_dropout: float = 0.1
    """Inside bridger and attention."""
    contexts: int = 16
    """PCLE: learned vectors a prompt."""
    context_from: str = ""
    """PCLE: words that the contexts start from, such as "a skeleton sequence of a person"; noise where not given."""
    context_per_class: bool = False
    """PCLE: contexts of each class's own, not shared by all."""
    context_position: Literal["end", "middle"] = "end"
    """PCLE: where the class name stands among them."""
    parallel_contexts: int = 1
    """PCLE: prompts a class, side by side."""
    tune_text: int = 0
    """PCLE: last blocks of the text tower that learn too."""
    refresh_text: int = 1
    """PCLE: steps between two passes of the text tower (1 is the method; more is faster with many classes)."""
    gap_scale: Literal["raw", "exp"] = "raw"
    """GAP: use the learned scale as it is (its code) or its exponential (CLIP)."""
    gap_sharpness: float = 10.0
    """GAP: positives are softmax(this x same class), as its code has it; 0: exactly even."""
    label: str = ""
    """A word by which train.compare tells this run from others of the same settings."""
    init: Path | None = None
    """Start from the backbone of this run of train.pretrain (or train.fit): same backbone, layout, streams, bodies."""
    seed: int = 0
    """Of weights, order and augmentation."""
    threads: int = 0
    """CPU threads; 0 leaves PyTorch's choice."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs; auto: the GPU where PyTorch sees one. A resumed run stays where it began if not said."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 is autocast; auto: bf16 where the device has it, else fp32."""
    compile: bool = False
    """torch.compile the backbone (a minute at the start; worth it on a GPU)."""
    evaluate_every: int = 10
    """Epochs between scorings (and after the last)."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = field(default=False)
    """Continue the run in `out` with the settings it was started with; on a CPU it equals an uninterrupted run."""


def refuse(config: Any, names: tuple[str, ...], why: str) -> None:
    """UsageError for settings among `names` that are not as they are by default."""
    changed = [flag(one.name) for one in fields(config)
               if one.name in names and getattr(config, one.name) != one.default]  # fmt: skip
    if changed:
        raise UsageError(f"{', '.join(changed)} {why}")


def flag(name: str) -> str:
    """A setting as the command line spells it."""
    return f"--{name.replace('_', '-')}"


def check(config: Config) -> None:
    """UsageError for settings that no training can run with."""
    for name in _FROM_ONE:
        if getattr(config, name) < 1:
            raise UsageError(f"{flag(name)} must be at least 1, got {getattr(config, name)}")
    for names, most, said in ((_SHARES, 1, "a share in [0, 1)"), (_NOT_NEGATIVE, math.inf, "a number from 0 on")):
        for name in names:
            if not 0 <= getattr(config, name) < most:
                raise UsageError(f"{flag(name)} must be {said}, got {getattr(config, name)}")
    for name, allowed in CHOICES.items():
        if getattr(config, name) not in allowed:
            raise UsageError(f"{flag(name)} must be one of {', '.join(allowed)}, got {getattr(config, name)!r}")
    unfit = [width for width in config.widths if width < 1 or width % 4 or width % config.groups]
    if unfit or not config.widths:
        raise UsageError(f"--widths must be multiples of 4 and of --groups {config.groups}, got {unfit or 'none'}")
    if config.bodies == 2 and config.method != "ce":
        raise UsageError(
            f"--bodies 2 learns from labels alone, there are no texts for it: --method ce, not {config.method}"
        )
    if config.prepared is None:
        refuse(config, _PREPARED_ONLY, "are for --prepared; live windows take --held-out and --draws")
        check_live(config)
    elif config.data:
        raise UsageError("--prepared is one set by its published protocol, --data live windows; give one of them")
    else:
        refuse(config, LIVE_ONLY, "are for live windows (--data), not for --prepared")


class LiveSettings(Protocol):
    """The settings of live windows."""

    @property
    def data(self) -> tuple[str, ...]: ...
    @property
    def held_out(self) -> tuple[str, ...]: ...
    @property
    def share(self) -> tuple[str, ...]: ...
    @property
    def bodies(self) -> int: ...
    @property
    def synthetic(self) -> int: ...
    @property
    def streams(self) -> tuple[str, ...]: ...
    @property
    def window(self) -> int: ...
    @property
    def fps(self) -> float: ...
    @property
    def draws(self) -> int: ...
    @property
    def strength(self) -> float: ...
    @property
    def batch(self) -> int: ...
    @property
    def seed(self) -> int: ...


def check_live(config: LiveSettings) -> None:
    """UsageError for settings that no live windows can be drawn with."""
    if config.draws < config.batch:
        raise UsageError(f"--draws {config.draws} fills no batch of {config.batch}; raise --draws or lower --batch")
    if config.bodies not in (1, 2):
        raise UsageError(f"--bodies must be 1 or 2, got {config.bodies}")
    if not 0 < config.fps < math.inf:
        raise UsageError(f"--fps must be above 0, got {config.fps}")
    if config.streams:
        try:
            channels(config.streams)
        except ValueError as error:
            raise UsageError(f"--streams: {error}") from None
        if (normalisation_of(config.streams) == PAIR_NORMALISATION) != (config.bodies == 2):
            raise UsageError(
                f"--streams {' '.join(config.streams)} do not go with --bodies {config.bodies}: two bodies need at "
                f"least one of {', '.join(PAIR_STREAMS)}, one body none of them"
            )
    parse_shares(config.share)
