"""The main job: model in, verified bundle out. Stages in order, plain values between them."""

import copy
import shutil
from dataclasses import replace
from pathlib import Path

from anatomy_export.bench.measure_latency import latency_table
from anatomy_export.bundle.shipped_check import check_shipped
from anatomy_export.core.files import MANIFEST, staged_directory
from anatomy_export.core.onnx_tensors import file_bytes
from anatomy_export.core.progress import Progress
from anatomy_export.core.target_cpu import target_cpu_note
from anatomy_export.data.loading import Dataset
from anatomy_export.data.probes import choose_probes, load_probes
from anatomy_export.evaluation.comparison import VerifyReport
from anatomy_export.evaluation.onnx_classifier import OnnxClassifier
from anatomy_export.exporter.torch_to_onnx import export_onnx, operator_counts, require_exporter
from anatomy_export.jobs.export_bundle import graph_metadata, write_bundle
from anatomy_export.jobs.export_checks import (
    masked_logits,
    measure_accuracy,
    ship_precision,
    verify_export,
    write_ort_format,
)
from anatomy_export.jobs.export_job import ExportJob
from anatomy_export.jobs.export_request import ExportRequest, ExportResult
from anatomy_export.jobs.source_data import load_model
from anatomy_export.jobs.verification_texts import verification_inputs, verification_texts
from anatomy_export.models.checkpoint import Checkpoint, save_checkpoint, sequence_length
from anatomy_export.models.fingerprint import model_identity
from anatomy_export.models.flops import count_flops
from anatomy_export.models.prune import check_plan_fits, mask_neurons_, slice_neurons
from anatomy_export.models.text_lengths import data_lengths
from anatomy_export.plan_files.model_identity import UNRECORDED
from anatomy_export.plan_files.plan import PrunePlan, read_plan
from anatomy_export.plan_files.repair_file import read_repair
from anatomy_export.planning.choose import PlanRequest, choose_plan, dense_plan
from anatomy_export.planning.defaults import resolve_options
from anatomy_export.planning.options import ScoreOptions
from anatomy_export.planning.plan_maker import PlanWithRepair


def run_export(request: ExportRequest, progress: Progress) -> ExportResult:
    """Do the whole job; nothing is left at the output path unless every check passed.

    Raises:
        AnatomyError: bad input, or work that failed. VerifyError: the export does not compute what was planned.
    """
    require_exporter(request.exporter)
    given_plan = _given_plan(request.plan) if request.plan else None
    given_probes = load_probes(request.score.get("probes"))
    name = Path(request.model).resolve().name if Path(request.model).is_dir() else request.model.replace("/", "--")
    target = request.output or Path("exports") / f"{name}-{request.mode}"
    with staged_directory(target, request.force, marks=(MANIFEST,)) as staging:
        job = _planned_job(request, given_plan, given_probes, staging, progress)
        return _ship(job, target)


def _ship(job: ExportJob, target: Path) -> ExportResult:
    """Prune as planned, export, verify, and write the bundle, which becomes `target`."""
    request, progress, staging = job.request, job.progress, job.staging
    with progress.stage(f"{request.mode} the model"):
        expected = masked_logits(job)
        pruned = _prune(job)
        save_checkpoint(pruned, staging / "checkpoint")
    metadata = graph_metadata(job, pruned)
    with progress.stage("export ONNX"):
        onnx, dense_onnx = _export_graphs(job, pruned, metadata)
    with progress.stage("verify"):
        report = verify_export(job, expected, pruned, onnx, dense_onnx)
        report.raise_for_failures()
    report = VerifyReport(report.comparisons, *measure_accuracy(job, onnx, dense_onnx))
    dense_size = file_bytes(job.onnx_path if request.mode == "dense" else job.dense_path)
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
        write_bundle(job, onnx, report, result, metadata)
    with progress.stage("verify the bundle without torch"):
        check_shipped(staging)
    return replace(result, stages=tuple(progress.stages))


def _given_plan(path: Path) -> PlanWithRepair:
    """A plan.json, with the repaired weights that it names from beside it."""
    plan = read_plan(path)
    return PlanWithRepair(plan, read_repair(plan, Path(path).parent))


