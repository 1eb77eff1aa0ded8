"""Simulate robot pushing into a new data set, index included.

Writes ``<root>/<split>/<NNNNN>/`` with ``0.png ...``, ``actions.csv`` [T,4] and
``endeffector_positions.csv`` [T,3]. Frame t and position t (x, y, z of the hand, metres) are at time t;
action t is carried out between t and t + 1.

An action is dx, dy, lift, close. Each one is held for two frames:
  dx, dy  movement of the hand in each frame in metres, within 0.05, to the right and away from the camera:
          position + action is the next position, unless an object is jammed in the way
  lift    0-3: the height that the hand goes to, 0.012 + 0.03 * lift metres, at most 0.045 m a frame; 0 pushes
  close   1 closes the fingers, 0 opens them

A sequence depends only on the seed and its number, not on the number of workers. Started again with the
same settings, an interrupted simulation continues; a larger --sequences adds to the sequences that are
there.
"""

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import folders
from ..command import tell
from ..conversion import (
    DEFAULT_SHARES,
    WHOLE,
    DataRoot,
    Report,
    Shares,
    WorkShard,
    add_shard_argument,
    add_splits_argument,
    assign_splits,
    check_shares,
    fill_root,
    print_report,
)
from ..errors import InputError
from ..layout import SIMULATED_PUSHING
from ..pool import add_workers_argument, check_workers
from ..truth import SHADOW, Truth, write_truth

if TYPE_CHECKING:
    from .pusher import Pusher, PushingPolicy
    from .raycast import Renderer

RECIPE_FILE = "simulation.json"
VERSION = 1  # of the simulator: another one writes other bytes from the same seed
MOVED = 0.02  # metres


@dataclass(frozen=True)
class Job:
    """One sequence to simulate: its number and the folder to write."""

    number: int
    folder: Path


@dataclass
class PushReport(Report):
    """The result of a simulation.

    Args:
        moved: number of sequences simulated now in which an object moves visibly: the centre of at least one
            object is, in some frame, `MOVED` metres or more (some 2 pixels of a 64x64 image) from where it
            was in the first frame, seen from above.
    """

    moved: int = 0


@dataclass(frozen=True)
class Simulation:
    """One simulated sequence.

    Args:
        frames: uint8 [T,H,W,3].
        actions: float32 [T,4].
        positions: float32 [T,3], metres.
        farthest: the farthest that the centre of an object was from its first place, in metres.
        truth: segmentation and poses of the objects, if they were asked for.
    """

    frames: np.ndarray
    actions: np.ndarray
    positions: np.ndarray
    farthest: float
    truth: Truth | None = None


def make_scene(seed: int, number: int, image_width: int) -> "tuple[Pusher, PushingPolicy, Renderer]":
    """Make the scene of a sequence: its physics, the policy that moves the hand, and its pictures.

    All three draw from one generator in this order, so that the light follows the policy's first goal.
    """
    from .pusher import Pusher, PushingPolicy
    from .raycast import Renderer, random_light

    generator = np.random.default_rng([seed, number])
    pusher = Pusher(generator)
    policy = PushingPolicy(pusher, generator)
    light = random_light(generator)
    return pusher, policy, Renderer(pusher.model, pusher.data, pusher.surfaces, image_width, light=light)


def simulate_sequence(
    seed: int, number: int, frames: int, image_width: int, with_truth: bool = False
) -> Simulation:
    """Simulate one sequence; see `simulate` for the arguments."""
    pusher, policy, renderer = make_scene(seed, number, image_width)
    geom_labels = pusher.labels
    images, actions, positions, places = [], [], [], []
    segmentation, poses = [], []
    for time in range(frames):
        if with_truth:
            image, labels = renderer.render_with_labels(pusher.data, geom_labels, SHADOW)
            images.append(image)
            segmentation.append(labels)
            poses.append(pusher.object_poses)
        else:
            images.append(renderer.render(pusher.data))
        positions.append(pusher.position)
        places.append(pusher.object_positions[:, :2])
        actions.append(policy.act())
        if time < frames - 1:
            pusher.step(actions[-1])
    farthest = np.linalg.norm(np.subtract(places, places[0]), axis=-1).max()
    truth = Truth(np.stack(segmentation), np.array(poses, np.float32)) if with_truth else None
    positions = np.array(positions, np.float32)
    return Simulation(np.stack(images), np.stack(actions), positions, float(farthest), truth)


