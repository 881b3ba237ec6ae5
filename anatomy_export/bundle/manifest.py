"""`bundle.json`: what a bundle holds, which model it is, and what it gave for the reference texts; written and read."""

import json
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from anatomy_export.bundle.card import model_card
from anatomy_export.bundle.facts import BundleFacts
from anatomy_export.bundle.files import inside
from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.files import MANIFEST, sha256_file
from anatomy_export.core.json_files import JsonFile, checksum, shortened
from anatomy_export.evaluation.tolerance import REFERENCE_TOLERANCE, scaled_tolerance

FORMAT_VERSION = 1
CLASSIFY = "classify.py"
REQUIRED = ("model.onnx", "plan.json")
MOST_MANIFEST_BYTES = 2**24
MOST_REFERENCES = 1000
MOST_TOKENS = 2**16
MOST_CLASSES = 2**16
MOST_LOGIT = 1e30
AGAIN = "export the bundle again"

Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
TokenId = Annotated[int, Meta(ge=0, lt=2**31)]
Logit = Annotated[float, Meta(gt=-MOST_LOGIT, lt=MOST_LOGIT)]


class Provenance(Struct, frozen=True, rename={"plan_sha256": "anatomy.plan_sha256"}):
    """Of what a bundle was made from, the plan."""

    plan_sha256: Digest


class Conversion(Struct, frozen=True):
    """Of how int8 weights were made: have they 7 bits? None where the manifest does not say."""

    reduce_range: bool | None = None


@dataclass(frozen=True)
class Reference:
    """A text (None where it was not recorded), its token ids, and the logits that the file gave when it was made."""

    input_ids: Annotated[tuple[TokenId, ...], Meta(min_length=1)]
    logits: tuple[Logit, ...]
    text: str | None = None


@dataclass(frozen=True)
class BundleManifest:
    """Of `bundle.json`, what a check needs, each value of the kind and size that it must be."""

    mode: Annotated[str, Meta(min_length=1)]
    precision: Literal["fp32", "fp16", "int8"]
    max_length: Annotated[int, Meta(ge=1, le=MOST_TOKENS)]
    labels: Annotated[tuple[str, ...], Meta(min_length=1, max_length=MOST_CLASSES)]
    reference_tolerance: Annotated[float, Meta(gt=0, le=sys.float_info.max)]
    provenance: Provenance
    files: dict[str, Digest]
    references: Annotated[tuple[Reference, ...], Meta(min_length=1, max_length=MOST_REFERENCES)]
    truncation_side: Literal["right", "left"] = "right"
    conversion: Conversion | None = None

    @property
    def reduce_range(self) -> bool | None:
        """Have int8 weights 7 bits? None where the file is not int8, or the manifest does not say."""
        return self.conversion.reduce_range if self.precision == "int8" and self.conversion else None

    def __post_init__(self) -> None:
        if not set(REQUIRED) <= set(self.files):
            raise ValueError(f"files is {shortened(self.files)}, expected {', '.join(REQUIRED)} and others")
        for reference in self.references:
            ids, logits, classes = list(reference.input_ids), list(reference.logits), len(self.labels)
            if len(ids) > self.max_length:
                raise ValueError(f"input_ids is {shortened(ids)}, expected 1 to {self.max_length} token ids")
            if len(logits) != classes:
                raise ValueError(f"logits is {shortened(logits)}, expected {classes} numbers")


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a bundle as it stands there.

    Raises:
        AnatomyError: there is none, it is damaged, or its format version is unknown.
    """
    return JsonFile(Path(directory) / MANIFEST, AGAIN).read_object(format_version=FORMAT_VERSION)


def read_bundle_manifest(directory: Path) -> BundleManifest:
    """Read and check a bundle's manifest.

    Raises:
        AnatomyError: there is none, or it is damaged, altered, of another version, or has a value of the wrong kind.
    """
    if not directory.is_dir():
        raise AnatomyError(f"bundle {directory}: no such directory; next step: check the path")
    file = JsonFile(inside(directory, MANIFEST), AGAIN, title=str(directory / MANIFEST))
    size = file.path.stat().st_size
    if size > MOST_MANIFEST_BYTES:
        raise file.error(f"{size:,} bytes, expected at most {MOST_MANIFEST_BYTES:,}")
    body = file.read_object(format_version=FORMAT_VERSION)
    file.check_seal(body)
    return file.convert(body, BundleManifest)


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
    manifest["checksum"] = checksum(manifest)
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
