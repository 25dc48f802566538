"""One training run: method, its moving average, optimiser and batches; `Trainer.epoch` is the verb."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from realtime.errors import LineError
from train import checkpoint, compose
from train.batches import LiveBatches, PreparedBatches
from train.device import autocast
from train.distributed import Ranks
from train.methods import CrossEntropy, Gap, SkeletonLanguage
from train.model import Recogniser
from train.settings import Config
from train.texts import LearnedTexts, class_text

CLIP = 5.0  # largest norm of a step's gradient


def rate(config: Config, step: int, steps: int) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then a cosine to zero or two steps down."""
    warm = config.warm_up * steps // config.epochs
    if step < warm:
        return (step + 1) / warm
    if config.schedule == "step":
        return 0.1 ** sum(step >= share * steps / 11 for share in (9, 10))
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))


def averaging(steps: int) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """Exponential moving average over the last sixth of a run of `steps`, or the last 500 steps of a long one.

    The first steps are forgotten quickly: the decay is min(0.998, 1 - 6 / steps, (1 + n) / (10 + n)).
    """
    most = min(0.998, max(1 - 6 / steps, 0.0))

    @torch.no_grad()
    def average(averages: Sequence[Tensor], values: Sequence[Tensor], count: Tensor | int) -> None:
        kept = min(most, (1 + int(count)) / (10 + int(count)))
        for mean, value in zip(averages, values, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - kept)
            else:
                mean.copy_(value)

    return average


def plain(config: Config) -> dict[str, Any]:
    """The settings as JSON holds them."""
    return json.loads(json.dumps(asdict(config), default=str))


