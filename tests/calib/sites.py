"""Made-up recordings of a site, scored: chances of each class, four windows a second, one person."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from rich.console import Console

from calib.scored import Played, Step
from realtime.bundle import Bundle, default_bundle, load_bundle
from realtime.schema import SECOND_NS, Scores
from train.data.clip import Truth

CLASSES = ("nothing", "quiet", "noisy", "rare")
ACTIONS = CLASSES[1:]
PER_S = 4  # windows
QUIET = Console(quiet=True)
STILL = (0.97, 0.01, 0.01, 0.01)


def made_bundle() -> Bundle:
    """The shipped bundle with three actions of these tests' own."""
    shipped = load_bundle(default_bundle())
    actions = tuple(replace(shipped.actions[0], id=name, name=name, on=0.75, off=0.7) for name in ACTIONS)
    return replace(shipped, classes=CLASSES, actions=actions)


def still(minutes: float) -> np.ndarray:
    """Chances (N, K) of somebody who does nothing."""
    return np.tile(STILL, (round(minutes * 60 * PER_S), 1))


def played(share: np.ndarray, name: str, truths: tuple[Truth, ...] | None = None) -> Played:
    """A recording of these chances (N, K)."""
    logits = np.log(np.maximum(share, 1e-6)).astype(np.float32)
    steps = [
        Step(at, [Scores(k, at, 1, at, logits[k], share[k].astype(np.float32))], [])
        for k, at in enumerate((np.arange(len(share)) * SECOND_NS // PER_S).tolist())
    ]
    length = len(share) * SECOND_NS // PER_S
    return Played(name, name, steps, length, length, truths, False)


def site(seed: int, minutes: float, bumps: dict[str, float], truths_a_minute: float = 0.0) -> Played:
    """A made-up recording: each action rises by chance `bumps` times an hour to a height even in 0 to 1.

    True actions, of any kind, rise to 0.6 to 1.
    """
    rng = np.random.default_rng(seed)
    rows = round(minutes * 60 * PER_S)
    share = np.zeros((rows, len(CLASSES)))
    truths, place = [], 0
    slots = rng.permutation(rows // (8 * PER_S)) * 8 * PER_S  # 8 s apart, so that nothing overlaps
    for action, an_hour in bumps.items():
        for _ in range(rng.poisson(an_hour * minutes / 60)):
            share[slots[place] : slots[place] + 2 * PER_S, CLASSES.index(action)] = rng.uniform(0, 1)
            place += 1
    for _ in range(round(truths_a_minute * minutes)):
        at, action = int(slots[place]), str(rng.choice(ACTIONS))
        share[at : at + 3 * PER_S, CLASSES.index(action)] = rng.uniform(0.6, 1)
        truths.append(Truth(action, at * SECOND_NS // PER_S, (at + 3 * PER_S) * SECOND_NS // PER_S))
        place += 1
    share[:, 0] = 1 - share[:, 1:].sum(axis=1)
    known = tuple(sorted(truths, key=lambda truth: truth.start_ns)) if truths_a_minute else None
    return played(share, f"made {seed}", known)
