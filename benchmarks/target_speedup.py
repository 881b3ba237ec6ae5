"""Does `--target-speedup 1.5` on the bert-base shape give 1.5 in the benchmark, batch 1, 128 tokens?

Run `.venv/bin/python benchmarks/target_speedup.py` on an idle machine. Writes target-speedup.json beside this file.
"""

import tempfile
from pathlib import Path
from typing import Any

from summarize import without_rounds, write_json

from anatomy_export.bench.timing import BenchRequest, run_bench
from anatomy_export.core.platform import usable_cores
from anatomy_export.core.progress import Progress
from anatomy_export.data.data_options import DataOptions
from anatomy_export.jobs.bench_bundles import make_bundle
from anatomy_export.jobs.export import run_export
from anatomy_export.jobs.export_request import ExportRequest
from anatomy_export.plan_files.plan import read_plan

TARGET, BATCH, TOKENS, CALIBRATION_SENTENCES = 1.5, 1, 128, 64


def main() -> None:
    progress = Progress()
    with tempfile.TemporaryDirectory() as folder:
        sliced, dense = Path(folder) / "sliced", Path(folder) / "dense"
        data = DataOptions(data="movie-reviews", calibration_examples=CALIBRATION_SENTENCES)
        score = {"target_speedup": TARGET, "batch": BATCH, "seq_len": TOKENS}
        common: dict[str, Any] = {"model": "bert-base", "data": data, "compare_dense": False}
        run_export(ExportRequest(output=sliced, score=score, **common), progress)
        run_export(ExportRequest(output=dense, mode="dense", **common), progress)
        plan = read_plan(sliced / "plan.json")
        request = BenchRequest(
            bundles=(str(dense), str(sliced)),
            engines=("ort",),
            batches=(BATCH,),
            lengths=(TOKENS,),
            repeats=20,
            launches=3,
            threads=usable_cores(),
        )
        body = run_bench(request, progress, make_bundle).body
    sliced_result = next(result for result in body["results"] if result["variant"] == "slice")
    result = {
        "target": TARGET,
        "predicted": plan.parameters["predicted_speedup"],
        "measured": sliced_result["speedup"],
        "interval": sliced_result["speedup_interval"],
        "widths": plan.kept_widths,
        "bench": without_rounds(body),
    }
    write_json(Path(__file__).with_name("target-speedup.json"), result)
    print({name: result[name] for name in ("target", "predicted", "measured", "interval")})


if __name__ == "__main__":
    main()
