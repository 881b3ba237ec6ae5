"""The latency gap: bert-base by every engine, dense, mask and slice at 30, 50 and 70 % of the neurons removed.

Run `.venv/bin/python benchmarks/gap.py [--repeats N]`; needs the extras cpu, openvino and report. Writes gap.json,
gap-pair.json (two copies of one model), gap.svg, and gap-harness.json (interval coverage, overhead) beside this file.
"""

import argparse
import json
import os
import statistics
from pathlib import Path

from anatomy_export.bench.engines import SPIN_S, EngineSpec
from anatomy_export.bench.harness import worker_pool
from anatomy_export.bench.simulation import interval_coverage
from anatomy_export.bench.tables import latency_plot
from anatomy_export.bench.timing import BenchRequest, find_variants, run_bench
from anatomy_export.progress import Progress

HERE = Path(__file__).parent
SIMULATED_RUNS = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=30)
    repeats = parser.parse_args().repeats
    progress = Progress()
    request = BenchRequest(
        model="bert-base",
        engines=("torch", "ort"),
        baselines=("torch-compile", "openvino"),
        batches=(1, 8),
        keep_ratios=(0.7, 0.5, 0.3),
        threads=os.cpu_count() or 1,
        repeats=repeats,
    )
    gap = run_bench(request, progress).body
    write("gap.json", gap)
    (HERE / "gap.svg").write_bytes(latency_plot(gap)["bench.svg"])
    dense = find_variants(BenchRequest(model="bert-base", engines=("ort",), modes=("dense",)), progress)[0].bundles[
        "ort"
    ]
    pair = BenchRequest(bundles=(dense, dense), engines=("ort",), threads=request.threads, repeats=repeats)
    write("gap-pair.json", run_bench(pair, progress).body)
    write("gap-harness.json", harness())


def harness() -> dict:
    """How often the interval of two equal engines contains 1 in simulation, and what the harness adds to 10 ms."""
    with worker_pool({"spin": EngineSpec("spin")}) as pool:
        pool.warm_up(["spin"])
        pool.time_rounds("spin", repeats=200, seed=0)
    times = pool.samples.times("spin", "spin")
    return {
        "simulated_runs": SIMULATED_RUNS,
        "coverage_by_rounds": {
            rounds: interval_coverage(rounds=rounds, runs=SIMULATED_RUNS) for rounds in (10, 20, 30, 50)
        },
        "coverage_one_after_the_other": interval_coverage(rounds=30, runs=SIMULATED_RUNS, interleaved=False),
        "spin_s": SPIN_S,
        "spin_times_s": times,
        "overhead_share": statistics.median(times) / SPIN_S - 1,
    }


def write(name: str, body: dict) -> None:
    (HERE / name).write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
