"""A run of a published protocol as a plain folder: graphs, gates and engines, but no bundle, since no runtime feeds it.

model.onnx, model.*.onnx   what a program must feed stands in their metadata, as JSON under "contract"
graphs.json                the contract, the gates, and where the run came from; written last
reference.npz              test clips with the trained network's own answers
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.bundle import answers, array_bytes, proven_graphs
from export.engines import Made, Wish, build_folders_engine
from export.gates import Graphs, gated
from export.progress import Steps
from export.runs import Loaded, check_out, file_of, load_runs
from export.windows import CALIBRATION, LEAST_GATE, MOST_GATE, LabelledClip, Windows, spread
from realtime.bundle import Reference, swap
from realtime.errors import BundleError, GpuError, UsageError
from realtime.fields import short
from realtime.skeleton import CORE_16, LAYOUTS
from train.batches import USUAL_SPLIT
from train.checkpoint import load, write_json
from train.data import prepared as prepared_sets
from train.data.splits import split
from train.feeder import Feeder

SCHEMA = "graphs/1"
REFERENCE_CLIPS = 8
AT_ONCE = 256  # clips


@dataclass(frozen=True)
class Clips:
    """A prepared set's clips as this run takes them: feeder, labels (N,), numbers of training and of test clips."""

    name: str
    feeder: Feeder
    labels: np.ndarray
    train: np.ndarray
    test: np.ndarray

    def tested(self, numbers: np.ndarray) -> np.ndarray:
        """Windows (n, C, T, V[, M]) of clips as they are tested."""
        parts = [
            _array(self.feeder.test(torch.from_numpy(numbers[at : at + AT_ONCE])))
            for at in range(0, len(numbers), AT_ONCE)
        ]
        return np.concatenate(parts)

    def turned(self, numbers: np.ndarray, seed: int) -> np.ndarray:
        """The same, seen from random sides and at random paces."""
        generator = torch.Generator().manual_seed(seed)
        return _array(self.feeder.train(torch.from_numpy(numbers), generator))


def _array(x: torch.Tensor) -> np.ndarray:
    """Windows of one person lose the axis of bodies, as in the graph."""
    return (x.squeeze(-1) if x.shape[-1] == 1 else x).contiguous().numpy()


def is_live(run: Path) -> bool:
    """Whether a run was trained on live windows, which the runtime makes."""
    return bool(load(file_of(run))[1]["model"]["layout"] == CORE_16.name)


@dataclass(frozen=True)
class Order:
    """What is asked for. engines: precisions to build an engine of; wish: how, None where nothing builds here."""

    run: Path
    out: Path
    head: str
    graphs: tuple[str, ...]
    engines: tuple[str, ...]
    wish: Wish | None
    data: tuple[str, ...] = ()
    allow_drop: bool = False
    overwrite: bool = False
    engines_demanded: bool = True  # an engine that cannot be built fails the whole; else it is left out
    optional: bool = False  # leave graphs out that fail their gate, instead of refusing to write any


def export(order: Order, steps: Steps) -> tuple[Graphs, list[Made], list[str]]:
    """Writes the folder, all or not at all; returns its graphs, its engines, and why others were left out.

    Raises UsageError where the folder may not be written, BundleError and ParityError as export.bundle.
    """
    out = order.out
    check_out(out, order.overwrite, "graphs.json")
    loaded = load_runs([order.run], order.head, bodies=None)
    clips = prepared_clips(loaded, order.data)
    contract = contract_of_run(loaded)
    graph, cpu = proven_graphs(loaded, contract, steps)
    proof = answers(loaded.trained, clips.tested(spread(clips.test, REFERENCE_CLIPS)))
    graphs = gated(graph, order.graphs, lambda: windows_of(clips), proof, order.allow_drop, steps, order.optional)
    graphs = replace(graphs, cpu=cpu)
    out.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _write(made, order, graphs, contract, proof)
        engines, left_out = _engines(made, order, graphs, steps)
        made.chmod(0o755)
        swap(made, out)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return graphs, [Made(out / engine.path.name, engine.sidecar, False) for engine in engines], left_out


