"""What all writers of data sets share: a root that belongs to one recipe, work spread over processes, records, splits.

A writer takes its root with `claimed`, makes each sequence whole under its final name or not at all, and passes over what is
there: so an interrupted one continues, and ends with what an uninterrupted one would have written.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from . import layout
from .folders import remove_leftovers, write_sequence
from .layout import SPLITS, InputError
from .tfrecord import Damage, Feature, Record, parse_example, read_records

LOCK_PATIENCE = 5.0  # seconds: what a killed run's last worker may need to notice
AHEAD = 4
RECIPE_FILE = "conversion.json"
LEFT_OUT_FILE = "left_out.txt"
DEFAULT_SHARES = (0.8, 0.1, 0.1)


@contextlib.contextmanager
def claimed(root: Path, recipe_file: str, recipe: dict) -> Iterator[None]:
    """Takes `root` for one run of one recipe: nobody else writes there meanwhile, and what is there was made by the same recipe.

    The recipe is kept in ``<root>/<recipe_file>``; leftovers of an interrupted run are removed. Raises `InputError` if the root
    was made by another recipe, holds sequences of unknown origin, or is being written by another process; nothing is lost then.
    """
    if root.exists() and not root.is_dir():
        raise InputError(f"{root}: is a file, expected a folder; name another root")
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root):
        _compare_recipes(root, recipe_file, recipe)
        remove_leftovers(root)
        for split in SPLITS:
            for folder, subfolders, _ in os.walk(root / split):
                remove_leftovers(Path(folder))
                subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        yield


def _compare_recipes(root: Path, recipe_file: str, recipe: dict) -> None:
    path = root / recipe_file
    recipe = json.loads(json.dumps(recipe))
    if path.exists():
        try:
            found = json.loads(path.read_text())
            different = [name for name in recipe if found.get(name) != recipe[name]]
        except (ValueError, AttributeError):
            raise InputError(f"{path}: damaged; restore it or write into another root") from None
        if different:
            name = different[0]
            raise InputError(
                f"{path}: found {name} {_short(found.get(name))}, expected {_short(recipe[name])} as now asked for; nothing was "
                "changed: use the same settings, or another root"
            )
    elif any((root / split).exists() for split in SPLITS):
        raise InputError(f"{root}: holds sequences of another origin (no {recipe_file}); write into another root")
    else:
        layout.write_text(path, json.dumps(recipe, indent=2) + "\n")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Holds the root for this process and, through `_start_worker`, for its workers, even if this process is killed."""
    if fcntl is None:
        yield
        return
    handle, deadline = os.open(root, os.O_RDONLY), time.monotonic() + LOCK_PATIENCE
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise InputError(f"{root}: another process is writing there; wait for it or name another root") from None
                time.sleep(0.05)
            except OSError:  # a file system without locks
                break
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)  # which the workers share
        yield
    finally:
        os.close(handle)


# ----------------------------------------------------------------------------------------------------------- workers


def in_order(work: Callable, jobs: Iterable, workers: int, root: Path | None = None) -> Iterator:
    """``map(work, jobs)`` by so many processes, which share the claim on `root`; a single one is this process.

    At most `AHEAD` jobs a worker are under way or waiting to be taken, so memory does not grow with their number.
    """
    if workers <= 1:
        yield from map(work, jobs)
        return
    # Spawned, not forked: the caller may have threads (torch has), whose locks a fork would copy.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(root,)) as pool:
        try:
            waiting = deque()
            for job in jobs:
                waiting.append(pool.submit(work, job))
                if len(waiting) >= AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise InputError(
                "--workers: a worker process ended early (out of memory? or a calling script that lacks "
                "`if __name__ == '__main__':`); the sequences written so far stay: run again with fewer workers"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)  # those under way end their job


