"""Pre-trains a skeleton encoder on vision and language knowledge, without labels: python -m train.pretrain --help."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from torch import Tensor, nn

from realtime.command import run_command
from realtime.errors import UsageError
from train import checkpoint, compose, loop
from train.c2vl import C2VL, Encoders, Inter, Losses, Teacher
from train.device import hardware
from train.distributed import Ranks
from train.knowing import LiveKnowledge, PreparedKnowledge
from train.learner import Learner
from train.settings import LIVE_ONLY, Backbone, check_live, flag, refuse
from train.settings import Config as Recogniser

PROGRAM = "train.pretrain"
EXAMPLES = """examples:
  python -m train.knowledge describe --prepared prepared/ntu60 --out knowledge/ntu60
  python -m train.pretrain --prepared prepared/ntu60 --knowledge knowledge/ntu60 --out runs/c2vl
  python -m train.pretrain --prepared prepared/ntu60 --knowledge knowledge/ntu60 --streams bone --out runs/c2vl-bone
  python -m train.pretrain --out runs/c2vl --resume
  python -m train.probe runs/c2vl --protocol linear
  torchrun --nproc-per-node 4 -m train.pretrain --prepared prepared/ntu60 --knowledge knowledge/ntu60 --out runs/four
live windows, for a bundle:
  python -m train.knowledge describe --data nw_ucla:DIR utd_mhad:DIR --held-out nw_ucla:9,10 --out knowledge/live
  python -m train.pretrain --data nw_ucla:DIR utd_mhad:DIR --held-out nw_ucla:9,10 --knowledge knowledge/live \
      --backbone graphnet --batch 128 --epochs 20 --schedule cosine --out runs/live-c2vl
