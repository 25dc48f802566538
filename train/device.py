"""Where training runs: the CPU or a CUDA GPU, and the precision it runs in there."""

from __future__ import annotations

from pathlib import Path

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
