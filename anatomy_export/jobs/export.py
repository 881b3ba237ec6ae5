"""The main job: model in, verified bundle out. Stages in order, plain values between them."""

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from anatomy_export.bench.latency_table import latency_table
from anatomy_export.bundle.card import source_card
from anatomy_export.bundle.facts import BundleFacts
from anatomy_export.bundle.manifest import write_manifest
from anatomy_export.bundle.ship_gate import check_shipped
from anatomy_export.core.files import MANIFEST, staged_directory
from anatomy_export.core.names import public_name
from anatomy_export.core.onnx_tensors import file_bytes
from anatomy_export.core.progress import Progress
from anatomy_export.core.target_cpu import target_cpu_note
from anatomy_export.data.loading import Dataset
from anatomy_export.data.probes import BUILT_IN_PROBES, choose_probes, load_probes
from anatomy_export.evaluation.batches import single_batches
from anatomy_export.evaluation.comparison import VerificationInputs, VerifyReport, verification_batches
from anatomy_export.evaluation.onnx_classifier import OnnxClassifier
from anatomy_export.evaluation.tolerance import TOLERANCE
from anatomy_export.exporter.torch_to_onnx import export_onnx, operator_counts, require_exporter
from anatomy_export.jobs.export_checks import (
    Job,
    masked_logits,
    measure_accuracy,
    ship_precision,
    verify_export,
    write_ort_format,
)
from anatomy_export.jobs.export_request import ExportRequest, ExportResult
from anatomy_export.jobs.source_data import load_source_data, model_classes
from anatomy_export.models.checkpoint import (
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    sequence_length,
    text_limit,
    weights_identity,
)
from anatomy_export.models.families import model_blocks
from anatomy_export.models.flops import count_flops, ffn_flops_token
from anatomy_export.models.identity import model_fingerprint, model_identity
from anatomy_export.models.prune import check_plan_fits, mask_neurons_, slice_neurons
from anatomy_export.models.text_lengths import data_lengths
from anatomy_export.planning.choose import Chosen
from anatomy_export.planning.options import ScoreOptions
from anatomy_export.planning.planning import Planning, choose_neurons, resolve_options
from anatomy_export.plans.identity import UNRECORDED
from anatomy_export.plans.plan import read_plan
from anatomy_export.plans.repair import read_repair
from anatomy_export.zoo.embedded import resolve_model

# None of the user's texts: these ship. The last is repeated until it is cut off, where that is not too much to run.
REFERENCE_TEXTS = (*BUILT_IN_PROBES, "Fine.", " ".join(BUILT_IN_PROBES))
MOST_REFERENCE_TOKENS = 1024
VERIFICATION_TEXTS = 32
MOST_VERIFICATION_TEXTS = 256


def run_export(request: ExportRequest, progress: Progress) -> ExportResult:
    """Do the whole job; nothing is left at the output path unless every check passed.

    Raises:
        AnatomyError: bad input, or work that failed. VerifyError: the export does not compute what was planned.
    """
    require_exporter(request.exporter)
    given = _given_plan(request.plan) if request.plan else None
    given_probes = load_probes(request.score.get("probes"))
    name = Path(request.model).resolve().name if Path(request.model).is_dir() else request.model.replace("/", "--")
    target = request.output or Path("exports") / f"{name}-{request.mode}"
    with staged_directory(target, request.force, marks=(MANIFEST,)) as staging:
        source = resolve_model(request.model, progress)
        with progress.stage("load model"):
            checkpoint = load_checkpoint(source.checkpoint, allow_random_head=request.allow_random_head)
            max_length = text_limit(checkpoint, request.data.max_length)
        data = load_source_data(source, checkpoint, request.data, progress)
        flops_tokens = _flops_tokens(checkpoint, data, max_length, progress)
        options = ScoreOptions()
        if given is None and request.mode != "dense":
            untrained = source.random_weights or checkpoint.random_head
            options = resolve_options(request.score, data, random_weights=untrained, progress=progress)
        probes = choose_probes(given_probes, model_classes(checkpoint, source.name), data)
        planning = Planning(
            checkpoint, data, probes, options, max_length, model_identity(checkpoint.model), latency_table, progress
        )
        chosen = given or choose_neurons(planning, request.mode, request.data.calibration_examples)
        plan = chosen.plan
        check_plan_fits(checkpoint.model, plan)
        if plan.recorded_logits is None:
            progress.note(UNRECORDED)
        if plan.removed == 0 and request.mode != "dense":
            progress.note("note: the plan keeps every neuron, so the export equals the dense model")
        texts = _verification_texts(data, probes.texts, request.data.calibration_examples)
        references = reference_texts(checkpoint.tokenizer, max_length)
        inputs = VerificationInputs(
            tuple(verification_batches(checkpoint.tokenizer, texts, max_length)),
            tuple(single_batches(checkpoint.tokenizer, references, max_length)),
        )
        job = Job(
            request,
            source,
            checkpoint,
            plan,
            chosen.repair,
            data,
            max_length,
            flops_tokens,
            texts,
            inputs,
            staging,
            progress,
        )
        return _export_verify_bundle(job, target)


