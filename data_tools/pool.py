"""Work spread over processes."""

import argparse
import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from .layout import InputError
from .lock import share_lock

AHEAD = 4  # jobs a worker


def in_order(work: Callable, jobs: Sequence, workers: int, root: Path | None = None) -> Iterator:
    """``map(work, jobs)`` by so many processes, which share the lock on `root`; a single one is this process.

    Few jobs are under way or waiting to be taken at a time, so memory does not grow with their number. An error of a job is raised
    when its turn comes. Raises `InputError` if a process ends early, even in the middle of what it hands over (which would block
    `concurrent.futures` for ever: there the processes share a pipe).
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from map(work, jobs)
        return
    pool: list[_Worker] = []
    try:
        for _ in range(workers):
            pool.append(_Worker(work, root))
        idle, done, given = list(pool), {}, 0
        for number in range(len(jobs)):
            while number not in done:
                while idle and given < min(len(jobs), number + AHEAD * workers):
                    idle.pop().give(given, jobs[given])
                    given += 1
                busy = {worker.connection: worker for worker in pool if worker not in idle}
                for connection in wait(list(busy)):
                    place, result, error = busy[connection].take()
                    done[place] = result, error
                    idle.append(busy[connection])
            result, error = done.pop(number)
            if error is not None:
                raise error
            yield result
    except KeyboardInterrupt:
        for worker in pool:
            worker.process.kill()  # a job may take minutes, and may be stopped at any moment
        raise
    finally:
        for worker in pool:
            worker.connection.close()  # it ends its job, and then itself
        for worker in pool:
            worker.process.join()


class _Worker:
    """A process and the only connection to it."""

    def __init__(self, work: Callable, root: Path | None):
        # Spawned, not forked: the caller may have threads (torch has), whose locks a fork would copy.
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, work, root), daemon=True)
        with _ignoring_interrupts():
            self.process.start()
        other.close()  # so that its end closes with the process

    def give(self, place: int, job: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # which `take` finds, too
            self.connection.send((place, job))

    def take(self) -> tuple[int, Any, Exception | None]:
        """(place of its job, result, error)."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            raise InputError(
                f"--workers: a worker process ended early, with {self.process.exitcode} (-9: out of memory? 1: a script that calls "
                "this without `if __name__ == '__main__':`?); the sequences written so far stay: run again with fewer workers"
            ) from None


def _serve(connection: Connection, work: Callable, root: Path | None) -> None:
    """Does one job after the other until the other end is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if root is not None:
        share_lock(root)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            place, job = connection.recv()
            try:
                result, found = work(job), None
            except Exception as error:
                if not isinstance(error, InputError):
                    error.add_note(traceback.format_exc())  # which does not travel otherwise
                result, found = None, error
            connection.send((place, result, found))


@contextlib.contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """A process that is started meanwhile ignores them from its first moment on: they are the parent's business."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def check_workers(workers: int | None) -> int:
    """The number of processes that --workers asks for; one a processor by default."""
    if workers is not None and workers < 1:
        raise InputError(f"--workers: found {workers}, expected 1 or more")
    if workers:
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def add_workers_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, help="processes (default: one a processor)")
