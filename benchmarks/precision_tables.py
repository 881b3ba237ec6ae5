"""Table of int8 and fp32 from precision.json: size, accuracy, time, against PyTorch eager dense."""

import json
from pathlib import Path

from anatomy_export.bench.tables import MISSING, bench_notes, markdown_table, milliseconds, ratio

HERE = Path(__file__).parent
HEADINGS = ("variant", "precision", "MB", "accuracy, %", "same class as fp32, %", "ms", "× dense", "× torch")
BAR_VARIANT, BAR_MODEL, BAR = "slice-70-int8", "bert-base", 3.5


def precision_section() -> str:
    """The section of RESULTS.md."""
    found = json.loads((HERE / "precision.json").read_text(encoding="utf-8"))
    parts = [
        "## int8\n\n`benchmarks/precision.py`: batch 1, 128 tokens, dynamic int8 by output channel, PyTorch eager "
        "dense in the same interleaved rounds. *× dense* is against the dense model of the same precision, *× torch* "
        "against PyTorch eager dense in fp32.\n"
    ]
    for model, one in found.items():
        parts.append(f"### {model}\n\n{markdown_table(HEADINGS, precision_rows(one))}\n{_notes(one['bench'])}")
    bars = [row for model, one in found.items() if model == BAR_MODEL for row in _bars(one)]
    if bars:
        parts.append(markdown_table(("bar", "asked", "measured", "met"), bars))
    return "\n".join(parts)


def precision_rows(one: dict) -> list[tuple[str, ...]]:
    """A row of text a variant and precision of one model, under `HEADINGS`; PyTorch first."""
    rows = []
    for result in sorted(one["bench"]["results"], key=lambda result: result["engine"] != "torch"):
        told = one["bundles"][result["name"]]
        report = told["precision"]
        variant = result["name"].rsplit("-", 1)[0]
        torch = result["engine"] == "torch"
        rows.append(
            (
                f"PyTorch {variant}" if torch else variant,
                result["precision"],
                MISSING if torch else f"{told['size_bytes'][1] / 1e6:.1f}",
                _points(told["accuracy"][1]),
                MISSING if report is None else _points(report["agreement"]),
                milliseconds(result["median_s"]),
                MISSING if torch else ratio(result["speedup"], result["speedup_interval"]),
                MISSING if torch else ratio(result["torch_speedup"], result["torch_speedup_interval"]),
            )
        )
    return rows


def _bars(one: dict) -> list[tuple[str, str, str, str]]:
    result = next(each for each in one["bench"]["results"] if each["name"] == BAR_VARIANT)
    measured = ratio(result["torch_speedup"], result["torch_speedup_interval"])
    met = "yes" if result["torch_speedup"] >= BAR else "**no**"
    return [(f"{BAR_MODEL}, int8 and 70 % sliced, against PyTorch eager dense", f"≥ {BAR}", measured, met)]


def _notes(body: dict) -> str:
    """What `bench_notes` says of the columns that are shown here."""
    results = [{**one, "closure": None, "closure_void": False} for one in body["results"]]
    body = {**body, "roofline": {**body["roofline"], "flops_per_s": None}, "results": results}
    return "".join(f"{note}\n\n" for note in bench_notes(body))


def _points(fraction: float | None) -> str:
    return MISSING if fraction is None else f"{100 * fraction:.2f}"
