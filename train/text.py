"""Text encoders: what a class is called, or how a body moves, as a vector; with room for learnt context vectors.

A prompt is [start][v1 .. vMc][class words][.][end]: CoOp (Zhou et al., IJCV 2022) learns the vectors v in place of
words, while the encoder stays as it is. K prompts, L tokens, Mc context vectors, w width of a word, D of a feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from realtime.errors import UsageError

SENTENCES = "all-MiniLM-L6-v2"  # works offline
CLIP = ("ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336")
ENCODERS = (SENTENCES, *CLIP)
BATCH = 64  # texts that `encode` takes at a time


@dataclass(frozen=True)
class Slots:
    """Tokenised prompts, as short as the longest of them allows.

    ids: (K, L) int64. mask: (K, L) bool, true where a real token or a context vector stands.
    context: (K, Mc) int64, the positions in L that context vectors take.
    """

    ids: Tensor
    mask: Tensor
    context: Tensor

    def to(self, device: torch.device | str) -> Slots:
        """The same on a device."""
        return Slots(self.ids.to(device), self.mask.to(device), self.context.to(device))


class Tower(Protocol):
    """What an encoder's network offers: tokens, their vectors, and the pass over vectors.

    length: tokens of the longest prompt. start, end, pad: token ids. blocks: the transformer's, in order.
    """

    width: int
    word_width: int
    length: int
    start: int
    end: int
    pad: int
    blocks: nn.ModuleList

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text, without start and end."""

    def words(self, ids: Tensor) -> Tensor:
        """Word vectors (..., w) of token ids."""

    def after(self) -> list[nn.Parameter]:
        """What is learnt after the last block: final norm, projection."""

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Words (K, L, w) and their mask (K, L) to features (K, D)."""


class TextEncoder(nn.Module):
    """A pre-trained encoder, frozen and without dropout; `tune` opens its last blocks.

    width: D. word_width: w.
    """

    def __init__(self, name: str, tower: Tower) -> None:
        super().__init__()
        self.name = name
        self.tower = tower
        self.width, self.word_width = tower.width, tower.word_width
        self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> TextEncoder:
        """Stays in eval mode whatever is asked: the encoder has no dropout, also while it is tuned."""
        return super().train(False)

    def tune(self, blocks: int) -> None:
        """Unfreezes the last `blocks` transformer blocks and what follows them, freezes the rest; 0 freezes all.

        UsageError for a number that the encoder does not have.
        """
        there = len(self.tower.blocks)
        if not 0 <= blocks <= there:
            raise UsageError(f"{self.name} has {there} blocks to tune, got {blocks}; choose 0 to {there}")
        self.requires_grad_(False)
        for block in self.tower.blocks[there - blocks :]:
            block.requires_grad_(True)
        for parameter in self.tower.after() if blocks else []:
            parameter.requires_grad_(True)

    def slots(self, texts: Sequence[str], contexts: int = 0, position: Literal["end", "middle"] = "end") -> Slots:
        """Prompts of class names, on the encoder's device.

        texts: K names. contexts: Mc. position: where the class words stand; "end" has the whole context before
        them, "middle" half before and half after. Without contexts a text is taken exactly as it is; with them it
        ends in a full stop. UsageError for no texts, and for one too long for the encoder.
        """
        if not texts or contexts < 0:
            raise UsageError(f"prompts need a text and 0 or more contexts, got {len(texts)} texts, {contexts} contexts")
        rows, places = [], []
        for text in texts:
            words = self.tower.tokens(text.rstrip(" .") if contexts else text)
            before = contexts // 2 if position == "middle" else contexts
            hole = [self.tower.pad]
            stop = self.tower.tokens(".") if contexts else []
            row = [self.tower.start, *hole * before, *words, *hole * (contexts - before), *stop, self.tower.end]
            if len(row) > self.tower.length:
                raise UsageError(
                    f"{self.name} takes {self.tower.length} tokens, contexts included, and this text needs {len(row)}; "
                    f"shorten it: {text!r}"
                )
            after = 1 + before + len(words)
            rows.append(row)
            places.append([*range(1, 1 + before), *range(after, after + contexts - before)])
        longest = max(map(len, rows))
        ids = [row + [self.tower.pad] * (longest - len(row)) for row in rows]
        mask = [[True] * len(row) + [False] * (longest - len(row)) for row in rows]
        device = next(self.parameters()).device
        context = torch.tensor(places, dtype=torch.int64, device=device).reshape(len(rows), contexts)
        return Slots(torch.tensor(ids, device=device), torch.tensor(mask, device=device), context)

    def word_vectors(self, text: str) -> Tensor:
        """The encoder's own vectors (n, w) of a text's tokens: a context to start from."""
        ids = torch.tensor(self.tower.tokens(text), dtype=torch.int64, device=next(self.parameters()).device)
        return self.tower.words(ids).detach()

    def forward(self, slots: Slots, context: Tensor | None = None) -> Tensor:
        """Features (K, D), not of unit length, differentiable in the context.

        context: (Mc, w), the same for all prompts, or (K, Mc, w); needed where the slots have room for it.
        """
        words = self.tower.words(slots.ids)  # (K, L, w)
        k, count = slots.context.shape
        if count != (0 if context is None else context.shape[-2]):
            raise ValueError(f"context must have {count} vectors, got {None if context is None else context.shape}")
        if context is not None:
            places = slots.context.unsqueeze(-1).expand(-1, -1, self.word_width)
            vectors = context.to(words.dtype).expand(k, -1, -1)
            words = words.scatter(1, places, vectors)
        return self.tower.forward(words, slots.mask)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Features (N, D) of texts as they are, not of unit length, without gradients."""
        parts = [self(self.slots(texts[i : i + BATCH])) for i in range(0, len(texts), BATCH)]
        return torch.cat(parts)


def open_encoder(name: str, weights: Path | None = None) -> TextEncoder:
    """A pre-trained encoder by its name, frozen.

    weights: for all-MiniLM-L6-v2 a folder with its files, by default those of the installed package; for CLIP a
    .safetensors file in open_clip's form, fetched where none is named. Widths D and w: 384 and 384 for MiniLM, 512
    and 512 for ViT-B, 768 and 768 for ViT-L.
    UsageError with what to install, fetch or give where the name or the weights are not there.
    """
    if name not in ENCODERS:
        raise UsageError(f"no text encoder is called {name}; choose one of {', '.join(ENCODERS)}")
    # Here, not at the top: training without texts needs none of these libraries, and open_clip loads for seconds.
    try:
        if name == SENTENCES:
            from train import text_minilm

            return TextEncoder(name, text_minilm.load(weights))
        from train import text_clip

        return TextEncoder(name, text_clip.load(name, weights))
    except ModuleNotFoundError as error:
        raise UsageError(f"{name} needs the package {error.name}; run: pip install -e '.[text]'") from error
