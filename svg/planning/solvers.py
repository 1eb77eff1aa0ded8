"""Search for the plan of least cost: CEM, MPPI, the search around single elites, and gradients.

Each solver has one method, ``solve(problem) -> Solution``, and keeps no state; see `problem.Problem`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..models.object_motion import entries
from .problem import Problem, Solution, accumulated


class Solver(Protocol):
    """Whatever finds a plan."""

    def solve(self, problem: Problem) -> Solution:
        """Return the best plan found."""
        ...


@dataclass(frozen=True)
class CEM:
    """The cross-entropy method (Rubinstein & Kroese 2004): fit a Gaussian to the elites, again and again.

    Args:
        spread: standard deviation of each number of a decision at first, [A], in its own units.
        samples: plans of an iteration.
        iterations: how many.
        elites: the best plans, to which mean and deviation are fitted.
        smooth: correlation of a decision's noise with the one before.
    """

    spread: Sequence[float]
    samples: int = 64
    iterations: int = 3
    elites: int = 8
    smooth: float = 0.0

    def solve(self, problem: Problem) -> Solution:
        """Return the best of all plans tried, the last mean among them."""
        mean = problem.start
        deviation = mean.new_tensor(self.spread).expand_as(mean)
        best = _Best()
        plans = problem.begin(self.samples, deviation, self.smooth)
        for iteration in range(self.iterations):
            if iteration:
                plans = problem.around(mean, self.samples, deviation, self.smooth)
            costs = problem.evaluate(plans)
            best.see(plans, costs)
            elites = entries(plans, costs.topk(self.elites, 1, largest=False).indices)
            mean = elites.mean(1)
            deviation = elites.std(1)
        mean = problem.allowed(mean[:, None])
        best.see(mean, problem.evaluate(mean))
        return best.solution(problem)


@dataclass(frozen=True)
class MPPI:
    """Model predictive path integral control (Williams et al. 2017): weights ``exp(-gamma * cost)``.

    With the defaults and costs summed over frames and pixels this is the planner of VP2 (Tian et al. 2023):
    one iteration of 200 samples, whose mean is carried out, whatever it costs itself.

    Args:
        spread: standard deviation of each number of a decision, [A], in its own units; it never changes.
        samples: plans of an iteration.
        iterations: how many.
        gamma: weight of a unit of cost.
        smooth: ``noise[t] = smooth * noise[t-1] + (1 - smooth) * fresh``, as VP2 has it.
    """

    spread: Sequence[float]
    samples: int = 200
    iterations: int = 1
    gamma: float = 0.05
    smooth: float = 0.5

    def solve(self, problem: Problem) -> Solution:
        """Return the weighted mean of the last iteration, with the least cost of its plans."""
        mean = problem.start
        spread = mean.new_tensor(self.spread)
        costs = mean.new_zeros(len(mean), 1)
        for _ in range(self.iterations):
            fresh = (1 - self.smooth) * problem.fresh_noise(self.samples)
            plans = problem.allowed(mean[:, None] + spread * accumulated(fresh, self.smooth))
            costs = problem.evaluate(plans)
            weights = torch.softmax(-self.gamma * costs, 1)
            mean = (weights[..., None, None] * plans).sum(1)
        return Solution(mean, problem.plan(mean), costs.amin(1), problem.tried)


Variation = Callable[[Tensor, float, Problem], Tensor]
"""Returns other plans near plans [B,n,K,A], the nearer the smaller the second argument, 1 at first."""


@dataclass(frozen=True)
class EliteSearch:
    """Vary single elites: of a way round an object to the left and one to the right the mean goes through it.

    The first plans are the start and those of the problem's proposal, or variations of the start. Then the
    best plans so far are varied, each the more often the better it is, ever less.

    Args:
        spread: standard deviation of each number of a decision at first, [A], in its own units. Numbers of 0
            stay what they are, such as those of a gripper that is open or closed.
        samples: plans of each iteration.
        elites: the best plans, which are varied.
        smooth: correlation of a decision's noise with the one before.
        shrink: factor of the noise from one iteration to the next.
        vary: varies plans in another way than by noise; see `Variation`.
    """

    spread: Sequence[float]
    samples: Sequence[int] = (48, 24)
    elites: int = 8
    smooth: float = 0.5
    shrink: float = 0.5
    vary: Variation | None = None

    def solve(self, problem: Problem) -> Solution:
        """Return the best of all plans tried."""
        plans = problem.begin(self.samples[0], problem.start.new_tensor(self.spread), self.smooth)
        costs = problem.evaluate(plans)
        scale = 1.0
        for samples in self.samples[1:]:
            best = costs.topk(min(self.elites, costs.shape[1]), 1, largest=False).indices
            # the first has the most variations, each next one two thirds as many
            ranks = torch.rand(len(plans), samples, generator=problem.generator, device=plans.device)
            ranks = (torch.log1p(-ranks) / -0.4).long().clamp(max=best.shape[1] - 1)
            varied = self._varied(problem, entries(plans, best.gather(1, ranks)), scale)
            plans = torch.cat([plans, varied], 1)
            costs = torch.cat([costs, problem.evaluate(varied)], 1)
            scale *= self.shrink
        best = _Best()
        best.see(plans, costs)
        return best.solution(problem)

    def _varied(self, problem: Problem, plans: Tensor, scale: float) -> Tensor:
        spread = plans.new_tensor(self.spread) * scale
        varied = plans + spread * problem.noise(plans.shape[1], self.smooth)
        if self.vary is not None:
            varied = self.vary(varied, scale, problem)
        return problem.allowed(varied)


@dataclass(frozen=True)
class Gradient:
    """Descend the gradient of the cost from several plans at once, by Adam, within the bounds.

    The cost has to be differentiable, as those of a model's imagination are.

    Args:
        spread: of the plans to begin with around the start, and the length of a step in units of `rate`, [A].
        samples: plans that are improved side by side.
        steps: of Adam.
        rate: of Adam, in units of `spread`.
        smooth: correlation of a decision's noise with the one before.
    """

    spread: Sequence[float]
    samples: int = 8
    steps: int = 10
    rate: float = 0.3
    smooth: float = 0.5

    def solve(self, problem: Problem) -> Solution:
        """Return the best of all plans tried."""
        spread = problem.start.new_tensor(self.spread)
        plans = problem.begin(self.samples, spread, self.smooth)
        moves = torch.zeros_like(plans, requires_grad=True)
        optimizer = torch.optim.Adam([moves], self.rate)
        best = _Best()
        for _ in range(self.steps):
            with torch.enable_grad():
                moved = problem.allowed(plans + spread * moves)
                costs = problem.evaluate(moved)
                optimizer.zero_grad()
                costs.sum().backward()
            best.see(moved.detach(), costs.detach())
            optimizer.step()
            with torch.no_grad():  # beyond the bounds there would be no gradient back
                within = problem.allowed(plans + spread * moves) - plans
                moves.copy_(torch.where(spread > 0, within / spread, 0.0))
        return best.solution(problem)


class _Best:
    """The best plan seen so far of each scene."""

    def __init__(self) -> None:
        self._plans: Tensor | None = None
        self._costs: Tensor | None = None

    def see(self, plans: Tensor, costs: Tensor) -> None:
        """Remember the best of `plans` [B,S,K,A] if it costs less than what was seen before."""
        if self._plans is not None and self._costs is not None:
            plans = torch.cat([self._plans, plans], 1)
            costs = torch.cat([self._costs, costs], 1)
        first = costs.argmin(1, keepdim=True)
        self._plans = entries(plans, first)
        self._costs = costs.gather(1, first)

    def solution(self, problem: Problem) -> Solution:
        """Return the best plan seen."""
        assert self._plans is not None
        assert self._costs is not None
        decisions = self._plans[:, 0]
        return Solution(decisions, problem.plan(decisions), self._costs[:, 0], problem.tried)
