"""The four ways to train a recogniser: cross-entropy, GAP, PCKE and PCLE; what each adds to the loss.

Every method is a module of `forward(x, target) -> Losses` around the same `Recogniser`, which is all that is kept
for the device. GAP: Xiang et al., ICCV 2023. PCKE and PCLE: Su et al., TCSVT 2026, known to us by its project page;
see docs/method.md for what is theirs and what is our reconstruction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from realtime.skeleton import Layout
from train import loss
from train.distributed import gather
from train.interaction import Interaction
from train.model import Recogniser
from train.settings import Config
from train.texts import FixedTexts, LearnedTexts, class_text, draw_texts

PARTS: Mapping[str, tuple[str, ...]] = {  # GAP's four groups, by the words in joints' names
    "head": ("head", "neck", "shoulder_center", "nose", "eye", "ear", "mouth"),
    "arms": ("left_shoulder", "right_shoulder", "elbow", "wrist", "hand", "tip", "thumb"),
    "torso": ("hip", "spine", "neck"),
    "legs": ("left_hip", "right_hip", "knee", "ankle", "foot"),
}
TEXTS_DRAWN = 2  # texts a clip and step where a class has several (PCKE)


@dataclass
class Losses:
    """The loss to descend, its parts for the log, and the classifier's logits (N, K)."""

    total: Tensor
    parts: dict[str, Tensor]
    logits: Tensor


class Temperature(nn.Module):
    """A learned inverse temperature, from 1/0.07 on and at most 100, as CLIP's."""

    def __init__(self) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self) -> Tensor:
        return self.log.exp().clamp_max(100.0)


class CrossEntropy(nn.Module):
    """Classification alone: the baseline."""

    def __init__(self, recogniser: Recogniser, config: Config) -> None:
        super().__init__()
        self.recogniser, self.smoothing = recogniser, config.smoothing

    def forward(self, x: Tensor, target: Tensor) -> Losses:
        logits, _ = self.recogniser(x)
        total = loss.classification(logits, target, self.smoothing)
        return Losses(total, {}, logits)


def part_joints(layout: Layout) -> list[list[int]]:
    """The joints of each of GAP's four parts (a joint may belong to two, as the hips do)."""
    exact = {"left_shoulder", "right_shoulder", "left_hip", "right_hip", "shoulder_center"}
    return [
        [
            i
            for i, joint in enumerate(layout.joints)
            if any(w == joint if w in exact else w in joint.split("_") for w in ws)
        ]
        for ws in PARTS.values()
    ]


class Gap(nn.Module):
    """GAP: the whole body and four parts are each drawn to their own text.

    L = CE + a * mean over {whole, head, arms, torso, legs} of the contrastive loss. texts[0]: several a class
    (synonyms); texts[1:]: one a class and part. Its code's quirks are switches: the scale is used as it is, not its
    exponential (`gap_scale` raw: it starts at 2.66, a temperature of 0.376), and positives are a softmax of
    `gap_sharpness` x (same class). Its text tower is trained as well; here the texts' features are fixed.
    """

    def __init__(self, recogniser: Recogniser, texts: list[FixedTexts], layout: Layout, config: Config) -> None:
        super().__init__()
        self.recogniser, self.texts, self.config = recogniser, nn.ModuleList(texts), config
        width, text_width = recogniser.head.in_features, int(texts[0].features.shape[2])
        self.parts = nn.ModuleList(nn.Linear(width, text_width) for _ in PARTS)
        self.groups = part_joints(layout)
        self.log_scale = nn.Parameter(torch.full((1 + len(PARTS),), math.log(1 / 0.07)))

    def forward(self, x: Tensor, target: Tensor) -> Losses:
        feature_map = self.recogniser.feature_map(x)
        logits, whole = self.recogniser.heads(feature_map.mean(dim=(2, 3)))
        unit = [whole]
        for project, group in zip(self.parts, self.groups, strict=True):
            unit.append(nn.functional.normalize(project(feature_map[..., group].mean(dim=(2, 3))).float(), dim=1))
        scales = self.log_scale if self.config.gap_scale == "raw" else self.log_scale.exp().clamp_max(100.0)
        every, label = gather(target), target.argmax(dim=1)
        aligned = torch.zeros((), device=logits.device)
        for skeleton, texts, scale in zip(unit, self.texts, scales, strict=True):
            features, mask = texts()
            text = draw_texts(features, mask, label, 1)
            sharpness = self.config.gap_sharpness or None
            aligned = aligned + loss.contrastive(gather(skeleton), gather(text), every, every, scale, sharpness)
        parts = {"classification": loss.classification(logits, target, self.config.smoothing)}
        parts["contrast"] = aligned / len(unit)
        return Losses(parts["classification"] + self.config.contrast * parts["contrast"], parts, logits)


class SkeletonLanguage(nn.Module):
    """PCKE and PCLE, which differ in their texts only.

    L = L_cls + a L_con + b1 L_rank(before) + b2 L_rank(after) + c L_post + d L_distil, with weights of 0 leaving a
    part out; without `interaction` there is no after.
    """

    def __init__(
        self, recogniser: Recogniser, texts: FixedTexts | LearnedTexts, places: tuple[int, int], config: Config
    ) -> None:
        super().__init__()
        self.recogniser, self.texts, self.config = recogniser, texts, config
        assert recogniser.project is not None
        width = recogniser.project.out_features
        self.before = Temperature()
        if config.interaction:
            self.interaction = Interaction(*places, width, dropout=config.attention_dropout)
            self.after = Temperature()

    def fused(self, x: Tensor, text: Tensor) -> Tensor:
        """Inference mode M2: logits (N, K) after the interaction with class texts (K, D)."""
        recogniser = self.recogniser
        return self.after() * self.interaction(recogniser.feature_map(x), recogniser.project, text)

    def forward(self, x: Tensor, target: Tensor) -> Losses:
        config, recogniser = self.config, self.recogniser
        feature_map = recogniser.feature_map(x)
        logits, skeleton = recogniser.heads(feature_map.mean(dim=(2, 3)))
        features, mask = self.texts()
        text, label = class_text(features, mask), target.argmax(dim=1)
        every = gather(target)
        parts = {"classification": loss.classification(logits, target, config.smoothing)}
        weights = {"classification": 1.0}
        if config.contrast:
            drawn = draw_texts(features, mask, label, TEXTS_DRAWN).unflatten(0, (-1, len(label))).transpose(0, 1)
            drawn = gather(drawn)  # (N, draws, D)
            wanted = every.repeat_interleave(drawn.shape[1], dim=0)
            scale = self.before()
            parts["contrast"] = loss.contrastive(gather(skeleton), drawn.flatten(0, 1), every, wanted, scale)
            weights["contrast"] = config.contrast
        if config.rank_before:
            scores = gather(loss.cosines(skeleton, text))
            parts["rank_before"] = loss.ranking(scores, every, config.margin, config.hardest)
            weights["rank_before"] = config.rank_before
        if config.interaction:
            scores = self.interaction(feature_map, recogniser.project, text)
            if config.rank_after:
                parts["rank_after"] = loss.ranking(gather(scores), every, config.margin, config.hardest)
                weights["rank_after"] = config.rank_after
            fused = self.after() * scores
            if config.post:
                parts["post"] = loss.classification(fused, target)
                weights["post"] = config.post
            if config.distil:
                parts["distil"] = loss.distillation(logits, fused)
                weights["distil"] = config.distil
        total = torch.stack([weight * parts[name] for name, weight in weights.items()]).sum()
        return Losses(total, parts, logits)
