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
from anatomy_export.data.data_options import DataOptions
from anatomy_export.data.loading import Examples
from anatomy_export.data.probes import Probes, choose_probes
from anatomy_export.evaluation.metrics import compare_predictions
from anatomy_export.evaluation.torch_classifier import class_probabilities
from anatomy_export.jobs.source_data import load_model
from anatomy_export.models.checkpoint import Checkpoint, sequence_length, weights_identity
from anatomy_export.models.fingerprint import model_fingerprint
from anatomy_export.models.supported_families import model_blocks
from anatomy_export.models.text_lengths import data_lengths
from anatomy_export.planning.allocation import width_multiple
from anatomy_export.planning.latency_table import LatencyTable
from anatomy_export.planning.sweep import Pruned, PruneSpec, Refused, prune_each

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

    @property
    def specs(self) -> list[PruneSpec]:
        combinations = product(self.criteria, self.allocate, self.compensate, self.removed)
        return [PruneSpec(*values) for values in combinations]


def run_pareto(request: ParetoRequest, progress: Progress) -> dict:
    """Try every way on validation text, name the non-dominated ones, and report those on test text.

    The result is written after each way, so that an interrupted run goes on where it was.

    Raises:
        AnatomyError: accuracy cannot be measured, the output is of other settings, or another run is at work on it.
    """
    with sole_writer(request.output):
        return _run_pareto(request, progress)


def _run_pareto(request: ParetoRequest, progress: Progress) -> dict:
    loaded = load_model(request.model, request.data, progress, trained_for="anatomy pareto")
    text = "labelled text with a validation split"
    checkpoint, max_length, data = loaded.checkpoint, loaded.max_length, loaded.labelled_data("anatomy pareto", text)
    if not len(data.validation):
        raise AnatomyError(f"anatomy pareto needs {text}; next step: pass --data")
    data_lengths(checkpoint.tokenizer, data.splits, max_length, progress)
    sample = calibration_sample(
        checkpoint, data.train, request.data.calibration_examples, seed=request.seed, max_length=max_length
    )
    settings = _settings(request, checkpoint, data.fingerprint, max_length, len(sample))
    settings |= weights_identity(loaded.source.checkpoint, checkpoint.model)
    file = ResultFile(request.output / PARETO, "pareto", "results", MeasuredWay, FORMAT_VERSION)
    earlier = file.earlier(settings)
    results = {name: entry for name, entry in earlier["results"].items() if name != DENSE} if earlier else {}
    open_directory(request.output, empty=earlier is None)
    job = _Job(
        request=request,
        checkpoint=checkpoint,
        train=data.train,
        probes=choose_probes(None, loaded.classes, data),
        max_length=max_length,
        examples=len(sample),
        table=_latency_table(request, checkpoint, progress),
        progress=progress,
    )
    for entry in results.values():
        if "widths" in entry:
            entry["speedup"] = job.table.speedup(entry["widths"], job.widths)
    body = {"format_version": FORMAT_VERSION, "kind": "pareto", "settings": settings, "latency": asdict(job.table)}
    todo = [spec for spec in request.specs if spec.name not in results]
    dense = job.dense(data.validation)
    for name, entry in job.evaluate(todo, data.validation, dense, "try ways on validation"):
        results[name] = entry
        file.write({**body, "partial": True, "results": results})
    results[DENSE] = job.dense_entry(data.validation, dense)
    asked = {DENSE, *(spec.name for spec in request.specs)}
    tried = {name: entry for name, entry in results.items() if name in asked and "speedup" in entry}
    best = non_dominated({name: (entry["speedup"], entry["accuracy"]) for name, entry in tried.items()})
    dense = job.dense(data.test)
    chosen = [spec for spec in request.specs if spec.name in best]
    on_test = dict(job.evaluate(chosen, data.test, dense, "report on test"))
    on_test[DENSE] = job.dense_entry(data.test, dense)
    whole = {**body, "partial": False, "results": results, "non_dominated": best, "test": on_test}
    file.write(whole)
    return whole


class MeasuredWay(Struct, frozen=True):
    """What `pareto.json` holds of a way that was tried."""

    accuracy: float
    widths: list[int]


@dataclass(frozen=True)
class _Job:
    """What is the same for every way to prune."""

    request: ParetoRequest
    checkpoint: Checkpoint
    train: Examples
    probes: Probes
    max_length: int
    examples: int
    table: LatencyTable
    progress: Progress

    @property
    def widths(self) -> list[int]:
        return [block.width for block in model_blocks(self.checkpoint.model)]

    def dense(self, texts: Examples) -> np.ndarray:
        """The dense model's class probabilities, (texts, classes)."""
        with self.progress.stage(f"dense model on {len(texts)} texts"):
            return class_probabilities(self.checkpoint, self.checkpoint.model, texts.texts, self.max_length)

    def dense_entry(self, texts: Examples, dense: np.ndarray) -> dict:
        compared = compare_predictions(dense, dense, np.array(texts.labels))
        return {"removed": 0.0, "widths": self.widths, "speedup": 1.0, **compared}

    def evaluate(
        self, specs: Sequence[PruneSpec], texts: Examples, dense: np.ndarray, title: str
    ) -> Iterable[tuple[str, dict]]:
        """What each way gives on `texts`, by its name."""
        if not specs:
            return
        if self.probes.note and any(find_criterion(spec.criterion).needs_anatomy for spec in specs):
            self.progress.note(self.probes.note)
        with self.progress.bar(title, len(specs)) as tick:
            for pruned in prune_each(
                self.checkpoint,
                self.train,
                specs,
                seed=self.request.seed,
                examples=self.examples,
                align=width_multiple("auto"),
                max_length=self.max_length,
                probes=self.probes.texts,
            ):
                yield pruned.spec.name, self._entry(pruned, texts, dense)
                tick()

    def _entry(self, pruned: Pruned | Refused, texts: Examples, dense: np.ndarray) -> dict:
        if isinstance(pruned, Refused):
            return {**asdict(pruned.spec), "refused": pruned.reason}
        probabilities = class_probabilities(self.checkpoint, pruned.model, texts.texts, self.max_length)
        return {
            **asdict(pruned.spec),
            "widths": pruned.widths,
            "speedup": self.table.speedup(pruned.widths, self.widths),
            **compare_predictions(dense, probabilities, np.array(texts.labels)),
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
    from anatomy_export.bench.measure_latency import latency_table

    seq_len = sequence_length(checkpoint, request.seq_len, "--seq-len")
    return latency_table(checkpoint, batch=request.batch, seq_len=seq_len, progress=progress)
