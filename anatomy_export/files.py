"""Files written beside their final place and renamed: an interrupted run leaves what was there before."""

import hashlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anatomy_export.errors import AnatomyError

MANIFEST = "bundle.json"
MARKS = (MANIFEST, "bench.json", "finetune.json", "provenance.json")


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def open_directory(target: Path, *, empty: bool = False) -> Path:
    """`target` as a directory that can be written to, made where it is not there.

    Raises:
        AnatomyError: it is a file, it cannot be made or written to, or it should be `empty` and is not.
    """
    target = Path(target).absolute()
    if target.exists() and not target.is_dir():
        raise AnatomyError(f"output {target} is a file, expected a directory; next step: choose another --output")
    if empty and target.is_dir() and any(target.iterdir()):
        raise AnatomyError(f"output {target} holds other files; next step: choose another --output")
    _make_parents(target)
    if not os.access(target, os.W_OK | os.X_OK):
        raise AnatomyError(f"cannot write to {target}: Permission denied; next step: choose another --output")
    return target


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write `content` to `path` as a whole or not at all; text as UTF-8."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.partial-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def require_free(target: Path, force: bool, marks: tuple[str, ...] = MARKS) -> None:
    """Raise AnatomyError where `target` exists and `force` is not set, it is a file, or it is not ours to replace.

    A directory is ours when it is empty or holds one of the files `marks`, which this toolkit writes.
    """
    if target.exists() and not force:
        raise AnatomyError(f"output {target} exists; next step: choose another --output, or replace it with --force")
    if target.exists() and not target.is_dir():
        raise AnatomyError(f"output {target} is a file, expected a directory; next step: choose another --output")
    if target.is_dir() and any(target.iterdir()) and not any((target / mark).is_file() for mark in marks):
        raise AnatomyError(
            f"output {target} holds files but no {' or '.join(marks)}, so --force does not replace it; "
            "next step: choose another --output, or remove it yourself"
        )


@contextmanager
def staged_directory(target: Path, force: bool = False, marks: tuple[str, ...] = MARKS) -> Iterator[Path]:
    """Yield an empty directory beside `target`; rename it to `target` on success, remove it on any failure.

    Raises:
        AnatomyError: `target` may not be replaced (see `require_free`), or its parent cannot be written.
    """
    target = Path(target).absolute()
    require_free(target, force, marks)
    with _staging(target) as staging:
        yield staging
        os.chmod(staging, 0o755)
        with _signals_held():
            _swap(staging, target)


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A new directory beside `target`, whose parents are made; on any failure, a signal at any time, both go again."""
    created: list[Path] = []
    staging: Path | None = None
    try:
        with _signals_held():
            created = _make_parents(target.parent)
            staging = _make_staging(target)
        yield staging
    except BaseException:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        _remove_empty(created)
        raise


def _make_staging(target: Path) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    except OSError as error:
        raise AnatomyError(
            f"cannot write to {target.parent}: {error.strerror}; next step: choose another --output"
        ) from error


@contextmanager
def staged_file(target: Path, force: bool = False, *, part: str | None = None) -> Iterator[Path]:
    """Yield the path to write a file at, in a directory of its own; what is there on success moves to `target`'s place.

    Files written beside it move beside `target`; all of them, or on any failure none. `part`: the name of a file that
    belongs to `target`; where `force` replaces a `target` that had one and no new one is written, it goes too.

    Raises:
        AnatomyError: `target`, or a file beside it of the same name as one that was written, exists and `force` is not
            set, or the directory cannot be written.
    """
    target = Path(target).absolute()
    _require_replaceable(target, force)
    with _staging(target) as staging:
        yield staging / target.name
        names = sorted((path.name for path in staging.iterdir()), key=lambda name: name == target.name)
        for name in names:
            _require_replaceable(target.with_name(name), force)
        outdated = [part] if part is not None and part not in names and force and target.exists() else []
        with _signals_held():
            _move_all(staging, target.parent, names, outdated)
    shutil.rmtree(staging, ignore_errors=True)


def _require_replaceable(target: Path, force: bool) -> None:
    if target.is_dir():
        raise AnatomyError(f"output {target} is a directory, expected a file; next step: choose another --output")
    if target.exists() and not force:
        raise AnatomyError(f"output {target} exists; next step: choose another --output, or replace it with --force")


def _move_all(source: Path, target: Path, names: list[str], outdated: list[str]) -> None:
    """Move files to another directory, where `outdated` ones go; where that fails, what was there comes back."""
    moved: list[str] = []
    kept = Path(tempfile.mkdtemp(prefix="was-", dir=source))
    try:
        for name in (*outdated, *names):
            if (target / name).exists():
                os.rename(target / name, kept / name)
            moved.append(name)
            if name not in outdated:
                os.chmod(source / name, 0o644)
                os.rename(source / name, target / name)
    except BaseException:
        for name in moved:
            (target / name).unlink(missing_ok=True)
            if (kept / name).exists():
                os.rename(kept / name, target / name)
        raise


@contextmanager
def _signals_held() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait until the end of the block (in the main thread, the only one that they reach)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    previous = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.getsignal(number) or signal.SIG_DFL
            signal.signal(number, lambda number, frame: held.append(number))
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for caught in held:
            signal.raise_signal(caught)


def _swap(staging: Path, target: Path) -> None:
    """Put `staging` in `target`'s place; where that fails, what was there comes back."""
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
