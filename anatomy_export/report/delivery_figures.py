"""What was exported, timed and searched: bundles, bench results, accuracy against speed."""

from collections.abc import Sequence

from anatomy_export.report.figure import Figure, Panel, Row, Series, TextTable
from anatomy_export.report.sources import Bench, Bundle, Pareto
from anatomy_export.report.wording import counted, percent

REMOVED = "FFN neurons removed, %"
QUANTITIES = {
    "neurons": ("FFN neurons", 1.0, ",.0f"),
    "parameters": ("parameters", 1.0, ",.0f"),
    "flops": ("GFLOPs a sequence", 1e9, ",.2f"),
    "size_bytes": ("model.onnx, MB", 1e6, ",.1f"),
    "accuracy": ("accuracy, %", 0.01, ".2f"),
}


def bundle_figures(bundle: Bundle) -> list[Figure]:
    """Neurons kept by layer, dense against pruned, and the verification."""
    return [_widths(bundle), _result(bundle), _verification(bundle)]


def _widths(bundle: Bundle) -> Figure:
    kept, widths = bundle.plan.kept_widths, bundle.plan.widths
    layers = list(range(len(widths)))
    hover = tuple(
        f"layer {layer}\nkept {kept[layer]:,} of {widths[layer]:,} ({percent(kept[layer] / widths[layer])})"
        for layer in layers
    )
    removed = [width - own for width, own in zip(widths, kept, strict=True)]
    series = (
        Series("kept", layers, kept, 0, "bar", hover),
        Series("removed", layers, removed, 1, "bar", hover, open_marks=True),
    )
    shares = [own / width for own, width in zip(kept, widths, strict=True)]
    top, bottom = shares.index(max(shares)), shares.index(min(shares))
    return Figure(
        topic="Neurons kept, by layer",
        number="",
        title="Neurons kept, by layer",
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
    for name, (dense, pruned) in bundle.result.items():
        label, unit, shown = QUANTITIES.get(name, (name, 1.0, ",.4g"))
        cells = ["n/a" if value is None else format(value / unit, shown) for value in (dense, pruned)]
        rows.append(Row((label, *cells, _change(name, dense, pruned))))
    dense, pruned = bundle.result.get("accuracy", (None, None))
    said = (
        "was not measured"
        if dense is None or pruned is None
        else f"goes from {percent(dense, 2)} to {percent(pruned, 2)}"
    )
    return Figure(
        topic="Dense against pruned",
        number="",
        title="Dense against pruned",
        source=bundle.label,
        parts=(TextTable(("quantity", "dense", "pruned", "change"), tuple(rows), numeric=frozenset((1, 2, 3))),),
        summary=f"The bundle {bundle.name}, {bundle.mode}. Accuracy on the test split {said}.",
    )


def _change(name: str, dense: float | None, pruned: float | None) -> str:
    if dense is None or pruned is None:
        return "n/a"
    if name == "accuracy":
        return f"{100 * (pruned - dense):+.2f} points"
    return f"{(pruned - dense) / dense:+.1%}" if dense else "n/a"


def _verification(bundle: Bundle) -> Figure:
    names = list(dict.fromkeys(one.name for one in bundle.comparisons))
    series = []
    for style, name in enumerate(names):
        own = [one for one in bundle.comparisons if one.name == name]
        hover = tuple(f"{name}\n{one.shape[0]} × {one.shape[1]} tokens\n{one.max_abs_error:.2e}" for one in own)
        positions = [float(index) for index in range(len(own))]
        series.append(Series(name, positions, [max(one.max_abs_error, 1e-12) for one in own], style, "marks", hover))
    most = max((len(one.x) for one in series), default=1)
    shapes = [f"{one.shape[0]}×{one.shape[1]}" for one in bundle.comparisons if one.name == names[0]]
    tolerance = max((one.tolerance for one in bundle.comparisons), default=0.0)
    if tolerance:
        series.append(Series("tolerance", [-0.5, most - 0.5], [tolerance] * 2, len(names), "line"))
    largest = max((one.max_abs_error for one in bundle.comparisons), default=0.0)
    return Figure(
        topic="Verification",
        number="",
        title="Verification",
        source=bundle.label,
        parts=(
            Panel(tuple(series), "batch × tokens", "largest difference of a logit", x_ticks=tuple(shapes), y_log=True),
        ),
        summary=(
            f"{counted(len(bundle.comparisons), 'comparison')} of logits differ by {largest:.1e} at most; "
            f"{tolerance:.0e} is tolerated."
        ),
    )


def bench_figures(bench: Bench) -> list[Figure]:
    """Median latency (or the time of the paper's job) against neurons removed, one panel an input."""
    body = bench.body
    paper = body["kind"] == "paper"
    panels: dict[str, list[dict]] = {}
    for one in body["results"]:
        name = f"{one['texts']}, {one['layout']}" if paper else f"batch {one['batch']}, {one['seq_len']} tokens"
        panels.setdefault(name, []).append(one)
    if not panels:
        return []
    unit = "seconds for the job" if paper else "median latency, ms"
    return [
        Figure(
            topic="The paper's job" if paper else "Latency",
            number="",
            title="Seconds for the paper's job" if paper else "Latency",
            source=bench.label,
            parts=tuple(
                Panel(tuple(_latency_series(own, paper)), REMOVED, unit, title=name) for name, own in panels.items()
            ),
            summary=_bench_summary(body["results"]),
            notes=("Partial: the run was interrupted.",) if body.get("partial") else (),
        )
    ]


def _latency_series(results: Sequence[dict], paper: bool) -> list[Series]:
    """A line an engine and variant, each from the dense model on."""
    found: list[Series] = []
    for engine in dict.fromkeys(_engine(one) for one in results):
        own = [one for one in results if _engine(one) == engine]
        dense = [one for one in own if one["variant"] == "dense"]
        for variant in dict.fromkeys(one["variant"] for one in own):
            line = [one for one in own if one["variant"] == variant]
            if variant == "dense" and len(own) > len(line):
                continue
            line = sorted([*(dense if variant != "dense" else []), *line], key=_removed)
            times = [one["total_s"] if paper else 1e3 * one["median_s"] for one in line]
            label = f"{engine} {variant}"
            hover = tuple(_time_hover(one, paper) for one in line)
            found.append(
                Series(
                    label, [_removed(one) for one in line], times, len(found), hover=hover, open_marks=variant == "mask"
                )
            )
    return found


def _removed(one: dict) -> float:
    return 100 * (1 - (1.0 if one.get("keep_ratio") is None else one["keep_ratio"]))


def _engine(one: dict) -> str:
    return one["engine"] + " bound" * bool(one.get("io_binding")) + " graph" * bool(one.get("cuda_graph"))


def _time_hover(one: dict, paper: bool) -> str:
    time = f"{one['total_s']:.2f} s" if paper else f"{1e3 * one['median_s']:.2f} ms"
    ratio = f"\n{one['speedup']:.2f} × dense" if one.get("speedup") is not None else ""
    return f"{_engine(one)}, {one['name']}\n{time}{ratio}"


def _bench_summary(results: Sequence[dict]) -> str:
    rated = [one for one in results if one.get("speedup") is not None and one["variant"] != "dense"]
    text = f"{counted(len(results), 'measurement')}."
    if rated:
        best, worst = (pick(rated, key=lambda one: one["speedup"]) for pick in (max, min))
        text += (
            f" Against the dense model on the same engine, the fastest is {best['name']} on {_engine(best)} "
            f"({best['speedup']:.2f} ×), the slowest {worst['name']} on {_engine(worst)} ({worst['speedup']:.2f} ×)."
        )
    return text


def pareto_figures(pareto: Pareto) -> list[Figure]:
    """Accuracy on validation against speed; the ways that no other beats are joined."""
    body = pareto.body
    ways = {name: one for name, one in body["results"].items() if "speedup" in one}
    if not ways:
        return []
    series = []
    criteria = list(dict.fromkeys(one["criterion"] for one in ways.values() if "criterion" in one))
    for style, criterion in enumerate(criteria):
        for repaired in (True, False):
            own = {
                name: one
                for name, one in ways.items()
                if one.get("criterion") == criterion and (one.get("compensate") != "none") == repaired
            }
            if own:
                label = criterion + (", repaired" if repaired else "")
                series.append(_ways(label, own, style, "marks", open_marks=not repaired))
    best = {name: ways[name] for name in body.get("non_dominated", ()) if name in ways}
    if best:
        series.insert(0, _ways("no other beats", best, len(criteria), "line"))
    latency = body["latency"]
    x_title = f"× dense speed, batch {latency['batch']}, {latency['seq_len']} tokens"
    return [
        Figure(
            topic="Accuracy against speed",
            number="",
            title="Accuracy against speed",
            source=pareto.label,
            parts=(Panel(tuple(series), x_title, "accuracy on validation, %", height=480),),
            summary=_pareto_summary(ways, best),
            notes=("Partial: the run was interrupted.",) if body.get("partial") else (),
        )
    ]


def _ways(label: str, ways: dict[str, dict], style: int, draw: str, open_marks: bool = False) -> Series:
    hover = tuple(
        f"{name}\n{one['speedup']:.2f} × dense\naccuracy {percent(one['accuracy'], 2)}\n"
        f"removed {percent(one['removed'])}"
        for name, one in ways.items()
    )
    values = list(ways.values())
    return Series(
        label,
        [one["speedup"] for one in values],
        [100 * one["accuracy"] for one in values],
        style,
        draw,
        hover,
        open_marks=open_marks,
    )


def _pareto_summary(ways: dict[str, dict], best: dict[str, dict]) -> str:
    text = (
        f"{counted(len(ways), 'way')} to prune, the dense model among them."
        if "dense" in ways
        else f"{len(ways)} ways."
    )
    if not best:
        return text
    listed = "; ".join(
        f"{name} ({one['speedup']:.2f} ×, {percent(one['accuracy'])})" for name, one in list(best.items())[:8]
    )
    return f"{text} No other beats: {listed}" + (" and more." if len(best) > 8 else ".")
