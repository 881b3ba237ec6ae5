"""Time and memory of scoring bert-base with the ten built-in probes, after imports and loading.

Run `.venv/bin/python benchmarks/score_cost.py`. Every measurement has a process of its own, so that each is a first
call. Writes score-cost.json beside this file.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from summarize import write_json

from anatomy_export.bench.environment import describe_environment
from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.platform import forget_peak, peak_rss_bytes
from anatomy_export.core.progress import Progress
from anatomy_export.data.probes import BUILT_IN_PROBES
from anatomy_export.models.checkpoint import load_checkpoint
from anatomy_export.paper.scoring import score_anatomy
from anatomy_export.zoo.embedded import resolve_model

MODEL, THREADS, PROCESSES = "bert-base", 2, 5


def main() -> None:
    if sys.argv[1:] == ["--once"]:
        print(json.dumps(once()))
        return
    environment, runs = describe_environment(THREADS), []
    for _ in range(PROCESSES):
        done = subprocess.run([sys.executable, __file__, "--once"], capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout))
        print(runs[-1], flush=True)
    settings = {"model": MODEL, "probes": len(BUILT_IN_PROBES), "threads": THREADS}
    body = {"environment": environment, "settings": settings, "runs": runs}
    write_json(Path(__file__).with_name("score-cost.json"), body)


def once() -> dict:
    """Seconds of one call, and how far the peak of resident memory during it is above what was resident before."""
    torch.set_num_threads(THREADS)
    checkpoint = load_checkpoint(resolve_model(MODEL, Progress()).checkpoint)
    forget_peak()
    before, start = peak_rss_bytes(), time.perf_counter()
    score_anatomy(checkpoint, BUILT_IN_PROBES, max_length=128)
    seconds = time.perf_counter() - start
    weights = sum(parameter.numel() * parameter.element_size() for parameter in checkpoint.model.parameters())
    peak = peak_rss_bytes()
    if before is None or peak is None:
        raise AnatomyError("this system does not tell a process's peak memory; next step: measure on Linux")
    return {"seconds": seconds, "extra_rss_bytes": peak - before, "model_bytes": weights}


if __name__ == "__main__":
    main()
