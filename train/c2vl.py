"""C²VL: skeletons learn from what vision and language say of the same clips, without labels.

Chen et al., "Vision-Language Meets the Skeleton: Progressively Distillation with Cross-Modal Knowledge for 3D Action
Representation Learning", IEEE TMM, arXiv 2405.20606. No training code was published and some of the equations do not
fit together as printed: each choice below that the paper leaves open is a setting of `train.pretrain`, whose default
stands here and in docs/method.md. B clips of the batch over all processes, d width of the shared space, t = 1/tau.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from train.distributed import agree, gather
from train.loss import cosines
from train.methods import Temperature

Teacher = Literal["previous", "self", "ema"]
Inter = Literal["pairs", "swapped", "sums"]
EPS = 1e-9  # so that 0.29 of 100 clips are 29


class Settings(Protocol):
    """The settings that the objective reads."""

    @property
    def dim(self) -> int: ...
    @property
    def beta(self) -> float: ...
    @property
    def alpha_first(self) -> float: ...
    @property
    def alpha_last(self) -> float: ...
    @property
    def epochs(self) -> int: ...
    @property
    def partition(self) -> bool: ...
    @property
    def inter(self) -> Inter: ...
    @property
    def inter_share(self) -> float: ...
    @property
    def teacher(self) -> Teacher: ...
    @property
    def ema(self) -> float: ...
    @property
    def learn_temperature(self) -> bool: ...
    @property
    def intra_temperature(self) -> float: ...
    @property
    def cross_temperature(self) -> float: ...
    @property
    def diagonal_temperature(self) -> float: ...


def alpha_of(config: Settings, epoch: int) -> float:
    """Share of the intra-modal targets in an epoch (from 0): a cosine from `alpha_first` to `alpha_last`.

    alpha(e) = last + (first - last) / 2 * (1 + cos(pi e / (E - 1))); 0.9 to 0.1 as published. A run of one epoch has
    `alpha_first`.
    """
    first, last = config.alpha_first, config.alpha_last
    part = epoch / max(config.epochs - 1, 1)
    return last + (first - last) / 2 * (1 + math.cos(math.pi * part))


def self_similarity(own: Tensor, beta: float, scale: Tensor | float) -> Tensor:
    """Intra-modal targets (B, B), rows of 1 in sum: P = beta softmax_j(t <o_i, o_j>) + (1 - beta) I (equations 4 to 6).

    own: (B, d) unit features of the teacher. The printed matrices have no tau; without one the cosines of unit
    features make the softmax all but uniform, so it is inside by default (`intra_temperature` 1 takes it out).
    """
    shares = torch.softmax(scale * cosines(own, own), dim=1)
    return beta * shares + (1 - beta) * torch.eye(len(own), device=own.device)


def cross_consistency(
    own: Tensor, other: Tensor, cross: Tensor | float, diagonal: Tensor | float, inter: Inter = "pairs"
) -> Tensor:
    """Inter-modal targets (B, B) of rows `own` among columns `other`, rows summing to 1 (equations 7 to 10).

    pairs:   Q_ij = softmax_j(t_cross <x_i, o_j> + t_diag <o_i, x_i> + t_diag <o_j, x_j>), o own and x other. As
             printed the second and third matrix do not fit (S^T V is d x d): I_B is read as a mask, which leaves the
             cosine of each clip's own pair, as in Morgado et al., CVPR 2021. The row's term cancels in the softmax;
             the column's prefers clips whose own pair agrees.
    swapped: without the column's term: swapped prediction.
    sums:    the products unmasked: the row's term is its row's whole sum, which cancels as well, and the column's
             the whole sum of its column.
    own, other: (B, d) unit features of the teacher.
    """
    found = cosines(other, own)  # (B, B), row i: what the other modality of clip i finds among own
    logits = cross * found
    if inter == "pairs":
        pair = diagonal * found.diagonal()
        logits = logits + pair[:, None] + pair[None, :]
    elif inter == "sums":
        every = diagonal * found.sum(dim=0)
        logits = logits + every[:, None] + every[None, :]
    return torch.softmax(logits, dim=1)


def soft_cross_entropy(target: Tensor, logits: Tensor, rows: slice) -> Tensor:
    """H_R = -1/|R| sum_{i in R} sum_j target_ij log softmax(logits_i)_j of some rows; 0 where there are none."""
    target, logits = target[rows], logits[rows]
    if not len(target):
        return logits.sum() * 0.0
    return -(target * torch.log_softmax(logits, dim=1)).sum(dim=1).mean()


def divided(batch: int, alpha: float, partition: bool = True) -> tuple[slice, slice]:
    """The rows of a shuffled batch that take intra-modal targets, the first floor(alpha B), and those of the others.

    partition False: both take all rows.
    """
    if not partition:
        return slice(0, batch), slice(0, batch)
    first = math.floor(alpha * batch + EPS)
    return slice(0, first), slice(first, batch)


@dataclass
class Views:
    """What encoders say of a batch: skeleton (B, d) and knowledge name -> (B, d), unit rows; t the learned scale."""

    skeleton: Tensor
    knowledge: dict[str, Tensor]
    scale: Tensor

    def gathered(self) -> Views:
        """The rows of all processes, in order of rank."""
        return Views(gather(self.skeleton), {name: gather(rows) for name, rows in self.knowledge.items()}, self.scale)

    def detached(self) -> Views:
        """The same without gradients."""
        knowledge = {name: rows.detach() for name, rows in self.knowledge.items()}
        return Views(self.skeleton.detach(), knowledge, self.scale.detach())


class Encoders(nn.Module):
    """Backbone and one linear projection a modality into the shared space; what is kept is the backbone.

    widths: name of a kind of knowledge -> its D. The pooled feature (N, F) before the projection is what serves later.
    """

    def __init__(self, backbone: nn.Module, widths: Mapping[str, int], dim: int, learn_temperature: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.project = nn.Linear(int(backbone.width), dim)  # type: ignore[arg-type]
        self.knowledge = nn.ModuleDict({name: nn.Linear(width, dim) for name, width in widths.items()})
        self.temperature = Temperature()
        self.temperature.requires_grad_(learn_temperature)

    def forward(self, x: Tensor, knowledge: Mapping[str, Tensor]) -> Views:
        """Windows (N, C, T, V, M) and knowledge features (N, D) to unit features (N, d)."""
        skeleton = _unit(self.project(self.backbone(x).mean(dim=(1, 3, 4))))
        said = {name: _unit(project(knowledge[name])) for name, project in self.knowledge.items()}
        return Views(skeleton, said, self.temperature())


def _unit(features: Tensor) -> Tensor:
    return nn.functional.normalize(features.float(), dim=1)


@dataclass
class Losses:
    """The loss to descend, its parts for the log, and the share of skeletons that find their own knowledge first."""

    total: Tensor
    parts: dict[str, Tensor]
    found: Tensor


class C2VL(nn.Module):
    """The objective around the encoders: L = sum over kinds of knowledge K of L^{sk}, with

        L^{sk} = a [H_A(P^{s2k}, t S K^T) + H_A(P^{k2s}, t K S^T)]
                 + (1 - a) [H_B(Q^{s2k}, t S K^T) + H_B(Q^{k2s}, t K S^T)]

    A the first floor(a B) rows of the batch, B the others, columns always all; P and Q of the teacher, without
    gradients. With beta 0 and alpha 1 throughout this is InfoNCE (equation 1), both ways.

    Teacher (progressive self-distillation): a copy of encoders, projections and temperature, in eval mode, that sees
    the same views. previous: taken at the end of the epoch before (at first the initial weights), how "updated at each
    epoch" is read; ema: moved by 1 - `ema` towards the encoders after each step; self: the encoders' own features.
    """  # fmt: skip

    def __init__(self, encoders: Encoders, config: Settings) -> None:
        super().__init__()
        self.encoders, self.config = encoders, config
        self.teacher = None if config.teacher == "self" else copy.deepcopy(encoders).requires_grad_(False)
        self.alpha = alpha_of(config, 0)

    def train(self, mode: bool = True) -> C2VL:
        """The teacher stays in eval mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def begin(self, epoch: int) -> None:
        """Sets an epoch's alpha and renews a teacher that is the previous epoch's; the same on all processes."""
        self.alpha = alpha_of(self.config, epoch)
        if self.teacher is not None and self.config.teacher == "previous":
            self.teacher.load_state_dict(self.encoders.state_dict())
        if self.teacher is not None:
            agree(self.teacher)

    @torch.no_grad()
    def stepped(self) -> None:
        """After a step of the optimiser: moves a teacher that is a moving average."""
        if self.teacher is None or self.config.teacher != "ema":
            return
        for mean, value in zip(self.teacher.state_dict().values(), self.encoders.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - self.config.ema)
            else:
                mean.copy_(value)

    def forward(self, x: Tensor, knowledge: dict[str, Tensor]) -> Losses:
        student = self.encoders(x, knowledge).gathered()
        teacher = self._taught(x, knowledge, student)
        with torch.autocast(x.device.type, enabled=False):
            parts = {name: self._pair(student, teacher, name) for name in student.knowledge}
        total = torch.stack(list(parts.values())).sum()
        own = torch.arange(len(student.skeleton), device=x.device)
        hits = [cosines(student.skeleton, rows).argmax(dim=1) == own for rows in student.knowledge.values()]
        return Losses(total, parts, torch.stack(hits).float().mean())

    @torch.no_grad()
    def _taught(self, x: Tensor, knowledge: dict[str, Tensor], student: Views) -> Views:
        """What the targets are made of; nothing needs it where all targets are one-hot."""
        if self.teacher is None or (self.config.beta == 0 and self.alpha == 1):
            return student.detached()
        return self.teacher(x, knowledge).gathered()

    def _pair(self, student: Views, teacher: Views, name: str) -> Tensor:
        """L^{sk} of one kind of knowledge."""
        config, size = self.config, len(student.skeleton)
        rows = divided(size, self.alpha, config.partition)
        logits = student.scale * cosines(student.skeleton, student.knowledge[name])  # rows skeletons
        total = torch.zeros((), device=logits.device)
        for own, other, found in (
            (teacher.skeleton, teacher.knowledge[name], logits),
            (teacher.knowledge[name], teacher.skeleton, logits.T),
        ):
            intra = self_similarity(own, config.beta, _scale(config.intra_temperature, teacher))
            cross, diagonal = (_scale(one, teacher) for one in (config.cross_temperature, config.diagonal_temperature))
            inter = cross_consistency(own, other, cross, diagonal, config.inter)
            inter = config.inter_share * inter + (1 - config.inter_share) * torch.eye(size, device=inter.device)
            total = total + self.alpha * soft_cross_entropy(intra, found, rows[0])
            total = total + (1 - self.alpha) * soft_cross_entropy(inter, found, rows[1])
        return total


def _scale(temperature: float, teacher: Views) -> Tensor | float:
    """The inverse of a temperature that was set, or the teacher's own where it is 0."""
    return 1 / temperature if temperature else teacher.scale
