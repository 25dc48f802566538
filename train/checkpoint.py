"""Run folders: a checkpoint is safetensors for numbers and JSON for the rest, written atomically, never a pickle."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from realtime.errors import BundleError, UsageError


def write_json(path: Path, content: Any) -> None:
    """Writes JSON as `write_text` does."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes so that a reader sees the old file or the new one, never half of one. UsageError where it cannot."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}); name a file in a folder that exists") from error


def read_json(path: Path) -> Any:
    """The content of a JSON file that `write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def check_writable(path: Path | None) -> None:
    """UsageError where `write_text` could not write there: to be asked before long work, not after it."""
    if path is None:
        return
    partial = path.with_name(path.name + ".partial")
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}); name a file in a folder that exists") from error


def make_folder(path: Path) -> None:
    """Makes a folder and those above it; UsageError where it cannot."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be a folder ({error.strerror}); choose another --out") from error


def save(path: Path, tensors: dict[str, Tensor], content: dict[str, Any]) -> None:
    """Writes `path`.safetensors, with `content` as JSON in its header, atomically; tensors of any device as CPU's."""
    target = path.with_suffix(".safetensors")
    partial = target.with_name(target.name + ".partial")
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(whole, partial, metadata={"content": json.dumps(content)})
    os.replace(partial, target)


def load(path: Path, program: str = "train.fit") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and content of a file that `save` wrote; BundleError where it is missing or broken."""
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            content = json.loads((file.metadata() or {})["content"])
        return load_file(path), content
    except FileNotFoundError:
        raise BundleError(f"no checkpoint at {path}; train one with: python -m {program} --out DIR") from None
    except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
        raise BundleError(f"{path} is not a whole checkpoint of {program} ({error})") from error


def optimiser_tensors(optimiser: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """Momentum buffers by parameter name, for `save`."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    return {
        f"momentum.{name}": optimiser.state[parameter]["momentum_buffer"]
        for name, parameter in zip(names, parameters, strict=True)
        if "momentum_buffer" in optimiser.state[parameter]
    }
