"""The layers of encoder and decoder, in forms that save time and memory and do not change what is computed.

- `SkipConv` computes the skip's half of a convolution once a clip, and joins up-sampling and convolution.
- `LevelEnd` adds a skip's gradient where it belongs.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm  # of one process or synchronised over several

from .recomputation import Chain


def make_norm(kind: str, channels: int) -> nn.Module:
    """Return a ``batch`` norm, or a ``group`` norm of four groups."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(4 if channels % 4 == 0 else 1, channels)


def make_activation() -> nn.Module:
    """Return a leaky ReLU that works in place."""
    return nn.LeakyReLU(0.2, inplace=True)


def conv_block(
    inputs: int, outputs: int, norm: str, kernel: int = 3, stride: int = 1, padding: int = 1
) -> Chain:
    """Return convolution, norm and leaky ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding)
    return Chain(conv, make_norm(norm, outputs), make_activation())


def fold_norm(norm: BatchNorm, *convs: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Fold a batch norm of a sum of convolutions into them, ``norm(conv(x) + ...)``.

    Weights are scaled by gamma / sigma, and the bias of the first convolution moves accordingly.
    """
    mean, variance, bias = norm.running_mean, norm.running_var, convs[0].bias
    assert mean is not None and variance is not None and bias is not None
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    for conv in convs:
        outputs = 1 if isinstance(conv, nn.ConvTranspose2d) else 0  # the dimension of the output channels
        conv.weight.mul_(scale.view([-1 if dim == outputs else 1 for dim in range(4)]))
    bias.copy_((bias - mean) * scale + norm.bias)


def fold_sequential_norms(module: nn.Module) -> None:
    """Fold each batch norm that follows a convolution at the start of a `torch.nn.Sequential`."""
    for block in list(module.modules()):
        if not isinstance(block, nn.Sequential) or len(block) < 2:
            continue
        conv, norm = block[0], block[1]
        if isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, BatchNorm):
            fold_norm(norm, conv)
            block[1] = nn.Identity()


