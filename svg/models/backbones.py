"""Encoders and decoders with skip connections: VGG and DCGAN, 64 or 128 pixels, vector or grid features.

Both families come as tables of channels at width 1, which are those of SVG (Denton & Fergus 2018); a width multiplier scales
them. In the *vector* form the last layer reduces 4x4 to one vector of `g_dim`; in the *spatial* form the levels stop at a
grid of 8x8 or 16x16, which one more convolution brings to `g_dim` channels. Features lie within (-1, 1).
"""

from contextlib import nullcontext
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from .layers import LevelEnd, SkipConv, SkipTerm, activation, conv_block, hold_last, make_norm, stage, warp

FLOW = 2.0
"""Pixels for each 1 that the decoder draws as a flow: small enough to move nothing far before anything is learnt."""

# Output channels of the convolutions of each level, from full resolution down, at width 1.
VGG_LEVELS = {
    64: [[64, 64], [128, 128], [256, 256, 256], [512, 512, 512]],
    128: [[64, 64], [128, 128], [256, 256, 256], [512, 512, 512], [512, 512, 512]],
}
DCGAN_LEVELS = {64: [64, 128, 256, 512], 128: [64, 128, 256, 512, 512]}


def scaled(channels: int, width: float) -> int:
    """Channels times the width multiplier, to the nearest multiple of 4 (so that group norm divides them), at least 4."""
    return max(4, 4 * round(channels * width / 4))


