"""The checks of the main job: every computation against torch, and accuracy dense and pruned."""

import copy
from collections.abc import Sequence

import numpy as np

from anatomy_export.core.onnx_tensors import file_bytes
from anatomy_export.evaluation.batches import single_batches
from anatomy_export.evaluation.classifier_inputs import Inputs
from anatomy_export.evaluation.comparison import (
    VerifyReport,
    compare_all,
)
from anatomy_export.evaluation.onnx_classifier import EVALUATION_BATCH, OnnxClassifier
from anatomy_export.evaluation.onnx_session import save_ort_format
from anatomy_export.evaluation.precision_gate import (
    RANGE_TEXTS,
    PrecisionGate,
    PrecisionReport,
    precision_gate,
    precision_report,
)
from anatomy_export.evaluation.tolerance import REFERENCE_TOLERANCE
from anatomy_export.evaluation.torch_classifier import torch_forward
from anatomy_export.exporter.fp16 import check_fp16_range
from anatomy_export.exporter.precision import convert_precision
from anatomy_export.jobs.export_job import ExportJob
from anatomy_export.models.checkpoint import Checkpoint, load_checkpoint
from anatomy_export.models.prune import mask_neurons_


def masked_logits(job: ExportJob) -> list[np.ndarray]:
    """What every export must compute: the logits of the dense model with the pruned rows of W2 zeroed, and repaired."""
    masked = copy.deepcopy(job.checkpoint.model)
    mask_neurons_(masked, job.plan, job.repair)
    return job.inputs.logits(torch_forward(masked))


def verify_export(
    job: ExportJob,
    expected: list[np.ndarray],
    pruned: Checkpoint,
    onnx: OnnxClassifier,
    dense_onnx: OnnxClassifier | None,
) -> VerifyReport:
    """Compare everything that was made with the masked model (`expected`), and the dense graph with the dense model."""
    reloaded = load_checkpoint(str(job.staging / "checkpoint"))
    made = {
        "torch " + job.request.mode: job.inputs.logits(torch_forward(pruned.model)),
        "reloaded": job.inputs.logits(torch_forward(reloaded.model)),
        "onnx": job.inputs.logits(onnx.run),
    }
    comparisons = compare_all("torch masked", expected, made, job.inputs.shapes)
    if dense_onnx is not None:
        dense = job.inputs.logits(torch_forward(job.checkpoint.model))
        made = {"dense onnx": job.inputs.logits(dense_onnx.run)}
        comparisons += compare_all("torch dense", dense, made, job.inputs.shapes)
    return VerifyReport(comparisons)


def measure_accuracy(
    job: ExportJob, onnx: OnnxClassifier, dense_onnx: OnnxClassifier | None
) -> tuple[float | None, float | None]:
    """Dense and pruned accuracy on test, as fractions, by ONNX Runtime itself; None where it is not measured."""
    examples = job.test_examples
    if examples is None:
        return None, None
    with job.progress.stage(f"accuracy on {len(examples)} test texts"):
        pruned = onnx.accuracy(examples)
        return pruned if dense_onnx is None else dense_onnx.accuracy(examples), pruned


def ship_precision(job: ExportJob, fp32: OnnxClassifier) -> tuple[OnnxClassifier, PrecisionReport]:
    """Put a file of the precision that was asked for in the place of the fp32 one, and judge it.

    Raises:
        AnatomyError: the conversion failed. VerifyError: it loses more accuracy than is allowed.
    """
    wanted, path = job.request.precision, job.onnx_path
    size = file_bytes(path)
    calibration = _text_inputs(job) if wanted.calibrated and job.data else ()
    with job.progress.stage(f"convert to {wanted.name}"):
        made = job.staging / ".precision" / path.name
        made.parent.mkdir()
        conversion = convert_precision(path, made, wanted, calibration)
        if wanted.name == "fp16":
            check_fp16_range(path, made, _text_inputs(job)[:RANGE_TEXTS])
        for old in job.staging.glob("model.onnx*"):
            old.unlink()
        for new in made.parent.iterdir():
            new.rename(job.staging / new.name)
        made.parent.rmdir()
    shipped = OnnxClassifier(path, fp32.tokenizer, job.max_length)
    gate = _precision_gate(job, shipped, fp32)
    examples = job.test_examples
    texts = job.texts if examples is None else examples.texts
    with job.progress.stage(f"compare {wanted.name} with fp32 on {len(texts)} texts"):
        classes, expected = _classes(job, shipped, fp32, texts)
    report = precision_report(
        wanted,
        conversion,
        classes=classes,
        expected=expected,
        labels=None if examples is None else np.array(examples.labels),
        size_bytes=file_bytes(path),
        size_bytes_fp32=size,
        gate=gate,
    )
    return shipped, report


def _precision_gate(job: ExportJob, shipped: OnnxClassifier, fp32: OnnxClassifier) -> PrecisionGate | None:
    """Raises VerifyError where validation text loses more than is allowed."""
    wanted, examples = job.request.precision, job.validation_examples
    if wanted.by_batch:
        job.progress.note(
            "note: dynamic int8 takes the ranges of a whole batch, so a text's logits depend on what shares it: judged "
            "one text a call; --int8 static does not depend on it"
        )
    if examples is None:
        why = "pass labelled --data" if job.test_examples is None else "pass data with rows for validation"
        job.progress.note(f"note: nothing judges what {wanted.name} costs in accuracy; next step: {why}")
        return None
    with job.progress.stage(f"judge {wanted.name} on {len(examples)} validation texts"):
        classes, expected = _classes(job, shipped, fp32, examples.texts)
    gate = precision_gate(wanted, classes=classes, expected=expected, labels=np.array(examples.labels))
    gate.raise_for_drop(wanted.name)
    return gate


def _classes(
    job: ExportJob, shipped: OnnxClassifier, fp32: OnnxClassifier, texts: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The class of each text, (texts,), by the file that ships as it is run, and by the fp32 file."""
    batch_size = 1 if job.request.precision.by_batch else EVALUATION_BATCH
    return shipped.logits(texts, batch_size).argmax(-1), fp32.logits(texts).argmax(-1)


def _text_inputs(job: ExportJob) -> list[Inputs]:
    """The verification texts one by one, without padding."""
    return single_batches(job.checkpoint.tokenizer, job.texts, job.max_length)


def write_ort_format(job: ExportJob, onnx: OnnxClassifier) -> None:
    """Write model.ort, ONNX Runtime's own format, beside model.onnx; load it, and compare.

    Raises:
        AnatomyError: it cannot be written or loaded. VerifyError: it computes something else.
    """
    path = job.staging / "model.ort"
    with job.progress.stage("write model.ort"):
        save_ort_format(job.onnx_path, path)
        loaded = OnnxClassifier(path, onnx.tokenizer, job.max_length)
        expected = job.inputs.logits(onnx.run)
        made = {"model.ort": job.inputs.logits(loaded.run)}
        tolerance = REFERENCE_TOLERANCE[job.request.precision.name]
        VerifyReport(compare_all("model.onnx", expected, made, job.inputs.shapes, tolerance)).raise_for_failures()
