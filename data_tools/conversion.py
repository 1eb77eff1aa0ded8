"""Fill a data root: run jobs that write sequences, report what was left out, assign splits; shared by converters and simulators."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from . import layout
from .claim import claimed
from .command import tell
from .errors import InputError
from .files import write_text
from .index import build_index, describe_index
from .layout import SPLITS
from .pool import in_order

RECIPE_FILE = "conversion.json"
LEFT_OUT_FILE = "left_out.txt"
DEFAULT_SHARES = (0.8, 0.1, 0.1)


@dataclass
class Report:
    """What a conversion did: sequences written now, present before; a line for each thing left out, and for each doubt."""

    written: int = 0
    present: int = 0
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __iadd__(self, other: "Report") -> "Report":
        self.written += other.written
        self.present += other.present
        self.left_out += other.left_out
        self.notes += other.notes
        return self


def gather(parts: Iterable[Report], root: Path, name: str, jobs: int) -> Report:
    """The sum of the reports as they come, with a progress bar; what was left out is listed in ``<root>/left_out.txt``."""
    report = Report()
    for part in tqdm(parts, name, jobs, unit="job", disable=None):
        report += part
    if report.left_out:
        write_text(root / LEFT_OUT_FILE, "".join(f"{line}\n" for line in report.left_out))
    else:
        (root / LEFT_OUT_FILE).unlink(missing_ok=True)
    return report


def fill_root(
    root: Path,
    recipe: dict,
    work: Callable[[Any], Report],
    jobs: Sequence,
    workers: int,
    name: str,
    source: str,
) -> Report:
    """Claim a data root for a recipe, do all jobs, each of which writes sequences into it, and index it.

    Args:
        root: the data root.
        recipe: what decides on the contents, `converter` among it; see `claim.claimed`.
        work, jobs: ``work(job)`` reports what was done.
        workers: processes.
        name, source: of the data set, for ``dataset.json``.

    Raises `InputError` if there is no sequence in the end, and whatever the jobs raise.
    """
    with claimed(root, RECIPE_FILE, recipe):
        report = gather(in_order(work, jobs, workers, root), root, recipe["converter"], len(jobs))
        if not report.written + report.present:
            reason = next(iter(report.left_out + report.notes), "there are none")
            raise InputError(f"{root}: no sequence could be written; {reason}")
        build_index(root, name, source)
    return report


def print_report(out: Path, roots: Iterable[Path], report: Report) -> None:
    """Says what was done in `out` and what each of its data roots holds now."""
    for line in report.left_out:
        tell(f"left out: {line}")
    for line in report.notes:
        tell(f"note: {line}")
    left_out = (
        f", {len(report.left_out)} left out as damaged (see {LEFT_OUT_FILE})" if report.left_out else ""
    )
    tell(f"{out}: {report.written} sequences written, {report.present} were there already{left_out}")
    for root in roots:
        tell(describe_index(root, layout.read_index(root)))


def add_splits_argument(parser: argparse.ArgumentParser, default: str = "") -> None:
    """--splits; None if it is not given and `default` describes what happens then."""
    parser.add_argument(
        "--splits", type=float, nargs=3, default=None if default else DEFAULT_SHARES, metavar=("TRAIN", "VALIDATE", "TEST"),
        help=f"their shares, adding up to 1 (default: {default or ' '.join(map(str, DEFAULT_SHARES))})",
    )  # fmt: skip


def check_shares(shares: tuple[float, ...]) -> None:
    """Raises `InputError` unless --splits are three shares that add up to 1."""
    if (
        len(shares) != len(SPLITS)
        or not all(0 <= share <= 1 for share in shares)
        or abs(sum(shares) - 1) > 1e-6
    ):
        found = " ".join(str(share) for share in shares)
        raise InputError(
            f"--splits: found {found}, expected the shares of {', '.join(SPLITS)}, adding up to 1, like 0.8 0.1 0.1"
        )


def assign_splits(sequences: int, shares: tuple[float, float, float]) -> list[str]:
    """The split of each sequence 0, 1, 2, ...

    The first ones give each wanted split one sequence, each later one goes to the split that lacks most of its share. So the
    numbers come out to within one sequence, and a longer list begins with the shorter one.
    """
    counts = np.zeros(len(shares))
    found = []
    for number in range(sequences):
        lack = np.array(shares) * (number + 1) - counts
        wanted = (np.array(shares) > 0) & (counts == 0)
        split = int(np.argmax(wanted)) if wanted.any() else int(np.argmax(np.round(lack, 9)))
        counts[split] += 1
        found.append(SPLITS[split])
    return found