class Trainer:
    """A run in progress. `average.module` is what is tested and kept; without averaging it follows the weights."""

    def __init__(
        self, config: Config, batches: LiveBatches | PreparedBatches, device: torch.device, ranks: Ranks
    ) -> None:
        self.config, self.batches, self.device, self.ranks = config, batches, device, ranks
        torch.manual_seed(config.seed)
        encoder = compose.encoder_for(config, device)
        self.model: dict[str, Any] = {
            "layout": batches.layout.name, "backbone": config.backbone, "channels": batches.channels,
            "bodies": batches.bodies, "classes": list(batches.classes), "widths": list(config.widths),
            "groups": config.groups, "dropout": config.dropout, "text_width": encoder and encoder.width,
            "streams": list(batches.streams), "window": batches.frames, "fps": batches.fps, "method": config.method,
            "encoder": encoder and encoder.name, "data": batches.data,
        }  # fmt: skip
        network = compose.recogniser(self.model)
        places = compose.places_of(network, batches.channels, batches.frames, len(batches.layout), batches.bodies)
        texts = [] if encoder is None else compose.class_texts(config, batches.data, batches.classes)
        self.method = compose.method(config, network.to(device), texts, encoder, batches.layout, places).to(device)
        if ranks.world > 1 and device.type == "cuda":  # statistics of the global batch; there is none for the CPU
            self.method = nn.SyncBatchNorm.convert_sync_batchnorm(self.method)
        mean = averaging(config.epochs * batches.steps)
        self.average = torch.optim.swa_utils.AveragedModel(self.method, multi_avg_fn=mean, use_buffers=True)
        self.names, self.optimiser = self._optimiser()
        if config.compile:
            network.backbone.compile()
        self.whole: nn.Module = self.method
        if ranks.world > 1:
            weights = (config.contrast, config.rank_before, config.rank_after, config.post)
            idle = config.refresh_text > 1 or 0 in weights  # parameters that a step, or the whole run, does not use
            self.whole = DistributedDataParallel(self.method, find_unused_parameters=idle)
        self.autocast = autocast(config.precision, device)
        self.done = 0

    def _optimiser(self) -> tuple[list[str], torch.optim.SGD]:
        """SGD over groups, each with its own peak rate that the schedule scales; and the parameters' names in order."""
        config = self.config
        groups: dict[tuple[float, float], list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in self.method.named_parameters():
            if not parameter.requires_grad:
                continue
            peak = config.lr if name.startswith(("recogniser.backbone", "recogniser.head")) else config.interaction_lr
            peak = config.context_lr if name.startswith("texts.") else peak
            decay = config.weight_decay if parameter.ndim > 1 and not name.startswith("texts.") else 0.0
            groups.setdefault((peak, decay), []).append((name, parameter))
        named = [pair for pairs in groups.values() for pair in pairs]
        made = [
            {"params": [p for _, p in pairs], "weight_decay": decay, "peak": peak}
            for (peak, decay), pairs in groups.items()
        ]
        return [name for name, _ in named], torch.optim.SGD(made, lr=config.lr, momentum=0.9, nesterov=True)

    def epoch(self, number: int) -> Iterator[int]:
        """Trains one epoch; yields after each step. Afterwards `row` holds its means."""
        config, steps = self.config, self.batches.steps
        torch.manual_seed((config.seed * 100_003 + number) * 1009 + self.ranks.rank)
        self.whole.train()
        sums: dict[str, Tensor] = {}
        for step, (x, target) in enumerate(self.batches.epoch(number, self.ranks)):
            share = rate(config, number * steps + step, config.epochs * steps)
            for group in self.optimiser.param_groups:
                group["lr"] = group["peak"] * share
            with self.autocast:
                losses = self.whole(x, target)
            self.optimiser.zero_grad(set_to_none=True)
            losses.total.backward()
            norm = nn.utils.clip_grad_norm_(self.method.parameters(), CLIP)
            if not torch.isfinite(losses.total + norm):
                before = "; last.safetensors holds the epoch before" if number else ""
                raise LineError(
                    f"loss is {losses.total.item()}, gradient {norm.item()} at epoch {number + 1}, batch {step + 1} of "
                    f"{steps}{before}; start anew in another --out with a lower --lr (now {config.lr})"
                )
            self.optimiser.step()
            self.average.update_parameters(self.method)
            if not config.average:
                self.averaged.load_state_dict(self.method.state_dict())
            right = (losses.logits.argmax(1) == target.argmax(1)).float().mean()
            row = {"loss": losses.total, "train_accuracy": right, **{f"loss/{k}": v for k, v in losses.parts.items()}}
            for name, value in row.items():
                sums[name] = sums.get(name, 0) + value.detach()
            yield step
        self.done = number + 1
        self.row = {name: float(value) / steps for name, value in sums.items()}

    @property
    def recogniser(self) -> Recogniser:
        """The averaged network in eval mode: what goes to the device."""
        return self.averaged.recogniser.eval()

    @property
    def averaged(self) -> CrossEntropy | Gap | SkeletonLanguage:
        """The method with averaged weights."""
        return cast("CrossEntropy | Gap | SkeletonLanguage", self.average.module)

    @torch.no_grad()
    def class_text(self) -> Tensor | None:
        """The averaged run's unit text features (K, D) on the CPU, or None without texts."""
        method = self.averaged.eval()
        if isinstance(method, CrossEntropy):
            return None
        features, mask = method.texts() if isinstance(method, SkeletonLanguage) else method.texts[0]()
        return class_text(features, mask).cpu()

    @torch.inference_mode()
    def answers(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Of clips of a prepared set: logits (N, K), feature (N, D), text_logits (mode M1) and fused_logits (M2)."""
        assert isinstance(self.batches, PreparedBatches)
        method, text = self.averaged.eval(), self.class_text()
        found: dict[str, list[Tensor]] = {}
        for x in self.batches.inputs(numbers):
            logits, feature = self.recogniser(x)
            row = {"logits": logits, "feature": feature}
            if text is not None:
                row["text_logits"] = feature @ text.to(x.device).T
            if text is not None and isinstance(method, SkeletonLanguage) and self.config.interaction:
                row["fused_logits"] = method.fused(x, text.to(x.device))
            for name, value in row.items():
                found.setdefault(name, []).append(value.float().cpu())
        return {name: torch.cat(parts).numpy() for name, parts in found.items()}

    def state(self) -> dict[str, Tensor]:
        """Everything that an exact resume needs, and the class texts."""
        tensors = {f"network.{k}": v for k, v in self.method.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.averaged.state_dict().items()}
        tensors["averaged"] = self.average.n_averaged
        text = self.class_text()
        if text is not None:
            tensors["class_text"] = text
        if isinstance(self.method, SkeletonLanguage) and isinstance(self.method.texts, LearnedTexts):
            tensors |= {f"texts.{k}": v for k, v in self.method.texts.between().items()}
        return tensors | checkpoint.optimiser_tensors(self.optimiser, self.names)

    def restore(self, tensors: dict[str, Tensor], content: dict) -> None:
        """Takes up where `state` was saved."""
        self.method.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("network.")})
        self.averaged.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("average.")})
        self.average.n_averaged.copy_(tensors["averaged"])
        if isinstance(self.method, SkeletonLanguage) and isinstance(self.method.texts, LearnedTexts):
            self.method.texts.resume({k[6:]: v for k, v in tensors.items() if k.startswith("texts.")})
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        for name, parameter in zip(self.names, parameters, strict=True):
            if f"momentum.{name}" in tensors:
                self.optimiser.state[parameter]["momentum_buffer"] = tensors[f"momentum.{name}"].to(self.device)
        self.done = content["epochs_done"]

    def save(self, name: str) -> None:
        """Writes NAME.safetensors into the run folder."""
        content = {"model": self.model, "epochs_done": self.done, "config": plain(self.config)}
        checkpoint.save(self.config.out / name, self.state(), content)
