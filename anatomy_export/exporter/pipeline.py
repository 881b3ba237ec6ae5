"""The main job: model in, verified bundle out. Stages in order, plain values between them."""

import copy
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from anatomy_export.data import Dataset, load_dataset
from anatomy_export.errors import AnatomyError
from anatomy_export.exporter.bundle import BundleFacts, write_manifest
from anatomy_export.exporter.evaluate import OnnxClassifier
from anatomy_export.exporter.flops import FlopModel, count_flops, ffn_flops_token
from anatomy_export.exporter.onnx_export import export_onnx, operator_counts
from anatomy_export.exporter.plan import PrunePlan, identity_plan, ratio_plan, read_plan, threshold_plan
from anatomy_export.exporter.prune import mask_neurons_, slice_neurons
from anatomy_export.exporter.score import model_fingerprint, score_anatomy
from anatomy_export.exporter.thresholds import ThresholdSetup, preset_setup
from anatomy_export.exporter.verify import (
    TOLERANCE,
    VerifyReport,
    compare_all,
    torch_forward,
    verification_batches,
)
from anatomy_export.files import staged_directory
from anatomy_export.models import family_of, model_blocks
from anatomy_export.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from anatomy_export.models.zoo import ModelSource, resolve_model
from anatomy_export.probes import load_probes
from anatomy_export.progress import Progress, Stage

DEFAULT_MAX_LENGTH = 128
REFERENCE_TEXTS = 12


@dataclass(frozen=True)
class ScoreOptions:
    """How neurons are chosen; None takes the preset's value."""

    preset: str | None = None
    alpha: float | None = None
    beta: float | None = None
    focus: tuple[int, ...] | None = None
    strong_threshold: float = 0.35
    probe_reduction: str = "mean"
    keep_ratio: float | None = None
    align: int = 1
    probes: str | None = None


@dataclass(frozen=True)
class DataOptions:
    """Which labelled text, and how much of it. Lengths are in tokens, counts in examples."""

    data: str | None = None
    text_column: str = "text"
    label_column: str = "label"
    split_column: str | None = None
    max_length: int | None = None
    eval_examples: int | None = None
    calibration_examples: int = 32


@dataclass(frozen=True)
class ExportRequest:
    """Everything that `anatomy export` was asked for. Without `compare_dense` no dense graph is made to compare with:
    accuracy and the dense file size are then None."""

    model: str
    mode: str = "slice"
    output: Path | None = None
    force: bool = False
    plan: Path | None = None
    fuse: str = "ort"
    exporter: str = "dynamo"
    with_checkpoint: bool = False
    allow_random_head: bool = False
    compare_dense: bool = True
    score: ScoreOptions = field(default_factory=ScoreOptions)
    data: DataOptions = field(default_factory=DataOptions)


@dataclass(frozen=True)
class ExportResult:
    """What a person or a script is told at the end: each measure dense → pruned, and where it went."""

    output: Path
    neurons: tuple[int, int]
    parameters: tuple[int, int]
    flops: tuple[int, int]
    size_bytes: tuple[int | None, int]
    accuracy: tuple[float | None, float | None]
    max_abs_error: float
    operators: dict[str, int]
    stages: tuple[Stage, ...]

    def measures(self) -> dict[str, dict]:
        """`{"neurons": {"dense": …, "pruned": …}, …}`."""
        names = ("neurons", "parameters", "flops", "size_bytes", "accuracy")
        return {name: dict(zip(("dense", "pruned"), getattr(self, name), strict=True)) for name in names}

    def as_dict(self) -> dict:
        """The object that `--json` prints."""
        return {
            **self.measures(),
            "output": str(self.output),
            "max_abs_error": self.max_abs_error,
            "operators": self.operators,
            "stages": [
                {
                    "name": stage.name,
                    "seconds": round(stage.seconds, 3),
                    "peak_rss_bytes": stage.peak_rss_bytes,
                }
                for stage in self.stages
            ],
        }


