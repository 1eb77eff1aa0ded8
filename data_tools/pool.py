"""Work spread over processes.

Jobs and results go through a pair of sockets for each process: a process that ends early, hangs or is suspended in the middle of
what it hands over blocks no other one, and neither shared memory (``/dev/shm`` is often small) nor semaphores are needed.
"""

import argparse
import contextlib
import errno
import multiprocessing
import os
import pickle
import signal
import socket
import struct
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from multiprocessing import resource_tracker
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from .errors import InputError
from .files import open_files_limit
from .lock import share_lock

AHEAD = 3  # jobs a worker that are given out or wait to be taken
POLL = 0.5  # seconds
PATIENCE = 30.0  # seconds: after these a job that can be done here is
SPARE = 16  # files that the processes' connections leave to be opened for other things
OF_THE_PARENT = {getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)}


class WorkerEnded(RuntimeError):
    """A worker process ended early; `exit_code` is its own, or less the number of the signal that killed it."""

    def __init__(self, exit_code: int | None):
        of_signal = exit_code is not None and exit_code < 0
        name = f" ({signal.strsignal(-exit_code)})" if of_signal else ""
        likely = {
            -9: "; out of memory?",
            1: "; a script that calls this without `if __name__ == '__main__':`?",
        }.get(exit_code, "")
        self.reason = f"with {exit_code}{name}{likely}"
        super().__init__(f"a worker process ended early, {self.reason}")


def in_order(work: Callable, jobs: Sequence, workers: int, root: Path | None = None) -> Iterator:
    """Yield ``map(work, jobs)`` by so many processes, which share the lock on `root`; a single one is this process.

    Few jobs are under way or waiting to be taken at a time, so memory does not grow with their number. An error of a job is raised
    when its turn comes; other jobs that have begun are then ended first. Raises `InputError` if a process ends early, even in the
    middle of what it hands over (which would block `concurrent.futures` for ever: there the processes share a pipe).
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from map(work, jobs)
        return
    try:
        yield from _spread(work, jobs, workers, root)
    except WorkerEnded as ended:
        raise InputError(
            f"--workers: {ended}; the sequences written so far stay: run again with fewer workers"
        ) from None


def read_ahead(
    work: Callable, jobs: Iterable, workers: int, here: Callable, hurried: Callable[[], bool] = lambda: False
) -> Iterator:
    """Yield ``map(work, jobs)`` by so many processes; the work is reading and leaves nothing, so that it may be cut off.

    A process may be suspended: while `hurried` says so none is waited for, and never longer than `PATIENCE`. ``here(job)`` does
    the same in this process then. Raises `WorkerEnded`.
    """
    yield from _spread(work, jobs, workers, None, here, hurried)


def _spread(
    work: Callable,
    jobs: Iterable,
    workers: int,
    root: Path | None,
    here: Callable | None = None,
    hurried: Callable | None = None,
) -> Iterator:
    pool: list[_Worker] = []
    idle: SimpleQueue[_Worker] = SimpleQueue()
    given: deque[tuple[Any, Future]] = deque()

    def do(job: Any) -> Any:
        worker = idle.get()
        try:
            return worker.do(job)
        finally:
            idle.put(worker)

    def take() -> Any:
        job, result = given.popleft()
        deadline = time.monotonic() + PATIENCE
        while here is not None and not wait([result], 0 if hurried() else POLL).done:
            if hurried() or time.monotonic() > deadline:
                return here(job)
        return result.result()

    threads = ThreadPoolExecutor(workers)  # each waits for one process at a time
    cut_off = True  # a job that writes is brought to its end, unless a signal asks to stop
    try:
        _start(pool, work, workers, root)
        for worker in pool:
            idle.put(worker)
        for job in jobs:
            given.append((job, threads.submit(do, job)))
            if len(given) >= AHEAD * workers:
                yield take()
        while given:
            yield take()
    except (Exception, GeneratorExit) as error:
        cut_off = here is not None
        if isinstance(error, _Lost):
            raise error.reason() from None
        raise
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        _end(pool, cut_off)
        threads.shutdown()


def _start(pool: list["_Worker"], work: Callable, workers: int, root: Path | None) -> None:
    """Add so many running workers to the pool. Raises `InputError` where the system's limits allow fewer."""
    try:
        with _signals_of_the_parent():
            for _ in range(workers):
                pool.append(_Worker(work, root))
            for spare in [os.open(os.devnull, os.O_RDONLY) for _ in range(SPARE)]:
                os.close(spare)
    except OSError as error:
        limits = {
            errno.EMFILE: open_files_limit(),
            errno.ENFILE: "of the system's open files",
            errno.EAGAIN: "`ulimit -u`",
        }
        if error.errno not in limits:
            raise
        raise InputError(
            f"--workers: found {workers}, more than the limit, {limits[error.errno]}, allows; lower --workers or raise the limit"
        ) from None


