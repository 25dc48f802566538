"""What calib.thresholds tells people: tables, what was gained, and the verdict in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table

from calib.counts import Counts
from calib.fitting import Fit
from calib.poisson import Rate, hours_for
from calib.rejecting import Fitted
from calib.scored import Played
from realtime.bundle import Bundle
from train.data import subject_key
from train.sources import parse_held_out

CONFUSED = 12  # rows of the table
FACTOR = 2.0  # a rate is promised where the interval's upper end is within this of what was asked for
FEW_SHARE = 0.5  # of an unlabelled recording in which somebody should be in sight


def action_table(bundle: Bundle, fit: Fit) -> Table:
    """Thresholds of each action, and what they count on recordings that they were not chosen by."""
    table = Table("action", "on", "off", "false an hour", "counted", "kept of truths", title="thresholds here")
    for k, (action, far) in enumerate(zip(bundle.actions, fit.far_per_h(), strict=True)):
        truths = int(fit.counted.truths[k])
        table.add_row(
            action.id, f"{fit.on[k]:.3f}", f"{fit.off[k]:.3f}", "happens" if far is None else f"{far:.2f}",
            str(int(fit.counted.false[k])), f"{int(fit.counted.matched[k])} of {truths}" if truths else "",
        )  # fmt: skip
    table.add_section()
    total, kept = int(fit.counted.truths.sum()), int(fit.counted.matched.sum())
    table.add_row(
        "all", "", "", f"{fit.rate.per_hour:.2f}", str(fit.rate.events), f"{kept} of {total}" if total else ""
    )
    return table


def confusion_table(fit: Fit) -> Table:
    """What is taken for what here, events that go wrong the most first."""
    table = Table("what happens", "what is told", "events", title="confused here")
    for (true, told), events in fit.confused.most_common(CONFUSED):
        table.add_row(true, told, str(events))
    return table


def summary(fit: Fit, made: Fitted, own: Counts) -> str:
    """The figures beside those of the bundle's own thresholds."""
    lines = []
    if made.before is not None and made.after is not None:
        lines.append(
            f"temperature {made.bundle.temperature:.2f}, from {made.windows} windows of known class "
            f"(negative log-likelihood {made.before:.3f} before, {made.after:.3f} after)"
        )
    else:
        lines.append(f"temperature {made.bundle.temperature:.2f}, the bundle's: {made.why}")
    if made.rejection is not None:
        lines.append(f"windows whose {made.rejection.kind} is below {made.rejection.level:.3f} count as nothing")
    before, after = own.recall, fit.counted.recall
    kept = "" if before is None or after is None else f"; recall {before:.1%} before, {after:.1%} with these"
    lines.append(f"the bundle's own thresholds: {own.per_hour:.1f} false alarms an hour here{kept}")
    return "\n".join(lines)


def verdict(fit: Fit, per_hour: float, bundle: Bundle, played: Sequence[Played]) -> str:
    """What may be expected, and whether it can be promised."""
    rate, minutes = fit.rate, 60 * fit.rate.hours
    how = ", on recordings that the thresholds were not chosen by" if fit.crossed else ""
    lines = [
        f"expected with these: {_said(rate.per_hour)} false alarms an hour, between {_said(rate.low)} and "
        f"{_said(rate.high)} at 95 % ({rate.events} in {minutes:.1f} minutes{how})"
    ]
    if fit.kept:
        lines.append("the bundle's own thresholds meet this rate and keep as much as any others: they stay")
    if not fit.crossed:
        lines.append("the thresholds were chosen by the recording that was counted: expect more; give a second one")
    lines.append(_promise(rate, per_hour))
    return "\n".join(lines + _doubts(bundle, played))


def _said(per_hour: float) -> str:
    """A rate for people, small ones too."""
    return f"{per_hour:.1f}" if per_hour >= 1 or not per_hour else f"{per_hour:.2g}"


def _promise(rate: Rate, per_hour: float) -> str:
    """Whether the rate that was asked for can be promised."""
    minutes, needed = 60 * rate.hours, 60 * hours_for(per_hour)
    if minutes < needed:
        most = hours_for(1.0) / rate.hours
        return (
            f"TOO LITTLE DATA: {minutes:.1f} minutes without one false alarm would still allow "
            f"{f'{most:.0f}' if most >= 10 else _said(most)} an hour (rule of three); to promise {per_hour:g} an hour "
            f"takes at least {math.ceil(needed)} minutes"
        )
    if rate.per_hour > per_hour * FACTOR:
        return (
            f"NOT REACHED: even the strictest thresholds tell more than {per_hour:g} an hour; what happens in these "
            f"recordings looks like actions to the model: name them with --happens, or train with such recordings"
        )
    if rate.high > per_hour * FACTOR:
        worst = rate.high / per_hour
        return f"UNSURE: it may be {worst:.1f} times the {per_hour:g} an hour asked for; more minutes narrow it"
    return f"GOOD: {per_hour:g} an hour is kept within a factor of two"


def _doubts(bundle: Bundle, played: Sequence[Played]) -> list[str]:
    """What makes the figures less than they seem."""
    doubts, seen = [], taught(bundle, played)
    if seen:
        names = ", ".join(seen[:6]) + (", ..." if len(seen) > 6 else "")
        doubts.append(
            f"BIASED: training saw {len(seen)} of these people ({names}). The model is surer of them than of "
            f"strangers, so with strangers expect other rates and less recall than is said here"
        )
    dim = [
        one.name for one in played if one.truths is None and one.seen_ns < FEW_SHARE * one.duration_ns
    ]  # fmt: skip
    if dim:
        doubts.append(
            f"in {', '.join(dim[:3])} somebody is in sight for less than half of the time; only that time is counted"
        )
    return doubts


def taught(bundle: Bundle, played: Sequence[Played]) -> list[str]:
    """The people of labelled recordings, as "set subject", whom the bundle's training saw."""
    sets = {str(name) for name in bundle.training.get("data", [])}
    held = parse_held_out(map(str, bundle.training.get("held_out", [])), sets)
    found = set()
    for one in played:
        name, _, subject = one.group.partition(" ")
        if one.truths is not None and name in sets and subject_key(subject) not in held.get(name, set()):
            found.add(one.group)
    return sorted(found)
