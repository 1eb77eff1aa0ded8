"""Planning on the simulated table: reach, candidates, the camera, the simulator as a model, perception."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.camera import Camera
from data_tools.simulators.environment import PushEnv
from data_tools.simulators.pusher import HOLD, MAX_STEP, REACH
from svg.planning import perception
from svg.planning.problem import Problem
from svg.planning.pushing import Candidates, OnTable, Push, SimulatorWorld, vary_push, within_reach
from svg.runs.pretrained import load


@pytest.fixture
def env():
    env = PushEnv(scenes=2001, obs_type="pixels")
    env.reset(seed=4)
    return env


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(-1, 1), st.floats(-1, 1))
def test_plans_within_reach(seed, x, y):
    hand = np.array([x * (REACH[0] + 0.01), y * (REACH[1] + 0.01), 0.012])
    plans = 0.1 * torch.randn(1, 5, 6, 4, generator=torch.Generator().manual_seed(seed))
    limited = within_reach(hand)(plans)
    assert limited[..., 2:].equal(plans[..., 2:]) and limited[..., :2].abs().max() <= MAX_STEP + 1e-6
    places = torch.tensor(hand[:2]).float() + HOLD * limited[..., :2].cumsum(2)
    assert (places.abs() <= torch.tensor(REACH) + 1e-5).all()


def test_within_reach_leaves_what_is_within():
    plans = torch.full((1, 1, 3, 4), 0.01)
    torch.testing.assert_close(within_reach(np.zeros(3))(plans), plans)
    # 0.26 + 2 * 0.05 would be beyond 0.27; what leads back counts from there
    plans[0, 0, :, 0] = torch.tensor([0.05, -0.01, 0.0])
    limited = within_reach(np.array([0.26, 0, 0]))(plans)[0, 0, :, 0]
    torch.testing.assert_close(limited, torch.tensor([0.005, -0.01, 0.0]))


def test_a_candidate_pushes_from_behind(env):
    push = Push(np.array([0.05, 0.02]), np.array([0.13, 0.02]), 0.03)
    candidates = Candidates(np.array([-0.06, 0.02]), [push], 6, np.random.default_rng(1))
    ends = []
    for _ in range(40):
        plan = candidates.push(push, turn=0.0)
        path = np.array([-0.06, 0.02]) + HOLD * plan[:, :2].cumsum(0)
        ends.append(path[-1])
        assert (np.abs(plan[:, :2]) <= MAX_STEP).all() and set(plan[:, 2]) <= {0.0, 3.0}
        assert path[:, 0].max() < 0.13  # the hand stays behind the object's goal
    # the hand ends as far behind the goal as it pushes: radius and half a palm, on average
    assert np.mean(ends, 0) == pytest.approx([0.13 - 0.075 - 0.01, 0.02], abs=0.02)


def test_a_candidate_carries(env):
    push = Push(np.array([0.05, 0.02]), np.array([0.05, 0.10]), 0.03)
    candidates = Candidates(np.array([0.05, 0.02]), [push], 6, np.random.default_rng(1))
    moved = np.array([HOLD * candidates.carry(push)[:, :2].sum(0) for _ in range(60)])
    assert moved.mean(0) == pytest.approx([0, 0.08], abs=0.012)


@pytest.mark.parametrize("hold", [1, 4])
def test_candidates_know_for_how_long_a_decision_is_kept(hold):
    push = Push(np.array([0.05, 0.02]), np.array([0.05, 0.06]), 0.03)
    candidates = Candidates(np.array([0.05, 0.02]), [push], 6, np.random.default_rng(1), hold=hold)
    moved = np.array([hold * candidates.carry(push)[:, :2].sum(0) for _ in range(60)])
    assert moved.mean(0) == pytest.approx([0, 0.04], abs=0.012)


def test_candidates_are_of_both_kinds_and_repeatable(env):
    push = Push(np.array([0.05, 0.02]), np.array([0.13, 0.02]), 0.03)
    plans = [Candidates(np.zeros(3), [push], 5, np.random.default_rng(3))(24) for _ in range(2)]
    assert plans[0].shape == (1, 24, 5, 4) and plans[0].dtype == torch.float32
    assert plans[0].equal(plans[1])
    assert Candidates(np.zeros(3), [], 5, np.random.default_rng(3))(4).shape == (1, 4, 5, 4)


def test_variations_stop_and_lift():
    problem = Problem(lambda plans: plans[..., 0, 0], torch.zeros(1, 6, 4), -torch.ones(4), torch.ones(4))
    problem.generator = torch.Generator().manual_seed(1)
    plans = torch.full((1, 400, 6, 4), 0.04)
    varied = vary_push(plans, 1.0, problem)[0]
    stopped = (varied[:, -1, :2] == 0).all(1)
    assert 0.15 < stopped.float().mean() < 0.35
    assert (varied[:, 0, :2] > 0).all()  # none stops before its first move
    moving = varied[..., 0] > 0
    assert (moving[:, 1:] <= moving[:, :-1]).all()  # and none goes on after it stopped
    assert 0.05 < ((varied[..., 2] - 0.04).abs() > 1e-6).any(1).float().mean() < 0.15
    assert varied[..., 3].eq(plans[0, :, :, 3]).all()


def test_the_table_is_the_inverse_of_the_camera():
    places = np.random.default_rng(1).uniform(-0.2, 0.2, (5, 3, 3))
    places[..., 2] = [0.02, 0.03, 0.045]
    pixels = Camera().project(places, 64, 64)
    found = OnTable(places[0, :, 2])(torch.from_numpy(pixels).float())
    np.testing.assert_allclose(found, places[..., :2], atol=1e-5)


def test_the_simulator_as_a_model(env):
    plans = torch.zeros(1, 2, 3, 4)
    plans[0, 1, :, 0] = 0.03
    before = env.save()
    picture = env.render()
    imagined = SimulatorWorld(env, [0, 1])(plans)
    frames = imagined.frames([-1, 0])
    np.testing.assert_array_equal(env.save(), before)
    np.testing.assert_array_equal(env.render(), picture)
    for action in plans[0, 1].numpy():
        env.simulator.step(action)
    np.testing.assert_allclose(imagined.hand[0, 1, -1], env.simulator.position, atol=1e-6)
    pixels = env.project(env.simulator.object_positions[[0, 1]])
    np.testing.assert_allclose(imagined.points[0, 1, -1], pixels, atol=1e-4)
    np.testing.assert_allclose(frames[0, 1, 0].movedim(0, -1), env.render() / 255, atol=1e-6)


def test_the_simulator_begins_where_it_was_when_it_was_asked(env):
    """What a plan had foreseen can be asked for when other actions have been carried out since."""
    plans = torch.zeros(1, 1, 3, 4)
    plans[..., 0] = 0.03
    world = SimulatorWorld(env, [0])
    before = world(plans)
    env.simulator.step(np.array([0.0, 0.04, 0.0, 0.0]))
    state = env.save()
    after = world(plans)
    assert after.hand.equal(before.hand) and after.points.equal(before.points)
    np.testing.assert_array_equal(env.save(), state)


def test_given_and_seen_places(env):
    """The judge finds what it was shown once: within its own error, also after a push."""
    number = env.goal.objects[0]
    true = perception.given(env)
    seen = perception.seen_by_judge(env)
    place = env.simulator.object_positions[number, :2]
    assert true(env.render()).places[0] == pytest.approx(place)
    assert np.linalg.norm(seen(env.render()).places[0] - place) < 0.006
    env.simulator.place_object(number, place + np.array([0.03, 0.02]))
    frame = env.render()
    assert true(frame).marks.masks.sum() >= 15
    found = seen(frame)
    assert np.linalg.norm(found.places[0] - place - (0.03, 0.02)) < 0.012
    overlap = found.marks.masks & true(frame).marks.masks
    assert overlap.sum() > 0.5 * true(frame).marks.masks.sum()
    # nothing of it in the picture: it stays where it was seen
    env.simulator.place_object(number, (5.0, 5.0))
    assert np.linalg.norm(seen(env.render()).places[0] - found.places[0]) < 0.02


def test_objects_that_were_pointed_at(env):
    """A pixel near each in the first picture is enough; what cannot be seen stays where it was."""
    number = env.goal.objects[0]
    true = perception.given(env)
    place = env.simulator.object_positions[number, :2]
    click = true(env.render()).marks.points + 1.5
    found = perception.pointed_at(env, load("push-objects", device="cpu"), click)
    assert np.linalg.norm(found(env.render()).places[0] - place) < 0.015
    env.simulator.place_object(number, place + np.array([0.03, 0.02]))
    frame = env.render()
    now = found(frame, true(frame).marks.points + 1.5)
    assert np.linalg.norm(now.places[0] - place - (0.03, 0.02)) < 0.015
    masks = true(frame).marks.masks
    assert (now.marks.masks & masks).sum() > 0.5 * masks.sum()
    assert (now.marks.masks & ~masks).sum() < 0.5 * masks.sum()
    env.simulator.place_object(number, (5.0, 5.0))
    assert found(env.render()).marks.points.equal(now.marks.points)
