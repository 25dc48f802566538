"""The door of transformers: a language model that runs in this process, from weights that are on this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from realtime.errors import UsageError
from train.prompts.engine import TEMPERATURE
from train.prompts.questions import AnswerError

NEW_TOKENS = 1024  # of an answer


class LocalModel:
    """A causal language model of transformers, as a knowledge engine.

    model: a folder of weights, or the id of some in the cache of transformers; nothing is downloaded, and no code that
    comes with weights is run. The same question gets the same answer. UsageError with what to fetch where something is
    missing.
    """

    def __init__(self, model: str, temperature: float = TEMPERATURE, new_tokens: int = NEW_TOKENS) -> None:
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise UsageError(
                f"a model in this process needs transformers ({error}); install it (pip install transformers), "
                "or ask a server with --endpoint"
            ) from error
        local = Path(model).expanduser()
        if not local.is_dir() and (local.is_absolute() or model.startswith((".", "~"))):
            raise UsageError(f"{model} is not a folder; give the one that holds config.json and *.safetensors")
        where = str(local) if local.is_dir() else model
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(where, local_files_only=True)
            network = AutoModelForCausalLM.from_pretrained(where, local_files_only=True, use_safetensors=True)
        except (OSError, ValueError, KeyError) as error:
            why = " ".join(str(error).split())[:200]
            raise UsageError(
                f"the language model {model} is not on this machine, or not whole ({why}); fetch it with "
                f"`hf download {model}`, or name a folder with config.json, tokenizer.json and *.safetensors"
            ) from error
        self.name = model
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = network.to(self._device).eval()
        self._temperature, self._new_tokens = temperature, new_tokens

    @torch.inference_mode()
    def ask(self, prompt: str) -> str:
        """The model's answer, through its chat template where it has one; AnswerError where it is empty or cut."""
        text = prompt
        if self._tokenizer.chat_template:
            turns = [{"role": "user", "content": prompt}]
            text = self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        # A template writes the special tokens itself.
        tokens = self._tokenizer(text, return_tensors="pt", add_special_tokens=not self._tokenizer.chat_template)
        ids, mask = tokens["input_ids"].to(self._device), tokens["attention_mask"].to(self._device)  # (1, L)
        end = self._tokenizer.eos_token_id
        pad = self._tokenizer.pad_token_id
        seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "little")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            said = self._network.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=self._temperature > 0,
                temperature=self._temperature if self._temperature > 0 else None,
                max_new_tokens=self._new_tokens,
                pad_token_id=end if pad is None else pad,
            )
        new = said[0, ids.shape[1] :]
        if len(new) >= self._new_tokens:
            raise AnswerError("it was too long")
        answer = str(self._tokenizer.decode(new, skip_special_tokens=True))
        if not answer.strip():
            raise AnswerError("it was empty")
        return answer
