"""The scene in the observed frames: the table without arm and objects, and the objects, each by itself."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .grid import SIDE, cell_centres
from .hand import LIGHT, MAPS, Hand, offset_maps
from .layers import (
    activate,
    leaky_block,
    leaky_conv,
    leaky_linear,
    make_norm,
    output_layer,
    tile_subpixels,
)

FEATURES = 16
"""Channels of the scene's features, at half resolution."""
FOUND = 0.15
"""Least height of a peak that counts as an object."""
LEAST_AREA = 2.0
"""Least area of an object, in units of `SIDE`."""
UNIT = 20.0
"""Unit of the logits of the background: a step of the optimiser moves them by as much as they need."""
SHAPE = 8
"""Numbers that describe an object beside its features."""
CODE = 48
"""Numbers that describe its surroundings."""
DESCRIPTION = FEATURES + SHAPE + CODE
FAR_OFF = 1e4
DARKEST = 0.2
LOW_MASK = -3.0
"""What is added to the logits of masks, which so begin near 0."""


@dataclass(frozen=True)
class Layers:
    """What the encoder takes the observed frames of B scenes apart into, at full resolution.

    table       [B,C,H,W]: the scene without arm and objects, and without their shadows
    surface     [B,C,H,W]: colours of the objects where the arm hides them
    outline     [B,1,H,W]: logits of what shows an object
    votes       [B,2,H,W]: from each pixel of an object to its centre
    shade       [B,1,H,W]: factor for the table near an object, whose shadow moves with it
    arm         [B,1,H,W]: logits of what shows the arm
    arm_shade   [B,1,H,W]: factor for the table in the arm's shadow
    last        [B,C,H,W] in [0,1]: the observed frame itself
    state       [B,state] of the hand in it
    features    [B,FEATURES,H/2,W/2]
    light       [B,LIGHT]
    """

    table: Tensor
    surface: Tensor
    outline: Tensor
    votes: Tensor
    shade: Tensor
    arm: Tensor
    arm_shade: Tensor
    last: Tensor
    state: Tensor
    features: Tensor
    light: Tensor

    @property
    def hidden_by_arm(self) -> Tensor:
        """Mask of the arm with its edges, [B,1,H,W]."""
        return _with_edges(self.arm)

    @property
    def pointed(self) -> Tensor:
        """Where the centre of the object at each pixel is, [B,2,H,W]."""
        return cell_centres(self.votes.shape[-1], self.votes.device) + self.votes


@dataclass(frozen=True)
class Objects:
    """The K objects of B scenes in the last observed frame; fewer are there, as `present` says.

    centres     [B,K,2], see `grid.SIDE`
    present     [B,K], 0 or 1
    spread      [B,K]: mean squared distance of an object's pixels from its centre
    features    [B,K,DESCRIPTION]; as they are found [B,K,FEATURES+SHAPE], see `ObjectMotion.describe`
    """

    centres: Tensor
    present: Tensor
    spread: Tensor
    features: Tensor


def repeated(values, times: int):
    """Return `Objects` or another dataclass of tensors with each entry `times` times in a row.

    A single entry takes no more memory than before.
    """
    if times == 1:
        return values
    parts = {item.name: getattr(values, item.name) for item in fields(values)}
    return type(values)(**{name: _repeated(part, times) for name, part in parts.items()})


def joined(*values):
    """Return `Objects` or other dataclasses of tensors one after the other."""
    names = [item.name for item in fields(values[0])]
    return type(values[0])(**{name: torch.cat([getattr(value, name) for value in values]) for name in names})


def entry(objects: Objects, number: int) -> Objects:
    """Return the object of that number alone, of each scene."""
    return Objects(*(getattr(objects, item.name)[:, number : number + 1] for item in fields(Objects)))


def _repeated(part: Tensor, times: int) -> Tensor:
    if len(part) == 1:
        return part.expand(times, *part.shape[1:])
    return part.repeat_interleave(times, 0)


