"""Figures as PNG and SVG, for papers: light, Okabe and Ito's colours, dashes and marks that tell series apart."""

import io
import textwrap

import numpy as np

from anatomy_export.core.errors import MissingExtraError
from anatomy_export.report.figure import Figure, HeatMap, Panel, Series, TextTable, seen_at_first

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":", "-.", (0, (8, 2)))
MARKS = "osD^Xv*pPh"
HATCHES = ("", "//", "xx", "..")
DPI = 200
CELL = 60
HEAD_LINES, ROW_GAP = 1.6, 0.35
LEGEND_BESIDE, LEGEND_SHORT, LEGEND_LINE = 5, 14, 62


def static_figure(figure: Figure, formats: tuple[str, ...]) -> dict[str, bytes]:
    """The bytes of one figure by format ("png", "svg"), as it is before anything is chosen.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure as Canvas
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report") from error
    drawn: dict[str, bytes] = {}
    with rc_context({"svg.hashsalt": "anatomy", "svg.fonttype": "none", "font.size": 9}):
        width = 6.4 * len(figure.parts) if len(figure.parts) < 3 else 12.8
        rows = -(-len(figure.parts) // 2)
        canvas = Canvas(
            figsize=(width, sum(_height(figure.parts[2 * row]) for row in range(rows))), layout="constrained"
        )
        for position, part in enumerate(figure.parts, start=1):
            _draw_part(canvas.add_subplot(rows, min(2, len(figure.parts)), position), part, canvas)
        for ending in formats:
            buffer = io.BytesIO()
            metadata = {"Date": None} if ending == "svg" else {"Software": None}
            canvas.savefig(buffer, format=ending, dpi=DPI, metadata=metadata)
            drawn[ending] = buffer.getvalue()
    return drawn


def _height(part) -> float:
    if isinstance(part, Panel):
        return part.height / 100
    if isinstance(part, HeatMap):
        return 5.2
    rows = _wrapped(part)
    return 0.3 + (_line_count(rows) + 0.4) * 1.4 * _text_size(_lengths(part, rows)) / 72


def _line_count(rows: list[list[list[str]]]) -> float:
    """Lines of a table, its head and the room between rows among them."""
    return HEAD_LINES + sum(max(len(cell) for cell in row) + ROW_GAP for row in rows)


def _lengths(table: TextTable, rows: list[list[list[str]]]) -> list[int]:
    """Characters of the longest line of every column."""
    return [
        max([len(heading), *(len(line) for row in rows for line in row[column])])
        for column, heading in enumerate(table.headings)
    ]


def _text_size(lengths: list[int]) -> float:
    """Points at which the columns fill the figure's width."""
    return min(9.0, 860 / (sum(lengths) + 2 * len(lengths)))


def _draw_part(axes, part, canvas) -> None:
    if isinstance(part, Panel):
        _draw_panel(axes, part)
    elif isinstance(part, HeatMap):
        _draw_heat(axes, part, canvas)
    else:
        _draw_table(axes, part)


