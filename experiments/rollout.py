"""``svg-rollout``: predicts whole sequences from their first frames, as far as their poses or actions go.

Rows of actions after the last frame are predicted, too. A model without conditions predicts as far as --n_future asks.

Writes the PSNR of every frame as a table and a diagram, GIFs (and MP4) beside the truth and the poses, and all frames as
submission.csv, one row of integers a frame. Frames are predicted, scored and written a stretch at a time: memory does not grow with
the length. Sequences of which only the first frames are known are predicted as well.
"""

import argparse
import contextlib
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.command import OneLineParser, run_command, tell
from data_tools.errors import InputError
from data_tools.files import check_writable, folder_in, write_text

from .command import Run, add_run_arguments, named_sequences, open_run, parse_run_arguments

MOST_PICTURES = 700
"""Of a GIF; of a longer video each n-th frame is shown. MP4 shows all."""


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="svg-rollout", description=__doc__.replace("`", ""))
    add_run_arguments(parser, whole=True)
    parser.add_argument(
        "--sequences", nargs="+", metavar="NAME", help="these sequences alone (names as in index.csv)"
    )
    parser.add_argument(
        "--latent", choices=("sampled", "mean"), default="sampled", help="of the prior (default: %(default)s)"
    )
    parser.add_argument(
        "--submission", action="store_true", help="write submission.csv, with the given frames"
    )
    parser.add_argument("--gif", action=argparse.BooleanOptionalAction, default=True, help="write GIFs")
    parser.add_argument("--mp4", action="store_true", help="write MP4, too (extra video)")
    parser.add_argument("--fps", type=float, default=25.0, help="frames a second (default %(default)g)")
    parser.add_argument("--out", type=Path, help="folder to write to (default RUN/rollout)")
    return parse_run_arguments(parser, argv)


@dataclass
class Rolled:
    """What is kept of one prediction: PSNR of each frame with a truth, of holding the given frame, seconds, films written."""

    frames: int
    psnr: list[float] = field(default_factory=list)
    held: list[float] = field(default_factory=list)
    seconds: float = 0.0
    files: list[Path] = field(default_factory=list)


