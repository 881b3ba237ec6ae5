"""The checks of the main job: every computation against torch, and accuracy dense and pruned."""

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anatomy_export.data import Dataset, Examples
from anatomy_export.exporter.evaluate import OnnxClassifier
from anatomy_export.exporter.plan import PrunePlan
from anatomy_export.exporter.prune import mask_neurons_
from anatomy_export.exporter.repair import Repair
from anatomy_export.exporter.request import ExportRequest
from anatomy_export.exporter.verify import Batch, VerifyReport, compare_all, logits_of, torch_forward
from anatomy_export.models.checkpoint import Checkpoint, load_checkpoint
from anatomy_export.models.zoo import ModelSource
from anatomy_export.progress import Progress


@dataclass(frozen=True)
class Job:
    """What the stages after planning share."""

    request: ExportRequest
    source: ModelSource
    checkpoint: Checkpoint
    plan: PrunePlan
    repair: Repair | None
    data: Dataset | None
    max_length: int
    texts: tuple[str, ...]
    batches: tuple[Batch, ...]
    staging: Path
    progress: Progress

    @property
    def makes_dense(self) -> bool:
        """Is a dense graph exported to compare with?"""
        return self.request.mode != "dense" and self.request.compare_dense

    @property
    def dense_path(self) -> Path:
        return self.staging / ".dense" / "model.onnx"

    @property
    def test_examples(self) -> Examples | None:
        """What accuracy is measured on; None where it is not."""
        if self.data is None or self.source.random_weights or not self.request.compare_dense:
            return None
        return self.data.test.head(self.request.data.eval_examples) if len(self.data.test) else None


def masked_logits(job: Job) -> list[np.ndarray]:
    """What every export must compute: the logits of the dense model with the pruned rows of W2 zeroed, and repaired."""
    masked = copy.deepcopy(job.checkpoint.model)
    mask_neurons_(masked, job.plan, job.repair)
    return logits_of(torch_forward(masked), job.batches)


def verify_export(
    job: Job,
    expected: list[np.ndarray],
    pruned: Checkpoint,
    onnx: OnnxClassifier,
    dense_onnx: OnnxClassifier | None,
) -> VerifyReport:
    """Compare everything that was made with the masked model (`expected`), and the dense graph with the dense model."""
    found = {
        "torch " + job.request.mode: logits_of(torch_forward(pruned.model), job.batches),
        "reloaded": _reloaded_logits(job),
        "onnx": logits_of(onnx.run, job.batches),
    }
    comparisons = compare_all("torch masked", expected, found, job.batches)
    if dense_onnx is not None:
        dense = logits_of(torch_forward(job.checkpoint.model), job.batches)
        found = {"dense onnx": logits_of(dense_onnx.run, job.batches)}
        comparisons += compare_all("torch dense", dense, found, job.batches)
    return VerifyReport(comparisons)


def _reloaded_logits(job: Job) -> list[np.ndarray]:
    reloaded = load_checkpoint(str(job.staging / "checkpoint"))
    return logits_of(torch_forward(reloaded.model), job.batches)


def measure_accuracy(
    job: Job, onnx: OnnxClassifier, dense_onnx: OnnxClassifier | None
) -> tuple[float | None, float | None]:
    """Dense and pruned accuracy on test, as fractions, by ONNX Runtime itself; None where it is not measured."""
    examples = job.test_examples
    if examples is None:
        return None, None
    with job.progress.stage(f"accuracy on {len(examples)} test texts"):
        pruned = onnx.accuracy(examples)
        return pruned if dense_onnx is None else dense_onnx.accuracy(examples), pruned
