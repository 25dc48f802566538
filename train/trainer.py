"""One training run of a recogniser: method, its moving average, optimiser and batches; `epoch` is the verb."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from train import compose, pretrained
from train.batches import LiveBatches, PreparedBatches
from train.distributed import Ranks
from train.learner import Learner, under
from train.methods import CrossEntropy, Gap, Losses, SkeletonLanguage
from train.model import Recogniser
from train.settings import Config
from train.texts import LearnedTexts, class_text


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


class Trainer(Learner):
    """A run in progress. `average.module` is what is tested and kept; without averaging it follows the weights."""

    method: CrossEntropy | Gap | SkeletonLanguage
    config: Config

    def __init__(
        self, config: Config, batches: LiveBatches | PreparedBatches, device: torch.device, ranks: Ranks
    ) -> None:
        torch.manual_seed(config.seed)
        encoder = compose.encoder_for(config, device)
        model: dict[str, Any] = {
            "layout": batches.layout.name, "backbone": config.backbone, "channels": batches.channels,
            "bodies": batches.bodies, "classes": list(batches.classes), "widths": list(config.widths),
            "groups": config.groups, "dropout": config.dropout, "text_width": encoder and encoder.width,
            "streams": list(batches.streams), "window": batches.frames, "fps": batches.fps, "method": config.method,
            "encoder": encoder and encoder.name, "data": batches.data,
        }  # fmt: skip
        network = compose.recogniser(model)
        if config.init is not None and not config.resume:
            model["init"] = pretrained.start_from(config.init, network.backbone, model, config)
        places = compose.places_of(network, batches.channels, batches.frames, len(batches.layout), batches.bodies)
        texts = [] if encoder is None else compose.class_texts(config, batches.data, batches.classes)
        method = compose.method(config, network.to(device), texts, encoder, batches.layout, places).to(device)
        weights = (config.contrast, config.rank_before, config.rank_after, config.post)
        super().__init__(config, batches, device, ranks, method, model, config.refresh_text > 1 or 0 in weights)
        self.method = cast("CrossEntropy | Gap | SkeletonLanguage", self.network)
        mean = averaging(config.epochs * batches.steps)
        self.average = torch.optim.swa_utils.AveragedModel(self.method, multi_avg_fn=mean, use_buffers=True)
        if config.compile:
            network.backbone.compile()

    def peak(self, name: str, parameter: nn.Parameter) -> tuple[float, float]:
        config = self.config
        peak = config.lr if name.startswith(("recogniser.backbone", "recogniser.head")) else config.interaction_lr
        peak = config.context_lr if name.startswith("texts.") else peak
        return peak, config.weight_decay if parameter.ndim > 1 and not name.startswith("texts.") else 0.0

    def stepped(self) -> None:
        self.average.update_parameters(self.method)
        if not self.config.average:
            self.averaged.load_state_dict(self.method.state_dict())

    def seen(self, losses: Losses, given: tuple[Any, ...]) -> dict[str, Tensor]:
        return {"train_accuracy": (losses.logits.argmax(1) == given[1].argmax(1)).float().mean()}

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
        tensors = super().state() | {f"average.{k}": v for k, v in self.averaged.state_dict().items()}
        tensors["averaged"] = self.average.n_averaged
        text = self.class_text()
        if text is not None:
            tensors["class_text"] = text
        if isinstance(self.method, SkeletonLanguage) and isinstance(self.method.texts, LearnedTexts):
            tensors |= {f"texts.{k}": v for k, v in self.method.texts.between().items()}
        return tensors

    def restore(self, tensors: dict[str, Tensor], content: dict[str, Any]) -> None:
        """Takes up where `state` was saved."""
        super().restore(tensors, content)
        self.model["init"] = content["model"].get("init")
        self.averaged.load_state_dict(under(tensors, "average."))
        self.average.n_averaged.copy_(tensors["averaged"])
        if isinstance(self.method, SkeletonLanguage) and isinstance(self.method.texts, LearnedTexts):
            self.method.texts.resume(under(tensors, "texts."))
