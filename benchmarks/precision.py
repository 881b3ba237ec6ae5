"""int8 against fp32: dense, 50 % and 70 % sliced, and PyTorch eager dense, all in one interleaved run a model.

Run `.venv/bin/python benchmarks/precision.py [bert] [bert-base]` (default: both) on an idle machine. Batch 1, 128
tokens. Writes precision.json beside this file: size, accuracy (of bert; bert-base has random weights), times.
"""

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from summarize import without_rounds, write_json

from anatomy_export.bench.timing import BenchRequest, run_bench
from anatomy_export.core.platform import usable_cores
from anatomy_export.core.progress import Progress
from anatomy_export.evaluation.precision_gate import chosen_precision
from anatomy_export.jobs.bench_bundles import make_bundle
from anatomy_export.jobs.export import run_export
from anatomy_export.jobs.export_request import ExportRequest

OUTPUT = Path(__file__).with_suffix(".json")
MODELS = ("bert", "bert-base")
KEEP_RATIOS = {"dense": None, "slice-50": 0.5, "slice-70": 0.3}
PRECISIONS = ("fp32", "int8")
BATCH, TOKENS, ROUNDS, LAUNCHES = 1, 128, 20, 4


def main(
    models: tuple[str, ...] = MODELS,
    *,
    output: Path = OUTPUT,
    rounds: int = ROUNDS,
    launches: int = LAUNCHES,
    tokens: int = TOKENS,
) -> dict:
    """Measure `models` and write `output`, which keeps what it holds of other models."""
    progress = Progress()
    measured = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {}
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            bundles = make_bundles(model, Path(folder), progress)
            request = BenchRequest(
                bundles=tuple(str(Path(folder) / name) for name in bundles),
                engines=("ort",),
                baselines=("torch",),
                batches=(BATCH,),
                lengths=(tokens,),
                repeats=rounds,
                launches=launches,
                threads=usable_cores(),
            )
            bench = without_rounds(run_bench(request, progress, make_bundle).body)
            measured[Path(model).name] = {"bundles": bundles, "bench": bench}
            write_json(output, measured)
    return measured


def make_bundles(model: str, folder: Path, progress: Progress) -> dict[str, dict]:
    """Every variant in every precision, int8 from the fp32 variant's own plan; size, accuracy and precision of each."""
    bundles = {}
    for name, keep_ratio in KEEP_RATIOS.items():
        for precision in PRECISIONS:
            output = folder / f"{name}-{precision}"
            choice: dict = {"mode": "dense"}
            if keep_ratio is not None:
                first = folder / f"{name}-{PRECISIONS[0]}" / "plan.json"
                choice = {"plan": first} if first.exists() else {"score": {"keep_ratio": keep_ratio}}
            request = ExportRequest(
                model=model,
                output=output,
                with_checkpoint=keep_ratio is None and precision == "fp32",
                precision=chosen_precision(precision, max_drop=100),
                **choice,
            )
            result = asdict(run_export(request, progress))
            bundles[output.name] = {name: result[name] for name in ("size_bytes", "accuracy", "precision")}
    return bundles


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or MODELS)
