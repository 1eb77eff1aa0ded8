"""What a training prints: with what it begins, how long it will take, a line for each epoch, and how it ended."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_tools.command import tell

from ..config import Config, TrainConfig
from ..models.predictor import Predictor
from ..sequences import SequenceDataset, evaluated

COLUMNS = (
    ("loss", "loss", ".5f"), ("mse", "mse", ".5f"), ("kl", "kl", ".2f"), ("beta", "beta", ".1e"), ("tfr", "tfr", ".2f"),
    ("rec", "val_rec_psnr", ".2f"), ("pred", "val_pred_psnr", ".2f"), ("frames/s", "frames_per_second", ".0f"),
)  # fmt: skip
"""Of an epoch's line: label, name and format."""
LONG = 24 * 60  # minutes
MEASURED_STEPS, MEASURED_SECONDS = 20, 30.0


def tell_all(lines: Iterable[str]) -> None:
    """Prints lines."""
    for line in lines:
        tell(line)


def start(
    config: Config,
    training: SequenceDataset,
    validation: SequenceDataset | None,
    weights: int,
    device: str,
    step: int,
) -> list[str]:
    """Return the lines with which a training begins: on what, with what and how long, and what the lines of epochs mean.

    `device` is in words, `step` the one that a resumed run goes on from.
    """
    data, train = config.data, config.train
    conditions = f" with {training.given}" if training.condition_dim else ""
    lengths = f"{data.n_past} frames given{conditions}, {data.n_future} predicted"
    if validation is None:
        sequences, scores = (
            "no validation sequences",
            "none, as nothing is validated; *: the newest weights, kept as the best",
        )
    else:
        scored = evaluated(validation, train.validate_sequences)
        sequences = (
            f"{'' if scored == len(validation) else f'{scored} of '}{len(validation)} validation sequences"
        )
        scores = "PSNR in dB in validation: rec has seen the true frames, pred has not; *: the best pred so far, which is kept"
        if data.n_eval - data.n_past != data.n_future:
            as_many = f"{data.n_past + data.n_future} would predict {data.n_future}"
            lengths += f"; {data.n_eval - data.n_past} in validation: --n_eval {data.n_eval} counts the given ones, {as_many}"
    length = (
        f"{train.niter} epochs of {train.epoch_size} steps of {train.batch_size * train.accumulate} clips"
    )
    length += f", {train.max_minutes:g} minutes at most" * bool(train.max_minutes)
    length += f"; {step} steps are done" * bool(step)
    return [
        f"data      {training.root}: {len(training)} training, {sequences}; {lengths}",
        f"model     {weights:,} weights on {device}",
        f"training  {length}",
        f"schedule  {_annealing(train)}; {_forcing(train)}",
        f"scores    {scores}",
    ]


def _annealing(train: TrainConfig) -> str:
    """Return which course the KL weight takes, in words."""
    if train.kl_anneal == "none":
        return f"beta {train.beta:g} throughout (no KL annealing)"
    cycles = train.kl_anneal_cycle if train.kl_anneal == "cyclical" else 1
    ramp = train.niter / cycles / train.kl_anneal_ratio
    often = f", {cycles} times" if cycles > 1 else ""
    return f"beta rises from 0 to {train.beta:g} in {ramp:g} epochs{often} ({train.kl_anneal} KL annealing)"


def _forcing(train: TrainConfig) -> str:
    """Return which course the probability of teacher forcing takes, in words."""
    if not train.tfr:
        return "no teacher forcing"
    if not train.tfr_decay_step or train.tfr == train.tfr_lower_bound:
        return f"teacher forcing {train.tfr:g} throughout"
    until = f"to epoch {train.tfr_start_decay_epoch + 1}"
    return f"teacher forcing {train.tfr:g} {until}, then {train.tfr_decay_step:g} less each epoch, down to {train.tfr_lower_bound:g}"


