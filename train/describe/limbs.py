"""What hands and feet do: where they are by the body's own landmarks, which way they go, how often, how fast.

A limb's facts are templates without a side (see words.sided), so that what both do is said once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from train.describe.signals import Swings, held, near, span, swings, turning_points
from train.describe.track import RATE, SIDES, Track
from train.describe.whole import gait_hz
from train.describe.words import DETAIL, MAIN, Fact, number, sided

KNEE, HANG, WAIST, CHEST, SHOULDER, HEAD, ABOVE, UP = range(8)  # UP: over the shoulders, of who has no head
_ZONES = (
    *("down at the knees", "at the thighs", "at waist height", "at chest height", "at shoulder height"),
    *("at head height", "above the head", "above the shoulders"),
)
HIP_ABOVE_M = 0.06  # a hand that hangs is not higher than this over the hips
KNEE_ABOVE_M, KNEE_BELOW_HIP_M = 0.13, 0.22  # down at the knees: not higher over one, and as far below the hips
WAIST_SHARE = 0.5  # of the trunk: below it a hand is at the waist
SHOULDER_M = 0.09
HEAD_M = 0.10  # of the head joint to the top of the head
SWING_M = 0.10
STROKE_M = 0.18
FAST_M_S, SLOW_M_S = 2.4, 0.5
MOVES_M = 0.12
OUT_M, FRONT_M, CROSS_M = 0.42, 0.30, 0.05
STRETCHED, BENT = 0.93, 0.75  # shoulder to wrist, of the arm's length
TOUCH_M, HEAD_REACH_M = 0.16, 0.24
APART_M = 0.30
CIRCLE_M, ROUND_SHARE = 0.25, 0.62  # a circle fills 0.79 of its box, what is drawn to and fro nothing
OPEN_SHARE = 0.5  # between its ends, of the box: a swipe is not closed
FOOT_LIFT_M = 0.15
_AXES = ("from side to side", "up and down", "forward and back")


@dataclass(frozen=True)
class Hand:
    """One hand. place: (R, 3) from the root, outward, up, front. zone: (R,) KNEE to ABOVE. stretch: (R,) of the arm."""

    place: np.ndarray
    zone: np.ndarray
    stretch: np.ndarray | None
    swings: tuple[Swings, ...]  # of the three
    axis: int  # which of them tells most
    moved: float

    @property
    def swing(self) -> Swings:
        return self.swings[self.axis]

    @property
    def top(self) -> int:
        return int(held(self.zone))

    @property
    def low(self) -> int:
        return int(held(self.zone, most=False))

    @property
    def first(self) -> int:
        return int(near(self.zone, end=False))

    @property
    def last(self) -> int:
        return int(near(self.zone, end=True))


def outward(track: Track, joint: str, side: str) -> np.ndarray:
    """A joint (R, 3) from the root: to its own side, up, front."""
    return track.local(joint) * np.array([1.0 if side == "right" else -1.0, 1.0, 1.0])


def zone_name(zone: int) -> str:
    """Where a hand in a zone is: at head height."""
    return _ZONES[zone]


def hand_of(track: Track, side: str) -> Hand | None:
    """The hand of one side; None where it, the hips or the shoulders are not known."""
    wrist = f"{side}_wrist"
    if not track.has(wrist, "hip_center", "shoulder_center"):
        return None
    place = outward(track, wrist, side)
    heights = {joint: track.at[joint][:, 1] for joint in track.at}
    y, hip, shoulder = heights[wrist], heights["hip_center"], heights["shoulder_center"]
    zone = np.full(len(track), HANG)
    knees = [heights[f"{s}_knee"] for s in SIDES if f"{s}_knee" in heights]
    if knees:
        zone[(y < np.min(knees, axis=0) + KNEE_ABOVE_M) & (y < hip - KNEE_BELOW_HIP_M)] = KNEE
    borders = [(WAIST, hip + HIP_ABOVE_M), (CHEST, hip + WAIST_SHARE * (shoulder - hip))]
    borders += [(SHOULDER, shoulder - SHOULDER_M), (HEAD if "head" in heights else UP, shoulder + SHOULDER_M)]
    borders += [(ABOVE, heights["head"] + HEAD_M)] if "head" in heights else []
    for higher, border in borders:
        zone[(y > border) & (zone != KNEE)] = higher
    stretch = None
    if track.has(f"{side}_shoulder", f"{side}_elbow"):
        first, middle, end = (track.at[f"{side}_{joint}"] for joint in ("shoulder", "elbow", "wrist"))
        length = np.median(np.linalg.norm(middle - first, axis=1) + np.linalg.norm(end - middle, axis=1))
        stretch = np.linalg.norm(end - first, axis=1) / max(float(length), 1e-6)
    found = tuple(swings(place[:, axis], SWING_M) for axis in range(3))
    axis = int(np.argmax([one.size * one.count for one in found]))
    return Hand(place, zone, stretch, found, axis, max(span(place[:, axis]) for axis in range(3)))


def _agreed(hands: dict[str, Hand]) -> dict[str, Hand]:
    """Hands that both go to and fro do so along one axis, where each by itself might be a close choice."""
    if len(hands) < 2 or not all(hand.swing.again for hand in hands.values()):
        return hands
    axis = int(np.argmax([sum(h.swings[i].size * h.swings[i].count for h in hands.values()) for i in range(3)]))
    if not all(hand.swings[axis].again for hand in hands.values()):
        return hands
    return {side: replace(hand, axis=axis) for side, hand in hands.items()}


def hand_facts(track: Track) -> list[Fact]:
    """What the hands do, each and together."""
    hands = _agreed({side: hand for side in SIDES if (hand := hand_of(track, side)) is not None})
    walking = gait_hz(track) > 0
    by_side = {side: [_main(hand, walking), *_details(hand, walking)] for side, hand in hands.items()}
    for side, hand in hands.items():
        by_side[side] += [*_reaches(track, side, hand), *([] if walking else _circle(hand))]
    facts = sided("hand", by_side)
    return facts + (_together(track, hands) if len(hands) == 2 else [])


def _main(hand: Hand, walking: bool) -> tuple[int, float, str]:
    axis, swing = hand.axis, hand.swing
    zone, moved = zone_name(hand.top), hand.moved
    to = zone.replace("at ", "to ", 1)
    level = MAIN if moved > 2 * MOVES_M and (hand.top > WAIST or hand.low == KNEE) else DETAIL
    if swing.again and hand.top >= WAIST and not (walking and hand.top <= CHEST):
        return MAIN, 50 + moved, f"{{it}} [is|are] raised {to} and [moves|move] {_AXES[axis]} again and again"
    if swing.again:
        return DETAIL, moved, f"{{it}} [swings|swing] {_AXES[axis]}"
    if hand.top > WAIST and hand.first <= WAIST:
        end = "lowered again" if hand.last <= WAIST else "kept up"
        return level, 50 + moved, f"{{it}} [is|are] raised {to} and {end}"
    if hand.top > WAIST and hand.last <= WAIST:
        return level, 50 + moved, f"{{it}} [is|are] lowered from {zone.removeprefix('at ')}"
    if hand.low == KNEE and hand.first != KNEE:
        end = " and [comes|come] up again" if hand.last != KNEE else ""
        return level, 50 + moved, f"{{it}} [reaches|reach] down to the knees{end}"
    if hand.low == KNEE and hand.last != KNEE:
        return level, 50 + moved, "{it} [comes|come] up from the knees"
    if hand.top >= WAIST:
        verb = "[stays|stay]" if hand.low >= WAIST else "[gets|get] as high as"
        return DETAIL, moved, f"{{it}} {verb} {zone if hand.low >= WAIST else zone.removeprefix('at ')}"
    return DETAIL, moved, "{it} [stays|stay] down at the thighs"


def _details(hand: Hand, walking: bool) -> list[tuple[int, float, str]]:
    if hand.moved < MOVES_M:
        return [(DETAIL, 0.02, "{it} [keeps|keep] still")] if len(hand.zone) > 1 else []
    facts = []
    axis, swing = hand.axis, hand.swing
    if swing.again:
        rate = swing.rate_hz / 2
        often = (
            "less than once"
            if rate < 0.8
            else "about once"
            if rate < 1.4
            else "about twice"
            if rate < 2.5
            else "quickly"
        )
        often += "" if often == "quickly" else " a second"
        facts.append((DETAIL, hand.moved, f"{{it}} [goes|go] {_AXES[axis]} {often}"))
    elif not walking and (way := _strokes(hand.place)):
        facts.append((DETAIL, hand.moved + 0.1, f"{{it}} [goes|go] {way}"))
    lift = 2 if len(hand.place) > 2 else 1
    step = np.linalg.norm(hand.place[lift:] - hand.place[:-lift], axis=1) * RATE / lift
    speed = held(step) if len(step) else 0.0
    if speed > FAST_M_S:
        facts.append((DETAIL, hand.moved - 0.1, "{it} [moves|move] fast"))
    elif speed < SLOW_M_S:
        facts.append((DETAIL, hand.moved - 0.1, "{it} [moves|move] slowly"))
    return facts + _extreme(hand)


def _extreme(hand: Hand) -> list[tuple[int, float, str]]:
    """Where a raised hand is at its highest, and how the arm is."""
    if hand.top < CHEST:
        return []
    high = hand.zone >= hand.top
    out, _, front = np.median(hand.place[high], axis=0)
    where = (
        "out to its side"
        if out > OUT_M and out > front
        else "in front of the body"
        if front > FRONT_M
        else "near the body"
    )
    arm = ""
    if hand.stretch is not None:
        most = float(np.median(hand.stretch[high]))
        arm = ", the arm stretched" if most > STRETCHED else ", the elbow bent" if most < BENT else ""
    facts = [(DETAIL, hand.moved - 0.05, f"at [its|their] highest {{it}} [is|are] {where}{arm}")]
    if hand.stretch is not None and held(hand.stretch) > STRETCHED:
        far = hand.stretch > STRETCHED
        if held(np.where(far & (hand.zone >= CHEST), hand.place[:, 2], -1.0)) > 0.45:
            facts.append((DETAIL, hand.moved, "{it} [is|are] stretched out to the front"))
    return facts


def _strokes(place: np.ndarray) -> str:
    """The way of a hand (R, 3) in its largest movements, in order: up and forward, then down and back."""
    names = (("outward", "inward"), ("up", "down"), ("forward", "back"))
    cuts = sorted(
        {0, len(place) - 1, *(int(row) for axis in range(3) for row in turning_points(place[:, axis], STROKE_M))}
    )
    told: list[str] = []
    for start, stop in pairwise(cuts):
        way = place[stop] - place[start]
        order = [axis for axis in np.argsort(-np.abs(way)) if abs(way[axis]) > STROKE_M][:2]
        words = " and ".join(names[axis][int(way[axis] < 0)] for axis in sorted(order, key=lambda a: (a != 1, a)))
        if words and (not told or told[-1] != words):
            told.append(words)
    return ", then ".join(told[:4])


def _circle(hand: Hand) -> list[tuple[int, float, str]]:
    """That a raised hand goes round: its path before the body encloses much of the box that it fills."""
    path = hand.place[hand.zone >= WAIST, :2]
    if len(path) < 3:
        return []
    box = np.ptp(path, axis=0)
    if box.min() < CIRCLE_M or np.linalg.norm(path[-1] - path[0]) > OPEN_SHARE * box.max():
        return []
    x, y = (path - path.mean(axis=0)).T
    area = 0.5 * float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / float(box.prod())
    if abs(area) < ROUND_SHARE:
        return []
    way = "inward" if area > 0 else "outward"
    return [(MAIN, 48.0, f"{{it}} [goes|go] round in a circle before the body, {way} over the top")]


def _reaches(track: Track, side: str, hand: Hand) -> list[tuple[int, float, str]]:
    """What a hand comes near to: the head, the other side of the body."""
    facts = []
    wrist = track.at[f"{side}_wrist"]
    if track.has("head"):
        gap = np.linalg.norm(wrist - track.at["head"], axis=1)
        if held(gap, most=False) < HEAD_REACH_M:
            facts.append((MAIN, 45.0, "{it} [comes|come] close to the head"))
    crossed = held(hand.place[:, 0], most=False) < -CROSS_M
    if crossed:
        facts.append((MAIN, 40.0 + hand.moved, "{it} [crosses|cross] the middle of the body to the other side"))
    return facts


def _together(track: Track, hands: dict[str, Hand]) -> list[Fact]:
    """How far the hands are from each other, and whether they meet."""
    right, left = (track.at[f"{side}_wrist"] for side in SIDES)
    gap = np.linalg.norm(right - left, axis=1)
    least, most = held(gap, most=False), held(gap)
    both = swings(gap, SWING_M)
    high = max(int(np.median(hand.zone[gap <= least + 0.05])) for hand in hands.values())
    where = "behind the body" if _behind(hands, gap, least) else zone_name(high)
    if both.again and least < APART_M and high >= WAIST:
        return [Fact(MAIN, 60.0, f"the hands come together and part again and again {where}, as in clapping")]
    if least < TOUCH_M and most > 2 * TOUCH_M:
        return [Fact(MAIN, 42.0, f"the hands meet {where}")]
    if most < APART_M and high >= WAIST:
        return [Fact(MAIN, 42.0, f"the hands are kept together {where}")]
    if most > 1.2:
        return [Fact(DETAIL, 0.6, "the hands are spread far apart")]
    return []


def _behind(hands: dict[str, Hand], gap: np.ndarray, least: float) -> bool:
    return all(float(np.median(hand.place[gap <= least + 0.05, 2])) < -0.1 for hand in hands.values())


def foot_facts(track: Track) -> list[Fact]:
    """Feet that are lifted, and knees that bend, of who does not walk."""
    if not track.has("left_ankle", "right_ankle") or gait_hz(track) > 0 or len(track) < 2:
        return []
    by_side = {}
    for side, other in zip(SIDES, reversed(SIDES), strict=True):
        between = track.at[f"{side}_ankle"] - track.at[f"{other}_ankle"]
        lift = between[:, 1]
        entries = []
        if held(lift) > FOOT_LIFT_M:
            high = lift > 0.8 * held(lift)
            front = float(np.median(track.own(between)[high, 2]))
            way = "forward" if front > 0.25 else "backward" if front < -0.2 else "up"
            count = len(turning_points(lift, FOOT_LIFT_M)) // 2
            often = f", {number(count)} times" if count > 1 else ""
            entries.append(
                (MAIN, 55.0 + held(lift), f"{{it}} [is|are] lifted off the floor and [swings|swing] {way}{often}")
            )
        by_side[side] = entries
    return sided("foot", by_side) + _knee_facts(track)


def _knee_facts(track: Track) -> list[Fact]:
    by_side = {}
    for side in SIDES:
        if track.has(f"{side}_hip", f"{side}_knee", f"{side}_ankle"):
            hip, knee, ankle = (track.at[f"{side}_{joint}"] for joint in ("hip", "knee", "ankle"))
            upper, lower = hip - knee, ankle - knee
            size = np.linalg.norm(upper, axis=1) * np.linalg.norm(lower, axis=1)
            bend = 180 - np.degrees(np.arccos(np.clip((upper * lower).sum(axis=1) / np.maximum(size, 1e-6), -1, 1)))
            first, last = near(bend, end=False), near(bend, end=True)
            by_side[side] = _bends(first, held(bend), last)
    return sided("knee", by_side)


BENT_KNEE_DEG, STRAIGHT_DEG = 60.0, 35.0


def _bends(first: float, most: float, last: float) -> list[tuple[int, float, str]]:
    if most < BENT_KNEE_DEG:
        return []
    if first < STRAIGHT_DEG and last < STRAIGHT_DEG:
        return [(DETAIL, 0.5, "{it} [bends|bend] deeply and [straightens|straighten] again")]
    if first < STRAIGHT_DEG:
        return [(DETAIL, 0.5, "{it} [bends|bend] and [stays|stay] bent")]
    if last < STRAIGHT_DEG:
        return [(DETAIL, 0.5, "{it} [straightens|straighten]")]
    return [(DETAIL, 0.3, "{it} [is|are] bent")]