def _engines(folder: Path, order: Order, graphs: Graphs, steps: Steps) -> tuple[list[Made], list[str]]:
    """The engines of the new folder, and why there are no others where none was demanded."""
    engines: list[Made] = []
    for precision in order.engines:
        if order.wish is None or precision not in graphs.data:
            continue
        try:
            engines.append(build_folders_engine(folder, precision, replace(order.wish, out=folder), steps))
        except (BundleError, GpuError, UsageError) as error:
            if order.engines_demanded:
                raise
            return engines, [str(error)]
    return engines, []


def prepared_clips(loaded: Loaded, data: tuple[str, ...]) -> Clips:
    """The clips of the run's own prepared set, or of the one that --data names. UsageError where it is not there."""
    model, config = loaded.model, loaded.configs[0]
    folders = dict(entry.partition(":")[::2] for entry in data)
    folder = folders.get(model["data"], config["prepared"])
    if set(folders) - {model["data"]} or folder is None or not Path(folder).is_dir():
        raise UsageError(
            f"the run was trained on a prepared {model['data']}, which proof and gates need, and {short(folder)} is no "
            f"such folder; give it: --data {model['data']}:DIR (made by python -m train.prepare)"
        )
    opened = prepared_sets.load(Path(folder))
    if opened.data != model["data"] or list(opened.classes) != list(model["classes"]):
        raise UsageError(f"{folder} is not the {model['data']} that the run was trained on; give that one with --data")
    feeder = Feeder(opened, model["window"], tuple(model["streams"]), torch.device("cpu"))
    train, test = split(opened, config["split"] or USUAL_SPLIT.get(opened.data, "xsub"))
    if not (train.any() and test.any()):
        raise UsageError(f"{folder} has {train.sum()} training and {test.sum()} test clips; proof and gates need both")
    labels = np.asarray(opened.label, np.int64)
    return Clips(opened.data, feeder, labels, np.flatnonzero(train), np.flatnonzero(test))


def windows_of(clips: Clips) -> Windows:
    """Training clips to calibrate on; test clips to compare on, again from random sides until there are enough.

    Of many, as NTU has, some: all of them are gigabytes and hours.
    """
    chosen = spread(clips.test, MOST_GATE)
    tested = clips.tested(chosen)  # (n, C, T, V[, M])
    gate = [tested]
    while sum(map(len, gate)) < LEAST_GATE:
        gate.append(clips.turned(chosen, seed=len(gate)))
    found = tuple(
        LabelledClip(window[None], int(label)) for window, label in zip(tested, clips.labels[chosen], strict=True)
    )
    whose = f"the test clips of {clips.name}"
    if len(chosen) < len(clips.test):
        whose = f"{len(chosen)} of the {len(clips.test)} test clips of {clips.name}"
    return Windows(clips.tested(spread(clips.train, CALIBRATION)), np.concatenate(gate), whose, found)


def contract_of_run(loaded: Loaded) -> dict[str, Any]:
    """What a program must feed, and what it takes; the keys are those of a bundle's contract."""
    model = loaded.model
    outputs = {"logits": len(model["classes"]), "embedding": "D"}
    return {
        "layout": model["layout"],
        "joints": list(LAYOUTS[model["layout"]].joints),
        "streams": list(model["streams"]),
        "channels": model["channels"],
        "window": model["window"],
        "fps": float(model["fps"]),
        "normalisation": f"published protocol of {model['data']} (train/feeder.py)",
        "classes": list(model["classes"]),
        "nothing": None,
        "text": None if loaded.text is None else {"encoder": model["encoder"], "width": loaded.text.shape[1]},
        "input": {"name": "skeleton", "shape": ["N", *loaded.shape], "dtype": "float32"},
        "outputs": [{"name": name, "shape": ["N", width], "dtype": "float32"} for name, width in outputs.items()],
    }


def _write(folder: Path, order: Order, graphs: Graphs, contract: dict[str, Any], proof: Reference) -> None:
    files = {**graphs.files(), "reference.npz": array_bytes(**proof._asdict())}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    content = {
        "schema": SCHEMA,
        "name": order.out.resolve().name,
        "run": order.run.name,
        "head": order.head,
        "contract": contract,
        "graphs": graphs.entries(),
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "why_no_bundle": f"the runtime makes windows of {CORE_16.name}, not those of a published protocol",
    }
    write_json(folder / "graphs.json", content)
