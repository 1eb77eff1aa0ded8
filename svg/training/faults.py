"""Faults of a training: steps that must be skipped, what led to them, and what the user can do."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from data_tools.errors import InputError
from data_tools.files import explain_os_error, folder_in, whole_file, write_text
from data_tools.pool import WorkerEnded

from ..config import TrainConfig
from ..processes import explain_disconnection
from ..runs import checkpoint
from ..runs.progress import LOSSES, Progress
from .learner import Learner, StepReport

FOLDER = "fault"


class StepRecorder:
    """Adds steps to the progress of a run, and ends it when too many in a row are skipped.

    A step is skipped if its loss or gradients are not finite. `clips_of` returns the clips of a step.
    """

    def __init__(
        self, learner: Learner, progress: Progress, clips_of: Callable[[int], list[tuple[str, int]]]
    ):
        self._learner = learner
        self._progress = progress
        self._clips_of = clips_of
        self._skipped: list[dict[str, Any]] = []  # in a row, up to now

    @property
    def has_skipped(self) -> bool:
        """Whether the latest step was skipped."""
        return bool(self._skipped)

    def record(self, report: StepReport) -> None:
        """Add a step to the sums of its epoch.

        Raises `InputError` after ``--max_skipped`` skipped steps in a row.
        """
        progress = self._progress
        if not report.is_skipped:
            progress.sums.add(report.losses)
            progress.skipped_in_a_row = 0
            self._skipped = []
            return
        progress.sums.skipped += 1
        progress.skipped_in_a_row += 1
        settings = {"step": report.step, "lr": report.lr, "beta": report.beta}
        self._skipped.append({**settings, **report.losses, "clips": self._clips_of(report.step)})
        if progress.skipped_in_a_row >= self._learner.config.train.max_skipped:
            raise self._too_many(report)

    def _too_many(self, last: StepReport) -> InputError:
        train = self._learner.config.train
        run = Path(train.log_dir)
        values = ", ".join(f"{name} {value:g}" for name, value in last.losses.items())
        fault = (
            f"{self._progress.skipped_in_a_row} steps in a row were skipped up to step {last.step} ({values})"
        )
        folder = ""
        if self._learner.world.is_main:
            folder = f"; what led to it is in {save_fault(run, self._learner.model, self._skipped)}"
        return InputError(f"{fault}; {likely_cure(train, last.losses)}{folder}{kept(run)}")


def save_fault(run: Path, model: nn.Module, skipped: list[dict[str, Any]]) -> Path:
    """Write ``fault/``: the weights, and for each skipped step its losses and clips. Return the folder.

    A step is a function of the weights, the seed and its number, so it can be run again with these.
    """
    folder = folder_in(run, FOLDER)
    with whole_file(folder / "weights.safetensors") as file:
        file.write(save(checkpoint.stored(model.state_dict())))
    lines = []
    for step in skipped:
        values = {name: value if _is_json(value) else str(value) for name, value in step.items()}
        lines.append(json.dumps(values, allow_nan=False) + "\n")
    write_text(folder / "skipped.jsonl", "".join(lines))
    return folder


def _is_json(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def check_weights(learner: Learner, step: int) -> None:
    """Raise `InputError` if the weights after so many steps are not finite."""
    if learner.is_finite():
        return
    train = learner.config.train
    cure = likely_cure(train, dict.fromkeys(LOSSES, math.nan))
    raise InputError(f"weights are not finite after step {step - 1}; {cure}{kept(Path(train.log_dir))}")


def kept(run: Path) -> str:
    """Return the end of a message that says that the run keeps its last checkpoint, if it has one."""
    return f"; {run} keeps its last checkpoint" if checkpoint.exists(run, "last") else ""


def likely_cure(train: TrainConfig, losses: dict[str, float]) -> str:
    """Return which flag to change, judging by what became infinite first."""
    lower = f"lower --lr (found {train.lr:g})"
    if math.isfinite(losses["loss"]) and not train.max_grad_norm:
        return f"set --max_grad_norm 1 or {lower}"
    if math.isfinite(losses["mse"]) and not math.isfinite(losses["kl"]) and train.kl_anneal == "none":
        return f"use --kl_anneal monotonic or {lower}"
    return lower if train.max_grad_norm else f"{lower} or set --max_grad_norm 1"


def explain(error: Exception, processes: int) -> str | None:
    """Return what a fault of memory, disk or connections means, and what to do; None for any other error.

    `processes` train together.
    """
    text = str(error)
    on_gpu = (
        isinstance(error, torch.OutOfMemoryError)
        or "CUDA error: out of memory" in text
        or "CUBLAS_STATUS_ALLOC_FAILED" in text
    )
    if on_gpu or "DefaultCPUAllocator" in text:
        where = "on the GPU " if on_gpu else ""
        return (
            f"out of memory {where}in training; lower --batch_size (and raise --accumulate as much: "
            "the gradients stay those of the whole batch), --n_future, --width or --g_dim"
        )
    if isinstance(error, WorkerEnded):
        advice = "lower --workers, or 0 to read in the training process"
        return f"a process that reads data ended, {error.reason}; {advice}"
    if isinstance(error, OSError):
        return explain_os_error(error)
    return explain_disconnection(error) if processes > 1 else None
