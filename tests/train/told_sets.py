"""A small prepared set of generated people, for tests of descriptions and knowledge."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from realtime.generator import perform
from realtime.skeleton import KINECT_V2_25
from train.data.prepared import NUMBERS, Part, Prepared, load, write

ACTIONS = {"wave": "wave:right", "clap": "clap", "bow": "bow"}


def prepared_of(folder: Path, each: int = 1) -> Prepared:
    """Clips wave-0, clap-0, bow-0, wave-1 ... as `train.prepare` would leave them."""
    folder.mkdir(parents=True)
    pieces, names, labels = [], [], []
    for number in range(each):
        for label, (name, script) in enumerate(ACTIONS.items()):
            pieces.append(perform([(script, 3.0)], seed=number).joints[:, None])
            names.append(f"{name}-{number}")
            labels.append(label)
    numbers = {key: np.ones(len(names), kind) for key, kind in NUMBERS.items()}
    numbers |= {"frames": np.array([len(piece) for piece in pieces], np.int32), "label": np.array(labels, np.int16)}
    part = Part(np.concatenate(pieces).astype(np.float32), numbers, np.array(names), {})
    part.save(folder / "part.npz", "test")
    write(folder, "generated", KINECT_V2_25, list(ACTIONS), 1, 30.0, [folder / "part.npz"])
    (folder / "part.npz").unlink()
    return load(folder)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


class StopsAfter:
    """An interrupt after so many clips or sentences."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise KeyboardInterrupt
