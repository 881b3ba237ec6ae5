"""transformers' own ONNX exporter against this toolkit's: fused nodes, error, seconds to export, and time, interleaved.

Needs transformers 5, and takes ten minutes. Writes benchmarks/exporters.json, the figures of docs/adr/0006.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from fusion import fused_counts
from summarize import without_rounds, write_json
from transformers.exporters import OnnxConfig, OnnxExporter

from anatomy_export.bench.timing import BenchRequest, run_bench
from anatomy_export.core.platform import usable_cores
from anatomy_export.core.progress import Progress
from anatomy_export.evaluation.comparison import verification_batches
from anatomy_export.evaluation.onnx_classifier import OnnxClassifier
from anatomy_export.evaluation.torch_classifier import torch_forward
from anatomy_export.exporter.torch_to_onnx import export_onnx, operator_counts
from anatomy_export.jobs.bench_bundles import make_bundle
from anatomy_export.models.checkpoint import Checkpoint, load_checkpoint
from anatomy_export.zoo.embedded import resolve_model

TEXTS = ("A fine film.", "The plot is thin, the acting thinner, and it goes on for two hours and a half.", "Bad.")
TOKENS = 128
MODELS = ("bert-base", "gpt2-base")
Export = Callable[[Checkpoint, Path], None]


def main() -> None:
    progress = Progress()
    study = {name: compared(load_checkpoint(resolve_model(name, progress).checkpoint), progress) for name in MODELS}
    body = {"transformers": transformers.__version__, "models": study}
    write_json(Path(__file__).with_suffix(".json"), body)


def compared(checkpoint: Checkpoint, progress: Progress) -> dict:
    """One model by each exporter: what the graphs are and compute, and how long they run."""
    with tempfile.TemporaryDirectory() as folder:
        facts, ran = {}, []
        for name, export in EXPORTS.items():
            path = Path(folder) / name / f"{name}.onnx"
            path.parent.mkdir()
            with progress.stage(name):
                facts[name] = exported(export, checkpoint, path)
            ran += [str(path)] if "max_abs_error" in facts[name] else []
            print(name, facts[name])
        request = BenchRequest(
            bundles=tuple(ran), engines=("ort",), batches=(1, 8), repeats=6, launches=2, threads=usable_cores()
        )
        body = without_rounds(run_bench(request, progress, make_bundle).body)
    for result in body["results"]:
        print(result["name"], result["batch"], result["median_s"], result["speedup"], result["speedup_interval"])
    return {"exports": facts, "bench": body}


def exported(export: Export, checkpoint: Checkpoint, path: Path) -> dict[str, Any]:
    """Seconds, fused nodes, size, and the largest error of a logit against torch, or why it does not run."""
    start = time.perf_counter()
    export(checkpoint, path)
    counts = operator_counts(path)
    facts: dict[str, Any] = {
        "export_s": round(time.perf_counter() - start, 1),
        "fused_nodes": fused_counts(counts),
        "nodes": sum(counts.values()),
    }
    expected = torch_forward(checkpoint.model)
    try:
        run = OnnxClassifier(path, checkpoint.tokenizer, TOKENS).run
        batches = verification_batches(checkpoint.tokenizer, TEXTS, TOKENS)
        facts["max_abs_error"] = max(float(np.abs(run(batch) - expected(batch)).max()) for batch in batches)
    except Exception as error:
        facts["does_not_run"] = f"{type(error).__name__}: {str(error)[:300]}"
    return facts


def by_this_toolkit(checkpoint: Checkpoint, path: Path) -> None:
    export_onnx(checkpoint, path, metadata={})


def by_transformers(fusions: str | None) -> Export:
    def export(checkpoint: Checkpoint, path: Path) -> None:
        inputs = dict(checkpoint.tokenizer([*TEXTS], padding=True, return_tensors="pt"))
        config = OnnxConfig(dynamic=True, ort_fusions=fusions)  # type: ignore[arg-type]
        OnnxExporter.save_program(OnnxExporter().export(checkpoint.model, inputs, config).program, path)

    return export


EXPORTS: dict[str, Export] = {
    "transformers-cpu": by_transformers("cpu"),
    "transformers-none": by_transformers(None),
    "anatomy-ort": by_this_toolkit,
}


if __name__ == "__main__":
    main()
