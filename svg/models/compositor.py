"""The decoder: pictures of a scene whose objects have moved, under the arm and its shadow."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .hand import LIGHT, MAPS, Hand, carried_from, offset_maps
from .layers import (
    SLOPE,
    activate,
    leaky_block,
    leaky_conv,
    leaky_linear,
    make_norm,
    output_layer,
    tile_subpixels,
)
from .object_motion import belonging, find_owners, sample
from .scene import FEATURES, Layers, Objects, exact

ARM = 64
"""Channels in which the arm is drawn."""
BELOW = -4.0
"""Start of the logits of what is drawn over the scene and of what darkens it: next to nothing does."""


@dataclass(frozen=True)
class Picture:
    """N pictures [N,C,H,W], float32, with what they were before anything was drawn.

    frames      as they are
    carried     [N,C,H,W]: taken from the observed frame alone
    arm         [N,1,H,W]: what of `carried` shows the arm
    """

    frames: Tensor
    carried: Tensor
    arm: Tensor


class Compositor(nn.Module):
    """Put a picture together from the bottom up: the table, the objects where they are, shadows, the arm.

    Everything is taken from the observed frame in one step, where the motion says: objects with their
    shadows, the arm's shadow and the arm itself, carried by points whose places follow from the hand's state.
    What that leaves to be drawn is drawn from this state and from the picture so far, at half resolution, in
    blocks of four pixels.
    """

    def __init__(self, channels: int, width: int, norm: str, hand_size: int):
        super().__init__()
        self.parts = (channels, 1, 1)
        self.film = nn.Sequential(
            leaky_linear(hand_size + LIGHT, 96),
            nn.LeakyReLU(SLOPE),
            output_layer(leaky_linear(96, 4 * ARM, 0.3)),
        )
        self.arm = nn.ModuleList([leaky_conv(MAPS, ARM, 1), leaky_conv(ARM, ARM, 1)])
        self.arm_norms = nn.ModuleList([make_norm(norm, ARM) for _ in range(2)])
        self.arm_block = leaky_block(ARM, ARM, norm)
        below = 4 * (channels + 2) + FEATURES
        self.join = nn.ModuleList([leaky_block(ARM + below, width, norm), leaky_block(width, width, norm)])
        self.output = output_layer(leaky_conv(width, 4 * sum(self.parts), 3, 0.1))
        tile_subpixels(self.output)
        assert self.output.bias is not None
        with torch.no_grad():
            self.output.bias[4 * channels :] = BELOW

    def forward(
        self, layers: Layers, objects: Objects, centres: Tensor, turns: Tensor, hand: Hand, states: Tensor
    ) -> Picture:
        """Draw pictures of N scenes with objects at `centres` [N,K,2] and `turns`.

        `states` [N,state] are the hand's.
        """
        cells = layers.features.shape[-1]
        with exact(states):
            scene, mask = self._below(layers, objects, centres, turns)
            points = hand.project(states)
            scene, arm_mask = self._with_arm(scene, layers, hand, states, points)
            maps = offset_maps(points, cells)
        film = self.film(torch.cat([states, layers.light], 1))[..., None, None]
        gain_1, shift_1, gain_2, shift_2 = film.chunk(4, 1)
        arm = activate(self.arm_norms[0](self.arm[0](maps)) * (1 + gain_1) + shift_1)
        arm = activate(self.arm_norms[1](self.arm[1](arm)) * (1 + gain_2) + shift_2)
        arm = self.arm_block(arm)
        masks = torch.cat([mask, arm_mask], 1)
        below = [F.pixel_unshuffle(scene - 0.5, 2), F.pixel_unshuffle(masks, 2), layers.features]
        x = self.join[0](torch.cat([arm, *below], 1))
        x = x + self.join[1](x)
        x = F.pixel_shuffle(self.output(x).float(), 2)
        drawn, mask, gain = x.split(self.parts, 1)
        darkened = scene * (1 - torch.sigmoid(gain))
        return Picture(torch.lerp(darkened, torch.sigmoid(drawn), torch.sigmoid(mask)), scene, arm_mask)

    @staticmethod
    def _with_arm(
        scene: Tensor, layers: Layers, hand: Hand, states: Tensor, points: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return `scene` [N,C,H,W] under the arm and its shadow, and what of it shows the arm [N,1,H,W].

        `points` are those of the arm in the hand's `states`.
        """
        cells = scene.shape[-1]
        shadow = hand.project_shadow(states, layers.light), hand.project_shadow(layers.state, layers.light)
        scene = scene * sample(layers.arm_shade, carried_from(*shadow, cells))
        maps = torch.cat([layers.last, torch.sigmoid(layers.arm)], 1)
        carried = sample(maps, carried_from(points, hand.project(layers.state), cells))
        arm, mask = carried.split([scene.shape[1], 1], 1)
        return torch.lerp(scene, arm, mask), mask

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
