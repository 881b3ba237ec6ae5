"""Where fetched packages, trained models and measurements are kept, one entry made by one process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.progress import Progress

WAIT_UNSAID_S = 2.0


def cache_directory() -> Path:
    """Where fetched packages and trained models are kept: `$ANATOMY_CACHE`, else `~/.cache/anatomy-export`."""
    return Path(os.environ.get("ANATOMY_CACHE") or Path.home() / ".cache" / "anatomy-export")


@contextmanager
def cache_lock(entry: Path, progress: Progress | None = None) -> Iterator[None]:
    """Hold the lock of one cache entry (a file or directory), so that two processes do not make it at once.

    Look at the entry again inside: another process may have made it meanwhile. `progress` hears of a wait for it.

    Raises:
        AnatomyError: the cache cannot be written.
    """
    lock = FileLock(entry.parent / f".{entry.name}.lock")
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        _acquire(lock, entry, progress)
    except OSError as error:
        raise AnatomyError(
            f"cache {entry.parent} cannot be written ({error.strerror or error}); "
            "next step: set ANATOMY_CACHE to a directory that can"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, entry: Path, progress: Progress | None) -> None:
    try:
        lock.acquire(timeout=WAIT_UNSAID_S)
    except Timeout:
        if progress is not None:
            progress.note(f"note: another process is making {entry}; waiting for it")
        lock.acquire()
