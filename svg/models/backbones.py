"""Encoders and decoders with skip connections: VGG and DCGAN, 64 or 128 pixels, vector or grid features.

Both families are tables of channels at width 1, those of SVG (Denton & Fergus 2018); a width multiplier
scales them. In the *vector* form the last layer reduces 4x4 to one vector of `g_dim`; in the *spatial* form
the levels stop at a grid of 8x8 or 16x16, and one more convolution brings it to `g_dim` channels. Features
lie within (-1, 1).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import LevelEnd, SkipConv, SkipTerm, conv_block, hold_last, make_activation, make_norm, warp
from .recomputation import Chain, recomputed_activations

FLOW_SCALE = 2.0
"""Pixels for each 1 that the decoder draws as a flow: few, so that an untrained one moves nothing far."""

# Output channels of the convolutions of each level, from full resolution down, at width 1.
VGG_LEVELS = {
    64: [[64, 64], [128, 128], [256, 256, 256], [512, 512, 512]],
    128: [[64, 64], [128, 128], [256, 256, 256], [512, 512, 512], [512, 512, 512]],
}
DCGAN_LEVELS = {
    64: [[64], [128], [256], [512]],
    128: [[64], [128], [256], [512], [512]],
}


def scaled(channels: int, width: float) -> int:
    """Return channels times the width multiplier, rounded to a multiple of 4 (for group norm), at least 4."""
    return max(4, 4 * round(channels * width / 4))


def level_channels(backbone: str, image_width: int, width: float, grid: int) -> list[list[int]]:
    """Return the channels of each convolution of each encoder level.

    The spatial form has only the levels above its `grid`; 0 stands for the vector form.
    """
    levels = {"vgg": VGG_LEVELS, "dcgan": DCGAN_LEVELS}[backbone][image_width]
    if grid:
        levels = levels[: (image_width // grid).bit_length() - 1]
    return [[scaled(channels, width) for channels in level] for level in levels]


class Encoder(nn.Module):
    """Frames [B,T,C,H,W] in [0,1] -> features [B,T,g_dim] or [B,T,g_dim,grid,grid], and skips.

    Skips are the outputs of the levels. VGG levels are 3x3 convolutions and max-pooling by two, a DCGAN
    level is one 4x4 convolution of stride two. Skips [B,K,C,h,w] are those of K source frames: the first
    `sources` of each clip, or the last ``-sources``.
    """

    def __init__(
        self, backbone: str, image_width: int, channels: int, g_dim: int, width: float, norm: str, grid: int
    ):
        super().__init__()
        self.pool = backbone == "vgg"
        self.spatial = grid > 0
        conv_shape = (3, 1, 1) if self.pool else (4, 2, 1)  # kernel, stride, padding
        self.levels = nn.ModuleList()
        inputs = channels
        for level in level_channels(backbone, image_width, width, grid):
            widths = pairwise([inputs, *level])
            self.levels.append(nn.Sequential(*(conv_block(a, b, norm, *conv_shape) for a, b in widths)))
            inputs = level[-1]
        last = nn.Conv2d(inputs, g_dim, 3, 1, 1) if grid else nn.Conv2d(inputs, g_dim, 4)
        self.output = nn.Sequential(last, make_norm(norm, g_dim), nn.Tanh())

    def forward(self, frames: Tensor, sources: int) -> tuple[Tensor, list[Tensor]]:
        batch, length = frames.shape[:2]
        x = frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        skips = []
        with recomputed_activations():
            for level in self.levels:
                x = level(x)
                x, skip = LevelEnd.apply(x, batch, sources, self.pool)
                skips.append(skip)
            h = self.output(x)
        if not self.spatial:
            h = h.flatten(1)
        return h.unflatten(0, (batch, length)), skips


class Decoder(nn.Module):
    """Features and skips -> frames in (0,1).

    With `blend` a fourth output channel mixes the generated pixels with those of the last observed frame,
    mask * generated + (1 - mask) * observed: what does not move need not be drawn again (compare Finn et al.
    2016, section 3.2). With `warp` three more channels, a second mask and the flow to the right and down, put
    (1 - mask2) * observed + mask2 * moved in place of observed: what is pushed along need not be drawn again
    either. Moved is `layers.warp` of the last ``observed`` frame, or of the frame ``before``, seen or
    predicted, so that things are carried on from frame to frame.

    With ``carried`` a third mask puts over that, with ``before``, what has been pushed along since the last
    observed frame. Another flow, drawn at half the resolution, moves places instead of pixels: `carry` adds
    it up from frame to frame to the place in the observed frame that each pixel comes from. So a pushed
    object is taken from that frame in a single step, however long it has been pushed, and keeps its shape.
    """

    def __init__(
        self,
        backbone: str,
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
        self.blend = blend
        self.warp = warp
        # Channels of the picture, its mask, the second mask and its flow, and the third mask.
        self.drawn = [channels, *([1] if blend else []), *([1, 2] if warp != "none" else [])]
        if warp == "carried":
            self.drawn.append(1)
        levels = level_channels(backbone, image_width, width, grid)[::-1]
        top = levels[0][-1]
        first = nn.Conv2d(g_dim, top, 3, 1, 1) if grid else nn.ConvTranspose2d(g_dim, top, 4, 1, 0)
        self.input = Chain(first, make_norm(norm, top), make_activation())
        self.skip_convs = nn.ModuleList()
        self.levels = nn.ModuleList()
        add_level = self._add_vgg_level if backbone == "vgg" else self._add_dcgan_level
        for level, next_level in zip(levels, [*levels[1:], None], strict=True):
            add_level(level, next_level, norm)
        self.flow = None
        if warp == "carried":
            inputs = levels[-1][-1]  # of the last level
            self.flow = nn.Conv2d(inputs, 2, 3, 1, 1, bias=False)
            nn.init.zeros_(self.flow.weight)

    def _add_vgg_level(self, level: list[int], next_level: list[int] | None, norm: str) -> None:
        """Mirror a level of the encoder; its last convolution already has the next level's channels."""
        outputs = level[:1] if next_level is None else [*level[:-1], next_level[-1]]
        self.skip_convs.append(SkipConv(level[-1], level[-1], outputs[0], upsample=True))
        blocks = [conv_block(a, b, norm) for a, b in pairwise(outputs)]
        last = [nn.ConvTranspose2d(outputs[0], sum(self.drawn), 3, 1, 1)] if next_level is None else []
        self.levels.append(Chain(make_norm(norm, outputs[0]), make_activation(), *blocks, *last))

    def _add_dcgan_level(self, level: list[int], next_level: list[int] | None, norm: str) -> None:
        """Mirror a level of the encoder, a single convolution."""
        outputs = sum(self.drawn) if next_level is None else next_level[-1]
        self.skip_convs.append(SkipConv(level[-1], level[-1], outputs, upsample=False))
        layers = [] if next_level is None else [make_norm(norm, outputs), make_activation()]
        self.levels.append(Chain(*layers))

    def prepare(self, skips: Sequence[Tensor]) -> list[SkipTerm]:
        """Return the shares of the encoder's skips, each [B,K',C,h,w], in the decoder; once a clip."""
        skip_convs = cast(list[SkipConv], self.skip_convs)
        return [conv.prepare(skip) for conv, skip in zip(skip_convs, reversed(skips), strict=True)]

    def forward(
        self,
        g: Tensor,
        skips: list[SkipTerm],
        observed: Tensor,
        before: Tensor,
        places: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Draw frames [B,K,C,H,W], float32, from features `g` [B,K,g_dim(,grid,grid)] and prepared `skips`.

        Frame k is drawn with the skip and the frame k of `observed` [B,K',C,H,W] in [0,1]; the last ones
        stand for all that follow. `before` [B,K'',C,H,W] are the frames before the first K'' <= K drawn ones;
        before the others comes what is drawn. Both may have further channels, such as masks of things: those
        are moved as the picture is, and nothing is drawn over them.

        The second value is the `carry` of each frame [B,K,2,H/2,W/2] if that is ``carried``, else None. It
        goes on from `places` [B,K,2,H/2,W/2], those of the frames before; without them the frames are a
        sequence whose first K' follow `observed` ones.
        """
        batch, frames = g.shape[:2]
        x = g.flatten(0, 1)
        if x.dim() == 2:
            x = x[..., None, None]
        half = x
        with recomputed_activations():
            x = self.input(x)
            for skip_conv, level, skip in zip(self.skip_convs, self.levels, skips, strict=True):
                half = x
                x = level(skip_conv(x, skip))
        if self.flow is not None:
            flow = FLOW_SCALE * self.flow(half).float().unflatten(0, (batch, frames))
            places = carry(places, flow) if places is not None else carry_all(flow, observed.shape[1])
        return self._compose(x.float().unflatten(0, (batch, frames)), observed, before, places), places

    def _compose(self, x: Tensor, observed: Tensor, before: Tensor, places: Tensor | None) -> Tensor:
        """Return frames from the drawn channels `x` [B,K,drawn,H,W]: picture, masks and flow."""
        # Split, here and below: the gradient of each slice would be zeros for all channels and frames.
        generated, *masks = x.split(self.drawn, 2)
        generated = torch.sigmoid(generated)
        if not self.blend:
            return generated
        frames = x.shape[1]
        kept = hold_last(observed, frames).to(x)
        mask = torch.sigmoid(masks[0])
        further = kept.shape[2] - generated.shape[2]
        if further:
            generated = F.pad(generated, (0, 0, 0, 0, 0, further))
            mask = F.pad(mask.expand(-1, -1, generated.shape[2] - further, -1, -1), (0, 0, 0, 0, 0, further))
        if self.warp == "none":
            return torch.lerp(kept, generated, mask)
        flow = FLOW_SCALE * masks[2]
        parts = [kept, torch.sigmoid(masks[1]), flow, generated, mask]
        if self.warp == "observed":
            return _move_and_blend(kept, *parts)
        if places is not None:
            parts += [warp(kept, upsample(places)), torch.sigmoid(masks[3])]
        seen = before.shape[1]
        lengths = [seen, *[1] * (frames - seen)]
        pieces = zip(*(part.split(lengths, 1) for part in parts), strict=True)
        images = [_move_and_blend(before.to(x), *next(pieces))]
        for piece in pieces:
            images.append(_move_and_blend(images[-1][:, -1:], *piece))
        return torch.cat(images, 1)


def carry(places: Tensor, flow: Tensor) -> Tensor:
    """Return from where each pixel has come after another step of `flow`, both [B,K,2,h,w].

    `places` are offsets of full-resolution pixels, to the right and down, on a grid of half the resolution:
    what is at p comes from p + places(p) in the observed frame. A pixel that came from p + flow(p) in the
    frame before came from p + flow(p) + places(p + flow(p)) in the observed one. Rigid motion and
    interpolation between places lose nothing, as that of colours does.
    """
    return flow + warp(places, flow / 2)


def carry_all(flow: Tensor, observed: int) -> Tensor:
    """Return the `carry` of the frames of a sequence, of which the first ones follow `observed` frames."""
    first, *rest = flow.split([observed, *[1] * (flow.shape[1] - observed)], 1)
    places = [first]
    for step in rest:
        places.append(carry(places[-1][:, -1:], step))
    return torch.cat(places, 1)


def upsample(places: Tensor) -> Tensor:
    """Return places at full resolution, [B,K,2,h,w] -> [B,K,2,2h,2w], bilinear."""
    full = F.interpolate(places.flatten(0, 1), scale_factor=2, mode="bilinear", align_corners=False)
    return full.unflatten(0, places.shape[:2])


def _move_and_blend(
    source: Tensor,
    kept: Tensor,
    moving: Tensor,
    flow: Tensor,
    generated: Tensor,
    mask: Tensor,
    carried: Tensor | None = None,
    carrying: Tensor | None = None,
) -> Tensor:
    """Blend layers from the bottom up, each by its mask.

    They are `kept`, `source` moved by `flow` (mask `moving`), `carried` (mask `carrying`), if there is such a
    layer, and `generated` (mask `mask`).
    """
    frame = torch.lerp(kept, warp(source, flow), moving)
    if carried is not None and carrying is not None:
        frame = torch.lerp(frame, carried, carrying)
    return torch.lerp(frame, generated, mask)


def initialise(module: nn.Module) -> None:
    """Draw convolutions and linear layers from N(0, 0.02) and batch norms from N(1, 0.02), with biases of 0.

    LSTMs stay at PyTorch's default.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