def _planned_job(
    request: ExportRequest,
    given_plan: PlanWithRepair | None,
    given_probes: tuple[str, ...] | None,
    staging: Path,
    progress: Progress,
) -> ExportJob:
    """Load model and data, and plan which neurons stay, unless a plan was given."""
    loaded = load_model(request.model, request.data, progress, allow_random_head=request.allow_random_head)
    checkpoint, data, max_length = loaded.checkpoint, loaded.data, loaded.max_length
    flops_tokens = _flops_tokens(checkpoint, data, max_length, progress)
    options = ScoreOptions()
    if given_plan is None and request.mode != "dense":
        untrained = loaded.source.random_weights or checkpoint.random_head
        options = resolve_options(request.score, data, random_weights=untrained, progress=progress)
    plan_request = PlanRequest(
        checkpoint=checkpoint,
        data=data,
        probes=choose_probes(given_probes, loaded.classes, data),
        options=options,
        max_length=max_length,
        examples=request.data.calibration_examples,
        identity=model_identity(checkpoint.model),
        measure_latency=latency_table,
        progress=progress,
    )
    planned = given_plan or (dense_plan(plan_request) if request.mode == "dense" else choose_plan(plan_request))
    _check_plan(planned.plan, checkpoint, request.mode, progress)
    texts = verification_texts(data, plan_request.probes.texts, request.data.calibration_examples)
    return ExportJob(
        request=request,
        source=loaded.source,
        checkpoint=checkpoint,
        planned=planned,
        data=data,
        max_length=max_length,
        flops_tokens=flops_tokens,
        texts=texts,
        inputs=verification_inputs(checkpoint.tokenizer, texts, max_length),
        staging=staging,
        progress=progress,
    )


def _flops_tokens(checkpoint: Checkpoint, data: Dataset | None, max_length: int, progress: Progress) -> int:
    """Tokens that FLOPs are counted at: the data's mean, else those that are timed by default."""
    if data is None:
        return sequence_length(checkpoint, None)
    return round(data_lengths(checkpoint.tokenizer, data.splits, max_length, progress).mean_tokens)


def _check_plan(plan: PrunePlan, checkpoint: Checkpoint, mode: str, progress: Progress) -> None:
    """Raise AnatomyError unless the plan is for this model; say what it does not tell, and where it prunes nothing."""
    check_plan_fits(checkpoint.model, plan)
    if plan.recorded_logits is None:
        progress.note(UNRECORDED)
    if plan.removed == 0 and mode != "dense":
        progress.note("note: the plan keeps every neuron, so the export equals the dense model")


def _prune(job: ExportJob) -> Checkpoint:
    model = job.checkpoint.model
    if job.request.mode == "slice":
        return Checkpoint(slice_neurons(model, job.plan, job.repair), job.checkpoint.tokenizer)
    masked = copy.deepcopy(model)
    mask_neurons_(masked, job.plan, job.repair)
    return Checkpoint(masked, job.checkpoint.tokenizer)


def _export_graphs(
    job: ExportJob, pruned: Checkpoint, metadata: dict[str, str]
) -> tuple[OnnxClassifier, OnnxClassifier | None]:
    """The graph that ships, and a dense one where accuracy is to be compared."""
    options = {"fuse": job.request.fuse, "exporter": job.request.exporter}
    export_onnx(pruned, job.onnx_path, metadata=metadata, **options)
    if job.makes_dense:
        job.dense_path.parent.mkdir()
        export_onnx(job.checkpoint, job.dense_path, metadata={}, **options)
    onnx = OnnxClassifier(job.onnx_path, pruned.tokenizer, job.max_length)
    return onnx, OnnxClassifier(job.dense_path, pruned.tokenizer, job.max_length) if job.makes_dense else None


def _result(job: ExportJob, pruned: Checkpoint, report: VerifyReport, target: Path, dense_size: int) -> ExportResult:
    dense, precision = job.checkpoint.model, report.precision
    shipped_accuracy = report.accuracy_pruned if precision is None else precision.accuracy
    return ExportResult(
        output=target,
        neurons=(sum(job.plan.widths), sum(job.plan.kept_widths)),
        parameters=(_parameters(dense), _parameters(pruned.model)),
        flops=(count_flops(dense).total(1, job.flops_tokens), count_flops(pruned.model).total(1, job.flops_tokens)),
        flops_tokens=job.flops_tokens,
        size_bytes=(dense_size or None, file_bytes(job.onnx_path)),
        accuracy=(report.accuracy_dense, shipped_accuracy),
        max_abs_error=report.max_abs_error,
        operators=operator_counts(job.onnx_path),
        stages=(),
        precision=precision,
    )


def _parameters(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
