"""The pooled vocabulary: which labels of which data sets mean the same action.

`ACTIONS` fixes the order of the classes and their readable names; `MEANING[data][label]` gives the action of a
data set's own label. A label that is missing here lies outside the vocabulary (see `coverage`).
"""

from __future__ import annotations

NOTHING = "nothing"
ACTIONS: dict[str, str] = {
    "walk": "walking",
    "jog": "jogging",
    "sit_down": "sitting down",
    "stand_up": "standing up",
    "pick_up": "picking something up",
    "pick_up_and_throw": "picking something up and throwing it",
    "throw": "throwing",
    "carry": "carrying something",
    "drop_trash": "throwing something away",
    "don": "putting a garment on",
    "doff": "taking a garment off",
    "wave": "waving",
    "clap": "clapping",
    "push": "pushing",
    "pull": "pulling",
    "catch": "catching",
    "punch": "punching",
    "hammer": "hammering",
    "knock": "knocking on a door",
    "kick": "kicking",
    "bend": "bending forward",
    "squat": "squatting or crouching",
    "lunge": "lunging forward",
    "swipe_left": "swiping the right arm to the left",
    "swipe_right": "swiping the right arm to the right",
    "cross_arms": "crossing the arms on the chest",
    "arm_curl": "curling both arms",
    "raise_arms": "lifting outstretched arms",
    "draw_x": "drawing an x in the air",
    "draw_tick": "drawing a tick in the air",
    "draw_circle": "drawing a circle in the air",
    "draw_triangle": "drawing a triangle in the air",
    "tennis_swing": "swinging a tennis racket",
    "tennis_serve": "serving in tennis",
    "golf_swing": "swinging a golf club",
    "baseball_swing": "swinging a baseball bat",
    "bowl": "bowling",
    "basketball_shot": "shooting a basketball",
    "goggles": "putting on goggles",
    "wind_up": "winding both arms",
    "shoot": "shooting a pistol",
    "hands_to_head": "putting both hands to the head",
    "change_weapon": "reaching over the shoulder",
    "beat_both": "beating with both arms",
}
CLASSES: tuple[str, ...] = (NOTHING, *ACTIONS)
# What a mirrored clip shows, where that is another class.
MIRRORED = {"swipe_left": "swipe_right", "swipe_right": "swipe_left"}

_IDENTITY = {
    label: label
    for label in (
        *("walk", "jog", "sit_down", "stand_up", "pick_up", "throw", "carry", "push", "pull", "clap", "wave", "catch"),
        *("knock", "squat", "lunge", "swipe_left", "swipe_right", "arm_curl", "draw_x", "draw_triangle"),
        *("tennis_swing", "tennis_serve", "kick", "shoot", "goggles", "change_weapon", "beat_both"),
    )
}

MEANING: dict[str, dict[str, str]] = {
    "nw_ucla": {
        "pick_up_with_one_hand": "pick_up",
        "pick_up_with_two_hands": "pick_up",
        "drop_trash": "drop_trash",
        "walk_around": "walk",
        "sit_down": "sit_down",
        "stand_up": "stand_up",
        "donning": "don",
        "doffing": "doff",
        "throw": "throw",
        "carry": "carry",
    },
    "utd_mhad": {
        **_IDENTITY,
        "arm_cross": "cross_arms",
        "basketball_shoot": "basketball_shot",
        "draw_circle_cw": "draw_circle",
        "draw_circle_ccw": "draw_circle",
        "bowling": "bowl",
        "boxing": "punch",
        "baseball_swing": "baseball_swing",
        "pickup_throw": "pick_up_and_throw",
        "sit2stand": "stand_up",
        "stand2sit": "sit_down",
    },
    "utkinect": {**_IDENTITY, "wave_hands": "wave", "clap_hands": "clap"},
    "msr_action3d": {
        **_IDENTITY,
        "high_arm_wave": "wave",
        "horizontal_arm_wave": "wave",
        "two_hand_wave": "wave",
        "hammer": "hammer",
        "hand_catch": "catch",
        "forward_punch": "punch",
        "side_boxing": "punch",
        "high_throw": "throw",
        "draw_tick": "draw_tick",
        "draw_circle": "draw_circle",
        "hand_clap": "clap",
        "bend": "bend",
        "forward_kick": "kick",
        "side_kick": "kick",
        "jogging": "jog",
        "golf_swing": "golf_swing",
        "pick_up_and_throw": "pick_up_and_throw",
    },
    "msrc12": {
        **_IDENTITY,
        "lift_outstretched_arms": "raise_arms",
        "duck": "squat",
        "push_right": "swipe_right",
        "wind_it_up": "wind_up",
        "bow": "bend",
        "had_enough": "hands_to_head",
    },
    "sbu": {"kicking": "kick", "pushing": "push", "punching": "punch"},
    "synthetic": _IDENTITY,
}


# What two people do together (train.fit --bodies 2). The ids differ from those of one person: both may be told of.
INTERACTIONS: dict[str, str] = {
    "approach": "walking up to somebody",
    "depart": "walking away from somebody",
    "kick_someone": "kicking somebody",
    "push_someone": "pushing somebody",
    "punch_someone": "punching somebody",
    "shake_hands": "shaking hands",
    "hug": "hugging",
    "exchange": "handing something over",
}
PAIR_CLASSES: tuple[str, ...] = (NOTHING, *INTERACTIONS)
# One does these, the other undergoes them; the rest both do.
DIRECTED = ("approach", "depart", "kick_someone", "push_someone", "punch_someone")
PAIR_MEANING: dict[str, dict[str, str]] = {
    "sbu": {
        "approaching": "approach",
        "departing": "depart",
        "kicking": "kick_someone",
        "pushing": "push_someone",
        "punching": "punch_someone",
        "shaking_hands": "shake_hands",
        "hugging": "hug",
        "exchanging": "exchange",
    }
}


def action_of(data: str, label: str, bodies: int = 1) -> str | None:
    """The pooled action of a data set's label, or None where the vocabulary has none. bodies: 2 for interactions."""
    return (MEANING if bodies == 1 else PAIR_MEANING).get(data, {}).get(label)
