"""Where training runs: the CPU or a CUDA GPU, and the precision it runs in there."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from realtime.errors import GpuError


def pick_device(wanted: str) -> torch.device:
    """The device for auto, cpu or cuda; GpuError where cuda is demanded and not there."""
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise GpuError("PyTorch sees no CUDA GPU on this machine; train with --device cpu, or install its CUDA build")
    return torch.device("cuda" if there and wanted != "cpu" else "cpu")


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """bf16 where `precision` asks for it, or says auto and the device has it; else one that does nothing."""
    wanted = precision == "bf16" or (precision == "auto" and _has_bf16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "avx512_bf16" in flags


def hardware(device: torch.device) -> str:
    """The processor that trained, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
            model = f"{names[0]}, {len(names)} CPUs seen" if names else model
    except OSError:  # no such file but on Linux: the machine's kind has to do
        pass
    return f"{model}, {torch.get_num_threads()} threads"


def environment(device: torch.device, precision: torch.autocast, world: int) -> dict[str, Any]:
    """Versions and machine, for a run that is to be repeated."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "hardware": hardware(device),
        "cuda": torch.version.cuda,
        "bf16": precision._enabled,
        "world": world,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
    }