def run_export(request: ExportRequest, progress: Progress) -> ExportResult:
    """Do the whole job; nothing is left at the output path unless every check passed.

    Raises:
        AnatomyError: bad input, or work that failed. VerifyError: the export does not compute what was planned.
    """
    plan = read_plan(request.plan) if request.plan else None
    probes = load_probes(request.score.probes)
    name = Path(request.model).resolve().name if Path(request.model).is_dir() else request.model.replace("/", "--")
    target = request.output or Path("exports") / f"{name}-{request.mode}"
    with staged_directory(target, request.force) as staging:
        source = resolve_model(request.model, progress)
        with progress.stage("load model and data"):
            checkpoint = load_checkpoint(source.checkpoint, allow_random_head=request.allow_random_head)
            max_length = _max_length(checkpoint, request.data.max_length)
            data = _load_data(source, checkpoint, request.data)
        with progress.stage("score and plan"):
            plan = plan or _make_plan(checkpoint, request, probes, max_length)
            plan.check_model(model_fingerprint(checkpoint.model), [b.width for b in model_blocks(checkpoint.model)])
        if plan.removed == 0 and request.mode != "dense":
            progress.note("note: the plan keeps every neuron, so the export equals the dense model")
        texts = _verification_texts(data, probes, request.data.calibration_examples)
        job = _Job(request, source, checkpoint, plan, data, max_length, texts, staging, progress)
        return _export_verify_bundle(job, target)


@dataclass(frozen=True)
class _Job:
    request: ExportRequest
    source: ModelSource
    checkpoint: Checkpoint
    plan: PrunePlan
    data: Dataset | None
    max_length: int
    texts: tuple[str, ...]
    staging: Path
    progress: Progress


def _export_verify_bundle(job: _Job, target: Path) -> ExportResult:
    staging, progress, request = job.staging, job.progress, job.request
    with progress.stage(f"{request.mode} the model"):
        pruned = _prune(job)
        save_checkpoint(pruned, staging / "checkpoint")
        reloaded = load_checkpoint(str(staging / "checkpoint"))
    with progress.stage("export ONNX"):
        options = {"fuse": request.fuse, "exporter": request.exporter}
        export_onnx(pruned, staging / "model.onnx", metadata=_metadata(job, pruned), **options)
        dense_path = staging / ".dense" / "model.onnx"
        dense_path.parent.mkdir()
        if request.mode != "dense" and request.compare_dense:
            export_onnx(job.checkpoint, dense_path, metadata={}, **options)
    onnx = OnnxClassifier(staging / "model.onnx", pruned.tokenizer, job.max_length)
    with progress.stage("verify"):
        report = _verify(job, pruned, reloaded, onnx)
        report.raise_for_failures()
    accuracy = _accuracies(job, onnx, dense_path)
    size = _onnx_bytes(staging)
    dense_size = size if request.mode == "dense" else _onnx_bytes(dense_path.parent)
    shutil.rmtree(dense_path.parent)
    flops = count_flops(job.checkpoint.model)
    result = ExportResult(
        output=target,
        neurons=(sum(job.plan.widths), sum(job.plan.kept_widths)),
        parameters=(_parameters(job.checkpoint.model), _parameters(pruned.model)),
        flops=(flops.total(1, job.max_length), count_flops(pruned.model).total(1, job.max_length)),
        size_bytes=(dense_size or None, size),
        accuracy=accuracy,
        max_abs_error=report.max_abs_error,
        operators=operator_counts(staging / "model.onnx"),
        stages=(),
    )
    report = VerifyReport(report.comparisons, *accuracy)
    with progress.stage("write bundle"):
        _write_bundle(job, pruned, onnx, report, result, flops)
    return ExportResult(**{**result.__dict__, "stages": tuple(progress.stages)})


def _max_length(checkpoint: Checkpoint, asked: int | None) -> int:
    limit = family_of(checkpoint.model.config).max_positions(checkpoint.model.config)
    if asked is not None and asked > limit:
        raise AnatomyError(f"--max-length is {asked}, this model takes at most {limit} tokens; next step: ask for less")
    return asked or min(DEFAULT_MAX_LENGTH, limit)


def _load_data(source: ModelSource, checkpoint: Checkpoint, options: DataOptions) -> Dataset | None:
    name = options.data or source.default_data
    if name is None:
        return None
    config = checkpoint.model.config
    data = load_dataset(
        name,
        text_column=options.text_column,
        label_column=options.label_column,
        split_column=options.split_column,
        label_ids=dict(config.label2id or {}),
    )
    data.check_labels(config.num_labels)
    return data


