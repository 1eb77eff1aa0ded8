"""What may change when a run is resumed, so that it ends as if it had never stopped."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from data_tools.layout import InputError

from .config import Config, ModelConfig, flag_values

WITHOUT_EFFECT = {"data_root", "workers", "data_device", "log_dir", "device", "precision", "keep_checkpoints", "save_minutes"}
"""Flags that change no result, or (data, device, precision) by more than their words: see `Training.circumstances`."""
OF_THE_MODEL = {"optimizer", *(item.name for item in fields(ModelConfig) if "help" in item.metadata)}
LENGTH = {"niter", "max_minutes"}
OF_VALIDATION = {"n_past", "n_eval", "validate_sequences", "conditions", "data"}


def changes(before: Config, now: Config, circumstances_before: dict[str, Any], circumstances: dict[str, Any]) -> dict[str, str]:
    """What would let a resumed run end otherwise than an uninterrupted one: {name: what was and what is}."""
    old, new = flag_values(before), flag_values(now)
    train = now.train
    length_matters = train.lr_schedule != "constant" or train.warmup > 0 or train.kl_anneal != "none"
    passed = WITHOUT_EFFECT if length_matters else WITHOUT_EFFECT | LENGTH
    found = {
        f"--{name}": f"found {new[name]}, expected {old[name]}" for name in new if new[name] != old[name] and name not in passed
    }
    for name, value in circumstances.items():
        if circumstances_before.get(name, value) != value:  # earlier releases noted none
            found[name] = f"found {value}, expected {circumstances_before[name]}"
    return found


def check_changes(run: Path, found: dict[str, str], take_over: bool) -> None:
    """Raises `InputError` for changes that no run can be resumed with, and without `take_over` for any."""
    for name, what in found.items():
        if name.removeprefix("--") in OF_THE_MODEL:
            raise InputError(f"{name}: {what}, with which {run} was begun; begin another run with another --log_dir")
        if not take_over:
            raise InputError(
                f"{name}: {what}, with which {run} was begun: it would end otherwise than if it had never stopped; add --take_over "
                "to go on so knowingly"
            )


def changes_scores(found: dict[str, str]) -> bool:
    """Whether the validation scores before such changes are not to be compared with those after them."""
    return bool({name.removeprefix("--") for name in found} & OF_VALIDATION)
