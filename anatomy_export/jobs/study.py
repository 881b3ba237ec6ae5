"""The paper's experiment on any model: its presets and random removal, each masked, evaluated and perhaps timed."""

import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from msgspec import Meta, Struct

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.files import open_directory, sole_writer
from anatomy_export.core.names import public_name
from anatomy_export.core.progress import Progress
from anatomy_export.core.resumable import STUDY, ResultFile
from anatomy_export.core.version import __version__
from anatomy_export.data.data_options import DataOptions
from anatomy_export.data.loading import Examples
from anatomy_export.data.probes import choose_probes, load_probes
from anatomy_export.evaluation.metrics import compare_predictions, wilson_interval
from anatomy_export.evaluation.torch_classifier import EncodedTexts, encode_texts, encoded_probabilities
from anatomy_export.jobs.score import save_anatomy
from anatomy_export.jobs.source_data import load_model
from anatomy_export.models.checkpoint import Checkpoint, weights_identity
from anatomy_export.models.prune import mask_neurons_
from anatomy_export.models.supported_families import family_of
from anatomy_export.models.text_lengths import data_lengths
from anatomy_export.paper.anatomy import STRONG_THRESHOLD, Anatomy
from anatomy_export.paper.scoring import score_anatomy
from anatomy_export.paper.study_setups import PROBE_REDUCTION, StudySetup, describe_plan, kept_sha256, study_setups
from anatomy_export.plan_files.plan import PrunePlan, identity_plan


@dataclass(frozen=True)
class StudyRequest:
    """Everything that `anatomy study` was asked for; `removed` are shares of all neurons, gone at random."""

    model: str
    output: Path
    probes: str | None = None
    strong_threshold: float = STRONG_THRESHOLD
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    removed: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7)
    latency: bool = False
    backend: str = "torch"
    data: DataOptions = field(default_factory=DataOptions)


class MeasuredSetup(Struct, frozen=True):
    """What `study.json` holds of a setup that was evaluated."""

    accuracy: float
    agreement: float
    mean_abs_delta: float
    removed: float
    removed_share: float
    interval: tuple[float, float]
    removed_per_layer: list[int]
    right: Annotated[str, Meta(pattern=r"\A([0-9a-f]{2})*\Z")]
    kept_sha256: str
    seconds: dict | None


@dataclass(frozen=True)
class _Job:
    """What is the same for every setup. `labels`: (texts,)."""

    checkpoint: Checkpoint
    anatomy: Anatomy
    rule: str
    texts: Examples
    encoded: EncodedTexts
    labels: np.ndarray
    progress: Progress


def run_study(request: StudyRequest, progress: Progress) -> dict:
    """Evaluate every setup on test text and write `study.json` after each, so that an interrupted run goes on.

    `anatomy.json` and `anatomy.npz` lie beside it. Accuracies, intervals and shares are fractions; `right` is one bit a
    text, in order, packed into hexadecimal digits. Setups that keep the same neurons are evaluated once.

    Raises:
        AnatomyError: accuracy cannot be measured, the output is damaged, of another model or of other settings, or
            another run is at work on it.
    """
    with sole_writer(request.output):
        return _run_study(request, progress)


def _run_study(request: StudyRequest, progress: Progress) -> dict:
    given_probes = load_probes(request.probes)
    loaded = load_model(request.model, request.data, progress, trained_for="anatomy study")
    checkpoint, max_length, data = loaded.checkpoint, loaded.max_length, loaded.labelled_data("anatomy study")
    texts = data.test.head(request.data.eval_examples)
    data_lengths(checkpoint.tokenizer, (texts,), max_length, progress)
    probes = choose_probes(given_probes, loaded.classes, data)
    if probes.note:
        progress.note(probes.note)
    with progress.stage("score the anatomy"):
        anatomy = score_anatomy(
            checkpoint,
            probes.texts,
            strong_threshold=request.strong_threshold,
            max_length=max_length,
            cut_off=probes.cut_off,
        )
    settings = _settings(request, checkpoint, anatomy, data.fingerprint, max_length, len(texts))
    settings |= weights_identity(loaded.source.checkpoint, checkpoint.model)
    file = ResultFile(request.output / STUDY, "study", "setups", MeasuredSetup, free=("latency",))
    earlier = file.earlier(settings) or {}
    open_directory(request.output, empty=not earlier)
    save_anatomy(anatomy, checkpoint, request.output, request.model)
    job = _Job(
        checkpoint=checkpoint,
        anatomy=anatomy,
        rule=family_of(checkpoint.model.config).rule,
        texts=texts,
        encoded=encode_texts(checkpoint, texts.texts, max_length),
        labels=np.array(texts.labels),
        progress=progress,
    )
    body = _empty_body(settings, earlier)
    for _ in _steps(job, request, body):
        file.write(body)
    body["partial"] = False
    file.write(body)
    return body


