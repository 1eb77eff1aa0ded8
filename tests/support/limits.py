"""Bounds of memory and time for tests: a reader that believes a file goes beyond them."""

import contextlib
import signal
import tracemalloc
from collections.abc import Callable, Iterator


def peak_memory(work: Callable[[], object]) -> float:
    """Return the most memory, in MB, that Python and NumPy held at once while `work` ran."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Fail if the work within takes longer: a reader that waits for ever would let the tests hang."""

    def late(*_: object) -> None:
        raise AssertionError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
