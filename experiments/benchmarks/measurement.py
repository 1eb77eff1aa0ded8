"""What ``svg-benchmark`` measures, as rows of a table and of a JSON file."""

import dataclasses
import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from data_tools.errors import InputError
from data_tools.files import read_bytes, write_text
from data_tools.json_files import MAX_JSON


@dataclass
class Row:
    """Medians of repeated measurements; `reference` is another way to do the same in the same sitting."""

    what: str
    ours: float
    spread: list[float]
    reference: float | None = None
    reference_spread: list[float] | None = None
    tflops: float | None = None  # achieved, of the operations of matrix products and convolutions
    peak_share: float | None = None  # of the measured rate of a large matrix product in the same precision
    memory_mb: float | None = None
    reference_memory_mb: float | None = None

    @staticmethod
    def of(what: str, ours: list[float], reference: list[float] | None = None, **more: float | None) -> "Row":
        row = Row(what, statistics.median(ours), [min(ours), max(ours)], **more)
        if reference:
            row.reference, row.reference_spread = (
                statistics.median(reference),
                [min(reference), max(reference)],
            )
        return row

    @property
    def ratio(self) -> float | None:
        return None if self.reference is None else self.ours / self.reference

    @property
    def memory_ratio(self) -> float | None:
        return (
            None
            if self.memory_mb is None or self.reference_memory_mb is None
            else self.memory_mb / self.reference_memory_mb
        )


COLUMNS = {
    "ours": "ours", "min": "min", "max": "max",
    "reference": "reference", "ratio": "ratio", "tflops": "TFLOP/s", "peak_share": "of peak",
    "memory_mb": "MB", "reference_memory_mb": "ref. MB", "memory_ratio": "ratio", "before": "before", "change": "now/before",
}  # fmt: skip


def table(rows: list[Row], before: list[Row] = ()) -> str:
    """The rows as text, with `before`'s figures of the same names beside them; columns that are empty are left out."""
    earlier = {row.what: row.ours for row in before}
    cells = []
    for row in rows:
        values = dataclasses.asdict(row) | {"min": row.spread[0], "max": row.spread[1], "ratio": row.ratio}
        values |= {"memory_ratio": row.memory_ratio, "before": earlier.get(row.what)}
        values["change"] = row.ours / values["before"] if values["before"] else None
        cells.append(values)
    shown = [name for name in COLUMNS if any(values[name] is not None for values in cells)]
    wide = max(len(row.what) for row in rows)
    lines = [" " * wide + "".join(f"{COLUMNS[name]:>11}" for name in shown)]
    for values in cells:
        lines.append(
            f"{values['what']:<{wide}}" + "".join(f"{_number(name, values[name]):>11}" for name in shown)
        )
    return "\n".join(line.rstrip() for line in lines)


def _number(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name == "peak_share":
        return f"{100 * value:.0f} %"
    if name.endswith("_mb") or value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if "ratio" in name or name == "change" else f"{value:.4g}"


def save(path: Path, machine: dict[str, str], rows: list[Row]) -> None:
    write_text(
        path,
        json.dumps({"machine": machine, "rows": [dataclasses.asdict(row) for row in rows]}, indent=2) + "\n",
    )


def load(path: Path) -> list[Row]:
    """The rows of an earlier `save`. Raises `InputError` for a file that is none."""
    try:
        return [Row(**values) for values in json.loads(read_bytes(path, MAX_JSON))["rows"]]
    except OSError as error:
        raise InputError(f"--compare: {path} cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InputError(f"--compare: {path} is not a file that svg-benchmark --json has written") from None
