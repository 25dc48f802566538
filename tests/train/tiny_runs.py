"""A prepared set and settings for runs of a second; as a program, `train.fit` with the tiny text encoder.

KILL_AFTER=n in the environment kills the program (-9) after n steps.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from realtime.skeleton import KINECT_V1_20
from tests.train.tiny_texts import tiny_encoder
from train import compose, prompts
from train.data.prepared import Part, write
from train.fit import main
from train.learner import Learner
from train.settings import Config

CLASSES = prompts.load("nw_ucla").classes


def prepared_set(folder: Path, clips_each: int = 2, broken: int | None = None) -> Path:
    """NW-UCLA in small: each class moves a joint of its own, seen by three cameras. broken: a clip that is not finite.

    Clip c * 3 * clips_each + ... is camera 1's, 2's, 3's in turn: a third of them is for testing.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    joints, rows = [], []
    for number in range(3 * clips_each * len(CLASSES)):
        label, camera, frames = number // (3 * clips_each), number % 3 + 1, int(rng.integers(6, 14))
        clip = rng.normal(0, 0.02, (frames, 1, len(KINECT_V1_20), 3)) + np.arange(20)[:, None] * (0.02, 0.08, 0.01)
        clip[:, 0, 2 * label, :2] += np.linspace(0, 1, frames)[:, None]
        joints.append(clip.astype(np.float32))
        rows.append((frames, label, 1 + number % 4, camera, 0))
    if broken is not None:
        joints[broken][2] = np.nan
    keys = ("frames", "label", "subject", "camera", "setup")
    numbers = {key: np.array(column) for key, column in zip(keys, zip(*rows, strict=True), strict=True)}
    names = np.array([f"clip_{number:03d}" for number in range(len(rows))])
    Part(np.concatenate(joints), numbers, names, {}).save(folder / "part.npz", "key")
    write(folder, "nw_ucla", KINECT_V1_20, CLASSES, 1, 30.0, [folder / "part.npz"])
    return folder


def settings(out: Path, **changes: Any) -> Config:
    """Settings for a small network, a few steps an epoch."""
    small: dict[str, Any] = {
        "out": out, "epochs": 2, "draws": 32, "batch": 16, "widths": (8, 16), "groups": 2, "synthetic": 1,
        "evaluate_every": 1, "threads": 1, "warm_up": 1, "contexts": 2, "device": "cpu", "precision": "fp32",
    }  # fmt: skip
    return Config(**{**small, **changes})


def flags(config: Config) -> list[str]:
    """What differs from the settings' defaults, as the command line has it."""
    words = []
    for name, value in vars(config).items():
        if value != getattr(Config, name, None):
            several = isinstance(value, tuple)
            words += [f"--{name.replace('_', '-')}", *map(str, value if several else (value,))]
    return words


def _kill_after(steps: int) -> None:
    whole, left = Learner.epoch, [steps]

    def epoch(self, number):
        for step in whole(self, number):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            yield step

    Learner.epoch = epoch  # type: ignore[method-assign]


if __name__ == "__main__":
    compose.open_encoder = tiny_encoder  # type: ignore[assignment]
    if "KILL_AFTER" in os.environ:
        _kill_after(int(os.environ["KILL_AFTER"]))
    sys.exit(main())
