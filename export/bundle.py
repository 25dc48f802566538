"""Makes a bundle for the device from trained runs: python -m export.bundle --help."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from torch import nn

from export.graph import to_onnx
from export.wrapper import Mean, Shifted, deployed
from realtime.backends import open_engine
from realtime.bundle import load_bundle, write_bundle
from realtime.command import run_command
from realtime.errors import BundleError, UsageError
from realtime.features import NORMALISATION, features
from realtime.resample import offline_windows
from realtime.skeleton import CORE_16, LAYOUTS, convert
from train.checkpoint import load
from train.compose import load_network
from train.data.files import text_of
from train.synthesis import synthetic_recordings
from train.vocabulary import ACTIONS, NOTHING

REFERENCE_WINDOWS = 8
TEXT_FILE = "class_text.npz"  # text (K, D) at unit length, classes (K,): what embeddings are compared with
EXAMPLES = """examples:
  python -m export.bundle runs/first --out bundles/first
  python -m export.bundle runs/a runs/b --name pooled-2 --card card.md --out bundles/pooled-2
"""


@dataclass(frozen=True)
class Config:
    """Make a bundle: the folder that the runtime takes (model.onnx, bundle.json, reference.npz, MODEL_CARD.md).

    Several runs of the same shape become one model that averages their logits.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders of train.fit."""
    out: Path
    """The bundle's folder."""
    name: str = "pooled"
    """The bundle's name."""
    card: Path | None = None
    """Model card in Markdown; a bare one is written where not given."""
    on: float = 0.5
    """Smoothed probability at which an action starts."""
    off: float = 0.3
    """Smoothed probability below which it ends."""
    min_on_s: float = 0.3
    """How long it must lead before it starts."""
    min_off_s: float = 0.4
    """How long it must be below `off` before it ends."""
    stride: int = 4
    """Rows between two windows."""
    smoothing_s: float = 0.3
    """Time constant of the decoder's exponential mean."""
    onset_shift_s: float = 0.0
    """How much later than an action its probability rises; onsets are back-dated by this."""
    offset_shift_s: float = 0.0
    """How much later than an action its probability falls; offsets are back-dated by this."""
    head: Literal["skeleton", "text", "both", "fused"] = "skeleton"
    """What answers: the classifier, the nearness to the classes' texts, the mean of both, or the interaction of both
    (all but the first for runs with texts only)."""
    nothing_shift: float = 0.0
    """Lowers the logit of "nothing" by this, since training draws it far more often than any one action."""
    temperature: float = 1.0
    """Divides the logits before the softmax."""
    replace: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace an existing bundle."""


@dataclass(frozen=True)
class Loaded:
    """What a bundle is made of: the network, the runs' common `model` entry, each run's config, class texts (K, D).

    The texts of several runs stand side by side as their embeddings do, at unit length.
    """

    network: nn.Module
    model: dict[str, Any]
    configs: list[dict[str, Any]]
    text: np.ndarray | None


def load_runs(runs: tuple[Path, ...], head: str = "skeleton") -> Loaded:
    """The network of one run, or the mean of several."""
    if not runs:
        raise UsageError(
            "no run was named; give run folders of train.fit: python -m export.bundle runs/first --out DIR"
        )
    loaded = [load_network(run / "last.safetensors" if run.is_dir() else run) for run in runs]
    models = [trained.content["model"] for trained in loaded]
    for key in ("layout", "channels", "classes", "streams", "window", "fps", "encoder"):
        if any(model[key] != models[0][key] for model in models):
            raise BundleError(
                f"runs {', '.join(map(str, runs))} differ in {key}; only runs of one input and vocabulary go together"
            )
    if models[0]["layout"] != CORE_16.name:
        raise BundleError(
            f"{runs[0]} was trained on {models[0]['layout']} by a published protocol; the runtime takes windows of "
            f"{CORE_16.name}: train with --data"
        )
    networks = [deployed(trained, head) for trained in loaded]
    texts = [trained.text for trained in loaded if trained.text is not None]
    text = nn.functional.normalize(torch.cat(texts, dim=1), dim=1).numpy() if texts else None
    network = networks[0] if len(networks) == 1 else Mean(networks)
    return Loaded(network.eval(), models[0], [trained.content["config"] for trained in loaded], text)


def unfinished(runs: tuple[Path, ...]) -> dict[Path, tuple[int, int]]:
    """Epochs done and wanted of the runs that have not come to their end."""
    found = {}
    for run in runs:
        _, content = load(run / "last.safetensors" if run.is_dir() else run)
        epochs = content["epochs_done"], content["config"]["epochs"]
        if epochs[0] < epochs[1]:
            found[run] = epochs
    return found


def reference(network: nn.Module, model: dict[str, Any]) -> bytes:
    """reference.npz: windows of generated people with the trained model's own answers."""
    layout, windows = LAYOUTS[model["layout"]], []
    for recording in synthetic_recordings(1, seed=20_000):
        joints, confidence = convert(recording.joints[:, 0], recording.confidence[:, 0], recording.layout, layout)
        windows.append(
            offline_windows(recording.times_ns, joints, confidence, layout, model["window"], model["fps"], 20).joints
        )
    every = np.concatenate(windows)
    chosen = every[np.linspace(0, len(every) - 1, REFERENCE_WINDOWS).astype(int)]
    skeleton = features(chosen, np.ones(chosen.shape[:3], np.float32), tuple(model["streams"]))
    with torch.inference_mode():
        logits, embedding = (t.numpy() for t in network(torch.from_numpy(skeleton)))
    return array_bytes(skeleton=skeleton, logits=logits, embedding=embedding)


