"""Faults of a training: which steps are of no use, what led to them, and what its user can do."""

import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save
from torch import nn

from data_tools.files import explain_os_error, folder_in, whole_file, write_text
from data_tools.pool import WorkerEnded

from ..config import TrainConfig
from ..runs.checkpoint import stored

FOLDER = "fault"
OF_CONNECTIONS = ("gloo", "Connection closed by peer", "Connection reset")


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
    folder = folder_in(run, FOLDER)
    with whole_file(folder / "weights.safetensors") as file:
        file.write(save(stored(model.state_dict())))
    lines = [
        {name: value if _is_number(value) else str(value) for name, value in step.items()} for step in skipped
    ]
    write_text(folder / "skipped.jsonl", "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))
    return folder


def _is_number(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def explain(error: Exception, processes: int) -> str | None:
    """What a fault that is not this program's means, and what to do; None for any other error. `processes` train together."""
    text = str(error)
    first = (text.splitlines() or [""])[0]
    on_gpu = (
        isinstance(error, torch.OutOfMemoryError)
        or "CUDA error: out of memory" in text
        or "CUBLAS_STATUS_ALLOC_FAILED" in text
    )
    if on_gpu or "DefaultCPUAllocator" in text:
        return (
            f"out of memory {'on the GPU ' if on_gpu else ''}in training; lower --batch_size (and raise --accumulate as much: the "
            "gradients stay those of the whole batch), --n_future, --width or --g_dim"
        )
    if isinstance(error, WorkerEnded):
        return f"a process that reads data ended, {error.reason}; lower --workers, or 0 to read in the training process"
    if isinstance(error, OSError):
        return explain_os_error(error)
    if processes > 1 and (
        isinstance(error, dist.DistError) or any(words in text for words in OF_CONNECTIONS)
    ):
        return f"the connection to the other processes is lost ({first[:120]}); the message of the one that ended first says why"
    return None
