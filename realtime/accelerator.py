"""The doctor's rows about NVIDIA hardware: the driver, the libraries, and an engine of this bundle.

None of it is needed: the model runs on the CPU as well. Libraries are tried in a child process, and only where the
driver answers, since TensorRT ends a process that has no driver.
"""

from __future__ import annotations

import ctypes.util
import shlex
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from realtime.probe import Check, Probe

GROUP = "accelerator"
# Name for people, kind of engine, distributions that carry it, the flag, what installs it.
LIBRARIES = (
    (
        "TensorRT",
        "tensorrt",
        ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
        "trt",
        "see docs/desktop.md or docs/jetson.md",
    ),
    ("TensorRT-RTX", "tensorrt_rtx", ("tensorrt-rtx", "tensorrt-rtx-cu13"), "rtx", "pip install tensorrt-rtx-cu13"),
)
_DRIVER = (
    "import sys; from realtime.cuda import devices, driver_problem; problem = driver_problem()\n"
    "if problem: sys.exit(problem)\n"
    "print('; '.join(f'{d.name}, compute capability {d.capability}, {d.memory_bytes / 1e9:.0f} GB' for d in devices()))"
)
_LIBRARY = (
    "import sys; from realtime.errors import GpuError; from realtime.trt import library\n"
    "try: print(library(sys.argv[1]).__version__)\n"
    "except GpuError as error: sys.exit(str(error))"
)
_CACHED = (
    "import sys; from realtime.bundle import load_bundle; from realtime.errors import LineError\n"
    "from realtime.trt import cached_engine\n"
    "bundle, found = load_bundle(sys.argv[1]), []\n"
    "for kind in ('tensorrt', 'tensorrt_rtx'):\n"
    "    for precision in ('fp32', 'fp16', 'int8'):\n"
    "        try: path = cached_engine(bundle, kind, precision)\n"
    "        except LineError: continue\n"
    "        found += [path.name] if path else []\n"
    "print(', '.join(found) or 'none')"
)


def accelerator(ask: Probe, folder: Path, version_of: Callable[[str], str | None]) -> list[Check]:
    """Every row. folder: the bundle whose engine is looked for; version_of: a distribution's installed version."""
    there, said = ask(_DRIVER, "")
    advice = "" if there else "not needed: the model runs on the CPU"
    rows = [*_jetson(), Check(GROUP, "NVIDIA driver, GPU", "ok" if there else "note", said, advice)]
    cuda = ctypes.util.find_library("cudart")
    advice = "" if cuda else "not needed, but for --backend ort-cuda"
    rows.append(Check(GROUP, "CUDA runtime", "ok" if cuda else "note", cuda or "none", advice))
    if not there:
        return rows + [_installed(name, wheels, version_of) for name, _, wheels, _, _ in LIBRARIES]
    with ThreadPoolExecutor(3) as pool:
        engine = pool.submit(_engine, ask, folder)
        found = list(pool.map(lambda entry: _library(ask, *entry), LIBRARIES))
        return [*rows, *found, engine.result()]


def _jetson() -> list[Check]:
    tegra, board = Path("/etc/nv_tegra_release"), Path("/proc/device-tree/model")
    if not tegra.exists():
        return []
    name = board.read_text(errors="replace").strip("\0\n") if board.exists() else "Jetson"
    return [Check(GROUP, "Jetson", "ok", f"{name}: {tegra.read_text(errors='replace').partition(',')[0]}")]


def _installed(name: str, wheels: tuple[str, ...], version_of: Callable[[str], str | None]) -> Check:
    """Without a driver nothing is imported; what is installed is still worth knowing."""
    versions = [version for wheel in wheels if (version := version_of(wheel))]
    if not versions:
        return Check(GROUP, name, "note", "none", "not needed: there is no GPU for it")
    return Check(
        GROUP,
        name,
        "note",
        versions[0],
        "it can build engines here, not run them: there is no GPU"
        if name == "TensorRT-RTX"
        else "it cannot be used here: there is no GPU",
    )


def _library(ask: Probe, name: str, kind: str, wheels: tuple[str, ...], flag: str, install: str) -> Check:
    good, said = ask(_LIBRARY, kind)
    advice = "" if good else f"--backend {flag} needs it: {install}"
    return Check(GROUP, name, "ok" if good else "note", said, advice)


def _engine(ask: Probe, folder: Path) -> Check:
    good, said = ask(_CACHED, str(folder))
    ready = good and said != "none"
    advice = "" if ready else f"build one: python -m export.trt {shlex.quote(str(folder))}"
    return Check(GROUP, "engine of this bundle", "ok" if ready else "note", said, advice)