def array_bytes(**arrays: np.ndarray) -> bytes:
    """Arrays as the bytes of an .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def bundle_spec(config: Config, loaded: Loaded) -> dict[str, Any]:
    """The keys of bundle.json (see realtime.bundle)."""
    model, configs, text = loaded.model, loaded.configs, loaded.text
    trained = {k: configs[0][k] for k in ("method", "epochs", "draws", "batch", "held_out", "widths", "seed")}
    trained["backbone"], trained["head"] = model["backbone"], config.head
    trained["data"] = [entry.partition(":")[0] for entry in configs[0]["data"]]
    return {
        "name": config.name,
        "layout": model["layout"],
        "joints": list(LAYOUTS[model["layout"]].joints),
        "streams": model["streams"],
        "channels": model["channels"],
        "window": model["window"],
        "fps": model["fps"],
        "stride": config.stride,
        "normalisation": NORMALISATION,
        "actions": [
            {
                "id": action, "name": ACTIONS.get(action, action), "on": config.on, "off": config.off,
                "min_on_s": config.min_on_s, "min_off_s": config.min_off_s,
            }
            for action in model["classes"] if action != NOTHING
        ],
        "classes": model["classes"],
        "nothing": NOTHING,
        "temperature": config.temperature,
        "smoothing_s": config.smoothing_s,
        "onset_shift_s": config.onset_shift_s,
        "offset_shift_s": config.offset_shift_s,
        "text": None if text is None else {"encoder": model["encoder"], "width": text.shape[1], "file": TEXT_FILE},
        "training": {**trained, "networks": len(configs), "nothing_shift": config.nothing_shift},
    }  # fmt: skip


def make_bundle(config: Config) -> Path:
    """Exports, writes and proves the bundle; returns its folder."""
    card = text_of(config.card) if config.card else f"# {config.name}\n\nNo model card was given.\n"
    if config.out.exists() and not config.replace:
        raise UsageError(f"{config.out} exists; add --replace, or choose another --out")
    loaded = load_runs(config.runs, config.head)
    network, model = loaded.network, loaded.model
    if config.nothing_shift:
        classes = model["classes"]
        network = Shifted(network, classes.index(NOTHING), len(classes), config.nothing_shift)
    graph = to_onnx(network, (model["channels"], model["window"], len(LAYOUTS[model["layout"]])))
    files = {"model.onnx": graph, "reference.npz": reference(network, model), "MODEL_CARD.md": card.encode()}
    if loaded.text is not None:
        files[TEXT_FILE] = array_bytes(text=loaded.text, classes=np.array(model["classes"]))
    folder = write_bundle(config.out, bundle_spec(config, loaded), files, replace=config.replace)
    open_engine(load_bundle(folder))  # proves the graph against the trained model's own answers
    return folder


def run(config: Config, console: Console) -> int:
    """Makes the bundle and says so."""
    folder = make_bundle(config)
    for run, (done, whole) in unfinished(config.runs).items():
        console.print(f"note: {run} has {done} of its {whole} epochs; finish it with train.fit --resume")
    size = sum(file.stat().st_size for file in folder.iterdir())
    console.print(f"{folder}: {size / 1e6:.1f} MB, its graph gives the trained model's answers")
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "export.bundle", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