plain InfoNCE: --beta 0 --alpha-first 1 --alpha-last 1; intra-modal targets alone: --alpha-first 1 --alpha-last 1;
inter-modal targets alone: --alpha-first 0 --alpha-last 0; without self-distillation: --teacher self
"""
_SHARES = ("beta", "inter_share", "alpha_first", "alpha_last", "ema")
_NOT_NEGATIVE = (
    *("intra_temperature", "cross_temperature", "diagonal_temperature", "lr", "weight_decay", "warm_up"),
    *("seed", "threads", "window", "strength"),
)
_FROM_ONE = ("epochs", "batch", "repeat", "draws", "dim", "groups")
_PREPARED_ONLY = ("split", "repeat", "augment")


@dataclass(frozen=True)
class Config:
    """Pre-train a skeleton encoder by C²VL on the training clips of a prepared set (--prepared), or on live windows of
    pooled sets (--data). Labels are not learned from; of live windows they say which clips there are, and where long
    recordings are cut.

    What the paper leaves open is a setting here (docs/method.md says which). `train.fit --init` and `train.probe` take
    the run from there. One stream a run: the three streams of the paper are three runs.
    """

    out: Path
    """Run folder: config, metrics, curves, weights."""
    prepared: Path | None = None
    """A set's folder made by train.prepare."""
    data: tuple[str, ...] = ()
    """Live windows, as train.fit takes them: data sets as NAME:PATH (PATH is the folder of the published files)."""
    held_out: tuple[str, ...] = ()
    """Subjects kept out, as NAME:S1,S2."""
    share: tuple[str, ...] = tuple(share for share in Recogniser.share if not share.startswith("synthetic"))
    """How often a set is drawn from, as NAME:WEIGHT; 1 where not named."""
    draws: int = Recogniser.draws
    """Live windows an epoch."""
    strength: float = Recogniser.strength
    """Scale of every augmentation of live windows; 0 for none."""
    fps: float = Recogniser.fps
    """Frame rate of a live window."""
    knowledge: Path | None = None
    """Folder made by train.knowledge: what vision and language say of each clip."""
    use: tuple[str, ...] = ()
    """Which of language and vision; all that the folder has where not given."""
    split: str = ""
    """Its training clips are learned from; the set's usual split where not given."""
    streams: tuple[str, ...] = ()
    """Prepared: joint (as usual), bone, joint_motion, bone_motion. Live: joint bone motion. Several are fused early."""
    backbone: Backbone = "stgcn"
    """Skeleton encoder. The paper's is ST-GCN of unstated width: stgcn has 64 channels at first, stgcn-edge 32."""
    widths: tuple[int, ...] = Recogniser.widths
    """Channels of graphnet's blocks."""
    groups: int = Recogniser.groups
    """Graphnet's channel groups with an adjacency of their own."""
    window: int = 0
    """Frames of a clip; 0: 64, and 52 for NW-UCLA."""
    augment: bool = True
    """Clips are cropped and turned at random, as GAP trains on them (unstated); else they are as tested."""
    dim: int = 512
    """Width of the shared space (unstated)."""
    beta: float = 0.2
    """Share of similarity in the intra-modal targets; 0 leaves them one-hot."""
    alpha_first: float = 0.9
    """Share of the batch with intra-modal targets, and their weight, in the first epoch."""
    alpha_last: float = 0.1
    """The same in the last epoch; along a cosine between them."""
    partition: bool = True
    """A clip takes intra-modal or inter-modal targets; else all clips take both, with the same weights."""
    inter: Inter = "pairs"
    """Inter-modal targets: the products masked to each clip's own pair, swapped prediction alone, or whole sums."""
    inter_share: float = 1.0
    """Share of those in the inter-modal targets, the rest is one-hot; 1 as printed (Morgado et al. mix both)."""
    teacher: Teacher = "previous"
    """Whose features the targets are made of: the epoch before's encoders, an average of them, or the student's own."""
    ema: float = 0.996
    """How much of a teacher that is an average stays at a step."""
    learn_temperature: bool = True
    """The temperature is learned from 0.07 on (the paper says both learnable and 0.07); else it stays."""
    intra_temperature: float = 0.0
    """Inside the intra-modal targets; 0: the learned one. Printed without any: 1."""
    cross_temperature: float = 0.0
    """Of the cross-modal cosines in the inter-modal targets; 0: the learned one."""
    diagonal_temperature: float = 0.0
    """Of the pairs' own cosines there; 0: the learned one."""
    epochs: int = 150
    """Passes over the training clips."""
    batch: int = 400
    """Clips a step, over all devices: each is told apart from all others of its batch."""
    repeat: int = 1
    """Times that an epoch shows each clip."""
    lr: float = 0.1
    """Peak learning rate of SGD with Nesterov momentum 0.9."""
    schedule: Literal["cosine", "step"] = "step"
    """By a tenth at 13/15 and 14/15 of the epochs (130 and 140 of 150), or to zero along a cosine."""
    warm_up: int = 5
    """Epochs of linear warm-up (unstated; GAP's)."""
    weight_decay: float = 5e-4
    """On weights of more than one axis; not on norms, biases, the temperature."""
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
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = field(default=False)
    """Continue the run in `out` with the settings it was started with; on a CPU it equals an uninterrupted run."""

    @property
    def validation(self) -> float:
        """Nothing is set aside, for nothing is chosen."""
        return 0.0

    @property
    def bodies(self) -> int:
        """A live window is of one person."""
        return 1

    @property
    def synthetic(self) -> int:
        """Generated people are left out: they are of the seed, and what is said of clips is not."""
        return 0


def check(config: Config) -> None:
    """UsageError for settings that no pre-training can run with."""
    if (config.prepared is None) == (not config.data) or config.knowledge is None:
        raise UsageError(
            "pre-training takes clips and what is said of them: --prepared or --data, one of the two, and --knowledge"
        )
    for name in _FROM_ONE:
        if getattr(config, name) < 1:
            raise UsageError(f"{flag(name)} must be at least 1, got {getattr(config, name)}")
    for name in _SHARES:
        if not 0 <= getattr(config, name) <= 1:
            raise UsageError(f"{flag(name)} must be a share in [0, 1], got {getattr(config, name)}")
    for name in _NOT_NEGATIVE:
        if not 0 <= getattr(config, name) < float("inf"):
            raise UsageError(f"{flag(name)} must be a number from 0 on, got {getattr(config, name)}")
    if config.batch < 2:
        raise UsageError("--batch must be at least 2: a clip is told apart from the others of its batch")
    if config.prepared is not None:
        refuse(config, (*LIVE_ONLY, "draws"), "are for live windows (--data), not for --prepared")
    else:
        refuse(config, _PREPARED_ONLY, "are for --prepared; live windows take --held-out, --draws and --strength")
        check_live(config)
    unknown = set(config.use) - {"language", "vision"}
    if unknown:
        raise UsageError(f"--use takes language and vision, got {', '.join(sorted(unknown))}")


