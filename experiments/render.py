"""``svg-render``: ref / rec / pred GIFs and strips of the best, a random and the worst sequence of a split."""

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np

from data_tools.command import OneLineParser, run_command, tell
from data_tools.errors import InputError
from data_tools.files import check_writable, folder_in

from .command import Run, add_run_arguments, named_sequences, open_run, parse_run_arguments, pose_video

MOST_SAMPLES = 12
PARTS = ("", "_ref", "_rec", "_pred", "_pose", *(f"_sample_{number + 1}" for number in range(MOST_SAMPLES)))
"""Endings of the pictures of a sequence."""


def parse(argv: list[str] | None) -> argparse.Namespace:
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
    parser.add_argument("--mp4", action="store_true", help="side by side as MP4, too (extra video)")
    parser.add_argument("--fps", type=float, default=5.0, help="frames a second (default 5)")
    parser.add_argument("--out", type=Path, help="folder of the pictures (default RUN/figures)")
    return parse_run_arguments(parser, argv)


def choose_sequences(run: Run, batch_size: int, seed: int) -> dict[str, int]:
    """Best, random and worst sequence by the PSNR of the prediction with the mean latent: {name: number}."""
    from svg.evaluation.scoring import evaluate

    protocol = dataclasses.replace(run.protocol, n_sample=0)
    scores = evaluate(run.model, run.dataset, protocol, run.device, run.config.train.precision, batch_size)
    order = np.argsort(scores.per_sequence("pred", "psnr"))
    chosen = {"best": int(order[-1]), "worst": int(order[0])}
    others = order[1:-1] if len(order) > 2 else order
    return chosen | {"random": int(np.random.default_rng(seed).choice(others))}


def predicted_videos(
    run: Run, number: int, n_sample: int, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the videos of one sequence by label, uint8 [T,H,W,3], ref, rec, pred and `n_sample` samples, and their PSNR [T]."""
    from svg.evaluation.metrics import psnr
    from svg.evaluation.scoring import predict_sequence
    from svg.figures.rendering import to_video

    protocol = run.protocol
    futures = predict_sequence(
        run.model, run.dataset, protocol, number, run.device, run.config.train.precision, n_sample, seed
    )
    videos = {"ref": futures.truth, "rec": futures.rec, "pred": futures.pred}
    videos |= {f"sample_{number}": future for number, future in enumerate(futures.samples, start=1)}
    scores = {}
    for label, future in videos.items():
        if label != "ref":
            values = psnr(future, futures.truth, protocol.psnr, protocol.psnr_epsilon).cpu().numpy()
            scores[label] = np.concatenate([np.full(protocol.n_past, np.nan), values])
    shown = {label: to_video(futures.past, future) for label, future in videos.items()}
    return shown | ({"pose": pose_video(run, number)} if run.config.model.takes_poses else {}), scores


def render(args: argparse.Namespace) -> None:
    if not 0 <= args.n_sample <= MOST_SAMPLES:
        raise InputError(
            f"--n_sample: found {args.n_sample}, expected 0 to {MOST_SAMPLES}: more are not seen side by side"
        )
    if not 0.1 <= args.fps <= 50:
        raise InputError(f"--fps: found {args.fps:g}, expected a number from 0.1 to 50")

    from svg.figures.names import file_stems
    from svg.figures.rendering import render_sequence, require_mp4
    from svg.runs.checkpoint import FIGURES

    if args.mp4:
        require_mp4()
    run = open_run(args)
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
        title = f"sequence {names[number]}" if args.sequences else f"{kind}: sequence {names[number]}"
        videos, scores = predicted_videos(run, number, args.n_sample, args.seed)
        written = render_sequence(
            folder, f"{args.split}_{kind}", videos, run.protocol.n_past, args.fps, args.mp4, title, scores
        )
        shown = ", ".join(str(path) for path in written if path.stem == f"{args.split}_{kind}")
        tell(f"{kind}: sequence {names[number]} -> {shown}")


def main(argv: list[str] | None = None) -> int:
    return run_command("svg-render", lambda: render(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
