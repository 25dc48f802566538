"""What the program says on standard error: plain lines above the status line, or JSON lines; never without bound.

The same message comes at most once a minute, then with how often it was meant; all together at most 120 lines a minute.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from types import TracebackType

from rich.console import Console

from realtime.secrets import TEMPLATE

REPEAT_S = 60.0  # the same message at most once in so many seconds
LINES_A_MINUTE = 120
KEPT = 500  # message templates watched at once; the longest silent is forgotten first
SAID = "said"  # attribute of a record that is what the terminal says: printed without a level
FINAL = "final"  # attribute of a record that is never left out


@dataclass(slots=True)
class _Repeat:
    begun_s: float
    count: int = 0  # since begun, not printed
    record: logging.LogRecord | None = None  # the newest of these


class Limit:
    """Decides which records are printed. Not thread-safe: its handler holds a lock.

    now_s: a clock that never goes back; tests give their own.
    """

    def __init__(
        self,
        repeat_s: float = REPEAT_S,
        lines_a_minute: int = LINES_A_MINUTE,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._repeat_s, self._most, self._now_s = repeat_s, lines_a_minute, now_s
        self._repeats: dict[tuple[str, int, str], _Repeat] = {}
        self._left, self._filled_s = float(lines_a_minute), now_s()
        self._lost, self._told_s = 0, -repeat_s

    def take(self, record: logging.LogRecord) -> bool:
        """Whether to print this record now."""
        if getattr(record, FINAL, False):
            return True
        if getattr(record, SAID, False):  # each event is a line of its own; only all together are bounded
            return self._room()
        key, now_s = (record.name, record.levelno, getattr(record, TEMPLATE, str(record.msg))), self._now_s()
        repeat = self._repeats.get(key)
        if repeat is not None and now_s - repeat.begun_s < self._repeat_s:
            repeat.count, repeat.record = repeat.count + 1, record
            return False
        if not self._room():
            return False
        if repeat is None or not repeat.count:  # else `due` tells the count first
            self._repeats[key] = self._repeats.pop(key, _Repeat(now_s))
            self._repeats[key].begun_s = now_s
            while len(self._repeats) > KEPT:
                del self._repeats[next(iter(self._repeats))]
        return True

    def due(self, all_of_them: bool = False) -> list[tuple[logging.LogRecord, str]]:
        """Records that were held back and whose time is over, each with what to add: how often, in how long."""
        now_s, found = self._now_s(), []
        for repeat in self._repeats.values():
            over_s = now_s - repeat.begun_s
            late = all_of_them or over_s >= self._repeat_s
            if repeat.count and repeat.record is not None and late and (all_of_them or self._room(counts=False)):
                found.append((repeat.record, f" ×{repeat.count} in the last {max(1, round(over_s))} s"))
                repeat.begun_s, repeat.count, repeat.record = now_s, 0, None
        if self._lost and (all_of_them or now_s - self._told_s >= self._repeat_s):
            text = f"{self._lost} more lines were left out: at most {self._most} a minute are printed"
            found.append((logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None), ""))
            self._lost, self._told_s = 0, now_s
        return found

    @property
    def waiting(self) -> bool:
        """Whether something was held back that `due` has yet to tell."""
        return bool(self._lost) or any(repeat.count for repeat in self._repeats.values())

    def _room(self, counts: bool = True) -> bool:
        now_s = self._now_s()
        self._left = min(float(self._most), self._left + (now_s - self._filled_s) * self._most / 60)
        self._filled_s = now_s
        if self._left < 1:
            self._lost += counts
            return False
        self._left -= 1
        return True


class PlainLines(logging.Formatter):
    """`warning: text`; what the terminal says comes as it is."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback where there is one."""
        text = super().format(record)
        return text if getattr(record, SAID, False) else f"{record.levelname.lower()}: {text}"


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, module, message; source, count and trace where there are any."""

    def __init__(self, source: str | None = None) -> None:
        super().__init__()
        self.source = source

    def format(self, record: logging.LogRecord) -> str:
        """One line without line breaks."""
        at = datetime.fromtimestamp(record.created, timezone.utc)
        said = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "module": record.name,
            "message": record.getMessage(),
        }
        if self.source:
            said["source"] = self.source
        trace = record.exc_text or (self.formatException(record.exc_info) if record.exc_info else "")
        return json.dumps(said | ({"trace": trace} if trace else {}))


class Lines(logging.Handler):
    """Prints records through a console, within its limit; what was held back is told when its time is over."""

    def __init__(self, console: Console, as_json: bool, limit: Limit) -> None:
        super().__init__()
        self.as_json, self.unwritten = as_json, 0
        self._console, self._limit = console, limit
        self._timer: threading.Timer | None = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Filters a copy, then prints it. What counts as the same message is decided before a filter changes it."""
        seen = logging.makeLogRecord({**record.__dict__, "exc_text": None})  # another handler may have kept it
        seen.__dict__.setdefault(TEMPLATE, str(record.msg))
        return bool(super().handle(seen))

    def emit(self, record: logging.LogRecord) -> None:
        """Called under the handler's lock, after its filters."""
        self._tell_due()
        if self._limit.take(record):
            self._print(record)
        self._wait()

    def flush(self) -> None:
        """Tells counts whose time is over."""
        with self._mutex:
            self._timer = None
            self._tell_due()
            self._wait()

    def settle(self) -> None:
        """Tells every count that is still held back."""
        with self._mutex:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._tell_due(all_of_them=True)

    def close(self) -> None:
        """Settles, for good."""
        self.settle()
        super().close()

    def createLock(self) -> None:
        """One lock for records and the timer."""
        self.lock = self._mutex = threading.RLock()

    def _wait(self) -> None:
        """Comes back when the time of what is held back is over, also if nothing more is said."""
        if self._timer is None and self._limit.waiting:
            self._timer = threading.Timer(REPEAT_S + 0.1, self.flush)
            self._timer.daemon = True
            self._timer.start()

    def _tell_due(self, all_of_them: bool = False) -> None:
        for held, more in self._limit.due(all_of_them):
            self._print(held, more)

    def _print(self, record: logging.LogRecord, more: str = "") -> None:
        if more:
            record = logging.makeLogRecord({**record.__dict__, "msg": record.getMessage() + more, "args": None})
        self.write(self.format(record))

    def write(self, text: str) -> None:
        """One line, as it is."""
        try:
            with self._mutex:
                if self.as_json:
                    self._console.file.write(text + "\n")
                    self._console.file.flush()
                else:
                    self._console.print(text, markup=False, soft_wrap=True)
        except BrokenPipeError:  # nobody reads any more: the program ends, as with any pipe
            raise
        except OSError:  # such as a full disk, which must not stop what the program does
            self.unwritten += 1


