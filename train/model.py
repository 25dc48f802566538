"""What a training run leaves for the device: backbone, classifier and the projection into the text space.

N windows, C channels, T frames, V joints, M bodies, F backbone width, K classes, D text width.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Recogniser(nn.Module):
    """Windows (N, C, T, V, M), or (N, C, T, V) of one body, to logits (N, K) and a unit embedding (N, D).

    The embedding lies in the text space where the network was trained with texts; it is the pooled feature itself
    (D = F) where it was not (text_width None).
    """

    def __init__(self, backbone: nn.Module, classes: int, text_width: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        width = int(backbone.width)  # type: ignore[arg-type]
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)
        self.project = nn.Linear(width, text_width) if text_width else None

    def feature_map(self, x: Tensor) -> Tensor:
        """The map (N, F, T', V) before pooling, the mean of the bodies' (an absent one's included, as in CTR-GCN)."""
        if x.ndim == 4:
            x = x.unsqueeze(-1)
        maps = self.backbone(x)  # (N, M, F, T', V)
        return maps.squeeze(1) if maps.shape[1] == 1 else maps.mean(dim=1)

    def heads(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K) and unit embedding (N, D) of pooled features (N, F)."""
        embedding = self.project(feature) if self.project is not None else feature
        return self.head(self.dropout(feature)), nn.functional.normalize(embedding.float(), dim=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.heads(self.feature_map(x).mean(dim=(2, 3)))


def first_body(backbone: nn.Module) -> nn.Module:
    """A copy of a backbone for M bodies that takes one: its input norm keeps the first body's share."""
    one = copy.deepcopy(backbone).eval()
    (name, norm), *_ = ((n, m) for n, m in one.named_modules() if isinstance(m, nn.BatchNorm1d))  # the input norm
    assert norm.running_mean is not None and norm.running_var is not None
    size = norm.num_features // 2
    kept = nn.BatchNorm1d(size, device=norm.weight.device).eval()
    with torch.no_grad():
        for own, whole in ((kept.weight, norm.weight), (kept.bias, norm.bias)):
            own.copy_(whole[:size])
        kept.running_mean, kept.running_var = norm.running_mean[:size].clone(), norm.running_var[:size].clone()
    one.set_submodule(name, kept)
    return one


class OneBody(nn.Module):
    """A two-body recogniser for windows (N, C, T, V, 1) of one person, at half the cost and with the same answer.

    Bodies do not touch each other before they are averaged, so in eval mode the absent second one always gives the
    same feature f0; it is computed once, and g = (g1 + f0) / 2.
    """

    absent: Tensor

    def __init__(self, network: Recogniser, channels: int, frames: int, joints: int) -> None:
        super().__init__()
        self.network = network.eval()
        self.backbone = first_body(network.backbone)
        with torch.no_grad():
            empty = torch.zeros(1, channels, frames, joints, 2, device=network.head.weight.device)
            nobody = network.backbone(empty)[:, 1]
        self.register_buffer("absent", nobody.mean(dim=(2, 3)))  # (1, F)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.ndim == 4:
            x = x.unsqueeze(-1)
        feature = self.backbone(x)[:, 0].mean(dim=(2, 3))
        return self.network.heads(0.5 * (feature + self.absent))


class TextHead(nn.Module):
    """Inference mode M1: the class whose text lies nearest to the skeleton, folded into one linear layer.

    <t_c, W g + b> / |W g + b| / tau has the same order of classes as (T W) g + T b, since the norm and tau are one
    positive number per window. Logits are the folded products; the embedding is unchanged.
    """

    def __init__(self, network: Recogniser, text: Tensor) -> None:
        super().__init__()
        if network.project is None:
            raise ValueError("a network that was trained without texts has no text head")
        self.network = network
        unit = nn.functional.normalize(text, dim=1)  # (K, D)
        self.head = nn.Linear(network.project.in_features, len(text), device=network.project.weight.device)
        with torch.no_grad():
            self.head.weight.copy_(unit @ network.project.weight)
            self.head.bias.copy_(unit @ network.project.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.network.feature_map(x).mean(dim=(2, 3))
        return self.head(feature), self.network.heads(feature)[1]
