"""The line's side of control: each request becomes one call between two frames, and one answer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from realtime.control_messages import (
    Actions,
    AnyCommand,
    Disable,
    Enable,
    Reload,
    Shutdown,
    Stats,
    command_of,
    nearest,
)
from realtime.errors import LineError, UsageError
from realtime.secrets import scrub

log = logging.getLogger(__name__)


class Steered(Protocol):
    """What a running line can be asked; called between two frames, in its own thread."""

    def stats(self) -> dict[str, Any]:
        """How it is doing, as JSON values."""

    def actions(self) -> list[dict[str, Any]]:
        """What it recognises: id, name, thresholds, enabled."""

    def enable(self, action: str) -> None:
        """Lets an action start again."""

    def disable(self, action: str) -> None:
        """Ends what is open of an action, tells so, and starts it no more."""

    def reload(self, bundle: Path) -> str:
        """Takes another bundle and returns its name; LineError where it is no good, and then nothing has changed."""

    def shutdown(self) -> None:
        """Ends after this frame."""


class Commands:
    """Answers requests; whatever they hold, the line goes on."""

    def __init__(self, line: Steered) -> None:
        self._line = line
        self._does: dict[type, Callable[[Any], dict[str, Any]]] = {
            Stats: lambda _: _rounded(line.stats()),
            Actions: lambda _: {"actions": line.actions()},
            Enable: lambda command: self._switch(command.action, True),
            Disable: lambda command: self._switch(command.action, False),
            Reload: lambda command: self._reload(Path(command.bundle)),
            Shutdown: lambda _: self._shutdown(),
        }

    def handle(self, body: Any) -> dict[str, Any]:
        """The answer to a request, which is JSON bytes or the object already read."""
        number = body.get("id") if isinstance(body, dict) and isinstance(body.get("id"), int) else None
        try:
            command: AnyCommand = command_of(body)
            number = command.id
            answer = {"ok": True, **self._does[type(command)](command)}
        except LineError as error:
            answer = {"ok": False, "error": scrub(str(error)), "code": error.exit_code}
        except Exception:
            # A command that breaks must not take the line with it: the people before the camera are still there.
            log.exception("a command failed")
            answer = {"ok": False, "error": "internal error; the line's own log has the details", "code": 1}
        return answer if number is None else {**answer, "id": number}

    def _switch(self, action: str, on: bool) -> dict[str, Any]:
        known = tuple(one["id"] for one in self._line.actions())
        if action not in known:
            raise UsageError(f"no action {action!r}; {nearest(action, known)}")
        (self._line.enable if on else self._line.disable)(action)
        return {"action": action, "enabled": on}

    def _reload(self, bundle: Path) -> dict[str, Any]:
        if not bundle.is_absolute():
            raise UsageError(f"a bundle is named by its whole path on the line's machine, got {str(bundle)!r}")
        return {"bundle": self._line.reload(bundle)}

    def _shutdown(self) -> dict[str, Any]:
        self._line.shutdown()
        return {}


def _rounded(value: Any) -> Any:
    """The value with its floats at three decimals: figures are for people and plots."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value
