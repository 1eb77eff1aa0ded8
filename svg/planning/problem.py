"""What a solver works on: which plans there may be, what each costs, and where the search begins."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

Cost = Callable[[Tensor], Tensor]
"""Maps plans [B,S,H,A] of B scenes to their costs [B,S]; the least is best."""
Proposal = Callable[[int], Tensor]
"""Returns so many plans of decisions for each scene, [B,n,K,A]."""
Limit = Callable[[Tensor], Tensor]
"""Brings decisions [B,n,K,A] to the nearest ones that can be carried out."""


@dataclass
class Problem:
    """Plans of K decisions [A], each held for `hold` frames, for B scenes.

    Args:
        cost: of plans of single frames, H = K * hold.
        start: where the search begins, decisions [B,K,A].
        low: the least value of each number of an action, [A].
        high: the greatest, [A].
        hold: frames for which a decision is kept.
        proposal: draws further plans to begin with.
        limit: what else decisions must keep to, such as a reach.
        generator: the source of all random numbers, on the device of `start`.
    """

    cost: Cost
    start: Tensor
    low: Tensor
    high: Tensor
    hold: int = 1
    proposal: Proposal | None = None
    limit: Limit | None = None
    generator: torch.Generator | None = None
    tried: int = field(default=0, init=False)

    def evaluate(self, decisions: Tensor) -> Tensor:
        """Return the costs [B,S] of plans of decisions [B,S,K,A]."""
        self.tried += decisions.shape[1]
        return self.cost(self.plan(decisions))

    def plan(self, decisions: Tensor) -> Tensor:
        """Return the actions [...,H,A] of all frames."""
        return decisions.repeat_interleave(self.hold, -2)

    def allowed(self, decisions: Tensor) -> Tensor:
        """Return `decisions` [B,S,K,A] brought within the bounds."""
        decisions = torch.minimum(torch.maximum(decisions, self.low), self.high)
        return decisions if self.limit is None else self.limit(decisions)

    def begin(self, samples: int, spread: Tensor, smooth: float) -> Tensor:
        """Return plans to begin with, [B,samples,K,A]: the start with candidates, or about it.

        The candidates are those of `proposal`; without one see `around`.
        """
        if self.proposal is None or samples < 2:
            return self.around(self.start, samples, spread, smooth)
        return self.allowed(torch.cat([self.start[:, None], self.proposal(samples - 1)], 1))

    def around(self, mean: Tensor, samples: int, spread: Tensor, smooth: float) -> Tensor:
        """Return plans [B,samples,K,A] about `mean` [B,K,A], which is the first of them.

        Their standard deviation is `spread`, [A] or [B,K,A], and `smooth` correlates a step with the next.
        """
        noise = self.noise(samples, smooth)
        noise[:, 0] = 0
        return self.allowed(mean[:, None] + spread.expand_as(mean)[:, None] * noise)

    def noise(self, samples: int, smooth: float) -> Tensor:
        """Return standard normal noise [B,samples,K,A] whose steps are correlated by `smooth`."""
        return correlated(self.fresh_noise(samples), smooth)

    def fresh_noise(self, samples: int) -> Tensor:
        """Return standard normal noise [B,samples,K,A]."""
        shape = (len(self.start), samples, *self.start.shape[1:])
        return torch.randn(shape, generator=self.generator, device=self.start.device)


@dataclass(frozen=True)
class Solution:
    """The plan that a solver found.

    Args:
        decisions: [B,K,A].
        plan: [B,H,A], the actions of all frames.
        cost: [B].
        tried: plans whose cost was computed for each scene.
    """

    decisions: Tensor
    plan: Tensor
    cost: Tensor
    tried: int


def correlated(noise: Tensor, smooth: float) -> Tensor:
    """Return standard normal noise [...,K,A] whose steps are correlated by `smooth`, of deviation 1."""
    first, rest = noise[..., :1, :], noise[..., 1:, :]
    return accumulated(torch.cat([first, (1 - smooth**2) ** 0.5 * rest], -2), smooth)


def accumulated(noise: Tensor, smooth: float) -> Tensor:
    """Return noise [...,K,A] to which each step adds `smooth` times what it was in the step before."""
    steps = [noise[..., 0, :]]
    for fresh in noise[..., 1:, :].unbind(-2):
        steps.append(smooth * steps[-1] + fresh)
    return torch.stack(steps, -2)


def shifted(decisions: Tensor, count: int) -> Tensor:
    """Return decisions [B,K,A] without the first `count`, which were carried out; the last one is held."""
    count = min(count, decisions.shape[1] - 1)
    return torch.cat([decisions[:, count:], decisions[:, -1:].expand(-1, count, -1)], 1)
