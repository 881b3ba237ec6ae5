"""The table of surgery.json: what `anatomy slice-onnx` cut in each exporter's file, and the error against torch."""

import json
from pathlib import Path

from anatomy_export.bench.tables import markdown_table

ALLOWED = 1e-5


def surgery_section() -> str:
    found = json.loads((Path(__file__).parent / "surgery.json").read_text(encoding="utf-8"))
    by_model: dict[str, dict[str, dict]] = {}
    for key, one in found.items():
        model, exporter = key.rsplit("/", 1)
        by_model.setdefault(model, {})[exporter] = one
    rows = [
        (
            model,
            exporter,
            one["found_as"],
            " ".join(f"{kept:,}" for kept in one["kept"]),
            f"{one['max_abs_error']:.1e}",
            f"{one['dense_differs_by']:.2f}",
            f"{one['size_bytes'][0] / 1e6:.2f} → {one['size_bytes'][1] / 1e6:.2f}",
        )
        for model, exporters in by_model.items()
        for exporter, one in exporters.items()
        if not model.endswith(", small")
    ]
    small = [
        (
            model.removesuffix(", small"),
            str(len(exporters)),
            f"{max(one['max_abs_error'] for one in exporters.values()):.1e}",
            f"{min(one['dense_differs_by'] for one in exporters.values()):.2f}",
        )
        for model, exporters in by_model.items()
        if model.endswith(", small")
    ]
    worst = max(one["max_abs_error"] for one in found.values())
    lines = sorted({f"torch {one['torch']} with transformers {one['transformers']}" for one in found.values()})
    return f"""## Cutting an existing .onnx

`benchmarks/surgery.py` ({"; ".join(lines)}): `anatomy slice-onnx` on each exporter's file, by a plan that torch made,
with unequal widths and repaired weights. The error is the largest difference of a logit from the sliced torch model on
ten sentences; beside it, how far the dense model is from that. Exporters: this toolkit's own, dynamo at opset 18 and
23, TorchScript at opset 17, optimum.

{markdown_table(("model", "exporter", "first FFN found as", "kept of 1,536", "error", "dense differs", "MB"), rows)}

Small seeded models of every family, the same way:

{markdown_table(("family", "exporters", "largest error", "dense differs, least"), small)}

{markdown_table(("bar", "asked", "measured", "met"), [bar(worst)])}
"""


def bar(worst: float) -> tuple[str, str, str, str]:
    return "largest error", f"≤ {ALLOWED:.0e}", f"{worst:.1e}", "yes" if worst <= ALLOWED else "**no**"
