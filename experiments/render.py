"""``svg-render``: ref / rec / pred GIFs and strips of the best, a random and the worst sequence."""

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np

from data_tools.command import OneLineParser, run_command, tell
from data_tools.errors import InputError
from data_tools.files import check_writable, folder_in

from .command import Run, add_run_arguments, named_sequences, open_run, parse_run_arguments

MOST_SAMPLES = 12
PARTS = (
    *("", "_ref", "_rec", "_pred", "_pose", "_found_ref", "_found_pred"),
    *(f"_sample_{number + 1}" for number in range(MOST_SAMPLES)),
)
"""Endings of the pictures of a sequence."""


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = OneLineParser(prog="svg-render", description=__doc__.replace("`", ""))
    add_run_arguments(parser)
    parser.add_argument(
        "--sequences",
        nargs="+",
        metavar="NAME",
        help="render these sequences instead (names as in index.csv)",
    )
    parser.add_argument(
        "--n_sample", type=int, default=0, help="sampled futures shown beside the mean one (default 0)"
    )
    parser.add_argument(
        "--objects",
        action="store_true",
        help="show what the judge of objects finds in truth and prediction; for data of svg-data simulate "
        "--truth",
    )
    parser.add_argument(
        "--mp4", action="store_true", help="write the side-by-side film as MP4, too (extra video)"
    )
    parser.add_argument("--fps", type=float, default=5.0, help="frames a second (default 5)")
    parser.add_argument("--out", type=Path, help="folder of the pictures (default RUN/figures)")
    return parse_run_arguments(parser, argv)


def choose_sequences(run: Run, batch_size: int, seed: int) -> dict[str, int]:
    """Return the numbers of the best, the worst and a random sequence by the PSNR of pred (mean latent)."""
    from svg.evaluation import EvaluationOptions
    from svg.evaluation.scoring import evaluate

    protocol = dataclasses.replace(run.protocol, n_sample=0)
    scores = evaluate(run.model, run.dataset, protocol, EvaluationOptions(batch_size))
    order = np.argsort(scores.per_sequence("pred", "psnr"))
    others = order[1:-1] if len(order) > 2 else order
    return {
        "best": int(order[-1]),
        "worst": int(order[0]),
        "random": int(np.random.default_rng(seed).choice(others)),
    }


def render_one(
    args: argparse.Namespace, run: Run, number: int, folder: Path, name: str, title: str
) -> list[Path]:
    """Write the pictures of one sequence as `name` and return their paths."""
    from svg.evaluation.futures import predict_sequence
    from svg.figures.rendering import future_videos, pose_video, render_sequence

    protocol = run.protocol
    futures = predict_sequence(run.model, run.dataset, protocol, number, args.n_sample, args.seed)
    videos, scores = future_videos(futures, protocol)
    poses = pose_video(run.dataset, number, protocol.n_past + protocol.n_future)
    if poses is not None:
        videos["pose"] = poses
    if args.objects:
        from svg.evaluation.judge import load_judge
        from svg.figures.objects import object_videos

        videos |= object_videos(load_judge(run.device), run.dataset, number, futures)
    return render_sequence(folder, name, videos, protocol.n_past, args.fps, args.mp4, title, scores)


def render(args: argparse.Namespace) -> None:
    """Write the pictures of the sequences that the flags name."""
    if not 0 <= args.n_sample <= MOST_SAMPLES:
        raise InputError(
            f"--n_sample: found {args.n_sample}, expected 0 to {MOST_SAMPLES}: more are not seen side by side"
        )
    if not 0.1 <= args.fps <= 50:
        raise InputError(f"--fps: found {args.fps:g}, expected a number from 0.1 to 50")

    from svg.figures.films import require_mp4
    from svg.figures.names import file_stems
    from svg.runs.checkpoint import FIGURES

    if args.mp4:
        require_mp4()
    run = open_run(args)
    if args.objects:
        from svg.evaluation.objects import check_truth

        check_truth(run.dataset)
    folder = args.out or folder_in(args.run, FIGURES)
    check_writable(folder)
    names = list(run.dataset.index["sequence"])
    if args.sequences:
        stems = file_stems(names, PARTS)
        numbers = named_sequences(run.dataset, args.sequences)
        chosen = {f"sequence_{stems[name]}": number for name, number in numbers.items()}
    else:
        chosen = choose_sequences(run, args.batch_size, args.seed)
    for kind, number in chosen.items():
        sequence = f"sequence {names[number]}"
        title = sequence if args.sequences else f"{kind}: {sequence}"
        name = f"{args.split}_{kind}"
        written = render_one(args, run, number, folder, name, title)
        shown = ", ".join(str(path) for path in written if path.stem == name)
        tell(f"{kind}: {sequence} -> {shown}")


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("svg-render", lambda: render(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
