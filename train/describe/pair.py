"""What two people do to each other: how far apart they are, who moves, whether they face each other, what touches."""

from __future__ import annotations

import numpy as np

from train.describe.signals import near
from train.describe.track import SIDES, Track
from train.describe.whole import stillness
from train.describe.words import DETAIL, MAIN, Fact

CLOSE_M, NEAR_M = 0.6, 1.2
NEARER_M = 0.25
FACING_DEG = 50.0
REACH_M = 0.22
MOVES_MORE = 1.3  # one person moves more than the other by this factor, or they move alike


def pair_facts(one: Track, other: Track) -> list[Fact]:
    """What holds between two people seen by one sensor over the same time; `one` is who moves more."""
    size = (one.size + other.size) / 2
    one, other = one.resized(size), other.resized(size)
    apart = np.linalg.norm(one.place - other.place, axis=1)
    first, last = near(apart, end=False), near(apart, end=True)
    middle = float(np.median(apart))
    far = "close together" if middle < CLOSE_M else "within arm's reach" if middle < NEAR_M else "well apart"
    facts = [Fact(MAIN, 110.0, f"two people are {far}")]
    change = "come nearer to each other" if first - last > NEARER_M else "move apart" if last - first > NEARER_M else ""
    if change:
        facts.append(Fact(MAIN, 109.0, f"they {change}"))
        ways = [float(np.linalg.norm(track.place[-1] - track.place[0])) for track in (one, other)]
        word = "to" if change.startswith("come") else "away from"
        if max(ways) > 2 * min(ways):
            who, whom = ("one person", "the other") if ways[0] > ways[1] else ("the other person", "the first")
            facts.append(Fact(MAIN, 108.0, f"{who} walks {word} {whom}, who stays"))
        else:
            facts.append(Fact(MAIN, 108.0, f"both walk {'towards' if word == 'to' else 'away from'} each other"))
    else:
        facts.append(Fact(DETAIL, 5.0, "they keep their distance"))
    facts += [Fact(DETAIL, 4.5, _facing(one, other))]
    movement = [stillness(track) for track in (one, other)]
    if movement[0] > MOVES_MORE * movement[1]:
        facts.append(Fact(DETAIL, 4.4, "one person moves more than the other"))
    return facts + _touches(one, other)


def _facing(one: Track, other: Track) -> str:
    to = other.root - one.root
    turned = []
    for track, way in ((one, to), (other, -to)):
        own = track.own(way)
        angle = np.degrees(np.arctan2(np.abs(own[:, 0]), own[:, 2]))
        turned.append(float(np.median(angle)) < FACING_DEG)
    if all(turned):
        return "they face each other"
    if turned[0] or turned[1]:
        return "one of them faces the other"
    return "they do not face each other"


def _touches(one: Track, other: Track) -> list[Fact]:
    """Which hand or foot of one comes near which part of the other."""
    facts = []
    parts = {"head": "head", "chest": "shoulder_center", "waist": "hip_center"}
    for track, whom, who in ((one, other, "one person's"), (other, one, "the other person's")):
        for limb, joint in (("hand", "wrist"), ("foot", "ankle")):
            for side in SIDES:
                if not track.has(f"{side}_{joint}"):
                    continue
                gaps = {
                    name: float(np.linalg.norm(track.at[f"{side}_{joint}"] - whom.at[part], axis=1).min())
                    for name, part in parts.items()
                    if whom.has(part)
                }
                if gaps and min(gaps.values()) < REACH_M:
                    target = min(gaps, key=lambda name: gaps[name])
                    owner = "the other's" if who.startswith("one") else "the first's"
                    text = f"{who} {side} {limb} reaches {owner} {target}"
                    facts.append(Fact(MAIN, 100.0 - min(gaps.values()), text))
    shake = _hands_meet(one, other)
    return facts + ([Fact(MAIN, 98.0, shake)] if shake else [])


def _hands_meet(one: Track, other: Track) -> str:
    gaps = {
        (mine, theirs): float(np.linalg.norm(one.at[f"{mine}_wrist"] - other.at[f"{theirs}_wrist"], axis=1).min())
        for mine in SIDES
        for theirs in SIDES
        if one.has(f"{mine}_wrist") and other.has(f"{theirs}_wrist")
    }
    if not gaps or min(gaps.values()) > REACH_M:
        return ""
    mine, theirs = min(gaps, key=lambda key: gaps[key])
    return f"one person's {mine} hand meets the other's {theirs} hand"
