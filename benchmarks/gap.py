"""The latency gap: bert-base by every engine, dense, mask and slice at 30, 50 and 70 % of the neurons removed.

Run `.venv/bin/python benchmarks/gap.py [harness] [gap] [pair]` (default: all); needs the extras cpu, openvino and
report. Writes beside this file gap.json (one result a batch size) with gap.svg, gap-pair.json (two copies of one model,
at each batch size), and gap-harness.json (how often the interval covers the truth, what the harness adds to a call).
"""

import statistics
import sys
from pathlib import Path

from summarize import without_rounds, write_json

sys.path.append(str(Path(__file__).parents[1] / "tests" / "bench"))  # what times and simulates the harness itself
from fixed_work import serve_fixed_work
from simulation import interval_coverage

from anatomy_export.bench.engines import EngineSpec
from anatomy_export.bench.plots import latency_plot
from anatomy_export.bench.rounds import WorkerPool
from anatomy_export.bench.stats import paired_ratio
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
        write_json(HERE / "gap-harness.json", harness())
    if "gap" in parts:
        bodies = [run_bench(gap_request(batch), progress, make_bundle).body for batch in ROUNDS_BY_BATCH]
        summaries = [{**without_rounds(body), "against_best_dense": against_best_dense(body)} for body in bodies]
        write_json(HERE / "gap.json", summaries)
        plot = latency_plot(bodies)
        assert plot is not None
        (HERE / "gap.svg").write_bytes(plot)
    if "pair" in parts:
        pairs = [run_bench(pair_request(batch, progress), progress, make_bundle).body for batch in ROUNDS_BY_BATCH]
        write_json(HERE / "gap-pair.json", [without_rounds(body) for body in pairs])


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


def against_best_dense(body: dict) -> dict:
    """Speed of half the neurons through ONNX Runtime relative to the fastest engine on the dense model."""
    half = next(result for result in body["results"] if result["worker"] == "ort slice 0.5")
    dense = [result for result in body["results"] if result["variant"] == "dense"]
    best = min(dense, key=lambda result: result["median_s"])
    launches = next(iter(body["launches"].values()))
    ratio = paired_ratio(best["times_s"], half["times_s"], launches=launches)
    return {"engine": best["engine"], "ratio": ratio.median, "interval": ratio.bounds}


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
        "calls": len(calls),
        "median_call_s": statistics.median(call["second_s"] for call in calls),
        "overhead_share": statistics.median(call["timed_s"] / call["second_s"] - 2 for call in calls),
    }


def fixed_work_calls() -> list[dict[str, float]]:
    """Seconds of a call of twice the same work as the harness times it, and of its second half as the worker does.

    What the harness adds to a call is the whole less twice the second half: the timing itself, and that the first half
    comes after a wait for the parent.
    """
    with WorkerPool({"fixed-work": EngineSpec("fixed-work")}, target=serve_fixed_work) as pool:
        pool.warm_up(["call"])
        seconds = []
        for _ in range(CALLS):
            pool.time_rounds("call", repeats=1, seed=0, give_logits=True)
            seconds.append(float(pool.samples.logits["fixed-work", "call"][0][1]))
    timed = pool.samples.times("fixed-work", "call")
    return [{"second_s": second, "timed_s": whole} for second, whole in zip(seconds, timed, strict=True)]


if __name__ == "__main__":
    main()