class SceneEncoder(nn.Module):
    """A U-Net over the last two observed frames and the hand's place that takes the scene apart.

    What the arm and the objects hide it draws, as a difference to a picture of what the scenes have in
    common, `background`.
    """

    def __init__(self, channels: int, size: int, width: int, norm: str, hand_size: int):
        super().__init__()
        self.stem = nn.Conv2d(2 * channels, width, 4, 2, 1)
        self.where = leaky_conv(MAPS + hand_size, width, 1)
        self.stem_norm = make_norm(norm, width)
        self.fine = nn.ModuleList([leaky_block(width, width, norm) for _ in range(2)])
        self.down = nn.ModuleList(
            [leaky_block(width, 2 * width, norm, stride=2), leaky_block(2 * width, 2 * width, norm, stride=2)]
        )
        self.middle = leaky_block(2 * width, 2 * width, norm)
        self.coarse = nn.ModuleList([leaky_block(2 * width, 2 * width, norm) for _ in range(2)])
        self.light = output_layer(leaky_linear(2 * width, LIGHT))
        self.up = nn.ModuleList([leaky_conv(2 * width, 2 * width, 1), leaky_conv(2 * width, width, 1)])
        self.middle_up = leaky_block(2 * width, 2 * width, norm)
        self.fine_up = nn.ModuleList([leaky_block(width, width, norm) for _ in range(2)])
        self.parts = (channels, 1, 1, channels, 1, 2, 1, 1, 1)
        self.full_head = output_layer(leaky_conv(width, 4 * sum(self.parts), 3, 0.1))
        tile_subpixels(self.full_head)
        self.background = nn.Parameter(torch.zeros(channels, size, size))
        self.tint = leaky_linear(LIGHT, channels, 0.1)
        self.half_head = output_layer(leaky_conv(width, 1 + FEATURES))

    def forward(self, last: Tensor, before: Tensor, hand: Hand, state: Tensor) -> tuple[Layers, Tensor]:
        """Take apart the scene of the observed frames `last` and `before` it [B,C,H,W], hand in `state`.

        Return it, and the logits of objects' centres [B,1,H/2,W/2].
        """
        cells = last.shape[-1] // 2
        with exact(last):
            maps = offset_maps(hand.project(state), cells)
            maps = torch.cat([maps, state[..., None, None].expand(-1, -1, cells, cells)], 1)
        x = self.stem(torch.cat([last, before], 1) - 0.5) + self.where(maps)
        x = activate(self.stem_norm(x))
        x = self.fine[0](x)
        x = x + self.fine[1](x)
        middle = self.down[0](x)
        middle = middle + self.middle(middle)
        coarse = self.down[1](middle)
        for block in self.coarse:
            coarse = coarse + block(coarse)
        light = self.light(coarse.mean((2, 3))).float()
        middle = middle + F.interpolate(self.up[0](coarse), scale_factor=2)
        middle = middle + self.middle_up(middle)
        x = x + F.interpolate(self.up[1](middle), scale_factor=2)
        for block in self.fine_up:
            x = x + block(x)
        half = self.half_head(x).float()
        full = F.pixel_shuffle(self.full_head(x).float(), 2)
        layers = self._layers(full, last, before, activate(half[:, 1:]), light, state)
        return layers, half[:, :1] + LOW_MASK

    def _layers(
        self, full: Tensor, last: Tensor, before: Tensor, features: Tensor, light: Tensor, state: Tensor
    ) -> Layers:
        parts = full.split(self.parts, 1)
        usual = UNIT * self.background + self.tint(light).float()[..., None, None]
        table, table_mask, earlier, surface, outline, votes, shade, arm, arm_shade = parts
        shade = _shade(shade)
        arm_shade = _shade(arm_shade)
        # divided by the shades, which the decoder multiplies by: what stays is the picture to the last digit
        unlit = last / arm_shade
        seen = torch.lerp(unlit / shade, before, torch.sigmoid(earlier + 2 * LOW_MASK))
        hidden = _with_edges(torch.maximum(arm, outline) + LOW_MASK)
        mask = torch.maximum(torch.sigmoid(table_mask + LOW_MASK), hidden)
        return Layers(
            table=torch.lerp(seen, torch.sigmoid(usual + table), mask),
            surface=torch.sigmoid(surface),
            outline=outline + LOW_MASK,
            votes=8 * votes,
            shade=shade,
            arm=arm + LOW_MASK,
            arm_shade=arm_shade,
            last=last,
            state=state,
            features=features,
            light=light,
        )


