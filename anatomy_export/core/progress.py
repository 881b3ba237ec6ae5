"""What a person sees while the work goes on: one line a stage, on standard error, with time and memory."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anatomy_export.core.platform import forget_peak, peak_rss_bytes

if TYPE_CHECKING:
    from rich.console import Console

REDRAW_S = 0.2


@dataclass(frozen=True)
class Stage:
    """One finished stage: `seconds` of wall clock, `peak_rss_bytes` the most memory that was resident during it, None
    where the system does not tell."""

    name: str
    seconds: float
    peak_rss_bytes: int | None


def _standard_error() -> "Console":
    from rich.console import Console

    return Console(stderr=True, highlight=False)


@dataclass
class Progress:
    """Announces stages on standard error; a spinner where that is a terminal, plain lines elsewhere."""

    console: "Console" = field(default_factory=_standard_error)
    stages: list[Stage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        from rich.text import Text

        with self._timed(name), self.console.status(Text(f"{name} …")):
            yield

    @contextmanager
    def bar(self, name: str, total: int | None) -> Iterator[Callable[[], None]]:
        """A stage of `total` steps (None: nobody knows) with the time left; the function that it yields counts one.

        It draws only when a step is counted, so that nothing runs beside a step that is being timed.
        """
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        described = TextColumn("{task.description}", markup=False)
        columns = (described, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        shown = self.console.is_terminal
        with (
            self._timed(name),
            Bar(*columns, console=self.console, transient=True, disable=not shown, auto_refresh=False) as bar,
        ):
            task = bar.add_task(name, total=total)
            drawn = time.perf_counter()

            def count() -> None:
                nonlocal drawn
                bar.advance(task)
                if time.perf_counter() - drawn > REDRAW_S:
                    bar.refresh()
                    drawn = time.perf_counter()

            bar.refresh()
            yield count

    def note(self, text: str) -> None:
        """Say something once; the same words again are left out."""
        if text not in self.notes:
            self.notes.append(text)
            self.console.print(text, markup=False, emoji=False)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """Measure what is done inside, and announce it once it is finished without an error."""
        from rich.text import Text

        forget_peak()
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.stages.append(Stage(name, seconds, peak_rss_bytes()))
        self.console.print(Text.assemble(("✓", "green"), f" {name} ", (f"{seconds:.1f} s", "dim")))
