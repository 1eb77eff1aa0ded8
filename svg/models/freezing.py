"""Freeze a trained predictor: the form in which it predicts fastest."""

import copy

from torch import nn

from .. import runtime
from .predictor import Predictor


def freeze(model: Predictor, precision: str = "auto", compile: bool = False) -> Predictor:
    """Return a copy of `model` for prediction alone, in evaluation mode and without gradients of its weights.

    Batch norms, which are fixed scales and shifts by now, are folded into the convolutions before them, and
    with bfloat16 (`precision` as in `runtime.uses_bfloat16`) weights are cast once instead of at every call,
    except those of modules that have `is_exact`.
    Predictions are the same up to rounding. The copy casts by itself, and its `precision` says to what.
    Gradients flow to actions as before. `compile` compiles the parts of a step with torch.compile.
    """
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    device = frozen.device
    frozen.fold_norms()
    frozen.is_frozen = True
    if runtime.uses_bfloat16(device, precision):
        frozen.precision = "bfloat16"
        exact = {
            part
            for module in frozen.modules()
            if getattr(module, "is_exact", False)
            for part in module.modules()
        }
        for module in frozen.modules():
            if (
                isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.LSTM)
                and module not in exact
            ):
                module.bfloat16()
        for method in frozen.entrances:
            setattr(frozen, method, runtime.autocast(device, precision)(getattr(frozen, method)))
    for module in frozen.modules():
        if isinstance(module, nn.LSTM):
            # The weights of a copy are scattered, and cuDNN would gather them at every call.
            module.flatten_parameters()
    if compile:
        for part in frozen.parts():
            part.compile()
    return frozen
