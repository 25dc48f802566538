"""The interaction of skeleton and class texts as it is deployed: whatever depends on texts alone is a constant.

Gates, the norms' gains and the places of the tokens lie in weights and biases. N skeletons, L tokens, K classes, D
width, H heads, d = D / H.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from export.fold_parts import unit
from train.compose import Trained
from train.interaction import Attention, Bridger, CrossModalityAttention, FeedForward


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer of these weights (D', D)."""
    made = nn.Linear(weight.shape[1], weight.shape[0])
    made.weight.data, made.bias.data = weight.detach().clone(), bias.detach().clone()
    return made


def after_norm(norm: nn.LayerNorm, layer: nn.Linear) -> nn.Linear:
    """The layer that takes what the norm gives without its gain and offset."""
    return linear(layer.weight * norm.weight, layer.bias + layer.weight @ norm.bias)


def gated(layer: nn.Linear, gate: Tensor) -> nn.Linear:
    """The layer times a gate per output."""
    return linear(layer.weight * gate[:, None], layer.bias * gate)


def plain_norm(x: Tensor) -> Tensor:
    """Layer norm without gain and offset."""
    return layer_norm(x, x.shape[-1:])


def heads_apart(x: Tensor, heads: int) -> Tensor:
    """(L, D) to (H, L, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


class TextsRead(nn.Module):
    """Attention of normed queries (N, L, D) on class texts, whose keys and values are constants, times its gate."""

    keys: Tensor
    values: Tensor

    def __init__(self, attention: Attention, norm: nn.LayerNorm, texts: Tensor, gate: Tensor) -> None:
        super().__init__()
        keys, values = (heads_apart(x, attention.heads) for x in attention.key_value(texts).chunk(2, dim=-1))
        self.heads = attention.heads
        self.query = after_norm(norm, attention.query)
        self.out = gated(attention.out, gate)
        self.register_buffer("keys", keys.mT / math.sqrt(keys.shape[2]))  # (H, d, K)
        self.register_buffer("values", values.contiguous())  # (H, K, d)

    def forward(self, normed: Tensor) -> Tensor:
        length, width = normed.shape[1:]
        query = self.query(normed).reshape(-1, length, self.heads, width // self.heads).transpose(1, 2)
        mixed = torch.softmax(query @ self.keys, dim=3) @ self.values  # (N, H, L, d)
        return self.out(mixed.transpose(1, 2).reshape(-1, length, width))


class TokensRead(nn.Module):
    """Attention of the class texts, whose queries are constants, on normed tokens (N, L, D), added to the texts."""

    queries: Tensor
    texts: Tensor

    def __init__(self, attention: CrossModalityAttention, texts: Tensor, normed: Tensor) -> None:
        super().__init__()
        inner = attention.to_tokens
        queries = heads_apart(inner.query(normed), inner.heads)
        self.heads = inner.heads
        self.register_buffer("queries", queries / math.sqrt(queries.shape[2]))  # (H, K, d)
        self.register_buffer("texts", texts.clone())
        self.key_value = after_norm(attention.token_norm, inner.key_value)
        self.out = gated(inner.out, attention.text_gate)

    def forward(self, normed: Tensor) -> Tensor:  # (N, K, D)
        length, width = normed.shape[1:]
        both = self.key_value(normed).reshape(-1, length, 2, self.heads, width // self.heads)
        keys, values = both.permute(2, 0, 3, 1, 4).unbind(0)  # (N, H, L, d) each
        mixed = torch.softmax(self.queries @ keys.mT, dim=3) @ values  # (N, H, K, d)
        return self.texts + self.out(mixed.transpose(1, 2).reshape(-1, len(self.texts), width))


def inner_layers(norm: nn.LayerNorm, inner: FeedForward, gate: Tensor) -> nn.Sequential:
    """A feed-forward branch with its norm's gain and its gate folded in."""
    first, _, _, last = inner
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    return nn.Sequential(after_norm(norm, first), nn.GELU(), gated(last, gate))


class FoldedBridger(nn.Module):
    """Skeleton tokens (N, L, D) that read the class texts: R (N, L, D) and its pooled r (N, D)."""

    pool: Tensor

    def __init__(self, trained: Bridger, text: Tensor) -> None:
        super().__init__()
        self.read = TextsRead(trained.attention, trained.token_norm, trained.text_norm(text), trained.attention_gate)
        self.inner = inner_layers(trained.inner_norm, trained.inner, trained.inner_gate)
        self.register_buffer("pool", trained.pool.detach().clone())

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        aware = tokens + self.read(plain_norm(tokens))
        aware = aware + self.inner(plain_norm(aware))
        share = torch.softmax(aware @ self.pool, dim=1)  # (N, L)
        return aware, (share.unsqueeze(1) @ aware).squeeze(1)


class Fused(nn.Module):
    """Tokens (N, F, L) of the feature map to logits (N, K) after the interaction: inference mode M2."""

    weight: Tensor
    bias: Tensor

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        interaction, project, text = trained.interaction, trained.network.project, trained.text
        assert interaction is not None and project is not None and text is not None
        attention = interaction.attention
        normed = attention.text_norm(text)
        self.register_buffer("weight", project.weight.detach().T.contiguous())  # (F, D)
        self.register_buffer("bias", (interaction.place + project.bias).detach())  # (L, D)
        self.bridger = FoldedBridger(interaction.bridger, text)
        self.read = TextsRead(attention.to_text, attention.feature_norm, normed, attention.skeleton_gate)
        self.inner = inner_layers(attention.feature_norm, attention.inner, attention.inner_gate)
        self.reads_back = TokensRead(attention, text, normed)
        self.scale = trained.fused_scale

    def forward(self, tokens: Tensor) -> Tensor:
        aware, feature = self.bridger(tokens.mT @ self.weight + self.bias)
        normed = plain_norm(feature).unsqueeze(1)  # (N, 1, D)
        skeleton = feature.unsqueeze(1) + self.read(normed) + self.inner(normed)
        texts = self.reads_back(plain_norm(aware))  # (N, K, D)
        cosines = unit(texts) @ unit(skeleton).mT  # (N, K, 1)
        return self.scale * cosines.squeeze(2)
