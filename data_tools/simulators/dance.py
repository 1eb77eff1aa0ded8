"""Simulates a person who walks, stretches and bends in a room, with the skeleton of every frame; index included.

Writes ``<root>/train/train_img/<N>/0.png ...`` and, of the same number, ``<root>/train/train_label/<N>/0.png ...``, and likewise
val/ and test/: the layout of the course that the sibling system stems from. Frames are twice as wide as high. The camera stands
still; the lamp and the camera's exposure are others in each sequence.

A sequence depends on the seed and its number only, whatever the number of workers. Started again with the same settings, an
interrupted simulation continues; a larger --sequences adds to what is there.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..claim import claimed
from ..command import tell
from ..conversion import assign_splits
from ..errors import InputError
from ..pool import check_workers, in_order
from ..poses import frames_root, write_sequence
from .push import RECIPE_FILE, add_simulation_arguments, check_counts, check_mujoco

VERSION = 1  # of the simulator: another one writes other bytes from the same seed


def simulate_sequence(seed: int, number: int, frames: int, image_width: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames and skeletons of one sequence, uint8 [T,H,W,3] each; see `simulate` for the arguments."""
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
    splits: tuple[float, float, float] = (0.8, 0.1, 0.1),
    image_width: int = 64,
    frames: int = 630,
    workers: int | None = None,
) -> tuple[int, int]:
    """Simulates those of `sequences` sequences that `root` does not have yet, and says how many these were and how many not.

    Args:
        root: folder of the data set; made if it does not exist.
        sequences: how many there shall be in all.
        seed: 0 or more; sequence n depends on (seed, n) only.
        splits: shares of train, validate and test, adding up to 1.
        image_width: width of the frames in pixels, a multiple of 8 from 32 to 512; they are half as high.
        frames: of each sequence, 2 or more.
        workers: processes; as many as there are processors if None.

    Raises `InputError` if a value is out of range, MuJoCo is not installed, or `root` holds another simulation or foreign
    sequences; nothing is lost then. The index is not written here: see `run`.
    """
    root = Path(root)
    workers = check_workers(workers)
    check_counts(sequences, seed, splits, frames)
    if not 32 <= image_width <= 512 or image_width % 8:
        raise InputError(f"--image_width: found {image_width}, expected a multiple of 8 from 32 to 512")
    check_mujoco()
    recipe = {
        "figure": "dance", "version": VERSION, "seed": seed, "splits": splits, "image_width": image_width, "frames": frames,
    }  # fmt: skip
    jobs = [(split, number) for number, split in enumerate(assign_splits(sequences, splits))]
    with claimed(root, RECIPE_FILE, recipe):
        todo = [
            (split, number) for split, number in jobs if not (frames_root(root, split) / str(number)).is_dir()
        ]
        work = partial(_simulate_to, root, seed, frames, image_width)
        with tqdm(
            total=len(jobs), initial=len(jobs) - len(todo), desc="simulate", unit="sequence", disable=None
        ) as bar:
            for _ in in_order(work, todo, workers, root):
                bar.update()
    return len(todo), len(jobs) - len(todo)


def _simulate_to(root: Path, seed: int, frames: int, image_width: int, job: tuple[str, int]) -> None:
    split, number = job
    write_sequence(root, split, str(number), *simulate_sequence(seed, number, frames, image_width))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_simulation_arguments(parser, sequences=20, frames=630, width="width in pixels, twice the height")


def run(args: argparse.Namespace) -> None:
    """Simulates and writes the index."""
    from ..index import build_index, describe_index

    done, present = simulate(
        args.root, args.sequences, args.seed, tuple(args.splits), args.image_width, args.frames, args.workers
    )  # fmt: skip
    index = build_index(args.root, args.root.resolve().name, "simulated person")
    tell(f"{args.root}: {done} sequences simulated, {present} were there already")
    tell(describe_index(args.root, index))
