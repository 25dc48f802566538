"""What the control socket may do with a running line: each call happens between two frames, in the line's thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from realtime.bundle import Bundle
from realtime.line import Line
from realtime.pipeline import Pipeline
from realtime.scoring import Engine

Rebuild = Callable[[Path], tuple[Bundle, Pipeline, Engine]]


class Steering:
    """A line, steered. rebuild: another bundle's pipeline and engine; LineError where the bundle is no good."""

    def __init__(self, line: Line, rebuild: Rebuild) -> None:
        self._line, self._rebuild = line, rebuild
        self._off = set(line.pipeline.disabled)  # also what the bundle of now has no word for

    def stats(self) -> dict[str, Any]:
        """How the line is doing, as JSON values."""
        line = self._line
        opened = [{"id": one.id, "track": one.track, "action": one.action} for one in line.pipeline.open_events]
        return {
            "source": line.source.info.id,
            "kind": line.source.info.kind,
            "model": line.reporter.bundle.name,
            "backend": line.engine.backend,
            "precision": line.engine.precision,
            "frames": line.meter.frames,
            **line.figures,
            "open_events": opened,
            "disabled": sorted(line.pipeline.disabled),
        }

    def actions(self) -> list[dict[str, Any]]:
        """What it recognises: id, name, thresholds, enabled."""
        disabled = self._line.pipeline.disabled
        return [{**asdict(one), "enabled": one.id not in disabled} for one in self._line.reporter.rules]

    def enable(self, action: str) -> None:
        """Lets an action start again."""
        gone = action in self._off - self._line.pipeline.disabled  # this bundle has no word for it
        self._off.discard(action)
        if not gone:
            self._line.pipeline.enable(action)
        self._tell(f"action {action} enabled")

    def disable(self, action: str) -> None:
        """Ends what is open of an action, tells so, and starts it no more."""
        line = self._line
        line.terminal.events(line.reporter.events(line.pipeline.disable(action, line.now_ns)))
        self._off.add(action)
        self._tell(f"action {action} disabled")

    def reload(self, bundle: Path) -> str:
        """Takes another bundle and returns its name; LineError where it is no good, and then nothing has changed."""
        line = self._line
        loaded, pipeline, engine = self._rebuild(bundle)
        for action in self._off & {one.id for one in (*loaded.actions, *line.reporter.pair_rules)}:
            pipeline.disable(action, line.now_ns)
        line.exchange(loaded, pipeline, engine)
        self._tell(f"bundle {loaded.name} was loaded from {bundle}")
        return loaded.name

    def shutdown(self) -> None:
        """Ends after this frame, as SIGTERM does."""
        self._line.stop.end()

    def _tell(self, what: str) -> None:
        self._line.reporter.remark(self._line.now_ns, f"{what} (control)")
        self._line.terminal.say(f"control: {what}")
