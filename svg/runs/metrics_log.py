"""What a run notes of its epochs: ``metrics.jsonl``, which another run of the same flags would write too, and ``timing.jsonl``."""

import json
import math
from pathlib import Path
from typing import Any

from data_tools.errors import InputError
from data_tools.files import read_bytes, write_text

METRICS_FILE = "metrics.jsonl"
TIMING_FILE = "timing.jsonl"
MOST_BYTES = 2**28  # of each: a million epochs


def append_epoch(run: Path, metrics: dict[str, Any], timing: dict[str, Any]) -> None:
    """Adds an epoch's line to each of the two files."""
    for name, values in ((METRICS_FILE, metrics), (TIMING_FILE, timing)):
        path = run / name
        before = read_bytes(path, MOST_BYTES).decode() if path.exists() else ""
        write_text(path, before + json.dumps(values) + "\n")


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``, one an epoch. Raises `InputError` naming a bad line."""
    path = Path(run) / METRICS_FILE
    try:
        texts = read_bytes(path, MOST_BYTES).decode().splitlines()
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
    """The last step that is noted; 0 before the end of the first epoch."""
    lines = read_metrics(run) if (Path(run) / METRICS_FILE).exists() else []
    return lines[-1]["step"] if lines else 0


def _parse_line(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or not all(
        type(line.get(name)) is int and 0 <= line[name] < 2**53 for name in ("epoch", "step")
    ):
        return None
    if type(line.get("skipped", 0)) is not int:
        return None
    if not all(
        type(value) in (int, float) and abs(value) < (math.inf if type(value) is float else 2**53)
        for value in line.values()
    ):
        return None
    return line


def truncate(run: Path, step: int) -> None:
    """Drops what was noted after `step` and a line cut off while it was written: a resumed run does these epochs again."""
    for path in (run / METRICS_FILE, run / TIMING_FILE):
        if path.exists():
            text = read_bytes(path, MOST_BYTES).decode(errors="replace")
            kept = [
                raw
                for raw in text.splitlines()
                if (line := _parse_line(raw)) is not None and line["step"] <= step
            ]
            write_text(path, "".join(f"{raw}\n" for raw in kept))
