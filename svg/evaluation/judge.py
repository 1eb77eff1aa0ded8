"""The judge: small networks that find the objects and the motion of the hand in frames of simulated pushing.

It is shown an object once, in the last observed frame with its true mask, and then finds it in any frame of
the same scene by its look: it is not told where the object is, nor where it was. ``svg/released/judge`` holds
its weights and says how it was trained; `svg.training.judge` trains it.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

WEIGHTS = Path(__file__).parent.parent / "released" / "judge" / "judge.safetensors"
SIZE = 64
"""Height and width of the frames in pixels."""
CELL = 2
"""Pixels a cell: objects are looked for on a grid of so large cells, and then placed within one."""
NEAR = 2
"""Cells to each side of the likeliest one that a centre is averaged over."""
LARGEST_CORRECTION = 2.0
"""Pixels; see `correction`."""
LASTING = 0.7
"""Share of the judge's error in the observed frame that is taken for lasting."""
OUTLINE = 6
"""Numbers that describe the outline of an object, see `outlines`."""
KEYPOINTS = 16
MILLIMETRES = 30.0
"""Unit in which the hand's motion is told by the network: millimetres of an ordinary one."""


@dataclass(frozen=True)
class Found:
    """Objects that were found in frames; N objects a frame.

    centres   [...,N,2], pixels to the right and down; the middle of the first pixel is (0, 0)
    presence  [...,N], logits: above 0 the object is there
    masks     [...,N,H,W], logits: above 0 a pixel shows the object
    heat      [...,N,K], logits of the cells, in which the centre is looked for
    offsets   [...,N,2,K], pixels from the middle of each cell to the centre
    """

    centres: Tensor
    presence: Tensor
    masks: Tensor
    heat: Tensor
    offsets: Tensor


def outlines(masks: Tensor, centres: Tensor, heights: Tensor) -> Tensor:
    """Return what an object's true mask says of its form, [...,6].

    Its area, how far it reaches from its centre to the left, right, up and down, and the height of its
    centre, all of about 1. An empty mask reaches nowhere.

    Args:
        masks: bool [...,H,W].
        centres: [...,2], pixels to the right and down.
        heights: [...], metres above the table.
    """
    size = masks.shape[-1]
    place = torch.arange(size, device=masks.device, dtype=torch.float32)
    extents = []
    for axis, across in enumerate((masks.any(-2), masks.any(-1))):  # columns, rows
        away = place - centres[..., axis, None]
        low = torch.where(across, away, torch.inf).amin(-1)
        high = torch.where(across, away, -torch.inf).amax(-1)
        extents += [torch.where(across.any(-1), bound / 5, 0) for bound in (low, high)]
    area = masks.sum((-2, -1)) / 50
    return torch.stack([area, *extents, heights / 0.03], -1)


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(8, outputs), nn.ReLU(inplace=True))


class Judge(nn.Module):
    """Finds objects by their look, and reads the motion of the hand from two frames."""

    def __init__(self):
        super().__init__()
        self.eye = _Eye()
        self.finder = _Finder(_Eye.CHANNELS)
        self.hand = _HandMotion()

    def look(self, frames: Tensor) -> Tensor:
        """Return features [B,E,H/2,W/2] of frames [B,3,H,W] in [0,1]."""
        return self.eye(frames.contiguous(memory_format=torch.channels_last))

    def remember(self, features: Tensor, masks: Tensor, outline: Tensor) -> Tensor:
        """Return the look of objects [B,N,D] from features of a frame and their masks, bool [B,N,H,W].

        `outline` [B,N,6] is that of `outlines`.
        """
        weights = F.avg_pool2d(masks.float(), CELL)
        total = weights.sum((-2, -1)).clamp(min=1e-6)
        pooled = torch.einsum("bchw,bnhw->bnc", features, weights) / total[..., None]
        return torch.cat([pooled, outline], -1)

    def find(self, features: Tensor, look: Tensor) -> Found:
        """Find the objects of `look` [B,N,D] in frames with `features` [B,E,h,w]."""
        heat, offsets, masks, presence = self.finder(features, look)
        heat = heat.flatten(-2)
        offsets = offsets.flatten(-2)
        cells = cell_centres(features.shape[-1], heat.device)
        centres = locate(heat, offsets, cells[heat.argmax(-1)])
        return Found(centres, presence, masks, heat, offsets)

    def hand_motion(self, before: Tensor, after: Tensor) -> Tensor:
        """Return how the hand moves between frames [B,3,H,W] in millimetres, [B,3]: right, away, up."""
        return self.hand(before, after)


def cell_centres(side: int, device: torch.device) -> Tensor:
    """Return the middles of `side` x `side` cells in pixels to the right and down, [K,2]."""
    middle = torch.arange(side, device=device, dtype=torch.float32) * CELL + (CELL - 1) / 2
    down, right = torch.meshgrid(middle, middle, indexing="ij")
    return torch.stack([right, down], -1).flatten(0, 1)


def locate(heat: Tensor, offsets: Tensor, about: Tensor) -> Tensor:
    """Return centres [...,2]: the mean of what the cells near `about` [...,2] say, weighted by their heat.

    `heat` [...,K] are logits, `offsets` [...,2,K] pixels from the middle of a cell to the centre.
    """
    cells = cell_centres(round(heat.shape[-1] ** 0.5), heat.device)
    away = (cells - about[..., None, :]).abs().amax(-1)
    weights = heat.masked_fill(away > CELL * NEAR + CELL / 2, -torch.inf).softmax(-1)
    return (weights[..., None, :] * (cells.T + offsets)).sum(-1)


