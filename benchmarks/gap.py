"""The latency gap: bert-base by every engine, dense, mask and slice at 30, 50 and 70 % of the neurons removed.

Run `.venv/bin/python benchmarks/gap.py [harness] [gap] [pair]` (default: all); needs the extras cpu, openvino and
report. Writes beside this file gap.json (one result a batch size) with gap.svg, gap-pair.json (two copies of one model,
at each batch size), and gap-harness.json (how often the interval covers the truth, what the harness adds to a call).
"""

import json
import statistics
import sys
from pathlib import Path

from anatomy_export.bench.engines import EngineSpec
from anatomy_export.bench.harness import worker_pool
from anatomy_export.bench.plots import latency_plot
from anatomy_export.bench.simulation import interval_coverage
from anatomy_export.bench.timing import BenchRequest, find_variants, run_bench
from anatomy_export.core.platform import usable_cores
from anatomy_export.core.progress import Progress
from anatomy_export.jobs.bench_bundles import make_bundle

HERE = Path(__file__).parent
SIMULATED_RUNS = 2000
LAUNCHES = 4
ROUNDS_BY_BATCH = {1: 20, 8: 6}
CALLS = 200


def main() -> None:
    progress = Progress()
    parts = sys.argv[1:] or ("harness", "gap", "pair")
    if "harness" in parts:
        write("gap-harness.json", harness())
    if "gap" in parts:
        bodies = [run_bench(gap_request(batch), progress, make_bundle).body for batch in ROUNDS_BY_BATCH]
        write("gap.json", bodies)
        plot = latency_plot(bodies)
        assert plot is not None
        (HERE / "gap.svg").write_bytes(plot)
    if "pair" in parts:
        write(
            "gap-pair.json",
            [run_bench(pair_request(batch, progress), progress, make_bundle).body for batch in ROUNDS_BY_BATCH],
        )


def gap_request(batch: int) -> BenchRequest:
    return BenchRequest(
        model="bert-base",
        engines=("torch", "ort"),
        baselines=("torch-compile", "openvino"),
        batches=(batch,),
        keep_ratios=(0.7, 0.5, 0.3),
        threads=usable_cores(),
        repeats=ROUNDS_BY_BATCH[batch],
        launches=LAUNCHES,
    )


def pair_request(batch: int, progress: Progress) -> BenchRequest:
    dense = BenchRequest(model="bert-base", engines=("ort",), modes=("dense",))
    bundle = find_variants(dense, progress, make_bundle)[0].bundles["ort"]
    return BenchRequest(
        bundles=(bundle, bundle),
        engines=("ort",),
        batches=(batch,),
        threads=usable_cores(),
        repeats=ROUNDS_BY_BATCH[batch],
        launches=LAUNCHES,
    )


def harness() -> dict:
    """How often the interval of two equal engines contains 1 in simulation, and what the harness adds to a call."""
    calls = fixed_work_calls()
    return {
        "simulated_runs": SIMULATED_RUNS,
        "coverage_by_rounds": {
            rounds: interval_coverage(rounds=rounds, runs=SIMULATED_RUNS) for rounds in (10, 20, 30, 50)
        },
        "coverage_of_launches": interval_coverage(rounds=10, runs=SIMULATED_RUNS, launches=4, launch_effect=0.02),
        "coverage_one_after_the_other": interval_coverage(rounds=30, runs=SIMULATED_RUNS, interleaved=False),
        "calls": calls,
        "overhead_share": statistics.median(
            (one["timed_s"] - one["first_s"] - one["second_s"] + one["first_s"] - one["second_s"]) / one["second_s"]
            for one in calls
        ),
    }


def fixed_work_calls() -> list[dict[str, float]]:
    """Seconds of a call of twice the same work as the harness times it, and of both parts as the worker itself does.

    What the harness adds to a call is the difference of the whole and its parts, and of the first part and the second:
    the first comes after a wait for the parent.
    """
    calls = []
    with worker_pool({"fixed-work": EngineSpec("fixed-work")}) as pool:
        pool.warm_up(["call"])
        for _ in range(CALLS):
            pool.time_rounds("call", repeats=1, seed=0, give_logits=True)
            first, second = pool.samples.logits["fixed-work", "call"][0]
            calls.append({"first_s": float(first), "second_s": float(second)})
    for call, timed in zip(calls, pool.samples.times("fixed-work", "call"), strict=True):
        call["timed_s"] = timed
    return calls


def write(name: str, body) -> None:
    (HERE / name).write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
