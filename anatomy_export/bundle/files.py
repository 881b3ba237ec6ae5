"""Are a bundle's files those that its manifest names? Nothing outside the directory is read to find out."""

import json
import math
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import onnx

from anatomy_export.bundle.manifest import FORMAT_VERSION, manifest_checksum
from anatomy_export.core.errors import AnatomyError, VerifyError
from anatomy_export.core.files import MANIFEST, sha256_file
from anatomy_export.core.onnx_tensors import external_locations
from anatomy_export.evaluation.tolerance import REFERENCE_TOLERANCE

TRUNCATION_SIDES = ("right", "left")
REQUIRED = ("model.onnx", "plan.json")
MOST_MANIFEST_BYTES = 2**24
MOST_REFERENCES = 1000
MOST_TOKENS = 2**16
MOST_CLASSES = 2**16
MOST_LOGIT = 1e30
MOST_NAMED = 10
AGAIN = "next step: export the bundle again"
SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """A text (None where it was not recorded), its token ids, and the logits that the file gave when it was made."""

    text: str | None
    input_ids: tuple[int, ...]
    logits: tuple[float, ...]


@dataclass(frozen=True)
class BundleManifest:
    """Of `bundle.json`, what a check needs, each value of the kind and size that it must be.

    `reduce_range`: have int8 weights 7 bits? None where the file is not int8, or the manifest does not say.
    """

    mode: str
    precision: str
    max_length: int
    truncation_side: str
    labels: tuple[str, ...]
    tolerance: float
    plan_sha256: str
    files: dict[str, str]
    references: tuple[Reference, ...]
    reduce_range: bool | None = None


