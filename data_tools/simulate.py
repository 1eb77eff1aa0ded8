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
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from . import folders, layout
from .layout import SPLITS, InputError

SETTINGS_FILE = "simulation.json"
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


def simulate_sequence(seed: int, number: int, frames: int, image_width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
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
    renderer = Renderer(pusher.model, pusher.data, pusher.surfaces, image_width, light=random_light(generator))
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
    workers = (os.cpu_count() or 1) if workers is None else workers
    _check(sequences, seed, splits, image_width, frames, workers)
    _check_mujoco()
    _claim(root, {"version": VERSION, "seed": seed, "splits": list(splits), "image_width": image_width, "frames": frames})
    jobs = [(number, root / split / f"{number:05d}") for number, split in enumerate(assign_splits(sequences, splits))]
    todo = [job for job in jobs if not job[1].is_dir()]
    work = partial(_simulate_to, seed=seed, frames=frames, image_width=image_width)
    moved = 0
    with tqdm(total=len(jobs), initial=len(jobs) - len(todo), desc="simulate", unit="sequence", disable=None) as bar:
        for farthest in _spread(work, todo, min(workers, len(todo))):
            moved += farthest >= MOVED
            bar.update()
    return Report(simulated=len(todo), present=len(jobs) - len(todo), moved=moved)


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


# ------------------------------------------------------------------------------------------------------------ checks


def _check(sequences: int, seed: int, splits: tuple[float, ...], image_width: int, frames: int, workers: int) -> None:
    for flag, value, least in (
        ("sequences", sequences, 1),
        ("seed", seed, 0),
        ("frames", frames, 2),
        ("workers", workers, 1),
    ):
        if value < least:
            raise InputError(f"--{flag}: found {value}, expected {least} or more")
    if not 16 <= image_width <= 512 or image_width % 4:
        raise InputError(f"--image_width: found {image_width}, expected a multiple of 4 from 16 to 512")
    if len(splits) != len(SPLITS) or not all(0 <= share <= 1 for share in splits) or abs(sum(splits) - 1) > 1e-6:
        found = " ".join(str(share) for share in splits)
        raise InputError(f"--splits: found {found}, expected the shares of {', '.join(SPLITS)}, adding up to 1, like 0.8 0.1 0.1")


def _check_mujoco() -> None:
    try:
        import mujoco  # noqa: F401
    except ImportError:
        raise InputError("mujoco: not installed, and the simulation needs it; run `pip install 'svg-push[sim]'`") from None


def _claim(root: Path, settings: dict) -> None:
    """Writes the settings into a new root; in a known one, compares them and removes what was left half-written."""
    path = root / SETTINGS_FILE
    if root.exists() and not root.is_dir():
        raise InputError(f"{root}: is a file, expected a folder; name another root")
    if path.exists():
        try:
            found = json.loads(path.read_text())
            different = [name for name in settings if found.get(name) != settings[name]]
        except (ValueError, AttributeError):
            raise InputError(f"{path}: damaged; restore it or simulate into another root") from None
        if different:
            name = different[0]
            raise InputError(
                f"{path}: found {name} {found.get(name)}, expected {settings[name]} as now asked for; nothing was changed: "
                "simulate with the same settings, or into another root"
            )
    elif any((root / split).exists() for split in SPLITS):
        raise InputError(f"{root}: holds sequences that were not simulated here (no {SETTINGS_FILE}); simulate into another root")
    else:
        root.mkdir(parents=True, exist_ok=True)
        layout.write_text(path, json.dumps(settings) + "\n")
    for split in SPLITS:
        for leftover in (root / split).glob(".[0-9]*"):
            shutil.rmtree(leftover)


# ----------------------------------------------------------------------------------------------------------- workers


def _simulate_to(job: tuple[int, Path], seed: int, frames: int, image_width: int) -> float:
    number, folder = job
    images, actions, positions, farthest = simulate_sequence(seed, number, frames, image_width)
    folders.write_sequence(folder, images, actions, positions)
    return farthest


def _spread(work, jobs: list, workers: int) -> Iterator[float]:
    """The results of the jobs as they come, from so many processes; a single one is this process."""
    if workers <= 1:
        yield from map(work, jobs)
        return
    # Spawned, not forked: the caller may have threads (torch has), whose locks a fork would copy.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_interrupts_to_the_parent) as pool:
        try:
            for future in as_completed([pool.submit(work, job) for job in jobs]):
                yield future.result()
        except BrokenProcessPool:
            raise InputError(
                "--workers: a worker process ended early (out of memory? or a calling script that lacks "
                "`if __name__ == '__main__':`); the sequences written so far stay: run again with fewer workers"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)  # those under way end their sequence


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


# ------------------------------------------------------------------------------------------------------ command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, help="folder of the data set, made if it does not exist")
    parser.add_argument("--sequences", type=int, default=300, help="how many in all (default: %(default)s)")
    parser.add_argument(
        "--splits", type=float, nargs=3, default=(0.8, 0.1, 0.1), metavar=("TRAIN", "VALIDATE", "TEST"),
        help="their shares, adding up to 1 (default: 0.8 0.1 0.1)",
    )  # fmt: skip
    parser.add_argument("--image_width", type=int, default=64, help="width and height in pixels (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=30, help="frames a sequence (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other sequences (default: %(default)s)")
    parser.add_argument("--workers", type=int, help="processes (default: one a processor)")


def run(args: argparse.Namespace) -> None:
    """Simulates, writes the index and prints how many sequences show an object moving visibly."""
    from .index import build_index

    try:
        report = simulate(args.root, args.sequences, args.seed, tuple(args.splits), args.image_width, args.frames, args.workers)
    except KeyboardInterrupt:
        print(f"\n{args.root}: interrupted; the same command continues")
        raise SystemExit(130) from None
    except OSError as error:
        raise InputError(f"{error.filename or args.root}: {error.strerror or error}; check the disk or name another root") from None
    build_index(args.root, args.root.resolve().name, "simulated robot pushing")
    print(f"{args.root}: {report.simulated} sequences simulated, {report.present} were there already")
    if report.simulated:
        share = 100 * report.moved / report.simulated
        print(f"an object moves by {MOVED * 100:.0f} cm or more in {report.moved} of the {report.simulated} ({share:.0f} %)")
