"""Where skeleton and language meet: the skeleton-language bridger and the cross-modality attention.

The project page of PCLE names both and what they are for; queries, keys, depth and gates are our reconstruction.
Keys and values are the texts of all K classes, never a sample's own alone: that would leak its label.
N skeletons, L tokens, K classes, D width, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

GATE = 1e-2  # residual branches start this small, so that scores before and after the interaction agree at first


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al., 2017) of queries (N, L, D) on keys that are one set for all or one each.

    Either side may lack the batch axis: (L, D) stands for the same rows in every sample.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is no multiple of {heads} heads")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, query: Tensor, source: Tensor) -> Tensor:
        q, (k, v) = self.query(query), self.key_value(source).chunk(2, dim=-1)
        if query.ndim == 3 and source.ndim == 2:  # all samples' queries are one long row: one product, not N
            mixed = self._mix(q.reshape(-1, q.shape[-1]), k, v).reshape(q.shape)
        else:
            q = q.expand(len(k), *q.shape[-2:])
            mixed = self._mix(q, k, v)
        return self.out(mixed)

    def _mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # (..., L, D), (..., K, D) twice -> (..., L, D)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(-3, -2) for x in (q, k, v))  # (..., H, L, D/H)
        return nn.functional.scaled_dot_product_attention(q, k, v).transpose(-3, -2).flatten(-2)


class FeedForward(nn.Sequential):
    """Two linear layers with a GELU between."""

    def __init__(self, width: int, ratio: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(width, ratio * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(ratio * width, width)
        )


class Bridger(nn.Module):
    """Skeleton tokens (N, L, D) that read all class texts (K, D), pooled to language-aware features.

    R = S + g1 * MHA(LN(S), LN(Tx));  R <- R + g2 * FFN(LN(R));  r = sum_l softmax_l(w . R_l) R_l
    Returns R (N, L, D) and r (N, D). At the start the gates g are small and w is zero: r is nearly the tokens' mean.
    """

    def __init__(self, width: int, heads: int = 8, ratio: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.token_norm, self.text_norm, self.inner_norm = (nn.LayerNorm(width) for _ in range(3))
        self.attention = Attention(width, heads)
        self.inner = FeedForward(width, ratio, dropout)
        self.attention_gate = nn.Parameter(torch.full((width,), GATE))
        self.inner_gate = nn.Parameter(torch.full((width,), GATE))
        self.pool = nn.Parameter(torch.zeros(width))

    def forward(self, tokens: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        aware = tokens + self.attention_gate * self.attention(self.token_norm(tokens), self.text_norm(text))
        aware = aware + self.inner_gate * self.inner(self.inner_norm(aware))
        share = torch.softmax(aware @ self.pool, dim=1)  # (N, L)
        return aware, (share[:, None] @ aware).squeeze(1)


class CrossModalityAttention(nn.Module):
    """Both sides look at each other, from the same inputs.

    h = r + gs * MHA(LN(r), LN(Tx)) + gf * FFN(LN(r));   U_n = Tx + gt * MHA(LN(Tx), LN(R_n))
    Takes R (N, L, D), r (N, D), Tx (K, D); returns h (N, D) and texts as this sample sees them U (N, K, D).
    """

    def __init__(self, width: int, heads: int = 8, ratio: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.token_norm, self.feature_norm, self.text_norm = (nn.LayerNorm(width) for _ in range(3))
        self.to_text, self.to_tokens = Attention(width, heads), Attention(width, heads)
        self.inner = FeedForward(width, ratio, dropout)
        self.skeleton_gate, self.inner_gate, self.text_gate = (
            nn.Parameter(torch.full((width,), GATE)) for _ in range(3)
        )

    def forward(self, aware: Tensor, feature: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        normed, texts = self.feature_norm(feature), self.text_norm(text)
        mixed = self.to_text(normed[:, None], texts).squeeze(1)
        skeleton = feature + self.skeleton_gate * mixed + self.inner_gate * self.inner(normed)
        return skeleton, text + self.text_gate * self.to_tokens(texts, self.token_norm(aware))


class Interaction(nn.Module):
    """From a feature map (N, F, T', V) and class texts (K, D) to the scores after interaction (N, K), cosines.

    Tokens are the map's T' temporal means (over joints) and V joint means (over time), brought to D by the same
    projection that the score before interaction uses, each with a learned embedding of its kind and place.
    """

    def __init__(self, frames: int, joints: int, width: int, heads: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(frames + joints, width))
        self.bridger = Bridger(width, heads, dropout=dropout)
        self.attention = CrossModalityAttention(width, heads, dropout=dropout)

    def forward(self, feature_map: Tensor, project: nn.Module, text: Tensor) -> Tensor:
        tokens = torch.cat([feature_map.mean(dim=3), feature_map.mean(dim=2)], dim=2).transpose(1, 2)  # (N, L, F)
        aware, feature = self.bridger(project(tokens) + self.place, text)
        skeleton, texts = self.attention(aware, feature, text)
        return nn.functional.cosine_similarity(skeleton.float()[:, None], texts.float(), dim=2)