def level_channels(model: str, image_width: int, width: float, grid: int) -> list[list[int]]:
    """Channels of each convolution of each encoder level; the spatial form has the levels above its grid only (0: vector form)."""
    levels = VGG_LEVELS[image_width] if model == "vgg" else [[c] for c in DCGAN_LEVELS[image_width]]
    if grid:
        levels = levels[: (image_width // grid).bit_length() - 1]
    return [[scaled(channels, width) for channels in level] for level in levels]


class Encoder(nn.Module):
    """Frames ``[B,T,C,H,W]`` in [0,1] -> features ``[B,T,g_dim]`` or ``[B,T,g_dim,grid,grid]``, and the levels' outputs as skips.

    Skips ``[B,K,C,h,w]`` are those of the K source frames alone: the first `sources` of each clip, or the last ``-sources``.
    """

    def __init__(
        self, model: str, image_width: int, channels: int, g_dim: int, width: float, norm: str, grid: int
    ):
        super().__init__()
        self.pool = model == "vgg"
        levels, inputs = [], channels
        for level in level_channels(model, image_width, width, grid):
            blocks = []
            for outputs in level:
                shape = (3, 1, 1) if self.pool else (4, 2, 1)
                blocks.append(conv_block(inputs, outputs, norm, *shape))
                inputs = outputs
            levels.append(nn.Sequential(*blocks))
        self.levels = nn.ModuleList(levels)
        last = nn.Conv2d(inputs, g_dim, 3, 1, 1) if grid else nn.Conv2d(inputs, g_dim, 4)
        self.output = nn.Sequential(last, make_norm(norm, g_dim), nn.Tanh())
        self.spatial = grid > 0

    def forward(self, frames: Tensor, sources: int) -> tuple[Tensor, list[Tensor]]:
        batch, length = frames.shape[:2]
        x, skips = frames.flatten(0, 1).contiguous(memory_format=torch.channels_last), []
        keep = nullcontext()
        for level in self.levels:
            for block in level:
                x, keep = stage(x, *block, keep=keep)
            with keep:
                x, skip = LevelEnd.apply(x, batch, sources, self.pool)
            skips.append(skip)
            keep = nullcontext() if self.pool else keep
        with keep:
            h = self.output(x)
        return (h if self.spatial else h.flatten(1)).unflatten(0, (batch, length)), skips


class Decoder(nn.Module):
    """Features and skips -> frames in (0,1).

    With ``blend`` a fourth output channel mixes the generated pixels with those of the last observed frame, mask * generated +
    (1 - mask) * observed: what does not move need not be drawn again (compare Finn et al. 2016, section 3.2). With ``warp`` three
    more channels, a second mask and the flow to the right and down, put (1 - mask2) * observed + mask2 * moved in place of
    observed: what is pushed along need not be drawn again either. Moved is `layers.warp` of the last ``observed`` frame, or of the
    frame ``before``, seen or predicted, so that things are carried on from frame to frame.
    """

    def __init__(
        self,
        model: str,
        image_width: int,
        channels: int,
        g_dim: int,
        width: float,
        norm: str,
        grid: int,
        blend: bool = False,
        warp: str = "none",
    ):
        super().__init__()
        levels = level_channels(model, image_width, width, grid)[::-1]
        self.vgg, self.blend, self.warp = model == "vgg", blend, warp
        top = levels[0][-1]
        first = (3, 1, 1) if grid else (4, 1, 0)
        make = nn.Conv2d if grid else nn.ConvTranspose2d
        self.input = nn.Sequential(make(g_dim, top, *first), make_norm(norm, top), activation())
        self.skip_convs, self.levels = nn.ModuleList(), nn.ModuleList()
        self.drawn = [channels, *([1] if blend else []), *([1, 2] if warp != "none" else [])]
        for number, level in enumerate(levels):
            last = number + 1 == len(levels)
            below = sum(self.drawn) if last else levels[number + 1][-1]
            if self.vgg:
                # The mirror image of the encoder's level; its last convolution already has the next level's channels.
                outputs = level[:1] if last else [*level[:-1], below]
                self.skip_convs.append(SkipConv(level[-1], level[-1], outputs[0], upsample=True))
                layers = [
                    make_norm(norm, outputs[0]),
                    activation(),
                    *(conv_block(a, b, norm) for a, b in pairwise(outputs)),
                ]
                if last:
                    layers.append(nn.ConvTranspose2d(outputs[0], sum(self.drawn), 3, 1, 1))
            else:
                self.skip_convs.append(SkipConv(level[-1], level[-1], below, upsample=False))
                layers = [] if last else [make_norm(norm, below), activation()]
            self.levels.append(nn.Sequential(*layers))

    def prepare(self, skips: list[Tensor]) -> list[SkipTerm]:
        """The encoder's skips, each ``[B,K',C,h,w]`` -> what they add in the decoder; once a clip."""
        return [conv.prepare(skip) for conv, skip in zip(self.skip_convs, reversed(skips), strict=True)]

    def forward(self, g: Tensor, skips: list[SkipTerm], observed: Tensor, before: Tensor) -> Tensor:
        """`g` [B,K,g_dim(,grid,grid)], `skips` from `prepare`, `observed` [B,K',C,H,W] in [0,1] -> frames [B,K,C,H,W], float32.

        Frame k is drawn with the skip and observed frame k; the last ones stand for all that follow. `before` [B,K'',C,H,W] are
        the frames before the first K'' <= K drawn ones; before the others comes what is drawn.
        """
        batch, frames = g.shape[:2]
        x = g.flatten(0, 1) if g.dim() == 5 else g.flatten(0, 1)[..., None, None]
        x, keep = stage(x, *self.input)
        for skip_conv, level, skip in zip(self.skip_convs, self.levels, skips, strict=True):
            join = partial(skip_conv, skip=skip)
            if not level:  # the last convolution of DCGAN
                with keep:
                    x = join(x)
                break
            norm, act, *blocks = level
            x, keep = stage(x, join, norm, act, keep)
            for block in blocks:
                if isinstance(block, nn.Sequential):
                    x, keep = stage(x, *block, keep=keep)
                else:  # the last convolution of VGG
                    with keep:
                        x = block(x)
        x = x.float().unflatten(0, (batch, frames))
        # Split, here and below, not sliced: the gradient of each slice would be zeros for all channels and frames.
        generated, *rest = x.split(self.drawn, 2)
        generated = torch.sigmoid(generated)
        if not self.blend:
            return generated
        kept, mask = hold_last(observed, frames).to(x), torch.sigmoid(rest[0])
        if self.warp == "none":
            return torch.lerp(kept, generated, mask)
        parts = kept, torch.sigmoid(rest[1]), FLOW * rest[2], generated, mask
        if self.warp == "observed":
            return _join(kept, *parts)
        seen = before.shape[1]
        pieces = zip(*(part.split([seen, *[1] * (frames - seen)], 1) for part in parts), strict=True)
        images = [_join(before.to(x), *next(pieces))]
        for piece in pieces:
            images.append(_join(images[-1][:, -1:], *piece))
        return torch.cat(images, 1)


def _join(
    source: Tensor, kept: Tensor, moving: Tensor, flow: Tensor, generated: Tensor, mask: Tensor
) -> Tensor:
    """What is kept or, where `moving` says so, moved from `source`, and over it what is generated, as far as `mask` says."""
    return torch.lerp(torch.lerp(kept, warp(source, flow), moving), generated, mask)


def initialise(module: nn.Module) -> None:
    """Convolutions and linear layers N(0, 0.02), biases 0, batch norm N(1, 0.02); LSTMs stay at PyTorch's default."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