def _end(pool: list["_Worker"], cut_off: bool) -> None:
    """End the processes: in the middle of their jobs to `cut_off`, or if a signal asks to stop meanwhile."""
    try:
        for worker in pool:
            worker.end(cut_off)
        for worker in pool:
            worker.process.join()
    except BaseException:
        for worker in pool:
            worker.process.kill()
        raise


class _Lost(Exception):
    """A worker process does not answer any more."""

    def __init__(self, worker: "_Worker"):
        self._process = worker.process

    def reason(self) -> WorkerEnded:
        """Return the error with its exit code."""
        self._process.join(POLL)
        return WorkerEnded(self._process.exitcode)


class _Worker:
    """A process and the only connection to it."""

    def __init__(self, work: Callable, root: Path | None):
        # Spawned, not forked: the caller may have threads (torch has), whose locks a fork would copy.
        context = multiprocessing.get_context("spawn")
        self._socket, other = socket.socketpair()
        with other:  # closed here, so that its end closes with the process
            self.process = context.Process(target=_serve, args=(other, work, root), daemon=True)
            self.process.start()

    def do(self, job: Any) -> Any:
        """Return the job's result or raise its error; `_Lost` if the process ends meanwhile."""
        try:
            _send(self._socket, job)
            result, error = _receive(self._socket)
        except (EOFError, OSError):
            raise _Lost(self) from None
        if error is not None:
            raise error
        return result

    def end(self, cut_off: bool) -> None:
        """Let the process end after its job, or at once."""
        if cut_off:
            self.process.kill()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # also ends a thread's waiting
        self._socket.close()


def _serve(connection: socket.socket, work: Callable, root: Path | None) -> None:
    """Do one job after the other until the other end is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if root is not None:
        share_lock(root)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job = _receive(connection)
            try:
                result, found = work(job), None
            except Exception as error:
                if not isinstance(error, InputError):
                    error.add_note(traceback.format_exc())  # which does not travel otherwise
                result, found = None, error
            _send(connection, (result, found))


def _send(connection: socket.socket, value: Any) -> None:
    """Send a value; arrays go from memory to memory, without copies in between."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(head), *(buffer.raw() for buffer in buffers)]
    connection.sendall(struct.pack(f"!{len(parts) + 1}Q", len(parts), *(part.nbytes for part in parts)))
    for part in parts:
        connection.sendall(part)


def _receive(connection: socket.socket) -> Any:
    """Return the next value. Raises `EOFError` if the other end is closed."""
    (count,) = struct.unpack("!Q", _exactly(connection, 8))
    sizes = struct.unpack(f"!{count}Q", _exactly(connection, 8 * count))
    head, *buffers = [_exactly(connection, size) for size in sizes]
    return pickle.loads(head, buffers=buffers)


def _exactly(connection: socket.socket, size: int) -> bytearray:
    found = bytearray(size)
    rest = memoryview(found)
    while rest:
        count = connection.recv_into(rest)
        if not count:
            raise EOFError
        rest = rest[count:]
    return found


@contextlib.contextmanager
def _signals_of_the_parent() -> Iterator[None]:
    """Processes that are started meanwhile never see a signal that asks to stop, also where all of a group get it.

    They are the parent's business, which gets its own afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # unblocks them otherwise
    before = signal.pthread_sigmask(signal.SIG_BLOCK, OF_THE_PARENT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def check_workers(workers: int | None) -> int:
    """Return the number of processes that --workers asks for; one a processor by default."""
    if workers is not None and workers < 1:
        raise InputError(f"--workers: found {workers}, expected 1 or more")
    if workers:
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def add_workers_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, help="processes (default: one a processor)")
