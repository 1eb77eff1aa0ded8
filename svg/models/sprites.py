"""Pictures of the parts of something that looks alike in all scenes, such as the arm or its shadow."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .grid import SIDE, cell_centres
from .layers import grid_sample, leaky_linear, output_layer

PARTS = 4
"""Parts of a thing; those before cover those after them."""
BASES = 3
"""Pictures of a part that are blended into one: how it looks depends on the view, the light and the grip."""
WINDOW = 56
"""Width and height of a part's picture, in units of `SIDE`."""
UNIT = 40.0
"""Unit of the logits in the pictures: a step of the optimiser moves them by as much as they need."""
BEYOND = 12.0
"""Logit of not showing a part beyond the border of its picture."""
STRETCH = 3.0
RADIUS = 4.0
"""Radius of the disc that a part is at first."""
NOISE = 0.2
HIDDEN = 32


class Sprites(nn.Module):
    """Parts whose pictures are learned, each at its place, turned and stretched as some numbers say.

    A picture's logits are sampled, so that edges stay sharp wherever they lie between the pixels.
    """

    def __init__(self, inputs: int, channels: int, size: int):
        super().__init__()
        self.cells = WINDOW * size // SIDE
        axis = (torch.arange(self.cells) - (self.cells - 1) / 2) * (SIDE / size)
        pictures = torch.zeros(PARTS, BASES, channels + 1, self.cells, self.cells)
        pictures[:, 1:].normal_(0, NOISE)
        pictures[:, 0, -1] = (RADIUS - torch.hypot(axis[:, None], axis)) / 2
        self.pictures = nn.Parameter(pictures.flatten(0, 1).flatten(2) / UNIT)
        numbers = PARTS * (4 + BASES)
        usual = [1 / STRETCH, 0, 0, 1 / STRETCH, 1, *[0] * (BASES - 1)]  # not turned, and the first picture
        self.straight = output_layer(leaky_linear(inputs, numbers, 0))
        with torch.no_grad():
            self.straight.bias.copy_(torch.tensor(usual * PARTS))
        self.bend = nn.Sequential(
            leaky_linear(inputs, HIDDEN), nn.Tanh(), output_layer(leaky_linear(HIDDEN, numbers, 0.1))
        )

    def forward(self, places: Tensor, numbers: Tensor, cells: int) -> tuple[Tensor, Tensor]:
        """Return the parts' colours [N,PARTS,C,cells,cells] and masks [N,PARTS,1,cells,cells], in [0,1].

        Their middles are at `places` [N,PARTS,2]; `numbers` [N,inputs] say how they look.
        """
        says = (self.straight(numbers) + self.bend(numbers)).unflatten(1, (PARTS, 4 + BASES))
        turns = STRETCH * says[..., :4].unflatten(-1, (2, 2))
        pictures = UNIT * self.pictures.unflatten(0, (PARTS, BASES))
        blended = torch.einsum("npb,pbci->npci", says[..., 4:], pictures)
        # from a place in the picture to one in the part's picture, in [-1,1]
        right, down = cell_centres(cells, places.device).flatten(1)
        moved = torch.cat([turns, -turns @ places[..., None]], -1) * (2 / WINDOW)
        sources = moved @ torch.stack([right, down, torch.ones_like(right)])
        sources = sources.unflatten(-1, (cells, cells)).flatten(0, 1).movedim(1, -1)
        # beyond the border 0 is sampled: that is to be no mask
        beyond = F.pad(blended.new_full((1,), BEYOND), (blended.shape[2] - 1, 0))[:, None]
        pictures = (blended + beyond).unflatten(3, (self.cells, self.cells)).flatten(0, 1)
        sampled = grid_sample(pictures, sources, "zeros") - beyond[..., None]
        sampled = torch.sigmoid(sampled.unflatten(0, places.shape[:2]))
        colours, masks = sampled.split([sampled.shape[2] - 1, 1], 2)
        return colours, masks


def put_together(colours: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the picture [N,C,h,w] of parts that cover one another, and its mask [N,1,h,w]."""
    picture = colours[:, -1]
    covered = masks[:, -1]
    for colour, mask in zip(colours.unbind(1)[-2::-1], masks.unbind(1)[-2::-1], strict=True):
        picture = torch.lerp(picture, colour, mask)
        covered = covered + mask * (1 - covered)
    return picture, covered
