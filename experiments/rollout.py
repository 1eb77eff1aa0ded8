"""``svg-rollout``: predicts whole sequences from their first frames, as far as their poses or actions go.

Writes the PSNR of every frame as a table and a diagram, GIFs (and MP4) beside the truth and the poses, and all frames as
submission.csv, one row of integers a frame. Frames are predicted, scored and written a stretch at a time: memory does not grow with
the length. Sequences of which only the first frames are known are predicted as well.
"""

import argparse
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.command import OneLineParser, run_command
from data_tools.layout import InputError, write_text

from .command import Run, add_run_arguments, named_sequences, open_run

MOST_PICTURES = 700
"""Of a GIF; of a longer video each n-th frame is shown. MP4 shows all."""


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="svg-rollout", description=__doc__.replace("`", ""))
    add_run_arguments(parser, whole=True)
    parser.add_argument("--sequences", nargs="+", metavar="NAME", help="these sequences alone (names as in index.csv)")
    parser.add_argument("--latent", choices=("sampled", "mean"), default="sampled", help="of the prior (default: %(default)s)")
    parser.add_argument("--submission", action="store_true", help="write submission.csv, with the given frames")
    parser.add_argument("--gif", action=argparse.BooleanOptionalAction, default=True, help="write GIFs")
    parser.add_argument("--mp4", action="store_true", help="write MP4, too (extra video)")
    parser.add_argument("--fps", type=float, default=25.0, help="frames a second (default %(default)g)")
    parser.add_argument("--out", type=Path, help="folder to write to (default RUN/rollout)")
    return parser.parse_args(argv)


@dataclass
class Rolled:
    """What is kept of one prediction: PSNR of each frame with a truth, of holding the given frame, and the seconds it took."""

    frames: int
    psnr: list[float] = field(default_factory=list)
    held: list[float] = field(default_factory=list)
    seconds: float = 0.0


