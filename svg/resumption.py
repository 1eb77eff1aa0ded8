"""What may change when a run is resumed, so that it ends as if it had never stopped."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from data_tools.layout import InputError

from .config import Config, ModelConfig, flag_values

WITHOUT_EFFECT = {
    "data_root", "workers", "data_device", "log_dir", "init_from", "device", "precision", "keep_checkpoints", "save_minutes",
}  # fmt: skip
"""Flags that change no result of a run that has begun; what data, device and precision they stand for is in
`Training.circumstances`."""
OF_THE_MODEL = {"optimizer", *(item.name for item in fields(ModelConfig) if "help" in item.metadata)}
LENGTH = {"niter", "max_minutes"}
OF_VALIDATION = {"--n_past", "--n_eval", "--validate_sequences", "--conditions", "data"}


def flags_with_effect(config: Config) -> dict[str, Any]:
    """The flags that a run's results depend on."""
    return {name: value for name, value in flag_values(config).items() if name not in WITHOUT_EFFECT}


def changes(before: dict[str, Any], now: dict[str, Any], config: Config) -> dict[str, tuple[Any, Any]]:
    """What would let a run under `config` end otherwise than an uninterrupted one: {name: (was, is)}.

    `before` and `now` hold flags and circumstances; earlier releases noted fewer.
    """
    train = config.train
    length_matters = train.lr_schedule != "constant" or train.warmup > 0 or train.kl_anneal != "none"
    passed = set() if length_matters else LENGTH
    flags = flag_values(config)
    return {
        f"--{name}" if name in flags else name: (before[name], now[name])
        for name in now
        if name in before and before[name] != now[name] and name not in passed
    }


def check_changes(run: Path, found: dict[str, tuple[Any, Any]], take_over: bool) -> None:
    """Raises `InputError` for changes that no run can be resumed with, and without `take_over` for any."""
    for name, (was, is_now) in found.items():
        begun = f"{name}: found {is_now}, expected {was}, with which {run} was begun"
        if name.removeprefix("--") in OF_THE_MODEL:
            raise InputError(f"{begun}; begin another run with another --log_dir")
        if not take_over:
            raise InputError(f"{begun}: it would end otherwise than if it had never stopped; add --take_over to go on so knowingly")


def changes_scores(found: dict[str, tuple[Any, Any]]) -> bool:
    """Whether the validation scores before such changes are not to be compared with those after them."""
    return bool(found.keys() & OF_VALIDATION)
