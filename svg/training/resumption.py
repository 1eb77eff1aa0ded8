"""From where a run is resumed, and what may change then, so that it ends as if it had never stopped."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from data_tools.command import tell
from data_tools.errors import InputError

from .. import fingerprint
from ..config import Config, ModelConfig, stored_flags
from ..fingerprint import Fingerprints, Groups
from ..runs import checkpoint
from ..runs.checkpoint import Checkpoint
from .distributed import World

WITHOUT_EFFECT = {
    "data_root", "workers", "data_device", "log_dir", "init_from", "device", "precision", "keep_checkpoints", "save_minutes",
}  # fmt: skip
"""Flags that change no result of a run that has begun; what data, device and precision they stand for is in
`Training.circumstances`."""
OF_THE_MODEL = {"optimizer", *(item.name for item in fields(ModelConfig) if "help" in item.metadata)}
LENGTH = {"niter", "max_minutes"}
OF_VALIDATION = {"--n_past", "--n_eval", "--validate_sequences", "--conditions", "data"}


def find_last(config: Config, resume: bool, world: World) -> Checkpoint | None:
    """The checkpoint to resume from; None for a run that begins.

    Raises `InputError` if there is a run and `resume` is not wanted, if there are its best weights alone, and unless all processes
    find the same.
    """
    run = Path(config.train.log_dir)
    last = checkpoint.find_any(run, "last")
    if not resume and (last is not None or checkpoint.exists(run, "best")):
        raise InputError(
            f"--log_dir: {run} holds a run already; add --resume to go on with it, or choose another folder"
        )
    if last is None and resume:
        best = _find_best(run)
        if (
            best is not None and best.step > config.train.epoch_size
        ):  # later than before a first checkpoint to resume from
            raise InputError(
                f"--resume: {run} has its best weights, of step {best.step}, but nothing to go on from; begin another run "
                f"with --init_from {run}"
            )
    step = -1 if last is None else last.step
    if world.agree(step) != step:
        raise InputError(
            f"--log_dir: process {world.rank} finds another checkpoint in {run} than the first; share it"
        )
    if last is not None and world.first:
        checkpoint.report_damaged(last)
    return last


def accept_changes(
    last: Checkpoint, config: Config, circumstances: dict[str, Any], take_over: bool, is_first: bool
) -> dict[str, tuple[Any, Any]]:
    """What is other than when `last` was written: {name: (was, is)}; the first process prints it.

    Raises `InputError` for changes that the run cannot be resumed with, another model among them, and without `take_over` for any.
    """
    run = Path(config.train.log_dir)
    noted = stored_flags(checkpoint.load_config(run)) | last.progress.flags
    changed = _changes(noted | last.progress.circumstances, flags_with_effect(config) | circumstances, config)
    _check(run, changed, take_over)
    checkpoint.read_weights(last, config.model)
    for name, (was, is_now) in changed.items() if is_first else ():
        tell(f"{name}: {was} up to step {last.step}, {is_now} from there on")
    return changed


def accept_files(run: Path, files: Groups, take_over: bool) -> tuple[list[str], Fingerprints]:
    """Return those of the data set's `files` that are not as the run has noted them, and the fingerprints as they are now.

    With `take_over` they are printed, without it they raise `InputError`. A run of an earlier release has noted none.
    """
    noted = fingerprint.read(run)
    if noted is None:
        return [], fingerprint.take(files)
    changed, now = fingerprint.changed_files(noted, files)
    if changed:
        others = f" and {len(changed) - 1} other files of the data set" if len(changed) > 1 else ""
        told = f"{changed[0]}{others}: not as when {run} was begun"
        if not take_over:
            raise InputError(
                f"{told}: it would end otherwise than if it had never stopped; restore what was changed, or add --take_over to go "
                "on so knowingly"
            )
        tell(f"{told}; it goes on with the data as they are now")
    return changed, now


def score_to_beat(run: Path, changed: dict[str, tuple[Any, Any]]) -> float | None:
    """The best one's, which can be of a later step than the last one; None if new scores are not to be compared with it."""
    best = None if changed.keys() & OF_VALIDATION else _find_best(run)
    return best.progress.best_psnr if best else None


def _find_best(run: Path) -> Checkpoint | None:
    try:
        return checkpoint.find_any(run, "best")
    except checkpoint.Damaged:
        return None


def flags_with_effect(config: Config) -> dict[str, Any]:
    """The flags that a run's results depend on."""
    return {name: value for name, value in stored_flags(config).items() if name not in WITHOUT_EFFECT}


def _changes(before: dict[str, Any], now: dict[str, Any], config: Config) -> dict[str, tuple[Any, Any]]:
    """What would let a run under `config` end otherwise than an uninterrupted one: {name: (was, is)}.

    `before` and `now` hold flags and circumstances; earlier releases noted fewer.
    """
    train = config.train
    length_matters = train.lr_schedule != "constant" or train.warmup > 0 or train.kl_anneal != "none"
    passed = set() if length_matters else LENGTH
    flags = stored_flags(config)
    return {
        f"--{name}" if name in flags else name: (before[name], now[name])
        for name in now
        if name in before and before[name] != now[name] and name not in passed
    }


def _check(run: Path, found: dict[str, tuple[Any, Any]], take_over: bool) -> None:
    """Raises `InputError` for changes that no run can be resumed with, and without `take_over` for any."""
    for name, (was, is_now) in found.items():
        begun = f"{name}: found {is_now}, expected {was}, with which {run} was begun"
        if name.removeprefix("--") in OF_THE_MODEL:
            raise InputError(f"{begun}; begin another run with another --log_dir")
        if not take_over:
            raise InputError(
                f"{begun}: it would end otherwise than if it had never stopped; add --take_over to go on so knowingly"
            )
