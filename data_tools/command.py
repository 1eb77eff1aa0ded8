"""What all commands share: the printer, and a user's mistake as one line with exit code 2 instead of a stack trace."""

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

from .errors import InputError, clean


class OneLineParser(argparse.ArgumentParser):
    """Answers a mistake with one line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        tell(f"{self.prog}: {message}; see {self.prog} --help", error=True)
        self.exit(2)


_lost: dict[str, OSError] = {}  # streams that nobody reads any more, by name
_commands: list[str] = []  # those that run: some call others


def tell(text: str = "", error: bool = False) -> None:
    """Print `text` on stdout or, with `error`, on stderr: all that this program prints goes through here.

    What a terminal would obey is written out, and so are letters that the stream's encoding lacks. A stream that can no longer be
    written to ends no work: `run_command` says so at the end.
    """
    name = "stderr" if error else "stdout"
    stream = getattr(sys, name)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    line = clean(text).encode(encoding, "backslashreplace").decode(encoding)
    bars = sys.modules.get("tqdm")  # progress bars make room
    try:
        with bars.tqdm.external_write_mode(stream) if bars else contextlib.nullcontext():
            print(line, file=stream, flush=True)
    except OSError as problem:
        _give_up(name, problem)


def _give_up(name: str, problem: OSError) -> None:
    """Let what is still written to a stream go nowhere."""
    _lost.setdefault(name, problem)
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, getattr(sys, name).fileno())
        os.close(nowhere)


def _open_streams() -> None:
    """Open those of stdin, stdout and stderr that were closed: the next file that is opened would take their place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            handle = os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
            if getattr(sys, name) is None:
                setattr(sys, name, open(handle, "r" if name == "stdin" else "w", closefd=False))  # noqa: SIM115 to the end


def run_command(name: str, work: Callable[[], int | None], on_interrupt: str = "interrupted") -> int:
    """Do the work of a command and return its exit code: what the work returns, 0 for None.

    A mistake of the user is one line on stderr and 2. If stdout was closed before all was printed the work is done all the same;
    the code is then that of a broken pipe, 141, or 2.
    """
    _open_streams()
    _commands.append(name)
    try:
        code = _run(name, work, on_interrupt)
    finally:
        _commands.pop()
        try:
            sys.stdout.flush()
        except OSError as problem:
            _give_up("stdout", problem)
    problem = None if _commands else _lost.pop("stdout", None)
    if problem is None or code:
        return code
    if isinstance(problem, BrokenPipeError):
        return 128 + 13  # SIGPIPE, which Windows lacks
    tell(f"{name}: stdout: {problem.strerror}; what was to be printed is lost, the work itself is done", error=True)
    return 2


def _run(name: str, work: Callable[[], int | None], on_interrupt: str) -> int:
    try:
        with _terminable():
            return work() or 0
    except InputError as error:
        reason = str(error)
    except OSError as error:
        reason = f"{error.filename or 'files'}: {error.strerror or error}; check the path, its rights and the disk"
    except RuntimeError as error:
        on_gpu = type(error).__name__ == "OutOfMemoryError"  # torch's, which is not imported for --help
        if str(error).startswith(("InvalidCxxCompiler", "TritonMissing")):
            reason = "--compile: found no compiler; install g++ (on a GPU: triton) or leave the flag out"
        elif on_gpu or "DefaultCPUAllocator" in str(error):
            where = " on the GPU" if on_gpu else ""
            reason = f"out of memory{where}; lower --batch_size, --n_sample, --memory or the model's channels"
        else:
            raise
    except MemoryError as error:
        reason = f"out of memory ({error}); close other programs or ask for less at a time"
    except KeyboardInterrupt as stop:
        tell(f"{name}: {str(stop) or on_interrupt}", error=True)
        return getattr(stop, "exit_code", 130)
    tell(f"{name}: {reason}", error=True)
    return 2


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
