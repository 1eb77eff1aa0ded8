"""A lock on a folder, so that only one process with its workers writes there at a time."""

import contextlib
import os
import time
from collections.abc import Generator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from .errors import InputError

PATIENCE = 5.0  # seconds: the last worker of a killed run may need some to notice


@contextlib.contextmanager
def locked(folder: Path, shared: bool = False) -> Generator[None]:
    """Hold the lock on a folder for this process and, through `share_lock`, for its workers.

    The workers keep it even if this process is killed. With `shared` other processes may hold it, too, if
    they all share it. Raises `InputError` if another process holds it.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    deadline = time.monotonic() + PATIENCE
    try:
        while True:
            try:
                fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise InputError(
                        f"{folder}: another process is writing there; wait for it or name another folder"
                    ) from None
                time.sleep(0.05)
            except OSError:  # a file system without locks
                break
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)  # which the workers share
        yield
    finally:
        os.close(handle)


def share_lock(folder: Path) -> None:
    """Keep the lock on `folder` until this worker process ends, even if the parent is killed before."""
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(os.open(folder, os.O_RDONLY | os.O_DIRECTORY), fcntl.LOCK_SH)


@contextlib.contextmanager
def queued(path: Path, patience: float) -> Generator[None]:
    """Hold the lock on the file `path`, which is made, while other processes and threads wait for it.

    After `patience` seconds of waiting go on without it: its holder may be suspended. So it may only guard
    work that does no harm if it is done twice.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    deadline = time.monotonic() + patience
    try:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.05)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(handle)
