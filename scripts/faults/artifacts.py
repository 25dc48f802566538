"""Faults of artifacts: bundles, graphs, engines and checkpoints that are damaged, foreign or malicious."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from realtime.bundle import default_bundle
from scripts.faults.fault import Fault, Measured, expect
from scripts.faults.line import ROOT, environment, run_to_end

Damage = Callable[[Path], None]


def _copy(folder: Path, name: str) -> Path:
    to = folder / name
    shutil.copytree(default_bundle(), to)
    return to


def _document(bundle: Path, change: Callable[[dict], None], files: dict[str, bytes] | None = None) -> None:
    """Rewrites bundle.json after `change`, with the hashes of changed files made right: only the content is wrong."""
    document = json.loads((bundle / "bundle.json").read_text())
    for name, content in (files or {}).items():
        (bundle / name).write_bytes(content)
        document["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    change(document)
    (bundle / "bundle.json").write_text(json.dumps(document))


def _flip(bundle: Path) -> None:
    data = bytearray((bundle / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(data)


def _cut(bundle: Path) -> None:
    data = (bundle / "model.onnx").read_bytes()
    (bundle / "model.onnx").write_bytes(data[: len(data) // 2])


def _flip_and_sign(bundle: Path) -> None:
    """A changed weight under a right hash: only the reference can tell."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(bundle / "model.onnx")
    largest = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    weights = numpy_helper.to_array(largest).copy()
    weights.flat[:: max(weights.size // 64, 1)] += 1.0
    largest.CopyFrom(numpy_helper.from_array(weights, largest.name))
    _document(
        bundle,
        lambda d: d.update(graphs={"fp32": {"file": "model.onnx", "gate": None}}),
        {"model.onnx": model.SerializeToString()},
    )


def _external(bundle: Path) -> None:
    """Weights that the graph wants read from a file of the system's."""
    import onnx

    model = onnx.load(bundle / "model.onnx")
    largest = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    largest.ClearField("raw_data")
    largest.data_location = onnx.TensorProto.EXTERNAL
    entry = largest.external_data.add()
    entry.key, entry.value = "location", "../../../../etc/passwd"
    _document(
        bundle,
        lambda d: d.update(graphs={"fp32": {"file": "model.onnx", "gate": None}}),
        {"model.onnx": model.SerializeToString()},
    )


class _Bomb:
    """What unpickling it would run."""

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {os.environ['FAULT_MARK']}",)


def _pickled_reference(bundle: Path) -> None:
    import io

    stream = io.BytesIO()
    np.savez(stream, skeleton=np.array([_Bomb()], object), logits=np.zeros(1), embedding=np.zeros(1))
    _document(bundle, lambda d: None, {"reference.npz": stream.getvalue()})


def _link(bundle: Path) -> None:
    (bundle / "model.onnx").unlink()
    (bundle / "model.onnx").symlink_to("/etc/passwd")


def _empty(bundle: Path) -> None:
    (bundle / "bundle.json").write_text("")


def _deep(bundle: Path) -> None:
    (bundle / "bundle.json").write_text("[" * 100_000)


def _classes(bundle: Path) -> None:
    _document(bundle, lambda d: d.update(classes=d["classes"][:-1]))


def _joints(bundle: Path) -> None:
    _document(bundle, lambda d: d.update(joints=d["joints"][::-1]))


def _forbidden(bundle: Path) -> None:
    (bundle / "model.onnx").chmod(0)


DAMAGES: tuple[tuple[str, Damage], ...] = (
    ("one bit of a graph", _flip),
    ("graph cut short", _cut),
    ("changed weights, right hash", _flip_and_sign),
    ("external data ../../etc/passwd", _external),
    ("pickle in the reference", _pickled_reference),
    ("link out of the bundle", _link),
    ("empty bundle.json", _empty),
    ("100 000 brackets", _deep),
    ("a class missing", _classes),
    ("joints in another order", _joints),
)


def damaged_bundles(folder: Path) -> Measured:
    """Each is refused with exit code 3 and one line, and nothing in it is run."""
    mark = folder / "mark"
    os.environ["FAULT_MARK"] = str(mark)
    bad = []
    for k, (name, damage) in enumerate(DAMAGES):
        bundle = _copy(folder, f"b{k}")
        damage(bundle)
        code, said, _ = run_to_end(
            "--source",
            "synthetic",
            "--pub",
            "none",
            "--duration",
            "1",
            "--bundle",
            str(bundle),
            "--precision",
            "fp32",
            "--backend",
            "ort",
        )
        if code != 3 or "Traceback" in said or str(bundle) not in said:
            bad.append(f"{name}: exit code {code}, {said[-160:]!r}")
    expect(not mark.exists(), "code in a bundle was run")
    expect(not bad, "; ".join(bad))
    return Measured(len(bad), f"{len(DAMAGES)} damages")


def damaged_engines(folder: Path) -> Measured:
    """Engines that are no engines, or are another's, are refused before they are deserialised."""
    bad = []
    cases = {
        "text": b"not an engine",
        "empty": b"",
        "random": os.urandom(4096),
        "TensorRT's mark": b"ptrt" + b"\0" * 4096,
    }
    for name, content in cases.items():
        engine = folder / f"{name.replace(' ', '-')}.engine"
        engine.write_bytes(content)
        for trust in ((), ("--trust",)):
            code, said, _ = run_to_end(
                "--source",
                "synthetic",
                "--pub",
                "none",
                "--duration",
                "1",
                "--engine",
                str(engine),
                "--backend",
                "trt",
                *trust,
            )
            if code not in (3, 6) or "Traceback" in said:
                bad.append(f"{name}{' '.join(trust)}: exit code {code}, {said[-160:]!r}")
    expect(not bad, "; ".join(bad))
    return Measured(len(bad), f"{len(cases)} files, with and without --trust")


def damaged_checkpoints(folder: Path) -> Measured:
    """Runs of training whose checkpoint is empty, cut, a pickle, or lacks its files: export refuses with 3 or 2."""
    mark = folder / "mark"
    os.environ["FAULT_MARK"] = str(mark)
    bomb = pickle.dumps(_Bomb())
    cases: dict[str, dict[str, bytes]] = {
        "empty folder": {},
        "empty weights": {"run.json": b"{}", "best.safetensors": b"", "last.safetensors": b""},
        "pickles": {
            "run.json": bomb,
            "model.json": bomb,
            "best.safetensors": bomb,
            "last.safetensors": bomb,
            "best.pt": bomb,
        },
        "random": {"run.json": os.urandom(64), "best.safetensors": os.urandom(4096)},
        "huge header": {"run.json": b"{}", "best.safetensors": (2**62).to_bytes(8, "little") + b"{}"},
    }
    bad = []
    for k, (name, content) in enumerate(cases.items()):
        run = folder / f"run{k}"
        run.mkdir()
        for file, data in content.items():
            (run / file).write_bytes(data)
        done = subprocess.run(
            [sys.executable, "-m", "export.bundle", str(run), "--out", str(folder / f"out{k}")],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            timeout=120,
            check=False,
        )
        said = done.stderr.decode(errors="replace")
        if done.returncode not in (2, 3) or "Traceback" in said:
            bad.append(f"{name}: exit code {done.returncode}, {said[-160:]!r}")
    expect(not mark.exists(), "code in a checkpoint was run")
    expect(not bad, "; ".join(bad))
    return Measured(len(bad), f"{len(cases)} run folders")


FAULTS = (
    Fault(
        "F23a",
        "damaged bundles",
        "ten kinds of damage to a copy of the bundle",
        "not refused by name with exit code 3",
        0,
        "bundles",
        damaged_bundles,
    ),
    Fault(
        "F23b",
        "damaged checkpoints",
        "empty, cut, random, pickles that would run code",
        "not refused, or code run",
        0,
        "runs",
        damaged_checkpoints,
    ),
    Fault(
        "F25",
        "damaged engines",
        "text, empty, random, a forged header; with and without --trust",
        "not refused with exit code 3 or 6",
        0,
        "engines",
        damaged_engines,
    ),
)
