"""What a training prints: what it trains, how long it will take, a line for each epoch, and how it ended."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_tools.command import tell

from .. import runtime
from ..config import Config, TrainConfig
from ..models.predictor import Predictor
from ..runs.progress import Progress
from ..sequences import SequenceDataset, evaluated, report_left_out
from .schedules import EpochSettings

if TYPE_CHECKING:
    from .learner import Learner

COLUMNS = (
    ("loss", "loss", ".5f"),
    ("mse", "mse", ".5f"),
    ("kl", "kl", ".2f"),
    ("beta", "beta", ".1e"),
    ("tfr", "tfr", ".2f"),
    ("rec", "val_rec_psnr", ".2f"),
    ("pred", "val_pred_psnr", ".2f"),
    ("frames/s", "frames_per_second", ".0f"),
)
"""Label, name and format of each figure in an epoch's line."""
LONG_TRAINING = 24 * 60  # minutes
MEASURED_STEPS = 20
MEASURED_SECONDS = 30.0


def tell_all(lines: Iterable[str]) -> None:
    """Print lines."""
    for line in lines:
        tell(line)


def tell_start(
    config: Config,
    training: SequenceDataset,
    validation: SequenceDataset | None,
    learner: "Learner",
    progress: Progress,
) -> None:
    """Print what is trained, on what and for how long."""
    for dataset in filter(None, (training, validation)):
        report_left_out(dataset)
    weights = sum(parameter.numel() for parameter in learner.model.parameters())
    device = runtime.describe(learner.device, config.train.precision)
    if learner.world.size > 1:
        device += f", {learner.world.size} processes"
    tell_all(start(config, training, validation, weights, device, progress.step))


def start(
    config: Config,
    training: SequenceDataset,
    validation: SequenceDataset | None,
    weights: int,
    device: str,
    step: int,
) -> list[str]:
    """Return the first lines of a training: data, model, length, schedules, and what the scores mean.

    `weights` is their number, `device` is in words, and `step` the one from which a resumed run goes on.
    """
    sequences = f"{len(training)} training, {_validation_sequences(config, validation)}"
    if validation is None:
        scores = "none, as nothing is validated; *: the newest weights, kept as the best"
    else:
        scores = (
            "PSNR in dB in validation: rec has seen the true frames, pred has not; "
            "*: the best pred so far, which is kept"
        )
    return [
        f"data      {training.place}: {sequences}; {_clip_lengths(config, training, validation)}",
        f"model     {weights:,} weights on {device}",
        f"training  {_training_length(config.train, step)}",
        f"schedule  {_annealing(config.train)}; {_forcing(config.train)}",
        f"scores    {scores}",
    ]


def _validation_sequences(config: Config, validation: SequenceDataset | None) -> str:
    """Return how many sequences are scored, in words."""
    if validation is None:
        return "no validation sequences"
    scored = evaluated(validation, config.train.validate_sequences)
    part = "" if scored == len(validation) else f"{scored} of "
    return f"{part}{len(validation)} validation sequences"


def _clip_lengths(config: Config, training: SequenceDataset, validation: SequenceDataset | None) -> str:
    """Return how many frames are given and predicted, in words."""
    data = config.data
    conditions = f" with {training.given}" if training.condition_dim else ""
    lengths = f"{data.n_past} frames given{conditions}, {data.n_future} predicted"
    scored = data.n_eval - data.n_past
    if validation is not None and scored != data.n_future:
        as_many = f"{data.n_past + data.n_future} would predict {data.n_future}"
        lengths += f"; {scored} in validation: --n_eval {data.n_eval} counts the given ones, {as_many}"
    return lengths


def _training_length(train: TrainConfig, step: int) -> str:
    """Return how long the training is at most, in words."""
    clips = train.batch_size * train.accumulate
    length = f"{train.niter} epochs of {train.epoch_size} steps of {clips} clips"
    if train.max_minutes:
        length += f", {train.max_minutes:g} minutes at most"
    if step:
        length += f"; {step} steps are done"
    return length


def _annealing(train: TrainConfig) -> str:
    """Return the schedule of the KL weight, in words."""
    if train.kl_anneal == "none":
        return f"beta {train.beta:g} throughout (no KL annealing)"
    cycles = train.kl_anneal_cycle if train.kl_anneal == "cyclical" else 1
    ramp = train.niter / cycles / train.kl_anneal_ratio
    often = f", {cycles} times" if cycles > 1 else ""
    return f"beta rises from 0 to {train.beta:g} in {ramp:g} epochs{often} ({train.kl_anneal} KL annealing)"


def _forcing(train: TrainConfig) -> str:
    """Return the schedule of teacher forcing, in words."""
    if not train.tfr:
        return "no teacher forcing"
    if not train.tfr_decay_step or train.tfr == train.tfr_lower_bound:
        return f"teacher forcing {train.tfr:g} throughout"
    until = f"to epoch {train.tfr_start_decay_epoch + 1}"
    fall = f"then {train.tfr_decay_step:g} less each epoch, down to {train.tfr_lower_bound:g}"
    return f"teacher forcing {train.tfr:g} {until}, {fall}"


