"""``svg-rollout``: predicts whole sequences from their first frames, as far as their poses or actions go.

Rows of actions after the last frame are predicted, too. A model without conditions predicts as far as
--n_future asks.

Writes the PSNR of every frame as a table and a diagram, GIFs (and MP4) beside the truth and the poses, and
all frames as submission.csv, one row of integers a frame. Frames are predicted, scored and written a stretch
at a time: memory does not grow with the length. Sequences of which only the first frames are known are
predicted as well.
"""

import argparse
import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_tools.command import OneLineParser, run_command, tell
from data_tools.errors import InputError
from data_tools.files import check_writable, folder_in, write_text

from .command import Run, add_run_arguments, named_sequences, open_run, parse_run_arguments

if TYPE_CHECKING:
    from svg.evaluation.rollout import RolloutScores, Submission
    from svg.figures.rollout_film import RolloutFilm


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
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


def check(args: argparse.Namespace) -> None:
    """Raise `InputError` for impossible flags."""
    from svg.figures.films import require_mp4

    if not 0.1 <= args.fps <= 50:
        raise InputError(f"--fps: found {args.fps:g}, expected a number from 0.1 to 50")
    if args.mp4:
        require_mp4()
    if args.submission and (args.sequences or args.n_future is not None):
        raise InputError(
            "--submission: is of all sequences as far as they go; leave out --sequences and --n_future"
        )


def plan(args: argparse.Namespace, run: Run, numbers: dict[str, int]) -> dict[str, int]:
    """Return how many frames of each sequence to predict.

    Raises `InputError` for a sequence that has nothing to predict from.
    """
    from svg.evaluation.rollout import plan_frames

    totals = {}
    for name, number in numbers.items():
        totals[name], note = plan_frames(run.dataset, name, number, run.protocol.n_past, args.n_future)
        if note:
            tell(f"note: {name}: {note}")
    return totals


def open_film(args: argparse.Namespace, run: Run, number: int, total: int, stem: Path) -> "RolloutFilm":
    """Return the film of `total` predicted frames of a sequence."""
    from svg.figures.names import label
    from svg.figures.rollout_film import FilmOptions, RolloutFilm

    n_past = run.protocol.n_past
    title = f"sequence {label(run.dataset.index['sequence'].iloc[number], 30)}"
    with_truth = bool(run.dataset.lengths[number] > n_past)
    options = FilmOptions(args.gif, args.mp4, args.fps)
    return RolloutFilm(stem, title, n_past + total, n_past, with_truth, options)


def roll_out_sequence(
    args: argparse.Namespace, run: Run, number: int, total: int, stem: Path, submission: "Submission | None"
) -> tuple["RolloutScores", list[Path]]:
    """Predict `total` frames of a sequence, write its film and its rows of `submission`.

    Returns the scores and the written files.
    """
    from tqdm import tqdm

    from svg.evaluation.rollout import RolloutScores, given_frames, roll_out

    n_past = run.protocol.n_past
    given = given_frames(run.dataset, number, n_past)
    scores = RolloutScores(given.truth[-1], run.protocol.psnr_epsilon)
    seed = args.seed if args.latent == "sampled" else None
    stretches = roll_out(run.model, run.dataset, number, n_past, total, seed)
    with (
        open_film(args, run, number, total, stem) as film,
        tqdm(total=total, desc=stem.name, unit="frame", disable=None, leave=False) as bar,
    ):
        film.add(given, [])
        if submission is not None:
            submission.add(given.predicted)
        began = time.perf_counter()
        for stretch in stretches:
            scores.seconds += time.perf_counter() - began
            scores.add(stretch)
            film.add(stretch, scores.psnr)
            if submission is not None:
                submission.add(stretch.predicted)
            bar.update(len(stretch.predicted))
            began = time.perf_counter()
    return scores, film.files


def rollout(args: argparse.Namespace) -> None:
    """Predict the sequences that the flags name and write films, scores and the submission."""
    check(args)

    from svg.evaluation.rollout import Submission
    from svg.figures.names import file_stems

    run = open_run(args, only_given=True)
    names = list(run.dataset.index["sequence"])
    stems = file_stems(names)
    numbers = named_sequences(run.dataset, args.sequences or names)
    folder = args.out or folder_in(args.run, "rollout")
    check_writable(folder)
    totals = plan(args, run, numbers)
    tell(f"conditions: {run.dataset.given}")
    stem = folder / f"{args.split}_psnr"
    for ending in (".csv", ".png"):  # of another rollout, whose films are replaced
        Path(f"{stem}{ending}").unlink(missing_ok=True)
    table = folder / ("submission.csv" if args.split == "test" else f"submission_{args.split}.csv")
    scores = {}
    with Submission(table) if args.submission else contextlib.nullcontext() as submission:
        for name, number in numbers.items():
            film = folder / f"{args.split}_{stems[name]}"
            scores[name], files = roll_out_sequence(args, run, number, totals[name], film, submission)
            written = f" -> {', '.join(map(str, files))}" if files else ""
            tell(f"{scores[name].summary(name)}{written}")
    if args.submission:
        tell(f"{table}")
    write_scores({name: found for name, found in scores.items() if found.psnr}, run.protocol.n_past, stem)


def write_scores(scores: "dict[str, RolloutScores]", n_past: int, stem: Path) -> None:
    """Write the PSNR of every frame to ``stem.csv`` and draw it in ``stem.png``, if there is any truth."""
    import pandas as pd

    from svg.figures.plotting import plot_rollouts

    if not scores:
        return
    rows = []
    for name, sequence in scores.items():
        pairs = zip(sequence.psnr, sequence.held, strict=True)
        rows += [(name, frame, *pair) for frame, pair in enumerate(pairs, start=n_past)]
    table = pd.DataFrame(rows, columns=["sequence", "frame", "psnr", "held"])
    write_text(Path(f"{stem}.csv"), table.to_csv(index=False, float_format="%.5f"))
    curves = {name: (np.array(found.psnr), np.array(found.held)) for name, found in scores.items()}
    plot_rollouts(curves, n_past, Path(f"{stem}.png"))
    tell(f"{stem}.csv and .png")
    if len(scores) > 1:
        mean = np.mean([predicted.mean() for predicted, _ in curves.values()])
        tell(f"mean over {len(scores)} sequences: {mean:.2f} dB")


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("svg-rollout", lambda: rollout(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