def _flops_tokens(checkpoint: Checkpoint, data: Dataset | None, max_length: int, progress: Progress) -> int:
    """Tokens that FLOPs are counted at: the data's mean, else those that are timed by default."""
    if data is None:
        return sequence_length(checkpoint, None)
    return round(data_lengths(checkpoint.tokenizer, data.splits, max_length, progress).mean_tokens)


def _export_verify_bundle(job: Job, target: Path) -> ExportResult:
    staging, progress, request = job.staging, job.progress, job.request
    with progress.stage(f"{request.mode} the model"):
        expected = masked_logits(job)
        pruned = _prune(job)
        save_checkpoint(pruned, staging / "checkpoint")
    metadata = _metadata(job, pruned)
    with progress.stage("export ONNX"):
        options = {"fuse": request.fuse, "exporter": request.exporter}
        export_onnx(pruned, staging / "model.onnx", metadata=metadata, **options)
        if job.makes_dense:
            job.dense_path.parent.mkdir()
            export_onnx(job.checkpoint, job.dense_path, metadata={}, **options)
    onnx = OnnxClassifier(staging / "model.onnx", pruned.tokenizer, job.max_length)
    dense_onnx = OnnxClassifier(job.dense_path, pruned.tokenizer, job.max_length) if job.makes_dense else None
    with progress.stage("verify"):
        report = verify_export(job, expected, pruned, onnx, dense_onnx)
        report.raise_for_failures()
    report = VerifyReport(report.comparisons, *measure_accuracy(job, onnx, dense_onnx))
    dense_size = file_bytes(staging / "model.onnx" if request.mode == "dense" else job.dense_path)
    if request.precision.converts:
        onnx, judged = ship_precision(job, onnx)
        report = replace(report, precision=judged)
        if note := target_cpu_note(judged.conversion):
            progress.note(note)
    if request.ort_format:
        write_ort_format(job, onnx)
    result = _result(job, pruned, report, target, dense_size)
    shutil.rmtree(job.dense_path.parent, ignore_errors=True)
    with progress.stage("write bundle"):
        _write_bundle(job, pruned, onnx, report, result, metadata)
    with progress.stage("verify the bundle without torch"):
        check_shipped(staging)
    return replace(result, stages=tuple(progress.stages))


def _result(job: Job, pruned: Checkpoint, report: VerifyReport, target: Path, dense_size: int) -> ExportResult:
    dense, precision = job.checkpoint.model, report.precision
    shipped_accuracy = report.accuracy_pruned if precision is None else precision.accuracy
    return ExportResult(
        output=target,
        neurons=(sum(job.plan.widths), sum(job.plan.kept_widths)),
        parameters=(_parameters(dense), _parameters(pruned.model)),
        flops=(count_flops(dense).total(1, job.flops_tokens), count_flops(pruned.model).total(1, job.flops_tokens)),
        flops_tokens=job.flops_tokens,
        size_bytes=(dense_size or None, file_bytes(job.staging / "model.onnx")),
        accuracy=(report.accuracy_dense, shipped_accuracy),
        max_abs_error=report.max_abs_error,
        operators=operator_counts(job.staging / "model.onnx"),
        stages=(),
        precision=precision,
    )


def _given_plan(path: Path) -> Chosen:
    """A plan.json, with the repaired weights that it names from beside it."""
    plan = read_plan(path)
    return Chosen(plan, read_repair(plan, Path(path).parent))


def _verification_texts(data: Dataset | None, probes: tuple[str, ...], count: int | None) -> tuple[str, ...]:
    """Train texts, at most `MOST_VERIFICATION_TEXTS` of those that calibration may use; without data the probes."""
    most = min(VERIFICATION_TEXTS if count is None else count, MOST_VERIFICATION_TEXTS)
    return (data.train.texts[:most] if data else ()) or probes


