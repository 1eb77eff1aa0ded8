"""Resuming a run: from which checkpoint, and which changes let it end as if it had never stopped."""

import itertools
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from data_tools.command import tell
from data_tools.errors import InputError

from .. import fingerprint, runtime
from ..config import Config, ModelConfig
from ..fingerprint import Fingerprints
from ..flags import stored_flags
from ..processes import World
from ..runs import checkpoint, pretrained
from ..runs.checkpoint import Checkpoint
from ..sequences import SequenceDataset
from . import console
from .learner import Learner

WITHOUT_EFFECT = {
    "data_root",
    "workers",
    "data_device",
    "log_dir",
    "init_from",
    "device",
    "precision",
    "keep_checkpoints",
    "save_minutes",
    "track",
}
"""Flags that change no result once a run has begun; `circumstances` covers the effects of some of them."""
OF_THE_MODEL = {"optimizer", *(item.name for item in fields(ModelConfig) if "help" in item.metadata)}
LENGTH = {"niter", "max_minutes"}
OF_VALIDATION = {"--n_past", "--n_eval", "--validate_sequences", "--conditions", "data"}

Changes = dict[str, tuple[Any, Any]]
"""(old, new) by the name of a flag or circumstance."""


def circumstances(
    config: Config, dataset: SequenceDataset, device: torch.device, world: World
) -> dict[str, Any]:
    """Return what the results of a run depend on besides its flags."""
    on_cpu = device.type == "cpu"  # where sums depend on the number of threads
    return {
        "data": dataset.digest(),
        "processes": world.size,
        "device type": device.type,
        "bfloat16": runtime.uses_bfloat16(device, config.train.precision),
        "torch": torch.__version__,
        "threads": torch.get_num_threads() if on_cpu else 0,
    }


def find_last(config: Config, resume: bool, world: World) -> Checkpoint | None:
    """Return the checkpoint to resume from; None for a run that begins.

    Raises `InputError` if there is a run and `resume` is false, if only its best weights are left, and unless
    all processes find the same checkpoint.
    """
    run = Path(config.train.log_dir)
    last = checkpoint.find_any(run, "last")
    if not resume and (last is not None or checkpoint.exists(run, "best")):
        raise InputError(
            f"--log_dir: {run} holds a run already; add --resume to go on with it, or choose another folder"
        )
    if last is None and resume:
        _check_best_alone(run, config)
    step = -1 if last is None else last.step
    if world.broadcast(step) != step:
        finding = f"process {world.rank} finds another checkpoint in {run} than the first process"
        raise InputError(f"--log_dir: {finding}; share the folder")
    if last is not None and world.is_main:
        checkpoint.report_damaged(last)
    return last


def _check_best_alone(run: Path, config: Config) -> None:
    """Raise `InputError` if a run without a last checkpoint has best weights that would be replaced."""
    best = _find_best(run)
    if best is None:
        return
    # of step 0 are those that a training began with, or a published model that svg-import has put there
    is_first = best.step > 0 or bool(config.train.init_from)
    # a first one is alone if the training was killed before it wrote its first last checkpoint
    if best.step > config.train.epoch_size or not is_first or checkpoint.is_shared(run):
        finding = f"{run} has its best weights, of step {best.step}, but nothing to go on from"
        raise InputError(f"--resume: {finding}; begin another run with --init_from {run}")


def accept_changes(
    last: Checkpoint, config: Config, circumstances: dict[str, Any], take_over: bool, is_main: bool
) -> Changes:
    """Return the settings that differ from those `last` was saved with; the main process prints them.

    Raises `InputError` for changes with which no run can be resumed, and without `take_over` for any.
    """
    run = Path(config.train.log_dir)
    old = stored_flags(checkpoint.load_config(run)) | last.progress.flags | last.progress.circumstances
    new = flags_with_effect(config) | circumstances
    changes = _compare(old, new, config)
    _check(run, changes, take_over)
    checkpoint.read_weights(last, config.model)
    if is_main:
        for name, (before, now) in changes.items():
            tell(f"{name}: {before} up to step {last.step}, {now} from there on")
    return changes


