"""Scenes of a page: how they begin, and what was recorded of them."""

from dataclasses import dataclass

import numpy as np

from data_tools.errors import InputError

from ..figures.page import ACROSS, sprite
from ..positions import is_simulated
from ..sequences import SequenceDataset


@dataclass(frozen=True)
class Scene:
    """A recorded sequence.

    Args:
        name: of the sequence.
        frames: uint8 [T,H,W,3].
        actions: float32 [T,A]; the last one is never carried out.
        positions: of the hand, float32 [T,P], metres.
    """

    name: str
    frames: np.ndarray
    actions: np.ndarray
    positions: np.ndarray

    @property
    def conditions(self) -> np.ndarray:
        """Actions and positions side by side, float32 [T,A+P]."""
        return np.concatenate([self.actions, self.positions], 1).astype(np.float32)

    def data(self) -> dict[str, object]:
        """Return the scene as the page's script reads it."""
        return {
            "name": self.name,
            "frames": len(self.frames),
            "across": min(len(self.frames), ACROSS),
            "sprite": sprite(self.frames),
            "actions": self.actions.tolist(),
            "positions": self.positions.tolist(),
        }


def read_scenes(dataset: SequenceDataset, count: int) -> list[Scene]:
    """Return the first `count` sequences of a split, as long as the clips of `dataset`, or all.

    Raises `InputError` unless `svg-data simulate` has made them: the page knows where its camera stands and
    how its hand moves.
    """
    if not is_simulated(dataset.info):
        source = dataset.info.source or "another source"
        expected = "expected data of svg-data simulate, whose camera and hand the page knows"
        raise InputError(f"{dataset.place}: found data of {source}, {expected}")
    return [_read_scene(dataset, number) for number in range(min(count, len(dataset)))]


def _read_scene(dataset: SequenceDataset, number: int) -> Scene:
    length = dataset.clip_length
    frames = dataset.read_frames(number, 0, length).permute(0, 2, 3, 1).numpy()
    conditions = dataset.read_conditions(number, 0, length).numpy()
    return Scene(
        str(dataset.index["sequence"].iat[number]),
        np.ascontiguousarray(frames),
        conditions[:, : dataset.info.action_dim],
        dataset.recorded_positions(number, 0, length),
    )
