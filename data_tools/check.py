"""Reads everything in a data set and names each sequence that is damaged or doubtful. Exit code 1 if there is any.

Damaged: what cannot be read, or contradicts the index. Doubtful: frozen frames, actions that never change, positions that move
against the actions where those of other sequences move with them, frames that stand in two splits, a sequence that is there
twice, statistics that are not those of the training split.
"""

import argparse
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from . import layout, poses
from .command import tell
from .errors import InputError
from .folders import frame_paths
from .index import WITH_POSES, Moments, kind_of, no_sequences, overlooked
from .layout import SPLITS, DatasetInfo
from .png import read_frame
from .pool import add_workers_argument, check_workers, in_order
from .store import opened_store
from .tables import row_numbers

FROZEN_RUN = 4  # frames in a row that each equal the one before
REPEATED = 0.4  # share of frames that equal the one before: a 15 Hz camera recorded at 30 Hz has one half, more or less one
SHARED_FRAMES = 3  # different frames that two sequences have in common before they count as overlapping
LEAST_SEQUENCES = 5  # that must show how an action moves a position before one of them can contradict
LEAST_STEPS = 5  # of a column that move clearly before its signs count
CLEARLY = 0.8  # share of the steps, or of the sequences, that must agree


@dataclass
class Finding:
    """What reading one sequence gave: what is wrong with it, and what is needed to compare it with the others."""

    split: str
    path: str
    problems: list[str] = field(default_factory=list)
    row: dict | None = None  # its index columns, None if it cannot be read
    conditions: np.ndarray | None = None  # float32 [T,A+P]
    hashes: np.ndarray | None = None  # uint64 [T], one a frame


@dataclass(frozen=True)
class Report:
    sequences: int
    frames: int
    problems: list[str]  # a line each
    notes: list[str] = field(default_factory=list)  # of what is no problem


def check(root: Path, workers: int | None = None) -> Report:
    """Reads every sequence under `root`, with an index or without, and compares them with each other and with the index."""
    workers = check_workers(workers)
    opened_store.cache_clear()
    index, info, problems = _read_metadata(root)
    notes = []
    packed = info is not None and info.store == "packed"
    if packed:
        jobs = []
        for split in [] if index is None else index["split"].unique():
            try:
                jobs += [(split, number) for number in range(len(opened_store(root, split).index))]
            except InputError as error:  # told once, not for each of its sequences
                problems.append(str(error))
        work = partial(_read_packed, root)
    else:
        jobs = []
        for split in SPLITS:
            try:
                jobs += [(split, folder) for folder in kind_of(root).find(root, split)]
            except InputError as error:
                problems.append(str(error))
        work = partial(_read_folder, root)
        if root.is_dir():
            slips, notes = overlooked(root)
            problems += slips
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


# ---------------------------------------------------------------------------------------------------------- reading


def _read_metadata(root: Path) -> tuple[pd.DataFrame | None, DatasetInfo | None, list[str]]:
    """Index and information, as far as they are there and sound, and what is wrong with them."""
    found, problems = [], []
    for read in (layout.read_index, layout.read_info):
        found.append(None)
        if (root / layout.INDEX_FILE).exists() or (
            root / layout.INFO_FILE
        ).exists():  # one without the other is a problem
            try:
                found[-1] = read(root)
            except InputError as error:
                problems.append(str(error))
    return *found, problems


def _read_folder(root: Path, job: tuple[str, Path]) -> Finding:
    split, folder = job
    path = folder.relative_to(root).as_posix()
    finding, kind = Finding(split, path), kind_of(root)
    try:
        row, conditions = kind.check(root, path)
        files, of_poses = poses.list_sequence(root, path) if kind is WITH_POSES else (frame_paths(folder), [])
        size = (row["height"], row["width"], row["channels"])
        pose_size = (*size[:2], row.pop("pose_channels", 0))
        frame_hashes = _hashes(read_frame(file, size) for file in files)
        pose_hashes = _hashes(read_frame(file, pose_size) for file in of_poses)
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
        finding.problems.append(
            f"{name}: {repeated.sum()} of {len(frame_hashes)} frames equal the one before; take fewer frames a second"
        )
    actions = conditions[:, : row["action_dim"]]
    if actions.size and len(actions) > 2 and (actions == actions[0]).all():
        finding.problems.append(f"{name}: the actions never change; check how they were recorded")


def _hashes(pictures: Iterable[np.ndarray]) -> np.ndarray:
    """Return a hash of each picture, uint64."""
    digests = [hashlib.blake2b(np.ascontiguousarray(picture), digest_size=8).digest() for picture in pictures]
    return np.frombuffer(b"".join(digests), np.uint64)


