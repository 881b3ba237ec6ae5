"""What a measurement leaves: the body of `bench.json`, from settings, machine, samples and rows."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from anatomy_export.bench.contestants import roofline
from anatomy_export.bench.measure import Measured
from anatomy_export.bench.random_inputs import SEED
from anatomy_export.bench.results import FORMAT_VERSION, BenchResult
from anatomy_export.bench.rows import Row
from anatomy_export.core.names import public_name, without_directories
from anatomy_export.evaluation.classifier_inputs import Inputs


def settings_of(request, **more) -> dict:
    """The request as plain values for a results file, with the precision and the seed of inputs and orders, and `more`.

    Of paths and of the model only the public names are kept.
    """
    values = {name: public_name(value) if isinstance(value, Path) else value for name, value in asdict(request).items()}
    return {**values, "model": public_name(request.model), "precision": "fp32", "seed": SEED, **more}


def bench_result(
    kind: str,
    settings: dict,
    environment: dict,
    inputs: dict[str, Inputs],
    measured: Measured,
    rows: Sequence[Row | None],
    **more,
) -> BenchResult:
    """All that a results file says; `environment` as it was before the first call, `more` is what only this kind has.

    Raises:
        AnatomyError: there is no row.
    """
    samples = measured.samples
    body = {
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "partial": measured.interrupted is not None,
        "settings": settings,
        "environment": environment,
        "inputs_sha256": inputs_sha256(inputs),
        "roofline": roofline(measured),
        "failures": [
            {"worker": name, "reason": without_directories(reason)} for name, reason in samples.failures.items()
        ],
        "unstable": [{"worker": name, "input": key} for name, key in sorted(samples.unstable)],
        "never_quiet": samples.never_quiet,
        "orders": samples.orders,
        "launches": samples.launches,
        **more,
        "results": [row.values() for row in rows if row],
    }
    if not body["results"]:
        raise samples.nothing_left()
    return BenchResult(body, measured.interrupted)


def inputs_sha256(inputs: dict[str, Inputs]) -> str:
    """SHA-256 over the input arrays: key, name, shape and values."""
    digest = hashlib.sha256()
    for key in sorted(inputs):
        for name in sorted(inputs[key]):
            array = inputs[key][name]
            digest.update(f"{key}/{name} {array.shape} {array.dtype}\n".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()
