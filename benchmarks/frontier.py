"""Accuracy against neurons removed: criteria × repairs × allocations × levels on the embedded data.

Run `.venv/bin/python benchmarks/frontier.py --model-dir DIR --output FILE`. Calibration text comes from train, one
sample a seed; nothing is chosen on test, which is only reported. Runs already in FILE are kept, so an interrupted study
resumes. Each run stores the test sentences whose prediction differs from the dense model's; the summary has the mean
drop in points with a 95 % interval over sentences, paired with the dense model and averaged over the seeds.
"""

import argparse
import itertools
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from anatomy_export.data import movie_reviews
from anatomy_export.errors import AnatomyError
from anatomy_export.exporter.calibrate import calibration_batches
from anatomy_export.exporter.criteria import CRITERIA, Context
from anatomy_export.exporter.measure import choose_widths, kept_neurons, measure
from anatomy_export.exporter.plan import LayerPlan, PrunePlan
from anatomy_export.exporter.prune import slice_neurons
from anatomy_export.exporter.refit import refit
from anatomy_export.exporter.score import model_fingerprint, score_anatomy
from anatomy_export.exporter.thresholds import preset_setup
from anatomy_export.files import write_atomic
from anatomy_export.models import family_of, model_blocks
from anatomy_export.models.checkpoint import Checkpoint, load_checkpoint
from anatomy_export.probes import BUILT_IN_PROBES

MAX_LENGTH = 128


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    checkpoint, data = load_checkpoint(options.model_dir), movie_reviews()
    texts = getattr(data, options.split)
    dense, labels = probabilities(checkpoint, checkpoint.model, texts.texts), np.array(texts.labels)
    settings = {
        "model": model_fingerprint(checkpoint.model),
        "data": data.fingerprint,
        **{name: getattr(options, name) for name in ("examples", "align", "split")},
    }
    study = {"settings": settings, "dense_accuracy": float((dense.argmax(1) == labels).mean()), "runs": {}}
    if options.output.exists():
        before = json.loads(options.output.read_text(encoding="utf-8"))
        if before["settings"] != settings:
            raise SystemExit(
                f"{options.output} was made with {before['settings']}, not {settings}: use another --output"
            )
        study["runs"] = before["runs"]
    for seed in options.seeds:
        runs = list(itertools.product(options.criteria, options.allocate, options.compensate, options.levels))
        names = [f"{seed}/{criterion}/{how}/{mode}/{level}" for criterion, how, mode, level in runs]
        todo = [(name, run) for name, run in zip(names, runs, strict=True) if name not in study["runs"]]
        for name, outcome in run_seed(checkpoint, data.train, options, seed, todo, texts.texts) if todo else ():
            found = compare(dense, outcome.pop("probabilities"), labels) if "probabilities" in outcome else {}
            study["runs"][name] = {**found, **outcome}
            print(name, {key: value for key, value in study["runs"][name].items() if key not in ("flipped", "layers")})
            study["summary"] = summarise(study, dense, labels)
            write_atomic(options.output, json.dumps(study, indent=1) + "\n")
    for name, row in summarise(study, dense, labels).items():
        print(name, row)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-dir", required=True)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "frontier.json")
    parser.add_argument("--seeds", type=listed(int), default=[0, 1, 2, 3, 4])
    parser.add_argument("--levels", type=listed(float), default=[0.3, 0.5, 0.7, 0.85, 0.95], help="share removed")
    parser.add_argument("--criteria", type=listed(str), default=list(CRITERIA))
    parser.add_argument("--compensate", type=listed(str), default=["none", "auto"])
    parser.add_argument("--allocate", type=listed(str), default=["uniform", "sensitivity"])
    parser.add_argument("--align", type=int, default=1)
    parser.add_argument("--examples", type=int, default=2048, help="calibration sentences")
    parser.add_argument("--split", choices=["validation", "test"], default="test")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


def listed(kind):
    return lambda text: [kind(part) for part in text.split(",")]


