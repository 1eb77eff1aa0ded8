"""Work spread over processes."""

import argparse
import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from .layout import InputError
from .lock import share_lock

AHEAD = 4  # jobs a worker


def in_order(work: Callable, jobs: Sequence, workers: int, root: Path | None = None) -> Iterator:
    """``map(work, jobs)`` by so many processes, which share the claim on `root`; a single one is this process.

    Few jobs are under way or waiting to be taken at a time, so memory does not grow with their number.
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from map(work, jobs)
        return
    # Spawned, not forked: the caller may have threads (torch has), whose locks a fork would copy.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(root,)) as pool:
        try:
            waiting = deque()
            for job in jobs:
                with _ignoring_interrupts():
                    waiting.append(pool.submit(work, job))
                if len(waiting) >= AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise InputError(
                "--workers: a worker process ended early (out of memory? or a calling script that lacks "
                "`if __name__ == '__main__':`); the sequences written so far stay: run again with fewer workers"
            ) from None
        except KeyboardInterrupt:
            for worker in set(multiprocessing.active_children()) - others:
                worker.kill()  # a job may take minutes, and may be stopped at any moment
            raise
        finally:
            pool.shutdown(cancel_futures=True)  # those under way end their job


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


def _start_worker(root: Path | None) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if root is not None:
        share_lock(root)


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
