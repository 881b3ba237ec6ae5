"""What a person sees while the work goes on: one line a stage, on standard error, with time and memory."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from anatomy_export.core.platform import forget_peak, peak_rss_bytes

REDRAW_S = 0.2


@dataclass(frozen=True)
class Stage:
    """One finished stage: `seconds` of wall clock, `peak_rss_bytes` the most memory that was resident during it, None
    where the system does not tell."""

    name: str
    seconds: float
    peak_rss_bytes: int | None


@dataclass
class Progress:
    """Announces stages on standard error; a spinner where that is a terminal, plain lines elsewhere."""

    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    stages: list[Stage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        forget_peak()
        start = time.perf_counter()
        with self.console.status(Text(f"{name} …")):
            yield
        self._finish(name, time.perf_counter() - start)

    def _finish(self, name: str, seconds: float) -> None:
        self.stages.append(Stage(name, seconds, peak_rss_bytes()))
        self.console.print(Text.assemble(("✓", "green"), f" {name} ", (f"{seconds:.1f} s", "dim")))

    @contextmanager
    def bar(self, name: str, total: int | None) -> Iterator[Callable[[], None]]:
        """A stage of `total` steps (None: nobody knows) with the time left; the function that it yields counts one.

        It draws only when a step is counted, so that nothing runs beside a step that is being timed.
        """
        described = TextColumn("{task.description}", markup=False)
        columns = (described, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        forget_peak()
        start = time.perf_counter()
        shown = self.console.is_terminal
        with Bar(*columns, console=self.console, transient=True, disable=not shown, auto_refresh=False) as bar:
            task = bar.add_task(name, total=total)
            drawn = start

            def count() -> None:
                nonlocal drawn
                bar.advance(task)
                if time.perf_counter() - drawn > REDRAW_S:
                    bar.refresh()
                    drawn = time.perf_counter()

            bar.refresh()
            yield count
        self._finish(name, time.perf_counter() - start)

    def note(self, text: str) -> None:
        """Say something once; the same words again are left out."""
        if text not in self.notes:
            self.notes.append(text)
            self.console.print(text, markup=False, emoji=False)
