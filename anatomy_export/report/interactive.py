"""Figures as Plotly traces. Colours are numbers of a palette that the page picks for dark or light."""

import html
from collections.abc import Sequence

import numpy as np

from anatomy_export.report.figure import Choice, HeatMap, Panel, Series, Sheet

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "triangle-down", "star", "pentagon", "cross", "hexagon")
HATCHES = ("", "/", "x", ".")
DIGITS = 6


def panel_plot(panel: Panel, label: str) -> dict:
    """Traces and layout of one pair of axes; `label` is what a screen reader says."""
    layout: dict = {
        "xaxis": {"title": {"text": _text(panel.x_title)}},
        "yaxis": {"title": {"text": _text(panel.y_title)}},
        "barmode": "stack",
    }
    for axis, ticks in (("xaxis", panel.x_ticks), ("yaxis", panel.y_ticks)):
        if ticks is not None:
            layout[axis] |= {"tickvals": list(range(len(ticks))), "ticktext": [_text(tick) for tick in ticks]}
    if panel.x_hidden:
        reach = (
            max((abs(value) for series in panel.series for value in series.x if value is not None), default=0) * 1.04
            + 1
        )
        hidden = {"showticklabels": False, "showgrid": False, "zeroline": False}
        layout["xaxis"] |= {**hidden, "range": [-reach, reach]}
    if panel.y_reversed:
        layout["yaxis"]["range"] = [len(panel.y_ticks or ()) - 0.4, -0.6]
        layout["by_layer"] = True
    if panel.y_log:
        layout["yaxis"] |= {"type": "log", "exponentformat": "power", "dtick": 1}
    if panel.y_range:
        layout["yaxis"]["range"] = list(panel.y_range)
    return {
        "data": [_trace(series) for series in panel.series],
        "layout": layout,
        "height": panel.height,
        "label": label,
    }


def _trace(series: Series) -> dict:
    meta = {"style": series.style, "draw": series.draw, "open": series.open_marks, "label": series.label}
    trace = {
        "x": _numbers(series.x),
        "y": _numbers(series.y),
        "name": _text(series.label),
        "showlegend": bool(series.in_legend and series.label),
        "meta": meta | _choices(series.probes, series.layers),
    }
    if series.hover:
        trace |= {"hovertext": [_text(text) for text in series.hover], "hoverinfo": "text"}
    else:
        trace["hoverinfo"] = "skip"
    return trace | _drawn(series)


def _drawn(series: Series) -> dict:
    line = {"dash": DASHES[series.style % len(DASHES)], "width": 2}
    symbol = SYMBOLS[series.style % len(SYMBOLS)] + "-open" * series.open_marks
    marker = {"symbol": symbol, "size": series.mark_size, "line": {"width": 1.5 if series.open_marks else 0}}
    if series.draw == "bar":
        return {"type": "bar", "marker": {"pattern": {"shape": HATCHES[series.style % len(HATCHES)], "size": 6}}}
    if series.draw == "band":
        return {"type": "scatter", "mode": "lines", "fill": "toself", "line": {"width": 0}}
    if series.draw == "edges":
        return {"type": "scatter", "mode": "lines", "line": {"width": 0.7}, "connectgaps": False}
    mode = {"joined": "lines+markers", "line": "lines", "marks": "markers"}[series.draw]
    drawn = {"type": "scatter", "mode": mode, "line": line, "marker": marker}
    if series.interval:
        low, high = series.interval
        above = [_gap(bound, value) for bound, value in zip(high, series.y, strict=True)]
        below = [_gap(value, bound) for bound, value in zip(low, series.y, strict=True)]
        drawn["error_y"] = {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1.2}
    return drawn


def heat_plot(heat: HeatMap, label: str) -> dict:
    """One trace a sheet."""
    axis = {"title": {"text": _text(heat.axis_title)}, "type": "category"}
    end = len(heat.labels) - 0.5
    layout = {"xaxis": {**axis, "range": [-0.5, end]}, "yaxis": {**axis, "range": [end, -0.5]}, "square": True}
    data = [_sheet(heat, sheet) for sheet in heat.sheets if not np.isnan(sheet.values).all()]
    return {"data": data, "layout": layout, "height": 470, "label": label}


def _sheet(heat: HeatMap, sheet: Sheet) -> dict:
    few = len(heat.labels) <= 12
    shown = [["" if np.isnan(value) else f"{100 * value:.0f}" for value in row] for row in sheet.values]
    return {
        "type": "heatmap",
        "x": list(heat.labels),
        "y": list(heat.labels),
        "z": [[None if np.isnan(value) else round(float(value), 4) for value in row] for row in sheet.values],
        "zmin": 0,
        "zmax": 1,
        "colorscale": "Cividis",
        "colorbar": {"title": {"text": _text(heat.value_title), "side": "right"}, "tickformat": ".0%", "thickness": 14},
        "text": shown,
        "texttemplate": "%{text}" if few else "",
        "hovertext": [[_text(text) for text in row] for row in sheet.hover],
        "hoverinfo": "text",
        "xgap": 1,
        "ygap": 1,
        "meta": {"draw": "heat"} | _choices(None, sheet.layers),
    }


def _choices(probes: Choice, layers: Choice) -> dict:
    return {"probes": None if probes is None else list(probes), "layers": None if layers is None else list(layers)}


def _numbers(values: Sequence[float | None]) -> list[float | int | None]:
    return [None if value is None else _short(value) for value in values]


def _short(value: float) -> float | int:
    rounded = float(f"{float(value):.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() else rounded


def _gap(above: float | None, below: float | None) -> float:
    return 0 if above is None or below is None else _short(max(0.0, above - below))


def _text(text: str) -> str:
    """Plotly reads a little HTML in every text: escaped, so that a probe sentence stays what it is."""
    return html.escape(text, quote=False).replace("\n", "<br>")
