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
    results = [one for body in bodies for one in body["results"]]
    shapes = dict.fromkeys((one["batch"], one["seq_len"]) for one in results if one["removed_share"])
    panels = {
        f"batch {batch}, {length} tokens": [one for one in results if (one["batch"], one["seq_len"]) == (batch, length)]
        for batch, length in shapes
    }
    return _draw(panels, "median latency, ms", lambda one: 1e3 * one["median_s"])


def paper_plot(body: dict) -> bytes | None:
    """One panel a set of texts and layout, in seconds for the whole job; None where no plan removed anything.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    kinds = dict.fromkeys((one["texts"], one["layout"]) for one in body["results"] if one["removed_share"])
    panels = {
        f"{texts}, {layout}": [one for one in body["results"] if (one["texts"], one["layout"]) == (texts, layout)]
        for texts, layout in kinds
    }
    return _draw(panels, "seconds for the job", lambda one: one["total_s"])


def _draw(panels: dict[str, list[dict]], unit: str, measure: Callable[[dict], float]) -> bytes | None:
    if not panels:
        return None
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure = _figure(figsize=(5.5 * columns, 4.2 * rows))
    for panel, (title, results) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, panel)
        _draw_panel(axes, results, measure)
        axes.set_title(title)
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
    ways = {name: one for name, one in body["results"].items() if "speedup" in one and "criterion" in one}
    for index, criterion in enumerate(dict.fromkeys(one["criterion"] for one in ways.values())):
        same = [one for one in ways.values() if one["criterion"] == criterion]
        for repaired, fill in ((True, f"C{index}"), (False, "none")):
            own = [one for one in same if (one["compensate"] != "none") == repaired]
            points = [[one["speedup"] for one in own], [100 * one["accuracy"] for one in own]]
            label = criterion + (", repaired" if repaired else "")
            marker = MARKS[index % len(MARKS)]
            axes.plot(*points, marker, color=f"C{index}", markerfacecolor=fill, label=label, alpha=0.8)
    best = [body["results"][name] for name in body.get("non_dominated", ())]
    axes.plot([one["speedup"] for one in best], [100 * one["accuracy"] for one in best], color="black", zorder=0)
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


def _draw_panel(axes, results: list[dict], measure: Callable[[dict], float]) -> None:
    for index, engine in enumerate(dict.fromkeys(_engine(one) for one in results)):
        own = [one for one in results if _engine(one) == engine]
        dense = next((one for one in own if one["variant"] == "dense"), None)
        style, color = LINES[index % len(LINES)], f"C{index}"
        for variant, marker in MARKERS.items():
            line = sorted((one for one in own if one["variant"] == variant), key=lambda one: -one["keep_ratio"])
            line = [dense, *line] if dense and line else line
            if line:
                removed, values = [100 * (1 - one["keep_ratio"]) for one in line], [measure(one) for one in line]
                fill = color if variant == "slice" else "none"
                label = f"{engine} {variant}"
                axes.plot(removed, values, style, color=color, marker=marker, markerfacecolor=fill, label=label)
        if dense:
            _draw_ideal(axes, own, measure(dense), color, engine)


def _draw_ideal(axes, own: list[dict], dense: float, color: str, engine: str) -> None:
    """What the dense time less the share of removed FLOPs would be; a lone dense engine is a dot."""
    shares = sorted({(1 - one["keep_ratio"], one["removed_share"]) for one in own if one["removed_share"]})
    if not shares:
        axes.plot([0.0], [dense], "D", color=color, label=f"{engine} dense")
        return
    removed = [0.0, *(100 * point[0] for point in shares)]
    values = [dense * (1 - share) for share in (0.0, *(point[1] for point in shares))]
    axes.plot(removed, values, color=color, alpha=0.35, linewidth=4, label=f"{engine} ideal", zorder=0)


def _engine(one: dict) -> str:
    return one["engine"] + " bound" * one.get("io_binding", False) + " graph" * one.get("cuda_graph", False)
