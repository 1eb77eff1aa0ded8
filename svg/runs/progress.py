"""How far a run is: what resuming needs besides the weights and the optimiser's state."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

LOSSES = ("loss", "mse", "kl", "grad_norm")
"""The figures that every training step reports."""
REQUIRED = {"step", "minutes", "best_psnr"}
"""The keys that every release has written."""


@dataclass
class EpochSums:
    """Counts of an unfinished epoch's steps, and the sums of their losses."""

    counted: int = 0
    skipped: int = 0
    loss: float = 0.0
    mse: float = 0.0
    kl: float = 0.0
    grad_norm: float = 0.0

    @property
    def steps(self) -> int:
        """Steps that are done and in no line of metrics yet."""
        return self.counted + self.skipped

    def add(self, losses: dict[str, float]) -> None:
        """Add the losses of a step, by name."""
        self.counted += 1
        for name in LOSSES:
            setattr(self, name, getattr(self, name) + losses[name])

    def means(self) -> dict[str, float]:
        """Return the mean of each loss, by name; empty before the first step."""
        if not self.counted:
            return {}
        return {name: getattr(self, name) / self.counted for name in LOSSES}


@dataclass
class Progress:
    """The progress of a run, as it stands in each of its checkpoints.

    `circumstances` and `flags` are those of the training that wrote it; earlier releases wrote neither.
    """

    step: int = 0
    minutes: float = 0.0
    best_psnr: float | None = None
    sums: EpochSums = field(default_factory=EpochSums)
    skipped_in_a_row: int = 0
    circumstances: dict[str, Any] = field(default_factory=dict)
    flags: dict[str, Any] = field(default_factory=dict)

    def to_values(self) -> dict[str, Any]:
        """Return the progress as JSON values."""
        return asdict(self)

    @staticmethod
    def from_values(values: Any) -> "Progress":
        """Return the progress that JSON values describe; what earlier releases left out is zero or empty.

        Raises `ValueError` for anything that no training writes.
        """
        if not isinstance(values, dict) or not values.keys() >= REQUIRED:
            raise ValueError("found no step")
        for name, value in values.items():
            if name not in _CHECKS or not _CHECKS[name](value):
                raise ValueError(f"{name} {value!r}")
        sums = EpochSums(**values["sums"]) if "sums" in values else EpochSums()
        return Progress(**values | {"sums": sums})


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_number_or_none(value: Any) -> bool:
    return value is None or _is_number(value)


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def _is_sums(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"counted", "skipped", *LOSSES}:
        return False
    return (
        _is_count(value["counted"]) and _is_count(value["skipped"]) and all(map(_is_number, value.values()))
    )


_CHECKS = {
    "step": _is_count,
    "minutes": _is_number,
    "best_psnr": _is_number_or_none,
    "sums": _is_sums,
    "skipped_in_a_row": _is_count,
    "circumstances": _is_dict,
    "flags": _is_dict,
}