def read_bundle_manifest(directory: Path) -> BundleManifest:
    """Read and check a bundle's manifest.

    Raises:
        AnatomyError: there is none, or it is damaged, altered, of another version, or has a value of the wrong kind.
    """
    file = directory / MANIFEST
    if not directory.is_dir():
        raise AnatomyError(f"bundle {directory}: no such directory; next step: check the path")
    path = inside(directory, MANIFEST)
    if path.stat().st_size > MOST_MANIFEST_BYTES:
        raise AnatomyError(f"{file}: {path.stat().st_size:,} bytes, expected at most {MOST_MANIFEST_BYTES:,}")
    try:
        body = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
        checksum = manifest_checksum(body) if isinstance(body, dict) else None
    except (OSError, ValueError, RecursionError) as error:
        raise AnatomyError(f"{file}: not valid JSON ({str(error)[:200]}); {AGAIN}") from error
    if not isinstance(body, dict):
        raise AnatomyError(f"{file}: not a bundle manifest, expected an object; {AGAIN}")
    if body.get("format_version") != FORMAT_VERSION or type(body["format_version"]) is not int:
        raise AnatomyError(
            f"{file}: format version {_short(body.get('format_version'))}, expected {FORMAT_VERSION}; {AGAIN}"
        )
    if body.get("checksum") != checksum:
        raise AnatomyError(
            f"{file}: checksum {_short(body.get('checksum'))} is not that of its content; it was altered, or "
            f"an earlier release wrote it; {AGAIN}"
        )
    try:
        return _from_body(body)
    except (KeyError, TypeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise AnatomyError(f"{file}: {what[:300]}; {AGAIN}") from error


def _from_body(body: dict) -> BundleManifest:
    labels = _checked(body, "labels", list, lambda value: 1 <= len(value) <= MOST_CLASSES, "a list of names")
    max_length = _checked(body, "max_length", int, lambda value: 1 <= value <= MOST_TOKENS, f"1 to {MOST_TOKENS}")
    files = _checked(
        body, "files", dict, lambda value: set(REQUIRED) <= set(value), f"{', '.join(REQUIRED)} and others"
    )
    for name, digest in files.items():
        if not isinstance(digest, str) or not SHA256.fullmatch(digest):
            raise ValueError(f"the checksum of {_short(name)} is {_short(digest)}, expected 64 hexadecimal digits")
    references = _checked(body, "references", list, lambda value: 1 <= len(value) <= MOST_REFERENCES, "1 to 1000 texts")
    provenance = _checked(body, "provenance", dict, bool, "what the bundle was made from")
    precisions = ", ".join(REFERENCE_TOLERANCE)
    precision = _checked(body, "precision", str, lambda value: value in REFERENCE_TOLERANCE, f"one of {precisions}")
    conversion = body.get("conversion") if precision == "int8" else None
    reduce_range = conversion.get("reduce_range") if isinstance(conversion, dict) else None
    return BundleManifest(
        mode=_checked(body, "mode", str, bool, "slice, mask or dense"),
        precision=precision,
        max_length=max_length,
        truncation_side=_checked(
            {"truncation_side": "right", **body}, "truncation_side", str, TRUNCATION_SIDES.__contains__, "right or left"
        ),
        labels=tuple(_checked({"label": label}, "label", str, lambda value: True, "a name") for label in labels),
        tolerance=_checked(body, "reference_tolerance", float, lambda value: 0 < value < math.inf, "a number above 0"),
        plan_sha256=_checked(provenance, "anatomy.plan_sha256", str, SHA256.fullmatch, "64 hexadecimal digits"),
        files=files,
        references=tuple(_reference(one, max_length, len(labels)) for one in references),
        reduce_range=reduce_range if isinstance(reduce_range, bool) else None,
    )


def _reference(one: object, max_length: int, classes: int) -> Reference:
    if not isinstance(one, dict):
        raise ValueError(f"a reference is {_short(one)}, expected an object")
    text = one.get("text")
    if text is not None and not isinstance(text, str):
        raise ValueError(f"a reference's text is {_short(text)}, expected text")
    ids = _checked(one, "input_ids", list, lambda value: 1 <= len(value) <= max_length, f"1 to {max_length} token ids")
    logits = _checked(one, "logits", list, lambda value: len(value) == classes, f"{classes} numbers")
    if not all(type(value) is int and 0 <= value < 2**31 for value in ids):
        raise ValueError("a reference's token ids are not all whole numbers from 0")
    if not all(type(value) in (int, float) and -MOST_LOGIT < value < MOST_LOGIT for value in logits):
        raise ValueError("a reference's logits are not all finite numbers")
    return Reference(text, tuple(ids), tuple(map(float, logits)))


def _checked(body: dict, name: str, kind: type, fits, expected: str):
    value = body[name]
    if type(value) is not kind or not fits(value):
        raise ValueError(f"{name} is {_short(value)}, expected {expected}")
    return value


def _no_constant(name: str):
    raise ValueError(f"{name} is no JSON number")


def _short(value: object) -> str:
    if isinstance(value, list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return repr(value[:60]) if isinstance(value, str) else repr(value)[:80]


def inside(directory: Path, name: str) -> Path:
    """The path of a bundle's file; links are followed only to files that lie in the directory too.

    Raises:
        AnatomyError: the name is no plain relative path, or what it names is missing, outside, or no regular file.
    """
    parts = PurePosixPath(name).parts
    plain = name and not name.startswith("/") and ".." not in parts and not re.search(r"[\\\0]|^[A-Za-z]:", name)
    if not plain or str(PurePosixPath(name)) != name:
        raise AnatomyError(f"bundle {directory}: file name {_short(name)} is no plain path inside the directory")
    try:
        root, path = directory.resolve(), (directory / name).resolve()
        if not path.is_relative_to(root):
            raise AnatomyError(
                f"bundle {directory}: {_short(name)} leads out of the directory, to {path}, which is not read; next "
                "step: copy the bundle with what its links point to (cp -rL)"
            )
        if not stat.S_ISREG(path.stat().st_mode):
            raise AnatomyError(f"bundle {directory}: {_short(name)} is no regular file")
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AnatomyError(
            f"bundle {directory}: {_short(name)}: {reason}; next step: export the bundle again"
        ) from error
    return path


def check_files(directory: Path, files: dict[str, str]) -> list[str]:
    """Check every file of the manifest against its SHA-256, and where the model's external weights lie.

    Returns:
        The files of the directory that the manifest does not name.

    Raises:
        VerifyError: a file is missing, outside, or altered; all that are get named.
    """
    wrong = []
    for name, digest in files.items():
        try:
            path = inside(directory, name)
        except AnatomyError as error:
            wrong.append(str(error))
            continue
        found = sha256_file(path)
        if found != digest:
            wrong.append(f"{name}: SHA-256 is {found[:12]}…, the manifest says {digest[:12]}…")
    if not wrong:
        wrong = _strange_external_data(directory, files)
    if wrong:
        more = f"; and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
        raise VerifyError(
            f"{len(wrong)} of {len(files)} files are not as they were: {'; '.join(wrong[:MOST_NAMED])}{more}; "
            "next step: copy the bundle again, or export it again"
        )
    return _left_over(directory, files)


def _left_over(directory: Path, files: dict[str, str]) -> list[str]:
    found = []
    for folder, below, names in os.walk(directory):
        links = [name for name in below if os.path.islink(os.path.join(folder, name))]
        found += [os.path.relpath(os.path.join(folder, name), directory) for name in (*names, *links)]
    return sorted(set(map(os.fsdecode, found)) - {MANIFEST, *files})


def _strange_external_data(directory: Path, files: dict[str, str]) -> list[str]:
    """External weights that the manifest does not name; what it names has been checked."""
    wrong = []
    for name in (name for name in files if name.endswith(".onnx")):
        try:
            model = onnx.load(directory / name, load_external_data=False)
        except Exception as error:
            wrong.append(f"{name}: no ONNX model ({str(error)[:100]})")
            continue
        for location in sorted(external_locations(model)):
            if str(PurePosixPath(name).parent / location) not in files:
                wrong.append(f"{name}: its weights lie in {_short(location)}, which the manifest does not name")
    return wrong
