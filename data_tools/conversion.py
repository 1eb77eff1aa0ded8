"""Fill data roots: what every converter and simulator does beside reading its source.

A writer is a function that is given one job, such as a file to convert, and writes its sequences. `fill_root`
does the rest: it claims the folder for this recipe, runs the jobs in processes with a progress bar, lists
what was left out, and writes the index.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self, TypeVar

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

Shares = tuple[float, float, float]
"""Shares of the sequences for training, validation and test."""
Job = TypeVar("Job")


@dataclass(frozen=True)
class WorkShard:
    """One of several runs of the same command that fill a data root together, on one machine or on many.

    Args:
        number: of this run, from 1.
        count: of the runs.
    """

    number: int = 1
    count: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether this run does all the work alone."""
        return self.count == 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


WHOLE = WorkShard()


@dataclass
class Report:
    """The result of a conversion, or of one job of it.

    Args:
        written: number of sequences written now.
        present: number of sequences that were there already.
        left_out: a line for each thing that was left out.
        notes: a line for each doubt and each choice.
        shard: the part of the work that this run did.
    """

    written: int = 0
    present: int = 0
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shard: WorkShard = WHOLE

    def add(self, other: Self) -> None:
        """Add the counts and lines of another report."""
        for entry in fields(self):
            if entry.name != "shard":
                setattr(self, entry.name, getattr(self, entry.name) + getattr(other, entry.name))


@dataclass(frozen=True)
class DataRoot:
    """A data root to fill.

    Args:
        folder: its folder.
        recipe: all that decides on its contents, as JSON; see `claim.claimed`.
        name, source: of the data set, for ``dataset.json``.
        recipe_file: where the recipe is kept.
    """

    folder: Path
    recipe: dict[str, Any]
    name: str
    source: str
    recipe_file: str = RECIPE_FILE


def fill_root(
    root: DataRoot | Sequence[DataRoot],
    jobs: Sequence[Job],
    work: Callable[[Job], Report],
    workers: int,
    *,
    target: Callable[[Job], Path] | None = None,
    report: Report | None = None,
    out: Path | None = None,
    shard: WorkShard = WHOLE,
) -> Report:
    """Fill a data root by doing all jobs, and index it.

    One shard of several does every N-th job and indexes nothing: the same command without a shard, when
    all are through, finds every sequence there and writes the index.

    Args:
        root: the data root, or several that the same jobs write into.
        jobs: the pieces of the work; each is done by one process.
        work: does a job, which writes sequences into the roots, and reports it. It must pass over sequences
            that are there: so an interrupted conversion continues.
        workers: number of processes.
        target: if each job writes a single sequence, the folder of that sequence. Jobs whose folder is there
            count as present and are not started.
        report: what is known before the jobs start, such as missing files. Their reports are added to it.
        out: the folder for the list of what was left out; that of the root by default.
        shard: the part of the jobs that is done.

    Returns the report. Raises `InputError` if there is no sequence in the end, and whatever the jobs raise.
    """
    roots = [root] if isinstance(root, DataRoot) else list(root)
    report = Report() if report is None else report
    folder = roots[0].folder
    report.shard = shard
    jobs = jobs[shard.number - 1 :: shard.count]
    with ExitStack() as claims:
        for data_root in roots:
            claim = claimed(data_root.folder, data_root.recipe_file, data_root.recipe, not shard.is_whole)
            claims.enter_context(claim)
        open_jobs = [job for job in jobs if target is None or not target(job).is_dir()]
        present = len(jobs) - len(open_jobs)
        report.present += present
        with tqdm(
            desc=roots[0].recipe.get("converter", "simulate"),
            total=len(jobs),
            initial=present,
            unit="job" if target is None else "sequence",
            disable=None,
        ) as bar:
            for part in in_order(work, open_jobs, workers, folder):
                report.add(part)
                bar.update()
        if not shard.is_whole:
            return report
        _list_left_out(folder if out is None else out, report.left_out)
        if not report.written + report.present:
            reason = next(iter(report.left_out + report.notes), "there are none")
            raise InputError(f"{folder}: no sequence could be written; {reason}")
        for data_root in roots:
            build_index(data_root.folder, data_root.name, data_root.source)
    return report


