"""Requests to stop, by signals: the current step is finished and saved. A second Ctrl-C exits at once."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Generator

from data_tools.command import tell

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Ctrl-C; a queue or a machine that shuts down; a terminal that is closed, which Windows lacks."""


class Stopped(KeyboardInterrupt):
    """A training that a signal has stopped; None stands for a signal to another of its processes."""

    def __init__(self, number: signal.Signals | None, message: str = ""):
        number = number or signal.SIGTERM
        super().__init__(f"{number.name}: {message}")
        self.exit_code = 128 + number


class StopRequest:
    """The first signal that asked this process to stop: `signal`, None so far.

    `agreed` is True once all processes of the training know of a request, their own or another's.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.agreed = False
        self._raises = False

    def is_made(self) -> bool:
        """Return whether this process was asked to stop."""
        return self.signal is not None

    @contextlib.contextmanager
    def listening(self) -> Generator[None]:
        """Note signals instead of obeying them; what ``nohup`` ignores stays ignored.

        Does nothing in another thread than the main one, where Python handles signals.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        answering = threading.Thread(target=_answer, args=[reader], daemon=True)
        answering.start()
        handlers = {}
        for number in SIGNALS:
            if number.name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN:
                handlers[number] = signal.signal(number, self._note)
        wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            writer.close()  # which ends the thread
            answering.join()
            reader.close()

    @contextlib.contextmanager
    def interruptible(self) -> Generator[None]:
        """Let a request to stop raise `Stopped` at once, within work that can be repeated."""
        self._raises = True
        try:
            if self.signal:
                raise Stopped(self.signal)
            yield
        finally:
            self._raises = False

    def _note(self, number: int, _: object) -> None:
        self.signal = self.signal or signal.Signals(number)
        if self._raises:
            self._raises = False  # only once: saving follows
            raise Stopped(self.signal)


def _answer(reader: socket.socket) -> None:
    """Answer signals on the terminal, from a thread: the main one may be in an operation for seconds."""
    interrupts = 0
    is_answered = False
    while data := reader.recv(1):
        if data[0] not in SIGNALS:
            continue
        interrupts += data[0] == signal.SIGINT
        if interrupts > 1:
            os._exit(128 + signal.SIGINT)
        if not is_answered:
            again = "; press Ctrl-C again to exit at once" if interrupts else ""
            tell(
                f"{signal.Signals(data[0]).name}: finishing the current step, then saving{again}", error=True
            )
            is_answered = True
