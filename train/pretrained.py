"""A backbone that an earlier run has learned, for `train.fit --init` and `train.probe` to start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from realtime.errors import BundleError, UsageError
from train import checkpoint, compose
from train.learner import under
from train.sources import spared

# Of train.pretrain, and of train.fit (its moving average, which is what it tests).
PLACES = ("network.encoders.backbone.", "average.recogniser.backbone.")
SAME = ("backbone", "layout", "streams", "channels", "bodies")
SAME_GRAPHNET = ("widths", "groups")


@dataclass(frozen=True)
class Pretrained:
    """The backbone's tensors by name, and what the run's checkpoint says: model, config, epochs_done."""

    run: Path
    tensors: dict[str, Tensor]
    content: dict[str, Any]

    @property
    def model(self) -> dict[str, Any]:
        """What the network is made of."""
        return self.content["model"]

    def backbone(self) -> nn.Module:
        """A new backbone with these weights. BundleError where they do not fit what the checkpoint says of it."""
        made = compose.backbone(self.model)
        self.into(made)
        return made

    def into(self, backbone: nn.Module) -> None:
        """Puts the weights into a backbone, all of them and nothing but them; BundleError where they do not fit."""
        try:
            backbone.load_state_dict(self.tensors, strict=True)
        except RuntimeError as error:
            raise BundleError(f"{self.run} does not hold the backbone it says ({error}); train anew") from error


def read(run: Path) -> Pretrained:
    """The last weights of a run's folder. BundleError where there are none, or they hold no backbone."""
    tensors, content = checkpoint.load(run / "last.safetensors", "train.pretrain")
    found = next((found for place in PLACES if (found := under(tensors, place))), None)
    if found is None or not {*SAME, *SAME_GRAPHNET} <= content.get("model", {}).keys():
        raise BundleError(f"{run} holds no backbone; name the folder of a run of train.pretrain or train.fit")
    return Pretrained(run, found, content)


def start_from(run: Path, backbone: nn.Module, model: Mapping[str, Any], settings: Any) -> dict[str, Any] | None:
    """Gives a new run's backbone the weights of an earlier run; returns what that one saw, as "data" and "held_out".

    settings: the new run's. None where the earlier run was on a prepared set. Raises UsageError where the two differ in
    backbone, layout, streams, channels or bodies (nothing is fitted), or the earlier one saw whom this one holds out.
    """
    earlier = read(run)
    names = (*SAME, *SAME_GRAPHNET) if model["backbone"] == "graphnet" else SAME
    apart = [f"{name} {_said(earlier.model[name])}, not {_said(model[name])}" for name in names
             if earlier.model[name] != model[name]]  # fmt: skip
    if apart:
        raise UsageError(f"--init {run} was trained with {'; '.join(apart)}; train with its settings, or name another")
    earlier.into(backbone)
    before = earlier.content["config"]
    if not before.get("data"):
        return None
    kept, now = spared(before), spared({"data": settings.data, "held_out": settings.held_out})
    for name, held in now.items():
        seen = sorted(held - kept.get(name, held))
        if seen:
            raise UsageError(
                f"--init {run} was trained on {name}:{','.join(seen)}, whom this run holds out; hold them out there too"
            )
    return {"method": earlier.model["method"], "data": list(before["data"]), "held_out": list(before["held_out"])}


def _said(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
