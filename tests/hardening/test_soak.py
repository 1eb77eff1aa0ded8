"""A few turns of training and evaluation; ``python -m tests.hardening.soak`` does so for half an hour."""

import pytest

from tests.hardening import soak


@pytest.mark.slow
def test_turns_leave_nothing_open(tmp_path):
    flags = soak.prepare(tmp_path)
    readings = []
    for number in range(3):
        soak.turn(flags, number)
        readings.append(soak.read(tmp_path, number, 0.0))
    assert [reading.steps for reading in readings] == [40, 80, 120]
    assert readings[1].files == readings[2].files and readings[1].threads == readings[2].threads
