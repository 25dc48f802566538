"""What a person sees of long steps: on a terminal a bar with the time left, else a line when each begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Tell = Callable[[float], None]  # told the share of a step that is done, from 0 to 1


class Steps:
    """Shows one step after the other on a console."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, what: str) -> None:
        """One line."""
        self._console.print(what, markup=False, soft_wrap=True)

    @contextmanager
    def step(self, what: str) -> Iterator[Tell]:
        """A step as long as the block runs; what is yielded takes the share that is done, where that is known."""
        if not self._console.is_terminal:
            self.say(f"{what} ...")
            yield lambda share: None
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        left = (TextColumn("left", markup=False), TimeRemainingColumn())
        with Progress(*columns, *left, console=self._console, transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda share: bar.update(task, total=1.0, completed=share)
