"""Accuracy against latency: every way to prune one model, and the ways that no other beats at both."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
from msgspec import Struct

from anatomy_export.calibration.batches import calibration_sample
from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.files import open_directory, sole_writer
from anatomy_export.core.names import public_name
from anatomy_export.core.progress import Progress
from anatomy_export.core.resumable import PARETO, ResultFile
from anatomy_export.core.version import __version__
from anatomy_export.criteria.registry import find_criterion
from anatomy_export.data.loading import Examples
from anatomy_export.data.probes import Probes, choose_probes
from anatomy_export.evaluation.metrics import compare_predictions
from anatomy_export.evaluation.torch_classifier import class_probabilities
from anatomy_export.jobs.source_data import DataOptions, load_source_data, model_classes
from anatomy_export.models.checkpoint import (
    Checkpoint,
    load_checkpoint,
    sequence_length,
    text_limit,
    weights_identity,
)
from anatomy_export.models.families import model_blocks
from anatomy_export.models.identity import model_fingerprint
from anatomy_export.models.text_lengths import data_lengths
from anatomy_export.planning.allocate import width_multiple
from anatomy_export.planning.latency import LatencyTable
from anatomy_export.planning.sweep import (
    Pruned,
    Refused,
    Way,
    prune_ways,
)
from anatomy_export.zoo.embedded import resolve_model

FORMAT_VERSION = 1
DENSE = "dense"


@dataclass(frozen=True)
class ParetoRequest:
    """Everything that `anatomy pareto` was asked for: all combinations are tried. `removed` are shares of neurons."""

    model: str
    output: Path
    criteria: tuple[str, ...]
    compensate: tuple[str, ...] = ("none", "auto")
    allocate: tuple[str, ...] = ("sensitivity",)
    removed: tuple[float, ...] = (0.3, 0.5, 0.7, 0.85, 0.95)
    seed: int = 0
    batch: int = 1
    seq_len: int | None = None
    data: DataOptions = field(default_factory=DataOptions)

    def ways(self) -> list[Way]:
        return [Way(*one) for one in product(self.criteria, self.allocate, self.compensate, self.removed)]


def run_pareto(request: ParetoRequest, progress: Progress) -> dict:
    """Try every way on validation text, name the non-dominated ones, and report those on test text.

    The result is written after each way, so that an interrupted run goes on where it was.

    Raises:
        AnatomyError: accuracy cannot be measured, the output is of other settings, or another run is at work on it.
    """
    with sole_writer(request.output):
        return _run_pareto(request, progress)


def _run_pareto(request: ParetoRequest, progress: Progress) -> dict:
    source = resolve_model(request.model, progress)
    with progress.stage("load model"):
        checkpoint = load_checkpoint(source.checkpoint)
    if source.random_weights:
        raise AnatomyError(
            f"model {request.model} is not trained, anatomy pareto needs one that is; "
            "next step: pass a fine-tuned --model"
        )
    data = load_source_data(source, checkpoint, request.data, progress)
    if data is None or not len(data.validation):
        raise AnatomyError("anatomy pareto needs labelled text with a validation split; next step: pass --data")
    max_length = text_limit(checkpoint, request.data.max_length)
    data_lengths(checkpoint.tokenizer, data.splits, max_length, progress)
    sample = calibration_sample(
        checkpoint, data.train, request.data.calibration_examples, seed=request.seed, max_length=max_length
    )
    settings = _settings(request, checkpoint, data.fingerprint, max_length, len(sample))
    settings |= weights_identity(source.checkpoint, checkpoint.model)
    file = ResultFile(request.output / PARETO, "pareto", "results", MeasuredWay, FORMAT_VERSION)
    earlier = file.earlier(settings)
    results = {name: one for name, one in earlier["results"].items() if name != DENSE} if earlier else {}
    open_directory(request.output, empty=earlier is None)
    table = _latency_table(request, checkpoint, progress)
    widths = [block.width for block in model_blocks(checkpoint.model)]
    for one in results.values():
        if "widths" in one:
            one["speedup"] = table.speedup(one["widths"], widths)
    body = {"format_version": FORMAT_VERSION, "kind": "pareto", "settings": settings, "latency": asdict(table)}
    probes = choose_probes(None, model_classes(checkpoint, source.name), data)
    job = _Job(request, checkpoint, data.train, probes, max_length, settings["calibration_examples"], progress)
    todo = [way for way in request.ways() if way.name not in results]
    dense = job.dense(data.validation)
    for name, found in job.evaluate(todo, data.validation, dense, table, "try ways on validation"):
        results[name] = found
        file.write({**body, "partial": True, "results": results})
    results[DENSE] = _dense_entry(dense, data.validation, model_blocks(checkpoint.model))
    asked = {DENSE, *(way.name for way in request.ways())}
    tried = {name: one for name, one in results.items() if name in asked and "speedup" in one}
    best = non_dominated({name: (one["speedup"], one["accuracy"]) for name, one in tried.items()})
    test_dense = job.dense(data.test)
    chosen = [way for way in request.ways() if way.name in best]
    on_test = dict(job.evaluate(chosen, data.test, test_dense, table, "report on test"))
    on_test[DENSE] = _dense_entry(test_dense, data.test, model_blocks(checkpoint.model))
    whole = {**body, "partial": False, "results": results, "non_dominated": best, "test": on_test}
    file.write(whole)
    return whole


class MeasuredWay(Struct, frozen=True):
    """What `pareto.json` holds of a way that was tried."""

    accuracy: float
    widths: list[int]


@dataclass(frozen=True)
class _Job:
    request: ParetoRequest
    checkpoint: Checkpoint
    train: Examples
    probes: Probes
    max_length: int
    examples: int
    progress: Progress

    def dense(self, texts: Examples) -> np.ndarray:
        with self.progress.stage(f"dense model on {len(texts)} texts"):
            return class_probabilities(self.checkpoint, self.checkpoint.model, texts.texts, self.max_length)

    def evaluate(
        self, ways: Sequence[Way], texts: Examples, dense: np.ndarray, table: LatencyTable, title: str
    ) -> Iterable[tuple[str, dict]]:
        """What each way gives on `texts`, by its name."""
        if not ways:
            return
        if self.probes.note and any(find_criterion(way.criterion).needs_anatomy for way in ways):
            self.progress.note(self.probes.note)
        widths = [block.width for block in model_blocks(self.checkpoint.model)]
        with self.progress.bar(title, len(ways)) as tick:
            for one in prune_ways(
                self.checkpoint,
                self.train,
                ways,
                seed=self.request.seed,
                examples=self.examples,
                align=width_multiple("auto"),
                max_length=self.max_length,
                probes=self.probes.texts,
            ):
                yield one.way.name, self._entry(one, texts, dense, table, widths)
                tick()

    def _entry(
        self, one: Pruned | Refused, texts: Examples, dense: np.ndarray, table: LatencyTable, widths: list[int]
    ) -> dict:
        if isinstance(one, Refused):
            return {**asdict(one.way), "refused": one.reason}
        own = class_probabilities(self.checkpoint, one.model, texts.texts, self.max_length)
        return {
            **asdict(one.way),
            "widths": one.widths,
            "speedup": table.speedup(one.widths, widths),
            **compare_predictions(dense, own, np.array(texts.labels)),
        }


def non_dominated(points: dict[str, tuple[float, float]]) -> list[str]:
    """Names of the points `(speedup, accuracy)` that no other reaches in both and beats in one, slowest first.

    Of equal points the first stays.
    """
    best: list[str] = []
    for name, (_, accuracy) in sorted(points.items(), key=lambda item: (-item[1][0], -item[1][1])):
        if not best or accuracy > points[best[-1]][1]:
            best.append(name)
    return best[::-1]


def _dense_entry(dense: np.ndarray, texts: Examples, blocks) -> dict:
    own = compare_predictions(dense, dense, np.array(texts.labels))
    return {"removed": 0.0, "widths": [block.width for block in blocks], "speedup": 1.0, **own}


def _settings(request: ParetoRequest, checkpoint: Checkpoint, data: str, max_length: int, examples: int) -> dict:
    """What two runs must share for their results to stand in one file."""
    return {
        "version": __version__,
        "model": public_name(request.model),
        "fingerprint": model_fingerprint(checkpoint.model),
        "data": data,
        "max_length": max_length,
        "calibration_examples": examples,
        "seed": request.seed,
        "align": width_multiple("auto"),
        "batch": request.batch,
        "seq_len": sequence_length(checkpoint, request.seq_len, "--seq-len"),
    }


def _latency_table(request: ParetoRequest, checkpoint: Checkpoint, progress: Progress) -> LatencyTable:
    from anatomy_export.bench.latency_table import latency_table

    seq_len = sequence_length(checkpoint, request.seq_len, "--seq-len")
    return latency_table(checkpoint, batch=request.batch, seq_len=seq_len, progress=progress)
