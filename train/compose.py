"""Puts a run's parts together: backbone, texts and method, each by the name that the settings give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from realtime.errors import BundleError
from realtime.skeleton import LAYOUTS, Layout
from train import backbones, checkpoint, prompts
from train.graphnet import GraphNet
from train.interaction import Interaction
from train.methods import CrossEntropy, Gap, SkeletonLanguage
from train.model import Recogniser
from train.settings import Config
from train.text import TextEncoder, open_encoder
from train.texts import FixedTexts, LearnedTexts


def backbone(model: dict[str, Any]) -> nn.Module:
    """The skeleton encoder that a checkpoint's `model` entry describes, with fresh weights."""
    layout = LAYOUTS[model["layout"]]
    if model["backbone"] == "graphnet":
        return GraphNet(layout, model["channels"], model["bodies"], tuple(model["widths"]), model["groups"])
    return backbones.build(model["backbone"], layout, model["channels"], model["bodies"])


def recogniser(model: dict[str, Any]) -> Recogniser:
    """The network that a checkpoint's `model` entry describes, with fresh weights."""
    return Recogniser(backbone(model), len(model["classes"]), model["text_width"], model["dropout"])


@dataclass(frozen=True)
class Trained:
    """A checkpoint's averaged network in eval mode, what else the file says, and its class texts (K, D) at unit length.

    text_scale: the learned inverse temperature between embedding and texts; 1 without texts.
    interaction, fused_scale: what inference mode M2 needs, and its inverse temperature; None and 1 where not trained.
    """

    network: Recogniser
    content: dict[str, Any]
    text: Tensor | None
    text_scale: float
    interaction: Interaction | None = None
    fused_scale: float = 1.0


def load_network(path: Path) -> Trained:
    """Opens a checkpoint of train.fit; BundleError where it is missing or broken."""
    tensors, content = checkpoint.load(path)
    kept = "average.recogniser."
    try:
        network = recogniser(content["model"])
        network.load_state_dict({k[len(kept) :]: v for k, v in tensors.items() if k.startswith(kept)})
        found = interaction(tensors)
    except (KeyError, RuntimeError) as error:
        raise BundleError(f"{path} is of another version of train.fit ({error}); train anew") from error
    scale = tensors["average.before.log"].exp().clamp_max(100.0) if "average.before.log" in tensors else torch.ones(())
    if "average.log_scale" in tensors:  # GAP's, of the whole body
        scale = tensors["average.log_scale"][0]
        scale = scale if content["config"]["gap_scale"] == "raw" else scale.exp().clamp_max(100.0)
    after = tensors["average.after.log"].exp().clamp_max(100.0) if found else 1.0
    return Trained(network.eval(), content, tensors.get("class_text"), float(scale), found, float(after))


def interaction(tensors: dict[str, Tensor]) -> Interaction | None:
    """The averaged interaction of a checkpoint's tensors in eval mode; None where the run had none."""
    kept = "average.interaction."
    weights = {name[len(kept) :]: tensor for name, tensor in tensors.items() if name.startswith(kept)}
    if not weights:
        return None
    places, width = weights["place"].shape
    made = Interaction(places, 0, width)  # it adds frames and joints up
    made.load_state_dict(weights)
    return made.eval()


def class_texts(config: Config, data: str, classes: Sequence[str]) -> list[prompts.ClassText]:
    """What is said of each class, in order. UsageError where a class has no text."""
    return prompts.load(config.prompts or data).pick(classes)


def method(
    config: Config, network: Recogniser, texts: list[prompts.ClassText], encoder: TextEncoder | None, layout: Layout,
    places: tuple[int, int],
) -> CrossEntropy | Gap | SkeletonLanguage:  # fmt: skip
    """The training method around a recogniser. places: T' and V of its feature map."""
    if config.method == "ce" or encoder is None:
        return CrossEntropy(network, config)
    synonyms = [[text.name, *text.synonyms] for text in texts]
    if config.method == "gap":
        each = [synonyms, *([[f"{text.name}: {text.parts[part]}"] for text in texts] for part in prompts.PARTS)]
        return Gap(network, [FixedTexts(encoder, of_classes) for of_classes in each], layout, config)
    if config.method == "pcke":
        fixed = FixedTexts(encoder, [[*names, text.sentence] for names, text in zip(synonyms, texts, strict=True)])
        return SkeletonLanguage(network, fixed, places, config)
    learned = LearnedTexts(
        encoder,
        [text.name for text in texts],
        config.contexts,
        config.context_per_class,
        config.parallel_contexts,
        config.context_position,
        config.tune_text,
        config.refresh_text,
        config.context_from,
    )
    return SkeletonLanguage(network, learned, places, config)


def encoder_for(config: Config, device: torch.device) -> TextEncoder | None:
    """The text encoder that the method needs, on the device; none for plain cross-entropy."""
    return None if config.method == "ce" else open_encoder(config.encoder, config.text_weights).to(device)


@torch.no_grad()
def places_of(network: Recogniser, channels: int, frames: int, joints: int, bodies: int) -> tuple[int, int]:
    """T' and V of the feature map that windows of this shape give."""
    was = network.training
    shape = network.eval().feature_map(torch.zeros(1, channels, frames, joints, bodies)).shape
    network.train(was)
    return shape[2], shape[3]
