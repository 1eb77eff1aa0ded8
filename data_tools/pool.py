"""Work spread over processes.

Jobs and results go through a pair of sockets for each process. So a process that ends early, hangs or is
suspended while it sends a result blocks no other one, and neither shared memory (``/dev/shm`` is often small)
nor semaphores are needed.
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
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from multiprocessing import resource_tracker
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from .errors import InputError
from .files import open_files_limit
from .lock import share_lock

AHEAD = 3  # jobs per worker that are submitted and whose result has not been taken yet
POLL = 0.5  # seconds
PATIENCE = 30.0  # seconds after which this process does a job itself, if it can
SPARE = 16  # file handles that must be left for other purposes
STOP_SIGNALS = {getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)}


class WorkerEnded(RuntimeError):
    """A worker process ended early; `exit_code` is negative if a signal of that number killed it."""

    def __init__(self, exit_code: int | None):
        causes = {
            -9: "; out of memory?",
            1: "; a script that calls this without `if __name__ == '__main__':`?",
        }
        code = 0 if exit_code is None else exit_code
        name = f" ({signal.strsignal(-code)})" if code < 0 else ""
        self.reason = f"with {exit_code}{name}{causes.get(code, '')}"
        super().__init__(f"a worker process ended early, {self.reason}")


def in_order(work: Callable, jobs: Sequence, workers: int, root: Path | None = None) -> Iterator:
    """Yield ``map(work, jobs)``, computed by so many processes; with one, by this process.

    The processes share the lock on `root`. At any time only a few jobs are submitted, so memory does not grow
    with their number. An error of a job is raised when its turn comes; other jobs that have begun are
    finished first.

    Raises `InputError` if a process ends early, even while it sends a result (`concurrent.futures` would wait
    for ever: there the processes share a pipe).
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from map(work, jobs)
        return
    try:
        yield from _spread(work, jobs, workers, root)
    except WorkerEnded as ended:
        advice = "the sequences written so far stay: run again with fewer workers"
        raise InputError(f"--workers: {ended}; {advice}") from None


def read_ahead(
    work: Callable, jobs: Iterable, workers: int, here: Callable, hurried: Callable[[], bool] = lambda: False
) -> Iterator:
    """Yield ``map(work, jobs)``, computed by so many processes. The work only reads, so it may be cut off.

    A process may be suspended. So no job is waited for longer than `PATIENCE`, and not at all while `hurried`
    returns True; ``here(job)`` then does the same in this process. Raises `WorkerEnded`.
    """
    yield from _spread(work, jobs, workers, None, here, hurried)


def _spread(
    work: Callable,
    jobs: Iterable,
    workers: int,
    root: Path | None,
    here: Callable | None = None,
    hurried: Callable[[], bool] = lambda: False,
) -> Iterator:
    """Yield the results of jobs in order; `here` and `hurried` are those of `read_ahead`."""
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
    # Jobs that write are finished when another one fails. When a signal asks to stop they are not, nor when
    # the results are no longer asked for: a signal that arrives between two of them is raised there, and seen
    # so here.
    cut_off = True
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
    except Exception as error:
        cut_off = here is not None
        if isinstance(error, _Lost):
            raise error.reason() from None
        raise
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        _end(pool, cut_off)
        threads.shutdown()


def _start(pool: list["_Worker"], work: Callable, workers: int, root: Path | None) -> None:
    """Add so many running workers to the pool. Raises `InputError` if the system's limits allow fewer."""
    try:
        with _stop_signals_blocked():
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
        limit = limits.get(error.errno or 0)
        if limit is None:
            raise
        found = f"found {workers}, more than the limit, {limit}, allows"
        raise InputError(f"--workers: {found}; lower --workers or raise the limit") from None


def _end(pool: list["_Worker"], cut_off: bool) -> None:
    """End the processes after their jobs, or at once with `cut_off` or if a signal asks to stop meanwhile."""
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
    """The error for a worker process that does not answer any more."""

    def __init__(self, worker: "_Worker"):
        self._process = worker.process

    def reason(self) -> WorkerEnded:
        """Return the error with the exit code of the process."""
        self._process.join(POLL)
        return WorkerEnded(self._process.exitcode)


class _Worker:
    """A worker process and the only connection to it."""

    def __init__(self, work: Callable, root: Path | None):
        # Spawned, not forked: the caller may have threads (torch has), whose locks a fork would copy.
        context = multiprocessing.get_context("spawn")
        self._socket, other = socket.socketpair()
        with other:  # closed here, so that the connection closes when the process ends
            self.process = context.Process(target=_serve, args=(other, work, root), daemon=True)
            self.process.start()

    def do(self, job: Any) -> Any:
        """Return the result of a job or raise its error. Raises `_Lost` if the process ends meanwhile."""
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
            self._socket.shutdown(socket.SHUT_RDWR)  # also wakes a thread that waits for it
        self._socket.close()


def _serve(connection: socket.socket, work: Callable, root: Path | None) -> None:
    """Do one job after the other until the other end is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if root is not None:
        share_lock(root)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job = _receive(connection)
            result, failure = None, None
            try:
                result = work(job)
            except Exception as error:
                if not isinstance(error, InputError):
                    error.add_note(traceback.format_exc())  # would not be sent otherwise
                failure = error
            _send(connection, (result, failure))


def _send(connection: socket.socket, value: Any) -> None:
    """Send a value. Arrays are sent from their memory, without a copy."""
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
    """Return the next `size` bytes. Raises `EOFError` if the other end is closed."""
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        count = connection.recv_into(rest)
        if not count:
            raise EOFError
        rest = rest[count:]
    return data


@contextlib.contextmanager
def _stop_signals_blocked() -> Generator[None]:
    """Start processes within this ``with`` so that they ignore signals that ask to stop.

    A terminal sends these to all processes of a group; the parent gets its own and ends the others.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # if it were started later, it would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        with _handlers_deferred():
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _handlers_deferred() -> Generator[None]:
    """Handle signals that ask to stop after this ``with``, within which they are blocked.

    The system may give one to another thread, of a library, which does not block it; Python handles it in the
    main thread all the same. Between the start of a process and the end of what it is told by its parent that
    would leave it with half of it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda number, frame: arrived.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in arrived:
            signal.raise_signal(number)


def _end_with_parent() -> None:
    """End this process when its parent ends, even if that is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def check_workers(workers: int | None) -> int:
    """Return the number of processes that --workers asks for, by default one for each processor."""
    if workers is not None and workers < 1:
        raise InputError(f"--workers: found {workers}, expected 1 or more")
    if workers:
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def add_workers_argument(parser: argparse.ArgumentParser) -> None:
    """Add --workers."""
    parser.add_argument("--workers", type=int, help="number of processes (default: one for each processor)")
