"""The decoder: pictures of a scene whose objects have moved, under the arm and its shadow."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .hand import Hand, carried_from
from .layers import leaky_block, leaky_conv, leaky_linear, output_layer, tile_subpixels
from .object_motion import find_owners, sample, unturned
from .scene import DESCRIPTION, FAR_OFF, FEATURES, Layers, Objects, exact

BELOW = -4.0
"""Start of the logits of what is drawn over the scene and of what darkens it: next to nothing does."""
BEHIND = -2.0
"""Start of the logit of whether an object is before the fingers."""
OWN = 1.5
"""Distance over which centres tell objects apart, in units of `grid.SIDE`."""
MOVED = 0.5
"""Distance from where it was from which on an object has moved."""
FAINT = 0.1
"""Mask of what shows an object from which on a pixel is of the object that it points to."""
FADING = 6.0
"""Move of the hand in the picture, in units of `grid.SIDE`, by which an error of the observed frame fades."""


@dataclass(frozen=True)
class Picture:
    """N pictures [N,C,H,W], float32, with what they were before anything was drawn.

    frames      as they are
    carried     [N,C,H,W]: put together from what is known, without what the convolutions draw
    arm         [N,1,H,W]: what of it shows the arm or what is before the arm
    shadow      [N,1,H,W]: where the arm's shadow is
    """

    frames: Tensor
    carried: Tensor
    arm: Tensor
    shadow: Tensor


@dataclass(frozen=True)
class Material:
    """What all pictures of B scenes are put together from, at full resolution.

    table       [B,C,H,W]
    objects     [B,C+4,H,W]: colours of the objects beyond the table, premultiplied by their mask; the mask,
                the centre that a pixel is of [2], and the factor by which their shadows darken the table
    rest        [B,2C,H,W]: what the observed frame has beyond all that, on the arm and elsewhere
    points      [B,POINTS,2] of the arm in it
    features    [B,FEATURES,H/2,W/2]
    light       [B,LIGHT]
    """

    table: Tensor
    objects: Tensor
    rest: Tensor
    points: Tensor
    features: Tensor
    light: Tensor


class Compositor(nn.Module):
    """Put a picture together from the bottom up: the table, the objects where they are, shadows, the arm.

    Objects are taken from the observed frame in one step, with their shadows, where the motion says. The arm
    and its shadow look alike in all scenes and are learned (`sprites`). What the observed frame has beyond
    that is added, the less the farther the hand has moved: where nothing moves, it comes back to the last
    digit. What that leaves to be drawn is drawn from the picture so far, at half resolution, in blocks of
    four pixels.
    """

    def __init__(self, channels: int, width: int, norm: str, hand_size: int):
        super().__init__()
        self.parts = (channels, 1, 1)
        self.before = output_layer(leaky_linear(DESCRIPTION + hand_size + 4, 1, 0.1))
        with torch.no_grad():
            self.before.bias.fill_(BEHIND)
        inputs = 4 * (channels + 3) + FEATURES
        self.join = nn.ModuleList([leaky_block(inputs, width, norm), leaky_block(width, width, norm)])
        self.output = output_layer(leaky_conv(width, 4 * sum(self.parts), 3, 0.1))
        tile_subpixels(self.output)
        assert self.output.bias is not None
        with torch.no_grad():
            self.output.bias[4 * channels :] = BELOW

    def forward(
        self, material: Material, objects: Objects, centres: Tensor, turns: Tensor, hand: Hand, states: Tensor
    ) -> Picture:
        """Draw pictures of N scenes with objects at `centres` [N,K,2] and `turns`.

        `states` [N,state] are the hand's.
        """
        cells = material.table.shape[-1]
        known, masks = self._put_together(material, objects, centres, turns, hand, states)
        with exact(states):
            points = hand.project(states)
            fading = torch.exp(-(points - material.points).norm(dim=2).mean(1) / FADING)
            on_arm, elsewhere = material.rest.chunk(2, 1)
            rest = sample(on_arm, carried_from(points, material.points, cells)) + elsewhere
            scene = known + fading[:, None, None, None] * rest
            inputs = F.pixel_unshuffle(torch.cat([scene - 0.5, masks], 1), 2)
        x = torch.cat([inputs, material.features.to(inputs)], 1)
        x = self.join[0](x.contiguous(memory_format=torch.channels_last))
        x = x + self.join[1](x)
        x = F.pixel_shuffle(self.output(x).float(), 2)
        drawn, mask, gain = x.split(self.parts, 1)
        darkened = scene * (1 - torch.sigmoid(gain))
        # nothing is drawn over objects, which would wear off
        picture = torch.lerp(darkened, torch.sigmoid(drawn), torch.sigmoid(mask) * (1 - masks[:, :1]))
        # what lies outside of the range comes back, with its gradient
        picture = picture + (picture.clamp(0, 1) - picture).detach()
        return Picture(picture, known, masks[:, 1:2], masks[:, 2:])

    def prepare(self, layers: Layers, objects: Objects, hand: Hand) -> Material:
        """Return what the pictures of the scenes of B observed frames are put together from."""
        turns = unturned(objects)
        with exact(layers.last):
            outline = torch.sigmoid(layers.outline)
            owned = find_owners(objects.centres, turns, objects, layers.last.shape[-1])
            # the table about an object, with its shadow, is that of the nearest one
            belongs = torch.lerp(
                owned.own, _pointed_object(layers.pointed, objects), (outline / FAINT).clamp(max=1)
            )
            mask = outline * _share(belongs, owned.own)
            # what the observed frame shows beyond the table, so that edges come back as they are
            shown = layers.last / layers.arm_shade - (1 - mask) * layers.shade * layers.table
            colours = torch.lerp(shown, mask * layers.surface, layers.hidden_by_arm)
            material = Material(
                table=layers.table,
                objects=torch.cat([colours, outline, belongs, layers.shade], 1),
                rest=torch.cat([layers.last, layers.last], 1),  # not read before it is known, below
                points=hand.project(layers.state),
                features=layers.features,
                light=layers.light,
            )
        known, masks = self._put_together(material, objects, objects.centres, turns, hand, layers.state)
        with exact(layers.last):
            rest = layers.last - known
            on_arm = rest * F.max_pool2d(masks[:, 1:2], 3, 1, 1)
            return replace(material, rest=torch.cat([on_arm, rest - on_arm], 1))

    def _put_together(
        self, material: Material, objects: Objects, centres: Tensor, turns: Tensor, hand: Hand, states: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the picture [N,C,H,W] of what is known; masks of objects, arm and its shadow [N,3,H,W]."""
        cells = material.table.shape[-1]
        channels = material.table.shape[1]
        with exact(states):
            fingers = hand.project(states)[:, None, :2].flatten(2)
            beside = (centres.repeat(1, 1, 2) - fingers) / 8
            hands = states[:, None].expand(-1, centres.shape[1], -1)
            numbers = torch.cat([objects.features, hands, beside], 2)
        before = torch.sigmoid(self.before(numbers).float())
        with exact(states):
            moved = 1 - torch.exp(-(centres - objects.centres).square().sum(2, keepdim=True) / (2 * MOVED**2))
            owned = find_owners(centres, turns, objects, cells, torch.cat([before, moved], 2))
            carried = sample(material.objects, owned.sources)
            colours, outline, belongs, shade = carried.split([channels, 1, 2, 1], 1)
            centre, before, moved = owned.own.split([2, 1, 1], 1)
            share = _share(belongs, centre)
            mask = outline * share
            # pixels of other objects stay behind when this one moves
            kept = 1 - moved * (1 - share)
            below = (1 - mask) * (1 - kept * (1 - shade)) * material.table + kept * colours
            darkened, shadow = hand.shade(states, material.light, cells)
            arm, arm_mask = hand.draw(states, material.light, cells)
            arm_mask = arm_mask * (1 - mask * before)
            return torch.lerp(darkened * below, arm, arm_mask), torch.cat([mask, arm_mask, shadow], 1)


def _pointed_object(pointed: Tensor, objects: Objects) -> Tensor:
    """Return the centres [B,2,H,W] of the `objects` nearest to where pixels of the observed frame point."""
    distances = (pointed[:, None] - objects.centres[..., None, None]).square().sum(2)
    distances = distances + (1 - objects.present)[..., None, None] * FAR_OFF
    return torch.einsum("bkhw,bkc->bchw", torch.softmax(-distances / 2, 1), objects.centres)


def _share(belongs: Tensor, centres: Tensor) -> Tensor:
    """Return to what extent pixels that are of the object at `belongs` are of the one at `centres`."""
    return torch.exp(-(belongs - centres).square().sum(1, keepdim=True) / (2 * OWN**2))