class Forecast:
    """The time that a training of `steps` steps will take, measured on its own steps.

    It is printed after the first steps, and again where scoring changes it. The first step is not measured:
    it compiles, allocates and reads what later ones find ready.
    """

    def __init__(self, steps: int, max_minutes: float):
        self.steps = steps
        self.max_minutes = max_minutes
        self._first: tuple[int, float] | None = None
        self._forecast: float | None = None

    def after_step(self, done: int, minutes: float) -> list[str]:
        """Return the lines to print after so many steps and minutes in all; most often none."""
        now = time.monotonic()
        if self._first is None:
            self._first = done, now
            return []
        first, since = self._first
        measured = done - first
        seconds = now - since
        is_enough = measured >= MEASURED_STEPS or seconds >= MEASURED_SECONDS
        if self._forecast is not None or not is_enough:
            return []
        total = minutes + (self.steps - done) * seconds / measured / 60
        return self._lines(total, seconds / measured)

    def after_epoch(self, done: int, minutes: float) -> list[str]:
        """Return the lines to print after an epoch was scored, which takes time, too; most often none."""
        if self._forecast is None or self._first is None or done >= self.steps:
            return []
        first, since = self._first
        seconds = (time.monotonic() - since) / (done - first)
        total = minutes + (self.steps - done) * seconds / 60
        is_other = abs(total / self._forecast - 1) > 0.25
        return self._lines(total, seconds) if is_other else []

    def _lines(self, total: float, seconds: float) -> list[str]:
        self._forecast = total
        if self.max_minutes and total > self.max_minutes:
            steps = 60 * self.max_minutes / seconds
            return [f"expected  {self.max_minutes:g} minutes (--max_minutes), about {steps:.0f} steps"]
        lines = [f"expected  {in_words(total)} in all, {seconds:.2g} seconds a step"]
        if total > LONG_TRAINING:
            lines.append(
                f"note: {in_words(total)} is long. --max_minutes 600 ends after ten hours; "
                "a smaller --width, --niter or --epoch_size takes less; "
                "@quickstart.args trains a small model in some minutes"
            )
        return lines


def in_words(minutes: float) -> str:
    """Return a time as ``40 seconds``, ``12 minutes``, ``5.5 hours`` or ``12 days``."""
    for unit, length in (("days", 24 * 60), ("hours", 60), ("minutes", 1)):
        if minutes >= 2 * length:
            return f"{minutes / length:.{0 if minutes >= 10 * length else 1}f} {unit}"
    return f"{60 * minutes:.0f} seconds"


def unlike_conditions(dataset: SequenceDataset, origin: str, model: Predictor) -> str | None:
    """Return a note on the columns of `dataset` that differ much from those with which a `model` was trained.

    A column differs if its spread is four times as large or as small, or its mean more than three standard
    deviations away. None if no column does. `origin` is the run whose weights `model` took over.
    """
    buffers = dict(model.named_buffers())
    if "condition_mean" not in buffers:  # its conditions are poses
        return None
    statistics = zip(
        dataset.condition_names,
        dataset.condition_mean,
        dataset.condition_std,
        buffers["condition_mean"].tolist(),
        buffers["condition_std"].tolist(),
        strict=True,
    )
    unlike = []
    for name, mean, std, model_mean, model_std in statistics:
        if std > 4 * model_std or 0 < std < model_std / 4 or abs(mean - model_mean) > 3 * model_std:
            unlike.append(f"{name} ({mean:.3g} ± {std:.3g}, there {model_mean:.3g} ± {model_std:.3g})")
    if not unlike:
        return None
    return (
        f"note: {dataset.place} differs from the data of {origin} in {', '.join(unlike)}: "
        "are the units the same? If not, convert these columns to the units there, which the model expects"
    )


def postfix(losses: dict[str, float], settings: EpochSettings) -> dict[str, Any]:
    """Return the figures of the progress bar by label."""
    means = {name: f"{value:.4g}" for name, value in losses.items()}
    speed = f"{settings.frames_per_second:.0f}"
    return {**means, "beta": settings.beta, "tfr": settings.tfr, "frames/s": speed}


def epoch_line(values: dict[str, Any], is_best: bool) -> str:
    """Return the line of an epoch; `values` are its metrics and times by name."""
    figures = [f"{label} {values[name]:{form}}" for label, name, form in COLUMNS if name in values]
    place = f"epoch {values['epoch']:3d} step {values['step']:6d} {values['minutes']:6.1f} min"
    line = f"{place}  {' '.join(figures)}"
    if is_best:
        line += " *"
    if values.get("skipped"):
        line += f"  {values['skipped']} steps skipped, not finite"
    return line


def nothing_left(run: Path, progress: Progress) -> str:
    """Return the line of a run that is at its end already."""
    done = f"{progress.step} steps and {progress.minutes:.1f} minutes"
    return f"{run}: nothing left to do after {done}; raise --niter or --max_minutes"


def stopped(run: Path, step: int) -> str:
    """Return the line of a run that a signal has stopped after so many steps."""
    command = f"`svg-train --log_dir {run} --resume`"
    if not step:
        return f"stopped before the first step; {command} begins again"
    return f"stopped after step {step}, all is saved; {command} goes on from there"


def worse_than_start(run: Path, metrics: list[dict[str, Any]], lr: float) -> str | None:
    """Return a line about a run none of whose epochs improved on the weights that it took over; else None."""
    scores = {line["epoch"]: line["val_pred_psnr"] for line in metrics if "val_pred_psnr" in line}
    start = scores.pop(0, None)
    if start is None or max(scores.values(), default=-1e9) > start:
        return None
    trained = "no epoch was trained"
    if scores:
        epoch = max(scores, key=scores.__getitem__)
        trained = f"the best epoch, {epoch}, has pred {scores[epoch]:.2f} dB"
    return (
        f"{run}: training did not improve on the start: {trained}, the start {start:.2f} dB, which stays "
        f"the best checkpoint; try a lower --lr (found {lr:g}), more training data or more --weight_decay"
    )
