"""The last gate of an export: the staged bundle, run as its user will run it, in a process without torch."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
from rich.console import Console

from anatomy_export.bundle.manifest import CLASSIFY, BundleManifest, Reference, read_bundle_manifest
from anatomy_export.bundle.verify import verify_bundle
from anatomy_export.core.errors import VerifyError, first_line
from anatomy_export.core.progress import Progress
from anatomy_export.plan_files.model_identity import softmax

ABSENT = ("torch", "transformers")


def check_shipped(directory: Path) -> None:
    """Run `anatomy verify` on a bundle, and its classify.py on the reference texts, where there is no torch.

    Raises:
        VerifyError: a check failed; says which.
    """
    command = [sys.executable, "-m", __name__, str(directory)]
    environment = {**os.environ, "PYTHONUTF8": "1"}
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, check=False)
    try:
        failures = json.loads(done.stdout)
    except ValueError:
        failures = [(done.stderr.strip().splitlines() or ["no answer"])[-1]]
    if failures:
        raise VerifyError(f"the bundle fails where it is to run, without torch: {'; '.join(failures)}")


def shipped_failures(directory: Path) -> list[str]:
    """What a bundle fails in this process, a line each."""
    report = verify_bundle(directory, Progress(Console(quiet=True)))
    failures = [f"{check.name}: {check.detail}" for check in report.checks if check.passed is False]
    manifest = read_bundle_manifest(directory)
    try:
        classify = runpy.run_path(str(directory / CLASSIFY))["Classifier"](directory)
        texts = [reference for reference in manifest.references if reference.text is not None]
        failures += [why for reference in texts if (why := _difference(classify, reference, manifest))]
    except Exception as error:
        failures.append(f"{CLASSIFY}: {first_line(error)[:200]}")
    return failures


def _difference(classify, reference: Reference, manifest: BundleManifest) -> str | None:
    """How `classify` differs from the recorded logits of a text, None where it does not."""
    label, probability = classify(reference.text)
    expected = softmax(np.array(reference.logits))
    ranked = sorted(reference.logits)
    clear = len(ranked) > 1 and ranked[-1] - ranked[-2] > 2 * manifest.reference_tolerance
    right = manifest.labels[int(expected.argmax())]
    if abs(probability - expected.max()) <= manifest.reference_tolerance and (label == right or not clear):
        return None
    return (
        f"{CLASSIFY} says {label} {probability:.4f} of '{str(reference.text)[:40]}…', "
        f"recorded is {right} {expected.max():.4f}"
    )


if __name__ == "__main__":
    sys.modules.update(dict.fromkeys(ABSENT))  # type: ignore[arg-type]  # None: as if it were not installed
    print(json.dumps(shipped_failures(Path(sys.argv[1]))))
