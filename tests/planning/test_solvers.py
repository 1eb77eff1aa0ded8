"""Solvers on costs whose best plan is known."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from svg.models.object_motion import entries
from svg.planning.problem import Problem, correlated, shifted
from svg.planning.solvers import CEM, MPPI, EliteSearch, Gradient

LOW, HIGH = torch.tensor([-1.0, -1.0]), torch.tensor([1.0, 0.5])
SPREAD = (0.5, 0.5)
SOLVERS = {
    "cem": CEM(SPREAD, samples=64, iterations=6),
    "mppi": MPPI(SPREAD, samples=256, iterations=8, gamma=20.0, smooth=0.0),
    "elites": EliteSearch(SPREAD, samples=(64,) * 6, smooth=0.0, shrink=0.7),
    "gradient": Gradient(SPREAD, samples=4, steps=60),
}
GOAL = torch.tensor([[0.5, -0.25], [-0.75, 0.25], [0.0, 0.5]])


def problem(cost, scenes: int = 1, decisions: int = 3, **changes) -> Problem:
    generator = torch.Generator().manual_seed(1)
    return Problem(cost, torch.zeros(scenes, decisions, 2), LOW, HIGH, generator=generator, **changes)


def to_goal(plans):
    return (plans - GOAL.repeat_interleave(plans.shape[2] // 3, 0)).square().sum((2, 3))


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_find_the_least_of_a_bowl(name):
    solution = SOLVERS[name].solve(problem(to_goal, scenes=2, hold=2))
    assert solution.plan.shape == (2, 6, 2) and solution.decisions.shape == (2, 3, 2)
    assert solution.plan[:, ::2].equal(solution.decisions) and solution.plan[:, 1::2].equal(
        solution.decisions
    )
    assert (solution.decisions - GOAL).abs().max() < 0.2
    if name != "mppi":  # whose mean is no plan that was tried
        torch.testing.assert_close(solution.cost, to_goal(solution.plan[:, None])[:, 0])


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_stay_within_bounds(name):
    solution = SOLVERS[name].solve(problem(lambda plans: -plans.sum((2, 3))))
    assert (solution.decisions <= HIGH).all() and (solution.decisions >= LOW).all()
    # the best plan lies in the corner of the bounds
    assert (solution.decisions - HIGH).abs().max() < (0.4 if name == "mppi" else 0.15)


def test_a_limit_is_kept():
    limited = problem(to_goal, limit=lambda decisions: decisions.clamp(-0.1, 0.1))
    assert EliteSearch(SPREAD).solve(limited).decisions.abs().max() <= 0.1


@pytest.mark.parametrize("name", ["cem", "elites", "gradient"])
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_the_start_is_never_made_worse(name, seed):
    generator = torch.Generator().manual_seed(seed)
    start = 2 * torch.rand(2, 3, 2, generator=generator) - 1
    task = Problem(to_goal, start, LOW, HIGH, generator=generator)
    solver = {
        "cem": CEM(SPREAD, 4, 1, 2),
        "elites": EliteSearch(SPREAD, (4, 2)),
        "gradient": Gradient(SPREAD, 2, 2),
    }
    solution = solver[name].solve(task)
    before = to_goal(task.plan(task.allowed(start[:, None])))[:, 0]
    assert (solution.cost <= before + 1e-6).all()


def test_elites_choose_a_side_where_the_mean_would_go_through():
    """Left and right of an obstacle cost 0, the middle 1; all plans but these two cost 2."""

    def cost(plans):
        side = plans[:, :, 0, 0]
        return torch.where(side.abs() < 0.3, 1.0, (side.abs() - 0.6).abs())

    def proposal(count):
        return torch.tensor([-0.6, 0.6]).repeat(count)[:count, None, None].expand(1, count, 3, 2)

    solution = EliteSearch((0.01, 0.01), (9, 4)).solve(problem(cost, proposal=proposal))
    assert solution.cost < 0.05
    assert solution.tried == 13
    mean = MPPI((1e-6, 1e-6), samples=64, gamma=1.0).solve(problem(cost))
    assert abs(mean.decisions[0, 0, 0]) < 0.3  # in the middle, where it began


def test_mppi_is_that_of_vp2():
    """The weighted mean, worked out again from the plans that it tried (Tian et al. 2023, appendix)."""
    tried = []

    def cost(plans):
        tried.append(plans)
        return to_goal(plans)

    solution = MPPI((0.5, 0.1), samples=200, gamma=0.05).solve(problem(cost))
    plans = tried[0][0].double().numpy()
    scores = -to_goal(tried[0])[0].double().numpy()
    weights = np.exp(0.05 * (scores - scores.max()))
    mean = (weights[:, None, None] * plans).sum(0) / weights.sum()
    np.testing.assert_allclose(solution.decisions[0], mean, atol=1e-6)
    # the noise of a step is half of the last one's and half of a fresh one
    first, second = tried[0][0, :, 0, 1], tried[0][0, :, 1, 1]
    assert first.std() == pytest.approx(0.05, rel=0.15)
    assert second.std() == pytest.approx(np.hypot(0.025, 0.05), rel=0.2)
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(0.025 / np.hypot(0.025, 0.05), abs=0.15)


def test_numbers_without_spread_stay_what_proposals_said():
    gripper = lambda count: torch.tensor([0.0, 0.25]).expand(1, count, 3, 2)  # noqa: E731
    solution = EliteSearch((0.5, 0.0), (8, 8)).solve(problem(to_goal, proposal=gripper))
    assert set(solution.decisions[0, :, 1].tolist()) <= {0.0, 0.25}


def test_correlated_noise():
    noise = correlated(torch.randn(4000, 5, 1, generator=torch.Generator().manual_seed(2)), 0.6)[..., 0]
    torch.testing.assert_close(noise.std(0), torch.ones(5), atol=0.05, rtol=0)
    assert torch.corrcoef(noise.T)[2, 3] == pytest.approx(0.6, abs=0.05)


def test_shifted_and_entries():
    decisions = torch.arange(6.0).view(1, 3, 2)
    assert shifted(decisions, 1)[0].tolist() == [[2, 3], [4, 5], [4, 5]]
    assert shifted(decisions, 7)[0].tolist() == [[4, 5]] * 3
    assert entries(decisions, torch.tensor([[2, 0]]))[0].tolist() == [[4, 5], [0, 1]]
