"""Trials: what acts, what counts as success, and that the same trial has the same outcome."""

import numpy as np
import pytest

from svg.planning.trial import Trial
from svg.planning.trials import Outcome, run_trial, set_up


def test_success_by_protocol():
    outcome = Outcome(0, [0.08, 0.019, 0.034], ["box"], 0.0)
    assert (outcome.end, outcome.best) == (0.034, 0.019)
    assert outcome.is_solved("own", "push") and not outcome.is_solved("own", "push", 0.02)
    assert outcome.is_solved("vp2", "push") and not outcome.is_solved("own", "reach")
    assert not Outcome(0, [0.08, 0.051], [], 0.0).is_solved("vp2", "push")


def test_the_hand_begins_near_the_object():
    away = []
    for number in range(8):
        env = set_up(Trial("nothing", number, scenes="tuning"))
        first = env.goal.objects[0]
        gap = np.linalg.norm(env.simulator.object_positions[first, :2] - env.simulator.position[:2])
        away.append(gap - env.simulator.object_radii[first])
    assert np.median(away) < 0.095


def test_doing_nothing_changes_nothing():
    outcome = run_trial(Trial("nothing", 3, scenes="tuning"))
    assert len(outcome.distances) == 25 and np.ptp(outcome.distances) < 1e-3
    assert 0.05 < outcome.end < 0.11 and outcome.seconds == [] and outcome.imagined == 0


@pytest.mark.parametrize("task", ["reach", "push", "push_many"])
def test_the_simulator_as_a_model_solves_tasks(task):
    outcome = run_trial(Trial("simulator", 0, task=task, scenes="tuning", samples=(24, 12)))
    assert outcome.is_solved("own", task) or (
        task == "push_many" and outcome.end < 0.8 * outcome.distances[0]
    )
    assert outcome.tried == 36 * len(outcome.seconds) and outcome.imagined == 12 * outcome.tried


@pytest.mark.parametrize(
    "changes",
    [{}, {"perception": "seen", "cost": "both"}, {"perception": "pointed"}, {"protocol": "vp2"}],
)
def test_a_model_acts_and_does_so_again(changes):
    trial = Trial(
        "push-objects",
        0,
        ("push-objects",),
        scenes="tuning",
        samples=(3, 3),
        decisions=4,
        replan=8,
        **changes,
    )
    frames = []
    first = run_trial(trial, lambda frame, replan: frames.append((frame, replan)))
    again = run_trial(trial)
    assert first.distances == again.distances
    steps = 16 if trial.protocol == "vp2" else 24
    assert len(first.distances) == steps + 1 and len(frames) == steps + 1
    plans = [replan for _, replan in frames if replan is not None]
    assert len(plans) == len(first.seconds) > 0
    assert first.tried == sum(plan.solution.tried for plan in plans)
    assert (len(first.perception_error) > 0) == (trial.perception != "given")
    assert first.distances[-1] != first.distances[0]


def test_models_together_plan():
    trial = Trial("both", 0, ("push-objects", "push-objects-large"), scenes="tuning", samples=(8,), replan=12)
    outcome = run_trial(trial)
    assert outcome.tried == 8 * len(outcome.seconds)


def test_reaching_without_objects_to_push():
    trial = Trial("push-objects", 1, ("push-objects",), task="reach", scenes="tuning", samples=(32, 16))
    assert run_trial(trial).end < 0.03
