"""Checks of tables of scores that were read from files of anybody."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from .methods import METHODS
from .metrics import FRAME, VIDEO, always_taken, of_scope
from .object_tables import FRAME_COLUMNS, OBJECT_COLUMNS

LARGEST = 1e9
"""No score is larger, infinite ones excepted: sums and squares of larger ones would overflow."""
SAMPLE_COLUMNS = ("pairwise_mse", "error_mse", "rank")
"""Mean squared distance of two futures, of a future and the truth, rank of the truth among futures."""


def check_scores(scores: pd.DataFrame, sequences: int, n_future: int) -> None:
    """Raise `ValueError` unless each method has numbers for all sequences, in one order, and all frames."""
    _check_methods(scores["method"].unique())
    optional = [name for name in of_scope(scores.columns, FRAME, VIDEO) if name not in always_taken()]
    _check_values(scores, [*always_taken(), *optional])
    methods = {str(method): rows for method, rows in scores.groupby("method", sort=False)}
    for method in ("copy", "pred"):
        if method not in methods:
            raise ValueError(f"found no scores of {method}")
    names = methods["copy"]["sequence"].to_numpy()[::n_future]
    expected = sequences * n_future
    for method, rows in methods.items():
        if len(rows) != expected:
            raise ValueError(
                f"found {len(rows)} scores of {method}, expected {expected}: "
                f"{n_future} of each of {sequences} sequences"
            )
        is_name_right = rows["sequence"] == np.repeat(names, n_future)
        is_frame_right = rows["frame"] == np.tile(np.arange(n_future) + 1, sequences)
        wrong = rows.index[~(is_name_right & is_frame_right)]
        if len(wrong):
            raise ValueError(f"row {wrong[0] + 2}: not the sequence and frame that {method} has there")


def check_samples(samples: pd.DataFrame) -> None:
    """Raise `ValueError` for a table of statistics of samples without numbers."""
    _check_values(samples, SAMPLE_COLUMNS)


def check_object_scores(table: pd.DataFrame, kind: str, n_future: int) -> None:
    """Raise `ValueError` for a table of ``objects`` or ``parts`` without numbers or of other frames."""
    _check_methods(table["method"].unique())
    if not table["frame"].between(1, n_future).all():
        raise ValueError(f"found a frame that is none of the {n_future} predicted ones")
    if kind == "parts":
        _check_values(table, FRAME_COLUMNS)
        return
    is_lost = table["found"] == 0  # there is no place of what was not found
    _check_values(
        table.assign(**{name: table[name].mask(is_lost, 0) for name in ("mm", "pixels")}), OBJECT_COLUMNS
    )


def check_distances(distances: pd.DataFrame) -> None:
    """Raise `ValueError` for metrics of sets of videos of an unknown method or without numbers."""
    _check_methods(distances.index)
    _check_values(distances, list(distances.columns))


def _check_methods(methods: Iterable[str]) -> None:
    for method in methods:
        if method not in METHODS:
            raise ValueError(f"found the method {method!r}, expected some of {', '.join(METHODS)}")


def _check_values(table: pd.DataFrame, columns: Iterable[str]) -> None:
    for name in columns:
        if name not in table:
            raise ValueError(f"found no column {name}")
        values = pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64)
        is_wrong = np.isnan(values) | ((np.abs(values) > LARGEST) & np.isfinite(values))
        if is_wrong.any():
            place = int(np.argmax(is_wrong))
            row = f"row {place + 2}" if "sequence" in table else table.index[place]
            raise ValueError(
                f"{row}: found {name} {table[name].iloc[place]}, expected a number up to {LARGEST:g} or inf"
            )
