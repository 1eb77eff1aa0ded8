"""The log of a run: ``metrics.jsonl``, which a repeated run writes alike, and ``timing.jsonl``."""

import json
import math
from pathlib import Path
from typing import Any

from data_tools.errors import InputError
from data_tools.files import read_bytes, write_text

METRICS_FILE = "metrics.jsonl"
TIMING_FILE = "timing.jsonl"
MAX_BYTES = 2**28
"""The largest size of each: a million epochs."""


def append_epoch(run: Path, metrics: dict[str, Any], timing: dict[str, Any]) -> None:
    """Add an epoch's line to each of the two files."""
    for name, values in ((METRICS_FILE, metrics), (TIMING_FILE, timing)):
        path = run / name
        before = read_bytes(path, MAX_BYTES).decode() if path.exists() else ""
        write_text(path, before + json.dumps(values) + "\n")


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Return the lines of ``metrics.jsonl``, one for each epoch. Raises `InputError` naming a bad line."""
    path = Path(run) / METRICS_FILE
    try:
        texts = read_bytes(path, MAX_BYTES).decode().splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: not found; expected a run folder that svg-train has written") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); restore it") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; restore it") from None
    lines = []
    for number, text in enumerate(texts, start=1):
        line = _parse_line(text)
        if line is None:
            raise InputError(
                f"{path} line {number}: found {text[:40]!r}, expected an epoch's metrics; remove this line"
            )
        lines.append(line)
    return lines


def last_step(run: Path) -> int:
    """Return the last step in the log; 0 before the end of the first epoch."""
    lines = read_metrics(run) if (Path(run) / METRICS_FILE).exists() else []
    return lines[-1]["step"] if lines else 0


def _parse_line(text: str) -> dict[str, Any] | None:
    """Return the values of a line; None if it is not one of an epoch."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or not all(map(_is_number, line.values())):
        return None
    for name in ("epoch", "step"):
        if type(line.get(name)) is not int or line[name] < 0:
            return None
    if type(line.get("skipped", 0)) is not int:
        return None
    return line


def _is_number(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < 2**53
    return type(value) is float and math.isfinite(value)


def truncate(run: Path, step: int) -> None:
    """Drop the lines after `step` and a half-written line: a resumed run repeats these epochs."""
    for path in (run / METRICS_FILE, run / TIMING_FILE):
        if not path.exists():
            continue
        kept = []
        for text in read_bytes(path, MAX_BYTES).decode(errors="replace").splitlines():
            line = _parse_line(text)
            if line is not None and line["step"] <= step:
                kept.append(f"{text}\n")
        write_text(path, "".join(kept))
