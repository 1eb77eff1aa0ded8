"""A user's mistake as one line with exit code 2 instead of a stack trace: for all commands."""

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

from .layout import InputError


class OneLineParser(argparse.ArgumentParser):
    """Answers a mistake with one line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def run_command(name: str, work: Callable[[], int | None], on_interrupt: str = "interrupted") -> int:
    """Does the work of a command and returns its exit code: what the work returns, 0 for None."""
    try:
        with _terminable():
            return work() or 0
    except InputError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"{name}: {error.filename or 'files'}: {error.strerror or error}; check the path, its rights and the disk",
            file=sys.stderr,
        )
        return 2
    except RuntimeError as error:
        if str(error).startswith(("InvalidCxxCompiler", "TritonMissing")):
            print(
                f"{name}: --compile: found no compiler; install g++ (on a GPU: triton) or leave the flag out",
                file=sys.stderr,
            )
            return 2
        on_gpu = type(error).__name__ == "OutOfMemoryError"  # torch's, which is not imported for --help
        if not on_gpu and "DefaultCPUAllocator" not in str(error):
            raise
        where = " on the GPU" if on_gpu else ""
        print(f"{name}: out of memory{where}; lower --batch_size, --n_sample, --memory or the model's channels", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"{name}: out of memory ({error}); close other programs or ask for less at a time", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"{name}: {stop or on_interrupt}", file=sys.stderr)
        return getattr(stop, "exit_code", 130)


class Terminated(KeyboardInterrupt):
    """SIGTERM, which is to clean up as Ctrl-C does."""

    exit_code = 128 + signal.SIGTERM


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
