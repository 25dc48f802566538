"""The towers of CLIP (Radford et al., ICML 2021) by open_clip: each alone, the other is never built.

The names mean OpenAI's weights, in open_clip's form as safetensors; a pickle is refused. A tower is causal and its
feature is taken at the end token, so prompts are cut after the longest without changing a result. K texts, L tokens,
w width of a word, D of a feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.transformer import QuickGELU, TextTransformer, VisionTransformer
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from realtime.errors import UsageError

FILE = "open_clip_model.safetensors"


class ClipText(nn.Module):
    """Words (K, L, w) and their mask (K, L) to the projected feature of the end token (K, D); a `train.text.Tower`."""

    pad = 0

    def __init__(self, text: TextTransformer) -> None:
        super().__init__()
        self.tokenizer = open_clip.SimpleTokenizer(context_length=text.context_length)
        self.start, self.end = self.tokenizer.sot_token_id, self.tokenizer.eot_token_id
        self.length: int = text.context_length
        self.word_width: int = text.width
        self.width: int = text.output_dim
        text.attn_mask.clamp_(min=-1e9)  # an average over training steps makes NaN of -inf
        self.text = text
        self.blocks: nn.ModuleList = text.transformer.resblocks

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text, without start and end."""
        return self.tokenizer.encode(text)

    def words(self, ids: Tensor) -> Tensor:
        """Word vectors (..., w) of token ids."""
        return self.text.token_embedding(ids)

    def after(self) -> list[nn.Parameter]:
        """The final norm and the projection."""
        return [*self.text.ln_final.parameters(), self.text.text_projection]

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        k, length, _ = words.shape
        x = words + self.text.positional_embedding[:length]
        x = self.text.transformer(x, attn_mask=self.text.attn_mask[:length, :length])
        x = x[torch.arange(k, device=x.device), mask.sum(dim=1) - 1]  # (K, w), at the end token
        return self.text.ln_final(x) @ self.text.text_projection


class ClipImage(nn.Module):
    """Pictures (H, W, 3) RGB uint8 to projected features (N, D), frozen.

    A picture is shortened to the tower's size on its shorter side (bicubic) and its middle is taken, as CLIP does.
    """

    def __init__(self, name: str, visual: nn.Module, size: int, width: int) -> None:
        super().__init__()
        self.name, self.size, self.width = name, size, width
        self.visual = visual.requires_grad_(False).eval()

    def prepared(self, picture: np.ndarray) -> Tensor:
        """One picture as the tower takes it, (3, size, size)."""
        x = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()  # (1, 3, H, W)
        scale = self.size / min(x.shape[2:])
        shape = [max(self.size, round(side * scale)) for side in x.shape[2:]]
        x = functional.interpolate(x, shape, mode="bicubic", antialias=True, align_corners=False)
        top, left = (shape[0] - self.size) // 2, (shape[1] - self.size) // 2
        x = x[0, :, top : top + self.size, left : left + self.size].clamp(0, 255).round() / 255
        mean, deviation = torch.tensor(OPENAI_DATASET_MEAN), torch.tensor(OPENAI_DATASET_STD)
        return (x - mean[:, None, None]) / deviation[:, None, None]

    @torch.no_grad()
    def encode(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """Features (N, D) of pictures, not of unit length."""
        device = next(self.parameters()).device
        return torch.as_tensor(self.visual(torch.stack([self.prepared(one) for one in pictures]).to(device)))


def load_image(name: str, weights: Path | None = None) -> ClipImage:
    """The image tower of a model that open_clip knows by this name; weights and errors as those of `load`."""
    shape = open_clip.get_model_config(name)
    if shape is None:
        raise UsageError(f"open_clip knows no model {name}; CLIP's are such as ViT-L-14-336")
    vision, width = open_clip.CLIPVisionCfg(**shape["vision_cfg"]), shape["embed_dim"]
    visual = VisionTransformer(
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        width=vision.width,
        layers=vision.layers,  # type: ignore[arg-type]
        heads=vision.width // vision.head_width,
        mlp_ratio=vision.mlp_ratio,
        output_dim=width,
        act_layer=QuickGELU,
    )
    tower = ClipImage(name, visual, int(vision.image_size), int(width))  # type: ignore[arg-type]
    _fill(visual, "visual.", name, weights, "image")
    return tower


def load(name: str, weights: Path | None = None) -> ClipText:
    """The text tower of a model that open_clip knows by this name, with OpenAI's activation.

    weights: a .safetensors file of the whole model in open_clip's form; fetched by open_clip where none is named.
    UsageError where the file is a pickle, broken or another model's, or where nothing can be fetched.
    """
    shape = open_clip.get_model_config(name)
    text = TextTransformer(**shape["text_cfg"], output_dim=shape["embed_dim"], act_layer=QuickGELU)
    _fill(text, "", name, weights, "text")
    return ClipText(text)


def _fill(tower: nn.Module, prefix: str, name: str, weights: Path | None, kind: str) -> None:
    """Loads a tower's weights, whose names in the file begin with the prefix; UsageError where it cannot."""
    path = _fetched(name, kind) if weights is None else weights
    if path.suffix != ".safetensors":
        raise UsageError(
            f"{path} is not a .safetensors file, and a pickle can run code as it is read; give {FILE} {_source(name)}"
        )
    try:
        with safe_open(path, "pt") as file:
            there = set(file.keys())
            own = {key: file.get_tensor(prefix + key) for key in tower.state_dict() if prefix + key in there}
        tower.load_state_dict(own)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UsageError(
            f"{path} does not hold the {kind} tower of {name} in open_clip's form ({str(error).splitlines()[0]}); "
            f"give {FILE} {_source(name)}"
        ) from error


def _source(name: str) -> str:
    """Where a person finds the weights of a model."""
    repository = (open_clip.get_pretrained_cfg(name, "openai") or {}).get("hf_hub", "").rstrip("/")
    return f"of the Hugging Face repository {repository}" if repository else f"of {name}"


def _fetched(name: str, kind: str) -> Path:
    """The weights from open_clip's own source or its cache; UsageError where they cannot be had."""
    repository = open_clip.get_pretrained_cfg(name, "openai")["hf_hub"].rstrip("/")
    try:
        return Path(open_clip.pretrained.download_pretrained_from_hf(repository, filename=FILE))
    except (OSError, RuntimeError, ValueError) as error:
        flag = "--vision-weights PATH"
        if kind == "text":
            flag = "--text-weights PATH, or choose the encoder all-MiniLM-L6-v2, which works offline"
        raise UsageError(
            f"the weights of {name} cannot be fetched here; fetch {FILE} {_source(name)} elsewhere "
            f"and give it with {flag}"
        ) from error
