"""Read everything in a data set and name the damaged and doubtful sequences; exit code 1 if there are any.

A sequence is damaged if it cannot be read or contradicts the index. Doubtful are frozen frames, actions that
never change, positions that move against the actions where those of other sequences move with them, frames
that stand in two splits, a sequence that is there twice, and statistics that are not those of the training
split.
"""

import argparse
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from . import layout, poses, remote
from .command import tell
from .errors import InputError
from .folders import frame_paths
from .index import WITH_POSES, Moments, kind_of, no_sequences, overlooked
from .layout import SPLITS, DatasetInfo
from .png import read_frame
from .pool import add_workers_argument, check_workers, in_order
from .store import ChunkStore, opened_store
from .tables import row_numbers

FROZEN_RUN = 4  # frames in a row that each equal the one before
REPEATED = (
    0.4  # share of frames that equal the one before: about one half if a 15 Hz camera is recorded at 30 Hz
)
SHARED_FRAMES = 3  # different frames that two sequences have in common before they count as overlapping
LEAST_SEQUENCES = 5  # that must show how an action moves a position before one of them can contradict
LEAST_STEPS = 5  # of a column that move clearly before its signs count
CLEARLY = 0.8  # share of the steps, or of the sequences, that must agree


@dataclass
class Finding:
    """The result of reading one sequence: its problems, and all that is compared with other sequences.

    Args:
        split, path: of the sequence; the path is relative to the data root.
        problems: a line for each.
        row: its columns of the index; empty if the sequence cannot be read.
        conditions: float32 [T,A+P].
        hashes: uint64 [T], one for each frame.
    """

    split: str
    path: str
    problems: list[str] = field(default_factory=list)
    row: dict[str, Any] = field(default_factory=dict)
    conditions: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    hashes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))


@dataclass(frozen=True)
class Report:
    """The result of checking a data set: a line for each problem, and notes about what is no problem."""

    sequences: int
    frames: int
    problems: list[str]
    notes: list[str] = field(default_factory=list)


def check(root: Path, workers: int | None = None) -> Report:
    """Read every sequence under `root`, and compare them with each other and with the index if there is one.

    Raises `InputError` if there are no sequences.
    """
    workers = check_workers(workers)
    opened_store.cache_clear()
    index, info, problems = _read_metadata(root)
    notes = []
    packed = info is not None and not info.in_folders
    if packed:
        jobs, damage = _list_packed(root, index)
        work = partial(_read_packed, root)
    else:
        jobs, damage = _list_folders(root)
        work = partial(_read_folder, root)
        if root.is_dir():
            slips, notes = overlooked(root)
            damage += slips
    problems += damage
    if not jobs and not problems:
        raise no_sequences(root)
    findings = list(tqdm(in_order(work, jobs, workers), "check", len(jobs), unit="sequence", disable=None))
    for finding in findings:
        problems += finding.problems
    readable = [finding for finding in findings if finding.row]
    if findings and not packed:
        problems += _disagreements(root, readable)
        problems += _against_index(root, findings, index) if index is not None else []
    if info is not None:
        problems += _against_statistics(root, findings, info)
    if readable and not packed and kind_of(root) is not WITH_POSES:
        problems += row_numbers(root / readable[0].path, readable[0].row["frames"])
    problems += against_signs(root, readable)
    problems += _shared(root, readable)
    frames = sum(finding.row["frames"] for finding in readable)
    return Report(len(findings), frames, problems, notes)


# ---------------------------------------------------------------------------------------------------- reading


def _read_metadata(root: Path) -> tuple[pd.DataFrame | None, DatasetInfo | None, list[str]]:
    """Return the index and ``dataset.json``, None if missing or damaged, and a line for each problem."""
    index, info, problems = None, None, []
    if not any((root / name).exists() for name in (layout.INDEX_FILE, layout.INFO_FILE)):
        return None, None, []
    try:
        index = layout.read_index(root)
    except InputError as error:
        problems.append(str(error))
    try:
        info = layout.read_info(root)
    except InputError as error:
        problems.append(str(error))
    return index, info, problems


