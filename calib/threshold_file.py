"""The file of a site's thresholds: what the line reads, and under "measured" what people may want to know."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from calib.counts import Counts
from calib.fitting import Fit
from calib.rejecting import Fitted
from calib.scored import Played
from realtime.bundle import Bundle
from realtime.graphs import FP32_FILE
from realtime.thresholds import SCHEMA


def content(
    per_hour: float, how: str, bundle: Bundle, fit: Fit, made: Fitted, own: Counts, played: Sequence[Played]
) -> dict[str, Any]:
    """The whole file. What decides is not rounded, so that the line decides as it was counted."""
    actions = {
        action.id: {"on": float(on), "off": float(off), "far_per_h": None if far is None else float(f"{far:.4g}")}
        for action, on, off, far in zip(bundle.actions, fit.on, fit.off, fit.far_per_h(), strict=True)
    }
    rule = made.rejection
    return {
        "schema": SCHEMA,
        "bundle": bundle.name,
        "model_sha256": bundle.files[FP32_FILE][0],
        "temperature": made.bundle.temperature,
        "actions": actions,
        "rejection": None if rule is None else {"kind": rule.kind, "level": rule.level},
        "measured": measured(per_hour, how, fit, made, own, played),
    }


def measured(
    per_hour: float, how: str, fit: Fit, made: Fitted, own: Counts, played: Sequence[Played]
) -> dict[str, Any]:
    """What was measured, for people and for whoever compares sites."""
    rate = fit.rate
    return {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "recordings": len(played),
        "labelled": sum(one.truths is not None for one in played),
        "hours": round(rate.hours, 4),
        "asked_per_hour": per_hour,
        "happens": [action.id for action, right in zip(made.bundle.actions, fit.happens, strict=True) if right],
        "allotment": how,
        "false_events": rate.events,
        "false_per_hour": round(rate.per_hour, 3),
        "interval_95": [round(rate.low, 3), round(rate.high, 3)],
        "left_out_in_turn": fit.crossed,
        "truths": int(fit.counted.truths.sum()),
        "recall": fit.counted.recall,
        "with_the_bundle_s_own": {"false_per_hour": round(own.per_hour, 3), "recall": own.recall},
        "temperature": {"windows": made.windows, "loss_before": made.before, "loss_after": made.after},
        "confused": [
            {"true": true, "told": told, "events": events}
            for (true, told), events in fit.confused.most_common(20)
        ],
    }  # fmt: skip
