"""Outputs made beside their final place and moved there: an interrupted run leaves what was there before."""

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from anatomy_export.core.claims import IN_PLACE, STAGED, Claim, end_claim, live_claims, make_claim
from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.locks import decision_lock
from anatomy_export.core.signals import signals_held

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
    """Write `content` to `path` as a whole or not at all; text as UTF-8.

    What a process that was killed at this left beside it goes.
    """
    path = Path(path).absolute()
    with signals_held(), decision_lock(path):
        for stale in path.parent.iterdir():
            if re.fullmatch(rf"\.{re.escape(path.name)}\.partial-[a-z0-9_]+", stale.name) and stale.is_file():
                stale.unlink()
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
    """Yield an empty directory; on success it takes the place of `target`, on any failure it goes.

    Whether it may is seen at the start and again at the end. Of two runs with `force` the later to end stays.

    Raises:
        AnatomyError: `target` may not be replaced (see `require_free`), another run is at work on it, or its parent
            cannot be written.
    """
    target = Path(target).absolute()

    def check() -> None:
        require_free(target, force, marks)

    with _claimed(target, STAGED, check, alone=not force) as claim:
        yield claim.new
        with signals_held(), decision_lock(target):
            if not force and target.exists():
                raise AnatomyError(
                    f"output {target} was made by another run meanwhile; next step: choose another --output, or "
                    "replace it with --force"
                )
            check()
            _swap(claim, target)


@contextmanager
def staged_file(target: Path, force: bool = False, *, part: str | None = None) -> Iterator[Path]:
    """Yield the path to write a file at, in a directory of its own; what is there on success moves to `target`'s place.

    Files written beside it move beside `target`; all of them, or on any failure none. `part`: the name of a file that
    belongs to `target`; where `force` replaces a `target` that had one and no new one is written, it goes too.

    Raises:
        AnatomyError: `target`, or a file beside it of the same name as one that was written, exists and `force` is not
            set, another run is at work on it, or the directory cannot be written.
    """
    target = Path(target).absolute()

    def check() -> None:
        _require_replaceable(target, force)

    with _claimed(target, STAGED, check, alone=not force) as claim:
        yield claim.new / target.name
        names = sorted((path.name for path in claim.new.iterdir()), key=lambda name: name == target.name)
        with signals_held(), decision_lock(target):
            for name in names:
                _require_replaceable(target.with_name(name), force)
            outdated = [part] if part is not None and part not in names and force and target.exists() else []
            _move_all(claim, target.parent, names, outdated)


def require_free_file(target: Path, force: bool) -> None:
    """Raise AnatomyError where `staged_file` would refuse `target` as it starts: to be seen before long work."""
    target = Path(target).absolute()
    if target.parent.is_dir():
        with _claimed(target, STAGED, lambda: _require_replaceable(target, force), alone=not force):
            pass


@contextmanager
def sole_writer(directory: Path) -> Iterator[None]:
    """Be the only run of this toolkit that writes into `directory`, which need not be there yet, during the block.

    Raises:
        AnatomyError: another run is at work on it, or its parent cannot be written.
    """
    with _claimed(Path(directory).absolute(), IN_PLACE, lambda: None, alone=True):
        yield


@contextmanager
def _claimed(target: Path, kind: str, check: Callable[[], None], *, alone: bool) -> Iterator[Claim]:
    """A claim on `target`, whose parents are made where they miss; afterwards, a signal at any time, the claim is gone
    and so are parents that stayed empty.

    `check` raises AnatomyError where `target` may not be claimed. A run that is not `alone` bears others that write to
    a place of their own.
    """
    created: list[Path] = []
    claim: Claim | None = None

    def end() -> None:
        with signals_held():
            if claim is not None:
                end_claim(claim)
            _remove_empty(created)

    try:
        with signals_held():
            created = _make_parents(target.parent)
            with decision_lock(target):
                others = [claim for claim in live_claims(target) if alone or claim.kind == IN_PLACE]
                check()
                if others:
                    raise AnatomyError(
                        f"another run is at work on {target} (see {others[0].path.name} beside it); next step: let it "
                        "end, or choose another --output"
                    )
                claim = make_claim(target, kind)
        yield claim
    finally:
        try:
            end()
        except BaseException:  # a signal that came before it was held
            end()
            raise


def _require_replaceable(target: Path, force: bool) -> None:
    if target.is_dir():
        raise AnatomyError(f"output {target} is a directory, expected a file; next step: choose another --output")
    if target.exists() and not force:
        raise AnatomyError(f"output {target} exists; next step: choose another --output, or replace it with --force")


def _move_all(claim: Claim, target: Path, names: list[str], outdated: list[str]) -> None:
    """Move the new files to another directory, where `outdated` ones go; where that fails, what was there is back."""
    moved: list[str] = []
    kept = claim.old_files
    kept.mkdir()
    try:
        for name in (*outdated, *names):
            if (target / name).exists():
                os.rename(target / name, kept / name)
            moved.append(name)
            if name not in outdated:
                os.chmod(claim.new / name, 0o644)
                os.rename(claim.new / name, target / name)
    except BaseException:
        for name in moved:
            (target / name).unlink(missing_ok=True)
            if (kept / name).exists():
                os.rename(kept / name, target / name)
        raise


def _swap(claim: Claim, target: Path) -> None:
    """Put the new directory in `target`'s place; where that fails, what was there comes back."""
    if target.exists():
        os.rename(target, claim.old)
    try:
        os.rename(claim.new, target)
    except BaseException:
        if os.path.lexists(claim.old):
            os.rename(claim.old, target)
        raise


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
        with suppress(OSError):
            directory.rmdir()
