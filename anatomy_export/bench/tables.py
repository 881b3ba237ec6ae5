"""Bench results for people: table rows, Markdown, plots."""

import io
from collections.abc import Sequence

HEADINGS = ("engine", "variant", "batch×tokens", "ms", "× dense", "× torch", "closure", "of peak")
PAPER_HEADINGS = ("engine", "variant", "layout", "seconds", "reviews/s", "× torch dense padded", "same classes")
COMPARE_HEADINGS = ("worker", "batch", "tokens", "first, ms", "second, ms", "first ÷ second")
MISSING = "n/a"


def bench_rows(body: dict, *, intervals: bool = True) -> list[tuple[str, ...]]:
    """One row of text a result, under `HEADINGS`; void ratios carry a question mark.

    Without `intervals` only the speed-up against dense shows its interval, so that the row fits a terminal.
    """
    rows: list[tuple[str, ...]] = []
    for one in body["results"]:
        setting = " bound" * one["io_binding"] + " graph" * one["cuda_graph"]
        rows.append(
            (
                one["engine"] + setting,
                one["name"],
                f"{one['batch']}×{one['seq_len']}",
                milliseconds(one["median_s"]),
                ratio(one["speedup"], one["speedup_interval"]) + "?" * one["speedup_void"],
                ratio(one["torch_speedup"], one["torch_speedup_interval"] if intervals else None),
                ratio(one["closure"], one["closure_interval"] if intervals else None),
                MISSING if one["roofline_share"] is None else f"{100 * one['roofline_share']:.0f} %",
            )
        )
    return rows


def bench_notes(body: dict) -> list[str]:
    """What a reader of the table must know: the machine, the roofline, partial runs, failures, void comparisons."""
    environment, settings = body["environment"], body["settings"]
    where = f"{environment['cpu']}, {settings['threads']} threads, provider {settings['provider']}"
    notes = [
        f"{where}, {settings['precision']}; medians of interleaved calls, ratios paired by round with 95 % intervals."
    ]
    peak = body["roofline"]["flops_per_s"]
    if peak:
        notes.append(f"Matrix products reached {peak / 1e9:.0f} GFLOP/s in the same run: the peak that shares are of.")
    if any(one.get("closure") is not None for one in body["results"]):
        notes.append("Closure: time saved ÷ time that the removed FLOPs stand for; 0 saves nothing, 1 saves all of it.")
    if body["partial"]:
        notes.append("Partial: the run was interrupted; these are the rounds done until then.")
    notes += [f"{one['worker']} failed and is missing: {one['reason']}" for one in body["failures"]]
    void = [f"{one['worker']} ({one['batch']}×{one['seq_len']})" for one in body["results"] if one.get("speedup_void")]
    if void:
        notes.append(
            f"Void (marked ?): the spread is too wide to compare {', '.join(void)}; close other programs, raise "
            "--repeats, or use a machine that is idle."
        )
    return notes


def paper_rows(body: dict, texts: str) -> list[tuple[str, ...]]:
    """One row of text a worker and layout of the paper's job on `texts`, under `PAPER_HEADINGS`."""
    return [
        (
            one["engine"],
            one["name"],
            one["layout"],
            f"{one['total_s']:.2f}",
            f"{one['examples_per_s']:.1f}",
            ratio(one["torch_speedup"], one["torch_speedup_interval"]),
            MISSING if one["same_classes"] is None else f"{100 * one['same_classes']:.1f} %",
        )
        for one in body["results"]
        if one["texts"] == texts
    ]


def compare_rows(rows: list[dict]) -> list[tuple[str, ...]]:
    """Text for the rows of `compare_results`, under `COMPARE_HEADINGS`."""
    return [
        (
            one["worker"],
            str(one["batch"]),
            str(one["seq_len"] or MISSING),
            milliseconds(one["first_median_s"]),
            milliseconds(one["second_median_s"]),
            ratio(one["ratio"], one["ratio_interval"]),
        )
        for one in rows
    ]


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds, three digits that count."""
    value = 1e3 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio(value: float | None, interval: Sequence[float] | None) -> str:
    """`1.43 [1.40, 1.47]`, or the value alone, or n/a."""
    if value is None:
        return MISSING
    return f"{value:.2f}" if interval is None else f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (headings, ["---"] * len(headings), *rows)]
    return "\n".join(lines) + "\n"


def bench_markdown(body: dict) -> str:
    """`bench.md`: the table and its notes."""
    return markdown_table(HEADINGS, bench_rows(body)) + "".join(f"\n{note}\n" for note in bench_notes(body))


def paper_markdown(body: dict) -> str:
    """`bench.md` of the paper's job: one table a set of texts, and the notes."""
    parts = []
    for texts in dict.fromkeys(one["texts"] for one in body["results"]):
        parts.append(
            f"## {texts}\n\n{body['texts'][texts]}\n\n" + markdown_table(PAPER_HEADINGS, paper_rows(body, texts))
        )
    return "\n".join(parts) + "".join(f"\n{note}\n" for note in bench_notes(body))


def latency_plot(body: dict) -> dict[str, bytes]:
    """`{"bench.svg": …}`: latency against neurons removed, one panel an input shape, with the line of no gap.

    Empty without matplotlib (extra `report`), or where no plan removed anything.
    """
    points = [one for one in body["results"] if one.get("removed_share")]
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return {}
    if not points:
        return {}
    shapes = list(dict.fromkeys((one["batch"], one["seq_len"]) for one in points))
    figure = Figure(figsize=(5.5 * len(shapes), 4.2), layout="constrained")
    for panel, shape in enumerate(shapes, start=1):
        axes = figure.add_subplot(1, len(shapes), panel)
        results = [one for one in body["results"] if (one["batch"], one["seq_len"]) == shape]
        _draw_shape(axes, results)
        axes.set_title(f"batch {shape[0]}, {shape[1]} tokens")
        axes.set_xlabel("FFN neurons removed, %")
        axes.set_ylabel("median latency, ms")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return {"bench.svg": buffer.getvalue()}


MARKERS = {"mask": "s", "slice": "o"}
LINES = ("-", "--", ":", "-.")


def _draw_shape(axes, results: list[dict]) -> None:
    for index, engine in enumerate(dict.fromkeys(one["engine"] for one in results)):
        own = [one for one in results if one["engine"] == engine]
        dense = next((one for one in own if one["variant"] == "dense"), None)
        color = f"C{index}"
        for variant, marker in MARKERS.items():
            line = sorted((one for one in own if one["variant"] == variant), key=lambda one: -one["keep_ratio"])
            line = [dense, *line] if dense and line else line
            if line:
                removed = [100 * (1 - one["keep_ratio"]) for one in line]
                times = [1e3 * one["median_s"] for one in line]
                style = LINES[index % len(LINES)]
                fill = color if variant == "slice" else "none"
                label = f"{engine} {variant}"
                axes.plot(removed, times, style, color=color, marker=marker, markerfacecolor=fill, label=label)
        if dense:
            ideal = sorted((1 - one["keep_ratio"], one["removed_share"]) for one in own if one["removed_share"])
            removed = [0.0, *(100 * point[0] for point in ideal)]
            times = [1e3 * dense["median_s"] * (1 - share) for share in (0.0, *(point[1] for point in ideal))]
            axes.plot(removed, times, color=color, alpha=0.35, linewidth=4, label=f"{engine} ideal", zorder=0)
