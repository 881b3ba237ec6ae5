"""Table of int8 and fp32 from precision.json: size, accuracy, time, against PyTorch eager dense."""

from cells import BAR_HEADINGS, Bar, load, yes

from anatomy_export.bench.tables import MISSING, bench_notes, markdown_table, milliseconds, ratio

HEADINGS = ("variant", "precision", "MB", "accuracy, %", "same class as fp32, %", "ms", "× dense", "× torch")
BAR_VARIANT, BAR_MODEL, BAR = "slice-70-int8", "bert-base", 3.5


def precision_section() -> str:
    """The section of RESULTS.md."""
    measured = load("precision")
    parts = [
        "## int8\n\n`benchmarks/precision.py`: batch 1, 128 tokens, dynamic int8 by output channel, PyTorch eager "
        "dense in the same interleaved rounds. *× dense* is against the dense model of the same precision, *× torch* "
        "against PyTorch eager dense in fp32.\n"
    ]
    for model, body in measured.items():
        parts.append(f"### {model}\n\n{markdown_table(HEADINGS, precision_rows(body))}\n{_notes(body['bench'])}")
    if BAR_MODEL in measured:
        parts.append(markdown_table(BAR_HEADINGS, precision_bars()))
    return "\n".join(parts)


def precision_rows(body: dict) -> list[tuple[str, ...]]:
    """A row of text a variant and precision of one model, under `HEADINGS`; PyTorch first."""
    rows: list[tuple[str, ...]] = []
    for result in sorted(body["bench"]["results"], key=lambda result: result["engine"] != "torch"):
        bundle = body["bundles"][result["name"]]
        report = bundle["precision"]
        variant = result["name"].rsplit("-", 1)[0]
        torch = result["engine"] == "torch"
        rows.append(
            (
                f"PyTorch {variant}" if torch else variant,
                result["precision"],
                MISSING if torch else f"{bundle['size_bytes'][1] / 1e6:.1f}",
                _points(bundle["accuracy"][1]),
                MISSING if report is None else _points(report["agreement"]),
                milliseconds(result["median_s"]),
                MISSING if torch else ratio(result["speedup"], result["speedup_interval"]),
                MISSING if torch else ratio(result["torch_speedup"], result["torch_speedup_interval"]),
            )
        )
    return rows


def precision_bars() -> list[Bar]:
    results = load("precision")[BAR_MODEL]["bench"]["results"]
    result = next(result for result in results if result["name"] == BAR_VARIANT)
    measured = ratio(result["torch_speedup"], result["torch_speedup_interval"])
    bar = f"{BAR_MODEL}, int8 and 70 % sliced, against PyTorch eager dense"
    return [(bar, f"≥ {BAR}", measured, yes(result["torch_speedup"] >= BAR))]


def _notes(body: dict) -> str:
    """What `bench_notes` says of the columns that are shown here."""
    results = [{**result, "closure": None, "closure_void": False} for result in body["results"]]
    body = {**body, "roofline": {**body["roofline"], "flops_per_s": None}, "results": results}
    return "".join(f"{note}\n\n" for note in bench_notes(body))


def _points(fraction: float | None) -> str:
    return MISSING if fraction is None else f"{100 * fraction:.2f}"
