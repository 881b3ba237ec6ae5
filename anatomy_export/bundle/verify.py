"""`anatomy verify`: does a bundle still do, on this machine, what it did where it was made? Without torch."""

import hashlib
import statistics
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx

from anatomy_export.bundle.files import check_files, inside
from anatomy_export.bundle.manifest import BundleManifest, read_bundle_manifest
from anatomy_export.core.errors import AnatomyError, MissingExtraError, VerifyError, first_line
from anatomy_export.core.names import first_names
from anatomy_export.core.platform import cpu_flags, cpu_model
from anatomy_export.core.platform import machine as this_machine
from anatomy_export.core.progress import Progress
from anatomy_export.core.target_cpu import saturates
from anatomy_export.evaluation.classifier_inputs import unpadded_inputs
from anatomy_export.evaluation.onnx_session import OnnxSession, runtime_reason
from anatomy_export.plan_files.plan import read_plan

WARM_UPS = 3
TIMED_RUNS = 20
TIMED_TOKENS = 256
MOST_NAMED = 5
BUNDLE_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Check:
    """One check: what was looked at, and what came out. `passed` None where there was nothing to check."""

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True)
class BundleReport:
    """All checks of a bundle on this machine. `median_s` is of `TIMED_RUNS` calls with one text of `tokens` tokens."""

    bundle: str
    mode: str
    precision: str
    checks: tuple[Check, ...]
    left_over: tuple[str, ...]
    max_abs_error: float | None
    tolerance: float
    median_s: float | None
    tokens: int
    onnxruntime: str
    cpu: str

    @property
    def passed(self) -> bool:
        """Did no check fail?"""
        return all(check.passed is not False for check in self.checks)

    def as_dict(self) -> dict:
        """The object that `--json` prints; JSON has no infinity, so `max_abs_error` is then None."""
        error = self.max_abs_error
        finite = error if error is not None and np.isfinite(error) else None
        return {"passed": self.passed, **asdict(self), "max_abs_error": finite}

    def raise_for_failures(self) -> None:
        """Raise VerifyError that lists every check that failed."""
        failed = [f"{check.name}: {check.detail}" for check in self.checks if check.passed is False]
        if failed:
            raise VerifyError(
                f"bundle {self.bundle}: {len(failed)} of {len(self.checks)} checks failed: {'; '.join(failed)}"
            )


def verify_bundle(
    directory: Path, progress: Progress, *, flags: Collection[str] | None = None, machine: str | None = None
) -> BundleReport:
    """Check every file, the plan, the reference texts' ids and logits, and take the time of a call.

    Where a file is missing, altered, or outside, nothing else is computed. `flags` and `machine` are the CPU's, None
    for this one's.

    Raises:
        AnatomyError: the manifest is damaged.
        MissingExtraError: onnxruntime or tokenizers is not installed.
    """
    onnxruntime, tokenizers = _libraries()
    with progress.stage("check files"):
        manifest = read_bundle_manifest(directory)
        files, left_over = _check_all_files(directory, manifest)
    checks = [files, _left(left_over)]
    if not files.passed:
        return _report(directory, manifest, checks[:1], left_over, onnxruntime)
    checks.append(_guarded("plan", lambda: _check_plan(directory, manifest)))
    checks.append(_guarded("tokenizer", lambda: _check_tokenizer(directory, manifest, tokenizers)))
    if manifest.precision == "int8":
        flags = cpu_flags() if flags is None else flags
        checks.append(_check_int8_weights(manifest, flags, this_machine() if machine is None else machine))
    error = median_s = None
    with progress.stage("run the reference texts"):
        for name in [name for name in ("model.onnx", "model.ort") if name in manifest.files]:
            try:
                session = OnnxSession(directory / name)
                file_error = _reference_error(session, manifest)
                error = file_error if error is None else max(file_error, error)
                checks.append(_logits_check(name, file_error, manifest))
                median_s = _median_s(session, _timed(manifest)) if name == "model.onnx" else median_s
            except Exception as failure:
                checks.append(Check(name, False, f"ONNX Runtime failed ({runtime_reason(failure)})"))
    return _report(directory, manifest, checks, left_over, onnxruntime, error, median_s)


def _report(
    directory: Path, manifest: BundleManifest, checks, left_over, onnxruntime, error=None, median_s=None
) -> BundleReport:
    return BundleReport(
        bundle=str(directory),
        mode=manifest.mode,
        precision=manifest.precision,
        checks=tuple(checks),
        left_over=tuple(left_over),
        max_abs_error=error,
        tolerance=manifest.reference_tolerance,
        median_s=median_s,
        tokens=len(_timed(manifest)),
        onnxruntime=onnxruntime.__version__,
        cpu=cpu_model(),
    )


def _timed(manifest: BundleManifest) -> tuple[int, ...]:
    """Token ids of the longest reference text of at most `TIMED_TOKENS`, else of the shortest."""
    lengths = sorted((reference.input_ids for reference in manifest.references), key=len)
    return max((ids for ids in lengths if len(ids) <= TIMED_TOKENS), key=len, default=lengths[0])


def _check_all_files(directory: Path, manifest: BundleManifest) -> tuple[Check, list[str]]:
    try:
        left_over = check_files(directory, manifest.files)
    except AnatomyError as error:
        return Check("files", False, str(error)), []
    return Check("files", True, f"{len(manifest.files)} have the SHA-256 that the manifest says"), left_over


