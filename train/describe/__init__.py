"""Sentences about a motion, from the skeleton alone: language knowledge where there are no pictures.

In the spirit of PoseScript's posecodes (Delmas et al., ECCV 2022) and the motion codes of MotionScript (Yazdian et
al., 2023): geometric facts, by thresholds, become words. The facts, thresholds and words here are our own. What is said
depends neither on where the person is and faces, nor on the frame rate; left and right are the person's own, and the
mirrored motion gets the same sentences with the two words swapped. Thresholds are in metres of a standard body (see
track.py), degrees and seconds. NumPy only.
"""

from __future__ import annotations

import numpy as np

from realtime.skeleton import Layout
from train.describe.limbs import foot_facts, hand_facts
from train.describe.pair import pair_facts
from train.describe.thirds import order_facts, third_facts
from train.describe.track import Track, track_of
from train.describe.whole import jump_facts, posture_facts, still_facts, stillness, travel_facts, trunk_facts
from train.describe.words import DETAIL, MAIN, Fact, choose, mirrored, owned

__all__ = ["MAIN", "Fact", "describe", "facts_of", "mirrored"]

SENTENCES = 16


def describe(
    joints: np.ndarray,
    layout: Layout,
    fps: float,
    confidence: np.ndarray | None = None,
    count: int = SENTENCES,
) -> list[str]:
    """Up to `count` sentences about a clip, the most telling first where fewer are asked for.

    joints: (T, V, 3) of one person or (T, M, V, 3) of several, of whom the two that move most are spoken of; metres,
    Kinect axes, any published layout, T > 0. confidence: (T, V) or (T, M, V), 0 for a missing joint; without it a
    joint exactly at the origin is missing. The same clip gets the same sentences.
    Raises ValueError for other shapes, no frame, coordinates that are not finite, and counts below 1.
    """
    if count < 1:
        raise ValueError(f"count must be 1 or more, got {count}")
    return choose(facts_of(joints, layout, fps, confidence), count)


def facts_of(joints: np.ndarray, layout: Layout, fps: float, confidence: np.ndarray | None = None) -> list[Fact]:
    """Everything that can be said of a clip, with level and weight; arguments and errors as those of `describe`."""
    joints = np.asarray(joints)
    if joints.ndim == 3:
        joints = joints[:, None]
        confidence = None if confidence is None else np.asarray(confidence)[:, None]
    if joints.ndim != 4 or not joints.shape[1]:
        raise ValueError(f"joints must be (T, V, 3) or (T, M, V, 3) with M > 0, got {joints.shape}")
    sure = [None if confidence is None else confidence[:, m] for m in range(joints.shape[1])]
    people = [track_of(joints[:, m], layout, fps, sure[m]) for m in range(joints.shape[1])]
    seen = sorted((track for track in people if track is not None), key=lambda track: -stillness(track))
    if not seen:
        return [Fact(MAIN, 0.0, "nobody is seen")]
    facts = _person(seen[0]) if len(seen) == 1 else _two(seen[0], seen[1])
    return facts or [Fact(MAIN, 0.0, "a person is seen, but too little of the body to tell what it does")]


def _person(track: Track) -> list[Fact]:
    facts = posture_facts(track) + hand_facts(track)
    if len(track) > 1:
        facts += travel_facts(track) + trunk_facts(track) + jump_facts(track) + foot_facts(track) + still_facts(track)
        facts += order_facts(track) + third_facts(track)
    return facts


def _two(one: Track, other: Track) -> list[Fact]:
    """Facts between two people, then each one's own."""
    facts = pair_facts(one, other)
    for who, track, less in (("one person", one, 0.0), ("the other person", other, 0.5)):
        facts += [
            Fact(fact.level, fact.weight - less, owned(fact.text, who))
            for fact in _person(track)
            if fact.level in (MAIN, DETAIL)
        ]
    return facts