def _prune(job: Job) -> Checkpoint:
    model = job.checkpoint.model
    if job.request.mode == "slice":
        return Checkpoint(slice_neurons(model, job.plan, job.repair), job.checkpoint.tokenizer)
    masked = copy.deepcopy(model)
    mask_neurons_(masked, job.plan, job.repair)
    return Checkpoint(masked, job.checkpoint.tokenizer)


def _metadata(job: Job, pruned: Checkpoint) -> dict[str, str]:
    widths = [block.width for block in model_blocks(pruned.model)]
    return {
        "anatomy.mode": job.request.mode,
        "anatomy.plan_sha256": job.plan.sha256,
        "anatomy.source_fingerprint": job.plan.fingerprint,
        "anatomy.fingerprint": model_fingerprint(pruned.model),
        "anatomy.widths": ",".join(map(str, widths)),
        "anatomy.criterion": job.plan.criterion,
        "anatomy.source": str(job.source.provenance["source"]),
        "anatomy.tolerance": repr(TOLERANCE),
    }


def _provenance(job: Job, metadata: dict[str, str]) -> dict:
    """Where the weights, the plan and the figures come from."""
    examples, data = job.test_examples, job.data
    identity = weights_identity(job.source.checkpoint, job.checkpoint.model)
    return {
        **metadata,
        "model": {**job.source.provenance, **identity},
        "plan": job.plan.parameters,
        "calibration_sha256": job.plan.calibration_fingerprint,
        "data": data and {"name": public_name(data.name), "sha256": data.fingerprint},
        "test_texts_evaluated": 0 if examples is None else len(examples),
    }


def _write_bundle(
    job: Job,
    pruned: Checkpoint,
    onnx: OnnxClassifier,
    report: VerifyReport,
    result: ExportResult,
    metadata: dict[str, str],
) -> None:
    staging = job.staging
    for path in (staging / "checkpoint").iterdir():
        if path.name != "model.safetensors":
            shutil.copyfile(path, staging / path.name)
    if not job.request.with_checkpoint:
        shutil.rmtree(staging / "checkpoint")
    (staging / "plan.json").write_text(job.plan.to_json(), encoding="utf-8")
    if job.repair is not None:
        job.repair.save(staging)
    (staging / "verify.json").write_text(report.to_json(), encoding="utf-8")
    texts, ids, logits = _references(job, onnx)
    config = pruned.model.config
    facts = BundleFacts(
        name=job.source.name,
        mode=job.request.mode,
        max_length=job.max_length,
        truncation_side=job.checkpoint.tokenizer.truncation_side,
        flops_tokens=job.flops_tokens,
        labels=tuple(str(config.id2label[index]) for index in range(config.num_labels)),
        tolerance=TOLERANCE,
        provenance=_provenance(job, metadata),
        result=result.measures(),
        dense_flops=count_flops(job.checkpoint.model),
        planned_ffn_token=ffn_flops_token(job.plan.kept_widths, config.hidden_size),
        widths=tuple(job.plan.widths),
        kept_widths=tuple(job.plan.kept_widths),
        criterion=job.plan.criterion,
        reference_texts=texts,
        reference_ids=ids,
        reference_logits=logits,
        precision=job.request.precision.name,
        conversion=None if report.precision is None else report.precision.conversion,
        source_card={**job.source.card, **source_card(job.source.checkpoint)},
    )
    write_manifest(staging, facts)


def _references(job: Job, onnx: OnnxClassifier) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...], np.ndarray]:
    """Twelve texts, their token ids, and the logits (texts, classes) that the file that ships gives for each alone."""
    texts = reference_texts(job.checkpoint.tokenizer, job.max_length)
    encoded = single_batches(job.checkpoint.tokenizer, texts, job.max_length)
    logits = np.stack([onnx.run(inputs)[0] for inputs in encoded])
    return texts, tuple(tuple(map(int, inputs["input_ids"][0])) for inputs in encoded), logits


def reference_texts(tokenizer, max_length: int) -> tuple[str, ...]:
    """Twelve built-in texts; the last has more than `max_length` tokens, up to `MOST_REFERENCE_TOKENS`."""
    *texts, last = REFERENCE_TEXTS
    times = min(max_length, MOST_REFERENCE_TOKENS) // len(tokenizer(last)["input_ids"]) + 1
    return (*texts, " ".join([last] * times))


def _parameters(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
