"""The table of surgery.json: what `anatomy slice-onnx` cut in each exporter's file, and the error against torch."""

from cells import BAR_HEADINGS, Bar, load, yes

from anatomy_export.bench.tables import markdown_table

ALLOWED = 1e-5


def surgery_section() -> str:
    cuts = load("surgery")
    by_model: dict[str, dict[str, dict]] = {}
    for key, cut in cuts.items():
        model, exporter = key.rsplit("/", 1)
        by_model.setdefault(model, {})[exporter] = cut
    rows = [
        (
            model,
            exporter,
            cut["found_as"],
            " ".join(f"{kept:,}" for kept in cut["kept"]),
            f"{cut['max_abs_error']:.1e}",
            f"{cut['dense_differs_by']:.2f}",
            f"{cut['size_bytes'][0] / 1e6:.2f} → {cut['size_bytes'][1] / 1e6:.2f}",
        )
        for model, exporters in by_model.items()
        for exporter, cut in exporters.items()
        if not model.endswith(", small")
    ]
    small = [
        (
            model.removesuffix(", small"),
            str(len(exporters)),
            f"{max(cut['max_abs_error'] for cut in exporters.values()):.1e}",
            f"{min(cut['dense_differs_by'] for cut in exporters.values()):.2f}",
        )
        for model, exporters in by_model.items()
        if model.endswith(", small")
    ]
    lines = sorted({f"torch {cut['torch']} with transformers {cut['transformers']}" for cut in cuts.values()})
    return f"""## Cutting an existing .onnx

`benchmarks/surgery.py` ({"; ".join(lines)}): `anatomy slice-onnx` on each exporter's file, by a plan that torch made,
with unequal widths and repaired weights. The error is the largest difference of a logit from the sliced torch model on
ten sentences; beside it, how far the dense model is from that. Exporters: this toolkit's own, dynamo at opset 18 and
23, TorchScript at opset 17, optimum.

{markdown_table(("model", "exporter", "first FFN found as", "kept of 1,536", "error", "dense differs", "MB"), rows)}

Small seeded models of every family, the same way:

{markdown_table(("family", "exporters", "largest error", "dense differs, least"), small)}

{markdown_table(BAR_HEADINGS, surgery_bars())}
"""


def surgery_bars() -> list[Bar]:
    worst = max(cut["max_abs_error"] for cut in load("surgery").values())
    return [("largest error", f"≤ {ALLOWED:.0e}", f"{worst:.1e}", yes(worst <= ALLOWED))]
