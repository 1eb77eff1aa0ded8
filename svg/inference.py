"""A trained predictor in the form in which it predicts fastest."""

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # of one process or synchronised over several

from . import runtime
from .model import VideoPredictor


def freeze(model: VideoPredictor, precision: str = "auto", compile: bool = False) -> VideoPredictor:
    """A copy of `model` for prediction alone, in evaluation mode and without gradients of its weights.

    Batch norms, which are fixed scales and shifts by now, are folded into the convolutions before them, and with bfloat16
    (`precision` as in `runtime.uses_bfloat16`) weights are cast once instead of at every call. Predictions are the same up to
    rounding, and the copy sees to the precision itself. Gradients flow to actions as before. `compile` compiles the parts of a
    step with torch.compile.
    """
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    device = frozen.condition_mean.device
    for block in list(frozen.modules()):
        if isinstance(block, nn.Sequential) and len(block) >= 2 and isinstance(block[1], _BatchNorm):
            _fold(block[0], block[1])
            block[1] = nn.Identity()
    for skip_conv, level in zip(frozen.decoder.skip_convs, frozen.decoder.levels, strict=True):
        if len(level) and isinstance(level[0], _BatchNorm):
            _fold(skip_conv.conv, level[0])
            level[0] = nn.Identity()
    if runtime.uses_bfloat16(device, precision):
        for module in frozen.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.LSTM):
                module.bfloat16()
        for method in ("forward", "observe", "imagine", "predict"):
            setattr(frozen, method, runtime.autocast(device, precision)(getattr(frozen, method)))
    for module in frozen.modules():
        if isinstance(module, nn.LSTM):
            module.flatten_parameters()  # copies lie apart, which cuDNN would mend at every call
    if compile:
        for part in filter(None, (frozen.encoder, frozen.decoder, frozen.predictor, frozen.posterior, frozen.prior)):
            part.compile()
    return frozen


def _fold(conv: nn.Conv2d | nn.ConvTranspose2d, norm: _BatchNorm) -> None:
    """norm(conv(x)) as a convolution alone: its weights scaled by gamma / sigma, its bias moved accordingly."""
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    outputs = 1 if isinstance(conv, nn.ConvTranspose2d) else 0  # the dimension of the output channels
    conv.weight.mul_(scale.view([-1 if dim == outputs else 1 for dim in range(4)]))
    conv.bias.copy_((conv.bias - norm.running_mean) * scale + norm.bias)
