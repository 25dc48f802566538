"""Trained runs as the exporter takes them: what is deployed, and beside it the untouched network that it must equal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from export.fold import FAST
from export.wrapper import Mean, Shifted, deployed
from realtime.errors import BundleError, UsageError
from realtime.skeleton import LAYOUTS
from train.checkpoint import load
from train.compose import Trained, load_network
from train.sources import parse_held_out, parse_sources
from train.vocabulary import NOTHING

COMMON = ("layout", "channels", "bodies", "classes", "streams", "window", "fps", "encoder")  # of runs that go together


class Answer(nn.Module):
    """A checkpoint's own answers by one head, nothing folded: windows to logits (N, K) and unit embedding (N, D).

    Takes (N, C, T, V, M), or (N, C, T, V) of one person; a network of two bodies sees the second as absent then.
    """

    def __init__(self, trained: Trained, head: str) -> None:
        super().__init__()
        self.network, self.interaction, self.head = trained.network, trained.interaction, head
        self.bodies = trained.content["model"]["bodies"]
        self.text, self.text_scale, self.fused_scale = trained.text, trained.text_scale, trained.fused_scale

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.ndim == 4:
            x = nn.functional.pad(x.unsqueeze(-1), (0, self.bodies - 1))  # (N, C, T, V, M)
        feature_map = self.network.feature_map(x)  # (N, F, T', V)
        logits, embedding = self.network.heads(feature_map.mean(dim=(2, 3)))
        if self.head == "skeleton" or self.text is None:
            return logits, embedding
        if self.head == "fused":
            assert self.interaction is not None
            fused = self.interaction(feature_map, self.network.project, self.text)
            return self.fused_scale * fused, embedding
        texts = self.text_scale * embedding @ self.text.T
        return (texts if self.head == "text" else 0.5 * (logits + texts)), embedding


@dataclass(frozen=True)
class Loaded:
    """Runs of one input and vocabulary as one model.

    network: folded, what is exported. fast: the same with fewest multiplications, for fp32 on a CPU; None where no run
    has such a form. trained: unfolded, what both must equal. shape: of one window, (C, T, V), or (C, T, V, M) for two
    people. model: the runs' common `model` entry. configs: each run's settings; begun: data and
    held_out of the runs that they started from. text: class
    texts (K, D) at unit length, several runs' side by side as their embeddings are; None without.
    """

    network: nn.Module
    fast: nn.Module | None
    trained: nn.Module
    shape: tuple[int, ...]
    model: dict[str, Any]
    configs: list[dict[str, Any]]
    text: Tensor | None
    begun: Sequence[dict[str, Any]] = ()

    @property
    def seen(self) -> list[dict[str, Any]]:
        """Everything that has "data" and "held_out" of people whom these networks learned from."""
        return [*self.configs, *self.begun]


def file_of(run: Path) -> Path:
    """The checkpoint that a run folder, or the file itself, stands for."""
    return run / "last.safetensors" if run.is_dir() else run


def load_runs(
    runs: Sequence[Path], head: str = "skeleton", nothing_shift: float = 0.0, bodies: int | None = 1
) -> Loaded:
    """The network of one run, or the mean of several. bodies: people in a window; None for as many as in training.

    Raises BundleError where a run is missing, runs differ in their input or vocabulary, or lack what the head needs.
    """
    if not runs:
        raise UsageError(
            "no run was named; give run folders of train.fit: python -m export.bundle runs/first --out DIR"
        )
    loaded = [load_network(file_of(run)) for run in runs]
    model = loaded[0].content["model"]
    for key in COMMON:
        if any(trained.content["model"][key] != model[key] for trained in loaded):
            raise BundleError(
                f"runs {', '.join(map(str, runs))} differ in {key}; only runs of one input and vocabulary go together"
            )
    people = bodies or model["bodies"]
    has_fast = any(isinstance(trained.network.backbone, FAST) for trained in loaded)

    def one(networks: list[nn.Module]) -> nn.Module:
        network = networks[0] if len(networks) == 1 else Mean(networks)
        if nothing_shift:
            network = Shifted(network, model["classes"].index(NOTHING), len(model["classes"]), nothing_shift)
        return network.eval().requires_grad_(False)

    texts = [trained.text for trained in loaded if trained.text is not None]
    return Loaded(
        network=one([deployed(trained, head, people) for trained in loaded]),
        fast=one([deployed(trained, head, people, fast=True) for trained in loaded]) if has_fast else None,
        trained=one([Answer(trained, head) for trained in loaded]),
        shape=(model["channels"], model["window"], len(LAYOUTS[model["layout"]]), *([people] if people > 1 else [])),
        model=model,
        configs=[trained.content["config"] for trained in loaded],
        begun=[one for trained in loaded if (one := trained.content["model"].get("init"))],
        text=nn.functional.normalize(torch.cat(texts, dim=1), dim=1) if texts else None,
    )


def check_out(out: Path, replace: bool, marker: str) -> None:
    """UsageError where a folder could not be written in the end. marker: the file that makes it one of its kind."""
    if out.exists() and not replace:
        raise UsageError(f"{out} exists; add --replace, or choose another --out")
    if out.exists() and not (out / marker).is_file():
        raise UsageError(f"{out} holds no {marker} and will not be replaced; choose another --out")
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UsageError(
            f"{out} cannot be made, since {above} is no folder that you may write to; choose another --out"
        )


def check_data(data: Sequence[str], held_out: Sequence[str]) -> None:
    """UsageError where the data sets cannot be what gates are run on; nothing is read."""
    names = [source.name for source in parse_sources(data)]
    held = parse_held_out(held_out, names)
    for name in names:
        if name not in held:
            raise UsageError(f"no held-out subjects of {name} are named; add --held-out {name}:S1,S2")


def unfinished(runs: Sequence[Path]) -> dict[Path, tuple[int, int]]:
    """Epochs done and wanted of the runs that have not come to their end."""
    found = {}
    for run in runs:
        _, content = load(file_of(run))
        epochs = content["epochs_done"], content["config"]["epochs"]
        if epochs[0] < epochs[1]:
            found[run] = epochs
    return found
