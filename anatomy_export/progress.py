"""What a person sees while the work goes on: one line a stage, on standard error, with time and memory."""

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


@dataclass(frozen=True)
class Stage:
    """One finished stage: `seconds` of wall clock, `peak_rss_bytes` the process's high-water mark at its end."""

    name: str
    seconds: float
    peak_rss_bytes: int


def peak_rss_bytes() -> int:
    """High-water mark of this process's resident memory, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@dataclass
class Progress:
    """Announces stages on standard error; a spinner where that is a terminal, plain lines elsewhere."""

    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    stages: list[Stage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        with self.console.status(f"{name} …"):
            yield
        self._finish(name, time.perf_counter() - start)

    def _finish(self, name: str, seconds: float) -> None:
        self.stages.append(Stage(name, seconds, peak_rss_bytes()))
        self.console.print(f"[green]✓[/green] {name} [dim]{seconds:.1f} s[/dim]")

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Callable[[], None]]:
        """A stage of `total` steps with the time left; the function that it yields counts one."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        start = time.perf_counter()
        with Bar(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(name, total=total)
            yield lambda: bar.advance(task)
        self._finish(name, time.perf_counter() - start)

    def note(self, text: str) -> None:
        """Say something once; the same words again are left out."""
        if text not in self.notes:
            self.notes.append(text)
            self.console.print(text, markup=False)