def _list_packed(root: Path, index: pd.DataFrame | None) -> tuple[list[tuple[str, int]], list[str]]:
    """Return (split, number) of each packed sequence, and a line for each split that cannot be opened."""
    jobs, problems = [], []
    for split in [] if index is None else index["split"].unique():
        try:
            store = opened_store(root, split)
            jobs += [(split, number) for number in range(len(store.index))]
            problems += store.damaged() if isinstance(store, ChunkStore) else []
        except InputError as error:
            problems.append(str(error))
    return jobs, problems


def _list_folders(root: Path) -> tuple[list[tuple[str, Path]], list[str]]:
    """Return (split, folder) of each sequence, and a line for each split whose folders cannot be listed."""
    jobs, problems = [], []
    for split in SPLITS:
        try:
            jobs += [(split, folder) for folder in kind_of(root).find(root, split)]
        except InputError as error:
            problems.append(str(error))
    return jobs, problems


def _read_folder(root: Path, job: tuple[str, Path]) -> Finding:
    split, folder = job
    path = folder.relative_to(root).as_posix()
    finding = Finding(split, path)
    kind = kind_of(root)
    try:
        row, conditions = kind.check(root, path)
        files, pose_files = (
            poses.list_sequence(root, path) if kind is WITH_POSES else (frame_paths(folder), [])
        )
        size = (row["height"], row["width"], row["channels"])
        pose_size = (row["height"], row["width"], row.pop("pose_channels", 0))
        frame_hashes = _hashes(read_frame(file, size) for file in files)
        pose_hashes = _hashes(read_frame(file, pose_size) for file in pose_files)
        _examine(finding, str(folder), row, conditions, frame_hashes, pose_hashes)
    except InputError as error:
        finding.problems.append(str(error))
    return finding


def _read_packed(root: Path, job: tuple[str, int]) -> Finding:
    split, number = job
    finding = Finding(split, "")
    try:
        store = opened_store(root, split)
        row = store.index.iloc[number].to_dict()
        finding.path = row["path"]
        name = str(root / row["path"])
        tables, frame_hashes, pose_hashes = [], [], []
        for frames, conditions in store.pieces(number, row["frames"]):
            tables.append(store.conditions.numbers(conditions))
            frame_hashes.append(_hashes(frames))
            pose_hashes.append(_hashes(store.conditions.images(conditions)))
        table = np.concatenate(tables)
        if not np.isfinite(table).all():
            raise InputError(f"{name}: conditions that are not finite; pack the data set again")
        # Nothing follows the last frame: its pose is a copy of the one before.
        _examine(finding, name, row, table, np.concatenate(frame_hashes), np.concatenate(pose_hashes)[:-1])
    except InputError as error:
        finding.problems.append(str(error))
    return finding


def _examine(
    finding: Finding,
    name: str,
    row: dict,
    conditions: np.ndarray,
    frame_hashes: np.ndarray,
    pose_hashes: np.ndarray,
) -> None:
    """Complete a finding, and judge the sequence by itself.

    `pose_hashes` are those of the poses from the second frame on; empty without poses.
    """
    finding.row = row
    finding.conditions = conditions
    finding.hashes = frame_hashes
    repeated = frame_hashes[1:] == frame_hashes[:-1]
    moving = pose_hashes[1:] != pose_hashes[:-1]
    if len(moving):  # who stands still is not frozen
        repeated[1:] &= moving[: max(0, len(repeated) - 1)]
        if len(moving) >= FROZEN_RUN and not moving.any():
            finding.problems.append(f"{name}: the pose never changes; check how the poses were drawn")
    run = longest_run(repeated)
    if run >= min(FROZEN_RUN, len(repeated)) and run:
        finding.problems.append(
            f"{name}: frozen frames, {run + 1} in a row are equal; leave the sequence out or record it again"
        )
    elif repeated.sum() > REPEATED * len(repeated):
        share = f"{repeated.sum()} of {len(frame_hashes)}"
        finding.problems.append(f"{name}: {share} frames equal the one before; take fewer frames a second")
    actions = conditions[:, : row["action_dim"]]
    if actions.size and len(actions) > 2 and (actions == actions[0]).all():
        finding.problems.append(f"{name}: the actions never change; check how they were recorded")


