"""A bundle's graphs: fp32 as it was exported, the others made of it, each let in only by its gate. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from export.parity import Gate, judge, require
from export.precision import FILES, PRECISIONS, check_quantised, to_fp16, to_int8
from export.progress import Steps
from export.windows import Windows
from realtime.bundle import Reference

CPU_FILE = "model.cpu.onnx"


@dataclass(frozen=True)
class Graphs:
    """Graphs by precision, fp32 first, and what the gates of all the others found. cpu: fp32 as a CPU likes it."""

    data: dict[str, bytes]
    gates: dict[str, Gate]
    cpu: bytes | None = None

    def files(self) -> dict[str, bytes]:
        """By the name that each has in a bundle."""
        own = {} if self.cpu is None else {CPU_FILE: self.cpu}
        return {FILES[precision]: graph for precision, graph in self.data.items()} | own

    def entries(self) -> dict[str, Any]:
        """The value of "graphs" in bundle.json."""
        gates = {precision: gate.to_json() for precision, gate in self.gates.items()}
        entries = {precision: {"file": FILES[precision], "gate": gates.get(precision)} for precision in self.data}
        if self.cpu is not None:
            entries["fp32"]["cpu"] = CPU_FILE
        return entries


def convert(precision: str, fp32: bytes, windows: Windows) -> bytes:
    """The fp32 graph in another precision. BundleError where TensorRT would refuse it."""
    if precision == "fp16":
        return to_fp16(fp32)
    graph = to_int8(fp32, windows.calibration)
    check_quantised(graph)
    return graph


def gated(
    fp32: bytes, precisions: Sequence[str], gather: Callable[[], Windows], reference: Reference, allow_drop: bool,
    steps: Steps, optional: bool = False,
) -> Graphs:  # fmt: skip
    """The fp32 graph and those of the other precisions, each through its gate.

    gather: the windows to calibrate on and to compare on, asked for only where something but fp32 is wanted.
    ParityError where a gate is not passed and allow_drop is not set; then nothing may be written. optional: leave such
    a graph out instead, and say so; for precisions that nobody named.
    """
    data, gates = {"fp32": fp32}, {}
    wanted = [precision for precision in PRECISIONS if precision in precisions and precision != "fp32"]
    if wanted:
        with steps.step("gathering windows"):
            windows = gather()
    for precision in wanted:
        with steps.step(f"{precision}: converting"):
            graph = convert(precision, fp32, windows)
        with steps.step(f"{precision}: comparing with fp32 on {len(windows.gate)} windows") as progress:
            gate = judge(precision, fp32, graph, windows, reference, progress)
        if optional and not (gate.passed or allow_drop):
            steps.say(
                f"{precision} is left out: it gives fp32's answer in {gate.agreement:.2%} of {gate.windows} windows of "
                f"{gate.source}, and {gate.needed:.1%} are needed (worst logit difference {gate.worst_logits:.3g}); "
                "calibrate on other people (--data, --held-out), or overrule with --allow-drop"
            )
            continue
        data[precision], gates[precision] = graph, require(gate, allow_drop)
    return Graphs(data, gates)


def table(entries: dict[str, Any], sizes: dict[str, int]) -> Table:
    """What the gates found, a row a graph. entries: the value of "graphs" in bundle.json; sizes in bytes."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("graph")
    for heading in ("MB", "agreement", "worst logit", "accuracy", "ms, 1", "ms, 8"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("gate")
    gates = [entry["gate"] for entry in entries.values() if entry["gate"]]
    for precision, entry in entries.items():
        own, agreement, worst, verdict = entry["gate"], "-", "-", "as trained"
        if own:
            agreement, worst = f"{own['agreement']:.2%}", f"{own['worst_logits']:.3g}"
            verdict = "passed" if own["passed"] else "failed, overruled" if own["allowed"] else "failed"
            verdict += f" ({own['needed']:.1%})"
        accuracy, times = "-", ["-", "-"]
        if gates:  # fp32's own figures stand in the others' gates
            gate = own or gates[0]
            accuracy = "-" if gate["accuracy"] is None else f"{gate['accuracy']['this' if own else 'fp32']:.1%}"
            times = [f"{gate['latency_ms' if own else 'fp32_latency_ms'][batch]:.2f}" for batch in ("1", "8")]
        shown.add_row(precision, f"{sizes[precision] / 1e6:.1f}", agreement, worst, accuracy, *times, verdict)
    return shown


def source_line(entries: dict[str, Any]) -> str | None:
    """What the gates were run on, for people; None where there are none."""
    gates = [entry["gate"] for entry in entries.values() if entry["gate"]]
    if not gates:
        return None
    clips = f"; accuracy on {gates[0]['accuracy']['clips']} clips" if gates[0]["accuracy"] else ""
    whose = f"compared on {gates[0]['windows']} windows of {gates[0]['source']}{clips}"
    return f"{whose}; times are ONNX Runtime's, one core"
