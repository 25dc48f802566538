"""The door of transformers for pictures: who is where (Grounding DINO), and what it does (LLaVA).

Models are folders on this machine or ids in the cache of transformers; nothing is downloaded, and no code that comes
with weights is run. H, W height and width of a picture, RGB uint8.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from realtime.errors import UsageError
from train.knowledge.frames import Box

PERSON = "person."  # Grounding DINO wants phrases that end in a full stop
BOX, TEXT = 0.35, 0.25  # thresholds, those of its own demonstrations: the paper gives none
QUESTION = (
    "Is he/she or are they holding anything in the hand? Is he/she or are they standing or sitting? "
    "What is he/she or are they trying to do? Answer the questions concisely"
)  # of C²VL (Chen et al., IEEE TMM), as published
NEW_TOKENS = 96
DETECTOR, ANSWERER = "IDEA-Research/grounding-dino-base", "llava-hf/llava-1.5-7b-hf"


class Detector:
    """People in a picture by Grounding DINO. UsageError with what to fetch where something is missing."""

    def __init__(self, model: str, device: torch.device) -> None:
        self.name = model
        self._device = device
        self._processor, self._network = _opened(
            model, "AutoModelForZeroShotObjectDetection", DETECTOR, device, torch.float32
        )

    @torch.inference_mode()
    def boxes(self, picture: np.ndarray) -> list[Box]:
        """Boxes in pixels, the surest first."""
        asked = self._processor(images=picture, text=PERSON, return_tensors="pt").to(self._device)
        found = self._processor.post_process_grounded_object_detection(
            self._network(**asked), asked["input_ids"], BOX, TEXT, target_sizes=[picture.shape[:2]]
        )[0]
        order = torch.argsort(found["scores"], descending=True, stable=True)
        return [tuple(float(x) for x in box) for box in found["boxes"][order].cpu()]  # type: ignore[misc]

    @property
    def network(self) -> torch.nn.Module:
        """For the hash of its weights."""
        return self._network


class Answerer:
    """Answers to the paper's question by LLaVA, greedily, so that the same picture gets the same sentence."""

    def __init__(self, model: str, device: torch.device, new_tokens: int = NEW_TOKENS) -> None:
        self.name = model
        self._device, self._new_tokens = device, new_tokens
        self._processor, self._network = _opened(model, "AutoModelForImageTextToText", ANSWERER, device, "auto")
        self._prompt = self._asked()

    def _asked(self) -> str:
        if self._processor.chat_template:
            turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}
            return str(self._processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False))
        return f"USER: <image>\n{QUESTION} ASSISTANT:"

    @torch.inference_mode()
    def answer(self, picture: np.ndarray) -> str:
        """What the model says of a picture (H, W, 3), on one line; "" where it says nothing."""
        asked = self._processor(images=picture, text=self._prompt, return_tensors="pt")
        asked = asked.to(self._device, self._network.dtype)  # ids stay numbers, pixels become the weights' kind
        said = self._network.generate(**asked, do_sample=False, max_new_tokens=self._new_tokens)
        words = self._processor.decode(said[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
        return " ".join(str(words).split())

    @property
    def network(self) -> torch.nn.Module:
        """For the hash of its weights."""
        return self._network


def _opened(model: str, kind: str, usual: str, device: torch.device, dtype: Any) -> tuple[Any, Any]:
    """Processor and network; UsageError with what to install or fetch. dtype: of its numbers, "auto" as stored."""
    try:
        import transformers
    except ImportError as error:
        raise UsageError(
            f"{model} runs through transformers, which is not here ({error}); run: pip install -e '.[engine]'"
        ) from error
    local = Path(model).expanduser()
    if not local.is_dir() and (local.is_absolute() or model.startswith((".", "~"))):
        raise UsageError(f"{model} is not a folder; give the one that holds config.json and *.safetensors")
    where = str(local) if local.is_dir() else model
    load: Callable[..., Any] = getattr(transformers, kind).from_pretrained
    try:
        processor = transformers.AutoProcessor.from_pretrained(where, local_files_only=True)
        network = load(where, local_files_only=True, use_safetensors=True, dtype=dtype)
    except (OSError, ValueError, KeyError, ImportError) as error:
        why = " ".join(str(error).split())[:200]
        raise UsageError(
            f"the model {model} is not on this machine, or not whole ({why}); fetch it with `hf download {model}` "
            f"(C²VL's is such as {usual}), or name a folder with config.json, the processor's files and *.safetensors"
        ) from error
    return processor, network.to(device).eval()