class Logs:
    """The set-up of one program: every module's records, and what the terminal says, go out through one handler."""

    def __init__(self, handler: Lines, quiet: bool) -> None:
        self._handler, self._quiet = handler, quiet

    @property
    def as_json(self) -> bool:
        """Whether lines are JSON, so nothing else may be printed between them."""
        return self._handler.as_json

    def say(self, text: str, module: str = "realtime.terminal", level: int = logging.INFO) -> None:
        """One line for people as it is, without its level; with quiet only from an error on."""
        if level >= logging.ERROR or not self._quiet:
            record = logging.LogRecord(module, level, __file__, 0, text, None, None)
            record.__dict__[SAID] = True
            self._handler.handle(record)

    def write(self, line: str) -> None:
        """A line that is JSON already, of another process of ours."""
        self._handler.write(line)

    def name(self, source: str) -> None:
        """From now on JSON lines carry the source's id."""
        if isinstance(self._handler.formatter, JsonLines):
            self._handler.formatter.source = source

    def flush(self) -> None:
        """Tells what was held back; for the end of a program, whose last error still goes through the handler."""
        self._handler.settle()

    def close(self) -> None:
        """Tells what was held back and takes the handler away."""
        logging.getLogger().removeHandler(self._handler)
        self._handler.close()


def set_up(
    console: Console,
    *,
    quiet: bool = False,
    as_json: bool = False,
    filters: Sequence[logging.Filter] = (),
    limit: Limit | None = None,
) -> Logs:
    """Sends warnings of every module to this console; only errors with quiet. Replaces an earlier set-up.

    limit: how much is printed. filters: for secrets; they see, and may change, every record before it is formatted.
    """
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, Lines)]:
        root.removeHandler(old)
        old.close()
    handler = Lines(console, as_json, limit or Limit())
    handler.setFormatter(JsonLines() if as_json else PlainLines())
    handler.setLevel(logging.ERROR if quiet else logging.WARNING)
    for one in filters:
        handler.addFilter(one)
    root.addHandler(handler)
    sys.excepthook = _log_fault
    return Logs(handler, quiet)


def tell_error(console: Console, text: str) -> None:
    """The one line that a program ends with; a JSON line where its other lines are JSON."""
    handler = next((one for one in logging.getLogger().handlers if isinstance(one, Lines)), None)
    if handler is not None:
        record = logging.LogRecord("realtime", logging.ERROR, __file__, 0, text, None, None)
        record.__dict__[FINAL] = True
        if handler.as_json:
            handler.handle(record)
            return
        for one in handler.filters:  # secrets
            if isinstance(one, logging.Filter):
                one.filter(record)
        text = record.getMessage()
    console.print(f"error: {text}", style="red", markup=False, soft_wrap=True)


def _log_fault(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A fault of ours: through the same handler, so that secrets stay out of the traceback as well."""
    if not issubclass(kind, Exception) or not any(isinstance(one, Lines) for one in logging.getLogger().handlers):
        sys.__excepthook__(kind, error, trace)
        return
    text = f"internal error: {kind.__name__}: {error}"
    logging.getLogger("realtime").critical("%s", text, exc_info=(kind, error, trace), extra={FINAL: True})
