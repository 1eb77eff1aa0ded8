"""The layers of encoder and decoder, in forms that save time and memory and change nothing in what is computed.

- `SkipConv` computes the skip's half of a convolution once a clip, and joins up-sampling and convolution into one operation.
- `LevelEnd` adds a skip's gradient where it belongs.
- `stage` keeps one of the two tensors that convolution, norm and activation need for their backward pass.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm  # of one process or synchronised over several


def make_norm(kind: str, channels: int) -> nn.Module:
    return (
        nn.BatchNorm2d(channels) if kind == "batch" else nn.GroupNorm(4 if channels % 4 == 0 else 1, channels)
    )


def activation() -> nn.Module:
    return nn.LeakyReLU(0.2, inplace=True)


def conv_block(
    inputs: int, outputs: int, norm: str, kernel: int = 3, stride: int = 1, padding: int = 1
) -> nn.Sequential:
    """Convolution, normalisation, leaky ReLU: what `stage` runs."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding), make_norm(norm, outputs), activation()
    )


def fold_norm(norm: BatchNorm, *convs: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """norm(conv(x) + ...) as convolutions alone: weights scaled by gamma / sigma, the first one's bias moved accordingly."""
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    for conv in convs:
        outputs = 1 if isinstance(conv, nn.ConvTranspose2d) else 0  # the dimension of the output channels
        conv.weight.mul_(scale.view([-1 if dim == outputs else 1 for dim in range(4)]))
    convs[0].bias.copy_((convs[0].bias - norm.running_mean) * scale + norm.bias)


def fold_sequential_norms(module: nn.Module) -> None:
    """Folds each batch norm that follows a convolution in a `torch.nn.Sequential`."""
    for block in list(module.modules()):
        if isinstance(block, nn.Sequential) and len(block) >= 2 and isinstance(block[1], BatchNorm):
            fold_norm(block[1], block[0])
            block[1] = nn.Identity()


Keep = AbstractContextManager
"""The context in which the result of a `stage` is to be used."""


def stage(
    x: Tensor, linear: Callable[[Tensor], Tensor], norm: nn.Module, act: nn.Module, keep: Keep | None = None
) -> tuple[Tensor, Keep]:
    """``act(norm(linear(x)))`` and the context for its use; `keep` is that of `x`.

    The backward pass needs what `linear` gave and what the activation gave. Only the former is kept and the latter computed
    again from it, which halves the memory of training for some percent of its time (compare Rota Bulo et al. 2018). Group norm
    on a GPU computes in float32 under autocast and saves less.
    """
    with keep or nullcontext():
        x = linear(x)
    normalised = norm(x)
    keep = nullcontext()
    # A compiler weighs keeping against recomputing itself; norms over several processes would have to communicate again.
    if (
        normalised.requires_grad
        and not torch.compiler.is_compiling()
        and type(norm) in (nn.BatchNorm2d, nn.GroupNorm)
    ):
        again = partial(_activate_again, norm, act, norm.training, torch.is_autocast_enabled(x.device.type))
        keep = Recomputed(normalised, again, (x.detach(), norm.weight, norm.bias)).hooks()
    with keep:
        return act(normalised), keep


def _activate_again(
    norm: nn.Module, act: nn.Module, training: bool, autocast: bool, x: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    with torch.no_grad(), torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
        if isinstance(norm, nn.GroupNorm):
            x = F.group_norm(x, norm.num_groups, weight, bias, norm.eps)
        elif training:  # without counting the batch a second time in the running means
            x = F.batch_norm(x, None, None, weight, bias, True, 0.0, norm.eps)
        else:
            x = F.batch_norm(x, norm.running_mean, norm.running_var, weight, bias, False, 0.0, norm.eps)
        return act(x)


@dataclass
class Unchanged:
    """A tensor that must not be changed in place until it is needed: the check that PyTorch makes of tensors it keeps itself."""

    tensor: Tensor
    version: int

    @staticmethod
    def from_now(tensor: Tensor) -> "Unchanged":
        return Unchanged(tensor, tensor._version)

    def get(self) -> Tensor:
        if self.tensor._version != self.version:
            raise RuntimeError(
                f"a tensor of shape {tuple(self.tensor.shape)} that the backward pass needs was changed in place"
            )
        return self.tensor


class Recomputed:
    """A tensor of which operations keep for their backward pass only how to compute it: ``function(*sources)``.

    That holds for operations within the context of `hooks`.
    """

    def __init__(self, tensor: Tensor, function: Callable[..., Tensor], sources: tuple[Tensor, ...]):
        self.pointer, self.shape = tensor.data_ptr(), tensor.shape
        self.function, self.sources = function, [Unchanged.from_now(source) for source in sources]
        self.uses, self.value = 0, None

    def hooks(self) -> Keep:
        return torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)

    def _pack(self, tensor: Tensor) -> "Unchanged | Recomputed":
        if tensor.data_ptr() != self.pointer or tensor.shape != self.shape:
            return Unchanged.from_now(tensor)
        self.uses += 1
        return self

    def _unpack(self, packed: "Unchanged | Recomputed") -> Tensor:
        if isinstance(packed, Unchanged):
            return packed.get()
        value = (
            self.function(*(source.get() for source in self.sources)) if self.value is None else self.value
        )
        self.uses -= 1
        self.value = value if self.uses > 0 else None  # held until its last use
        return value


class LevelEnd(torch.autograd.Function):
    """What goes on from an encoder level `x` [B*T,C,h,w], max-pooled by two with `pool`, and the skip [B,K,C,h,w].

    The gradient of a plain slice would be spread over zeros for all frames, in a memory format that slows down whatever meets
    it; here it is added where it belongs. Where the maxima were is found again in the backward pass: their indices are int64,
    four times the size of what they index.
    """

    @staticmethod
    def forward(ctx, x: Tensor, batch: int, sources: int, pool: bool) -> tuple[Tensor, Tensor]:
        ctx.batch, ctx.frames, ctx.pool = (
            batch,
            slice(0, sources) if sources > 0 else slice(sources, None),
            pool,
        )
        skip = x.unflatten(0, (batch, -1))[:, ctx.frames].clone()
        if not pool:
            return x.view_as(x), skip
        ctx.save_for_backward(x)
        return F.max_pool2d(x, 2), skip

    @staticmethod
    def backward(ctx, gradient: Tensor, of_skip: Tensor) -> tuple[Tensor, None, None, None]:
        if ctx.pool:
            (x,) = ctx.saved_tensors
            _, places = torch.ops.aten.max_pool2d_with_indices(x, [2, 2])
            size, zero, one = [2, 2], [0, 0], [1, 1]
            gradient = torch.ops.aten.max_pool2d_with_indices_backward(
                gradient, x, size, size, zero, one, False, places
            )
        else:
            gradient = gradient.clone()
        gradient.unflatten(0, (ctx.batch, -1))[:, ctx.frames] += of_skip
        return gradient, None, None, None


@dataclass
class SkipTerm:
    """What a decoder level needs besides the features from below: made once a clip by `SkipConv.prepare`."""

    term: Tensor  # the skip's share of the level's first convolution [B,K',C,h,w], bias included
    kernel: Tensor  # of the other share, over the features from below
    folded: bool  # whether the kernel includes the up-sampling

    def last(self) -> "SkipTerm":
        """The term of the last source frame alone."""
        return SkipTerm(self.term[:, -1:], self.kernel, self.folded)


class SkipConv(nn.Module):
    """The first convolution of a decoder level, over ``[up, skip]`` joined by channels, in two exact halves.

    Convolution is linear: ``conv([up, skip]) = conv_up(up) + conv_skip(skip)``. The skip is the same for all predicted frames
    of a clip, so `prepare` computes its half once a clip and `forward` adds it to every frame.

    The VGG form (a 3x3 convolution after nearest up-sampling by two) takes `up` before the up-sampling: both together are one
    transposed convolution with the kernel of `upsampling_kernel`, in 4/9 of the operations. The DCGAN form is a transposed
    convolution anyway.
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
        """`skip` [B,K',C,h,w] of the K' source frames of a clip."""
        flat = skip.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        up_weight, skip_weight = self.conv.weight.split(self.channels, int(self.upsample))
        if self.upsample:
            term = F.conv2d(flat, skip_weight, self.conv.bias, 1, 1)
            fold = skip.shape[-1] >= 16  # on fewer pixels the larger kernel costs what it saves
            kernel = upsampling_kernel(up_weight) if fold else up_weight
        else:
            term, kernel, fold = F.conv_transpose2d(flat, skip_weight, self.conv.bias, 2, 1), up_weight, True
        return SkipTerm(term.unflatten(0, skip.shape[:2]), kernel, fold)

    def forward(self, up: Tensor, skip: SkipTerm) -> Tensor:
        """`up` [B*K,C,h,w] of K frames a clip, at half the result's resolution; the last of K' <= K terms stands for the rest."""
        if skip.folded:
            x = F.conv_transpose2d(up, skip.kernel, None, 2, 1)
        else:
            x = F.conv2d(F.interpolate(up, scale_factor=2, mode="nearest"), skip.kernel, None, 1, 1)
        return AddHeld.apply(x, skip.term.to(x.dtype))


def upsampling_kernel(weight: Tensor) -> Tensor:
    """The kernel [I,O,4,4] of a transposed convolution (stride 2, padding 1) that equals nearest up-sampling by two followed by
    a convolution with `weight` [O,I,3,3] (padding 1).

    Of three taps (a, b, c) over doubled pixels, an even output sees its own pixel by b + c and the one before by a, an odd one
    its own by a + b and the next by c.
    """
    for dim in (2, 3):
        a, b, c = weight.unbind(dim)
        weight = torch.stack([c, b + c, a + b, a], dim)
    return weight.transpose(0, 1)


class AddHeld(torch.autograd.Function):
    """``x + hold_last(term)`` in place, for `x` [B*K,C,h,w] and `term` [B,K',C,h,w], without making the held copies."""

    @staticmethod
    def forward(ctx, x: Tensor, term: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.shape = term.shape[:2]
        by_clip = x.unflatten(0, (len(term), -1))
        by_clip[:, : term.shape[1] - 1] += term[:, :-1]
        by_clip[:, term.shape[1] - 1 :] += term[:, -1:]
        return x

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        batch, sources = ctx.shape
        by_clip = gradient.unflatten(0, (batch, -1))
        # with the channels last, as they lie in memory: six times as fast on a CPU
        held = by_clip[:, sources - 1 :].permute(0, 1, 3, 4, 2).sum(1, keepdim=True).permute(0, 1, 4, 2, 3)
        return gradient, torch.cat([by_clip[:, : sources - 1], held], 1)


def hold_last(x: Tensor, length: int) -> Tensor:
    """``[B,K',...] -> [B,length,...]``, the last entry held."""
    missing = length - x.shape[1]
    if missing == 0:
        return x
    held = x[:, -1:].expand(-1, missing + 1, *x.shape[2:])
    return held if x.shape[1] == 1 else torch.cat([x[:, :-1], held], 1)


def warp(frames: Tensor, flow: Tensor) -> Tensor:
    """What `frames` [B,K,C,H,W] show at each pixel's place plus `flow` [B,K,2,H,W] (right, down; pixels), bilinear.

    Beyond the border it is the border's. The backward flow of spatial transformers (Jaderberg et al. 2015, equation 5).
    """
    height, width = frames.shape[-2:]
    down, right = (torch.arange(size, device=flow.device) + 0.5 for size in (height, width))
    x, y = flow[:, :, 0] + right, flow[:, :, 1] + down[:, None]
    grid = torch.stack([x * (2 / width) - 1, y * (2 / height) - 1], -1)
    moved = F.grid_sample(
        frames.flatten(0, 1), grid.flatten(0, 1), padding_mode="border", align_corners=False
    )
    return moved.unflatten(0, frames.shape[:2])
