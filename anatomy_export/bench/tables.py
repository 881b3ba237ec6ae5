"""Bench results for people: table rows and Markdown."""

from collections.abc import Sequence

from anatomy_export.bench.stats import MIN_ROUNDS
from anatomy_export.core.names import markdown_text

HEADINGS = ("engine", "variant", "b×tokens", "ms", "× dense", "× torch", "closure", "peak", "MB")
TERMINAL_HEADINGS = HEADINGS[:-1]
PAPER_HEADINGS = ("engine", "variant", "layout", "s", "texts/s", "× dense", "closure", "× torch padded", "same")
COMPARE_HEADINGS = ("worker", "batch", "tokens", "first, ms", "second, ms", "first ÷ second")
MISSING = "n/a"


def bench_rows(body: dict, *, intervals: bool = True) -> list[tuple[str, ...]]:
    """One row of text a result, under `HEADINGS` (batch × tokens, peak memory in MB); void ratios have a question mark.

    Without `intervals` only the speed-up against dense shows its interval and memory is left out, so that the row fits
    a terminal of 80 columns, under `TERMINAL_HEADINGS`.
    """
    rows: list[tuple[str, ...]] = []
    for row in body["results"]:
        setting = " bound" * row["io_binding"] + " graph" * row["cuda_graph"]
        rows.append(
            (
                row["engine"] + setting,
                named_precision(row),
                f"{row['batch']}×{row['seq_len']}",
                milliseconds(row["median_s"]),
                _gain(row, "speedup"),
                _gain(row, "torch_speedup", intervals),
                _gain(row, "closure", intervals),
                MISSING if row["roofline_share"] is None else f"{100 * row['roofline_share']:.0f} %",
                megabytes(row["peak_rss_bytes"]),
            )
        )
    return rows if intervals else [cells[:-1] for cells in rows]


def named_precision(row: dict) -> str:
    """A row's variant, with its precision where that is not fp32 and the name does not say so."""
    precision = row.get("precision", "fp32")
    return row["name"] if precision == "fp32" or precision in row["name"] else f"{row['name']} {precision}"


def _gain(row: dict, name: str, interval: bool = True) -> str:
    """A ratio of a row, with its interval where asked for, and a question mark where it is void."""
    return ratio(row[name], row[f"{name}_interval"] if interval else None) + "?" * row.get(f"{name}_void", False)


def bench_notes(body: dict) -> list[str]:
    """What a reader of the table must know: the machine, the roofline, partial runs, failures, void comparisons."""
    environment, settings = body["environment"], body["settings"]
    where = f"{environment['cpu']}, {settings['threads']} threads, provider {settings['provider']}"
    how = {
        "bench": "medians of interleaved calls, ratios paired by round",
        "paper": "totals of interleaved batches, ratios paired by batch",
    }[body["kind"]]
    notes = [f"{where}, {settings['precision']}; {how}, with 95 % intervals."]
    peak = body["roofline"]["flops_per_s"]
    if peak:
        notes.append(f"Matrix products reached {peak / 1e9:.0f} GFLOP/s in the same run: the peak that shares are of.")
    if any(row.get("closure") is not None for row in body["results"]):
        notes.append("Closure: time saved ÷ time that the removed FLOPs stand for; 0 saves nothing, 1 saves all of it.")
    if body["kind"] == "paper":
        notes.append("Same: texts whose class is the same bucketed as padded.")
    return notes + _mixed_precisions(body) + _warnings(body)


def _mixed_precisions(body: dict) -> list[str]:
    """Which ratios are between precisions: only those that a variant's own name tells."""
    rows = body["results"] if body["kind"] == "bench" else []
    notes = [
        f"× dense of {row['worker']} ({row['precision']}) is against {row['speedup_against']} in "
        f"{row['speedup_against_precision']}."
        for row in rows
        if row.get("precision") != row.get("speedup_against_precision")
    ]
    if any(row.get("precision", "fp32") != "fp32" and row["torch_speedup"] is not None for row in rows):
        notes.append("× torch is against PyTorch in fp32, whatever the precision.")
    return list(dict.fromkeys(notes))


