"""Latency against neurons removed, with the line of no gap, and accuracy against speed: SVG files."""

import io
from collections.abc import Callable

from anatomy_export.core.errors import MissingExtraError

MARKS = "osD^v<>Ph*"
MARKERS = {"mask": "s", "slice": "o"}
LINES = ("-", "--", ":", "-.")


def latency_plot(bodies: list[dict]) -> bytes | None:
    """One panel an input shape of all `bodies`, in milliseconds; None where no plan removed anything.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    rows = [row for body in bodies for row in body["results"]]
    title = "batch {batch}, {seq_len} tokens"
    return _draw(rows, title, "median latency, ms", lambda row: 1e3 * row["median_s"])


def paper_plot(body: dict) -> bytes | None:
    """One panel a set of texts and layout, in seconds for the whole job; None where no plan removed anything.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    return _draw(body["results"], "{texts}, {layout}", "seconds for the job", lambda row: row["total_s"])


def _draw(rows: list[dict], title: str, unit: str, measure: Callable[[dict], float]) -> bytes | None:
    """A panel for each `title`, a format of a row's fields, under which a plan removed something."""
    panels = dict.fromkeys(title.format_map(row) for row in rows if row["removed_share"])
    if not panels:
        return None
    columns = min(len(panels), 2)
    lines = -(-len(panels) // columns)
    figure = _figure(figsize=(5.5 * columns, 4.2 * lines))
    for number, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(lines, columns, number)
        _draw_panel(axes, [row for row in rows if title.format_map(row) == panel], measure)
        axes.set_title(panel)
        axes.set_xlabel("FFN neurons removed, %")
        axes.set_ylabel(unit)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return _svg(figure)


def pareto_plot(body: dict) -> bytes:
    """Accuracy on validation against speed, one mark a way to prune; the ways that no other beats are joined.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = _figure(figsize=(9.5, 5))
    axes = figure.add_subplot()
    dense = body["results"]["dense"]
    axes.plot([1.0], [100 * dense["accuracy"]], "D", color="black", label="dense")
    ways = [way for way in body["results"].values() if "speedup" in way and "criterion" in way]
    for index, criterion in enumerate(dict.fromkeys(way["criterion"] for way in ways)):
        for repaired, fill in ((True, f"C{index}"), (False, "none")):
            group = [way for way in ways if way["criterion"] == criterion and (way["compensate"] != "none") == repaired]
            points = [[way["speedup"] for way in group], [100 * way["accuracy"] for way in group]]
            label = criterion + (", repaired" if repaired else "")
            marker = MARKS[index % len(MARKS)]
            axes.plot(*points, marker, color=f"C{index}", markerfacecolor=fill, label=label, alpha=0.8)
    best = [body["results"][name] for name in body.get("non_dominated", ())]
    axes.plot([way["speedup"] for way in best], [100 * way["accuracy"] for way in best], color="black", zorder=0)
    shape = f"batch {body['latency']['batch']}, {body['latency']['seq_len']} tokens"
    axes.set_xlabel(f"times the dense model's speed, {shape}")
    axes.set_ylabel("accuracy on validation, %")
    axes.grid(alpha=0.3)
    figure.legend(fontsize="x-small", loc="outside right upper")
    return _svg(figure)


def _figure(**options):
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report") from error
    return Figure(layout="constrained", **options)


def _svg(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _draw_panel(axes, rows: list[dict], measure: Callable[[dict], float]) -> None:
    for index, engine in enumerate(dict.fromkeys(map(_engine, rows))):
        of_engine = [row for row in rows if _engine(row) == engine]
        dense = next((row for row in of_engine if row["variant"] == "dense"), None)
        style, color = LINES[index % len(LINES)], f"C{index}"
        for variant, marker in MARKERS.items():
            line = sorted((row for row in of_engine if row["variant"] == variant), key=lambda row: -row["keep_ratio"])
            line = [dense, *line] if dense and line else line
            if line:
                removed, values = [100 * (1 - row["keep_ratio"]) for row in line], [measure(row) for row in line]
                fill = color if variant == "slice" else "none"
                label = f"{engine} {variant}"
                axes.plot(removed, values, style, color=color, marker=marker, markerfacecolor=fill, label=label)
        if dense:
            _draw_ideal(axes, of_engine, measure(dense), color, engine)


def _draw_ideal(axes, rows: list[dict], dense: float, color: str, engine: str) -> None:
    """What the dense time less the share of removed FLOPs would be; a lone dense engine is a dot."""
    shares = sorted({(1 - row["keep_ratio"], row["removed_share"]) for row in rows if row["removed_share"]})
    if not shares:
        axes.plot([0.0], [dense], "D", color=color, label=f"{engine} dense")
        return
    removed = [0.0, *(100 * neurons for neurons, _ in shares)]
    values = [dense, *(dense * (1 - flops) for _, flops in shares)]
    axes.plot(removed, values, color=color, alpha=0.35, linewidth=4, label=f"{engine} ideal", zorder=0)


def _engine(row: dict) -> str:
    return row["engine"] + " bound" * row.get("io_binding", False) + " graph" * row.get("cuda_graph", False)
