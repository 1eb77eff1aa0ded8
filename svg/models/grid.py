"""Places in a picture, in units that do not depend on its resolution."""

import torch
from torch import Tensor

SIDE = 64
"""Width and height of a picture in the units of places in it, whatever its resolution: pixels of 64x64."""


def cell_centres(cells: int, device: torch.device | None = None) -> Tensor:
    """Return the centres of a grid of cells over the picture [2,cells,cells], to the right and down."""
    return square((torch.arange(cells, device=device) + 0.5) * (SIDE / cells) - 0.5)


def square(axis: Tensor) -> Tensor:
    """Return the places [2,n,n], to the right and down, whose coordinates are those of `axis` [n]."""
    down, right = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([right, down])