def _libraries():
    try:
        import onnxruntime
        import tokenizers
    except ImportError as error:
        raise MissingExtraError(str(error.name), "edge") from error
    return onnxruntime, tokenizers


def _guarded(name: str, check) -> Check:
    try:
        return check()
    except AnatomyError as error:
        return Check(name, False, str(error))


def _left(left_over: list[str]) -> Check:
    if not left_over:
        return Check("left over", True, "no file that the manifest does not name")
    named = first_names(list(map(repr, left_over)), MOST_NAMED, counted=True)
    return Check("left over", None, f"not named in the manifest, not checked: {named}")


def _check_plan(directory: Path, manifest: BundleManifest) -> Check:
    plan = read_plan(inside(directory, "plan.json"))
    named = manifest.provenance.plan_sha256
    if plan.sha256 != named:
        return Check("plan", False, f"SHA-256 {plan.sha256[:12]}… is not the manifest's {named[:12]}…")
    model = onnx.load(inside(directory, "model.onnx"), load_external_data=False)
    recorded = {entry.key: entry.value for entry in model.metadata_props}
    expected = {"anatomy.plan_sha256": plan.sha256, "anatomy.source_fingerprint": plan.fingerprint}
    for key, value in expected.items():
        if recorded.get(key) != value:
            return Check(
                "plan", False, f"model.onnx records {key} {str(recorded.get(key))[:12]}…, expected {value[:12]}…"
            )
    kept = f"{sum(plan.kept_widths):,} of {sum(plan.widths):,} neurons kept"
    if plan.repair is None:
        return Check("plan", True, kept)
    name, digest = str(plan.repair.get("file")), plan.repair.get("sha256")
    if manifest.files.get(name) != digest or hashlib.sha256(inside(directory, name).read_bytes()).hexdigest() != digest:
        return Check("plan", False, f"repaired weights {name!r} are not those that the plan was made with")
    return Check("plan", True, f"{kept}, repaired weights are the plan's")


def _check_tokenizer(directory: Path, manifest: BundleManifest, tokenizers) -> Check:
    """Does the tokenizer in the bundle give the ids that are recorded?"""
    references = [reference for reference in manifest.references if reference.text is not None]
    if not references or "tokenizer.json" not in manifest.files:
        return Check("tokenizer", None, "no tokenizer.json" if references else "the reference texts are not recorded")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(inside(directory, "tokenizer.json")))
        tokenizer.no_padding()
        tokenizer.enable_truncation(manifest.max_length, direction=manifest.truncation_side)
        wrong = sum(tuple(tokenizer.encode(reference.text).ids) != reference.input_ids for reference in references)
    except Exception as error:
        return Check("tokenizer", False, f"tokenizer.json cannot be used ({first_line(error)[:200]})")
    if wrong:
        return Check(
            "tokenizer", False, f"other token ids than recorded for {wrong} of {len(references)} reference texts"
        )
    return Check("tokenizer", True, f"the recorded token ids for {len(references)} reference texts")


def _check_int8_weights(manifest: BundleManifest, flags: Collection[str], machine: str) -> Check:
    """Are int8 weights of as many bits as this CPU computes right?"""
    name = "int8 weights"
    if manifest.reduce_range is None:
        return Check(name, None, "the manifest does not say of how many bits")
    if manifest.reduce_range:
        return Check(name, True, "7 bits, which every CPU computes right")
    wrong = saturates(flags, machine)
    if wrong is None:
        return Check(name, None, "8 bits, which x86 without VNNI does not compute right; this CPU's flags are unknown")
    if wrong:
        return Check(
            name,
            False,
            "8 bits, whose sums saturate on this CPU, x86 without VNNI; next step: export again with "
            "--target-cpu portable",
        )
    return Check(name, True, "8 bits, which this CPU computes right")


def _logits_check(name: str, error: float, manifest: BundleManifest) -> Check:
    tolerance = manifest.reference_tolerance
    judged = f"max abs error {error:.1e} on {len(manifest.references)} reference texts, tolerance {tolerance:.1e}"
    return Check(name, bool(error <= tolerance), judged)


def _reference_error(session: OnnxSession, manifest: BundleManifest) -> float:
    """The largest difference from a recorded logit; infinity where one is not finite or has none to match."""
    error = 0.0
    for reference in manifest.references:
        [logits] = _logits(session, reference.input_ids)
        if logits.shape != (len(reference.logits),) or not np.isfinite(logits).all():
            return float("inf")
        error = max(error, float(np.abs(logits - np.array(reference.logits)).max()))
    return error


def _logits(session: OnnxSession, input_ids: Sequence[int]) -> np.ndarray:
    """Logits (1, classes), by the names of output and inputs that every bundle has and `classify.py` asks for."""
    inputs = {name: values for name, values in unpadded_inputs(input_ids).items() if name in BUNDLE_INPUTS}
    return session.run(["logits"], inputs)[0]


def _median_s(session: OnnxSession, input_ids: tuple[int, ...]) -> float:
    """Median seconds of a call with one text, after warm-ups."""
    taken = []
    for _ in range(WARM_UPS + TIMED_RUNS):
        start = time.perf_counter()
        _logits(session, input_ids)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[WARM_UPS:])
