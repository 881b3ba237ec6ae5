"""Who is at work on an output, and what a run that was killed there left behind.

A run keeps a hidden directory beside its output for as long as it works, with a locked file inside: the lock goes with
the process, so that a later run knows what is abandoned. What is made lies there in `new`; what it replaces waits in
`old` (a directory) or `old-files` until the new is in place.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.locks import LocksUnsupportedError, take_lock

STAGED, IN_PLACE = "partial", "run"


@dataclass(frozen=True)
class Claim:
    """A run's own directory beside its output. `kind`: does it write to a place of its own, or into the output?"""

    path: Path
    kind: str
    lock: FileLock | None = None

    @property
    def new(self) -> Path:
        return self.path / "new"

    @property
    def old(self) -> Path:
        return self.path / "old"

    @property
    def old_files(self) -> Path:
        return self.path / "old-files"


def make_claim(target: Path, kind: str) -> Claim:
    """Begin to work on `target`: to be called under its `decision_lock`.

    Raises:
        AnatomyError: the directory cannot be written.
    """
    try:
        path = Path(tempfile.mkdtemp(prefix=f".{target.name}.{kind}-", dir=target.parent))
    except OSError as error:
        raise AnatomyError(
            f"cannot write to {target.parent}: {error.strerror}; next step: choose another --output"
        ) from error
    try:
        lock = take_lock(path / "lock", 0)
    except LocksUnsupportedError:
        lock = None
    claim = Claim(path, kind, lock)
    if kind == STAGED:
        claim.new.mkdir()
    return claim


def end_claim(claim: Claim) -> None:
    """The work is over; what still lies in the claim goes, but for an old output that could not be moved back."""
    if claim.lock is not None:
        claim.lock.release()
    if not _half_moved(claim):
        _remove(claim)


def live_claims(target: Path) -> list[Claim]:
    """Claims of runs that are at work on `target` now; those of runs that were killed are gone afterwards.

    What a run that was killed had moved away and not replaced yet comes back. To be called under the `decision_lock`.

    Raises:
        AnatomyError: it cannot come back, because something else is in its place by now.
    """
    return [claim for claim in _claims(target) if not _clear_abandoned(claim, target)]


def _clear_abandoned(claim: Claim, target: Path) -> bool:
    """Remove the claim unless its run is at work; False where it is, or may be (another user's claim)."""
    try:
        if not (claim.path / "lock").exists():  # killed as it began, or no claim of this toolkit
            with suppress(OSError):
                claim.path.rmdir()
            return True
        lock = take_lock(claim.path / "lock", 0)
    except FileNotFoundError:  # its run has just ended
        return True
    except LocksUnsupportedError:  # nobody can know; to refuse would be for ever
        return True
    except OSError:
        return False
    if lock is None:
        return False
    try:
        _bring_back(claim, target)
    finally:
        lock.release()
    _remove(claim)
    return True


def _claims(target: Path) -> Iterator[Claim]:
    pattern = re.compile(rf"\.{re.escape(target.name)}\.({STAGED}|{IN_PLACE})-[a-z0-9_]+")
    for path in sorted(target.parent.iterdir()):
        match = pattern.fullmatch(path.name)
        if match and path.is_dir() and not path.is_symlink():
            yield Claim(path, match[1])


def _bring_back(claim: Claim, target: Path) -> None:
    """Undo a replacement that was begun and not ended."""
    if not _half_moved(claim):
        return
    if os.path.lexists(claim.old):
        _require_gone(target, claim.old)
        os.rename(claim.old, target)
        return
    if (claim.old_files / target.name).exists():
        _require_gone(target, claim.old_files)
    for path in claim.old_files.iterdir():
        os.replace(path, target.with_name(path.name))


def _half_moved(claim: Claim) -> bool:
    """Was something moved away for what still lies in `new`?"""
    if not claim.new.is_dir():
        return False
    files = claim.old_files.is_dir() and any(claim.old_files.iterdir()) and any(claim.new.iterdir())
    return files or os.path.lexists(claim.old)


def _require_gone(target: Path, old: Path) -> None:
    if target.exists():
        raise AnatomyError(
            f"{target} is there, and what it held when a run was killed is in {old}; next step: move one of them away"
        )


def _remove(claim: Claim) -> None:
    """The lock's file last: without it nobody would know later whose the rest is."""
    for path in (claim.new, claim.old, claim.old_files, claim.path):
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)
