"""What a plan costs, by what it leads to.

A cost maps `world.Imagined` to numbers [B,S], the less the better. One of your own is a function:

    def stay_to_the_left(imagined):
        return imagined.hand[..., 0].clamp(min=0).sum(2)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from data_tools.errors import InputError

from ..models.predictor import as_images
from .problem import Cost
from .world import Imagined

Objective = Callable[[Imagined], Tensor]
"""Maps what plans lead to, to their costs [B,S]."""
Place = Callable[[Tensor], Tensor]
"""Maps pixels [...,M,2] of M things to places [...,M,2] in the unit that distances are to be in."""


@dataclass(frozen=True)
class GoalImage:
    """The squared error to a picture of the goal.

    With ``times=None`` and ``blur=0`` it is that of VP2 (Tian et al. 2023): summed over all imagined frames,
    pixels and channels of pictures in [0,1].

    Args:
        goal: uint8 or float in [0,1], [B,C,H,W].
        times: the frames that are compared, negative ones counted from the end; None for all.
        blur: pixels by which both are blurred before, twice: what is near its goal then costs less than what
            is far from it.
    """

    goal: Tensor
    times: Sequence[int] | None = None
    blur: int = 0

    def __call__(self, imagined: Imagined) -> Tensor:
        times = range(imagined.plans.shape[2]) if self.times is None else self.times
        frames = imagined.frames(list(times))
        errors = frames - as_images(self.goal)[:, None, None]
        if self.blur:
            flat = errors.flatten(0, 2)
            for _ in range(2):
                flat = F.avg_pool2d(flat, 2 * self.blur + 1, 1, self.blur)
            errors = flat.unflatten(0, frames.shape[:3])
        return errors.square().sum((2, 3, 4, 5))


@dataclass(frozen=True)
class ThingsAt:
    """The mean distance of the marked things from their goals, at the end and, less, on the way.

    Args:
        goals: [B,M,2], in the unit of `place`.
        place: from pixels to that unit; pixels themselves if None.
        last: frames at the end whose mean distance counts `share`; that of all frames counts the rest.
        share: see there.
    """

    goals: Tensor
    place: Place | None = None
    last: int = 3
    share: float = 0.75

    def __call__(self, imagined: Imagined) -> Tensor:
        away = (_points(imagined, self.place) - self.goals[:, None, None]).norm(dim=-1).mean(3)
        return self.share * away[:, :, -self.last :].mean(2) + (1 - self.share) * away.mean(2)


@dataclass(frozen=True)
class HandNear:
    """The least distance of the hand from the nearest thing that is not yet at its goal.

    It leads a hand to things that no plan reaches yet.

    Args:
        things: their places now, [B,M,2], in the units of the hand's position.
        open: which of them count, bool [B,M]; all if None.
    """

    things: Tensor
    open: Tensor | None = None

    def __call__(self, imagined: Imagined) -> Tensor:
        away = torch.cdist(imagined.hand[..., :2].flatten(1, 2), self.things)  # [B,S*H,M]
        if self.open is not None:
            away = away.masked_fill(~self.open[:, None], torch.inf)
        return away.amin(2).unflatten(1, imagined.hand.shape[1:3]).amin(2)


@dataclass(frozen=True)
class HandAt:
    """The mean distance of the hand from `goal` [B,2 or 3], at the end and, less, on the way.

    As `ThingsAt`, in the units of the hand's position.
    """

    goal: Tensor
    last: int = 3
    share: float = 0.75

    def __call__(self, imagined: Imagined) -> Tensor:
        away = (imagined.hand[..., : self.goal.shape[-1]] - self.goal[:, None, None]).norm(dim=-1)
        return self.share * away[:, :, -self.last :].mean(2) + (1 - self.share) * away.mean(2)


@dataclass(frozen=True)
class Effort:
    """The sum of the absolute values of the first `numbers` of the actions."""

    numbers: int = 2

    def __call__(self, imagined: Imagined) -> Tensor:
        return imagined.plans[..., : self.numbers].abs().sum((2, 3))


@dataclass(frozen=True)
class Total:
    """A weighted sum of costs.

    Args:
        parts: pairs of a weight and a cost.
        evenly: whether each is divided by its spread over the plans (the distance of its quartiles), so that
            costs of different units can be added.
    """

    parts: Sequence[tuple[float, Objective]]
    evenly: bool = False

    def __call__(self, imagined: Imagined) -> Tensor:
        total = imagined.plans.new_zeros(imagined.plans.shape[:2])
        for weight, objective in self.parts:
            cost = objective(imagined)
            if self.evenly:
                low, high = torch.quantile(cost.detach(), cost.new_tensor([0.25, 0.75]), 1)
                cost = cost / (high - low).clamp(min=1e-6)[:, None]
            total = total + weight * cost
        return total


def of(world: Callable[[Tensor], Imagined], objective: Objective) -> Cost:
    """Return what plans cost by what `world` imagines."""
    return lambda plans: objective(world(plans))


def cautious(costs: Sequence[Cost], caution: float = 1.0) -> Cost:
    """Return the mean of the costs by several models, plus `caution` times their standard deviation.

    Plans that an ensemble disagrees about are avoided.
    """

    def cost(plans: Tensor) -> Tensor:
        if len(costs) == 1:
            return costs[0](plans)
        values = torch.stack([member(plans) for member in costs])
        return values.mean(0) + caution * values.std(0, correction=0)

    return cost


def _points(imagined: Imagined, place: Place | None) -> Tensor:
    if imagined.points is None:
        raise InputError("marks: found none, expected those of the things that are to be at a place")
    return imagined.points if place is None else place(imagined.points)