class Pretrainer(Learner):
    """A pre-training run in progress."""

    falls = ((13, 15), (14, 15))
    network: C2VL

    def __init__(
        self, config: Config, batches: LiveKnowledge | PreparedKnowledge, device: torch.device, ranks: Ranks
    ) -> None:
        torch.manual_seed(config.seed)
        known = batches.known
        widths = {name: rows.shape[1] for name, rows in known.rows.items()}
        model: dict[str, Any] = {
            "method": "c2vl", "layout": batches.layout.name, "backbone": config.backbone, "channels": batches.channels,
            "bodies": batches.bodies, "widths": list(config.widths), "groups": config.groups,
            "streams": list(batches.streams), "window": batches.frames, "fps": batches.fps, "data": batches.data,
            "split": batches.split, "knowledge": widths, "encoder": known.encoder, "sha256": known.sha256,
        }  # fmt: skip
        backbone = compose.backbone(model)
        encoders = Encoders(backbone, widths, config.dim, config.learn_temperature)
        super().__init__(config, batches, device, ranks, C2VL(encoders, config).to(device), model)
        if config.compile:
            backbone.compile()

    def peak(self, name: str, parameter: nn.Parameter) -> tuple[float, float]:
        return self.config.lr, self.config.weight_decay if parameter.ndim > 1 else 0.0

    def restore(self, tensors: dict[str, Tensor], content: dict[str, Any]) -> None:
        """Takes up where `state` was saved; UsageError where something else is said of the clips since."""
        if content["model"].get("sha256") != self.model["sha256"]:
            raise UsageError(f"{self.config.knowledge} is not what {self.config.out} was begun with; train anew")
        super().restore(tensors, content)

    def begin(self, number: int) -> None:
        self.network.begin(number)

    def stepped(self) -> None:
        self.network.stepped()

    def seen(self, losses: Losses, given: tuple[Any, ...]) -> dict[str, Tensor]:
        network = self.network
        return {
            "found": losses.found,
            "alpha": torch.tensor(network.alpha),
            "temperature": 1 / network.encoders.temperature(),
        }


def pretrain(config: Config, console: Console) -> None:
    """Runs or resumes the pre-training that `config` describes; under torchrun, on all its processes together."""
    config = loop.settled(config, PROGRAM, check)
    loop.on_ranks(config, console, lambda device, here, said: _pretrain(config, device, here, said))


def _pretrain(config: Config, device: torch.device, here: Ranks, console: Console) -> None:
    source = LiveKnowledge if config.prepared is None else PreparedKnowledge
    batches: LiveKnowledge | PreparedKnowledge = source(config, device, console)
    learner = Pretrainer(config, batches, device, here)
    log = loop.train(learner, console, lambda number: {})
    if log is None:
        return
    log.close()
    paces = [row["clips_per_s"] for row in log.rows]
    last = log.rows[-1]
    checkpoint.write_json(config.out / "result.json", {
        "method": "c2vl", "backbone": config.backbone, "knowledge": learner.model["knowledge"],
        "encoder": learner.model["encoder"], "data": batches.data, "split": batches.split,
        "stream": "+".join(batches.streams), "seed": config.seed, "epochs": config.epochs,
        "clips": batches.known.clips, "clips_without_knowledge": batches.known.unknown, "loss": last["loss"],
        "found": last["found"], "temperature": last["temperature"],
        "parameters": sum(p.numel() for p in learner.network.encoders.backbone.parameters()),
        "clips_per_s": float(np.median(paces)), "hardware": hardware(device),
    })  # fmt: skip
    then = f"look at it with: python -m train.probe {config.out} --protocol linear"
    if config.prepared is None:
        then = f"train from it with: python -m train.fit --init {config.out} --backbone {config.backbone} --data ..."
    console.print(f"{config.out}: loss {last['loss']:.4g}; {last['found']:.1%} of skeletons find their own knowledge "
                  f"in their batch; {then}", markup=False)  # fmt: skip


def run(config: Config, console: Console) -> int:
    """Pre-trains, and says how to go on where it is interrupted."""
    return loop.until_interrupted(config, console, PROGRAM, lambda: pretrain(config, console))


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, PROGRAM, EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
