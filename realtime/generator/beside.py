"""Two generated people side by side, each going about their own business: a pair that does nothing together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from realtime.generator.everyday import everyday
from realtime.skeleton import CORE_16, KINECT_V2_25, convert

APART_M = (0.8, 2.2)


class Two(NamedTuple):
    """Times (T,) ns, joints (T, 2, V, 3) metres and confidence (T, 2, V) of CORE_16."""

    times_ns: np.ndarray
    joints: np.ndarray
    confidence: np.ndarray


def beside(count: int, seed: int) -> Iterator[Two]:
    """`count` pairs of different generated people for about a minute each. Same seed, same people."""
    rng = np.random.default_rng([seed, 2])
    people = everyday(2 * count, seed)
    for first, second in zip(people, people, strict=True):
        frames = min(len(first.times_ns), len(second.times_ns))
        bodies = [convert(m.joints[:frames], m.confidence[:frames], KINECT_V2_25, CORE_16) for m in (first, second)]
        joints = np.stack([body[0] for body in bodies], axis=1)
        angle, apart = rng.uniform(-np.pi, np.pi), rng.uniform(*APART_M)
        here = joints[0, 0, CORE_16.root] + apart * np.array([np.cos(angle), 0, np.sin(angle)])
        joints[:, 1] += (here - joints[0, 1, CORE_16.root]).astype(np.float32) * np.array([1, 0, 1], np.float32)
        yield Two(first.times_ns[:frames], joints, np.stack([body[1] for body in bodies], axis=1))
