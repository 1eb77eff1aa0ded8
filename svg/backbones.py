"""Encoders and decoders with skip connections: VGG and DCGAN, 64 or 128 pixels, vector or grid features.

Both families come as tables of channels at width 1, which are those of SVG (Denton & Fergus 2018); a width multiplier scales
them. In the *vector* form the last layer reduces 4x4 to one vector of `g_dim`; in the *spatial* form the levels stop at an
8x8 grid, which one more convolution brings to `g_dim` channels. Features lie within (-1, 1).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GRID = 8
"""Height and width of the spatial form's features."""

# Output channels of the convolutions of each level, from full resolution down, at width 1.
VGG_LEVELS = {
    64: [[64, 64], [128, 128], [256, 256, 256], [512, 512, 512]],
    128: [[64, 64], [128, 128], [256, 256, 256], [512, 512, 512], [512, 512, 512]],
}
DCGAN_LEVELS = {64: [64, 128, 256, 512], 128: [64, 128, 256, 512, 512]}


def scaled(channels: int, width: float) -> int:
    """Channels times the width multiplier, to the nearest multiple of 4 (so that group norm divides them), at least 4."""
    return max(4, 4 * round(channels * width / 4))


def level_channels(model: str, image_width: int, width: float, spatial: bool) -> list[list[int]]:
    """Channels of each convolution of each encoder level; the spatial form has the levels above the 8x8 grid only."""
    levels = VGG_LEVELS[image_width] if model == "vgg" else [[c] for c in DCGAN_LEVELS[image_width]]
    if spatial:
        levels = levels[: (image_width // GRID).bit_length() - 1]
    return [[scaled(channels, width) for channels in level] for level in levels]


def make_norm(kind: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.GroupNorm(4 if channels % 4 == 0 else 1, channels)


def conv_block(inputs: int, outputs: int, norm: str, kernel: int = 3, stride: int = 1, padding: int = 1) -> nn.Sequential:
    """Convolution, normalisation, leaky ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding), make_norm(norm, outputs), nn.LeakyReLU(0.2, inplace=True)
    )


class Encoder(nn.Module):
    """Frames ``[N,C,H,W]`` in [0,1] -> features ``[N,g_dim]`` or ``[N,g_dim,8,8]``, and each level's output as a skip."""

    def __init__(self, model: str, image_width: int, channels: int, g_dim: int, width: float, norm: str, spatial: bool):
        super().__init__()
        self.pool = model == "vgg"
        levels, inputs = [], channels
        for level in level_channels(model, image_width, width, spatial):
            blocks = []
            for outputs in level:
                shape = (3, 1, 1) if self.pool else (4, 2, 1)
                blocks.append(conv_block(inputs, outputs, norm, *shape))
                inputs = outputs
            levels.append(nn.Sequential(*blocks))
        self.levels = nn.ModuleList(levels)
        last = nn.Conv2d(inputs, g_dim, 3, 1, 1) if spatial else nn.Conv2d(inputs, g_dim, 4)
        self.output = nn.Sequential(last, make_norm(norm, g_dim), nn.Tanh())
        self.spatial = spatial

    def forward(self, frames: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, skips = frames, []
        for level in self.levels:
            x = level(x)
            skips.append(x)
            if self.pool:
                x = F.max_pool2d(x, 2)
        h = self.output(x)
        return h if self.spatial else h.flatten(1), skips


class SkipConv(nn.Module):
    """The first convolution of a decoder level, over ``[up, skip]`` joined by channels, in two exact halves.

    Convolution is linear: ``conv([up, skip]) = conv_up(up) + conv_skip(skip)``. The skip is the same for all predicted frames
    of a clip, so `skip_term` is computed once a clip and `forward` adds it to every frame.
    """

    def __init__(self, conv: type[nn.Module], up: int, skip: int, outputs: int, kernel: int, stride: int, padding: int):
        super().__init__()
        self.conv = conv(up + skip, outputs, kernel, stride, padding)
        self.up = up
        self.transposed = conv is nn.ConvTranspose2d

    def _apply_part(self, x: Tensor, part: slice, bias: Tensor | None) -> Tensor:
        conv, stride, padding = self.conv, self.conv.stride, self.conv.padding
        if self.transposed:
            return F.conv_transpose2d(x, conv.weight[part], bias, stride, padding)
        return F.conv2d(x, conv.weight[:, part], bias, stride, padding)

    def skip_term(self, skip: Tensor) -> Tensor:
        """``[N,skip,h,w] -> [N,outputs,h',w']``, bias included."""
        # channels_last is lost where a clip's first frames are sliced out of a batch
        skip = skip.contiguous(memory_format=torch.channels_last)
        return self._apply_part(skip, slice(self.up, None), self.conv.bias)

    def forward(self, up: Tensor, term: Tensor) -> Tensor:
        """`up` [B*K,...] of K frames a clip; `term` [B,K',...] with K' <= K, its last entry standing for the rest."""
        x = self._apply_part(up, slice(0, self.up), None).unflatten(0, (len(term), -1))
        return (x + hold_last(term, x.shape[1])).flatten(0, 1)


def hold_last(x: Tensor, length: int) -> Tensor:
    """``[B,K',...] -> [B,length,...]``, the last entry held."""
    missing = length - x.shape[1]
    if missing == 0:
        return x
    held = x[:, -1:].expand(-1, missing + 1, *x.shape[2:])
    return held if x.shape[1] == 1 else torch.cat([x[:, :-1], held], 1)


class Decoder(nn.Module):
    """Features and skips -> frames in (0,1).

    With ``blend`` a fourth output channel mixes the generated pixels with those of the last observed frame, mask * generated +
    (1 - mask) * observed: what does not move need not be drawn again (compare Finn et al. 2016, section 3.2).
    """

    def __init__(
        self, model: str, image_width: int, channels: int, g_dim: int, width: float, norm: str, spatial: bool, blend: bool
    ):
        super().__init__()
        levels = level_channels(model, image_width, width, spatial)[::-1]
        self.vgg, self.blend = model == "vgg", blend
        top = levels[0][-1]
        first = (3, 1, 1) if spatial else (4, 1, 0)
        make = nn.Conv2d if spatial else nn.ConvTranspose2d
        self.input = nn.Sequential(make(g_dim, top, *first), make_norm(norm, top), nn.LeakyReLU(0.2, inplace=True))
        self.skip_convs, self.levels = nn.ModuleList(), nn.ModuleList()
        image_channels = channels + blend
        for number, level in enumerate(levels):
            last = number + 1 == len(levels)
            below = image_channels if last else levels[number + 1][-1]
            if self.vgg:
                # The mirror image of the encoder's level; its last convolution already has the next level's channels.
                outputs = level[:1] if last else [*level[:-1], below]
                self.skip_convs.append(SkipConv(nn.Conv2d, level[-1], level[-1], outputs[0], 3, 1, 1))
                layers = [make_norm(norm, outputs[0]), nn.LeakyReLU(0.2, inplace=True)]
                layers += [conv_block(a, b, norm) for a, b in pairwise(outputs)]
                if last:
                    layers.append(nn.ConvTranspose2d(outputs[0], image_channels, 3, 1, 1))
            else:
                self.skip_convs.append(SkipConv(nn.ConvTranspose2d, level[-1], level[-1], below, 4, 2, 1))
                layers = [] if last else [make_norm(norm, below), nn.LeakyReLU(0.2, inplace=True)]
            self.levels.append(nn.Sequential(*layers))

    def skip_terms(self, skips: list[Tensor]) -> list[Tensor]:
        """The encoder's skips, each ``[B,K',C,h,w]`` -> what they add in the decoder; once a clip."""
        pairs = zip(self.skip_convs, reversed(skips), strict=True)
        return [conv.skip_term(skip.flatten(0, 1)).unflatten(0, skip.shape[:2]) for conv, skip in pairs]

    def forward(self, g: Tensor, terms: list[Tensor], observed: Tensor) -> Tensor:
        """`g` [B,K,g_dim(,8,8)], `terms` from `skip_terms`, `observed` [B,K',C,H,W] in [0,1] -> frames [B,K,C,H,W], float32.

        Frame k is drawn with the skip terms and observed frame k; the last ones stand for all that follow.
        """
        batch, frames = g.shape[:2]
        x = self.input(g.flatten(0, 1) if g.dim() == 5 else g.flatten(0, 1)[..., None, None])
        for skip_conv, level, term in zip(self.skip_convs, self.levels, terms, strict=True):
            if self.vgg:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = level(skip_conv(x, term))
        x = torch.sigmoid(x.float()).unflatten(0, (batch, frames))
        if not self.blend:
            return x
        return torch.lerp(hold_last(observed, frames).to(x), x[:, :, :-1], x[:, :, -1:])


def initialise(module: nn.Module) -> None:
    """Convolutions and linear layers N(0, 0.02), biases 0, batch norm N(1, 0.02); LSTMs stay at PyTorch's default."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
