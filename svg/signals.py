"""SIGINT and SIGTERM as requests: the work at hand is ended and saved first. A second SIGINT leaves at once."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator

ASKING = (signal.SIGINT, signal.SIGTERM)
ENOUGH = 0  # no signal has this number
_in_use: set["Stopping"] = set()


class Stopped(KeyboardInterrupt):
    """A request to stop was followed; what is to be saved is saved."""

    def __init__(self, asked: signal.Signals, message: str = ""):
        super().__init__(message)
        self.asked, self.exit_code = asked, 128 + asked


class Stopping:
    """Within its ``with``, notes the first signal that asks to stop in `asked`.

    The answer to the terminal comes at once, from a thread: the main one may be within an operation that takes seconds. In
    another thread than the main one it notes nothing.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._interruptible = False

    def __enter__(self) -> "Stopping":
        self._in_main = threading.current_thread() is threading.main_thread()
        if self._in_main:
            self._reader, self._writer = socket.socketpair()
            self._writer.setblocking(False)
            _in_use.add(self)
            self._before = {number: signal.signal(number, self._note) for number in ASKING}
            self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            self._answering = threading.Thread(target=self._answer, daemon=True)
            self._answering.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._in_main:
            signal.set_wakeup_fd(self._wakeup_before)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            _in_use.discard(self)
            self._writer.send(bytes([ENOUGH]))  # forked processes may hold the other end open
            self._answering.join()
            self._writer.close()
            self._reader.close()

    def _note(self, number: int, _: object) -> None:
        self.asked = self.asked or signal.Signals(number)
        if self._interruptible:
            self._interruptible = False  # once is enough: what follows is saving
            raise Stopped(self.asked)

    def _answer(self) -> None:
        """Reads the numbers of the signals as they come in."""
        interrupts, told = 0, False
        while (number := self._reader.recv(1)[0]) != ENOUGH:
            if number not in ASKING:
                continue
            interrupts += number == signal.SIGINT
            if interrupts > 1:
                os._exit(128 + signal.SIGINT)
            if not told:
                more = "; once more to leave at once" if interrupts else ""
                print(f"\n{signal.Signals(number).name}: finishing what is at hand, then saving{more}", file=sys.stderr)
                told = True

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Work without a state that could be lost: a request to stop raises `Stopped` within it."""
        self._interruptible = True
        try:
            if self.asked:
                raise Stopped(self.asked)
            yield
        finally:
            self._interruptible = False


def _leave_to_parent() -> None:
    """In a forked process, such as one that reads data: what the terminal sends to all is its parent's business."""
    if _in_use:
        with contextlib.suppress(ValueError):  # forked by another thread than the main one, and without handlers then
            signal.set_wakeup_fd(-1)
            for number in ASKING:
                signal.signal(number, signal.SIG_IGN)
        _in_use.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