class LevelEnd(torch.autograd.Function):
    """Split the output `x` [B*T,C,h,w] of an encoder level: on to the next level, and the skip [B,K,C,h,w].

    With `pool` the former is max-pooled by two. The gradient of a plain slice would be spread over zeros for
    all frames, in a memory format that slows down later operations; here it is added where it belongs. The
    places of the maxima are found again in the backward pass: their indices are int64, four times the size of
    what they index.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, batch: int, sources: int, pool: bool) -> tuple[Tensor, Tensor]:
        ctx.batch = batch
        ctx.frames = slice(0, sources) if sources > 0 else slice(sources, None)
        ctx.pool = pool
        skip = x.unflatten(0, (batch, -1))[:, ctx.frames].clone()
        if not pool:
            return x.view_as(x), skip
        ctx.save_for_backward(x)
        return F.max_pool2d(x, 2), skip

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        gradient, skip_gradient = gradients
        if ctx.pool:
            (x,) = ctx.saved_tensors
            size, zero, one = [2, 2], [0, 0], [1, 1]
            _, places = torch.ops.aten.max_pool2d_with_indices(x, size)
            gradient = torch.ops.aten.max_pool2d_with_indices_backward(
                gradient, x, size, size, zero, one, False, places
            )
        else:
            gradient = gradient.clone()
        gradient.unflatten(0, (ctx.batch, -1))[:, ctx.frames] += skip_gradient
        return gradient, None, None, None


@dataclass
class SkipTerm:
    """The inputs of a decoder level besides the features from below, made once a clip by `SkipConv`."""

    term: Tensor  # the skip's share of the level's first convolution [B,K',C,h,w], bias included
    kernel: Tensor  # of the other share, over the features from below
    folded: bool  # the kernel includes the up-sampling

    def last(self) -> "SkipTerm":
        """Return the term of the last source frame alone."""
        return SkipTerm(self.term[:, -1:], self.kernel, self.folded)


class SkipConv(nn.Module):
    """The first convolution of a decoder level, over ``[up, skip]`` joined by channels, in two exact halves.

    Convolution is linear: ``conv([up, skip]) = conv_up(up) + conv_skip(skip)``. The skip is the same for all
    predicted frames of a clip, so `prepare` computes its half once a clip and `forward` adds it to every
    frame.

    The VGG form (a 3x3 convolution after nearest up-sampling by two) takes `up` before the up-sampling: both
    together are one transposed convolution with the kernel of `upsampling_kernel`, in 4/9 of the operations.
    The DCGAN form is a transposed convolution anyway.
    """

    def __init__(self, up: int, skip: int, outputs: int, upsample: bool):
        super().__init__()
        self.channels = [up, skip]
        self.upsample = upsample
        self.conv = (
            nn.Conv2d(up + skip, outputs, 3, 1, 1)
            if upsample
            else nn.ConvTranspose2d(up + skip, outputs, 4, 2, 1)
        )

    def prepare(self, skip: Tensor) -> SkipTerm:
        """Return the term of `skip` [B,K',C,h,w], of the K' source frames of a clip."""
        flat = skip.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        up_weight, skip_weight = self.conv.weight.split(self.channels, int(self.upsample))
        if self.upsample:
            term = F.conv2d(flat, skip_weight, self.conv.bias, 1, 1)
            folded = skip.shape[-1] >= 16  # on fewer pixels the larger kernel costs what it saves
            kernel = upsampling_kernel(up_weight) if folded else up_weight
        else:
            term = F.conv_transpose2d(flat, skip_weight, self.conv.bias, 2, 1)
            folded = True
            kernel = up_weight
        return SkipTerm(term.unflatten(0, skip.shape[:2]), kernel, folded)

    def forward(self, up: Tensor, skip: SkipTerm) -> Tensor:
        """Return the convolution of K frames a clip, `up` [B*K,C,h,w] at half the result's resolution.

        The last of the K' <= K skip terms stands for all frames after it.
        """
        if skip.folded:
            x = F.conv_transpose2d(up, skip.kernel, None, 2, 1)
        else:
            x = F.conv2d(F.interpolate(up, scale_factor=2, mode="nearest"), skip.kernel, None, 1, 1)
        return AddHeld.apply(x, skip.term.to(x.dtype))


def upsampling_kernel(weight: Tensor) -> Tensor:
    """Return the kernel [I,O,4,4] of nearest up-sampling by two and convolution by `weight` [O,I,3,3].

    It is that of a transposed convolution with stride 2; both have padding 1. Of three taps (a, b, c) over
    doubled pixels, an even output sees its own pixel by b + c and the one before by a, an odd one its own by
    a + b and the next by c.
    """
    for dim in (2, 3):
        a, b, c = weight.unbind(dim)
        weight = torch.stack([c, b + c, a + b, a], dim)
    return weight.transpose(0, 1)


class AddHeld(torch.autograd.Function):
    """Add ``hold_last(term)`` to `x` in place, without making the held copies.

    `x` is [B*K,C,h,w], `term` [B,K',C,h,w].
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, term: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.shape = term.shape[:2]
        by_clip = x.unflatten(0, (term.shape[0], -1))
        by_clip[:, : term.shape[1] - 1] += term[:, :-1]
        by_clip[:, term.shape[1] - 1 :] += term[:, -1:]
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        batch, sources = ctx.shape
        by_clip = gradient.unflatten(0, (batch, -1))
        # Summed with the channels last, as they lie in memory: six times as fast on a CPU.
        channels_last = by_clip[:, sources - 1 :].permute(0, 1, 3, 4, 2)
        held = channels_last.sum(1, keepdim=True).permute(0, 1, 4, 2, 3)
        return gradient, torch.cat([by_clip[:, : sources - 1], held], 1)


def hold_last(x: Tensor, length: int) -> Tensor:
    """Repeat the last entry of `x` [B,K',...] until there are `length`: [B,length,...]."""
    missing = length - x.shape[1]
    if missing == 0:
        return x
    held = x[:, -1:].expand(-1, missing + 1, *x.shape[2:])
    return held if x.shape[1] == 1 else torch.cat([x[:, :-1], held], 1)


def warp(frames: Tensor, flow: Tensor) -> Tensor:
    """Sample `frames` [B,K,C,H,W] at each pixel's place plus `flow` [B,K,2,H,W], bilinear.

    The flow is in pixels to the right and down. Beyond the border it is the border's value. This is the
    backward flow of spatial transformers (Jaderberg et al. 2015, equation 5).
    """
    height, width = frames.shape[-2:]
    right = torch.arange(width, device=flow.device) + 0.5
    down = torch.arange(height, device=flow.device) + 0.5
    x = flow[:, :, 0] + right
    y = flow[:, :, 1] + down[:, None]
    grid = torch.stack([x * (2 / width) - 1, y * (2 / height) - 1], -1)
    moved = grid_sample(frames.flatten(0, 1), grid.flatten(0, 1))
    return moved.unflatten(0, frames.shape[:2])


def grid_sample(maps: Tensor, grid: Tensor, padding: str = "border") -> Tensor:
    """Return `maps` [N,C,H,W] at `grid` [N,h,w,2], as `torch.nn.functional.grid_sample` does.

    A place that is not a number is the middle: the backward pass of PyTorch's own on a CPU would write
    outside of its memory there, and a training that diverges would end in a segmentation fault.
    """
    return F.grid_sample(maps, grid.nan_to_num(), padding_mode=padding, align_corners=False)


Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)
SLOPE = 0.1
"""Slope of `activate` below 0."""


def activate(x: Tensor) -> Tensor:
    """Return a leaky ReLU of `x`."""
    return F.leaky_relu(x, SLOPE)


def leaky_conv(inputs: int, outputs: int, kernel: int = 3, scale: float = 1.0) -> nn.Conv2d:
    """Return a convolution that keeps the variance before `activate` (He et al. 2015), times `scale`."""
    return _leaky(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), scale)


