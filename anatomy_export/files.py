"""Files written beside their final place and renamed: an interrupted run leaves what was there before."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anatomy_export.errors import AnatomyError


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_atomic(path: Path, text: str) -> None:
    """Write `text` to `path` as a whole or not at all."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.partial-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def require_free(target: Path, force: bool) -> None:
    """Raise AnatomyError where `target` exists and `force` is not set, or it is a file."""
    if target.exists() and not force:
        raise AnatomyError(f"output {target} exists; next step: choose another --output, or replace it with --force")
    if target.exists() and not target.is_dir():
        raise AnatomyError(f"output {target} is a file, expected a directory; next step: choose another --output")


@contextmanager
def staged_directory(target: Path, force: bool = False) -> Iterator[Path]:
    """Yield an empty directory beside `target`; rename it to `target` on success, remove it on any failure.

    Raises:
        AnatomyError: `target` exists and `force` is not set, or its parent cannot be written.
    """
    target = Path(target).absolute()
    require_free(target, force)
    created = _make_parents(target.parent)
    try:
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    except OSError as error:
        _remove_empty(created)
        raise AnatomyError(
            f"cannot write to {target.parent}: {error.strerror}; next step: choose another --output"
        ) from error
    try:
        yield staging
        os.chmod(staging, 0o755)
        _swap(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        _remove_empty(created)
        raise


def _swap(staging: Path, target: Path) -> None:
    if not target.exists():
        os.rename(staging, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old-", dir=target.parent))
    os.rename(target, old / "was")
    try:
        os.rename(staging, target)
    except BaseException:
        os.rename(old / "was", target)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _make_parents(directory: Path) -> list[Path]:
    missing = [parent for parent in (directory, *directory.parents) if not parent.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _remove_empty(missing)
        raise AnatomyError(
            f"cannot create {directory}: {error.strerror}; next step: choose another --output"
        ) from error
    return missing


def _remove_empty(directories: list[Path]) -> None:
    for directory in directories:
        if directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()