def run_seed(checkpoint: Checkpoint, train, options, seed: int, todo: list, test_texts):
    """Yield every missing run of a calibration seed: its name, and what it found."""
    chosen = np.random.default_rng(seed).permutation(len(train))[: options.examples]
    texts, labels = [train.texts[index] for index in chosen], [train.labels[index] for index in chosen]
    batches = calibration_batches(checkpoint, texts, labels, max_length=MAX_LENGTH, seed=seed)
    model, rule = checkpoint.model, family_of(checkpoint.model.config).rule
    context = Context(
        seed=seed,
        anatomy=score_anatomy(checkpoint, BUILT_IN_PROBES, max_length=MAX_LENGTH),
        rule=rule,
        setup=preset_setup(f"{rule}-1", rule, len(model_blocks(model))),
    )
    start = time.perf_counter()
    measurement = measure(model, batches, sorted({run[0] for _, run in todo}), context)
    measured_s = time.perf_counter() - start
    for name, run in todo:
        try:
            outcome = run_one(checkpoint, batches, measurement, run, options.align)
        except AnatomyError as error:
            yield name, {"refused": str(error)}
            continue
        pruned = outcome.pop("model")
        found = {"probabilities": probabilities(checkpoint, pruned, test_texts)}
        yield name, {**outcome, **found, "measure_s": measured_s}


def run_one(checkpoint: Checkpoint, batches, measurement, run: tuple, align: int) -> dict:
    """Plan, repair and slice once."""
    criterion, how, mode, level = run
    start = time.perf_counter()
    widths = choose_widths(measurement, criterion, keep_ratio=1 - level, allocate=how, align=align)
    keep = kept_neurons(measurement.scores[criterion], widths)
    result = None
    if mode != "none":
        result = refit(checkpoint.model, batches, measurement.gradients, keep, mode=mode)
    return {
        "model": prune(checkpoint.model, criterion, keep, result),
        "widths": widths,
        "refit_s": time.perf_counter() - start,
        "layers": [asdict(outcome) for outcome in result.outcomes] if result else None,
    }


def prune(model, criterion: str, keep, result):
    """The sliced model, through a plan as an export would."""
    layers = tuple(
        LayerPlan(block.layer, block.width, tuple(kept.tolist()))
        for block, kept in zip(model_blocks(model), keep, strict=True)
    )
    repair = result.repair if result else None
    plan = PrunePlan(model_fingerprint(model), layers, criterion, repair=repair.entry() if repair else None)
    return slice_neurons(model, plan, repair)


@torch.inference_mode()
def probabilities(checkpoint: Checkpoint, model, texts, batch_size: int = 64) -> np.ndarray:
    """(len(texts), classes), in the order of `texts`."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    result = np.zeros((len(texts), model.config.num_labels))
    for start in range(0, len(order), batch_size):
        index = order[start : start + batch_size]
        inputs = checkpoint.tokenizer(
            [texts[one] for one in index], padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
        )
        result[index] = model(**inputs).logits.double().softmax(-1).numpy()
    return result


def compare(dense: np.ndarray, pruned: np.ndarray, labels: np.ndarray) -> dict:
    """Accuracy, agreement with the dense predictions and mean |Δ probability|, as fractions; two classes."""
    flipped = np.flatnonzero(dense.argmax(1) != pruned.argmax(1))
    return {
        "accuracy": float((pruned.argmax(1) == labels).mean()),
        "agreement": 1 - len(flipped) / len(labels),
        "probability_change": float(np.abs(dense - pruned)[:, 0].mean()),
        "flipped": flipped.tolist(),
    }


def summarise(study: dict, dense: np.ndarray, labels: np.ndarray) -> dict:
    """Per criterion, allocation, repair and level: mean drop in points over the seeds, with its paired interval."""
    right = dense.argmax(1) == labels
    groups: dict[str, list[dict]] = {}
    for name, run in study["runs"].items():
        if "refused" in run:
            continue
        groups.setdefault(name.split("/", 1)[1], []).append(run)
    return {name: summary_row(runs, right) for name, runs in sorted(groups.items())}


def summary_row(runs: list[dict], right: np.ndarray) -> dict:
    losses = np.zeros((len(runs), len(right)))
    for loss, run in zip(losses, runs, strict=True):
        loss[run["flipped"]] = np.where(right[run["flipped"]], 1, -1)
    sentence = 100 * losses.mean(0)
    half = 1.96 * sentence.std(ddof=1) / np.sqrt(len(right))
    return {
        "seeds": len(runs),
        "drop_points": round(float(sentence.mean()), 3),
        "interval": [round(float(sentence.mean() - half), 3), round(float(sentence.mean() + half), 3)],
        "seed_sd": round(float(100 * losses.mean(1).std(ddof=1)), 3) if len(runs) > 1 else None,
        "agreement": round(float(np.mean([run["agreement"] for run in runs])), 4),
        "probability_change": round(float(np.mean([run["probability_change"] for run in runs])), 4),
    }


if __name__ == "__main__":
    main()
