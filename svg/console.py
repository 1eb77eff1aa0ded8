"""What a training prints: with what it begins, a line for each epoch, and how it ended."""

from pathlib import Path
from typing import Any

from .predictor import Predictor
from .sequences import SequenceDataset

COLUMNS = (
    ("loss", "loss", ".5f"), ("mse", "mse", ".5f"), ("kl", "kl", ".2f"), ("tfr", "tfr", ".2f"), ("rec", "val_rec_psnr", ".2f"),
    ("pred", "val_pred_psnr", ".2f"), ("frames/s", "frames_per_second", ".0f"),
)  # fmt: skip
"""Of an epoch's line: label, name and format."""


def unlike_conditions(dataset: SequenceDataset, origin: str, model: Predictor) -> str | None:
    """Return a note on the columns of `dataset` that are unlike those that a `model` taken over from `origin` standardises.

    Unlike is a spread four times as large or as small, or a mean more than three standard deviations away. None if all are alike.
    """
    if dataset.info.pose_channels:
        return None
    unlike = []
    statistics = (dataset.condition_mean, dataset.condition_std, model.condition_mean.tolist(), model.condition_std.tolist())
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
