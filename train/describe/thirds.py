"""The clip in thirds, and the order in which limbs begin to move."""

from __future__ import annotations

import numpy as np

from train.describe.limbs import MOVES_M, hand_of, zone_name
from train.describe.track import RATE, SIDES, Track
from train.describe.whole import HELD_BY, gait_hz, postures
from train.describe.words import ORDER, THIRDS, Fact, listed, spoken

LEAST_S = 0.6  # a shorter clip has no thirds
BEGINS_M = 0.15  # a limb has begun to move when it is this far from where it was
APART_S = 0.25  # limbs that begin within this time begin together
_WHEN = ("at the beginning", "in the middle", "at the end")


def third_facts(track: Track) -> list[Fact]:
    """What holds in each third: posture, where the hands are, which limb moves most."""
    if len(track) < LEAST_S * RATE:
        return []
    borders = np.linspace(0, len(track), 4).astype(int)
    facts = []
    for i, when in enumerate(_WHEN):
        clauses = _clauses(track.part(borders[i], borders[i + 1]))
        if clauses:
            facts.append(Fact(THIRDS, 3.0 - i, f"{when}, {listed(clauses)}"))
    return facts


def _clauses(part: Track) -> list[str]:
    clauses = []
    states = postures(part)
    if states is not None:
        clauses.append(f"the person {HELD_BY[int(np.bincount(states).argmax())]}")
    hands = {side: hand for side in SIDES if (hand := hand_of(part, side)) is not None}
    zones = {side: int(np.bincount(hand.zone).argmax()) for side, hand in hands.items()}
    if len(zones) == 2 and len(set(zones.values())) == 1:
        clauses.append(f"both hands are {zone_name(zones['right'])}")
    else:
        high_first = sorted(zones, key=lambda side: -zones[side])
        clauses += [f"the {side} hand is {zone_name(zones[side])}" for side in high_first]
    moved = {side: hand.moved for side, hand in hands.items() if hand.moved > 2 * MOVES_M}
    if len(moved) == 2 and max(moved.values()) < 1.5 * min(moved.values()):
        clauses.append("both hands move")
    elif moved:
        clauses.append(f"the {max(moved, key=lambda side: moved[side])} hand moves most")
    return clauses


def order_facts(track: Track) -> list[Fact]:
    """Which limbs of who does not walk begin to move first, then, after that."""
    if gait_hz(track) > 0:
        return []
    # Hands move against the body, feet and hips over the floor.
    ways = {f"{side} hand": track.local(f"{side}_wrist") for side in SIDES if track.has(f"{side}_wrist")}
    ways |= {f"{side} foot": track.at[f"{side}_ankle"] for side in SIDES if track.has(f"{side}_ankle")}
    ways |= {"hips": track.at["hip_center"]} if track.has("hip_center") else {}
    begins: dict[str, tuple[float, float]] = {}
    for limb, place in ways.items():
        away = np.linalg.norm(place - np.median(place[: max(1, int(0.2 * RATE))], axis=0), axis=1)
        if away.max() > 2 * BEGINS_M:
            begins[limb] = (float(np.argmax(away > BEGINS_M)) / RATE, float(away.max()))
    if len(begins) < 2:
        return []
    groups: list[list[str]] = []
    for limb in sorted(begins, key=lambda name: (begins[name][0], -begins[name][1])):
        if groups and begins[limb][0] - begins[groups[-1][0]][0] <= APART_S:
            groups[-1].append(limb)
        else:
            groups.append([limb])
    if len(groups) < 2:
        return []
    told = [_joined(sorted(group, key=lambda name: -begins[name][1])) for group in groups[:3]]
    text = f"first {told[0]}, then {told[1]}" + (f", and last {told[2]}" if len(told) > 2 else "")
    return [Fact(ORDER, 1.0, text)]


def _joined(group: list[str]) -> str:
    """The limbs of a group as a clause, both of a kind said as one."""
    names = []
    for limb, plural in (("hand", "hands"), ("foot", "feet")):
        of_kind = [name for name in group if name.endswith(limb)]
        names += [f"both {plural}"] if len(of_kind) == 2 else [f"the {name}" for name in of_kind]
    names += [f"the {name}" for name in group if name == "hips"]
    many = len(names) > 1 or names[0].startswith("both") or names[0] == "the hips"
    return spoken("{it} [moves|move]", listed(names), many)