def _make_plan(checkpoint: Checkpoint, request: ExportRequest, probes, max_length: int) -> PrunePlan:
    blocks = model_blocks(checkpoint.model)
    if request.mode == "dense":
        return identity_plan(model_fingerprint(checkpoint.model), [block.width for block in blocks])
    options = request.score
    rule = family_of(checkpoint.model.config).rule
    anatomy = score_anatomy(checkpoint, probes, strong_threshold=options.strong_threshold, max_length=max_length)
    base = preset_setup(options.preset or f"{rule}-1", rule, len(blocks))
    setup = ThresholdSetup(
        alpha=base.alpha if options.alpha is None else options.alpha,
        beta=base.beta if options.beta is None else options.beta,
        focus=base.focus if options.focus is None else options.focus,
    )
    common: dict[str, Any] = {
        "rule": rule,
        "setup": setup,
        "probe_reduction": options.probe_reduction,
        "align": options.align,
    }
    if options.keep_ratio is None:
        return threshold_plan(anatomy, **common)
    return ratio_plan(anatomy, keep_ratio=options.keep_ratio, **common)


def _verification_texts(data: Dataset | None, probes: tuple[str, ...], count: int) -> tuple[str, ...]:
    return (data.train.texts[:count] if data else ()) or probes


def _prune(job: _Job) -> Checkpoint:
    model = job.checkpoint.model
    if job.request.mode == "slice":
        return Checkpoint(slice_neurons(model, job.plan), job.checkpoint.tokenizer)
    masked = copy.deepcopy(model)
    mask_neurons_(masked, job.plan)
    return Checkpoint(masked, job.checkpoint.tokenizer)


def _verify(job: _Job, pruned: Checkpoint, reloaded: Checkpoint, onnx: OnnxClassifier) -> VerifyReport:
    reference = copy.deepcopy(job.checkpoint.model)
    mask_neurons_(reference, job.plan)
    others = {
        "torch " + job.request.mode: torch_forward(pruned.model),
        "reloaded": torch_forward(reloaded.model),
        "onnx": onnx.run,
    }
    batches = verification_batches(pruned.tokenizer, job.texts, job.max_length)
    return VerifyReport(compare_all("torch masked", torch_forward(reference), others, batches))


def _accuracies(job: _Job, onnx: OnnxClassifier, dense_path: Path) -> tuple[float | None, float | None]:
    if job.data is None or job.source.random_weights or not job.request.compare_dense:
        return None, None
    examples = job.data.test.head(job.request.data.eval_examples)
    with job.progress.stage(f"accuracy on {len(examples)} test texts"):
        pruned = onnx.accuracy(examples)
        if job.request.mode == "dense":
            return pruned, pruned
        return OnnxClassifier(dense_path, job.checkpoint.tokenizer, job.max_length).accuracy(examples), pruned


def _metadata(job: _Job, pruned: Checkpoint) -> dict[str, str]:
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


def _write_bundle(
    job: _Job, pruned: Checkpoint, onnx: OnnxClassifier, report: VerifyReport, result: ExportResult, flops: FlopModel
) -> None:
    staging = job.staging
    for path in (staging / "checkpoint").iterdir():
        if path.name != "model.safetensors":
            shutil.copyfile(path, staging / path.name)
    if not job.request.with_checkpoint:
        shutil.rmtree(staging / "checkpoint")
    (staging / "plan.json").write_text(job.plan.to_json(), encoding="utf-8")
    (staging / "verify.json").write_text(report.to_json(), encoding="utf-8")
    texts = (*job.texts, *load_probes(None))[:REFERENCE_TEXTS]
    encoded = [pruned.tokenizer([text], truncation=True, max_length=job.max_length) for text in texts]
    logits = np.stack([onnx.run({name: np.array(values) for name, values in one.items()})[0] for one in encoded])
    config = pruned.model.config
    facts = BundleFacts(
        name=job.source.name,
        mode=job.request.mode,
        max_length=job.max_length,
        labels=tuple(str(config.id2label[index]) for index in range(config.num_labels)),
        tolerance=TOLERANCE,
        provenance={**_metadata(job, pruned), "model": job.source.provenance, "plan": job.plan.parameters},
        result=result.measures(),
        dense_flops=flops,
        planned_ffn_token=ffn_flops_token(job.plan.kept_widths, pruned.model.config.hidden_size),
        widths=tuple(job.plan.widths),
        kept_widths=tuple(job.plan.kept_widths),
        criterion=job.plan.criterion,
        reference_ids=tuple(tuple(one["input_ids"][0]) for one in encoded),
        reference_logits=logits,
    )
    write_manifest(staging, facts)


def _onnx_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("model.onnx*"))


def _parameters(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
