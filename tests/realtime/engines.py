"""What tests of engines share: a made-up engine in a cache of its own, and what it must be to be loaded."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

from realtime.bundle import Bundle
from realtime.cache import cache_folder
from realtime.sidecar import (
    Build,
    Expected,
    Profile,
    Sidecar,
    Source,
    Verified,
    contract_of,
    graph_sha256,
    write_engine,
)

PLAN = b"ptrt" + bytes(20) + bytes([10, 3, 0, 30]) + b"the engine itself"
KEY, NAME = "a" * 32, "model.fp16.sm87.trt10.3.0.engine"


def expected(bundle: Bundle, **other: Any) -> Expected:
    made = Expected.of(bundle, "tensorrt", "fp16", "10.3.0", "8.7", "Orin")
    return replace(made, **other)


def sidecar(bundle: Bundle, plan: bytes = PLAN, **build: Any) -> Sidecar:
    machine = {"os": platform.system().lower(), "machine": platform.machine(), "gpu": "Orin"}
    values = {"precision": "fp16", "tensorrt": "10.3.0", "compute_capability": "8.7", **machine}
    return Sidecar(
        kind="tensorrt",
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        plan_bytes=len(plan),
        contract=contract_of(bundle),
        source=Source(graph_sha256(bundle, "fp16"), bundle.name, "0.1.0"),
        build=Build(**{**values, "profile": Profile(1, 1, 8), "created": "2026-01-31T12:00:00+00:00", **build}),
        verified=Verified(0.001, 1.0, 4),
    )


def put(bundle: Bundle, plan: bytes = PLAN, folder: Path | None = None, **build: Any) -> Path:
    return write_engine(folder or cache_folder() / KEY, NAME, plan, sidecar(bundle, plan, **build))
