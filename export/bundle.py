"""Makes a bundle for the device from trained runs: python -m export.bundle --help."""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import train  # noqa: F401  # isort: skip  # says what to install where torch is not there

import numpy as np
import torch
import tyro
from rich.console import Console
from torch import nn

from export.gates import gated, source_line, table
from export.graph import to_onnx
from export.parity import prove
from export.precision import FILES
from export.progress import Steps
from export.runs import Loaded, check_data, check_out, load_runs, unfinished
from export.windows import gather
from realtime.backends import open_engine
from realtime.bundle import Bundle, Reference, load_bundle, write_bundle
from realtime.command import run_command
from realtime.errors import BundleError, ParityError, UsageError
from realtime.features import PAIR_NORMALISATION, features, normalisation_of
from realtime.generator.beside import beside
from realtime.pairs import offline_pairs
from realtime.resample import offline_windows
from realtime.sidecar import contract_from
from realtime.skeleton import CORE_16, LAYOUTS, convert
from train.data.files import text_of
from train.sources import parse_held_out, spared
from train.synthesis import synthetic_recordings
from train.vocabulary import ACTIONS, DIRECTED, INTERACTIONS, NOTHING

REFERENCE_WINDOWS = 8
TEXT_FILE = "class_text.npz"  # text (K, D) at unit length, classes (K,): what embeddings are compared with
EXAMPLES = """examples:
  python -m export.bundle runs/first --out bundles/first
  python -m export.bundle runs/a runs/b --name pooled-2 --card card.md --out bundles/pooled-2
  python -m export.bundle runs/first --out bundles/first --precision fp32 int8 \\
      --data utkinect:DIR --held-out utkinect:6

exit codes: 0 done, 2 flags, 3 a run or graph refused, 7 a gate failed (nothing is written), 130 interrupted
python -m export.trt runs/first does the same in one go, and the engine where there is a GPU.
"""


@dataclass(frozen=True)
class Config:
    """Make a bundle: the folder that the runtime takes (model.onnx, bundle.json, reference.npz, MODEL_CARD.md).

    Several runs of the same shape become one model that averages their logits. The graph is proven to answer as the
    trained network does. Graphs of other precisions must pass a gate: on at least 1000 windows they must answer as
    fp32 does, fp16 in 99.9 %, int8 in 99 %; where one does not, nothing is written.
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
    precision: tuple[Literal["fp32", "fp16", "int8"], ...] = ("fp32",)
    """Graphs of the bundle; fp32 is always one of them."""
    data: tuple[str, ...] = ()
    """Real sets as NAME:DIR to calibrate int8 on and to compare on; generated people where not given."""
    held_out: tuple[str, ...] = ()
    """Subjects to compare on, as NAME:S1,S2; int8 is calibrated on the others. The run's own where not given."""
    allow_drop: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write graphs that failed their gate all the same; the bundle records it."""
    replace: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace an existing bundle."""


def reference(trained: nn.Module, model: dict[str, Any]) -> Reference:
    """Windows of generated people with the trained network's own answers, nothing folded."""
    layout, window, fps, windows = LAYOUTS[model["layout"]], model["window"], model["fps"], []
    streams = tuple(model["streams"])
    if normalisation_of(streams) == PAIR_NORMALISATION:
        windows = [offline_pairs(*two, layout, window, fps, 20).joints for two in beside(1, seed=20_000)]
    else:
        for recording in synthetic_recordings(1, seed=20_000):
            joints, confidence = convert(recording.joints[:, 0], recording.confidence[:, 0], recording.layout, layout)
            windows.append(offline_windows(recording.times_ns, joints, confidence, layout, window, fps, 20).joints)
    every = np.concatenate(windows)
    chosen = every[np.linspace(0, len(every) - 1, REFERENCE_WINDOWS).astype(int)]
    return answers(trained, features(chosen, np.ones(chosen.shape[:-1], np.float32), streams))


def answers(trained: nn.Module, skeleton: np.ndarray) -> Reference:
    """A network's answers to windows (n, C, T, V[, M])."""
    with torch.inference_mode():
        logits, embedding = (part.numpy() for part in trained(torch.from_numpy(skeleton)))
    return Reference(skeleton, logits, embedding)


