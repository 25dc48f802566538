"""When actions start and end at this site, by calib.thresholds; laid over the bundle they were measured with."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from realtime.bundle import Bundle
from realtime.errors import UsageError
from realtime.fields import Fields, short
from realtime.graphs import FP32_FILE
from realtime.pipeline import ScoresWindows
from realtime.rejection import KINDS, Rejecting, Rejection

SCHEMA = "calib-thresholds/1"
REMEDY = "measure again with this bundle: python -m calib.thresholds --help"
_MOST_PER_HOUR = 1e6


@dataclass(frozen=True, slots=True)
class Threshold:
    """One action here: smoothed probabilities at which it starts and below which it ends.

    far_per_h: false alarms of it expected in an hour of this site; None where nothing was there to measure them by.
    """

    on: float
    off: float
    far_per_h: float | None


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Temperature, on and off of each action, and what is rejected, for one bundle.

    path: the file, for messages. model_sha256: of the bundle's model.onnx. measured: for people.
    """

    KEYS: ClassVar[tuple[str, ...]] = (
        "schema", "bundle", "model_sha256", "temperature", "actions", "rejection", "measured",
    )  # fmt: skip

    path: Path
    bundle: str
    model_sha256: str
    temperature: float
    actions: dict[str, Threshold]
    rejection: Rejection | None
    measured: dict[str, Any]

    @classmethod
    def of(cls, fields: Fields) -> Thresholds:
        """From a file's fields; UsageError names the key and the rule that is broken."""
        digest = fields.text("model_sha256")
        good = len(digest) == 64 and set(digest) <= set("0123456789abcdef")
        fields.need(good, "model_sha256", "64 hexadecimal digits")
        entries = fields.values["actions"]
        fields.need(isinstance(entries, dict) and bool(entries), "actions", "an object, one entry an action")
        fields.need(isinstance(fields.values["measured"], dict), "measured", "an object")
        return cls(
            path=fields.path,
            bundle=fields.text("bundle"),
            model_sha256=digest,
            temperature=fields.number("temperature", 0.01, 100),
            actions={name: _threshold(fields, name, entry) for name, entry in entries.items()},
            rejection=_rejection(fields),
            measured=fields.values["measured"],
        )

    def fits(self, bundle: Bundle) -> bool:
        """Whether they were measured with this bundle's model."""
        return bundle.files[FP32_FILE][0] == self.model_sha256

    def applied(self, bundle: Bundle) -> Bundle:
        """The bundle with the temperature and the thresholds of this site.

        Raises UsageError, which names both models, where they were measured with another, and where an action of the
        bundle is missing or one is not in it.
        """
        digest = bundle.files[FP32_FILE][0]
        if not self.fits(bundle):
            raise UsageError(
                f"calibration {self.path}: it was measured with the bundle {self.bundle} (model.onnx "
                f"{self.model_sha256[:12]}...), not with {bundle.name} ({digest[:12]}...); {REMEDY}"
            )
        known = {action.id for action in bundle.actions}
        for what, names in (("lacks", known - set(self.actions)), ("has unknown", set(self.actions) - known)):
            if names:
                raise UsageError(f"calibration {self.path}: it {what} actions {short(sorted(names))}; {REMEDY}")
        actions = tuple(
            replace(one, on=self.actions[one.id].on, off=self.actions[one.id].off) for one in bundle.actions
        )
        return replace(bundle, temperature=self.temperature, actions=actions)

    def rejecting(self, engine: ScoresWindows, bundle: Bundle) -> ScoresWindows:
        """The engine, with windows of unknown actions turned to "nothing" where that was fitted; else itself."""
        return engine if self.rejection is None else Rejecting(engine, bundle, self.rejection)


def site_bundle(bundle: Bundle, thresholds: Thresholds | None) -> Bundle:
    """The bundle as it decides at this site; itself where no thresholds were measured. Raises as `applied`."""
    return bundle if thresholds is None else thresholds.applied(bundle)


def site_engine(engine: ScoresWindows, bundle: Bundle, thresholds: Thresholds | None) -> ScoresWindows:
    """What scores windows at this site; the engine itself where nothing is to be rejected."""
    return engine if thresholds is None else thresholds.rejecting(engine, bundle)


def _threshold(fields: Fields, name: str, entry: Any) -> Threshold:
    rule = type(fields)(fields.path, entry, ("on", "off", "far_per_h"), f"actions.{short(name)}.")
    on, off = rule.number("on", 0, 1), rule.number("off", 0, 1)
    rule.need(0 < off <= on, "off", f"above 0 and at most on ({on})")
    rate = None if entry["far_per_h"] is None else rule.number("far_per_h", 0, _MOST_PER_HOUR)
    return Threshold(on, off, rate)


def _rejection(fields: Fields) -> Rejection | None:
    if fields.values["rejection"] is None:
        return None
    rule = type(fields)(fields.path, fields.values["rejection"], ("kind", "level"), "rejection.")
    kind = rule.text("kind")
    rule.need(kind in KINDS, "kind", f"one of {', '.join(KINDS)}")
    level = rule.number("level", -1e6, 1e6)
    rule.need(math.isfinite(level), "level", "a finite number")
    return Rejection(kind, level)
