"""``svg-render``: ref / rec / pred GIFs and strips of the best, a random and the worst sequence of a split."""

import argparse
import sys
from pathlib import Path

import numpy as np

from data_tools.command import OneLineParser, run_command
from data_tools.layout import InputError

from .command import add_run_arguments, open_run


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="svg-render", description=__doc__.replace("`", ""))
    add_run_arguments(parser)
    parser.add_argument("--sequences", nargs="+", metavar="NAME", help="render these sequences instead (names as in index.csv)")
    parser.add_argument("--n_sample", type=int, default=0, help="sampled futures shown beside the mean one (default 0)")
    parser.add_argument("--fps", type=float, default=5.0, help="frames a second (default 5)")
    parser.add_argument("--out", type=Path, help="folder of the pictures (default RUN/figures)")
    return parser.parse_args(argv)


def choose_sequences(model, dataset, n_past: int, device, precision: str, batch_size: int, seed: int) -> dict[str, int]:
    """Best, random and worst sequence by the PSNR of the prediction with the mean latent: {name: number}."""
    from svg.evaluation import evaluate

    scores = evaluate(model, dataset, n_past, 0, device, precision, batch_size).per_sequence("pred")["psnr"].to_numpy()
    order = np.argsort(scores)
    chosen = {"best": int(order[-1]), "worst": int(order[0])}
    others = order[1:-1] if len(order) > 2 else order
    return chosen | {"random": int(np.random.default_rng(seed).choice(others))}


def named_sequences(dataset, names: list[str]) -> dict[str, int]:
    numbers = {name: number for number, name in enumerate(dataset.index["sequence"])}
    for name in names:
        if name not in numbers:
            raise InputError(f"--sequences: found no sequence {name!r} in split {dataset.split} of {dataset.root}")
    return {f"sequence_{name.replace('/', '_')}": numbers[name] for name in names}


def predicted_videos(model, dataset, number: int, n_past: int, device, precision: str, n_sample: int, seed: int) -> dict:
    """The videos of one sequence by label, uint8 [T,H,W,3]: ref, rec, pred and `n_sample` samples."""
    import torch

    from svg import runtime
    from svg.evaluation import latent_noise
    from svg.model import as_images
    from svg.rendering import to_video

    batch = dataset.batch([(number, 0)])
    frames, conditions = as_images(batch["frames"].to(device)), batch["conditions"].to(device)
    given, n_future = frames[0, :n_past], frames.shape[1] - n_past
    noise = latent_noise(model, range(number, number + 1), n_sample + 1, n_future, seed).to(device)
    noise[:, 0] = 0  # the mean latent
    with torch.no_grad(), runtime.autocast(device, precision):
        rec = model.reconstruct(frames, conditions, n_past)[0, n_past - 1 :]
        futures = model.imagine(model.observe(frames[:, :n_past], conditions), conditions[:, n_past - 1 :], noise)[:, 0]
    videos = {"ref": frames[0, n_past:], "rec": rec, "pred": futures[0]}
    videos |= {f"sample_{number}": future for number, future in enumerate(futures[1:], start=1)}
    return {label: to_video(given, future) for label, future in videos.items()}


def render(args: argparse.Namespace) -> None:
    if args.n_sample < 0 or not 0.1 <= args.fps <= 50:
        raise InputError("--n_sample: expected at least 0; --fps: expected a number from 0.1 to 50")

    from svg.checkpoint import FIGURES
    from svg.rendering import render_sequence

    model, config, dataset, device = open_run(args)
    n_past, precision = config.data.n_past, config.train.precision
    if args.sequences:
        chosen = named_sequences(dataset, args.sequences)
    else:
        chosen = choose_sequences(model, dataset, n_past, device, precision, args.batch_size, args.seed)
    folder = args.out or args.run / FIGURES
    for name, number in chosen.items():
        videos = predicted_videos(model, dataset, number, n_past, device, precision, args.n_sample, args.seed)
        written = render_sequence(folder, f"{args.split}_{name}", videos, n_past, args.fps)
        print(f"{name}: sequence {dataset.index['sequence'].iloc[number]} -> {written[-2]}, {written[-1]}")


def main(argv: list[str] | None = None) -> int:
    return run_command("svg-render", lambda: render(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