def _start_worker(root: Path | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # interrupts are the parent's business
    if fcntl is not None and root is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(os.open(root, os.O_RDONLY), fcntl.LOCK_SH)  # held until this process ends
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def check_workers(workers: int | None) -> int:
    """The number of processes that --workers asks for; one a processor by default."""
    if workers is not None and workers < 1:
        raise InputError(f"--workers: found {workers}, expected 1 or more")
    if workers:
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def add_workers_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, help="processes (default: one a processor)")


# ----------------------------------------------------------------------------------------------------------- records


@dataclass
class Report:
    """What a conversion did: sequences written now, present before, and damaged records left out."""

    written: int = 0
    present: int = 0
    left_out: list[str] = field(default_factory=list)

    def __iadd__(self, other: "Report") -> "Report":
        self.written += other.written
        self.present += other.present
        self.left_out += other.left_out
        return self


def convert_records(
    path: Path,
    folders: Callable[[int], dict[str, Path]],
    read: Callable[[dict[str, Feature], str], tuple],
    skip_damaged: bool,
    expected: int = 0,
) -> Report:
    """Writes the records of one TFRecord file as sequences.

    Args:
        path: the file.
        folders: by camera, the sequence folders that record n becomes; none if it is not wanted. Those that are there stay.
        read: (frames, actions, positions) of a camera from the record's features; raises `ValueError` with what is wrong.
        skip_damaged: list damaged records in the report instead of raising `InputError` with file, record and byte offset.
        expected: the least number of records that the file has.
    """
    report = Report()

    def missing(number: int) -> dict[str, Path]:
        return {camera: folder for camera, folder in folders(number).items() if not folder.is_dir()}

    def wanted(number: int) -> bool:
        lacking = missing(number)
        report.present += len(folders(number)) - len(lacking)
        return bool(lacking)

    for record in read_records(path, wanted, expected):
        if isinstance(record, Record):
            try:
                features = parse_example(record.data)
                recordings = [(folder, read(features, camera)) for camera, folder in missing(record.number).items()]
            except ValueError as error:
                record = Damage(path, record.number, record.offset, str(error))
            else:
                for folder, recording in recordings:
                    write_sequence(folder, *recording)
                    report.written += 1
        if isinstance(record, Damage) and folders(record.number):
            if not skip_damaged:
                raise InputError(f"{record}; restore this file, or leave such records out with --skip_damaged")
            report.left_out.append(str(record))
    return report


def gather(parts: Iterable[Report], root: Path, name: str, jobs: int) -> Report:
    """The sum of the reports as they come, with a progress bar; what was left out is listed in ``<root>/left_out.txt``."""
    report = Report()
    for part in tqdm(parts, name, jobs, unit="file", disable=None):
        report += part
    if report.left_out:
        layout.write_text(root / LEFT_OUT_FILE, "".join(f"{line}\n" for line in report.left_out))
    else:
        (root / LEFT_OUT_FILE).unlink(missing_ok=True)
    return report


def print_report(out: Path, report: Report) -> None:
    for line in report.left_out:
        print(f"left out: {line}")
    left_out = f", {len(report.left_out)} left out as damaged (see {LEFT_OUT_FILE})" if report.left_out else ""
    print(f"{out}: {report.written} sequences written, {report.present} were there already{left_out}")


# ------------------------------------------------------------------------------------------------------------ splits


def add_splits_argument(parser: argparse.ArgumentParser, default: str = "") -> None:
    """--splits; None if it is not given and `default` describes what happens then."""
    parser.add_argument(
        "--splits", type=float, nargs=3, default=None if default else DEFAULT_SHARES, metavar=("TRAIN", "VALIDATE", "TEST"),
        help=f"their shares, adding up to 1 (default: {default or ' '.join(map(str, DEFAULT_SHARES))})",
    )  # fmt: skip


def check_shares(shares: tuple[float, ...]) -> None:
    """Raises `InputError` unless --splits are three shares that add up to 1."""
    if len(shares) != len(SPLITS) or not all(0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        found = " ".join(str(share) for share in shares)
        raise InputError(f"--splits: found {found}, expected the shares of {', '.join(SPLITS)}, adding up to 1, like 0.8 0.1 0.1")


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