def correction(found: Tensor, centres: Tensor) -> Tensor:
    """Return what is added to the centres of objects in other frames, [...,2] pixels.

    It follows from the centres that are found in the observed frame itself and the true ones there, [...,2]:
    an object whose form misleads the judge there misleads it elsewhere, the less the more it has turned.
    Where the two are far apart something hides the object, and nothing is learned.
    """
    away = centres - found
    return torch.where(away.norm(dim=-1, keepdim=True) < LARGEST_CORRECTION, LASTING * away, 0.0)


class _Eye(nn.Module):
    """Features of a frame at half its resolution, from its details and from their surroundings."""

    CHANNELS = 32

    def __init__(self):
        super().__init__()
        self.fine = nn.Sequential(_block(3 * CELL**2, 32), _block(32, 32))
        self.middle = nn.Sequential(_block(32, 48, 2), _block(48, 48))
        self.coarse = nn.Sequential(_block(48, 56, 2), _block(56, 56))
        self.join_middle = nn.Sequential(nn.Conv2d(56 + 48, 48, 1), _block(48, 32))
        self.join_fine = nn.Sequential(nn.Conv2d(32 + 32, 32, 1), _block(32, self.CHANNELS))

    def forward(self, frames: Tensor) -> Tensor:
        fine = self.fine(F.pixel_unshuffle(2 * frames - 1, CELL))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        middle = self.join_middle(torch.cat([F.interpolate(coarse, scale_factor=2.0), middle], 1))
        return self.join_fine(torch.cat([F.interpolate(middle, scale_factor=2.0), fine], 1))


class _Finder(nn.Module):
    """Where an object of a known look is in a frame: heat, offsets, mask and whether it is there at all.

    Its look decides the filters by which the features are compared with it, so that each object costs little.
    """

    FILTERS = 16

    def __init__(self, channels: int):
        super().__init__()
        self.shape = (self.FILTERS, channels)
        self.filters = nn.Sequential(
            nn.Linear(channels + OUTLINE, 48), nn.ReLU(inplace=True), nn.Linear(48, self.FILTERS * channels)
        )
        self.trunk = nn.Sequential(_block(self.FILTERS, 16), _block(16, 16))
        self.out = nn.Conv2d(16, 3 + CELL**2, 1)
        self.is_there = nn.Sequential(nn.Linear(16 + 2, 32), nn.ReLU(inplace=True), nn.Linear(32, 1))

    def forward(self, features: Tensor, look: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        batch, objects = look.shape[:2]
        filters = self.filters(look).unflatten(-1, self.shape)  # [B,N,F,C]
        # channels lie innermost in memory, as convolutions like them
        likeness = torch.einsum("bchw,bnfc->bnhwf", features, filters).contiguous()
        trunk = self.trunk(likeness.flatten(0, 1).permute(0, 3, 1, 2))
        out = self.out(trunk)
        heat, offsets, masks = out.split([1, 2, CELL**2], 1)
        weights = heat.flatten(1).softmax(1)
        seen = torch.einsum("bck,bk->bc", trunk.flatten(2), weights)
        peak = torch.stack([heat.flatten(1).amax(1), masks.flatten(1).amax(1)], 1)
        presence = self.is_there(torch.cat([seen, peak / 10], 1))[:, 0]
        masks = F.pixel_shuffle(masks, CELL)[:, 0]
        parts = (heat[:, 0], offsets, masks, presence)
        heat, offsets, masks, presence = (part.unflatten(0, (batch, objects)) for part in parts)
        return heat, offsets, masks, presence


class _HandMotion(nn.Module):
    """Motion of the hand from where learned keypoints are in two frames (Finn et al. 2016)."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            _block(3 * CELL**2, 16), _block(16, 24, 2), _block(24, 24), nn.Conv2d(24, KEYPOINTS, 3, 1, 1)
        )
        self.motion = nn.Sequential(nn.Linear(4 * KEYPOINTS, 64), nn.ReLU(inplace=True), nn.Linear(64, 3))

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        points = self._keypoints(torch.cat([before, after]))
        before_points, after_points = points.chunk(2)
        moved = 8 * (after_points - before_points)
        return MILLIMETRES * self.motion(torch.cat([before_points, moved], 1))

    def _keypoints(self, frames: Tensor) -> Tensor:
        """Return places in [-1,1] of the keypoints, [B,2*KEYPOINTS]."""
        maps = self.features(F.pixel_unshuffle(2 * frames - 1, CELL))
        place = torch.linspace(-1, 1, maps.shape[-1], device=maps.device)
        weights = maps.flatten(2).softmax(2).view_as(maps)
        across = (weights.sum(2) * place).sum(2)
        down = (weights.sum(3) * place).sum(2)
        return torch.cat([across, down], 1)


def load_judge(device: torch.device | str = "cpu", weights: Path = WEIGHTS) -> Judge:
    """Return the released judge, or one with the weights that `svg.training.judge` has written."""
    judge = Judge()
    judge.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
    return judge.to(device).eval().requires_grad_(False)