def _list_left_out(folder: Path, lines: list[str]) -> None:
    """Write the list of what was left out; without any, remove that of an earlier run."""
    path = folder / LEFT_OUT_FILE
    if lines:
        write_text(path, "".join(f"{line}\n" for line in lines))
    else:
        path.unlink(missing_ok=True)


def print_selection(camera: str, actions: Sequence[str], states: Sequence[str]) -> None:
    """Print which features a converter took, and how to choose others."""
    tell(
        f"camera {camera}, actions {' '.join(actions) or 'none'}, "
        f"states {' '.join(states) or 'none'} (choose with --camera, --action_key, --state_key)"
    )


def print_report(out: Path, roots: Iterable[Path], report: Report, verb: str = "written") -> None:
    """Print what was done in `out`, and what each of its data roots holds now."""
    for line in report.left_out:
        tell(f"left out: {line}")
    for line in report.notes:
        tell(f"note: {line}")
    left_out = ""
    if report.left_out:
        listed = f" (see {LEFT_OUT_FILE})" if report.shard.is_whole else ""
        left_out = f", {len(report.left_out)} left out as damaged{listed}"
    tell(f"{out}: {report.written} sequences {verb}, {report.present} were there already{left_out}")
    if not report.shard.is_whole:
        tell(f"shard {report.shard}: when all are through, the same command without --shard writes the index")
        return
    for root in roots:
        tell(describe_index(root, layout.read_index(root)))


def add_splits_argument(parser: argparse.ArgumentParser, default: str = "") -> None:
    """Add --splits; its value is None if it is not given and `default` describes what happens then."""
    usual = " ".join(map(str, DEFAULT_SHARES))
    parser.add_argument(
        "--splits",
        type=float,
        nargs=len(SPLITS),
        default=None if default else DEFAULT_SHARES,
        metavar=("TRAIN", "VALIDATE", "TEST"),
        help=f"their shares, adding up to 1 (default: {default or usual})",
    )


def add_shard_argument(parser: argparse.ArgumentParser) -> None:
    """Add --shard."""
    parser.add_argument(
        "--shard",
        type=_parse_shard,
        default=WHOLE,
        metavar="I/N",
        help="do the I-th of N parts of the work, as one of N jobs of a queue; when all are done, the same "
        "command without it writes the index",
    )


def _parse_shard(text: str) -> WorkShard:
    number, _, count = text.partition("/")
    if number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count) < 10**6:
        return WorkShard(int(number), int(count))
    raise argparse.ArgumentTypeError(f"found {text}, expected I/N like 3/8, from 1/8 to 8/8")


def check_shares(shares: Sequence[float]) -> None:
    """Raise `InputError` unless --splits are three shares that add up to 1."""
    are_shares = len(shares) == len(SPLITS) and all(0 <= share <= 1 for share in shares)
    if not are_shares or abs(sum(shares) - 1) > 1e-6:
        found = " ".join(str(share) for share in shares)
        expected = f"the shares of {', '.join(SPLITS)}, adding up to 1, like 0.8 0.1 0.1"
        raise InputError(f"--splits: found {found}, expected {expected}")


def assign_splits(sequences: int, shares: Sequence[float]) -> list[str]:
    """Return the split of each sequence 0, 1, 2, ...

    The first sequences go to one split each, until every split with a share has one; each later sequence goes
    to the split that lacks most of its share. So beyond the first few the numbers are right to within one
    sequence, and a longer list begins with the shorter one.
    """
    targets = np.array(shares)
    counts = np.zeros(len(targets))
    splits = []
    for number in range(sequences):
        is_empty = (targets > 0) & (counts == 0)
        lacking = np.round(targets * (number + 1) - counts, 9)
        split = int(np.argmax(is_empty if is_empty.any() else lacking))
        counts[split] += 1
        splits.append(SPLITS[split])
    return splits
