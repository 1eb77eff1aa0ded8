"""Work of processes: in order, errors in their turn, and one that ends early does not block the others."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from data_tools import pool
from data_tools.errors import InputError
from data_tools.pool import in_order
from tests.support.places import ROOT


def square(number: int) -> int:
    time.sleep(0.01 * (number % 3))
    return number * number


def refuse_five(number: int) -> int:
    if number == 5:
        raise InputError("five: found 5, expected another number")
    return number


def fail(number: int) -> int:
    return [][number]


def end(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def end_while_handing_over(number: int) -> bytes:
    """More than a pipe holds: the other end has to read while it is sent."""
    if number == 1:
        threading.Timer(0.2, os._exit, [7]).start()
    return bytes(10**7)


def test_results_come_in_order():
    assert list(in_order(square, range(40), 3)) == [number * number for number in range(40)]
    assert list(in_order(square, range(3), 1)) == [0, 1, 4] and list(in_order(square, [], 2)) == []


def test_errors_come_in_their_turn():
    found = in_order(refuse_five, range(9), 3)
    assert [next(found) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="five: found 5"):
        next(found)
    assert not multiprocessing.active_children()


def test_a_mistake_of_the_program_keeps_its_traceback():
    with pytest.raises(IndexError) as error:
        list(in_order(fail, range(2), 2))
    assert "return [][number]" in error.value.__notes__[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "code"), [(end, r"-9 \(Killed\); out of memory\?"), (end_while_handing_over, "7")]
)
def test_a_process_that_ends_early_is_told(work, code):
    with pytest.raises(
        InputError,
        match=rf"--workers: a worker process ended early, with {code}; the sequences written so far",
    ):
        for _ in in_order(
            work, range(8), 2
        ):  # at the first result already, where the other process is slow to start
            time.sleep(1)  # in which one of them ends in the middle of handing over
    assert not multiprocessing.active_children()


def test_left_early_nothing_stays_behind():
    found = in_order(square, range(10**6), 2)
    assert next(found) == 0
    found.close()
    assert not multiprocessing.active_children()


COMMAND = """
import os, signal, sys, threading, time
from data_tools.command import run_command, tell
from data_tools.pool import in_order

def work(job):
    if job == 5:
        {act}
    return job

def command():
    for result in in_order(work, range(10**6), 2):
        if result == 4:
            tell("four")

if __name__ == "__main__":
    sys.exit(run_command("work", command))
"""


@pytest.mark.parametrize("act", ["os.killpg(0, signal.SIGTERM)", "os.kill(os.getpid(), signal.SIGSTOP)"])
def test_a_signal_to_all_or_to_one_whose_worker_is_suspended(tmp_path, act):
    """The workers leave it to their parent, which ends them, whatever they are at."""
    (tmp_path / "work.py").write_text(COMMAND.format(act=act))
    process = subprocess.Popen(
        [sys.executable, "work.py"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
         start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    if "STOP" in act:
        assert process.stdout.readline() == "four\n"
        process.terminate()
    errors = process.communicate(timeout=300)[1]  # until the workers, which have the pipe as well, are gone
    assert (process.returncode, errors) == (143, "work: interrupted\n")


@pytest.mark.parametrize("of_another_thread", [False, True])
def test_a_signal_while_processes_are_started_waits_until_they_are(of_another_thread):
    """The system may give it to any thread that does not block it."""
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    reached = []
    with pytest.raises(KeyboardInterrupt), pool._stop_signals_blocked():
        thread = other if of_another_thread else threading.main_thread()
        signal.pthread_kill(thread.ident, signal.SIGINT)
        time.sleep(0.1)
        reached.append(True)
    done.set()
    other.join()
    assert reached
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_arrays_and_errors_travel_whole():
    arrays = list(in_order(make_array, range(5), 2))
    for size, (array, name) in enumerate(arrays):
        assert array.tolist() == [size] * 10**size and array.flags.writeable and name == f"{size}"
    with pytest.raises(OSError, match="No space left on device: 'place'") as error:
        list(in_order(full, range(2), 2))
    assert error.value.errno == errno.ENOSPC


def make_array(size: int) -> tuple[np.ndarray, str]:
    return np.full(10**size, size, np.uint8), f"{size}"


def full(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "place")


def read_twice(number: int) -> int:
    return 2 * number


def suspend_at_five(number: int) -> int:
    if number == 5:
        os.kill(os.getpid(), signal.SIGSTOP)
    return 2 * number


@pytest.mark.parametrize("hurried", [True, False])
def test_what_reads_is_not_waited_for(monkeypatch, hurried):
    """Where one may not wait, and after some patience anyway."""
    monkeypatch.setattr(pool, "PATIENCE", 10**6 if hurried else 0.1)
    found = pool.read_ahead(suspend_at_five, range(20), 2, read_twice, lambda: hurried)
    assert list(found) == [2 * number for number in range(20)]
    assert not multiprocessing.active_children()


def test_what_reads_and_ends_is_told():
    with pytest.raises(pool.WorkerEnded, match=r"ended early, with -9 \(Killed\); out of memory\?"):
        list(pool.read_ahead(end, range(8), 1, read_twice))
    assert not multiprocessing.active_children()
