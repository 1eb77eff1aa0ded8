"""Figures of ``svg-benchmark`` as rows of a table and of a JSON file."""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.errors import InputError
from data_tools.files import read_bytes, write_text
from data_tools.json_files import MAX_JSON, read_dataclass
from svg.evaluation.tables import Table

LEAST_WIDTH = 9
"""Letters of a column of numbers, so that tables of several runs look alike."""


@dataclass
class Row:
    """Medians of repeated measurements; `reference` is another way to do the same in the same sitting.

    tflops      achieved, of the operations of matrix products and convolutions
    peak_share  of the measured rate of a large matrix product in the same precision
    """

    what: str
    ours: float
    spread: list[float]
    reference: float | None = None
    reference_spread: list[float] | None = None
    tflops: float | None = None
    peak_share: float | None = None
    memory_mb: float | None = None
    reference_memory_mb: float | None = None

    @staticmethod
    def of(what: str, ours: list[float], reference: list[float] | None = None, **more: Any) -> "Row":
        """Return the row of several measurements."""
        row = Row(what, statistics.median(ours), [min(ours), max(ours)], **more)
        if reference:
            row.reference = statistics.median(reference)
            row.reference_spread = [min(reference), max(reference)]
        return row

    @property
    def ratio(self) -> float | None:
        """Ours over the reference."""
        return None if self.reference is None else self.ours / self.reference

    @property
    def memory_ratio(self) -> float | None:
        """Our memory over that of the reference."""
        if self.memory_mb is None or self.reference_memory_mb is None:
            return None
        return self.memory_mb / self.reference_memory_mb


COLUMNS = {
    "ours": "ours", "min": "min", "max": "max",
    "reference": "reference", "ratio": "ratio", "tflops": "TFLOP/s", "peak_share": "of peak",
    "memory_mb": "MB", "reference_memory_mb": "ref. MB", "memory_ratio": "ratio",
    "before": "before", "change": "now/before",
}  # fmt: skip


def table(rows: list[Row], before: Sequence[Row] = ()) -> str:
    """Return the rows as text beside those of the same names `before`; empty columns are left out."""
    earlier = {row.what: row.ours for row in before}
    values = [_values(row, earlier.get(row.what)) for row in rows]
    shown = [name for name in COLUMNS if any(cells[name] is not None for cells in values)]
    header = ["", *(COLUMNS[name] for name in shown)]
    lines = [
        [row.what, *(_number(name, cells[name]) for name in shown)]
        for row, cells in zip(rows, values, strict=True)
    ]
    return Table(header, lines).text(LEAST_WIDTH)


def _values(row: Row, before: float | None) -> dict[str, Any]:
    """Return the numbers of a row by the names of `COLUMNS`."""
    return dataclasses.asdict(row) | {
        "min": row.spread[0],
        "max": row.spread[1],
        "ratio": row.ratio,
        "memory_ratio": row.memory_ratio,
        "before": before,
        "change": row.ours / before if before else None,
    }


def _number(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name == "peak_share":
        return f"{100 * value:.0f} %"
    if name.endswith("_mb") or value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if "ratio" in name or name == "change" else f"{value:.4g}"


def save(path: Path, machine: dict[str, str], rows: list[Row]) -> None:
    """Write the rows, with the machine that they depend on."""
    values = {"machine": machine, "rows": [dataclasses.asdict(row) for row in rows]}
    write_text(path, json.dumps(values, indent=2) + "\n")


def load(path: Path) -> list[Row]:
    """Return the rows of an earlier `save`. Raises `InputError` for another file."""
    try:
        return [read_dataclass(Row, row, path) for row in json.loads(read_bytes(path, MAX_JSON))["rows"]]
    except OSError as error:
        raise InputError(f"--compare: {path} cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InputError(f"--compare: {path} is not a file that svg-benchmark --json has written") from None
