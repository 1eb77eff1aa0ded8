"""Signals as requests to stop: the work at hand is ended and saved first. A second Ctrl-C leaves at once."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator

from data_tools.command import tell

HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
ASKING = {signal.SIGINT, signal.SIGTERM, HANGUP} - {None}
"""Ctrl-C; a queue or a machine that shuts down; a terminal that is closed."""


class Stopped(KeyboardInterrupt):
    """A request to stop was followed; what is to be saved is saved."""

    def __init__(self, asked: signal.Signals, message: str = ""):
        super().__init__(message)
        self.asked, self.exit_code = asked, 128 + asked


class Stopping:
    """Within its ``with``, note the first signal that asks to stop in `asked`.

    The answer to the terminal comes at once, from a thread: the main one may be within an operation that takes seconds. In
    another thread than the main one nothing is noted. What ``nohup`` has set to be ignored stays so.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._interruptible = False

    def __enter__(self) -> "Stopping":
        self._in_main = threading.current_thread() is threading.main_thread()
        if self._in_main:
            noted = ASKING - ({HANGUP} if HANGUP and signal.getsignal(HANGUP) is signal.SIG_IGN else set())
            self._reader, self._writer = socket.socketpair()
            self._writer.setblocking(False)
            self._before = {number: signal.signal(number, self._note) for number in noted}
            self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            self._answering = threading.Thread(target=self._answer, daemon=True)
            self._answering.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._in_main:
            signal.set_wakeup_fd(self._wakeup_before)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._writer.close()  # which ends the thread
            self._answering.join()
            self._reader.close()

    def _note(self, number: int, _: object) -> None:
        self.asked = self.asked or signal.Signals(number)
        if self._interruptible:
            self._interruptible = False  # once is enough: what follows is saving
            raise Stopped(self.asked)

    def _answer(self) -> None:
        """Read the numbers of the signals as they come in."""
        interrupts, told = 0, False
        while number := self._reader.recv(1):
            if ord(number) not in ASKING:
                continue
            asked = signal.Signals(ord(number))
            interrupts += asked == signal.SIGINT
            if interrupts > 1:
                os._exit(128 + signal.SIGINT)
            if not told:
                more = "; once more to leave at once" if interrupts else ""
                tell(f"{asked.name}: finishing what is at hand, then saving{more}", error=True)
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
