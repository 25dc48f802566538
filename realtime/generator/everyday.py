"""A generated person going about: scripts of about a minute, and what a sensor sees of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from realtime.generator.perform import Motion, perform

# Picking up and pushing are left out: a model trained on people does not take the generated ones for such.
ACTIONS = ("wave", "walk", "throw", "clap", "jog", "kick", "squat")
REST = "nothing"


def everyday_script(rng: np.random.Generator) -> list[tuple[str, float]]:
    """About a minute: actions in random order with rests between, sitting down and standing up among them."""
    script: list[tuple[str, float]] = [(REST, float(rng.uniform(2, 5)))]
    for action in (*rng.permutation(ACTIONS), "chair"):
        if action == "chair":
            script += [("sit_down", float(rng.uniform(2.2, 3.2))), (REST, float(rng.uniform(2, 7)))]
            script += [("stand_up", float(rng.uniform(2.2, 3.2)))]
        else:
            long = action in ("walk", "jog")
            script.append((str(action), float(rng.uniform(4, 8) if long else rng.uniform(2.2, 4.2))))
        script.append((REST, float(rng.uniform(1.5, 4.0))))
    return script


def everyday(count: int, seed: int) -> Iterator[Motion]:
    """`count` different generated people at 30 fps, each through a script of its own. Same seed, same people."""
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        yield perform(everyday_script(rng), seed=int(rng.integers(2**31)), yaw_deg=float(rng.normal(0, 40)))
