"""Latency of a bundle's engines on this machine's GPU, and the least that its bytes and operations allow."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from realtime.backends import open_engine
from realtime.bundle import Bundle, load_reference
from realtime.cuda import devices, driver_problem
from realtime.errors import BundleError, GpuError
from scripts.engine_cost import macs

BATCHES = (1, 8, 64)
LIMITS = {  # a word of the GPU's name: multiply-adds a second in fp32, fp16, int8; bytes a second; the vendor's figures
    "H200": ({"fp32": 33.5e12, "fp16": 494e12, "int8": 989e12}, 4.8e12),
    "H100": ({"fp32": 33.5e12, "fp16": 494e12, "int8": 989e12}, 3.35e12),
    "4090": ({"fp32": 41.3e12, "fp16": 82.6e12, "int8": 330e12}, 1.01e12),
    "3090": ({"fp32": 17.8e12, "fp16": 35.5e12, "int8": 142e12}, 0.936e12),
}
BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


@dataclass(frozen=True)
class GpuRow:
    """One engine at one batch. least_ms: the longer of its operations and its bytes at the GPU's limits."""

    engine: str
    precision: str
    batch: int
    p50_ms: float
    p95_ms: float
    least_ms: float | None


def gpu_rows(bundle: Bundle, seconds: float, console: Console) -> list[GpuRow]:
    """Every engine of the bundle that opens here, at each batch, for so many seconds; what does not open is said."""
    problem = driver_problem()
    if problem is not None:
        console.print(f"no engine is measured: {problem}", soft_wrap=True)
        return []
    skeleton, rows = load_reference(bundle).skeleton, []
    for backend in ("trt", "rtx", "ort-cuda"):
        for precision in BYTES:
            try:
                engine = open_engine(bundle, backend, precision=precision)
            except (GpuError, BundleError) as error:
                console.print(f"{backend} in {precision}: {error}", soft_wrap=True)
                continue
            for batch in BATCHES:
                x = np.ascontiguousarray(np.resize(skeleton, (batch, *skeleton.shape[1:])))
                engine.infer(x)
                times: list[float] = []
                end = time.perf_counter() + seconds
                while time.perf_counter() < end or len(times) < 20:
                    begun = time.perf_counter()
                    engine.infer(x)
                    times.append(1e3 * (time.perf_counter() - begun))
                if getattr(engine, "fell_back", None):
                    console.print(f"not measured: {backend} in {precision} at batch {batch}: {engine.why}")
                    break
                p50, p95 = np.percentile(times, [50, 95])
                rows.append(GpuRow(engine.backend, precision, batch, p50, p95, _least_ms(bundle, precision, x)))
            engine.close()
    return rows


def _least_ms(bundle: Bundle, precision: str, x: np.ndarray) -> float | None:
    """Milliseconds that the multiply-adds, or the weights and windows, take at the limits; None for a GPU unknown."""
    name = devices()[0].name
    found = next((limits for word, limits in LIMITS.items() if word in name), None)
    if found is None:
        return None
    rates, bandwidth = found
    file = bundle.path / bundle.graphs["fp32"].file
    moved = file.stat().st_size / 4 * BYTES[precision] + x.nbytes
    own = bundle.graphs.get(precision, bundle.graphs["fp32"])
    cost = macs(bundle.read(own.file), len(x))
    floats = rates["fp32" if precision == "int8" else precision]  # an int8 graph's others stay float32
    return 1e3 * max(cost.fp32 / floats + cost.int8 / rates["int8"], moved / bandwidth)