def _with_edges(logits: Tensor) -> Tensor:
    """Return the mask of something with the pixels at its edges, which show a little of it."""
    return F.max_pool2d(torch.sigmoid(logits), 3, 1, 1)


def _shade(logits: Tensor) -> Tensor:
    """Return factors of brightness, near 1 at first and never below `DARKEST`."""
    return 1 - (1 - DARKEST) * torch.sigmoid(logits + LOW_MASK)


def find_objects(layers: Layers, centre_logits: Tensor, count: int) -> Objects:
    """Find up to `count` objects: peaks of the centres' probability [B,1,h,w], refined by the pixels' votes.

    Gradients flow to outlines, votes and features, not to the choice of the peaks.
    """
    centres, height = _peaks(centre_logits.detach(), count)
    is_peak = height >= FOUND
    pointed = layers.pointed
    outline = torch.sigmoid(layers.outline)
    for is_last in (False, True):
        distances = ((pointed[:, None] - centres[..., None, None]) ** 2).sum(2)
        distances = distances + ~is_peak[..., None, None] * FAR_OFF
        masks = torch.softmax(-distances / 8, 1) * torch.exp(-distances / 32) * outline  # [B,K,H,W]
        area = masks.sum((2, 3))
        sums = torch.einsum("bkhw,bchw->bkc", masks, pointed)
        refined = sums / (area[..., None] + 1e-3)
        if not is_last:
            refined = refined.detach()
        centres = torch.where(area[..., None] > 1, refined, centres)
    unit = (SIDE / layers.outline.shape[-1]) ** 2  # area of a pixel
    present = is_peak & (area * unit > LEAST_AREA)
    offsets = cell_centres(masks.shape[-1], masks.device) - centres[..., None, None]
    right, down = offsets.unbind(2)
    products = torch.stack([right * right, right * down, down * down], 2)
    shape = (masks[:, :, None] * products).sum((3, 4)) / (area[..., None] + 1e-3)
    spread = shape[..., 0] + shape[..., 2]
    coarse = F.avg_pool2d(masks, 2)
    pooled = torch.einsum("bkhw,bchw->bkc", coarse, layers.features) / (coarse.sum((2, 3))[..., None] + 1e-3)
    numbers = [area[..., None] * unit / 100, spread[..., None] / 40, shape / 20, present[..., None].float()]
    features = torch.cat([pooled, *numbers, _in_units(centres)], -1)
    return Objects(centres, present.float(), spread.detach().clamp(min=4), features)


def _peaks(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the places [B,count,2] and heights [B,count] of the highest peaks."""
    cells = logits.shape[-1]
    heights = torch.sigmoid(logits)
    window = 2 * (2 * cells // SIDE) + 1
    is_top = heights >= F.max_pool2d(heights, window, 1, window // 2)
    tops, index = torch.where(is_top, heights, 0.0).flatten(1).topk(count, 1)
    places = cell_centres(cells, logits.device).flatten(1).T[index]
    return places, tops


def moved_to(objects: Objects, centres: Tensor) -> Objects:
    """Return the described `objects` as if they had been found at `centres` [B,K,2]."""
    before, _, after = objects.features.split([FEATURES + SHAPE - 2, 2, CODE], -1)
    features = torch.cat([before, _in_units(centres), after], -1)
    return replace(objects, centres=centres, features=features)


def _in_units(centres: Tensor) -> Tensor:
    return (centres - (SIDE - 1) / 2) / (SIDE / 2)


def exact(like: Tensor) -> torch.autocast:
    """Return a context in which numbers are computed in float32: bfloat16 knows places to half a pixel."""
    return torch.autocast(like.device.type, enabled=False)
