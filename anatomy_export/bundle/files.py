"""Are a bundle's files those that its manifest names? Nothing outside the directory is read to find out."""

import os
import re
import stat
from pathlib import Path, PurePosixPath

import onnx

from anatomy_export.core.errors import AnatomyError, VerifyError
from anatomy_export.core.files import MANIFEST, sha256_file
from anatomy_export.core.json_files import shortened
from anatomy_export.core.names import first_names
from anatomy_export.core.onnx_tensors import external_locations

MOST_NAMED = 10


def inside(directory: Path, name: str) -> Path:
    """The path of a bundle's file; links are followed only to files that lie in the directory too.

    Raises:
        AnatomyError: the name is no plain relative path, or what it names is missing, outside, or no regular file.
    """
    parts = PurePosixPath(name).parts
    plain = name and not name.startswith("/") and ".." not in parts and not re.search(r"[\\\0]|^[A-Za-z]:", name)
    if not plain or str(PurePosixPath(name)) != name:
        raise AnatomyError(f"bundle {directory}: file name {shortened(name)} is no plain path inside the directory")
    try:
        root, path = directory.resolve(), (directory / name).resolve()
        if not path.is_relative_to(root):
            raise AnatomyError(
                f"bundle {directory}: {shortened(name)} leads out of the directory, to {path}, which is not read; next "
                "step: copy the bundle with what its links point to (cp -rL)"
            )
        if not stat.S_ISREG(path.stat().st_mode):
            raise AnatomyError(f"bundle {directory}: {shortened(name)} is no regular file")
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AnatomyError(
            f"bundle {directory}: {shortened(name)}: {reason}; next step: export the bundle again"
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
        actual = sha256_file(path)
        if actual != digest:
            wrong.append(f"{name}: SHA-256 is {actual[:12]}…, the manifest says {digest[:12]}…")
    if not wrong:
        wrong = _strange_external_data(directory, files)
    if wrong:
        listed = first_names(wrong, MOST_NAMED, separator="; ", counted=True)
        raise VerifyError(
            f"{len(wrong)} of {len(files)} files are not as they were: {listed}; "
            "next step: copy the bundle again, or export it again"
        )
    return _left_over(directory, files)


def _left_over(directory: Path, files: dict[str, str]) -> list[str]:
    there = []
    for folder, below, names in os.walk(directory):
        links = [name for name in below if os.path.islink(os.path.join(folder, name))]
        there += [os.path.relpath(os.path.join(folder, name), directory) for name in (*names, *links)]
    return sorted(set(map(os.fsdecode, there)) - {MANIFEST, *files})


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
                wrong.append(f"{name}: its weights lie in {shortened(location)}, which the manifest does not name")
    return wrong
