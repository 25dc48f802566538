"""A knowledge folder for the tiny prepared set, whose clips of one class say one thing; `train.pretrain` as a program.

KILL_AFTER=n in the environment kills the program (-9) after n steps.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.train.tiny_runs import _kill_after
from train import knowledge_folder
from train.data.prepared import load
from train.pretrain import Config, main


def knowledge_of(
    prepared: Path, folder: Path, kinds: tuple[str, ...] = ("language",), nothing_of: tuple[int, ...] = ()
) -> Path:
    """What is said of each clip: its class's own direction and some noise. nothing_of: clips of which nothing is."""
    clips = load(prepared)
    rng = np.random.default_rng(0)
    arrays = {}
    for number, kind in enumerate(kinds):
        rows = rng.normal(0, 0.1, (len(clips), 16 + number)) + np.eye(16 + number)[clips.label]
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        rows[list(nothing_of)] = 0
        arrays[f"{kind}.npy"] = rows.astype(np.float32)
    knowledge_folder.write(
        folder, clips.data, clips.name.tolist(), arrays, None, {"made": {kind: {"encoder": "tiny"} for kind in arrays}}
    )
    return folder


def settings(out: Path, prepared: Path, knowledge: Path, **changes: Any) -> Config:
    """Settings for a small network, a few steps an epoch."""
    small: dict[str, Any] = {
        "out": out, "prepared": prepared, "knowledge": knowledge, "epochs": 2, "batch": 16, "backbone": "graphnet",
        "widths": (8, 16), "groups": 2, "window": 16, "dim": 16, "warm_up": 1, "threads": 1, "device": "cpu",
        "precision": "fp32",
    }  # fmt: skip
    return Config(**{**small, **changes})


if __name__ == "__main__":
    if "KILL_AFTER" in os.environ:
        _kill_after(int(os.environ["KILL_AFTER"]))
    sys.exit(main())
