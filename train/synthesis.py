"""Generated people for the training pool, from the runtime's own kinematic generator."""

from __future__ import annotations

from collections.abc import Iterator

from realtime.generator.everyday import ACTIONS, REST, everyday
from realtime.skeleton import KINECT_V2_25
from train.data.clip import Recording, Truth


def synthetic_recordings(count: int, seed: int) -> Iterator[Recording]:
    """`count` recordings of different generated people at 30 fps, with their true actions. Same seed, same people."""
    for number, motion in enumerate(everyday(count, seed)):
        truths = tuple(Truth(s.label, s.start_ns, s.end_ns) for s in motion.segments if s.label != REST)
        yield Recording(
            "synthetic", f"synthetic_{number:04d}", number, motion.times_ns, motion.joints[:, None],
            motion.confidence[:, None], KINECT_V2_25, truths, False, (*ACTIONS, "sit_down", "stand_up"),
        )  # fmt: skip
