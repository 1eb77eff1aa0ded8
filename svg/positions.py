"""Future positions of the end effector, which nobody has measured yet: integrated from the actions, or held.

Time as in `data_tools.layout`: ``positions[t]`` is at time t, ``actions[t]`` is carried out between t and
t+1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_tools.errors import InputError
from data_tools.layout import SIMULATED_PUSHING, DatasetInfo

Columns = Sequence[tuple[int, int]]
"""Pairs (action column, position column), counted from 0."""


@dataclass(frozen=True)
class Target:
    """A position column that an action sends to a place instead of moving it by a distance.

    The column `position` goes to ``low + step * actions[..., action]``, by at most `speed` in one frame.
    """

    action: int
    position: int
    low: float = 0.0
    step: float = 1.0
    speed: float = float("inf")


SIMULATED_HEIGHT = Target(action=2, position=2, low=0.012, step=0.03, speed=0.045)
"""The height of the hand that `svg-data simulate` moves, in metres, which follows ``lift``."""


def integrate_positions(
    position: np.ndarray | Tensor,
    actions: np.ndarray | Tensor,
    columns: Columns = ((0, 0), (1, 1)),
    targets: Sequence[Target] = (),
) -> np.ndarray | Tensor:
    """Return the position of the end effector at the start of each action, [...,T,P].

    The first one is `position`.

    ``cat([actions, integrate_positions(position, actions)], -1)`` are the conditions of the T frames that
    follow.

    Args:
        position: [...,P], the last observed one, in the units of the data.
        actions: [...,T,A] from the same frame on. Leading dimensions are broadcast: for N plans of each of B
            clips `position` is [B,1,P] and `actions` [B,N,T,A].
        columns: pairs of an action column and the position column that it displaces:
            ``positions[t+1] = positions[t] + actions[t]``. By default the first two of each, as on the robot
            of `svg-data simulate`.
        targets: position columns that move to where their action says. ``targets=[svg.SIMULATED_HEIGHT]`` is
            the height of the hand of `svg-data simulate`.

    All other position columns are held. Obstacles and the reach of the robot are not considered.

    Returns a tensor if one was given (gradients flow to both), else an array. Raises `InputError` for other
    shapes and for unknown columns.
    """
    as_array = not isinstance(position, Tensor) and not isinstance(actions, Tensor)
    start, commands = _aligned(_floating("position", position), _floating("actions", actions))
    pairs = [(target.action, target.position) for target in targets]
    _check_columns([*columns, *pairs], commands.shape[-1], start.shape[-1])
    steps = commands.shape[-2]
    courses = list(start[..., None, :].expand(*start.shape[:-1], steps, -1).unbind(-1))
    for action, column in columns:
        moved = commands[..., :-1, action].cumsum(-1)
        first = start[..., None, column]
        courses[column] = torch.cat([first, first + moved], -1)[..., :steps]
    for target in targets:
        courses[target.position] = _approach(
            start[..., target.position], commands[..., target.action], target
        )
    positions = torch.stack(courses, -1)
    return positions.numpy() if as_array else positions


def _aligned(position: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Return position [...,P] and actions [...,T,A] with the same leading dimensions, type and device.

    Raises `InputError` for shapes that do not fit.
    """
    found = f"found a position {list(position.shape)} and actions {list(actions.shape)}"
    if position.dim() < 1 or actions.dim() < 2:
        raise InputError(f"{found}, expected [...,P] and [...,T,A]")
    try:
        leading = torch.broadcast_shapes(position.shape[:-1], actions.shape[:-2])
    except RuntimeError:
        expected = "expected [...,P] and [...,T,A], for N plans of each of B clips [B,1,P] and [B,N,T,A]"
        raise InputError(f"{found}: their leading dimensions do not fit; {expected}") from None
    dtype = torch.promote_types(position.dtype, actions.dtype)
    position = position.to(actions.device, dtype).expand(*leading, position.shape[-1])
    return position, actions.to(dtype).expand(*leading, *actions.shape[-2:])