def longest_run(flags: np.ndarray) -> int:
    """The most True in a row."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


# -------------------------------------------------------------------------------------------------------- comparing


def _disagreements(root: Path, findings: list[Finding]) -> Iterator[str]:
    """Sequences of another size or with other columns than most have."""
    columns = ["height", "width", "channels", "action_dim", "position_dim"]
    kinds = pd.Series(
        [tuple(finding.row[column] for column in columns) for finding in findings], dtype=object
    )
    if kinds.empty:
        return
    usual = kinds.value_counts().index[0]
    for finding, kind in zip(findings, kinds, strict=True):
        for column, found, expected in zip(columns, kind, usual, strict=True):
            if found != expected:
                yield f"{root / finding.path}: found {column} {found}, most sequences have {expected}; convert it or move it away"


def _against_index(root: Path, findings: list[Finding], index: pd.DataFrame) -> Iterator[str]:
    found = {finding.path: finding for finding in findings}
    again = f"run `svg-data index {root}` again"
    for row in index.to_dict("records"):
        finding = found.pop(row["path"], None)
        if finding is None:
            yield f"{root / row['path']}: listed in {layout.INDEX_FILE}, but there is no such sequence; restore it or {again}"
        elif finding.row:
            for name, found_here in (finding.row | {"split": finding.split}).items():
                if row.get(name) != found_here:
                    yield f"{root / row['path']}: found {name} {found_here}, {layout.INDEX_FILE} says {row.get(name)}; {again}"
    for path in found:
        yield f"{root / path}: not listed in {layout.INDEX_FILE}; {again}"


def _against_statistics(root: Path, findings: list[Finding], info: DatasetInfo) -> Iterator[str]:
    training = [finding.conditions for finding in findings if finding.split == "train"]
    if any(table is None or table.shape[1] != info.condition_dim for table in training):
        return  # told already; what is left has other statistics
    moments = Moments(info.condition_dim)
    for table in training:
        moments.add(table)
    mean, std = moments.result()
    for name, found, expected in (("mean", info.mean, mean), ("std", info.std, std)):
        if not np.allclose(found, expected, rtol=1e-3, atol=1e-3 * np.array(std)):
            yield f"{root / layout.INFO_FILE}: {name} is not that of the training split; run `svg-data index {root}` again"


def against_signs(root: Path, findings: list[Finding]) -> Iterator[str]:
    """Positions that move against the actions.

    Action column k is taken for a displacement of position column k if five sequences or more show it clearly and in nearly all
    of them nearly all steps agree: the position moves with the action. Those that contradict are named; and if nearly all
    contradict, that is told once.
    """
    for column in range(min((min(f.row["action_dim"], f.row["position_dim"]) for f in findings), default=0)):
        shares = [
            (finding, share) for finding in findings if (share := agreement(finding, column)) is not None
        ]
        if len(shares) < LEAST_SEQUENCES:
            continue
        against = [finding for finding, share in shares if share <= 1 - CLEARLY]
        if len(against) >= CLEARLY * len(shares):
            yield f"{root}: position {column + 1} moves against action {column + 1} in nearly all sequences; check the sign of one"
        elif sum(share >= CLEARLY for _, share in shares) >= CLEARLY * len(shares):
            for finding in against:
                yield (
                    f"{root / finding.path}: position {column + 1} moves against action {column + 1}; "
                    "check the sign and the timing of both"
                )


def agreement(finding: Finding, column: int) -> float | None:
    """The share of clear steps whose position moves the way that the action points; None if there are too few of them."""
    actions = finding.conditions[:-1, column].astype(np.float64)
    moves = np.diff(finding.conditions[:, finding.row["action_dim"] + column].astype(np.float64))
    if not len(actions) or (actions >= 0).all() or (actions <= 0).all():
        return None
    clear = (np.abs(actions) > 0.25 * np.abs(actions).max()) & (np.abs(moves) > 0.25 * np.abs(moves).max())
    return None if clear.sum() < LEAST_STEPS else float((actions[clear] * moves[clear] > 0).mean())


def _shared(root: Path, findings: list[Finding]) -> Iterator[str]:
    """Sequences that have frames of another split, and those that are there twice in one.

    Those in which nothing moves are told already: black ones are all alike.
    """
    findings = [finding for finding in findings if (finding.hashes != finding.hashes[0]).any()]
    if not findings:
        return
    first = {}
    for finding in findings:
        original = first.setdefault((finding.split, finding.hashes.tobytes()), finding)
        if original is not finding:
            yield f"{root / finding.path}: the same frames as {root / original.path}; leave one of them out"
    owners = np.repeat(np.arange(len(findings)), [len(finding.hashes) for finding in findings])
    values, places = np.unique(np.concatenate([finding.hashes for finding in findings]), return_inverse=True)
    split_bits = np.array([1 << SPLITS.index(finding.split) for finding in findings])[owners]
    masks = np.zeros(len(values), np.int64)
    np.bitwise_or.at(masks, places, split_bits)
    crossing = np.flatnonzero((masks & (masks - 1))[places])  # frames that stand in two splits
    pairs = pd.DataFrame({"owner": owners[crossing], "value": places[crossing]}).drop_duplicates()
    pairs["partner"] = pairs.groupby("value")["owner"].transform("min")
    split_order = np.array([SPLITS.index(finding.split) for finding in findings])
    told = pairs[split_order[pairs["partner"]] < split_order[pairs["owner"]]]  # once, of the later split
    counts = told.groupby(["owner", "partner"]).size().sort_values(ascending=False, kind="stable")
    for (owner, partner), count in counts.groupby("owner").head(1).sort_index().items():
        finding = findings[owner]
        if count >= min(SHARED_FRAMES, len(np.unique(finding.hashes))):
            yield (
                f"{root / finding.path}: {count} of its frames stand in {root / findings[partner].path} as well; "
                f"scores on {finding.split} would flatter: leave one of them out"
            )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, help="data root, with an index or without")
    add_workers_argument(parser)


def run(args: argparse.Namespace) -> int:
    report = check(args.root, args.workers)
    for problem in report.problems:
        tell(problem)
    for note in report.notes:
        tell(f"note: {note}")
    if not (args.root / layout.INDEX_FILE).exists():
        tell(f"{args.root}: has no index yet; `svg-data index {args.root}` writes it")
    count = len(report.problems)
    found = f"{count} problem{'s' * (count > 1)}" if count else "no problem"
    tell(f"{args.root}: {found} in {report.sequences} sequences, {report.frames} frames")
    return 1 if report.problems else 0
