"""Faults of a training: which steps are of no use, what led to them, and what its user can do."""

import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save
from torch import nn

from data_tools.layout import whole_file, write_text

from .config import TrainConfig

FOLDER = "fault"


def likely_cure(train: TrainConfig, losses: dict[str, float]) -> str:
    """What to change, from what was not finite first."""
    milder = f"lower --lr (found {train.lr:g})"
    if math.isfinite(losses["loss"]) and not train.max_grad_norm:
        return f"set --max_grad_norm 1 or {milder}"
    if math.isfinite(losses["mse"]) and not math.isfinite(losses["kl"]) and train.kl_anneal == "none":
        return f"use --kl_anneal monotonic or {milder}"
    return milder if train.max_grad_norm else f"{milder} or set --max_grad_norm 1"


def save_what_led_to_it(run: Path, model: nn.Module, skipped: list[dict[str, Any]]) -> Path:
    """Writes ``fault/``: the weights that the steps were tried with, and of each its losses and clips. Returns the folder.

    A step is a function of the weights, the seed and its number: with these it can be done again.
    """
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / "weights.safetensors") as file:
        file.write(save({name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}))
    lines = [{name: value if _is_number(value) else str(value) for name, value in step.items()} for step in skipped]
    write_text(folder / "skipped.jsonl", "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))
    return folder


def _is_number(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def explain(error: Exception) -> str | None:
    """What a fault that is not this program's means, and what to do; None for any other error."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in text:
        where = "on the GPU " if isinstance(error, torch.OutOfMemoryError) else ""
        return (
            f"out of memory {where}in training; lower --batch_size (and raise --accumulate as much: the gradients stay those of "
            "the whole batch), --n_future, --width or --g_dim"
        )
    if "DataLoader worker" in text:
        reason = text.splitlines()[0].removeprefix("DataLoader worker ").strip(" .")
        return (
            f"a process that reads data ended: {reason}; is the memory full? lower --workers, or 0 to read in the training process"
        )
    if isinstance(error, dist.DistError) or "gloo" in text or "Connection closed by peer" in text or "Connection reset" in text:
        return f"another process of this training has ended ({text.splitlines()[0][:120]}); its own message says why"
    if isinstance(error, OSError):
        return f"{error.filename or 'files'}: {error.strerror or error}; make room or mend its rights"
    return None
