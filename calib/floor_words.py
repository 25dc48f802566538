"""What was found, in words for people who know nothing of vectors."""

from __future__ import annotations

from calib.floor_fit import Found
from realtime.floor import Floor

GOOD_DEG, USABLE_DEG = 2.0, 3.5
LEVEL_DEG = 0.5  # less is called level
SAYS_DEG = 6.0  # evidence that knows up no better is not worth telling
ONE_WAY = 0.9


def verdict(found: Found, orientation: int) -> list[str]:
    """The first line says what was found and how well it is known, the others what it rests on and what would help."""
    floor = Floor((float(found.up[0]), float(found.up[1]), float(found.up[2])), found.height_m, orientation)
    lines = [f"{_tilt(floor)}; up is known to ±{found.within_deg:.1f}° (95 %). {_height(found)}"]
    if orientation:
        lines.append(f"Pictures are turned by {orientation}° clockwise before people are looked for.")
    if found.people:
        lines.append(
            f"It rests on {found.upright_s:.0f} s of standing and walking by {_people(found.people)} (seen for "
            f"{found.seen_s:.0f} s); {found.share:.0%} of that points the same way."
        )
    agreeing = [one for one in found.evidence if one.within_deg < SAYS_DEG and one.name != "depth"]
    if len(agreeing) > 1:
        told = ", ".join(f"{one.name} {one.off_deg:.1f}° (±{one.within_deg:.1f}°)" for one in agreeing)
        lines.append(f"Apart from the answer: {told}.")
    if found.evidence[0].name == "depth":
        lines.append(f"It rests on the depth picture, {found.share:.0%} of which is floor.")
    lines.append(_quality(found))
    return lines


def _tilt(floor: Floor) -> str:
    pitch, roll = floor.pitch, floor.roll
    down = (
        "looks straight ahead"
        if abs(pitch) < LEVEL_DEG
        else f"looks {'down' if pitch > 0 else 'up'} by {abs(pitch):.1f}°"
    )
    if abs(roll) < LEVEL_DEG:
        return f"The camera {down} and is not rolled"
    way = "clockwise" if roll > 0 else "counter-clockwise"
    return f"The camera {down} and is rolled {way} by {abs(roll):.1f}°"


def _height(found: Found) -> str:
    if found.height_m is None:
        return f"Its height is not known: {found.why_no_height}; only the up direction is used."
    return f"It hangs {found.height_m:.2f} m above the floor (±{found.height_within_m or 0:.2f} m)."


def _people(count: int) -> str:
    return "one person" if count == 1 else f"{count} people or clips"


def _quality(found: Found) -> str:
    if found.within_deg <= GOOD_DEG:
        return "Good: actions lose nothing from what is left of the tilt."
    usable = "Usable: a few degrees cost actions little" if found.within_deg <= USABLE_DEG else "Rough: try again"
    if found.one_way > ONE_WAY:
        return f"{usable}; everybody faced one way, and who stands leans a little: turn about to know it better."
    return f"{usable}; walk and stand for longer to know it better."
