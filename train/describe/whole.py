"""What the whole body does: posture and its changes, travel, gait, turning, the trunk, stillness."""

from __future__ import annotations

import numpy as np

from train.describe.signals import held, near, runs, span, swings
from train.describe.track import RATE, SIDES, Track
from train.describe.words import DETAIL, MAIN, Fact, number

# Posture, of angles in degrees and shares of the stretched leg.
STANDING, BENDING, CROUCHING, SITTING, LYING = range(5)
HELD_BY = ("stands", "stands bent forward", "crouches", "sits", "lies")
BENT_DEG = 45.0  # trunk from upright
LYING_DEG = 60.0
LOW_HIPS = 0.80  # hips above the ankles, of the stretched leg: below this they are lowered
SEAT_BACK = 0.34  # hips behind the ankles, of the stretched leg: as far back as this nobody balances
THIGH_DEG = 50.0  # thighs from upright: as flat as this they lie on a seat
LYING_HIPS = 0.45
POSTURE_S = 0.3
# Travel, in metres and degrees.
STEP_M, WALK_M = 0.30, 0.70
SLOW_M_S, FAST_M_S = 0.45, 1.6
TURN_DEG = 60.0
STRIDE_M, LIFT_M = 0.16, 0.06  # feet pass each other; one is higher than the other
STEPS = 2  # and more are a gait of who gets somewhere; on the spot it takes a repetition
RUN_HZ = 2.35  # steps a second
JUMP_M = 0.10
LEAN_DEG, SIDE_DEG, TWIST_DEG, COME_BACK_DEG = 22.0, 18.0, 25.0, 15.0
STILL_M = 0.10


def tilt_deg(track: Track) -> np.ndarray | None:
    """How far the trunk is from upright, degrees (R,)."""
    if not track.has("hip_center", "shoulder_center"):
        return None
    trunk = track.at["shoulder_center"] - track.at["hip_center"]
    return np.degrees(np.arccos(np.clip(trunk[:, 1] / np.maximum(np.linalg.norm(trunk, axis=1), 1e-6), -1, 1)))


def postures(track: Track) -> np.ndarray | None:
    """STANDING to LYING of each row (R,); None where hips, knees or ankles are not known."""
    legs = [side for side in SIDES if track.has(f"{side}_hip", f"{side}_knee", f"{side}_ankle")]
    if not legs:
        return None
    height, back, thigh = [], [], []
    for side in legs:
        hip, knee, ankle = (track.at[f"{side}_{joint}"] for joint in ("hip", "knee", "ankle"))
        upper, lower = knee - hip, ankle - knee
        length = np.median(np.linalg.norm(upper, axis=1) + np.linalg.norm(lower, axis=1))
        height.append((hip - ankle)[:, 1] / length)
        back.append(track.own(ankle - hip)[:, 2] / length)
        thigh.append(
            np.degrees(np.arccos(np.clip(-upper[:, 1] / np.maximum(np.linalg.norm(upper, axis=1), 1e-6), -1, 1)))
        )
    low, behind, flat = np.max(height, axis=0), np.mean(back, axis=0), np.mean(thigh, axis=0)
    tilt = tilt_deg(track)
    tilt = np.zeros(len(track)) if tilt is None else tilt
    rows = np.where(tilt > BENT_DEG, BENDING, STANDING)
    seated = (behind > SEAT_BACK) & (flat > THIGH_DEG)
    rows = np.where(low < LOW_HIPS, np.where(seated, SITTING, CROUCHING), rows)
    return np.where((tilt > LYING_DEG) & (low < LYING_HIPS), LYING, rows)


def posture_facts(track: Track) -> list[Fact]:
    """The posture, and what it changes to."""
    states = postures(track)
    if states is None:
        return []
    found = [state for state, _, _ in runs(states, POSTURE_S)]
    return [Fact(MAIN, 100.0, f"the person {_story(found)}")]


def _story(found: list[int]) -> str:
    first, last = found[0], found[-1]
    between = set(found[1:-1])
    if len(found) == 1:
        return HELD_BY[first]
    if first == last:
        low = max(between | {first}) if first == STANDING else min(between)
        if first == STANDING:
            return {
                BENDING: "stands, bends down and comes up again",
                CROUCHING: "stands, goes down into a crouch and stands up again",
                SITTING: "stands, sits down and stands up again",
                LYING: "stands, goes down to the floor and stands up again",
            }[low]
        return f"{HELD_BY[first]}, changes posture and {HELD_BY[first]} again"
    if last == STANDING:
        return {
            BENDING: "is bent forward at first and comes up to stand",
            CROUCHING: "rises from a crouch to stand",
            SITTING: "sits at first and stands up",
            LYING: "lies at first and stands up",
        }[first]
    after = {BENDING: "bends down", CROUCHING: "goes down into a crouch", SITTING: "sits down", LYING: "lies down"}
    return f"{HELD_BY[first]} at first and {after[last]}"


def gait_hz(track: Track) -> float:
    """Steps a second while the legs step in turn; 0 where they do not."""
    if not track.has("left_ankle", "right_ankle"):
        return 0.0
    between = track.own(track.at["right_ankle"] - track.at["left_ankle"])
    for signal, least in ((between[:, 2], STRIDE_M), (between[:, 1], LIFT_M)):
        found = swings(signal, least)
        if found.again or (found.count >= STEPS and _walked(track) > WALK_M):
            return found.rate_hz
    return 0.0


def _walked(track: Track) -> float:
    return float(np.linalg.norm(track.place - track.place[0], axis=1).max())


