"""Sentences to one unit vector a clip: each different sentence is encoded once, in parts that outlive an interrupt."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from train.text import TextEncoder

PART = 512  # different sentences that are kept at a time
Aggregate = Literal["mean", "distinct", "medoid"]


def weights_sha256(model: nn.Module) -> str:
    """Hex digest of a network's weights and their names: which encoder made a feature."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fitted(encoder: TextEncoder, text: str) -> str:
    """The text, or as many of its first words as the encoder takes (CLIP takes 77 tokens)."""
    words, most = text.split(), encoder.tower.length - 2
    while len(words) > 1 and len(encoder.tower.tokens(" ".join(words))) > most:
        words.pop()
    short = " ".join(words)
    return text if short == " ".join(text.split()) else short


def aggregated(vectors: np.ndarray, how: Aggregate) -> np.ndarray:
    """Unit vectors (S, D) of a clip's sentences, in their order, to one (D,) float32.

    mean: their normalised mean, a sentence that comes twice counting twice. distinct: the same, each different one
    once. medoid: the sentence nearest to that mean. Vectors that cancel out give the first.
    """
    rows = vectors.astype(np.float64)
    if how == "distinct":
        rows = rows[np.sort(np.unique(rows, axis=0, return_index=True)[1])]
    total = rows.sum(axis=0)
    length = float(np.linalg.norm(total))
    if how == "medoid" or length < 1e-6:
        return vectors[int((rows @ total).argmax()) if length >= 1e-6 else 0].astype(np.float32)
    return np.asarray(total / length, np.float32)


def language_of(
    said: Sequence[Sequence[str]],
    encoder: TextEncoder,
    how: Aggregate,
    kept: Path,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Features (N, D) float32 of N clips' sentences, unit rows, zeros for a clip without; and what was done.

    kept: folder for the parts, made where it is not there; what lies there of the same sentences and encoder is not
    computed again. advance: told of different sentences as they are done. Interrupted and started again or not, the
    result is the same to the bit.
    """
    weights = weights_sha256(encoder)
    distinct = sorted({sentence for of_clip in said for sentence in of_clip})
    short = [fitted(encoder, sentence) for sentence in distinct]
    kept.mkdir(parents=True, exist_ok=True)
    parts = []
    for first in range(0, len(short), PART):
        texts = short[first : first + PART]
        parts.append(_part(texts, encoder, weights, kept))
        advance(len(texts))
    vectors = np.concatenate(parts) if parts else np.zeros((0, encoder.width), np.float32)
    place = {sentence: row for row, sentence in enumerate(distinct)}
    language = np.zeros((len(said), encoder.width), np.float32)
    for clip, of_clip in enumerate(said):
        if of_clip:
            language[clip] = aggregated(vectors[[place[sentence] for sentence in of_clip]], how)
    return language, {
        "encoder": encoder.name,
        "encoder_sha256": weights,
        "aggregate": how,
        "sentences": sum(map(len, said)),
        "distinct": len(distinct),
        "shortened": sum(a != b for a, b in zip(distinct, short, strict=True)),
    }


def _part(texts: Sequence[str], encoder: TextEncoder, weights: str, kept: Path) -> np.ndarray:
    """Unit vectors (n, D) of texts, from the kept file that was made of just these, or computed and kept."""
    key = hashlib.sha256("\n".join([encoder.name, weights, *texts]).encode()).hexdigest()[:32]
    path = kept / f"text-{key}.npy"
    if path.is_file():
        return np.asarray(np.load(path, allow_pickle=False))
    made = nn.functional.normalize(encoder.encode(texts).float(), dim=1).cpu().numpy()
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.save(file, made, allow_pickle=False)
    os.replace(partial, path)
    return np.asarray(made)
