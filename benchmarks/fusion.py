"""This toolkit's export against optimum's put through ONNX Runtime's optimizer: fused nodes and time, interleaved.

Needs the optimum line: `make .venv-optimum/.installed`, then `.venv-optimum/bin/python benchmarks/fusion.py`.
Writes benchmarks/fusion.json, the figures of docs/adr/0002.
"""

import json
import tempfile
from pathlib import Path

from summarize import without_rounds, write_json

from anatomy_export.bench.timing import BenchRequest, run_bench
from anatomy_export.core.platform import usable_cores
from anatomy_export.core.progress import Progress
from anatomy_export.exporter.torch_to_onnx import FUSED_ATTENTION, FUSED_GELU, export_onnx, operator_counts
from anatomy_export.jobs.bench_bundles import make_bundle
from anatomy_export.models.checkpoint import load_checkpoint
from anatomy_export.zoo.embedded import resolve_model

MODELS = ("bert-base", "gpt2-base")
EXPORTS = (("optimum", "ort"), ("dynamo", "ort"), ("dynamo", "none"))


def main() -> None:
    progress = Progress()
    study: dict[str, dict] = {}
    for model in MODELS:
        checkpoint = load_checkpoint(resolve_model(model, progress).checkpoint)
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{exporter}-{fuse}.onnx" for exporter, fuse in EXPORTS]
            for path, (exporter, fuse) in zip(paths, EXPORTS, strict=True):
                with progress.stage(f"{model} {path.stem}"):
                    export_onnx(checkpoint, path, exporter=exporter, fuse=fuse, metadata={})
            request = BenchRequest(
                bundles=tuple(map(str, paths)),
                engines=("ort",),
                batches=(1, 8),
                repeats=12,
                launches=3,
                threads=usable_cores(),
            )
            study[model] = {
                "fused_nodes": {path.stem: fused_counts(operator_counts(path)) for path in paths},
                **without_rounds(run_bench(request, progress, make_bundle).body),
            }
        for result in study[model]["results"]:
            print(model, result["name"], result["batch"], f"{result['speedup']:.3f} × optimum's speed")
        print(json.dumps(study[model]["fused_nodes"]))
    write_json(Path(__file__).with_suffix(".json"), study)


def fused_counts(counts: dict[str, int]) -> dict[str, int]:
    return {
        "attention": sum(counts.get(name, 0) for name in FUSED_ATTENTION),
        "skip_layer_norm": counts.get("SkipLayerNormalization", 0),
        "gelu": sum(counts.get(name, 0) for name in FUSED_GELU),
    }


if __name__ == "__main__":
    main()
