"""The graphs of a bundle: one network in several precisions, each but fp32 with the gate that it had to pass.

    "graphs": {"fp32": {"file": "model.onnx", "gate": null}, "int8": {"file": "model.int8.onnx", "gate": {...}}}
A bundle without this key has fp32 only. The gate says how the graph compares with fp32: export.parity writes it.
fp32 may also have "cpu": "model.cpu.onnx", the same function with fewer multiplications, which ONNX Runtime takes on a
CPU; GPUs and conversions take model.onnx.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realtime.fields import Fields, short

PRECISIONS = ("fp32", "fp16", "int8")
FP32_FILE = "model.onnx"
GATE_KEYS = (
    *("precision", "windows", "source", "agreement", "needed", "passed", "allowed", "worst_logits", "reference"),
    *("accuracy", "bytes", "fp32_bytes", "latency_ms", "fp32_latency_ms"),
)
_LONGEST = 4000  # characters
_LARGEST = 1e6  # of a difference of logits, or of milliseconds


@dataclass(frozen=True, slots=True)
class Graph:
    """One file of the bundle and what its gate found: None for fp32, which the others are compared with."""

    file: str
    gate: dict[str, Any] | None = None
    cpu: str | None = None  # the file that a CPU runs instead

    @property
    def usable(self) -> bool:
        """Whether the gate was passed, or overruled by who made the bundle."""
        return self.gate is None or bool(self.gate["passed"] or self.gate["allowed"])

    @property
    def reference(self) -> dict[str, float]:
        """Largest difference of "logits" and "embedding" from the reference; 0 for fp32."""
        return {"logits": 0.0, "embedding": 0.0} if self.gate is None else dict(self.gate["reference"])

    def judged(self) -> str:
        """What the gate found, for people."""
        if self.gate is None:
            return "the trained model's own numbers"
        gate = self.gate
        verdict = "passed" if gate["passed"] else "overruled" if gate["allowed"] else "failed"
        return (
            f"{verdict}: {gate['agreement']:.2%} of {gate['windows']} windows agree with fp32 "
            f"(at least {gate['needed']:.2%})"
        )


def graphs_of(path: Path, given: Any, listed: Collection[str]) -> dict[str, Graph]:
    """The value of "graphs" in bundle.json, checked; fp32 comes first. listed: names of the bundle's files.

    Raises BundleError naming the entry.
    """
    root = Fields(path, {"graphs": given}, ("graphs",))
    root.need(isinstance(given, dict) and "fp32" in given, "graphs", "an object that has at least 'fp32'")
    unknown = [name for name in given if name not in PRECISIONS]
    if unknown:
        root.refuse(f"bundle.json key 'graphs' names {short(unknown[0])}; precisions are {', '.join(PRECISIONS)}")
    return {name: _graph(path, name, given[name], listed) for name in PRECISIONS if name in given}


def _graph(path: Path, precision: str, entry: Any, listed: Collection[str]) -> Graph:
    cpu = ("cpu",) if precision == "fp32" and isinstance(entry, dict) and "cpu" in entry else ()
    fields = Fields(path, entry, ("file", "gate", *cpu), f"graphs.{precision}.")
    for key in ("file", *cpu):
        fields.need(fields.text(key) in listed, key, "one of the bundle's files")
    file = fields.text("file")
    if precision == "fp32":
        fields.need(file == FP32_FILE, "file", repr(FP32_FILE))
        fields.need(entry["gate"] is None, "gate", "null: fp32 is what others are compared with")
        return Graph(file, cpu=entry["cpu"] if cpu else None)
    _check_gate(Fields(path, entry["gate"], GATE_KEYS, f"graphs.{precision}.gate."), precision)
    return Graph(file, entry["gate"])


def _check_gate(gate: Fields, precision: str) -> None:
    gate.need(gate.values["precision"] == precision, "precision", repr(precision))
    source = gate.values["source"]  # names every held-out subject
    gate.need(isinstance(source, str) and 0 < len(source) <= _LONGEST and source.isprintable(), "source", "a line")
    for key in ("windows", "bytes", "fp32_bytes"):
        gate.whole(key, 0, 2**40)
    for key in ("agreement", "needed"):
        gate.number(key, 0, 1)
    for key in ("passed", "allowed"):
        gate.need(isinstance(gate.values[key], bool), key, "true or false")
    met = gate.values["agreement"] >= gate.values["needed"]
    gate.need(met or not gate.values["passed"], "passed", "false where fewer windows agree than are needed")
    gate.number("worst_logits", 0, _LARGEST)
    _numbers(gate, "reference", ("logits", "embedding"))
    for key in ("latency_ms", "fp32_latency_ms"):
        _numbers(gate, key, ("1", "8"))
    if gate.values["accuracy"] is not None:
        clips = Fields(gate.path, gate.values["accuracy"], ("clips", "fp32", "this"), f"{gate.prefix}accuracy.")
        clips.whole("clips", 1, 2**40)
        for key in ("fp32", "this"):
            clips.number(key, 0, 1)


def _numbers(gate: Fields, key: str, names: tuple[str, ...]) -> None:
    inner = Fields(gate.path, gate.values[key], names, f"{gate.prefix}{key}.")
    for name in names:
        inner.number(name, 0, _LARGEST)
