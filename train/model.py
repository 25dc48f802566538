"""What a training run leaves for the device: backbone, classifier and the projection into the text space.

N windows, C channels, T frames, V joints, M bodies, F backbone width, K classes, D text width.
"""

from __future__ import annotations

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
