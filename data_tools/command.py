"""The frame of all commands: one printer, and mistakes of the user in one line with exit code 2."""

import argparse
import contextlib
import difflib
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, NoReturn

from .errors import InputError, clean
from .files import explain_os_error

TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
"""Words that may follow a flag that is on or off."""


class OneLineParser(argparse.ArgumentParser):
    """A parser that answers a mistake in one line instead of the usage, and suggests the name that was meant.

    A flag that is on or off may be followed by True, False, yes, no, 1 or 0.
    """

    def error(self, message: str) -> NoReturn:
        """Print the mistake in one line and exit with code 2."""
        tell(f"{self.prog}: {InputError(message)}; see {self.prog} --help", error=True)
        self.exit(2)

    def expand(self, words: list[str]) -> list[str]:
        """Return the command line with what stands for several words written out."""
        return words

    def parse_known_args(  # ty: ignore[incompatible-method-override] the base has overloads
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse as `ArgumentParser` does, but refuse unknown flags.

        They are compared here, and not in `parse_args`, because only here the flags of a sub-command are
        known.
        """
        words = self.expand(list(sys.argv[1:] if args is None else args))
        parsed, unknown = super().parse_known_args(self._without_truth_values(words), namespace)
        if unknown:
            flags = [word.partition("=")[0] for word in unknown if word.startswith("-")]
            meant = suggestion(flags, self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return parsed, unknown

    def _without_truth_values(self, words: list[str]) -> list[str]:
        """Return the words with ``--x True`` as ``--x``, and ``--x=no`` as ``--no-x``.

        If there is no flag ``--no-x``, an ``--x`` before it is removed instead.
        """
        plain: list[str] = []
        rest = deque(words)
        while rest:
            word = rest.popleft()
            if word == "--":
                return [*plain, word, *rest]
            flag, equals, value = word.partition("=")
            action = self._option_string_actions.get(flag)
            opposite = f"--no-{flag[2:]}"
            has_opposite = opposite in self._option_string_actions
            if action is None or action.nargs != 0 or not (action.const is True or has_opposite):
                plain.append(word)
                continue
            if not equals:
                value = rest.popleft() if rest and rest[0].lower() in TRUTH else "true"
            if value.lower() not in TRUTH:
                self.error(f"argument {flag}: found {value!r}, expected True or False")
            if TRUTH[value.lower()]:
                plain.append(flag)
            elif has_opposite:
                plain.append(opposite)
            else:  # remove an earlier one, perhaps from a flags file
                plain = [other for other in plain if other not in action.option_strings]
        return plain

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            meant = suggestion([str(value)], map(str, action.choices or ()))
            raise argparse.ArgumentError(action, f"{error.message}{meant}") from None


def suggestion(words: list[str], known: Iterable[str]) -> str:
    """Return "; did you mean ...?" with the nearest known name of each word, or "" if none is near.

    Case, dashes and underscores do not count.
    """
    names: dict[str, str] = {}
    for name in known:
        names.setdefault(_letters(name), name)
    nearest = {}
    for word in words:
        for letters in difflib.get_close_matches(_letters(word), names, n=1):
            nearest[names[letters]] = None
    return f"; did you mean {', '.join(nearest)}?" if nearest else ""


def _letters(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


_lost: dict[str, OSError] = {}  # the error of each stream that can no longer be written to, by its name
_commands: list[str] = []  # the commands that run now: some call others
_silences: list[None] = []  # one for each `silenced` that is entered


def tell(text: str = "", error: bool = False) -> None:
    """Print `text` on stdout or, with `error`, on stderr. All that this program prints goes through here.

    Control sequences for terminals are escaped, and so are letters that the encoding of the stream lacks. If
    the stream can no longer be written to the work goes on: `run_command` reports it at the end.
    """
    if _silences:
        return
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


@contextlib.contextmanager
def silenced() -> Generator[None]:
    """Let `tell` print nothing meanwhile: of several processes that do the same, one is enough."""
    _silences.append(None)
    try:
        yield
    finally:
        _silences.pop()


def _give_up(name: str, problem: OSError) -> None:
    """Remember the error of a stream, and discard all that is still written to it."""
    _lost.setdefault(name, problem)
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, getattr(sys, name).fileno())
        os.close(null)


def _open_streams() -> None:
    """Open stdin, stdout and stderr if they are closed: the next file to be opened would take their place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            handle = os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
            if getattr(sys, name) is None:
                mode = "r" if name == "stdin" else "w"
                setattr(sys, name, open(handle, mode, closefd=False))  # noqa: SIM115 stays open to the end


def run_command(name: str, work: Callable[[], int | None], on_interrupt: str = "interrupted") -> int:
    """Do the work of a command and return its exit code: that of the work, 0 for None.

    A mistake of the user is one line on stderr and code 2. If stdout is closed before all is printed the work
    is still done; the code is then that of a broken pipe, 141, or 2.
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
    tell(f"{name}: stdout: {problem.strerror}; the text is lost, the work itself is done", error=True)
    return 2


def _run(name: str, work: Callable[[], int | None], on_interrupt: str) -> int:
    """Do the work and return its exit code; errors that a user can fix become one line."""
    try:
        with _terminable():
            return work() or 0
    except KeyboardInterrupt as stop:
        tell(f"{name}: {str(stop) or on_interrupt}", error=True)
        return getattr(stop, "exit_code", 130)
    except Exception as error:
        reason = explain(error)
        if reason is None:
            raise
    tell(f"{name}: {reason}", error=True)
    return 2


def explain(error: Exception) -> str | None:
    """Return the line for an error that a user can fix; None for any other."""
    if isinstance(error, InputError):
        return error.line
    if isinstance(error, OSError):
        return explain_os_error(error)
    if isinstance(error, MemoryError):
        return f"out of memory ({error}); close other programs or ask for less at a time"
    if not isinstance(error, RuntimeError):
        return None
    text = str(error)
    if text.startswith(("InvalidCxxCompiler", "TritonMissing")):
        return "--compile: found no compiler; install g++ (on a GPU: triton) or leave the flag out"
    on_gpu = type(error).__name__ == "OutOfMemoryError"  # of torch, which is not imported for --help
    if on_gpu or "DefaultCPUAllocator" in text:
        where = " on the GPU" if on_gpu else ""
        return f"out of memory{where}; lower --batch_size, --n_sample, --memory or the model's channels"
    return None


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C so that everything is cleaned up."""

    exit_code = 128 + signal.SIGTERM


@contextlib.contextmanager
def _terminable() -> Generator[None]:
    """Raise `Terminated` on SIGTERM meanwhile."""
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