def leaky_block(inputs: int, outputs: int, norm: str, stride: int = 1) -> nn.Sequential:
    """Return convolution of 3x3, with a stride of 2 of 4x4, norm and `activate`."""
    conv = nn.Conv2d(inputs, outputs, 2 + stride, stride, 1)
    return nn.Sequential(_leaky(conv, 1.0), make_norm(norm, outputs), nn.LeakyReLU(SLOPE))


def leaky_linear(inputs: int, outputs: int, scale: float = 1.0) -> nn.Linear:
    """Return a linear layer that keeps the variance before `activate`, times `scale`."""
    return _leaky(nn.Linear(inputs, outputs), scale)


@torch.no_grad()
def _leaky(layer: Layer, scale: float) -> Layer:
    nn.init.kaiming_normal_(layer.weight, SLOPE)
    layer.weight.mul_(scale)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def output_layer(layer: Layer) -> Layer:
    """Mark a layer whose outputs mean something by themselves, which Muon leaves to Adam.

    A step of Muon moves all of them by as much as any other layer's, however small they have to be.
    """
    layer.weight.is_output = True  # ty: ignore[missing-attribute] where the optimiser looks for it
    return layer


def learn_faster(module: nn.Module, pace: float) -> None:
    """Let the optimiser move all weights of a module so many times as far as others."""
    for parameter in module.parameters():
        parameter.pace = pace  # ty: ignore[missing-attribute] where the optimiser looks for it


@torch.no_grad()
def tile_subpixels(conv: nn.Conv2d) -> None:
    """Make the four pixels that `torch.pixel_shuffle` makes of a cell equal at first.

    So they show no checkerboard (Aitken et al. 2017).
    """
    weight = conv.weight.unflatten(0, (-1, 4))
    conv.weight.copy_(weight[:, :1].expand_as(weight).flatten(0, 1))
