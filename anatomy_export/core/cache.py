"""Where fetched packages, trained models and measurements are kept, one entry made by one process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.locks import take_lock
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
    path = entry.parent / f".{entry.name}.lock"
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        lock = take_lock(path, WAIT_UNSAID_S)
        if lock is None:
            if progress is not None:
                progress.note(f"note: another process is making {entry}; waiting for it")
            lock = take_lock(path, -1)
    except OSError as error:
        raise AnatomyError(
            f"cache {entry.parent} cannot be written ({error.strerror or error}); "
            "next step: set ANATOMY_CACHE to a directory that can"
        ) from error
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
