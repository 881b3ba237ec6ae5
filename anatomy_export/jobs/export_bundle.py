"""The files of a bundle, written once everything that was made is verified."""

import shutil

import numpy as np

from anatomy_export.bundle.card import source_card
from anatomy_export.bundle.manifest import BundleFacts, write_manifest
from anatomy_export.core.names import public_name
from anatomy_export.evaluation.comparison import VerifyReport
from anatomy_export.evaluation.onnx_classifier import OnnxClassifier
from anatomy_export.evaluation.tolerance import TOLERANCE
from anatomy_export.jobs.export_job import ExportJob
from anatomy_export.jobs.export_request import ExportResult
from anatomy_export.jobs.verification_texts import reference_texts
from anatomy_export.models.checkpoint import Checkpoint, weights_identity
from anatomy_export.models.fingerprint import model_fingerprint
from anatomy_export.models.flops import count_flops, ffn_flops_token
from anatomy_export.models.supported_families import model_blocks


def graph_metadata(job: ExportJob, pruned: Checkpoint) -> dict[str, str]:
    """What `model.onnx` itself says of where it comes from."""
    return {
        "anatomy.mode": job.request.mode,
        "anatomy.plan_sha256": job.plan.sha256,
        "anatomy.source_fingerprint": job.plan.fingerprint,
        "anatomy.fingerprint": model_fingerprint(pruned.model),
        "anatomy.widths": ",".join(str(block.width) for block in model_blocks(pruned.model)),
        "anatomy.criterion": job.plan.criterion,
        "anatomy.source": str(job.source.provenance["source"]),
        "anatomy.tolerance": repr(TOLERANCE),
    }


def write_bundle(
    job: ExportJob, onnx: OnnxClassifier, report: VerifyReport, result: ExportResult, metadata: dict[str, str]
) -> None:
    """Put plan, report, tokenizer and manifest beside the graph that ships, `onnx`."""
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
    config = job.checkpoint.model.config
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


def _provenance(job: ExportJob, metadata: dict[str, str]) -> dict:
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


def _references(
    job: ExportJob, onnx: OnnxClassifier
) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...], np.ndarray]:
    """Twelve texts, their token ids, and the logits (texts, classes) that the file that ships gives for each alone."""
    texts, encoded = reference_texts(job.checkpoint.tokenizer, job.max_length), job.inputs.alone
    logits = np.stack([onnx.run(inputs)[0] for inputs in encoded])
    return texts, tuple(tuple(map(int, inputs["input_ids"][0])) for inputs in encoded), logits