def simulate(
    root: Path,
    sequences: int,
    seed: int = 0,
    splits: Shares = DEFAULT_SHARES,
    image_width: int = 64,
    frames: int = 30,
    workers: int | None = None,
    truth: bool = False,
    shard: WorkShard = WHOLE,
) -> PushReport:
    """Simulate those of `sequences` sequences that `root` does not have yet, and index it.

    Args:
        root: folder of the data set; made if it does not exist.
        sequences: total number of sequences.
        seed: 0 or more; sequence n depends on (seed, n) only.
        splits: shares of train, validate and test, adding up to 1.
        image_width: width and height of the frames in pixels, a multiple of 4 from 16 to 512.
        frames: of each sequence, 2 or more.
        workers: number of processes; as many as there are processors if None.
        shard: the part of the work that is done.
        truth: also write what each pixel shows and where the objects are; see `data_tools.truth`.

    Raises `InputError` if a value is out of range, MuJoCo is not installed, or `root` holds another
    simulation or foreign sequences; nothing is lost then.
    """
    root = Path(root)
    workers = check_workers(workers)
    check_counts(sequences, seed, splits, frames)
    if not 16 <= image_width <= 512 or image_width % 4:
        raise InputError(f"--image_width: found {image_width}, expected a multiple of 4 from 16 to 512")
    check_mujoco()
    recipe = {
        "version": VERSION,
        "seed": seed,
        "splits": splits,
        "image_width": image_width,
        "frames": frames,
    }
    if truth:
        recipe["truth"] = True
    jobs = [
        Job(number, root / split / f"{number:05d}")
        for number, split in enumerate(assign_splits(sequences, splits))
    ]
    data_root = DataRoot(root, recipe, root.resolve().name, SIMULATED_PUSHING, RECIPE_FILE)
    work = partial(
        _simulate_to, root=root, seed=seed, frames=frames, image_width=image_width, with_truth=truth
    )
    report = PushReport()
    fill_root(data_root, jobs, work, workers, target=lambda job: job.folder, report=report, shard=shard)
    return report


# ----------------------------------------------------------------------------------------------------- checks


def check_counts(sequences: int, seed: int, splits: tuple[float, ...], frames: int) -> None:
    """Raise `InputError` for impossible values of the flags of a simulation."""
    for flag, value, least in (
        ("sequences", sequences, 1),
        ("seed", seed, 0),
        ("frames", frames, 2),
    ):
        if value < least:
            raise InputError(f"--{flag}: found {value}, expected {least} or more")
    check_shares(splits)


def check_mujoco() -> None:
    """Raise `InputError` if MuJoCo is not installed."""
    try:
        import mujoco  # noqa: F401
    except ImportError:
        raise InputError(
            "mujoco: not installed, and the simulation needs it; run `pip install 'svg-push[sim]'`"
        ) from None


def _simulate_to(
    job: Job, root: Path, seed: int, frames: int, image_width: int, with_truth: bool
) -> PushReport:
    simulation = simulate_sequence(seed, job.number, frames, image_width, with_truth)
    if simulation.truth:  # first: a sequence that is there has its truth
        write_truth(root, job.folder.relative_to(root).as_posix(), simulation.truth)
    folders.write_sequence(job.folder, simulation.frames, simulation.actions, simulation.positions)
    return PushReport(written=1, moved=int(simulation.farthest >= MOVED))


# ----------------------------------------------------------------------------------------------- command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    add_simulation_arguments(parser, sequences=300, frames=30, width="width and height in pixels")
    parser.add_argument(
        "--truth", action="store_true", help="also write what each pixel shows and the poses of the objects"
    )


def add_simulation_arguments(
    parser: argparse.ArgumentParser, sequences: int, frames: int, width: str
) -> None:
    """Add the flags of a simulation; `width` is the help text of --image_width."""
    parser.add_argument("root", type=Path, help="folder of the data set, made if it does not exist")
    parser.add_argument(
        "--sequences", type=int, default=sequences, help="total number (default: %(default)s)"
    )
    add_splits_argument(parser)
    parser.add_argument("--image_width", type=int, default=64, help=f"{width} (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=frames, help="frames a sequence (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="another one gives other sequences (default: %(default)s)"
    )
    add_workers_argument(parser)
    add_shard_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Simulate, write the index and print how many sequences show an object moving visibly."""
    report = simulate(
        args.root,
        args.sequences,
        args.seed,
        tuple(args.splits),
        args.image_width,
        args.frames,
        args.workers,
        args.truth,
        shard=args.shard,
    )
    print_report(args.root, [], report, verb="simulated")
    if report.written:
        share = 100 * report.moved / report.written
        moves = f"moves by {MOVED * 100:.0f} cm or more"
        tell(f"an object {moves} in {report.moved} of the {report.written} ({share:.0f} %)")
