"""Copy an indexed data set with square frames of another size, index included.

Sequences keep their splits, names, lengths and tables, and grey frames stay grey. The square in the middle is
scaled with an anti-aliased filter; --fit stretch takes the whole frame. Started again, an interrupted copy
continues.
"""

import argparse
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from . import layout, remote
from .conversion import WHOLE, DataRoot, Report, WorkShard, add_shard_argument, fill_root, print_report
from .converters.images import add_fit_arguments, check_image_width, fit_picture
from .errors import InputError
from .files import open_regular, whole_folder
from .folders import write_frames, write_table
from .layout import ACTIONS_FILE, POSITIONS_FILE, SPLITS
from .pack import read_tables
from .pool import add_workers_argument, check_workers
from .store import opened_store
from .tables import condition_files


@dataclass(frozen=True)
class Job:
    """One sequence to copy: its split, its number among those of the split, and the folder to write."""

    split: str
    number: int
    folder: Path


def resize(
    root: Path,
    out: Path,
    image_width: int = 64,
    fit: str = "crop",
    workers: int | None = None,
    shard: WorkShard = WHOLE,
) -> Report:
    """Copy the data set `root` into the data root `out`, with frames of ``image_width`` pixels square.

    Args:
        root: an indexed data set, of folders or packed.
        out: another folder.
        image_width, fit: see `images.fit_picture`.
        workers: number of processes; as many as there are processors if None.
        shard: the part of the work that is done.

    Raises `InputError` for data with poses, whose frames may have any size, and for a sequence that cannot be
    read.
    """
    workers = check_workers(workers)
    check_image_width(image_width)
    if out.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{out}: lies within the data set that is copied; name another folder")
    root = remote.local_root(root)
    info, index = layout.read_info(root), layout.read_index(root)
    if info.pose_channels:
        advice = "--model pose_cvae takes any size as it is"
        raise InputError(f"{root}: has poses, and `svg-data resize` takes frames alone; {advice}")
    opened_store.cache_clear()
    jobs = []
    for split in SPLITS:
        names = index["sequence"][index["split"] == split]
        jobs += [Job(split, number, _folder(out, split, name)) for number, name in enumerate(names)]
    _check_nesting(root, jobs)
    digest, *_ = read_tables(root, index, info.condition_dim)
    recipe = {"converter": "resize", "version": 1, "image_width": image_width, "fit": fit}
    recipe["data set"] = f"{info.name}, {len(index)} sequences, {digest}"
    work = partial(_copy, root, image_width, fit)
    target = DataRoot(out, recipe, info.name, info.source)
    return fill_root(target, jobs, work, workers, target=lambda job: job.folder, shard=shard)


def _folder(out: Path, split: str, name: str) -> Path:
    """Return the folder of a sequence in the copy. Raises `InputError` for a name that leads out of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name:
        found = f"found a sequence called {name!r}, which leads out of it"
        raise InputError(f"{out / split}: {found}; index the data set again")
    return out / split / path


def _check_nesting(root: Path, jobs: list[Job]) -> None:
    """Raise `InputError` if a sequence lies within another one, whose folder would then count as complete."""
    folders = {job.folder for job in jobs}
    for job in jobs:
        above = next((folder for folder in job.folder.parents if folder in folders), None)
        if above:
            within = f"the sequence {job.folder.name} lies within {above.name} ({job.split})"
            raise InputError(f"{root}: {within}; move it out of it")


def _copy(root: Path, width: int, fit: str, job: Job) -> Report:
    """Write one sequence of the copy."""
    store = opened_store(root, job.split)
    frames, conditions = [], []
    for pictures, rows in store.pieces(job.number, int(store.lengths[job.number])):
        frames += [_resize_frame(picture, width, fit) for picture in pictures]
        conditions.append(rows)
    with whole_folder(job.folder) as temporary:
        write_frames(temporary, np.stack(frames))
        if not store.info.in_folders:
            table, actions = np.concatenate(conditions), store.info.action_dim
            for name, part in ((ACTIONS_FILE, table[:, :actions]), (POSITIONS_FILE, table[:, actions:])):
                if part.shape[1]:
                    write_table(temporary / name, part)
        else:  # copied byte for byte: they may go on after the last frame
            folder = root / str(store.index["path"].iat[job.number])
            for path in condition_files(folder).values():
                with open_regular(path, root) as table, open(temporary / path.name, "wb") as copy:
                    shutil.copyfileobj(table, copy)
    return Report(written=1)


def _resize_frame(frame: np.ndarray, width: int, fit: str) -> np.ndarray:
    """Return a frame uint8 [H,W,C] as [width,width,C]."""
    channels = frame.shape[2]
    picture = Image.fromarray(frame if channels == 3 else frame[:, :, 0])
    return fit_picture(picture, width, fit).reshape(width, width, channels)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument("root", type=Path, help="root of an indexed data set")
    parser.add_argument("out", type=Path, help="data root to write")
    add_fit_arguments(parser)
    add_workers_argument(parser)
    add_shard_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Copy a data set and print what was done."""
    report = resize(args.root, args.out, args.image_width, args.fit, args.workers, shard=args.shard)
    print_report(args.out, [args.out], report)