class Forecast:
    """How long a training of `steps` steps will take, measured on its own first steps and again where that has changed.

    The first step is not measured: it compiles, allocates and reads what later ones find ready.
    """

    def __init__(self, steps: int, max_minutes: float):
        self.steps, self.max_minutes = steps, max_minutes
        self._first: tuple[int, float] | None = None
        self._told: float | None = None

    def after_step(self, done: int, minutes: float) -> list[str]:
        """Return the lines to print after so many steps and minutes in all; most often none."""
        now = time.monotonic()
        if self._first is None:
            self._first = done, now
            return []
        first, since = self._first
        measured, seconds = done - first, now - since
        if self._told is None and (measured >= MEASURED_STEPS or seconds >= MEASURED_SECONDS):
            return self._tell(minutes + (self.steps - done) * seconds / measured / 60, seconds / measured)
        return []

    def after_epoch(self, done: int, minutes: float) -> list[str]:
        """As `after_step`, after an epoch was scored: what that takes counts, too."""
        if self._told is None or self._first is None or done >= self.steps:
            return []
        first, since = self._first
        seconds = (time.monotonic() - since) / (done - first)
        total = minutes + (self.steps - done) * seconds / 60
        return self._tell(total, seconds) if abs(total / self._told - 1) > 0.25 else []

    def _tell(self, total: float, seconds: float) -> list[str]:
        self._told = total
        if self.max_minutes and total > self.max_minutes:
            return [
                f"expected  {self.max_minutes:g} minutes (--max_minutes), about {60 * self.max_minutes / seconds:.0f} steps"
            ]
        lines = [f"expected  {in_words(total)} in all, {seconds:.2g} seconds a step"]
        if total > LONG:
            lines.append(
                f"note: {in_words(total)} is long. --max_minutes 600 ends after ten hours; a smaller --width, a smaller --niter or "
                "--epoch_size take less; @quickstart.args trains a small model in some minutes"
            )
        return lines


def in_words(minutes: float) -> str:
    """Return a time as ``40 seconds``, ``12 minutes``, ``5.5 hours`` or ``12 days``."""
    for unit, length in (("days", 24 * 60), ("hours", 60), ("minutes", 1)):
        if minutes >= 2 * length:
            return f"{minutes / length:.{0 if minutes >= 10 * length else 1}f} {unit}"
    return f"{60 * minutes:.0f} seconds"


def unlike_conditions(dataset: SequenceDataset, origin: str, model: Predictor) -> str | None:
    """Return a note on the columns of `dataset` that are unlike those that a `model` taken over from `origin` standardises.

    Unlike is a spread four times as large or as small, or a mean more than three standard deviations away. None if all are alike.
    """
    if dataset.info.pose_channels:
        return None
    unlike = []
    statistics = (
        dataset.condition_mean,
        dataset.condition_std,
        model.condition_mean.tolist(),
        model.condition_std.tolist(),
    )
    for name, mean, std, its_mean, its_std in zip(dataset.condition_names, *statistics, strict=True):
        if std > 4 * its_std or 0 < std < its_std / 4 or abs(mean - its_mean) > 3 * its_std:
            unlike.append(f"{name} ({mean:.3g} ± {std:.3g}, there {its_mean:.3g} ± {its_std:.3g})")
    if not unlike:
        return None
    return (
        f"note: {dataset.root} differs from the data of {origin} in {', '.join(unlike)}: are the units the same? "
        "If not, convert these columns: the model takes them as there"
    )


def epoch_line(epoch: int, step: int, minutes: float, values: dict[str, Any], best: bool) -> str:
    """Return the line of an epoch; `values` are its metrics and times by name, `best` says that it has the best score so far."""
    shown = " ".join(f"{label} {values[name]:{form}}" for label, name, form in COLUMNS if name in values)
    skipped = f"  {values['skipped']} steps skipped, not finite" if values.get("skipped") else ""
    return f"epoch {epoch:3d} step {step:6d} {minutes:6.1f} min  {shown}{' *' if best else ''}{skipped}"


def worse_than_start(run: Path, metrics: list[dict[str, Any]], lr: float) -> str | None:
    """Return what to say of a run whose epochs are all no better than what it began with; None if one is or it began afresh."""
    scores = {line["epoch"]: line["val_pred_psnr"] for line in metrics if "val_pred_psnr" in line}
    start = scores.pop(0, None)
    if start is None or max(scores.values(), default=-1e9) > start:
        return None
    trained = "no epoch was trained"
    if scores:
        epoch = max(scores, key=scores.__getitem__)
        trained = f"the best epoch, {epoch}, has pred {scores[epoch]:.2f} dB"
    return (
        f"{run}: training did not improve on the start: {trained}, the start {start:.2f} dB, which stays the best checkpoint; "
        f"try a lower --lr (found {lr:g}), more training data or more --weight_decay"
    )
