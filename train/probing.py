"""The settings of a probe, and what it does with one run's backbone among the labelled clips of a set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import tyro
from rich.console import Console

from realtime.errors import UsageError
from train import compose, pretrained
from train.batches import PreparedBatches
from train.device import hardware
from train.outcome import scored
from train.pretrained import Pretrained
from train.runs import Scores
from train.tuning import RECIPES, ClipSettings, Recipe, answers, classifier, clips_of, features, nearest, subset, tune

Protocol = Literal["linear", "finetune", "semi", "knn", "transfer"]
LOOK = 5  # epochs between looks at the test clips for the best of them, where the protocol has that


@dataclass(frozen=True)
class Config:
    """Score the backbone of a run of train.pretrain (or train.fit) on labelled clips, by the usual protocols.

    linear: a classifier on features that stay. finetune: the whole network. semi: from a few of the labels. knn: the
    nearest training clip's label. transfer: the whole network on another set. Several runs (streams) are scored each
    and together. Each leaves RUN/probe/NAME with result.json, scores.npz, confusion.png and tsne.png.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders; of several, one a stream."""
    protocol: Protocol
    """What to do with the backbone."""
    prepared: Path | None = None
    """A set's folder made by train.prepare; the run's own where not given. transfer needs another."""
    split: str = ""
    """Its split; the run's own, and for another set its usual one, where not given."""
    shares: tuple[float, ...] = (0.01, 0.05, 0.1)
    """semi: shares of the training clips whose labels are known, drawn from all of them whatever their class."""
    draws: int = 5
    """semi: draws of each share; their mean is reported."""
    tuned: Literal["network", "classifier"] = "network"
    """semi, transfer: what learns. The C²VL paper says the classifier; those it compares itself with, the network."""
    recipe: str = ""
    """linear: aimclr or cmd; finetune: ours or aimclr; the first where not given."""
    epochs: int = 0
    """Instead of the recipe's; its falls of the rate keep their shares."""
    batch: int = 0
    """Clips a step, instead of the recipe's."""
    lr: float = 0.0
    """Instead of the recipe's."""
    weights: tuple[float, ...] = ()
    """Of the runs together; where not given, by stream: joint and bone 0.6, their motions 0.4."""
    scratch: bool = False
    """Forget the weights of the run: the same protocol from chance, to compare with."""
    out: Path | None = None
    """Folder for what several runs give together; the first run's probe folder where not given."""
    seed: int = 0
    """Of the classifier's weights, the order, the augmentation, the draws."""
    threads: int = 0
    """CPU threads; 0 leaves PyTorch's choice."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs; auto: the GPU where PyTorch sees one."""


@dataclass(frozen=True)
class Answer:
    """What one training of one run gives: scores of the test clips and, where it was looked at on the way, the best.

    known: how many labels it learned from. best: {"epoch", "accuracy"}, chosen by the test clips, or nothing.
    """

    scores: Scores
    known: int
    best: dict[str, Any]


Answers = dict[str, list[Answer]]  # name of the folder -> one a draw


def recipe_of(config: Config) -> Recipe | None:
    """What to train by; None where nothing is trained. UsageError for a recipe that the protocol has not."""
    if config.protocol == "knn":
        return None
    alone = config.tuned == "classifier" and config.protocol in ("semi", "transfer")
    names = [name for known, name in RECIPES if known == ("linear" if alone else config.protocol)]
    name = config.recipe or ("cmd" if alone else names[0])
    if name not in names:
        raise UsageError(f"{config.protocol} has no recipe {name!r}; it has {', '.join(names)}")
    given = {name: getattr(config, name) for name in ("epochs", "batch", "lr") if getattr(config, name)}
    return replace(RECIPES["linear" if alone else config.protocol, name], **given)


def check(config: Config) -> None:
    """UsageError for settings that nothing can be scored with."""
    if not config.runs:
        raise UsageError("nothing to look at; name run folders of train.pretrain")
    if config.protocol not in get_args(Protocol):
        raise UsageError(f"--protocol must be one of {', '.join(get_args(Protocol))}, got {config.protocol!r}")
    if config.protocol == "transfer" and config.prepared is None:
        raise UsageError("transfer is to another set than the run's; name it with --prepared")
    if any(not 0 < share <= 1 for share in config.shares) or not config.shares:
        raise UsageError(f"--shares must be in (0, 1], got {' '.join(map(str, config.shares)) or 'none'}")
    if config.draws < 1 or min(config.epochs, config.batch, config.threads, config.seed) < 0 or config.lr < 0:
        raise UsageError("--draws must be at least 1, --epochs, --batch, --lr, --threads and --seed at least 0")
    recipe_of(config)


