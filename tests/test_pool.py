"""Work spread over processes: in order, with errors in their turn, and no process that ends early blocks the others."""

import multiprocessing
import os
import signal
import threading
import time

import pytest

from data_tools.layout import InputError
from data_tools.pool import in_order


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


@pytest.mark.parametrize(("work", "code"), [(end, -9), (end_while_handing_over, 7)])
def test_a_process_that_ends_early_is_told(work, code):
    with pytest.raises(InputError, match=rf"--workers: a worker process ended early, with {code} \(-9: out of memory\?"):
        for _ in in_order(work, range(8), 2):  # at the first result already, where the other process is slow to start
            time.sleep(1)  # in which one of them ends in the middle of handing over
    assert not multiprocessing.active_children()


def test_left_early_nothing_stays_behind():
    found = in_order(square, range(10**6), 2)
    assert next(found) == 0
    found.close()
    assert not multiprocessing.active_children()