class Film:
    """GIF and MP4 of a prediction beside the truth and the poses, as far as there are any; written at the end of the ``with``."""

    def __init__(
        self, args: argparse.Namespace, stem: Path, name: str, total: int, n_past: int, with_truth: bool
    ):
        from svg.figures.names import label
        from svg.figures.rendering import Mp4Writer

        self._title = f"sequence {label(name, 30)}"
        self._n_past, self._fps, self._with_truth = n_past, args.fps, with_truth
        self._every = -(-total // MOST_PICTURES)
        self._gif, self._pictures = Path(f"{stem}.gif") if args.gif else None, []
        self._mp4 = Mp4Writer(Path(f"{stem}.mp4"), args.fps) if args.mp4 else None
        self.files = [self._gif] * args.gif + [Path(f"{stem}.mp4")] * args.mp4

    def __enter__(self) -> "Film":
        return self

    def add(self, stretch: Any, psnr: list[float]) -> None:
        """The next `svg.evaluation.rollout.Stretch`, with the PSNR of all predicted frames so far. Truth that is not known is grey."""
        from svg.figures.rendering import side_by_side, to_video
        from svg.models.predictor import as_images

        every = 1 if self._mp4 is not None else self._every
        places = [place for place in range(len(stretch.predicted)) if (stretch.first + place) % every == 0]
        if not self.files or not places:
            return
        predicted, truth = stretch.predicted, stretch.truth
        shown = (
            {"truth": to_video(truth, 0.5 * predicted.new_ones(predicted[len(truth) :].shape))}
            if self._with_truth
            else {}
        )
        shown["prediction"] = to_video(predicted, predicted[:0])
        if stretch.poses is not None:
            poses = as_images(stretch.poses)
            shown["pose"] = to_video(poses, poses[:0])
        means = np.cumsum(psnr) / np.arange(1, len(psnr) + 1)
        for place in places:
            number = stretch.first + place
            now = {label: video[place : place + 1] for label, video in shown.items()}
            step = number - self._n_past
            is_scored = 0 <= step < len(psnr)
            title = f"{self._title}: mean PSNR so far {means[step]:.2f} dB" if is_scored else self._title
            scores = (
                {"prediction": np.array([psnr[step] if is_scored else np.nan])} if self._with_truth else {}
            )
            plain = {label: label for label in now}
            picture = side_by_side(now, self._n_past, first=number, title=title, scores=scores, above=plain)[
                0
            ]
            if self._gif is not None and number % self._every == 0:
                self._pictures.append(picture)
            if self._mp4 is not None:
                self._mp4.add(picture)

    def __exit__(self, error: type | None, *rest: object) -> None:
        from svg.figures.rendering import save_gif

        if self._mp4 is not None:
            self._mp4.__exit__(error, *rest)
        if error is None and self._gif is not None:
            save_gif(self._pictures, self._gif, self._fps)


def plan(args: argparse.Namespace, run: Run, numbers: dict[str, int]) -> dict[str, int]:
    """The frames to predict of each sequence. Raises `InputError` for one that has nothing to predict from."""
    from svg.evaluation.rollout import frames_to_come

    n_past, dataset, totals = run.protocol.n_past, run.dataset, {}
    for name, number in numbers.items():
        most, recorded = frames_to_come(dataset, number, n_past), int(dataset.lengths[number]) - n_past
        wanted = args.n_future or (recorded if most is None else most)
        total = wanted if most is None else min(wanted, most)
        if total < 1:
            way_out = (
                "say how far with --n_future"
                if most is None
                else _further(dataset, number, most + n_past - 1)
            )
            raise InputError(
                f"{dataset.root}: sequence {name} has no {'frames' if most is None else 'conditions'} beyond its {n_past} given "
                f"frames; {way_out or 'choose others with --sequences'}"
            )
        if total < wanted:
            more = _further(dataset, number, most + n_past - 1)
            told = f"--n_future asks for {wanted} frames, its conditions are enough for {total}"
            tell(f"note: {name}: {told}{'; ' if more else ''}{more}")
        totals[name] = total
    return totals


def _further(dataset: Any, number: int, horizon: int) -> str:
    """Advice where a sequence's actions go on after its positions; nothing where they do not."""
    of_actions = dataset.action_horizon(number)
    if of_actions is None or of_actions <= horizon:
        return ""
    return f"its positions end before its actions: --positions integrated goes on for {of_actions - horizon} frames"


def roll_out_sequence(
    args: argparse.Namespace, run: Run, number: int, total: int, stem: Path, submission: Any
) -> Rolled:
    """Predicts `total` frames of one sequence and writes its film; rows go to `submission`, if there is one."""
    from tqdm import tqdm

    from svg.evaluation.metrics import psnr
    from svg.evaluation.rollout import given_frames, roll_out

    dataset, n_past, epsilon = run.dataset, run.protocol.n_past, run.protocol.psnr_epsilon
    given = given_frames(dataset, number, n_past)
    seed = args.seed if args.latent == "sampled" else None
    stretches = roll_out(
        run.model, dataset, number, n_past, total, run.device, run.config.train.precision, seed
    )
    rolled, name = Rolled(total), dataset.index["sequence"].iloc[number]
    with (
        Film(args, stem, name, n_past + total, n_past, with_truth=dataset.lengths[number] > n_past) as film,
        tqdm(total=total, desc=stem.name, unit="frame", disable=None, leave=False) as bar,
    ):
        film.add(given, [])
        if submission is not None:
            submission.add(given.predicted)
        began = time.perf_counter()
        for stretch in stretches:
            rolled.seconds += time.perf_counter() - began
            known = len(stretch.truth)
            rolled.psnr += psnr(stretch.predicted[:known], stretch.truth, epsilon=epsilon).tolist()
            rolled.held += psnr(
                given.truth[-1:].expand_as(stretch.truth), stretch.truth, epsilon=epsilon
            ).tolist()
            film.add(stretch, rolled.psnr)
            if submission is not None:
                submission.add(stretch.predicted)
            bar.update(len(stretch.predicted))
            began = time.perf_counter()
    rolled.files = film.files
    return rolled


def summary(name: str, rolled: Rolled) -> str:
    """One line: the means, how they end, and how fast it went."""
    speed = f"{rolled.frames} frames, {rolled.frames / rolled.seconds:.0f} a second"
    if not rolled.psnr:
        return f"{name}: {speed}; no true frames to compare with"
    known = "" if len(rolled.psnr) == rolled.frames else f" over the {len(rolled.psnr)} frames with a truth"
    scores = np.array(rolled.psnr)
    ends = ""
    if len(scores) >= 200:
        ends = f"; first 100 {scores[:100].mean():.2f}, last 100 {scores[-100:].mean():.2f} dB"
    return f"{name}: PSNR {scores.mean():.2f} dB{known} (given frame held: {np.mean(rolled.held):.2f} dB){ends}; {speed}"


def rollout(args: argparse.Namespace) -> None:
    if not 0.1 <= args.fps <= 50:
        raise InputError(f"--fps: found {args.fps:g}, expected a number from 0.1 to 50")

    import pandas as pd

    from svg.evaluation.rollout import Submission
    from svg.figures.names import file_stems
    from svg.figures.plotting import plot_rollouts
    from svg.figures.rendering import require_mp4

    if args.mp4:
        require_mp4()
    if args.submission and (args.sequences or args.n_future is not None):
        raise InputError(
            "--submission: is of all sequences as far as they go; leave out --sequences and --n_future"
        )
    run = open_run(args, only_given=True)
    names = list(run.dataset.index["sequence"])
    stems = file_stems(names)
    numbers = named_sequences(run.dataset, args.sequences or names)
    folder = args.out or folder_in(args.run, "rollout")
    check_writable(folder)
    totals = plan(args, run, numbers)
    tell(f"conditions: {run.dataset.given}")
    scores, curves = folder / f"{args.split}_psnr.csv", {}
    for stale in (scores, scores.with_suffix(".png")):  # of another rollout, whose films are replaced
        stale.unlink(missing_ok=True)
    rows = []
    table = folder / ("submission.csv" if args.split == "test" else f"submission_{args.split}.csv")
    with Submission(table) if args.submission else contextlib.nullcontext() as submission:
        for name, number in numbers.items():
            stem = folder / f"{args.split}_{stems[name]}"
            rolled = roll_out_sequence(args, run, number, totals[name], stem, submission)
            tell(
                " -> ".join(
                    [summary(name, rolled), *([", ".join(map(str, rolled.files))] if rolled.files else [])]
                )
            )
            found = zip(rolled.psnr, rolled.held, strict=True)
            rows += [(name, frame, *pair) for frame, pair in enumerate(found, start=run.protocol.n_past)]
            if rolled.psnr:
                curves[name] = (np.array(rolled.psnr), np.array(rolled.held))
    if args.submission:
        tell(f"{table}")
    if not curves:
        return
    columns = ["sequence", "frame", "psnr", "held"]
    write_text(scores, pd.DataFrame(rows, columns=columns).to_csv(index=False, float_format="%.5f"))
    plot_rollouts(curves, run.protocol.n_past, scores.with_suffix(".png"))
    tell(f"{scores} and .png")
    if len(curves) > 1:
        tell(
            f"mean over {len(curves)} sequences: {np.mean([predicted.mean() for predicted, _ in curves.values()]):.2f} dB"
        )


def main(argv: list[str] | None = None) -> int:
    return run_command("svg-rollout", lambda: rollout(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