def name_of(config: Config, data: str, share: float | None) -> str:
    """The folder of a protocol under RUN/probe, which says what is not the usual of it."""
    parts: list[str] = [config.protocol]
    if config.protocol == "transfer":
        parts.append(data)
    if share is not None:
        parts.append(f"{share:g}")
    if config.tuned == "classifier" and config.protocol in ("semi", "transfer"):
        parts.append("classifier")
    return "-".join([*parts, *([config.recipe] if config.recipe else []), *(["scratch"] if config.scratch else [])])


class Probe:
    """One run's backbone among the labelled clips of a set."""

    def __init__(self, config: Config, folder: Path, device: torch.device, console: Console) -> None:
        self.config, self.device = config, device
        self.run: Pretrained = pretrained.read(folder)
        model, begun = self.run.model, self.run.content["config"]
        own = config.prepared is None
        where = begun.get("prepared") if own else config.prepared
        if where is None:
            raise UsageError(f"{folder} was not trained on a prepared set; name one with --prepared")
        split = config.split or (model.get("split") or begun.get("split") or "" if own else "")
        settings = ClipSettings(
            Path(where), split, tuple(model["streams"]), model["window"] if own else 0, model["backbone"]
        )
        self.clips: PreparedBatches = clips_of(settings, model["layout"], model["bodies"], device, console)

    def backbone(self) -> torch.nn.Module:
        """The run's backbone anew, or one of chance."""
        if not self.config.scratch:
            return self.run.backbone().to(self.device)
        torch.manual_seed(self.config.seed)
        return compose.backbone(self.run.model).to(self.device)

    def answers(self, recipe: Recipe | None, tell: Callable[[int], None]) -> Answers:
        """Every training of the protocol; tell is called after each epoch."""
        config, clips = self.config, self.clips
        if recipe is None:
            return {name_of(config, clips.data, None): [self._nearest()]}
        if config.protocol != "semi":
            return {name_of(config, clips.data, None): [self._tuned(recipe, clips.train, config.seed, tell)]}
        found: Answers = {}
        for share in config.shares:
            picked = [subset(clips.train, share, config.seed, draw) for draw in range(config.draws)]
            found[name_of(config, clips.data, share)] = [
                self._tuned(recipe, numbers, config.seed + draw, tell) for draw, numbers in enumerate(picked)
            ]
        return found

    def _tuned(self, recipe: Recipe, numbers: np.ndarray, seed: int, tell: Callable[[int], None]) -> Answer:
        clips = self.clips
        network = classifier(self.backbone(), len(clips.classes), seed).to(self.device)
        best: dict[str, Any] = {}
        asked = None if recipe.encoder else features(network.backbone, clips, clips.test)
        labels = clips.labels[clips.test]

        def after(epoch: int) -> None:
            if self.config.protocol == "linear" and asked is not None and epoch % LOOK == 0:
                with torch.inference_mode():
                    right = scored(labels, network.head(asked).cpu().numpy())["accuracy"]
                if right > best.get("accuracy", -1.0):
                    best.update(epoch=epoch, accuracy=right, chosen_by="test")
            tell(epoch)

        tune(network, clips, numbers, recipe, seed, after)
        logits, feature = answers(network, clips, clips.test)
        return Answer(self._scores(logits, feature), len(numbers), best)

    def _nearest(self) -> Answer:
        clips, backbone = self.clips, self.backbone()
        known, asked = (features(backbone, clips, numbers) for numbers in (clips.train, clips.test))
        logits = nearest(known, torch.from_numpy(clips.labels[clips.train]), asked, len(clips.classes))
        unit = torch.nn.functional.normalize(asked, dim=1)
        return Answer(self._scores(logits.cpu().numpy(), unit.cpu().numpy()), len(clips.train), {})

    def _scores(self, logits: np.ndarray, feature: np.ndarray) -> Scores:
        clips = self.clips
        names = clips.names[clips.test].astype(str)
        return Scores(logits, clips.labels[clips.test], names, np.array(clips.classes), feature)

    def about(self, recipe: Recipe | None) -> dict[str, Any]:
        """What result.json says of the run and of how it was looked at; the keys of train.fit's where they mean one."""
        model, config, clips = self.run.model, self.config, self.clips
        return {
            "method": "scratch" if config.scratch else model["method"], "backbone": model["backbone"], "encoder": None,
            "data": clips.data, "protocol": config.protocol, "split": clips.split,
            "stream": "+".join(model["streams"]), "seed": self.run.content["config"].get("seed", 0),
            "probe_seed": config.seed, "epochs": recipe.epochs if recipe else 0, "label": "",
            "recipe": asdict(recipe) if recipe else None, "tuned": config.tuned, "run": str(self.run.run),
            "pretrained_on": f"{model['data']} {model.get('split', '')}".strip(),
            "pretrained_epochs": self.run.content["epochs_done"], "hardware": hardware(self.device),
        }  # fmt: skip
