"""`GoalCost`: what the solvers of stable-worldmodel call."""

import pytest
import torch

import svg
from data_tools.errors import InputError
from data_tools.simulators.environment import PushEnv
from svg.planning.costable import GoalCost
from svg.planning.costs import HandAt
from svg.planning.world import Seen, world_of


@pytest.fixture(scope="module")
def info():
    """What a solver hands on: every entry repeated for each of three plans."""
    env = PushEnv(scenes=2001)
    env.reset(seed=1)
    frames, hands = [], []
    actions = torch.tensor([[float("nan")] * 4, [0.02, 0.0, 0.0, 0.0]])
    for action in actions.nan_to_num():
        env.simulator.step(action.numpy())
        frames.append(torch.from_numpy(env.render()).movedim(-1, 0))
        hands.append(torch.from_numpy(env.simulator.position))
    goal = torch.from_numpy(env.goal_image()).movedim(-1, 0)
    entries = {
        "pixels": torch.stack(frames),
        "action": actions,
        "hand": torch.stack(hands),
        "goal": goal[None],
    }
    return {name: value[None, None].expand(1, 3, *value.shape) for name, value in entries.items()}


@pytest.mark.parametrize("name", ["push-objects", "push-sim"])
def test_costs_are_those_of_the_world(name, info):
    model = svg.load(name, device="cpu", precision="float32")
    plans = torch.zeros(1, 3, 4, 4)
    plans[0, 1, :, 0] = 0.5
    plans[0, 2, :, 1] = -0.5
    cost = GoalCost(model, scale=0.05).get_cost(info, plans)
    seen = Seen(info["pixels"][:, 0], 0.05 * info["action"][:, 0, 1:], info["hand"][:, 0].float())
    frames = world_of(model, seen)(0.05 * plans).frames([-1])[:, :, 0]
    expected = (frames - info["goal"][:, :, 0].float() / 255).square().sum((2, 3, 4))
    torch.testing.assert_close(cost, expected)
    one_frame = {name: value[:, :, -1:] for name, value in info.items()}
    assert GoalCost(model).get_cost(one_frame, plans).shape == (1, 3)


def test_an_objective_of_ones_own(info):
    model = svg.load("push-objects", device="cpu")
    goal = info["hand"][:, 0, -1, :2].float()
    plans = torch.zeros(1, 3, 4, 4)
    plans[0, 1:, :, 0] = torch.tensor([[0.01], [-0.03]])
    cost = GoalCost(model, lambda info: HandAt(goal)).get_cost(info, plans)
    assert cost[0].argsort().tolist() == [0, 1, 2] and cost[0, 0] < 0.005


def test_what_is_missing_is_named(info):
    cost = GoalCost(svg.load("push-objects", device="cpu"))
    with pytest.raises(InputError, match="found pixels, action, goal, expected hand among them"):
        cost.get_cost({name: info[name] for name in ("pixels", "action", "goal")}, torch.zeros(1, 3, 4, 4))
    with pytest.raises(InputError, match="actions: found 2 numbers, expected 4"):
        cost.get_cost(info, torch.zeros(1, 3, 4, 2))