def _draw_panel(axes, panel: Panel) -> None:
    bottom = np.zeros(max((len(series.x) for series in panel.series), default=0))
    for series in panel.series:
        if not seen_at_first(series.probes, series.layers):
            continue
        if series.draw == "bar":
            bottom = bottom + _draw_bars(axes, series, bottom)
        else:
            _draw_series(axes, series)
    axes.set_title(_plain(panel.title), loc="left", fontsize="medium")
    axes.set_xlabel(panel.x_title)
    axes.set_ylabel(panel.y_title)
    for ticks, set_ticks in ((panel.x_ticks, axes.set_xticks), (panel.y_ticks, axes.set_yticks)):
        if ticks:
            every = -(-len(ticks) // 16)
            set_ticks(range(0, len(ticks), every), [_plain(tick) for tick in ticks[::every]])
    if panel.x_hidden:
        axes.set_xticks([])
    if panel.y_reversed:
        axes.invert_yaxis()
    if panel.y_log:
        axes.set_yscale("log")
    if panel.y_range:
        axes.set_ylim(panel.y_range)
    axes.grid(axis="y" if panel.x_hidden else "both", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    _legend(axes)


def _legend(axes) -> None:
    _, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    longest = max(len(label) for label in labels)
    if len(labels) > LEGEND_BESIDE and longest <= LEGEND_SHORT:
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
        return
    columns = min(len(labels), max(1, LEGEND_LINE // (longest + 6)))
    above = 1.08 if axes.get_title(loc="left") else 1.01
    axes.legend(fontsize="small", loc="lower left", bbox_to_anchor=(0, above), ncols=columns, frameon=False)


def _draw_bars(axes, series: Series, bottom: np.ndarray) -> np.ndarray:
    """Draw bars that begin at `bottom`; their heights."""
    height, colour = np.array(series.y, dtype=float), _colour(series)
    options = {"facecolor": "none"} if series.open_marks else {"color": colour}
    options |= {"edgecolor": colour, "hatch": HATCHES[series.style % len(HATCHES)], "label": _plain(series.label)}
    axes.bar(series.x, height, bottom=bottom, width=0.7, **options)
    return height


def _draw_series(axes, series: Series) -> None:
    x, y = ([np.nan if value is None else value for value in values] for values in (series.x, series.y))
    colour, label = _colour(series), _plain(series.label) if series.in_legend and series.label else None
    if series.draw == "edges":
        axes.plot(x, y, color="0.6", alpha=0.5, linewidth=0.35, zorder=0)
        return
    if series.draw == "band":
        axes.fill(x, y, color=colour, alpha=0.15, linewidth=0, label=label)
        return
    style: dict = {"color": colour, "label": label}
    if series.draw != "marks":
        style |= {"linestyle": DASHES[series.style % len(DASHES)], "linewidth": 1.5}
    else:
        style |= {"linestyle": "none"}
    if series.draw != "line":
        fill = "none" if series.open_marks else colour
        style |= {
            "marker": MARKS[series.style % len(MARKS)],
            "markerfacecolor": fill,
            "markersize": 0.65 * series.mark_size,
        }
    if series.interval:
        gaps = [np.abs(np.array(bound, dtype=float) - np.array(y)) for bound in series.interval]
        axes.errorbar(x, y, yerr=gaps, elinewidth=0.8, capsize=2, **style)
    else:
        axes.plot(x, y, **style)


def _plain(text: str) -> str:
    """Text in which matplotlib reads no formula."""
    return text.replace("$", r"\$")


def _colour(series: Series) -> str:
    return COLOURS[series.style % len(COLOURS)]


def _draw_heat(axes, heat: HeatMap, canvas) -> None:
    values = heat.sheets[0].values
    image = axes.imshow(values, vmin=0, vmax=1, cmap="cividis")
    axes.set_xticks(range(len(heat.labels)), heat.labels)
    axes.set_yticks(range(len(heat.labels)), heat.labels)
    axes.set_xlabel(heat.axis_title)
    axes.set_ylabel(heat.axis_title)
    canvas.colorbar(image, ax=axes, label=heat.value_title, shrink=0.85)
    if len(values) > 12:
        return
    for row, column in np.ndindex(values.shape):
        if not np.isnan(values[row, column]):
            colour = "black" if values[row, column] > 0.5 else "white"
            axes.text(
                column, row, f"{values[row, column]:.2f}", ha="center", va="center", color=colour, fontsize="small"
            )


def _wrapped(table: TextTable) -> list[list[list[str]]]:
    """Lines of every cell of the rows seen at first; a cell of more than three lines is cut."""
    rows = [row for row in table.rows if seen_at_first(row.probes)]
    return [[textwrap.wrap(cell, CELL, max_lines=3, placeholder=" …") or [""] for cell in row.cells] for row in rows]


def _draw_table(axes, table: TextTable) -> None:
    axes.axis("off")
    rows = _wrapped(table)
    lengths = _lengths(table, rows)
    total, lines, size = sum(lengths) + 2 * len(lengths), _line_count(rows), _text_size(lengths)
    for column, heading in enumerate(table.headings):
        start, side = (sum(lengths[:column]) + 2 * column) / total, "left"
        if column in table.numeric:
            start, side = start + lengths[column] / total, "right"
        options = {
            "va": "top",
            "ha": side,
            "fontsize": size,
            "transform": axes.transAxes,
            "linespacing": 1.2,
            "parse_math": False,
        }
        axes.text(start, 1, heading, weight="bold", **options)
        line = HEAD_LINES
        for row in rows:
            axes.text(start, 1 - line / lines, "\n".join(row[column]), **options)
            line += max(len(cell) for cell in row) + ROW_GAP
    axes.axhline(1 - (HEAD_LINES - 0.25) / lines, color="0.4", linewidth=0.8)
    axes.set_ylim(0, 1)
