"""The directory that ships: its manifest, its files, its model card."""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from anatomy_export.bundle.card import model_card
from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.files import MANIFEST, sha256_file
from anatomy_export.evaluation.tolerance import REFERENCE_TOLERANCE, scaled_tolerance
from anatomy_export.models.flops import FlopModel

FORMAT_VERSION = 1
CLASSIFY = "classify.py"


@dataclass(frozen=True)
class BundleFacts:
    """What the manifest and the model card say beside the files' checksums.

    `reference_logits: (texts, classes)` are those of the file that ships. `conversion` tells how it came from the fp32
    file; None where it is that.
    """

    name: str
    mode: str
    max_length: int
    truncation_side: str
    flops_tokens: int
    labels: tuple[str, ...]
    tolerance: float
    provenance: dict
    result: dict
    dense_flops: FlopModel
    planned_ffn_token: int
    widths: tuple[int, ...]
    kept_widths: tuple[int, ...]
    criterion: str
    reference_texts: tuple[str, ...]
    reference_ids: tuple[tuple[int, ...], ...]
    reference_logits: np.ndarray
    precision: str = "fp32"
    conversion: dict | None = None
    source_card: dict = field(default_factory=dict)


def read_manifest(directory: Path) -> dict:
    """The manifest of a bundle.

    Raises:
        AnatomyError: there is none, it is damaged, or its format version is unknown.
    """
    file = Path(directory) / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        found = manifest["format_version"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AnatomyError(
            f"{file}: no readable bundle manifest ({type(error).__name__}); next step: export the bundle again"
        ) from error
    if found != FORMAT_VERSION:
        raise AnatomyError(
            f"{file}: format version {found!r}, expected {FORMAT_VERSION}; next step: export the bundle again"
        )
    return manifest


def manifest_checksum(manifest: dict) -> str:
    """SHA-256 over a manifest without its own checksum, in one canonical form."""
    body = {name: value for name, value in manifest.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_manifest(directory: Path, facts: BundleFacts) -> None:
    """Write `README.md` and `classify.py`, then `bundle.json` with the SHA-256 of every file in `directory`."""
    (directory / "README.md").write_text(model_card(facts), encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name(CLASSIFY), directory / CLASSIFY)
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST)
    manifest = {
        "format_version": FORMAT_VERSION,
        "name": facts.name,
        "mode": facts.mode,
        "precision": facts.precision,
        "conversion": facts.conversion,
        "max_length": facts.max_length,
        "truncation_side": facts.truncation_side,
        "labels": list(facts.labels),
        "tolerance": facts.tolerance,
        "reference_tolerance": scaled_tolerance(facts.reference_logits, REFERENCE_TOLERANCE[facts.precision]),
        "provenance": facts.provenance,
        "result": facts.result,
        "flops": {
            "dense": asdict(facts.dense_flops),
            "planned_ffn_token": facts.planned_ffn_token,
            "tokens": facts.flops_tokens,
        },
        "files": {path.relative_to(directory).as_posix(): sha256_file(path) for path in files},
        "references": [
            {"text": text, "input_ids": list(ids), "logits": [float(value) for value in row]}
            for text, ids, row in zip(facts.reference_texts, facts.reference_ids, facts.reference_logits, strict=True)
        ],
    }
    manifest["checksum"] = manifest_checksum(manifest)
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
