"""Examples that are programs, run as their docstrings say."""

import subprocess
import sys

import pytest

from tests.support.places import ROOT


@pytest.mark.slow
def test_planning_with_a_robot_of_ones_own():
    """The simulator stands in for the robot; the hand comes much nearer to where the picture shows it."""
    program = [sys.executable, "examples/plan_with_your_robot.py", "--frames", "12"]
    done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT, check=True)
    plans, distance = done.stdout.splitlines()
    assert plans.startswith("6 plans, ") and plans.endswith(" Hz")
    words = distance.split()
    start, end = float(words[3]), float(words[10])
    assert end < 0.6 * start
