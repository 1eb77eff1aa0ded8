"""Check the arguments of `Predictor.predict` and bring them to one form: NumPy or torch, one clip or a batch.

An argument that makes no sense is refused in one line with the expected shape. `Predictor.observe` and
`Predictor.imagine` take tensors as they are and check nothing, so that planning and evaluation lose no time.
"""

import operator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_tools.errors import InputError

from ..config import ModelConfig

ROUNDING = 1e-3
"""How far floats may lie outside of [0,1], as after resizing."""

Array = np.ndarray | Tensor


@dataclass(frozen=True)
class Request:
    """A checked request.

    past                                uint8 or float32 in [0,1], [B,n_past,C,H,W]
    conditions                          [B,n_past+n_future-1,...], or None
    as_array, is_batch, channels_last   the form in which the frames came, and in which the answer goes back
    """

    past: Tensor
    conditions: Tensor | None
    as_array: bool
    is_batch: bool
    channels_last: bool

    def finish(self, futures: Tensor) -> Array:
        """Return frames [S,B,F,C,H,W] in the form of the observed ones: without B for one clip."""
        futures = futures.float() if self.is_batch else futures[:, 0].float()
        if self.channels_last:
            futures = futures.movedim(-3, -1)
        return np.ascontiguousarray(futures.cpu().numpy()) if self.as_array else futures


def check_request(
    config: ModelConfig, past: Array, conditions: Array | None, n_future: int, device: torch.device
) -> Request:
    """Return a request to a model of this configuration, on `device`. Raises `InputError`."""
    frames, is_batch, channels_last = _pictures("past", past, config.channels, config.frame_size)
    batch = len(frames) if is_batch else None
    steps = frames.shape[1] - 1 + n_future
    why = f"{frames.shape[1]} observed, {n_future} predicted"
    check = _poses if config.takes_poses else _numbers
    checked = check(conditions, config, batch, steps, why)
    if checked is not None:
        checked = checked.to(device)
    return Request(frames.to(device), checked, not isinstance(past, Tensor), is_batch, channels_last)


def check_count(name: str, value: int) -> int:
    """Return a whole number of at least 1. Raises `InputError` for anything else."""
    try:
        count = operator.index(value)
    except TypeError:
        count = 0
    if count < 1:
        raise InputError(f"{name}: found {value!r}, expected a whole number of at least 1")
    return count


def _pictures(name: str, values: Array, channels: int, size: tuple[int, int]) -> tuple[Tensor, bool, bool]:
    """Return pictures [B,T,C,H,W], and whether they had a batch dimension and channels last."""
    sides = f"{channels},{size[0]},{size[1]}"
    expected = f"[B,T,{sides}] or, of one clip, [T,{sides}], uint8 or floats in [0,1] (channels may be last)"
    tensor = _tensor(name, values, expected)
    channels_last = tuple(tensor.shape[-3:]) == (*size, channels)
    pictures = tensor.movedim(-1, -3) if channels_last else tensor
    is_batch = pictures.dim() == 5
    has_shape = pictures.dim() in (4, 5) and tuple(pictures.shape[-3:]) == (channels, *size)
    is_number = pictures.dtype == torch.uint8 or pictures.is_floating_point()
    if not has_shape or not pictures.numel() or not is_number:
        raise InputError(f"{name}: found {_shown(tensor)}, expected {expected}")
    if pictures.dtype != torch.uint8:
        pictures = pictures.float()
        _check_range(name, pictures, expected)
    return pictures if is_batch else pictures[None], is_batch, channels_last


def _check_range(name: str, pictures: Tensor, expected: str) -> None:
    """Raise `InputError` for floats out of [0,1]."""
    low, high = (bound.item() for bound in pictures.aminmax())
    if low >= -ROUNDING and high <= 1 + ROUNDING:  # not true of NaN
        return
    is_finite = np.isfinite(low) and np.isfinite(high)
    found = f"values from {low:g} to {high:g}" if is_finite else "values that are not finite"
    advice = "; divide by 255" if low >= 0 and 1 < high <= 255 else ""
    raise InputError(f"{name}: found {found}, expected {expected}{advice}")


def _poses(values: Array | None, config: ModelConfig, batch: int | None, steps: int, why: str) -> Tensor:
    """Return poses [B,steps,C,H,W] for a `batch` of so many clips, None for one without a batch dimension."""
    sides = ",".join(map(str, (config.condition_dim, *config.frame_size)))
    expected = f"poses [{'' if batch is None else f'{batch},'}>={steps},{sides}] ({why})"
    if values is None:
        raise InputError(f"conditions: found None, expected {expected}")
    poses, is_batch, _ = _pictures("conditions", values, config.condition_dim, config.frame_size)
    if (len(poses) if is_batch else None) != batch or poses.shape[1] < steps:
        raise InputError(f"conditions: found {_shown(poses if is_batch else poses[0])}, expected {expected}")
    return poses[:, :steps]


def _numbers(
    values: Array | None, config: ModelConfig, batch: int | None, steps: int, why: str
) -> Tensor | None:
    """Return conditions float32 [B,steps,D], None for a model without; `batch` as of `_poses`."""
    width = config.condition_dim
    if not width:
        if values is not None and 0 not in np.shape(values):
            shape = list(np.shape(values))
            raise InputError(f"conditions: found {shape}, expected None: this model was trained without")
        return None
    leading = [] if batch is None else [batch]
    expected = f"numbers [{''.join(f'{count},' for count in leading)}>={steps},{width}] ({why})"
    if values is None:
        raise InputError(f"conditions: found None, expected {expected}")
    tensor = _tensor("conditions", values, expected)
    shape = list(tensor.shape)
    has_shape = len(shape) >= 2 and shape[:-2] == leading and shape[-2] >= steps and shape[-1] == width
    if not has_shape or tensor.is_complex():
        raise InputError(f"conditions: found {_shown(tensor)}, expected {expected}")
    conditions = tensor[..., :steps, :].float()
    _check_finite(conditions)
    return conditions[None] if batch is None else conditions


def _check_finite(conditions: Tensor) -> None:
    """Raise `InputError` that names the first number that is not finite in [B,T,D] or [T,D]."""
    wrong = (~conditions.isfinite()).nonzero()
    if not len(wrong):
        return
    value = conditions[tuple(wrong[0])].item()
    *clip, row, column = wrong[0].tolist()
    place = f"{f'clip {clip[0]}, ' if clip else ''}row {row}, column {column} (counted from 0)"
    raise InputError(f"conditions: found {value:g} in {place}, expected finite numbers")


def _tensor(name: str, values: Array, expected: str) -> Tensor:
    """Return values as a tensor, of an array a copy. Raises `InputError` unless they are numbers."""
    if isinstance(values, Tensor):
        return values.detach()
    try:
        array = np.asarray(values)
        return torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))
    except (TypeError, ValueError):  # of other kinds, or ragged
        kind = f"a {type(values).__name__}"
        if isinstance(values, np.ndarray):
            kind = f"an array of {values.dtype}"
        raise InputError(f"{name}: found {kind}, expected {expected}") from None


def _shown(values: Tensor) -> str:
    return f"{str(values.dtype).removeprefix('torch.')} {list(values.shape)}"