def travel_facts(track: Track) -> list[Fact]:
    """Where the person goes, by which gait, and how it turns."""
    far, rate = _walked(track), gait_hz(track)
    gone = track.place[-1] - track.place[0]
    net = float(np.linalg.norm(gone))
    turned = np.degrees(track.heading[-1] - track.heading[0])
    facts = []
    if far >= WALK_M:
        verb = "runs" if rate > RUN_HZ else "walks" if rate else "moves"
        back = net < 0.5 * far
        way = "away and comes back" if back else f"{_direction(track, gone)} for some way"
        facts.append(Fact(MAIN, 90.0, f"the person {verb} {way}"))
        seconds = len(track) / RATE
        speed = float(np.linalg.norm(np.diff(track.place, axis=0), axis=1).sum()) / seconds
        pace = "slowly" if speed < SLOW_M_S else "fast" if speed > FAST_M_S else "at a moderate speed"
        facts.append(Fact(DETAIL, 1.0, f"the whole body travels {pace}"))
    elif rate:
        verb = "runs" if rate > RUN_HZ else "walks"
        facts.append(Fact(MAIN, 90.0, f"the person {verb} on the spot, the legs stepping in turn"))
    elif net >= STEP_M:
        facts.append(Fact(DETAIL, 0.9, f"the person steps {_direction(track, gone)}"))
    elif len(track) > 1:
        facts.append(Fact(DETAIL, 0.05, "the person stays in one place"))
    if rate:
        facts.append(Fact(DETAIL, 0.8, f"the legs take about {number(max(1, round(rate)))} steps a second"))
    if abs(turned) > TURN_DEG:
        side = "left" if turned > 0 else "right"
        size = "a quarter" if abs(turned) < 135 else "half" if abs(turned) < 225 else "more than half"
        facts.append(Fact(MAIN, 85.0, f"the person turns to the {side} by about {size} of a full turn"))
    return facts


def _direction(track: Track, gone: np.ndarray) -> str:
    """Where a way (2,) along the floor leads, for who faces as the person does on its median row."""
    mean = np.median(track.axes, axis=0)
    right, front = (float(mean[i] @ [gone[0], 0.0, gone[1]]) for i in (0, 2))
    if abs(front) >= abs(right):
        return "forward" if front > 0 else "backward"
    return "to the right" if right > 0 else "to the left"


def trunk_facts(track: Track) -> list[Fact]:
    """How the upper body leans, sideways and forward, and twists."""
    if not track.has("hip_center", "shoulder_center"):
        return []
    facts = []
    trunk = track.own(track.at["shoulder_center"] - track.at["hip_center"])
    lean = np.degrees(np.arctan2(trunk[:, 2], np.abs(trunk[:, 1])))
    most = held(lean)
    if most > LEAN_DEG:
        end = "and comes up again" if near(lean, end=True) < COME_BACK_DEG else "and stays so"
        far = "far " if most > BENT_DEG else ""
        facts.append(Fact(MAIN if far else DETAIL, 70.0 if far else 0.5, f"the upper body leans {far}forward {end}"))
    elif held(lean, most=False) < -SIDE_DEG:
        facts.append(Fact(DETAIL, 0.45, "the upper body leans backward"))
    side = np.degrees(np.arctan2(trunk[:, 0], np.abs(trunk[:, 1])))
    words = [word for sign, word in ((1, "right"), (-1, "left")) if held(sign * side) > SIDE_DEG and most < BENT_DEG]
    if len(words) == 2:
        facts.append(Fact(DETAIL, 0.4, "the upper body leans to both sides"))
    else:
        facts += [Fact(DETAIL, 0.4, f"the upper body leans to the {word}") for word in words]
    return facts + _twist_facts(track)


def _twist_facts(track: Track) -> list[Fact]:
    pairs = [(f"right_{joint}", f"left_{joint}") for joint in ("shoulder", "hip")]
    if not all(track.has(*pair) for pair in pairs):
        return []
    angles = [np.arctan2(*(track.own(track.at[a] - track.at[b])[:, [2, 0]]).T) for a, b in pairs]
    twist = np.degrees(np.angle(np.exp(1j * (angles[0] - angles[1]))))  # positive: the right shoulder is in front
    words = [word for sign, word in ((1, "left"), (-1, "right")) if held(sign * twist) > TWIST_DEG]
    if len(words) == 2:
        return [Fact(DETAIL, 0.4, "the shoulders twist to both sides against the hips")]
    return [Fact(DETAIL, 0.35, f"the shoulders twist to the {word} against the hips") for word in words]


def jump_facts(track: Track) -> list[Fact]:
    """Both feet off the floor with the hips rising."""
    if not track.has("left_ankle", "right_ankle"):
        return []
    feet = np.minimum(track.at["left_ankle"][:, 1], track.at["right_ankle"][:, 1])
    rise = feet - np.median(feet)
    hips = track.root[:, 1] - np.median(track.root[:, 1])
    up = (rise > JUMP_M) & (hips > JUMP_M / 2)
    seconds = up.sum() / RATE
    return [Fact(MAIN, 80.0, "the person jumps off the floor")] if 0 < seconds < 0.25 * len(track) / RATE else []


def stillness(track: Track) -> float:
    """The largest way that any known joint moves in the person's own axes or the root along the floor, in metres."""
    if len(track) < 2:
        return 0.0
    ways = [max(span(track.local(joint)[:, axis]) for axis in range(3)) for joint in track.at]
    return max(*ways, _walked(track))


def still_facts(track: Track) -> list[Fact]:
    """That nothing moves."""
    if len(track) < 2 or stillness(track) >= STILL_M:
        return []
    return [Fact(MAIN, 95.0, "the person keeps still")]
