"""What was exported, timed and searched: bundles, bench results, accuracy against speed."""

from collections.abc import Mapping, Sequence

from anatomy_export.report.figure import Figure, Panel, Row, Series, TextTable
from anatomy_export.report.sources import Bench, BenchRow, Bundle, Comparison, Pareto, Quantity, Way
from anatomy_export.report.wording import REMOVED, counted, of_all, percent

QUANTITIES = {
    "neurons": ("FFN neurons", 1.0, ",.0f"),
    "parameters": ("parameters", 1.0, ",.0f"),
    "flops": ("GFLOPs a sequence", 1e9, ",.2f"),
    "size_bytes": ("model.onnx, MB", 1e6, ",.1f"),
    "accuracy": ("accuracy, %", 0.01, ".2f"),
}
PARTIAL = ("Partial: the run was interrupted.",)


def bundle_figures(bundle: Bundle) -> list[Figure]:
    """Neurons kept by layer, dense against pruned, and the verification."""
    return [_widths(bundle), _result(bundle), _verification(bundle)]


def _widths(bundle: Bundle) -> Figure:
    kept, widths = bundle.plan.kept_widths, bundle.plan.widths
    layers = list(range(len(widths)))
    hover = tuple(f"layer {layer}\nkept {of_all(kept[layer], widths[layer])}" for layer in layers)
    removed = [width - count for width, count in zip(widths, kept, strict=True)]
    series = (
        Series("kept", layers, kept, 0, "bar", hover),
        Series("removed", layers, removed, 1, "bar", hover, open_marks=True),
    )
    shares = [count / width for count, width in zip(kept, widths, strict=True)]
    top, bottom = shares.index(max(shares)), shares.index(min(shares))
    return Figure(
        topic="Neurons kept, by layer",
        source=bundle.label,
        parts=(Panel(series, "layer", "FFN neurons", x_ticks=tuple(map(str, layers))),),
        summary=(
            f"Of {sum(widths):,} FFN neurons {sum(kept):,} stay ({percent(sum(kept) / sum(widths))}), by the "
            f"criterion {bundle.plan.criterion}. Layer {top} keeps the largest share ({percent(shares[top])}), "
            f"layer {bottom} the smallest ({percent(shares[bottom])})."
        ),
    )


def _result(bundle: Bundle) -> Figure:
    rows = []
    for name, quantity in bundle.result.items():
        label, unit, shown = QUANTITIES.get(name, (name, 1.0, ",.4g"))
        values = (quantity.dense, quantity.pruned)
        cells = ["n/a" if value is None else format(value / unit, shown) for value in values]
        rows.append(Row((label, *cells, _change(name, *values))))
    accuracy = bundle.result.get("accuracy", Quantity())
    if accuracy.dense is None or accuracy.pruned is None:
        change = "was not measured"
    else:
        change = f"goes from {percent(accuracy.dense, 2)} to {percent(accuracy.pruned, 2)}"
    return Figure(
        topic="Dense against pruned",
        source=bundle.label,
        parts=(TextTable(("quantity", "dense", "pruned", "change"), tuple(rows), numeric=frozenset((1, 2, 3))),),
        summary=f"The bundle {bundle.name}, {bundle.mode}. Accuracy on the test split {change}.",
    )


def _change(name: str, dense: float | None, pruned: float | None) -> str:
    if dense is None or pruned is None:
        return "n/a"
    if name == "accuracy":
        return f"{100 * (pruned - dense):+.2f} points"
    return f"{(pruned - dense) / dense:+.1%}" if dense else "n/a"


def _verification(bundle: Bundle) -> Figure:
    by_name: dict[str, list[Comparison]] = {}
    for comparison in bundle.comparisons:
        by_name.setdefault(comparison.name, []).append(comparison)
    series = []
    for style, (name, group) in enumerate(by_name.items()):
        sizes = [comparison.shape for comparison in group]
        errors = [comparison.max_abs_error for comparison in group]
        hover = tuple(
            f"{name}\n{rows} × {length} tokens\n{error:.2e}"
            for (rows, length), error in zip(sizes, errors, strict=True)
        )
        positions = [float(index) for index in range(len(group))]
        series.append(Series(name, positions, [max(error, 1e-12) for error in errors], style, "marks", hover))
    most = max(map(len, by_name.values()), default=1)
    tolerance = max((comparison.tolerance for comparison in bundle.comparisons), default=0.0)
    if tolerance:
        series.append(Series("tolerance", [-0.5, most - 0.5], [tolerance] * 2, len(by_name), "line"))
    first = next(iter(by_name.values()), [])
    shapes = tuple(f"{rows}×{length}" for rows, length in (comparison.shape for comparison in first))
    largest = max((comparison.max_abs_error for comparison in bundle.comparisons), default=0.0)
    panel = Panel(tuple(series), "batch × tokens", "largest difference of a logit", x_ticks=shapes, y_log=True)
    return Figure(
        topic="Verification",
        source=bundle.label,
        parts=(panel,),
        summary=(
            f"{counted(len(bundle.comparisons), 'comparison')} of logits differ by {largest:.1e} at most; "
            f"{tolerance:.0e} is tolerated."
        ),
    )


