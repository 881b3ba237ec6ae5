"""transformers' own ONNX exporter against this toolkit's: fused nodes, error, seconds to export, and time, interleaved.

Dense models, and both families with unequal widths and a repaired W2's shape after slicing. Needs transformers 5.
Writes benchmarks/exporters.json, the figures of docs/adr/0006.
"""

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers.exporters import OnnxConfig, OnnxExporter

from anatomy_export.bench.timing import BenchRequest, run_bench
from anatomy_export.core.platform import usable_cores
from anatomy_export.core.progress import Progress
from anatomy_export.evaluation.comparison import verification_batches
from anatomy_export.evaluation.onnx_classifier import OnnxClassifier
from anatomy_export.exporter.torch_to_onnx import FUSED_ATTENTION, FUSED_GELU, export_onnx, operator_counts
from anatomy_export.jobs.bench_bundles import make_bundle
from anatomy_export.models.checkpoint import Checkpoint, load_checkpoint
from anatomy_export.models.identity import model_fingerprint
from anatomy_export.models.families import model_blocks
from anatomy_export.models.prune import slice_neurons
from anatomy_export.plans.plan import LayerPlan, PrunePlan
from anatomy_export.zoo.embedded import resolve_model

MODELS = ("bert-base", "gpt2-base")
TEXTS = ("A fine film.", "The plot is thin, the acting thinner, and it goes on for two hours and a half.", "Bad.")


def main() -> None:
    progress = Progress()
    study = {}
    for model in MODELS:
        dense = load_checkpoint(resolve_model(model, progress).checkpoint)
        for form, checkpoint in (("dense", dense), ("sliced", sliced(dense))):
            with progress.stage(f"{model} {form}"):
                study[f"{model} {form}"] = compared(checkpoint, progress)
    Path(__file__).with_suffix(".json").write_text(json.dumps(study, indent=1) + "\n", encoding="utf-8")


def sliced(checkpoint: Checkpoint) -> Checkpoint:
    """Half of the neurons, more in the first layers than in the last."""
    blocks = model_blocks(checkpoint.model)
    shares = np.linspace(0.75, 0.25, len(blocks))
    kept = [int(share * block.width) // 16 * 16 for share, block in zip(shares, blocks, strict=True)]
    layers = tuple(
        LayerPlan(block.layer, block.width, tuple(range(count))) for block, count in zip(blocks, kept, strict=True)
    )
    plan = PrunePlan(model_fingerprint(checkpoint.model), layers, "first")
    return Checkpoint(slice_neurons(checkpoint.model, plan), checkpoint.tokenizer)


def compared(checkpoint: Checkpoint, progress: Progress) -> dict:
    exports = {"anatomy-ort": _anatomy("ort"), "transformers-cpu": _transformers("cpu"), "transformers-none": _transformers(None)}
    batches = verification_batches(checkpoint.tokenizer, TEXTS, 128)
    with torch.inference_mode():
        expected = [
            checkpoint.model(**{name: torch.from_numpy(ids) for name, ids in batch.items()}).logits.numpy()
            for batch in batches
        ]
    with tempfile.TemporaryDirectory() as folder:
        facts, paths = {}, []
        for name, export in exports.items():
            path = Path(folder) / f"{name}.onnx"
            started = time.perf_counter()
            try:
                export(checkpoint, path)
            except Exception as error:
                facts[name] = {"failed": f"{type(error).__name__}: {str(error)[:300]}"}
                continue
            seconds = time.perf_counter() - started
            try:
                run = OnnxClassifier(path, checkpoint.tokenizer, 128).run
                error = max(float(np.abs(run(batch) - logits).max()) for batch, logits in zip(batches, expected, strict=True))
            except Exception as failure:
                facts[name] = {"not run": f"{type(failure).__name__}: {str(failure)[:300]}", "fused_nodes": fused_counts(operator_counts(path))}
                continue
            paths.append(path)
            facts[name] = {
                "export_s": seconds,
                "max_abs_error": error,
                "fused_nodes": fused_counts(operator_counts(path)),
                "operators": operator_counts(path),
            }
            print(name, json.dumps(facts[name]))
        request = BenchRequest(
            bundles=tuple(map(str, paths)),
            engines=("ort",),
            batches=(1, 8),
            repeats=12,
            launches=3,
            threads=usable_cores(),
        )
        body = run_bench(request, progress, make_bundle).body
    for result in body["results"]:
        print(result["name"], result["batch"], f"{result['median_s']:.4f} s", result["speedup"])
    return {"exports": facts, "transformers": transformers.__version__, "bench": body}


def _anatomy(fuse: str):
    return lambda checkpoint, path: export_onnx(checkpoint, path, fuse=fuse, metadata={})


def _transformers(fusions: str | None):
    def export(checkpoint: Checkpoint, path: Path) -> None:
        inputs = dict(checkpoint.tokenizer([*TEXTS], padding=True, return_tensors="pt"))
        exported = OnnxExporter().export(checkpoint.model, inputs, OnnxConfig(dynamic=True, ort_fusions=fusions))
        exported.program.graph.name = path.stem
        OnnxExporter.save_program(exported.program, path)

    return export


def fused_counts(counts: dict[str, int]) -> dict[str, int]:
    return {
        "attention": sum(counts.get(name, 0) for name in FUSED_ATTENTION),
        "skip_layer_norm": counts.get("SkipLayerNormalization", 0),
        "gelu": sum(counts.get(name, 0) for name in FUSED_GELU),
    }


if __name__ == "__main__":
    main()