def _hashes(pictures: Iterable[np.ndarray]) -> np.ndarray:
    """Return a hash of each picture, uint64."""
    digests = [
        hashlib.blake2b(np.ascontiguousarray(picture).data, digest_size=8).digest() for picture in pictures
    ]
    return np.frombuffer(b"".join(digests), np.uint64)


def longest_run(flags: np.ndarray) -> int:
    """Return the largest number of True in a row."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


# -------------------------------------------------------------------------------------------------- comparing


def _disagreements(root: Path, findings: list[Finding]) -> Iterator[str]:
    """Yield a line for each sequence of another size or with other columns than most have."""
    columns = ["height", "width", "channels", "action_dim", "position_dim"]
    forms = [tuple(finding.row[column] for column in columns) for finding in findings]
    if not forms:
        return
    usual = pd.Series(forms, dtype=object).value_counts().index[0]
    for finding, form in zip(findings, forms, strict=True):
        for column, value, expected in zip(columns, form, usual, strict=True):
            if value != expected:
                difference = f"found {column} {value}, most sequences have {expected}"
                yield f"{root / finding.path}: {difference}; convert it or move it away"


def _against_index(root: Path, findings: list[Finding], index: pd.DataFrame) -> Iterator[str]:
    """Yield a line for each contradiction between the sequences and the index."""
    by_path = {finding.path: finding for finding in findings}
    again = f"run `svg-data index {root}` again"
    for row in index.to_dict("records"):
        place = root / str(row["path"])
        finding = by_path.pop(row["path"], None)
        if finding is None:
            lost = f"listed in {layout.INDEX_FILE}, but there is no such sequence"
            yield f"{place}: {lost}; restore it or {again}"
        elif finding.row:
            for name, value in (finding.row | {"split": finding.split}).items():
                if row.get(name) != value:
                    yield f"{place}: found {name} {value}, {layout.INDEX_FILE} says {row.get(name)}; {again}"
    for path in by_path:
        yield f"{root / path}: not listed in {layout.INDEX_FILE}; {again}"


def _against_statistics(root: Path, findings: list[Finding], info: DatasetInfo) -> Iterator[str]:
    """Yield a line for the mean or the standard deviation if it is not that of the training split."""
    training = [finding for finding in findings if finding.split == "train"]
    if not all(finding.row and finding.conditions.shape[1] == info.condition_dim for finding in training):
        return  # the faulty ones are named already, and the others have other statistics
    moments = Moments(info.condition_dim)
    for finding in training:
        moments.add(finding.conditions)
    mean, std = moments.result()
    place = root / layout.INFO_FILE
    for name, stored, expected in (("mean", info.mean, mean), ("std", info.std, std)):
        if not np.allclose(stored, expected, rtol=1e-3, atol=1e-3 * np.array(std)):
            yield f"{place}: {name} is not that of the training split; run `svg-data index {root}` again"


def against_signs(root: Path, findings: list[Finding]) -> Iterator[str]:
    """Yield a line for each sequence in which a position moves against the action.

    Action column k is taken for a displacement of position column k if five sequences or more show it
    clearly, and in nearly all of them nearly all steps agree: the position moves with the action. Those that
    contradict are named. If nearly all contradict there is one line instead.
    """
    columns = min((min(f.row["action_dim"], f.row["position_dim"]) for f in findings), default=0)
    for column in range(columns):
        shares = [(finding, agreement(finding, column)) for finding in findings]
        clear = [(finding, share) for finding, share in shares if share is not None]
        if len(clear) < LEAST_SEQUENCES:
            continue
        against = [finding for finding, share in clear if share <= 1 - CLEARLY]
        agreeing = sum(share >= CLEARLY for _, share in clear)
        moves = f"position {column + 1} moves against action {column + 1}"
        if len(against) >= CLEARLY * len(clear):
            yield f"{root}: {moves} in nearly all sequences; check the sign of one"
        elif agreeing >= CLEARLY * len(clear):
            for finding in against:
                yield f"{root / finding.path}: {moves}; check the sign and the timing of both"


def agreement(finding: Finding, column: int) -> float | None:
    """Return the share of clear steps in which the position moves the way that the action points.

    None if there are too few clear steps.
    """
    actions = finding.conditions[:-1, column].astype(np.float64)
    moves = np.diff(finding.conditions[:, finding.row["action_dim"] + column].astype(np.float64))
    if not len(actions) or np.all(actions >= 0) or np.all(actions <= 0):
        return None
    clear = (np.abs(actions) > 0.25 * np.abs(actions).max()) & (np.abs(moves) > 0.25 * np.abs(moves).max())
    return None if clear.sum() < LEAST_STEPS else float((actions[clear] * moves[clear] > 0).mean())


def _shared(root: Path, findings: list[Finding]) -> Iterator[str]:
    """Yield a line for each sequence that has frames of another split or is there twice in its own.

    Sequences in which nothing moves are left out: they are named already, and black ones are all alike.
    """
    findings = [finding for finding in findings if np.any(finding.hashes != finding.hashes[0])]
    yield from _twins(root, findings)
    for number, partner, count in _overlaps(findings):
        finding = findings[number]
        if count >= min(SHARED_FRAMES, len(np.unique(finding.hashes))):
            stand = f"{count} of its frames stand in {root / findings[partner].path} as well"
            advice = f"scores on {finding.split} would flatter: leave one of them out"
            yield f"{root / finding.path}: {stand}; {advice}"


def _twins(root: Path, findings: list[Finding]) -> Iterator[str]:
    first: dict[tuple[str, bytes], Finding] = {}
    for finding in findings:
        original = first.setdefault((finding.split, finding.hashes.tobytes()), finding)
        if original is not finding:
            yield f"{root / finding.path}: the same frames as {root / original.path}; leave one of them out"


def _overlaps(findings: list[Finding]) -> list[tuple[int, int, int]]:
    """Return (number, number of its partner, frames in common) of findings that share frames across splits.

    Of two such findings the one of the later split is listed; its partner is the one with most frames in
    common.
    """
    if not findings:
        return []
    split_numbers = np.array([SPLITS.index(finding.split) for finding in findings])
    owners = np.repeat(np.arange(len(findings)), [len(finding.hashes) for finding in findings])
    values, places = np.unique(np.concatenate([finding.hashes for finding in findings]), return_inverse=True)
    masks = np.zeros(len(values), np.int64)  # of each frame a bit for each split that it stands in
    np.bitwise_or.at(masks, places, (1 << split_numbers)[owners])
    has_several_bits = (masks & (masks - 1)) != 0
    crossing = np.flatnonzero(has_several_bits[places])
    pairs = pd.DataFrame({"owner": owners[crossing], "value": places[crossing]}).drop_duplicates()
    pairs["partner"] = pairs.groupby("value")["owner"].transform("min")
    later = pairs[split_numbers[pairs["partner"]] < split_numbers[pairs["owner"]]]
    counts = later.groupby(["owner", "partner"]).size().reset_index(name="count")
    counts = counts.sort_values("count", ascending=False, kind="stable")
    largest = counts.groupby("owner").head(1).sort_values("owner")
    return list(zip(largest["owner"], largest["partner"], largest["count"], strict=True))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument("root", type=Path, help="data root, with an index or without")
    add_workers_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Check a data set and print the problems. Return 1 if there are any."""
    root = remote.local_root(args.root)
    report = check(root, args.workers)
    for problem in report.problems:
        tell(problem)
    for note in report.notes:
        tell(f"note: {note}")
    if not (root / layout.INDEX_FILE).exists():
        tell(f"{root}: has no index yet; `svg-data index {args.root}` writes it")
    count = len(report.problems)
    found = f"{count} problem{'s' * (count > 1)}" if count else "no problem"
    tell(f"{remote.address(args.root)}: {found} in {report.sequences} sequences, {report.frames} frames")
    return 1 if report.problems else 0
