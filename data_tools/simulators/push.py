"""Simulates robot pushing into a new data set, index included.

Writes ``<root>/<split>/<NNNNN>/`` with ``0.png ...``, ``actions.csv`` [T,4] and ``endeffector_positions.csv`` [T,3]: frame t
and position t (x, y, z of the hand, metres) are at time t, action t is carried out between t and t + 1.

An action is dx, dy, lift, close, each action held for two frames:
  dx, dy  movement of the hand during each frame in metres, within 0.05, to the right and away from the camera:
          position + action is the next position, unless an object is jammed in the way
  lift    0-3: the height that the hand goes to, 0.012 + 0.03 * lift metres, at most 0.045 m a frame; 0 pushes
  close   1 closes the fingers, 0 opens them

A sequence depends on the seed and its number only, whatever the number of workers. Started again with the same settings, an
interrupted simulation continues; a larger --sequences adds to what is there.
"""

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .. import folders
from ..claim import claimed
from ..command import tell
from ..conversion import add_splits_argument, assign_splits, check_shares
from ..errors import InputError
from ..layout import SIMULATED_PUSHING
from ..pool import add_workers_argument, check_workers, in_order

RECIPE_FILE = "simulation.json"
VERSION = 1  # of the simulator: another one writes other bytes from the same seed
MOVED = 0.02  # metres


@dataclass(frozen=True)
class Report:
    """What `simulate` did.

    Args:
        simulated: sequences simulated now.
        present: sequences that were there already.
        moved: of those simulated now, how many show an object moving visibly: the centre of at least one object is, in some
            frame, 2 cm or more (some 2 pixels of a 64x64 image) from where it was in the first frame, seen from above.
    """

    simulated: int
    present: int
    moved: int


def simulate_sequence(
    seed: int, number: int, frames: int, image_width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Simulates one sequence; see `simulate` for the arguments.

    Returns:
        frames uint8 [T,H,W,3]; actions float32 [T,4]; positions float32 [T,3] in metres; and the farthest that the centre of
        an object was from its first place, in metres.
    """
    from .pusher import Pusher, PushingPolicy
    from .raycast import Renderer, random_light

    generator = np.random.default_rng([seed, number])
    pusher = Pusher(generator)
    policy = PushingPolicy(pusher, generator)
    renderer = Renderer(
        pusher.model, pusher.data, pusher.surfaces, image_width, light=random_light(generator)
    )
    images, actions, positions, places = [], [], [], []
    for time in range(frames):
        images.append(renderer.render(pusher.data))
        positions.append(pusher.position)
        places.append(pusher.object_positions[:, :2])
        actions.append(policy.act())
        if time < frames - 1:
            pusher.step(actions[-1])
    farthest = np.linalg.norm(np.subtract(places, places[0]), axis=-1).max()
    return np.stack(images), np.stack(actions), np.array(positions, np.float32), float(farthest)


def simulate(
    root: Path,
    sequences: int,
    seed: int = 0,
    splits: tuple[float, float, float] = (0.8, 0.1, 0.1),
    image_width: int = 64,
    frames: int = 30,
    workers: int | None = None,
) -> Report:
    """Simulates those of `sequences` sequences that `root` does not have yet.

    Args:
        root: folder of the data set; made if it does not exist.
        sequences: how many there shall be in all.
        seed: 0 or more; sequence n depends on (seed, n) only.
        splits: shares of train, validate and test, adding up to 1.
        image_width: width and height of the frames in pixels, a multiple of 4 from 16 to 512.
        frames: of each sequence, 2 or more.
        workers: processes; as many as there are processors if None.

    Raises `InputError` if a value is out of range, MuJoCo is not installed, or `root` holds another simulation or foreign
    sequences; nothing is lost then. The index is not written here: see `run`.
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
    jobs = [
        (number, root / split / f"{number:05d}")
        for number, split in enumerate(assign_splits(sequences, splits))
    ]
    work = partial(_simulate_to, seed=seed, frames=frames, image_width=image_width)
    moved = 0
    with claimed(root, RECIPE_FILE, recipe):
        todo = [job for job in jobs if not job[1].is_dir()]
        with tqdm(
            total=len(jobs), initial=len(jobs) - len(todo), desc="simulate", unit="sequence", disable=None
        ) as bar:
            for farthest in in_order(work, todo, workers, root):
                moved += farthest >= MOVED
                bar.update()
    return Report(simulated=len(todo), present=len(jobs) - len(todo), moved=moved)


# ------------------------------------------------------------------------------------------------------------ checks


def check_counts(sequences: int, seed: int, splits: tuple[float, ...], frames: int) -> None:
    """Raises `InputError` for values of a simulation's flags that cannot be."""
    for flag, value, least in (
        ("sequences", sequences, 1),
        ("seed", seed, 0),
        ("frames", frames, 2),
    ):
        if value < least:
            raise InputError(f"--{flag}: found {value}, expected {least} or more")
    check_shares(splits)


def check_mujoco() -> None:
    """Raises `InputError` if MuJoCo is not installed."""
    try:
        import mujoco  # noqa: F401
    except ImportError:
        raise InputError(
            "mujoco: not installed, and the simulation needs it; run `pip install 'svg-push[sim]'`"
        ) from None


def _simulate_to(job: tuple[int, Path], seed: int, frames: int, image_width: int) -> float:
    number, folder = job
    images, actions, positions, farthest = simulate_sequence(seed, number, frames, image_width)
    folders.write_sequence(folder, images, actions, positions)
    return farthest


# ------------------------------------------------------------------------------------------------------ command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_simulation_arguments(parser, sequences=300, frames=30, width="width and height in pixels")


def add_simulation_arguments(
    parser: argparse.ArgumentParser, sequences: int, frames: int, width: str
) -> None:
    """The flags of a simulation, with its defaults and what its width is."""
    parser.add_argument("root", type=Path, help="folder of the data set, made if it does not exist")
    parser.add_argument(
        "--sequences", type=int, default=sequences, help="how many in all (default: %(default)s)"
    )
    add_splits_argument(parser)
    parser.add_argument("--image_width", type=int, default=64, help=f"{width} (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=frames, help="frames a sequence (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed, other sequences (default: %(default)s)"
    )
    add_workers_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Simulates, writes the index and prints how many sequences show an object moving visibly."""
    from ..index import build_index

    report = simulate(
        args.root, args.sequences, args.seed, tuple(args.splits), args.image_width, args.frames, args.workers
    )
    build_index(args.root, args.root.resolve().name, SIMULATED_PUSHING)
    tell(f"{args.root}: {report.simulated} sequences simulated, {report.present} were there already")
    if report.simulated:
        share = 100 * report.moved / report.simulated
        tell(
            f"an object moves by {MOVED * 100:.0f} cm or more in {report.moved} of the {report.simulated} ({share:.0f} %)"
        )