def _approach(start: Tensor, commands: Tensor, target: Target) -> Tensor:
    """Return the course [...,T] of a column from `start` [...] under `commands` [...,T]."""
    course = [start]
    for command in commands.unbind(-1)[:-1]:
        way = target.low + target.step * command - course[-1]
        course.append(course[-1] + way.clamp(-target.speed, target.speed))
    return torch.stack(course, -1)[..., : commands.shape[-1]]


def _floating(name: str, values: np.ndarray | Tensor) -> Tensor:
    """Return numbers as a floating-point tensor. Raises `InputError` for anything else."""
    if isinstance(values, Tensor):
        return values if values.is_floating_point() else values.float()
    array = np.array(values)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name}: found {array.dtype}, expected numbers")
    dtype = array.dtype if array.dtype in (np.float32, np.float64) else np.float32
    return torch.from_numpy(array.astype(dtype))


def _check_columns(pairs: Columns, actions: int, positions: int) -> None:
    """Raise `InputError` for unknown columns and for a position column that is named twice."""
    for action, position in pairs:
        if not 0 <= action < actions or not 0 <= position < positions:
            found = f"found action {action} for position {position}"
            expected = f"expected actions from 0 to {actions - 1} and positions from 0 to {positions - 1}"
            raise InputError(f"columns: {found}, {expected}")
    named = [position for _, position in pairs]
    if len(set(named)) < len(named):
        raise InputError(f"columns: found {named} as positions, expected each at most once")


@dataclass(frozen=True)
class FuturePositions:
    """A replacement for the positions after the first `n_past` frames, which only a recording knows.

    Args:
        how: ``integrated`` from the actions, or ``held`` at the last observed place.
        n_past: number of observed frames.
        columns: as in `integrate_positions`. If empty, the first two displacements, and in data of
            `svg-data simulate` the height of its hand.
    """

    how: str
    n_past: int
    columns: tuple[tuple[int, int], ...] = ()

    def motion(self, info: DatasetInfo) -> tuple[Columns, Sequence[Target]]:
        """Return `columns` and `targets` of `integrate_positions` for these data.

        Raises `InputError` if the data lack these columns.
        """
        if self.how == "held":
            return (), ()
        if not info.action_dim:
            found = f"found integrated, but the data set {info.name} has no actions to integrate"
            raise InputError(found, "positions")
        if self.columns:
            _check_columns(self.columns, info.action_dim, info.position_dim)
            return self.columns, ()
        usual = tuple((column, column) for column in range(min(2, info.action_dim, info.position_dim)))
        return usual, (SIMULATED_HEIGHT,) if is_simulated(info) else ()

    def describe(self, info: DatasetInfo) -> str:
        """Return in words where the positions come from."""
        if self.how == "held":
            return "positions held where they were last observed"
        columns, targets = self.motion(info)
        if targets:
            return "positions integrated from them (x, y and height, as svg-data simulate's hand moves)"
        pairs = " ".join(f"{action}:{position}" for action, position in columns)
        return f"positions integrated from them (displacements action:position {pairs}, other columns held)"

    def replace(self, conditions: np.ndarray, info: DatasetInfo) -> np.ndarray:
        """Return conditions [...,T,A+P] with these positions.

        `conditions` have all columns and begin at the first observed frame.
        """
        if conditions.shape[-2] <= self.n_past:
            return conditions
        last = self.n_past - 1  # observed
        width = info.action_dim
        actions = conditions[..., last:, :width]
        position = conditions[..., last, width:]
        replaced = conditions.copy()
        replaced[..., last:, width:] = integrate_positions(position, actions, *self.motion(info))
        return replaced


def is_simulated(info: DatasetInfo) -> bool:
    """Return whether data come from `svg-data simulate`, by their ``dataset.json``."""
    return info.source == SIMULATED_PUSHING and (info.action_dim, info.position_dim) == (4, 3)