def _warnings(body: dict) -> list[str]:
    warnings = []
    if body["partial"]:
        warnings.append("Partial: the run was interrupted; these are the rounds done until then.")
    warnings += [f"{failed['worker']} failed and is missing: {failed['reason']}" for failed in body["failures"]]
    if len(body["results"]) > 1 and all(row["speedup_interval"] is None for row in body["results"]):
        warnings.append(f"No intervals: they take {MIN_ROUNDS} rounds or more; raise --repeats (paper: --examples).")
    void = [_label(row) for row in body["results"] if row["speedup_void"] or row["closure_void"]]
    if void:
        more = "--repeats" if body["kind"] == "bench" else "--examples"
        warnings.append(
            f"Void (marked ?): the spread is too wide to compare {', '.join(void)}; close other programs, raise "
            f"{more}, or use a machine that is idle."
        )
    if body["unstable"]:
        names = ", ".join(f"{unstable['worker']} ({unstable['input']})" for unstable in body["unstable"])
        warnings.append(f"Not stable when timing began: {names}; use a machine that is idle.")
    if body["never_quiet"]:
        warnings.append(
            f"Went on using the CPU between calls: {', '.join(body['never_quiet'])}; what ran next may look slower."
        )
    return warnings


def _label(row: dict) -> str:
    return f"{row['worker']} ({row['batch']}×{row['seq_len']})" if row["seq_len"] else row["worker"]


def paper_rows(body: dict, texts: str, *, intervals: bool = True) -> list[tuple[str, ...]]:
    """One row of text a worker and layout of the paper's job on `texts`, under `PAPER_HEADINGS`."""
    return [
        (
            row["engine"],
            row["name"],
            row["layout"],
            f"{row['total_s']:.2f}",
            f"{row['examples_per_s']:.1f}",
            _gain(row, "speedup", intervals),
            _gain(row, "closure", intervals),
            _gain(row, "torch_speedup", intervals),
            MISSING if row["same_classes"] is None else f"{100 * row['same_classes']:.1f} %",
        )
        for row in body["results"]
        if row["texts"] == texts
    ]


def compare_rows(rows: list[dict]) -> list[tuple[str, ...]]:
    """Text for the rows of `compare_results`, under `COMPARE_HEADINGS`."""
    return [
        (
            row["worker"],
            str(row["batch"]),
            str(row["seq_len"] or MISSING),
            milliseconds(row["first_median_s"]),
            milliseconds(row["second_median_s"]),
            _gain(row, "ratio"),
        )
        for row in rows
    ]


def compare_notes(rows: list[dict]) -> list[str]:
    """What a reader of the rows must know: which ratios have no interval, or one too wide to compare."""
    notes = []
    if any(min(row["launches"]) < 2 for row in rows):
        notes.append(
            "No interval: of a run of one launch nobody knows what was luck of its processes; repeat both with "
            "--launches 3 or more."
        )
    if any(row["ratio_void"] for row in rows):
        notes.append("Void (marked ?): no interval, or one wider than a tenth of the ratio.")
    return notes


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds, three digits that count."""
    value = 1e3 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio(value: float | None, interval: Sequence[float] | None) -> str:
    """`1.43 [1.40, 1.47]`, or the value alone, or n/a."""
    if value is None:
        return MISSING
    return f"{value:.2f}" if interval is None else f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def megabytes(size_bytes: int | None) -> str:
    """Bytes as megabytes."""
    return MISSING if size_bytes is None else f"{size_bytes / 1e6:,.0f}"


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (headings, ["---"] * len(headings), *rows)]
    return "\n".join(lines) + "\n"


def bench_markdown(body: dict) -> str:
    """`bench.md`: the table and its notes."""
    return _named_table(HEADINGS, bench_rows(body)) + _markdown_notes(body)


def paper_markdown(body: dict) -> str:
    """`bench.md` of the paper's job: one table a set of texts, and the notes."""
    parts = []
    for texts in dict.fromkeys(row["texts"] for row in body["results"]):
        parts.append(
            f"## {texts}\n\n{body['texts'][texts]}\n\n" + _named_table(PAPER_HEADINGS, paper_rows(body, texts))
        )
    return "\n".join(parts) + _markdown_notes(body)


def _named_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose first two columns are names, which may hold anything."""
    return markdown_table(headings, [(*map(markdown_text, row[:2]), *row[2:]) for row in rows])


def _markdown_notes(body: dict) -> str:
    return "".join(f"\n{markdown_text(note)}\n" for note in bench_notes(body))
