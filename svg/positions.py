"""Positions of the end effector that nobody has measured yet: integrated from the actions, or held.

Time as in `data_tools.layout`: ``positions[t]`` is at time t, ``actions[t]`` is carried out between t and t+1.
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
    """Return where the end effector is when each of the actions begins, [...,T,P]: at first at `position`.

    ``cat([actions, integrate_positions(position, actions)], -1)`` are the conditions of the T frames that follow.

    Args:
        position: [...,P], the last observed one, in the data's own units.
        actions: [...,T,A] from the same frame on. Leading dimensions are broadcast: for N plans of each of B clips
            `position` is [B,1,P] and `actions` [B,N,T,A].
        columns: pairs of an action column and the position column that it displaces:
            ``positions[t+1] = positions[t] + actions[t]``. By default the first two of each, as on the robot of
            `svg-data simulate`.
        targets: position columns that go where their action says. ``targets=[svg.SIMULATED_HEIGHT]`` is the height
            of the hand of `svg-data simulate`.

    All other position columns are held. Nothing jams here, and no limit of the robot's reach is known.

    Returns a tensor if one was given (gradients flow to both), else an array. Raises `InputError` for other shapes
    and for columns that there are not.
    """
    as_array = not isinstance(position, Tensor) and not isinstance(actions, Tensor)
    position, actions = _floating("position", position), _floating("actions", actions)
    if position.dim() < 1 or actions.dim() < 2:
        raise InputError(
            f"found a position {list(position.shape)} and actions {list(actions.shape)}, expected [...,P] and [...,T,A]"
        )
    dtype, device = torch.promote_types(position.dtype, actions.dtype), actions.device
    position, actions = position.to(device, dtype), actions.to(dtype)
    try:
        leading = torch.broadcast_shapes(position.shape[:-1], actions.shape[:-2])
    except RuntimeError:
        raise InputError(
            f"found a position {list(position.shape)} and actions {list(actions.shape)}: their leading dimensions do not fit; "
            "expected [...,P] and [...,T,A], for N plans of each of B clips [B,1,P] and [B,N,T,A]"
        ) from None
    pairs = [(target.action, target.position) for target in targets]
    _check_columns([*columns, *pairs], actions.shape[-1], position.shape[-1])
    steps = actions.shape[-2]
    actions = actions.expand(*leading, *actions.shape[-2:])
    start = position.expand(*leading, position.shape[-1])
    courses = list(start[..., None, :].expand(*leading, steps, -1).unbind(-1))
    for action, column in columns:
        moved = actions[..., :-1, action].cumsum(-1)
        courses[column] = torch.cat([start[..., None, column], start[..., None, column] + moved], -1)[
            ..., :steps
        ]
    for target in targets:
        courses[target.position] = _approach(start[..., target.position], actions[..., target.action], target)
    positions = torch.stack(courses, -1)
    return positions.numpy() if as_array else positions


def _approach(start: Tensor, commands: Tensor, target: Target) -> Tensor:
    """The course [...,T] of a column from `start` [...] under `commands` [...,T]."""
    course = [start]
    for command in commands.unbind(-1)[:-1]:
        way = target.low + target.step * command - course[-1]
        course.append(course[-1] + way.clamp(-target.speed, target.speed))
    return torch.stack(course, -1)[..., : commands.shape[-1]]


def _floating(name: str, values: np.ndarray | Tensor) -> Tensor:
    """Numbers as a floating-point tensor. Raises `InputError` for anything else."""
    if not isinstance(values, Tensor):
        array = np.array(values)
        if array.dtype.kind not in "fiub":
            raise InputError(f"{name}: found {array.dtype}, expected numbers")
        values = torch.from_numpy(
            array.astype(array.dtype if array.dtype in (np.float32, np.float64) else np.float32)
        )
    return values if values.is_floating_point() else values.float()


def _check_columns(pairs: Columns, actions: int, positions: int) -> None:
    """Raise `InputError` for columns that there are not and for a position column that is named twice."""
    for action, position in pairs:
        if not 0 <= action < actions or not 0 <= position < positions:
            raise InputError(
                f"columns: found action {action} for position {position}, expected actions from 0 to {actions - 1} and positions "
                f"from 0 to {positions - 1}"
            )
    named = [position for _, position in pairs]
    if len(set(named)) < len(named):
        raise InputError(f"columns: found {named} as positions, expected each at most once")


@dataclass(frozen=True)
class FuturePositions:
    """What stands for the positions after the first `n_past` frames, which only a recording knows.

    Args:
        how: ``integrated`` from the actions, or ``held`` where they were last observed.
        n_past: observed frames.
        columns: as of `integrate_positions`; none: the first two displacements, and in data of `svg-data simulate`
            the height of its hand.
    """

    how: str
    n_past: int
    columns: tuple[tuple[int, int], ...] = ()

    def motion(self, info: DatasetInfo) -> tuple[Columns, Sequence[Target]]:
        """Return `columns` and `targets` of `integrate_positions` for these data.

        Raises `InputError` for columns that they have not.
        """
        if self.how == "held":
            return (), ()
        if not info.action_dim:
            raise InputError(
                f"found integrated, but the data set {info.name} has no actions to integrate", "positions"
            )
        if self.columns:
            _check_columns(self.columns, info.action_dim, info.position_dim)
            return self.columns, ()
        usual = tuple((column, column) for column in range(min(2, info.action_dim, info.position_dim)))
        return usual, (SIMULATED_HEIGHT,) if is_simulated(info) else ()

    def describe(self, info: DatasetInfo) -> str:
        """Say in words how the positions come about."""
        if self.how == "held":
            return "positions held where they were last observed"
        columns, targets = self.motion(info)
        if targets:
            return "positions integrated from them (x, y and height, as svg-data simulate's hand moves)"
        pairs = " ".join(f"{action}:{position}" for action, position in columns)
        return f"positions integrated from them (displacements action:position {pairs}, other columns held)"

    def replace(self, conditions: np.ndarray, info: DatasetInfo) -> np.ndarray:
        """Return conditions [...,T,A+P], of all columns and from the first observed frame on, with these positions."""
        known, width = self.n_past - 1, info.action_dim
        if conditions.shape[-2] <= self.n_past:
            return conditions
        actions, position = conditions[..., known:, :width], conditions[..., known, width:]
        replaced = conditions.copy()
        replaced[..., known:, width:] = integrate_positions(position, actions, *self.motion(info))
        return replaced


def is_simulated(info: DatasetInfo) -> bool:
    """Whether data are of `svg-data simulate`, by what their ``dataset.json`` says."""
    return info.source == SIMULATED_PUSHING and (info.action_dim, info.position_dim) == (4, 3)