class Film:
    """GIF and MP4 of a prediction beside the truth and the poses, as far as there are any."""

    def __init__(self, args: argparse.Namespace, stem: Path, total: int, n_past: int, with_truth: bool):
        from svg.rendering import Mp4Writer

        self._stem, self._n_past, self._fps, self._with_truth = stem, n_past, args.fps, with_truth
        self._every = -(-total // MOST_PICTURES)
        self._pictures = []
        self._gif, self._mp4 = args.gif, Mp4Writer(stem.with_suffix(".mp4"), args.fps) if args.mp4 else None

    def add(self, stretch: Any) -> None:
        """The next `svg.rollout.Stretch`. Truth that is not known is grey."""
        from svg.predictor import as_images
        from svg.rendering import side_by_side, to_video

        if not self._gif and self._mp4 is None:
            return
        predicted, truth = stretch.predicted, stretch.truth
        shown = {"truth": to_video(truth, 0.5 * predicted.new_ones(predicted[len(truth) :].shape))} if self._with_truth else {}
        shown["prediction"] = to_video(predicted, predicted[:0])
        if stretch.poses is not None:
            poses = as_images(stretch.poses)
            shown["pose"] = to_video(poses, poses[:0])
        for number, picture in enumerate(side_by_side(shown, self._n_past, first=stretch.first), start=stretch.first):
            if self._gif and number % self._every == 0:
                self._pictures.append(picture)
            if self._mp4 is not None:
                self._mp4.add(picture)

    def close(self) -> list[Path]:
        """Writes what is left and says what was written."""
        from svg.rendering import save_gif

        written = [self._stem.with_suffix(".gif")] if self._gif else []
        if self._gif:
            save_gif(self._pictures, written[0], self._fps)
        if self._mp4 is not None:
            self._mp4.close()
            written.append(self._stem.with_suffix(".mp4"))
        return written


def roll_out_sequence(args: argparse.Namespace, run: Run, number: int, stem: Path, submission: Any) -> tuple[Rolled, list[Path]]:
    """Predicts one sequence and writes its film; rows go to `submission`, if there is one."""
    from tqdm import tqdm

    from svg.metrics import psnr
    from svg.rollout import frames_to_come, given_frames, roll_out

    dataset, n_past, epsilon = run.dataset, run.protocol.n_past, run.protocol.psnr_epsilon
    total = frames_to_come(dataset, number, n_past)
    total = total if args.n_future is None else min(total, args.n_future)
    if total < 1:
        raise InputError(f"{dataset.root}: sequence {dataset.index['sequence'].iloc[number]} has no conditions to predict from")
    given = given_frames(dataset, number, n_past)
    film = Film(args, stem, n_past + total, n_past, with_truth=dataset.lengths[number] > n_past)
    film.add(given)
    if submission is not None:
        submission.add(given.predicted)
    seed = args.seed if args.latent == "sampled" else None
    stretches = roll_out(run.model, dataset, number, n_past, total, run.device, run.config.train.precision, seed)
    rolled, began = Rolled(total), time.perf_counter()
    with tqdm(total=total, desc=stem.name, unit="frame", disable=None, leave=False) as bar:
        for stretch in stretches:
            rolled.seconds += time.perf_counter() - began
            known = len(stretch.truth)
            rolled.psnr += psnr(stretch.predicted[:known], stretch.truth, epsilon=epsilon).tolist()
            rolled.held += psnr(given.truth[-1:].expand_as(stretch.truth), stretch.truth, epsilon=epsilon).tolist()
            film.add(stretch)
            if submission is not None:
                submission.add(stretch.predicted)
            bar.update(len(stretch.predicted))
            began = time.perf_counter()
    return rolled, film.close()


def summary(name: str, rolled: Rolled) -> str:
    """One line: the means, how they end, and how fast it went."""
    speed = f"{rolled.frames} frames, {rolled.frames / rolled.seconds:.0f} a second"
    if not rolled.psnr:
        return f"{name}: {speed}; no true frames to compare with"
    scores = np.array(rolled.psnr)
    ends = ""
    if len(scores) >= 200:
        ends = f"; first 100 {scores[:100].mean():.2f}, last 100 {scores[-100:].mean():.2f} dB"
    return f"{name}: PSNR {scores.mean():.2f} dB (given frame held: {np.mean(rolled.held):.2f} dB){ends}; {speed}"


def rollout(args: argparse.Namespace) -> None:
    if not 0.1 <= args.fps <= 50:
        raise InputError(f"--fps: found {args.fps:g}, expected a number from 0.1 to 50")

    import pandas as pd

    from svg.plotting import plot_rollouts
    from svg.rendering import require_mp4
    from svg.rollout import Submission

    if args.mp4:
        require_mp4()
    run = open_run(args, only_given=True)
    names = list(run.dataset.index["sequence"])
    numbers = named_sequences(run.dataset, args.sequences or names)
    folder = args.out or args.run / "rollout"
    folder.mkdir(parents=True, exist_ok=True)
    submission = Submission(folder / "submission.csv") if args.submission else None
    rows, curves = [], {}
    for name, number in numbers.items():
        stem = folder / f"{args.split}_{name.replace('/', '_')}"
        rolled, written = roll_out_sequence(args, run, number, stem, submission)
        print(" -> ".join([summary(name, rolled), *([", ".join(map(str, written))] if written else [])]))
        scores = zip(rolled.psnr, rolled.held, strict=True)
        rows += [(name, frame, *pair) for frame, pair in enumerate(scores, start=run.protocol.n_past)]
        if rolled.psnr:
            curves[name] = (np.array(rolled.psnr), np.array(rolled.held))
    if submission is not None:
        submission.close()
        print(folder / "submission.csv")
    if not curves:
        return
    table = pd.DataFrame(rows, columns=["sequence", "frame", "psnr", "held"])
    write_text(folder / f"{args.split}_psnr.csv", table.to_csv(index=False, float_format="%.5f"))
    plot_rollouts(curves, run.protocol.n_past, folder / f"{args.split}_psnr.png")
    print(f"{folder / f'{args.split}_psnr.csv'} and .png")
    if len(curves) > 1:
        print(f"mean over {len(curves)} sequences: {np.mean([found[0].mean() for found in curves.values()]):.2f} dB")


def main(argv: list[str] | None = None) -> int:
    return run_command("svg-rollout", lambda: rollout(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
