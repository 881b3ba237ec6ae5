"""What a figure shows, whoever draws it: curves, heat maps and tables with the text that sums them up.

`probes` and `layers` say by which choices a part is shown: numbers from 0, `ALL` where none is chosen; None: always.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

ALL = -1
Choice = tuple[int, ...] | None
Values = Sequence[float | None]


def seen_at_first(*choices: Choice) -> bool:
    """Is a part seen while nothing is chosen?"""
    return all(choice is None or ALL in choice for choice in choices)


@dataclass(frozen=True)
class Series:
    """Points in order; `style` picks colour, dash and mark.

    Attributes:
        draw: "joined" (line and marks), "line", "marks", "bar", "edges" (thin lines, None between two), "band" (a
            closed outline, filled).
        hover: one text a point, lines parted by a newline.
        interval: lowest and highest value of each point.
        open_marks: outlines, for what is less certain or less complete.
    """

    label: str
    x: Values
    y: Values
    style: int = 0
    draw: str = "joined"
    hover: tuple[str, ...] = ()
    interval: tuple[Values, Values] | None = None
    open_marks: bool = False
    mark_size: float = 8
    in_legend: bool = True
    probes: Choice = None
    layers: Choice = None


@dataclass(frozen=True)
class Panel:
    """Series in one pair of axes.

    Attributes:
        x_ticks, y_ticks: names of the values 0, 1, …
        x_hidden: x means nothing.
        comparable: between sources, so that all have the same y axis.
    """

    series: tuple[Series, ...]
    x_title: str
    y_title: str
    title: str = ""
    x_ticks: tuple[str, ...] | None = None
    y_ticks: tuple[str, ...] | None = None
    x_hidden: bool = False
    y_reversed: bool = False
    y_log: bool = False
    comparable: bool = False
    y_range: tuple[float, float] | None = None
    height: int = 380

    def y_limits(self) -> tuple[float, float] | None:
        """Smallest and largest value drawn, None where there is none."""
        drawn = [values for series in self.series for values in (series.y, *(series.interval or ()))]
        values = [value for values in drawn for value in values if value is not None]
        return (min(values), max(values)) if values else None


@dataclass(frozen=True)
class Sheet:
    """One heat map, (n, n) in [0, 1] or NaN, with the choice of layer that shows it; `hover` has one text a cell."""

    values: np.ndarray
    hover: tuple[tuple[str, ...], ...]
    layers: Choice = None


@dataclass(frozen=True)
class HeatMap:
    """Sheets over the same labels, of which one is seen at a time."""

    labels: tuple[str, ...]
    axis_title: str
    value_title: str
    sheets: tuple[Sheet, ...]


@dataclass(frozen=True)
class Row:
    """Cells as text."""

    cells: tuple[str, ...]
    probes: Choice = None
    layers: Choice = None


@dataclass(frozen=True)
class TextTable:
    """`numeric` columns are aligned to the right."""

    headings: tuple[str, ...]
    rows: tuple[Row, ...]
    numeric: frozenset[int] = frozenset()


Part = Panel | HeatMap | TextTable


@dataclass(frozen=True)
class Figure:
    """One figure of one source.

    Attributes:
        topic: what it is about; figures of one topic stand side by side.
        source: label of the directory it was drawn from.
        summary: what a reader without eyes on it should know.
        number: the paper's, "" where the paper has none.
        notes: what must be known to read it rightly.
        own_title: where it has another than its topic.
    """

    topic: str
    source: str
    parts: tuple[Part, ...]
    summary: str
    number: str = ""
    notes: tuple[str, ...] = ()
    own_title: str = ""

    @property
    def title(self) -> str:
        return self.own_title or self.topic

    @property
    def name(self) -> str:
        return f"{'Table' if self.number == '5a' else 'Figure'} {self.number}" if self.number else self.title


def share_ranges(figures: Sequence[Figure]) -> list[Figure]:
    """The same y axis for every panel of one topic, so that sources side by side can be compared by eye."""
    limits: dict[tuple, list[float]] = {}
    for figure in figures:
        for part in figure.parts:
            if isinstance(part, Panel) and part.comparable:
                limits.setdefault(_axis(figure, part), []).extend(part.y_limits() or ())
    return [replace(figure, parts=tuple(_ranged(figure, part, limits) for part in figure.parts)) for figure in figures]


def _axis(figure: Figure, panel: Panel) -> tuple:
    return figure.topic, panel.title, panel.y_title


def _ranged(figure: Figure, part: Part, limits: dict[tuple, list[float]]) -> Part:
    values = limits.get(_axis(figure, part)) if isinstance(part, Panel) and part.comparable else None
    if not isinstance(part, Panel) or not values:
        return part
    room = 0.06 * (max(values) - min(values)) or 0.05 * abs(max(values)) or 0.05
    return replace(part, y_range=(min(values) - room, max(values) + room))
