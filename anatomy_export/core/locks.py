"""Locks between processes: the system frees them when their process ends, however it ends."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from anatomy_export.core.errors import AnatomyError

WAIT_S = 60.0
# What file systems without locks answer. There nothing is held, and of others' locks nobody knows.
UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class LocksUnsupportedError(Exception):
    """The file system has no locks."""


def try_lock(path: Path) -> FileLock | None:
    """Take the lock of the file `path`, made where it is missing; None where another holds it. Who drops it frees it.

    Raises:
        OSError: the file cannot be opened. LocksUnsupportedError: the file system has no locks.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    except NotImplementedError as error:
        raise LocksUnsupportedError from error
    except OSError as error:
        if error.errno in UNSUPPORTED:
            raise LocksUnsupportedError from error
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
    lock = FileLock(path, timeout=WAIT_S)
    try:
        lock.acquire()
    except Timeout as error:
        raise AnatomyError(
            f"another process holds {path} for {WAIT_S:.0f} s; next step: see whether it hangs, or choose another "
            "--output"
        ) from error
    except NotImplementedError:  # a file system without locks: work goes on, and the swap looks again
        pass
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise AnatomyError(
                f"cannot write to {target.parent}: {error.strerror}; next step: choose another --output"
            ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # while it is held: who waits for it sees that it is gone, and makes it anew
            path.unlink()
        lock.release()
