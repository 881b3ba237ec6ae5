"""Accuracy against neurons removed: criteria × repairs × allocations × levels on the embedded data.

Run `.venv/bin/python benchmarks/frontier.py --model bert --output RAW`, then `benchmarks/summarize.py RAW
benchmarks/frontier-bert.json`. Calibration text comes from train, one sample a seed; nothing is chosen on test, which
is only reported. Runs already in RAW are kept, so an interrupted study resumes. Each run stores the test sentences
whose class differs from the dense model's (of two).
"""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import torch

from anatomy_export.core.files import write_atomic
from anatomy_export.core.progress import Progress
from anatomy_export.criteria.registry import CRITERIA
from anatomy_export.data.loading import movie_reviews
from anatomy_export.evaluation.metrics import compare_predictions
from anatomy_export.evaluation.torch_classifier import class_probabilities
from anatomy_export.models.checkpoint import load_checkpoint
from anatomy_export.models.fingerprint import model_fingerprint
from anatomy_export.paper.study_setups import kept_sha256
from anatomy_export.planning.sweep import PruneSpec, Refused, prune_each
from anatomy_export.repair.refit import FITTED_TO
from anatomy_export.zoo.embedded import resolve_model

TOKENS = 128  # that texts are cut off at


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    checkpoint = load_checkpoint(resolve_model(options.model, Progress()).checkpoint)
    data = movie_reviews()
    texts = getattr(data, options.split)
    dense, labels = class_probabilities(checkpoint, checkpoint.model, texts.texts, TOKENS), np.array(texts.labels)
    study: dict = {
        "settings": {
            "model": model_fingerprint(checkpoint.model),
            "data": data.fingerprint,
            "fitted_to": FITTED_TO,
            **{name: getattr(options, name) for name in ("examples", "align", "split")},
        },
        "labels": "".join(map(str, labels)),
        "dense": "".join(map(str, dense.argmax(1))),
        "runs": earlier_runs(options.output),
    }
    check_settings(options.output, study["settings"])
    measured: dict[tuple[str, str | None], dict] = {}
    for seed in options.seeds:
        values = itertools.product(options.criteria, options.allocate, options.compensate, options.levels)
        todo = [spec for spec in itertools.starmap(PruneSpec, values) if f"{seed}/{spec.name}" not in study["runs"]]
        if not todo:
            continue
        shared = {"examples": options.examples, "max_length": TOKENS, "align": options.align}
        for pruned in prune_each(checkpoint, data.train, todo, seed=seed, **shared):
            name = f"{seed}/{pruned.spec.name}"
            if isinstance(pruned, Refused):
                study["runs"][name] = {"refused": pruned.reason}
            else:
                key = (kept_sha256(pruned.plan), pruned.repair.sha256 if pruned.repair else None)
                run = measured.get(key)
                if run is None:
                    probabilities = class_probabilities(checkpoint, pruned.model, texts.texts, TOKENS)
                    flipped = np.flatnonzero(dense.argmax(1) != probabilities.argmax(1)).tolist()
                    run = compare_predictions(dense, probabilities, labels) | {"flipped": flipped}
                    measured[key] = run
                study["runs"][name] = {**run, "widths": pruned.widths, "layers": pruned.outcomes}
                print(name, *(round(100 * run[measure], 2) for measure in ("accuracy", "agreement")), flush=True)
            write_atomic(options.output, json.dumps(study) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="bert")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=listed(int), default=[0, 1, 2, 3, 4])
    parser.add_argument("--levels", type=listed(float), default=[0.3, 0.5, 0.7, 0.85, 0.95], help="share removed")
    parser.add_argument("--criteria", type=listed(str), default=list(CRITERIA))
    parser.add_argument("--compensate", type=listed(str), default=["none", "auto"])
    parser.add_argument("--allocate", type=listed(str), default=["uniform", "sensitivity"])
    parser.add_argument("--align", type=int, default=1)
    parser.add_argument("--examples", type=int, default=1024, help="calibration sentences")
    parser.add_argument("--split", choices=["validation", "test"], default="test")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


def listed(kind):
    return lambda text: [kind(part) for part in text.split(",")]


def earlier_runs(output: Path) -> dict[str, dict]:
    return json.loads(output.read_text(encoding="utf-8"))["runs"] if output.exists() else {}


def check_settings(output: Path, settings: dict) -> None:
    before = json.loads(output.read_text(encoding="utf-8"))["settings"] if output.exists() else settings
    if before != settings:
        raise SystemExit(f"{output} was made with {before}, not {settings}: use another --output")


if __name__ == "__main__":
    main()