def accept_files(
    config: Config,
    training: SequenceDataset,
    validation: SequenceDataset | None,
    is_resumed: bool,
    take_over: bool,
) -> tuple[Changes, Fingerprints]:
    """Return the fingerprints of the data set's files, and "data" as a change if scored files changed.

    A run that is resumed compares them with those that it noted, if it did. Changed files are printed;
    without `take_over` they raise `InputError`.
    """
    run = Path(config.train.log_dir)
    scored = {} if validation is None else validation.files(config.train.validate_sequences)
    files = training.files() | scored
    noted = fingerprint.read(run) if is_resumed else None
    if noted is None:
        return {}, fingerprint.take(files)
    changed, fingerprints = fingerprint.changed_files(noted, files)
    if changed:
        others = f" and {len(changed) - 1} other files of the data set" if len(changed) > 1 else ""
        finding = f"{changed[0]}{others}: not as when {run} was begun"
        if not take_over:
            raise InputError(
                f"{finding}, so the run would not end as if it had never stopped; restore what was changed, "
                "or add --take_over to go on all the same"
            )
        tell(f"{finding}; the run goes on with the data as they are now")
    is_scored_otherwise = set(itertools.chain.from_iterable(scored.values())).intersection(changed)
    return {"data": ("as noted", "changed")} if is_scored_otherwise else {}, fingerprints


def start_from(model: str, learner: Learner, dataset: SequenceDataset, run: Path) -> None:
    """Take over the weights of a run or released model, and say so.

    Raises `InputError` for one that cannot be used, and unless all processes find the same.
    """
    try:
        digest, share, new = learner.start_from(pretrained.run_folder(model))
    except InputError as error:
        raise InputError(f"--init_from: {error}") from None
    world = learner.world
    number = float(int(digest[:12], 16))
    if world.broadcast(number) != number:
        finding = f"process {world.rank} finds other weights in {model} than the first process"
        raise InputError(f"--init_from: {finding}; share them")
    if world.is_main:
        tell(f"{run}: begins with {share:.1%} of its weights from {model}; new: {', '.join(new) or 'none'}")
        if note := console.unlike_conditions(dataset, model, learner.model):
            tell(note)


def score_to_beat(run: Path, changes: Changes) -> float | None:
    """Return the score of the best checkpoint; None if scores are not comparable with it after these changes.

    The best checkpoint may be of a later step than the last undamaged one.
    """
    best = None if changes.keys() & OF_VALIDATION else _find_best(run)
    return best.progress.best_psnr if best else None


def _find_best(run: Path) -> Checkpoint | None:
    try:
        return checkpoint.find_any(run, "best")
    except checkpoint.Damaged:
        return None


def flags_with_effect(config: Config) -> dict[str, Any]:
    """Return the flags that a run's results depend on."""
    return {name: value for name, value in stored_flags(config).items() if name not in WITHOUT_EFFECT}


def _compare(old: dict[str, Any], new: dict[str, Any], config: Config) -> Changes:
    """Return the flags and circumstances with which a run could end otherwise than an uninterrupted one.

    What earlier releases did not note is no change.
    """
    train = config.train
    depends_on_length = train.lr_schedule != "constant" or train.warmup > 0 or train.kl_anneal != "none"
    ignored = set() if depends_on_length else LENGTH
    flags = stored_flags(config)
    changes = {}
    for name, now in new.items():
        if name in old and old[name] != now and name not in ignored:
            changes[f"--{name}" if name in flags else name] = (old[name], now)
    return changes


def _check(run: Path, changes: Changes, take_over: bool) -> None:
    """Raise `InputError` for changes with which no run can be resumed, and without `take_over` for any."""
    for name, (before, now) in changes.items():
        difference = f"{name}: found {now}, expected {before}, with which {run} was begun"
        if name.removeprefix("--") in OF_THE_MODEL:
            raise InputError(f"{difference}; begin another run with another --log_dir")
        if not take_over:
            consequence = "the run would not end as if it had never stopped"
            raise InputError(f"{difference}: {consequence}; add --take_over to go on all the same")
