"""The text side of training: each class's texts as unit features, fixed (PCKE, GAP) or with learned context (PCLE).

Both give features (K, S, D): S texts a class, with a mask (K, S) where classes have different numbers of them.
K classes, D text width, w word width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from train.text import TextEncoder


class FixedTexts(nn.Module):
    """Texts whose features are computed once: PCKE's synonyms and sentences, GAP's descriptions."""

    features: Tensor
    mask: Tensor

    def __init__(self, encoder: TextEncoder, texts: Sequence[Sequence[str]]) -> None:
        super().__init__()
        most = max(len(of_class) for of_class in texts)
        features = torch.zeros(len(texts), most, encoder.width)
        mask = torch.zeros(len(texts), most, dtype=torch.bool)
        for k, of_class in enumerate(texts):
            features[k, : len(of_class)] = nn.functional.normalize(encoder.encode(list(of_class)).float(), dim=1)
            mask[k, : len(of_class)] = True
        self.register_buffer("features", features)
        self.register_buffer("mask", mask)

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.features, self.mask


class LearnedTexts(nn.Module):
    """PCLE: the words around the class name are learned vectors (CoOp, Zhou et al., IJCV 2022).

    contexts: vectors a prompt. per_class: each class has its own (else all share). parallel: prompts a class, S.
    tune: last blocks of the text tower that learn as well; 0 keeps it frozen (it is then no part of the module).
    refresh: the tower runs, and the contexts learn, in every `refresh`-th training step; between them its last
    features are used as they are. 1 is the method; more saves time where classes are many and the device is small.
    start: words that the first vectors are set near to, as many as there are; the others are small noise.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        names: Sequence[str],
        contexts: int = 16,
        per_class: bool = False,
        parallel: int = 1,
        position: str = "end",
        tune: int = 0,
        refresh: int = 1,
        start: str = "",
    ) -> None:
        super().__init__()
        rows = len(names) if per_class else 1
        context = 0.02 * torch.randn(parallel, rows, contexts, encoder.word_width)
        if start:
            words = encoder.word_vectors(start)[:contexts].cpu()
            context[:, :, : len(words)] += words  # the noise stays: parallel prompts must differ
        self.context = nn.Parameter(context)
        self.slots = encoder.slots(list(names), contexts, position)  # type: ignore[arg-type]
        self.refresh = refresh
        if tune:
            encoder.tune(tune)
            self.encoder = encoder
        self._tower = [encoder]  # in a list, a frozen tower is neither saved, averaged nor moved with the module
        self._step, self._last = 0, torch.empty(0)

    def forward(self) -> tuple[Tensor, Tensor]:
        if self.training and torch.is_grad_enabled():
            self._step += 1
            if (self._step - 1) % self.refresh and len(self._last):
                return self._last, torch.ones(self._last.shape[:2], dtype=torch.bool, device=self._last.device)
        tower = getattr(self, "encoder", self._tower[0])
        parts = [tower(self.slots, context if len(context) > 1 else context[0]) for context in self.context]
        features = nn.functional.normalize(torch.stack(parts, dim=1).float(), dim=2)  # (K, S, D)
        if self.training:
            self._last = features.detach()
        return features, torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)

    def between(self) -> dict[str, Tensor]:
        """What lies between two refreshes, for a checkpoint."""
        return {"step": torch.tensor(self._step), "last": self._last}

    def resume(self, tensors: dict[str, Tensor]) -> None:
        """Takes up where `between` was saved."""
        self._step, self._last = int(tensors["step"]), tensors["last"].to(self.context.device)


def class_text(features: Tensor, mask: Tensor) -> Tensor:
    """One unit feature a class (K, D): the normalised mean of its texts' (K, S, D), where mask (K, S) is true."""
    share = mask.to(features.dtype)[..., None]
    return nn.functional.normalize((features * share).sum(dim=1) / share.sum(dim=1), dim=1)


def draw_texts(features: Tensor, mask: Tensor, label: Tensor, count: int) -> Tensor:
    """`count` texts of each label (N,), drawn evenly from its class's, with repeats: (count * N, D), draw by draw.

    Where classes have one text each there is nothing to draw: (N, D).
    """
    if features.shape[1] == 1:
        return features[label, 0]
    chance = mask[label].float()
    chosen = torch.multinomial(chance, count, replacement=True)  # (N, count)
    return features[label[:, None], chosen].transpose(0, 1).flatten(0, 1)
