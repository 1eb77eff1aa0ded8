"""Our models for the solvers of others: `GoalCost` has the method of stable-worldmodel's models."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from data_tools.errors import InputError

from ..models.predictor import Predictor
from .costs import GoalImage, Objective
from .world import Seen, world_of


class GoalCost:
    """What plans cost by a model, ``get_cost(info, actions [B,S,H,A]) -> [B,S]``.

    So the solvers of stable-worldmodel (``CEMSolver(GoalCost(svg.load("push-objects")))``) plan with it.

    Args:
        model: see `world.world_of`.
        objective: returns the cost of what is imagined from `info`; by default the squared error of the last
            imagined frame to the picture ``info["goal"]``.
        positions: the key in `info` of the hand's position.
        scale: what actions are multiplied by, [A] or a number, for solvers whose actions are in [-1,1].
    """

    def __init__(
        self,
        model: Predictor,
        objective: Callable[[dict[str, Any]], Objective] | None = None,
        positions: str = "hand",
        scale: Tensor | float = 1.0,
    ):
        self.model = model
        self._objective = objective or _last_frame
        self._positions = positions
        self._scale = scale

    def get_cost(self, info: dict[str, Any], action_candidates: Tensor) -> Tensor:
        """Return the costs [B,S] of `action_candidates` [B,S,H,A].

        Of `info` are read: ``pixels`` [B,S,T,C,H,W] (uint8 or in [0,1], the same for all S), the last T
        frames; ``action`` [B,S,T,A], by which each of them was reached (that of the first is not read);
        `positions` [B,S,T,P], if the model was trained with them; ``goal``, a picture like one of the frames,
        [B,S,(1,)C,H,W], for the default objective. Raises `InputError` if one is missing.
        """
        frames = _first(info, "pixels")
        count = frames.shape[1]
        batch, _, _, width = action_candidates.shape
        config = self.model.config
        expected = config.action_dim or width  # not every model knows which of its conditions are actions
        if width != expected or width > config.condition_dim:
            raise InputError(f"actions: found {width} numbers, expected {expected}")
        actions = frames.new_zeros(batch, 0, width, dtype=torch.float32)
        if count > 1:
            actions = self._scale * _first(info, "action")[:, 1:count].float()
        positions = actions.new_zeros(batch, count, 0)
        if config.condition_dim > width:
            positions = _first(info, self._positions)[:, :count].float()
        world = world_of(self.model, Seen(frames, actions, positions))
        return self._objective(info)(world(self._scale * action_candidates.float()))


def _last_frame(info: dict[str, Any]) -> Objective:
    goal = _first(info, "goal")
    return GoalImage(goal if goal.dim() == 4 else goal[:, -1], (-1,))


def _first(info: dict[str, Any], key: str) -> Tensor:
    """Return what `info` holds of the first plan, which is that of all, [B,...]."""
    if key not in info:
        raise InputError(f"info: found {', '.join(info)}, expected {key} among them")
    return torch.as_tensor(info[key])[:, 0]