def array_bytes(**arrays: np.ndarray) -> bytes:
    """Arrays as the bytes of an .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def bundle_spec(config: Config, loaded: Loaded) -> dict[str, Any]:
    """The keys of bundle.json (see realtime.bundle)."""
    model, configs, text = loaded.model, loaded.configs, loaded.text
    trained = {k: configs[0][k] for k in ("method", "epochs", "draws", "batch", "widths", "seed")}
    trained["backbone"], trained["head"] = model["backbone"], config.head
    trained["data"] = list(dict.fromkeys(entry.partition(":")[0] for one in loaded.seen for entry in one["data"]))
    trained["held_out"] = held_out_of(trained["data"], loaded.seen)  # whom none of them saw
    normalisation = normalisation_of(tuple(model["streams"]))
    names = INTERACTIONS if normalisation == PAIR_NORMALISATION else ACTIONS
    directed = [action for action in DIRECTED if names is INTERACTIONS and action in model["classes"]]
    return {
        "name": config.name,
        "layout": model["layout"],
        "joints": list(LAYOUTS[model["layout"]].joints),
        "streams": model["streams"],
        "channels": model["channels"],
        "window": model["window"],
        "fps": model["fps"],
        "stride": config.stride,
        "normalisation": normalisation,
        "directed": directed,
        "actions": [
            {
                "id": action, "name": names.get(action, action), "on": config.on, "off": config.off,
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


def make_bundle(config: Config, console: Console | None = None, optional: bool = False) -> Path:
    """Exports, proves and gates, then writes the bundle; returns its folder.

    optional: leave graphs out that fail their gate, and say so, instead of refusing to write any.
    Raises UsageError where it may not be written, BundleError where a run is refused, ParityError where the graph does
    not answer as the trained network, or a gate is not passed; then nothing is written.
    """
    steps = Steps(console or Console(quiet=True))
    card = text_of(config.card) if config.card else f"# {config.name}\n\nNo model card was given.\n"
    check_out(config.out, config.replace, "bundle.json")
    loaded = load_runs(config.runs, config.head, config.nothing_shift)
    if loaded.model["layout"] != CORE_16.name:
        raise BundleError(
            f"{config.runs[0]} was trained on {loaded.model['layout']} by a published protocol; the runtime takes "
            f"windows of {CORE_16.name}: train with --data, or export it alone: python -m export.trt {config.runs[0]}"
        )
    held_out = config.held_out or tuple(held_out_of(config.data, loaded.seen))
    check_data(config.data, held_out)
    check_unseen(config.data, held_out, loaded.seen)
    spec = bundle_spec(config, loaded)
    graph, cpu = proven_graphs(loaded, contract_from(spec), steps)
    proof = reference(loaded.trained, loaded.model)
    graphs = gated(
        graph, config.precision, lambda: gather(spec, config.data, held_out), proof,
        config.allow_drop, steps, optional,
    )  # fmt: skip
    graphs = replace(graphs, cpu=cpu)
    files = {**graphs.files(), "reference.npz": array_bytes(**proof._asdict()), "MODEL_CARD.md": card.encode()}
    if loaded.text is not None:
        files[TEXT_FILE] = array_bytes(text=loaded.text.numpy(), classes=np.array(loaded.model["classes"]))
    return write_proven(config.out, {**spec, "graphs": graphs.entries()}, files, config.replace)


def held_out_of(data: Sequence[str], configs: Sequence[dict[str, Any]]) -> list[str]:
    """The subjects that every run held out, of the sets given: nobody who trained a network judges it."""
    names = {entry.partition(":")[0] for entry in data}
    common: dict[str, set[str]] = {}
    for config in configs:
        for name, held in spared(config).items():
            common[name] = common.get(name, held) & held
    ordered = {name: sorted(held, key=lambda key: (len(key), key)) for name, held in common.items() if name in names}
    return [f"{name}:{','.join(held)}" for name, held in ordered.items() if held]


def check_unseen(data: Sequence[str], held_out: Sequence[str], configs: Sequence[dict[str, Any]]) -> None:
    """UsageError where somebody is to judge a network who trained it."""
    held = parse_held_out(held_out, [entry.partition(":")[0] for entry in data])
    for config in configs:
        for name, unseen in spared(config).items():
            seen = sorted(held.get(name, set()) - unseen)
            if seen:
                left = f"name some of {name}:{','.join(sorted(unseen))} alone" if unseen else f"leave {name} out"
                raise UsageError(
                    f"--held-out {name}:{','.join(seen)}: the network was trained on them, so they cannot judge it; "
                    f"{left}"
                )


def proven_graphs(loaded: Loaded, contract: dict[str, Any], steps: Steps) -> tuple[bytes, bytes | None]:
    """The folded network's graph and, where there is one, that of its fast form, for CPUs.

    Each is proven on ONNX Runtime against the trained network; ParityError where the first differs. The fast form
    rounds more, and is left out, with a word, where a network's weights make that too much.
    """

    def proven(network: nn.Module, name: str) -> bytes:
        with steps.step(f"exporting {name}"):
            graph = to_onnx(network, loaded.shape, contract)
        with steps.step("comparing it with the trained network"):
            prove(loaded.trained, graph, loaded.shape)
        return graph

    plain = proven(loaded.network, "the folded network")
    if loaded.fast is None:
        return plain, None
    try:
        return plain, proven(loaded.fast, "its form for CPUs")
    except ParityError as error:
        steps.say(f"its form for CPUs is left out, and CPUs run the plain one: {error}")
        return plain, None


def write_proven(folder: Path, spec: dict[str, Any], files: dict[str, bytes], replace: bool) -> Path:
    """Writes a bundle once each of its graphs has been proven from a written copy, as a device would."""
    with tempfile.TemporaryDirectory(prefix="pcle-live-") as scratch:
        copy = load_bundle(write_bundle(Path(scratch) / "bundle", spec, files))
        for precision in copy.graphs:
            open_engine(copy, "ort", precision=precision).close()
    return write_bundle(folder, spec, files, replace=replace)


def say_bundle(bundle: Bundle, runs: Sequence[Path], console: Console) -> None:
    """The final table of a bundle, and what its runs lack."""
    entries = {name: {"file": graph.file, "gate": graph.gate} for name, graph in bundle.graphs.items()}
    console.print(table(entries, {name: bundle.files[FILES[name]][1] for name in entries}))
    line = source_line(entries)
    if line:
        console.print(line, soft_wrap=True, markup=False)
    for run, (done, whole) in unfinished(runs).items():
        console.print(f"note: {run} has {done} of its {whole} epochs; finish it with train.fit --resume", markup=False)
    size = sum(length for _, length in bundle.files.values())
    console.print(
        f"{bundle.path}: {size / 1e6:.1f} MB, its graph gives the trained model's answers", soft_wrap=True, markup=False
    )


def run(config: Config, console: Console) -> int:
    """Makes the bundle and says so."""
    say_bundle(load_bundle(make_bundle(config, console)), config.runs, console)
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "export.bundle", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
