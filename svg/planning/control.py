"""Receding-horizon control: plan, carry out the first actions, look, plan again."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .problem import Cost, Limit, Problem, Proposal, Solution, shifted
from .solvers import Solver
from .world import Imagined, Seen

World = Callable[[Tensor], Imagined]
"""Imagines plans [B,S,H,A] from where things are."""


@dataclass(frozen=True)
class Task:
    """What is planned for, as things are now.

    Args:
        world: imagines plans.
        cost: what they cost, such as ``costs.of(world, objective)``.
        proposal: draws plans to begin with, if any.
        limit: what they have to keep to, if anything.
        is_done: nothing is left to do: the hand stays.
    """

    world: World
    cost: Cost
    proposal: Proposal | None = None
    limit: Limit | None = None
    is_done: bool = False


@dataclass(frozen=True)
class Settings:
    """How far a controller looks, and how often.

    Args:
        low: the least value of each number of an action.
        high: the greatest.
        decisions: of a plan.
        hold: frames for which a decision is kept.
        replan: frames after which it plans again, at most ``decisions * hold``.
        n_past: frames that it has to see before its first plan.
        rest: the action that does nothing; zeros by default.
    """

    low: Sequence[float]
    high: Sequence[float]
    decisions: int = 5
    hold: int = 2
    replan: int = 4
    n_past: int = 2
    rest: Sequence[float] | None = None


@dataclass
class Replan:
    """A plan that was made.

    Args:
        frame: the number of the frame in which it was made.
        solution: see `problem.Solution`.
        seconds: that it took.
        actions: how many of it are carried out.
        world: what it was imagined by.
    """

    frame: int
    solution: Solution
    seconds: float
    actions: int
    world: World = field(repr=False)

    @cached_property
    def imagined(self) -> Imagined:
        """What the plan was to lead to."""
        return self.world(self.solution.plan[:, None])


class Controller:
    """Say what to do next, frame by frame.

    Args:
        look: returns the `Task` of a moment from what has been `Seen`, of a single scene.
        solver: finds the plans.
        settings: see `Settings`.
        seed: of all random numbers.
    """

    def __init__(self, look: Callable[[Seen], Task], solver: Solver, settings: Settings, seed: int = 0):
        self.settings = settings
        self.replans: list[Replan] = []
        self._look = look
        self._solver = solver
        self._generator = torch.Generator().manual_seed(seed)
        self._low = torch.tensor(settings.low, dtype=torch.float32)
        self._high = torch.tensor(settings.high, dtype=torch.float32)
        self._rest = torch.zeros_like(self._low) if settings.rest is None else torch.tensor(settings.rest)
        self._frames: list[np.ndarray] = []
        self._positions: list[np.ndarray] = []
        self._actions: list[Tensor] = []
        self._queue: list[Tensor] = []
        self._last: Tensor | None = None  # the decisions of the last plan
        self._carried_out = 0  # frames of it

    def __call__(self, frame: np.ndarray, position: np.ndarray | Sequence[float] = ()) -> np.ndarray:
        """Return the action [A], float32, to carry out now.

        `frame` uint8 [H,W,C] is what the camera sees now, after all actions returned before, and `position`
        [P] where the hand is now.
        """
        self._frames.append(frame)
        self._positions.append(np.asarray(position, np.float32))
        if not self._queue:
            self._queue = self._decide()
        action = self._queue.pop(0)
        self._actions.append(action)
        return action.numpy().copy()

    def _decide(self) -> list[Tensor]:
        """Return the actions of the coming frames."""
        if len(self._frames) < self.settings.n_past:
            return [self._rest]
        began = time.perf_counter()
        task = self._look(self._seen())
        if task.is_done:
            self._last = None
            return [self._rest]
        problem = Problem(
            task.cost,
            self._start(),
            self._low,
            self._high,
            self.settings.hold,
            task.proposal,
            task.limit,
            self._generator,
        )
        solution = self._solver.solve(problem)
        seconds = time.perf_counter() - began
        actions = list(solution.plan[0, : self.settings.replan].unbind(0))
        self.replans.append(Replan(len(self._frames) - 1, solution, seconds, len(actions), task.world))
        self._last = solution.decisions
        self._carried_out = len(actions)
        return actions

    def _start(self) -> Tensor:
        """Return the decisions [1,K,A] to begin with: what is left of the last plan, or rest."""
        if self._last is None:
            return self._rest.expand(1, self.settings.decisions, -1)
        return shifted(self._last, self._carried_out // self.settings.hold)

    def _seen(self) -> Seen:
        """Return the last `n_past` frames with what was done between them."""
        count = self.settings.n_past
        frames = torch.from_numpy(np.stack(self._frames[-count:])).movedim(-1, 1)[None]
        positions = torch.from_numpy(np.stack(self._positions[-count:]))[None]
        between = self._actions[len(self._actions) - count + 1 :]
        actions = torch.stack(between)[None] if between else self._rest[None, None][:, :0]
        return Seen(frames, actions, positions)
