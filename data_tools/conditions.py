"""The form of conditions: what a model is given for each frame beside the observed frames."""

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from .layout import ACTIONS_FILE, POSITIONS_FILE, DatasetInfo


@dataclass(frozen=True)
class ConditionSpec:
    """The condition of one frame: a row of numbers (actions and positions), or an image (a pose).

    Args:
        shape: (D,) of numbers, (H,W,C) of an image.
        dtype: ``float32`` of numbers, ``uint8`` of an image.
        columns: where each of the numbers comes from, such as ``actions.csv column 1``; empty for an image.
    """

    shape: tuple[int, ...]
    dtype: str
    columns: tuple[str, ...] = ()

    @classmethod
    def of(cls, info: DatasetInfo, height: int, width: int) -> Self:
        """Return the form of the conditions of a data set with frames of this size."""
        if info.pose_channels:
            return cls((height, width, info.pose_channels), "uint8")
        tables = ((ACTIONS_FILE, info.action_dim), (POSITIONS_FILE, info.position_dim))
        names = [f"{file} column {number}" for file, count in tables for number in range(1, count + 1)]
        return cls((info.condition_dim,), "float32", tuple(names))

    @property
    def is_image(self) -> bool:
        """Return whether the condition of a frame is an image, which belongs to the next frame."""
        return len(self.shape) == 3

    @property
    def channels(self) -> int:
        """Return the number of columns, or of channels of the image."""
        return self.shape[-1]

    @property
    def nbytes(self) -> int:
        """Return the bytes that the condition of one frame takes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def empty(self, *leading: int) -> np.ndarray:
        """Return an array [*leading, *shape] to be filled."""
        return np.empty((*leading, *self.shape), self.dtype)

    def select(self, columns: slice) -> Self:
        """Return the form of the conditions of which `pick` has taken these columns."""
        if self.is_image:
            return self
        names = self.columns[columns]
        return replace(self, shape=(len(names),), columns=names)

    def pick(self, conditions: np.ndarray, columns: slice) -> np.ndarray:
        """Return these columns of conditions [...,D]; images as they are."""
        return conditions if self.is_image else conditions[..., columns]

    def numbers(self, conditions: np.ndarray) -> np.ndarray:
        """Return conditions [T,...] as rows of numbers [T,D], for statistics; of images D is 0."""
        return np.empty((len(conditions), 0), np.float32) if self.is_image else conditions

    def images(self, conditions: np.ndarray) -> np.ndarray:
        """Return the images among conditions [T,...]: all [T,H,W,C], or none [0,...]."""
        return conditions if self.is_image else conditions[:0]