def bench_figures(bench: Bench) -> list[Figure]:
    """Median latency (or the time of the paper's job) against neurons removed, one panel an input."""
    panels: dict[str, list[BenchRow]] = {}
    for row in bench.results:
        panels.setdefault(bench.input(row), []).append(row)
    if not panels:
        return []
    topic, title, quantity = "Latency", "Latency", "median latency, ms"
    if bench.is_job:
        topic, title, quantity = "The paper's job", "Seconds for the paper's job", "seconds for the job"
    return [
        Figure(
            topic=topic,
            own_title=title,
            source=bench.label,
            parts=tuple(
                Panel(tuple(_latency_series(rows, bench)), REMOVED, quantity, title=name)
                for name, rows in panels.items()
            ),
            summary=_bench_summary(bench.results),
            notes=PARTIAL if bench.partial else (),
        )
    ]


def _latency_series(rows: Sequence[BenchRow], bench: Bench) -> list[Series]:
    """A line an engine and variant, each from the dense model on; a dense one that stands alone has its own."""
    drawn: list[Series] = []
    for setting in dict.fromkeys(row.setting for row in rows):
        of_engine = [row for row in rows if row.setting == setting]
        dense = [row for row in of_engine if row.variant == "dense"]
        pruned = dict.fromkeys(row.variant for row in of_engine if row.variant != "dense")
        for variant in pruned or ("dense",):
            line = [row for row in of_engine if row.variant == variant and variant != "dense"]
            line = sorted([*dense, *line], key=lambda row: row.removed)
            drawn.append(
                Series(
                    f"{setting} {variant}",
                    [row.removed for row in line],
                    [bench.time(row)[0] for row in line],
                    len(drawn),
                    hover=tuple(_time_hover(row, *bench.time(row)) for row in line),
                    open_marks=variant == "mask",
                )
            )
    return drawn


def _time_hover(row: BenchRow, time: float, unit: str) -> str:
    ratio = f"\n{row.speedup:.2f} × dense" if row.speedup is not None else ""
    return f"{row.setting}, {row.name}\n{time:.2f} {unit}{ratio}"


def _bench_summary(rows: Sequence[BenchRow]) -> str:
    rated = [(row.speedup, row) for row in rows if row.speedup is not None and row.variant != "dense"]
    text = f"{counted(len(rows), 'measurement')}."
    if rated:
        (most, best), (least, worst) = (pick(rated, key=lambda pair: pair[0]) for pick in (max, min))
        text += (
            f" Against the dense model on the same engine, the fastest is {best.name} on {best.setting} "
            f"({most:.2f} ×), the slowest {worst.name} on {worst.setting} ({least:.2f} ×)."
        )
    return text


def pareto_figures(pareto: Pareto) -> list[Figure]:
    """Accuracy on validation against speed; the ways that no other beats are joined."""
    ways = pareto.results
    if not ways:
        return []
    series = []
    criteria = list(dict.fromkeys(way.criterion for way in ways.values() if way.criterion is not None))
    for style, criterion in enumerate(criteria):
        for repaired in (True, False):
            group = {
                name: way
                for name, way in ways.items()
                if way.criterion == criterion and (way.compensate != "none") == repaired
            }
            if group:
                label = criterion + (", repaired" if repaired else "")
                series.append(_ways(label, group, style, "marks", open_marks=not repaired))
    best = {name: ways[name] for name in pareto.non_dominated if name in ways}
    if best:
        series.insert(0, _ways("no other beats", best, len(criteria), "line"))
    x_title = f"× dense speed, batch {pareto.latency.batch}, {pareto.latency.seq_len} tokens"
    return [
        Figure(
            topic="Accuracy against speed",
            source=pareto.label,
            parts=(Panel(tuple(series), x_title, "accuracy on validation, %", height=480),),
            summary=_pareto_summary(ways, best),
            notes=PARTIAL if pareto.partial else (),
        )
    ]


def _ways(label: str, ways: Mapping[str, Way], style: int, draw: str, open_marks: bool = False) -> Series:
    hover = tuple(
        f"{name}\n{way.speedup:.2f} × dense\naccuracy {percent(way.accuracy, 2)}\nremoved {percent(way.removed)}"
        for name, way in ways.items()
    )
    speedups, accuracies = [way.speedup for way in ways.values()], [100 * way.accuracy for way in ways.values()]
    return Series(label, speedups, accuracies, style, draw, hover, open_marks=open_marks)


def _pareto_summary(ways: Mapping[str, Way], best: Mapping[str, Way]) -> str:
    text = (
        f"{counted(len(ways), 'way')} to prune, the dense model among them."
        if "dense" in ways
        else f"{len(ways)} ways."
    )
    if not best:
        return text
    listed = "; ".join(f"{name} ({way.speedup:.2f} ×, {percent(way.accuracy)})" for name, way in list(best.items())[:8])
    return f"{text} No other beats: {listed}" + (" and more." if len(best) > 8 else ".")
