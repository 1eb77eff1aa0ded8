"""Write an indexed data set in another format, for programs that read that.

--format lerobot: a LeRobot data set, version 3.0. Frames are observation.images.camera, stored as pictures
without loss (or as a video with --video: smaller, and not the same pixels), actions are action, positions of
the hand are observation.state. Each sequence is an episode; the episodes of train, validate and test follow
one another, and meta/info.json says which are which.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from . import layout, remote
from .command import tell
from .converters.lerobot_writer import ACTION, CODECS, STATE, VERSION, Episode, Writer, import_arrow
from .errors import InputError
from .files import whole_folder
from .layout import SPLITS
from .store import Store, opened_store

FORMATS = ("lerobot",)


def export_lerobot(
    root: Path, out: Path, fps: float = 6.0, task: str = "push objects", video: str = ""
) -> int:
    """Write the data set at `root` as the LeRobot data set `out`.

    Args:
        root: an indexed data root, with frames of three channels and numbers as conditions, or none.
        out: a folder that is not there; all of it is written, or nothing.
        fps: frames a second.
        task: description of what is done, the same for all episodes.
        video: a codec of `CODECS`, or "" to store pictures without loss.

    Returns the number of episodes. Raises `InputError` for a data set that cannot be written so.
    """
    import_arrow()
    if not (0 < fps < 1000 and math.isfinite(fps)):
        raise InputError(f"--fps: found {fps:g}, expected a rate above 0 and below 1000")
    if out.exists():
        raise InputError(f"{out}: is there already; remove it or take another name")
    root = remote.local_root(root)
    index = layout.read_index(root)
    info = layout.read_info(root)
    if info.pose_channels:
        raise InputError(f"{root}: found poses, expected actions and positions")
    stores = [opened_store(root, split) for split in SPLITS if (index["split"] == split).any()]
    if any(store.frame_size[2] != 3 for store in stores):
        raise InputError(f"{root}: found grey frames, expected frames of three channels")
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(out) as folder:
        writer = Writer(folder, fps, task, video, stores[0])
        episodes = _episodes(stores, fps)
        for episode in tqdm(episodes, "export", len(index), unit="episode", disable=None):
            writer.add(episode)
        writer.finish(info.source, {store.split: len(store.lengths) for store in stores})
    return len(index)


def _episodes(stores: list[Store], fps: float) -> Iterator[Episode]:
    number = first = 0
    for store in stores:
        actions = store.info.action_dim
        for sequence, length in enumerate(store.lengths.tolist()):
            frames = np.empty((length, *store.frame_size), np.uint8)
            store.read_frames(sequence, 0, frames)
            conditions = store.read_conditions(sequence)
            columns = {}
            if actions:
                columns[ACTION] = conditions[:, :actions]
            if store.info.position_dim:
                columns[STATE] = conditions[:, actions:]
            steps = np.arange(length)
            columns |= {
                "timestamp": (steps / fps).astype(np.float32),
                "frame_index": steps,
                "episode_index": np.full(length, number),
                "index": first + steps,
                "task_index": np.zeros(length, np.int64),
            }
            yield Episode(number, frames, columns)
            number += 1
            first += length


# ----------------------------------------------------------------------------------------------- command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``svg-data export``."""
    parser.add_argument("root", type=Path, help="indexed data root")
    parser.add_argument("out", type=Path, help="folder to write, which is not there yet")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="(default: %(default)s)")
    parser.add_argument("--fps", type=float, default=6.0, help="frames a second (default: %(default)g)")
    parser.add_argument("--task", default="push objects", help="what is done (default: %(default)s)")
    parser.add_argument(
        "--video",
        choices=tuple(CODECS),
        default="",
        help="store a video, with some loss, instead of pictures",
    )


def run(args: argparse.Namespace) -> None:
    """Write the data set in another format and print what was written."""
    count = export_lerobot(args.root, args.out, args.fps, args.task, args.video)
    tell(f"{args.out}: {count} episodes written as a LeRobot data set, version {VERSION}")
