"""Locks between processes: the system frees them when their process ends, however it ends."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from anatomy_export.core.errors import AnatomyError

WAIT_S = 60.0
NO_LOCKS = "the file system has no locks"
# What file systems without locks answer. There nothing is held, and of others' locks nobody knows.
UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class LocksUnsupportedError(OSError):
    """The file system has no locks."""


def take_lock(path: Path, wait_s: float) -> FileLock | None:
    """The lock of the file `path`, made where it is missing; None where another still holds it after `wait_s` seconds,
    of which -1 are for ever. Who drops it frees it.

    Raises:
        OSError: the file cannot be opened. LocksUnsupportedError: the file system has no locks.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        return None
    except NotImplementedError as error:
        raise LocksUnsupportedError(NO_LOCKS) from error
    except OSError as error:
        if error.errno in UNSUPPORTED:
            raise LocksUnsupportedError(NO_LOCKS) from error
        raise
    return lock


@contextmanager
def decision_lock(target: Path) -> Iterator[None]:
    """Hold, for moments, the one lock of what is decided about the path `target`; its file goes again.

    Raises:
        AnatomyError: the directory cannot be written, or another process holds the lock for a minute.
    """
    if not target.parent.is_dir():
        raise AnatomyError(f"cannot write to {target.parent}: no such directory; next step: choose another --output")
    path = target.with_name(f".{target.name}.partial.lock")
    lock = None
    try:
        lock = take_lock(path, WAIT_S)
        if lock is None:
            raise AnatomyError(
                f"another process holds {path} for {WAIT_S:.0f} s; next step: see whether it hangs, or choose another "
                "--output"
            )
    except LocksUnsupportedError:  # work goes on, and the swap looks again
        pass
    except OSError as error:
        raise AnatomyError(
            f"cannot write to {target.parent}: {error.strerror}; next step: choose another --output"
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # while it is held: who waits for it sees that it is gone, and makes it anew
            path.unlink()
        if lock is not None:
            lock.release()
