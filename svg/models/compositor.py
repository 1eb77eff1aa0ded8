"""The decoder: pictures of a scene whose objects have moved, under the arm and its shadow."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .hand import MAPS, Hand, offset_maps
from .layers import activate, leaky_conv, leaky_linear, tile_subpixels
from .object_motion import belonging, find_owners, sample
from .scene import FEATURES, LIGHT, Layers, Objects, exact

ARM = 64
"""Channels in which the arm is drawn."""
BELOW = -3.0
"""Start of the logit of the arm's mask: nothing hides the scene."""


class Compositor(nn.Module):
    """Put a picture together from the bottom up: the table, the objects where they are, shadows, the arm.

    What is not covered is the observed picture to the last digit, but for the factor of its light. Layers
    are sampled once, where the motion says; arm and shadows are drawn from the hand's state alone and from
    what lies below, at half resolution, in blocks of four pixels.
    """

    def __init__(self, channels: int, width: int, hand_size: int):
        super().__init__()
        self.parts = (channels, 1, 1)
        self.film = nn.Sequential(
            leaky_linear(hand_size + LIGHT, 96), nn.LeakyReLU(0.1), leaky_linear(96, 4 * ARM, 0.3)
        )
        self.arm = nn.ModuleList([leaky_conv(MAPS, ARM, 1), leaky_conv(ARM, ARM, 1), leaky_conv(ARM, ARM)])
        below = 4 * (channels + 1) + FEATURES
        self.join = nn.ModuleList([leaky_conv(ARM + below, width), leaky_conv(width, width)])
        self.output = leaky_conv(width, 4 * sum(self.parts), 3, 0.1)
        tile_subpixels(self.output)
        assert self.output.bias is not None
        with torch.no_grad():
            self.output.bias[4 * channels : 4 * channels + 4] = BELOW

    def forward(
        self, layers: Layers, objects: Objects, centres: Tensor, turns: Tensor, hand: Hand, states: Tensor
    ) -> Tensor:
        """Draw pictures [N,C,H,W], float32, of N scenes with objects at `centres` [N,K,2] and `turns`.

        `states` [N,state] are the hand's.
        """
        cells = layers.features.shape[-1]
        with exact(states):
            scene, mask = self._below(layers, objects, centres, turns)
            maps = offset_maps(hand.project(states), cells)
        film = self.film(torch.cat([states, layers.light], 1))[..., None, None]
        gain_1, shift_1, gain_2, shift_2 = film.chunk(4, 1)
        arm = activate(self.arm[0](maps) * (1 + gain_1) + shift_1)
        arm = activate(self.arm[1](arm) * (1 + gain_2) + shift_2)
        arm = activate(self.arm[2](arm))
        below = [F.pixel_unshuffle(scene - 0.5, 2), F.pixel_unshuffle(mask, 2), layers.features]
        x = activate(self.join[0](torch.cat([arm, *below], 1)))
        x = x + activate(self.join[1](x))
        x = F.pixel_shuffle(self.output(x).float(), 2)
        drawn, mask, gain = x.split(self.parts, 1)
        return torch.lerp(2 * torch.sigmoid(gain) * scene, torch.sigmoid(drawn), torch.sigmoid(mask))

    @staticmethod
    def _below(layers: Layers, objects: Objects, centres: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scene without the arm [N,C,H,W], and what of it shows objects [N,1,H,W]."""
        owned = find_owners(centres, turns, objects, layers.table.shape[-1])
        channels = layers.table.shape[1]
        maps = [layers.surface, torch.sigmoid(layers.outline), layers.pointed, layers.shade]
        surface, outline, pointed, shade = sample(torch.cat(maps, 1), owned.sources).split(
            [channels, 1, 2, 1], 1
        )
        mask = outline * belonging(pointed, owned.own)
        return torch.lerp(shade * layers.table, surface, mask), mask