def _settings(
    request: StudyRequest, checkpoint: Checkpoint, anatomy: Anatomy, data: str, max_length: int, examples: int
) -> dict:
    """What two runs must share for their results to stand in one file."""
    family = family_of(checkpoint.model.config)
    return {
        "version": __version__,
        "model": public_name(request.model),
        "family": family.model_type,
        "rule": family.rule,
        "fingerprint": anatomy.fingerprint,
        "data": data,
        "max_length": max_length,
        "examples": examples,
        "strong_threshold": request.strong_threshold,
        "probes": hashlib.sha256("\n".join(anatomy.probes).encode()).hexdigest(),
        "probe_reduction": PROBE_REDUCTION,
        "align": 1,
        "seeds": list(request.seeds),
        "removed": list(request.removed),
        "backend": request.backend,
        "latency": request.latency,
    }


def _empty_body(settings: dict, earlier: dict) -> dict:
    """The file's content before this run adds to it: all of an earlier run's entries."""
    from anatomy_export.bench.environment import describe_environment

    before = earlier.get("settings", {})
    return {
        "format_version": 1,
        "kind": "study",
        "partial": True,
        "settings": {**settings, "latency": settings["latency"] or before.get("latency", False)},
        "environment": describe_environment(torch.get_num_threads()),
        "dense": earlier.get("dense"),
        "setups": dict(earlier.get("setups", {})),
    }


def _steps(job: _Job, request: StudyRequest, body: dict) -> Iterator[None]:
    """Fill in `body`, one setup after the other; it yields whenever there is something new to keep."""
    setups = study_setups(job.rule, request.seeds, request.removed)
    yield from _evaluate(job, setups, body)
    if request.latency:
        yield from _time(job, setups, request.backend, body)


def _evaluate(job: _Job, setups: list[StudySetup], body: dict) -> Iterator[None]:
    todo = [setup for setup in setups if setup.name not in body["setups"]]
    if not todo and body["dense"]:
        return
    with job.progress.stage(f"dense model on {len(job.texts)} texts"):
        dense = encoded_probabilities(job.checkpoint.model, job.encoded)
    unpruned = _outcome(dense, dense, job.labels)
    body["dense"] = {**(body["dense"] or {}), **{name: unpruned[name] for name in ("accuracy", "interval", "right")}}
    body["dense"]["examples"] = len(job.texts)
    seen = {kept_sha256(identity_plan(job.anatomy.fingerprint, job.anatomy.widths)): unpruned}
    for entry in body["setups"].values():
        if "refused" not in entry:
            seen[entry["kept_sha256"]] = {name: entry[name] for name in unpruned}
    yield
    with job.progress.bar("evaluate setups", len(todo)) as tick:
        for setup in todo:
            body["setups"][setup.name] = _entry(job, setup, dense, seen)
            yield
            tick()


def _entry(job: _Job, setup: StudySetup, dense: np.ndarray, seen: dict[str, dict]) -> dict:
    """One setup's entry; `seen` holds the outcome of every set of kept neurons so far."""
    described = setup.describe(job.rule, job.anatomy.num_layers)
    try:
        plan = setup.plan(job.anatomy, job.rule)
    except AnatomyError as error:
        return {**described, "refused": str(error)}
    kept = kept_sha256(plan)
    if kept not in seen:
        masked = encoded_probabilities(_masked(job.checkpoint.model, plan), job.encoded)
        seen[kept] = _outcome(dense, masked, job.labels)
    return {**described, **describe_plan(plan), **seen[kept], "seconds": None}


def _masked(model, plan: PrunePlan):
    masked = copy.deepcopy(model)
    mask_neurons_(masked, plan)
    return masked


def _outcome(dense: np.ndarray, masked: np.ndarray, labels: np.ndarray) -> dict:
    compared = compare_predictions(dense, masked, labels)
    right = masked.argmax(1) == labels
    return {
        "accuracy": compared["accuracy"],
        "interval": list(wilson_interval(int(right.sum()), len(right))),
        "agreement": compared["agreement"],
        "mean_abs_delta": compared["probability_change"],
        "right": np.packbits(right).tobytes().hex(),
    }


def _time(job: _Job, setups: list[StudySetup], backend: str, body: dict) -> Iterator[None]:
    """Time the presets and, at each fixed share, the first random seed: which neurons are masked costs no time."""
    from anatomy_export.bench.masked_seconds import DENSE, time_masked

    first: dict[float | None, StudySetup] = {}
    for setup in setups:
        if setup.share is not None:
            first.setdefault(setup.share, setup)
    wanted = [setup for setup in setups if setup.preset] + list(first.values())
    entries = body["setups"]
    todo = [setup for setup in wanted if entries[setup.name].get("seconds", "refused") is None]
    plans = {setup.name: setup.plan(job.anatomy, job.rule) for setup in todo}
    for timed in time_masked(job.checkpoint, plans, job.texts.texts, backend=backend, progress=job.progress):
        for name, seconds in timed.items():
            if name != DENSE:
                entries[name]["seconds"] = seconds
            elif "seconds" not in body["dense"]:
                body["dense"]["seconds"] = seconds
        yield
