"""What a person at the terminal sees: a line per event, a live status line, and the picture where asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.status import Status

from realtime.bundle import Bundle
from realtime.feed import SourceInfo
from realtime.logs import Logs
from realtime.messages import ActionEvent
from realtime.meter import Reading
from realtime.pipeline import Step
from realtime.secrets import scrub
from realtime.watch import SLOW_FPS

if TYPE_CHECKING:
    from realtime.show import Board, Screen

ADVICE_AFTER_S = 3  # seconds with something like a person and nobody believed
SLOW_AFTER_S = 5


class Opens(Protocol):
    """Where a line can be reached; None for what is not open."""

    address: str | None
    control: str | None
    http: str | None


class Terminal:
    """Prints to standard error, so standard output stays free. `closed` turns true when the window is closed.

    logs: what is said goes out with what modules log, in its form; None prints to the console itself.
    """

    def __init__(
        self, console: Console, bundle: Bundle, info: SourceInfo, quiet: bool, show: bool, logs: Logs | None = None
    ) -> None:
        self.closed = False
        self._console, self._bundle, self._info, self._quiet, self._logs = console, bundle, info, quiet, logs
        self._begun_ns: int | None = None
        self._gated = self._doubtful_s = self._slow_s = self._drops = 0
        self._open: dict[str, str] = {}
        self._frames, self._now_ns = 0, 0
        self._started: Counter[str] = Counter()  # by the action's name
        self._spinner: Status | None = None
        self._board: Board | None = None
        self._screen: Screen | None = None
        if show:
            self._open_window()

    def opening(self, outlet: Opens, backend: str, why: Sequence[str]) -> None:
        """Says what was opened, where the events are, and why these parts find poses and run the model."""
        size = f" {self._info.width}x{self._info.height}" if self._info.width else ""
        self.say(
            f"source {self._info.id} ({self._info.kind}{size}), model {self._bundle.name} on {backend}, "
            f"{len(self._bundle.actions)} actions, events on {outlet.address or 'no bus'}"
        )
        if outlet.control:
            self.say(f"control on {outlet.control}")
        if outlet.http:
            self.say(f"page to watch: http://{outlet.http}")
        for text in filter(None, why):
            self.say(text)

    def show(self, step: Step, told: Sequence[ActionEvent], fps: float) -> None:
        """After each frame."""
        if self._begun_ns is None:
            self._begun_ns = step.frame.captured_ns
        self._frames, self._now_ns = self._frames + 1, step.frame.captured_ns
        self.events(told)
        if self._board is not None and self._screen is not None:
            self._board.take(step)
            self.closed = not self._screen.show(self._board.draw(step.frame.image, step.poses, fps))

    def events(self, told: Sequence[ActionEvent]) -> None:
        """A line for each start and end."""
        for event in told:
            if event.phase == "start":
                self._open[event.id] = event.action.name
                self._started[event.action.name] += 1
            elif event.phase == "end":
                self._open.pop(event.id, None)
            if event.phase != "update":
                self.say(self._line(event))

    def beat(self, reading: Reading, drops: int, refused: int, persons: int, gated: int) -> None:
        """Once a second: the status line, on a terminal only; and advice where nothing can come of what is seen."""
        self._advise(persons, gated)
        self._warn_of_slowness(reading, drops)
        if self._quiet or not self._console.is_terminal or (self._logs is not None and self._logs.as_json):
            return
        age = f", frame age p95 {reading.frame_age_ms[1]:.0f} ms" if reading.frame_age_ms else ""
        lost = f", {drops} dropped" if drops else ""
        lost += f", {refused} refused" if refused else ""
        now = ", ".join(self._open.values()) or "nothing"
        line = f"{reading.fps:.1f} fps{age}{lost}, {persons} in view: {now}"
        if self._spinner is None:
            self._spinner = self._console.status(line)
            self._spinner.start()
        self._spinner.update(line)

    def sum_up(self) -> None:
        """The last line: how much was seen, and what was done how often."""
        if self._begun_ns is None:
            self.say(f"{self._info.id}: no frame came")
            return
        seconds, events = (self._now_ns - self._begun_ns) / 1e9, sum(self._started.values())
        each = ", ".join(f"{name} {count}" for name, count in self._started.most_common())
        told = f"{events} {'event' if events == 1 else 'events'}" + (f" ({each})" if each else "")
        self.say(f"{self._info.id}: {self._frames} frames in {seconds:.1f} s, {told}")

    def close(self) -> None:
        """Takes the status line and the window away."""
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None
        if self._screen is not None:
            self._screen.close()

    def _advise(self, persons: int, gated: int) -> None:
        doubtful, self._gated = persons == 0 and gated > self._gated, gated
        self._doubtful_s = self._doubtful_s + 1 if doubtful else 0
        if self._doubtful_s == ADVICE_AFTER_S:
            self.say(
                "something like a person is in view, but no whole body; if it is you, step back until hips are seen"
            )

    def _warn_of_slowness(self, reading: Reading, drops: int) -> None:
        """Once, and only where frames have an age: a file at full speed loses none, however slow.

        A live source that gives too few says so itself; here it counts only where this machine is too slow for it.
        """
        behind, self._drops = drops > self._drops, drops
        if self._slow_s >= SLOW_AFTER_S:
            return
        slow = reading.frame_age_ms is not None and 0 < reading.fps < SLOW_FPS and (behind or not self._info.live)
        self._slow_s = self._slow_s + 1 if slow else 0
        if self._slow_s == SLOW_AFTER_S:
            why = "free this machine of other work, or take a faster one" if behind else "the source gives no more"
            self.say(
                f"{reading.fps:.1f} frames a second are too few to recognise anything; at least 5 are needed: {why}"
            )

    def _open_window(self) -> None:
        from realtime import show  # here: without --show no drawing is loaded

        why = show.no_display()
        if why is not None:
            self.say(f"no window: {why}; going on without")
            return
        self._screen = show.Screen(f"pcle-live {self._info.id}")
        self.bundle_changed(self._bundle)

    def bundle_changed(self, bundle: Bundle) -> None:
        """From now on the window, where there is one, shows this bundle's classes."""
        self._bundle = bundle
        if self._screen is not None:
            from realtime import show

            self._board = show.Board(bundle.classes, {action.id: action.name for action in bundle.actions})

    def _line(self, event: ActionEvent) -> str:
        begun_ns = self._begun_ns or event.time.onset_mono_ns
        at = max(0.0, (event.time.decided_mono_ns - begun_ns) / 1e9)
        text = f"{at:7.2f} s  person {event.track.id}  {event.phase:5}  {event.action.name}  {event.score.value:.2f}"
        if event.phase == "end":
            lasted = ((event.time.offset_mono_ns or event.time.decided_mono_ns) - event.time.onset_mono_ns) / 1e9
            text += f"  after {lasted:.1f} s ({event.end_reason})"
        return text

    def say(self, text: str) -> None:
        """One line, unless quiet."""
        if self._quiet:
            return
        if self._logs is not None:
            self._logs.say(scrub(text))
        else:
            self._console.print(scrub(text), markup=False, soft_wrap=True)
