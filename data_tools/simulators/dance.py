"""Simulate a person who moves in a room, with the skeleton of every frame, index included.

The person walks, stretches and bends. The command writes ``<root>/train/train_img/<N>/0.png ...`` and, with
the same number, ``<root>/train/train_label/<N>/0.png ...``, and likewise val/ and test/. This is the layout
of a course on predicting people from poses. Frames are twice as wide as high. The camera stands still; the
lamp and the exposure differ from sequence to sequence.

A sequence depends only on the seed and its number, not on the number of workers. Started again with the
same settings, an interrupted simulation continues; a larger --sequences adds to the sequences that are
there.
"""

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..conversion import (
    DEFAULT_SHARES,
    WHOLE,
    DataRoot,
    Report,
    Shares,
    WorkShard,
    assign_splits,
    fill_root,
    print_report,
)
from ..errors import InputError
from ..pool import check_workers
from ..poses import frames_root, write_sequence
from .push import RECIPE_FILE, add_simulation_arguments, check_counts, check_mujoco

VERSION = 1  # of the simulator: another one writes other bytes from the same seed


@dataclass(frozen=True)
class Job:
    """One sequence to simulate: its number and its split."""

    number: int
    split: str


def simulate_sequence(seed: int, number: int, frames: int, image_width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return frames and skeletons of one sequence, uint8 [T,H,W,3]; see `simulate` for the arguments."""
    from .dancer import CAMERA, Dancer, choreograph, random_light
    from .raycast import Renderer

    generator = np.random.default_rng([seed, number])
    height = image_width // 2
    dancer = Dancer()
    light, exposure = random_light(generator)
    postures = choreograph(generator, frames)
    dancer.take(postures[0])
    renderer = Renderer(dancer.model, dancer.data, dancer.surfaces, image_width, CAMERA, light, height)
    images, skeletons = [], []
    for posture in postures:
        dancer.take(posture)
        images.append(renderer.render(dancer.data))
        skeletons.append(dancer.skeleton(height, image_width))
    exposed = np.clip(np.stack(images) * exposure.astype(np.float32) + 0.5, 0, 255).astype(np.uint8)
    return exposed, np.stack(skeletons)


def simulate(
    root: Path,
    sequences: int,
    seed: int = 0,
    splits: Shares = DEFAULT_SHARES,
    image_width: int = 64,
    frames: int = 630,
    workers: int | None = None,
    shard: WorkShard = WHOLE,
) -> Report:
    """Simulate those of `sequences` sequences that `root` does not have yet, and index it.

    Args:
        root: folder of the data set; made if it does not exist.
        sequences: total number of sequences.
        seed: 0 or more; sequence n depends on (seed, n) only.
        splits: shares of train, validate and test, adding up to 1.
        image_width: width of the frames in pixels, a multiple of 8 from 32 to 512; they are half as high.
        frames: of each sequence, 2 or more.
        workers: number of processes; as many as there are processors if None.
        shard: the part of the work that is done.

    Raises `InputError` if a value is out of range, MuJoCo is not installed, or `root` holds another
    simulation or foreign sequences; nothing is lost then.
    """
    root = Path(root)
    workers = check_workers(workers)
    check_counts(sequences, seed, splits, frames)
    if not 32 <= image_width <= 512 or image_width % 8:
        raise InputError(f"--image_width: found {image_width}, expected a multiple of 8 from 32 to 512")
    check_mujoco()
    recipe = {
        "figure": "dance",
        "version": VERSION,
        "seed": seed,
        "splits": splits,
        "image_width": image_width,
        "frames": frames,
    }
    jobs = [Job(number, split) for number, split in enumerate(assign_splits(sequences, splits))]
    data_root = DataRoot(root, recipe, root.resolve().name, "simulated person", RECIPE_FILE)
    work = partial(_simulate_to, root, seed, frames, image_width)
    # Frames are written after the poses: where they are the sequence is complete.
    return fill_root(
        data_root,
        jobs,
        work,
        workers,
        target=lambda job: frames_root(root, job.split) / str(job.number),
        shard=shard,
    )


def _simulate_to(root: Path, seed: int, frames: int, image_width: int, job: Job) -> Report:
    images, skeletons = simulate_sequence(seed, job.number, frames, image_width)
    write_sequence(root, job.split, str(job.number), images, skeletons)
    return Report(written=1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    add_simulation_arguments(parser, sequences=20, frames=630, width="width in pixels, twice the height")


def run(args: argparse.Namespace) -> None:
    """Simulate, write the index and print what was done."""
    report = simulate(
        args.root,
        args.sequences,
        args.seed,
        tuple(args.splits),
        args.image_width,
        args.frames,
        args.workers,
        shard=args.shard,
    )
    print_report(args.root, [args.root], report, verb="simulated")
