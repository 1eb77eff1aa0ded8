"""What the commands that use a trained run share."""

import argparse
import sys
from pathlib import Path
from typing import Any

from data_tools.layout import InputError


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of commands that use a trained run on a split."""
    parser.add_argument("run", type=Path, help="run folder that svg-train has written")
    parser.add_argument("--split", default="test", help="train, validate or test (default test)")
    parser.add_argument("--data_root", help="another data set than the run was trained on")
    parser.add_argument("--n_future", type=int, help="frames to predict (default: n_eval - n_past of the run)")
    parser.add_argument("--checkpoint", default="best", choices=("best", "last"), help="which weights (default best)")
    parser.add_argument("--batch_size", type=int, default=16, help="sequences at a time (default 16)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--compile", action="store_true", help="torch.compile the model; the first predictions take minutes")
    parser.add_argument("--seed", type=int, default=1, help="seed of the sampled futures (default 1)")


def open_run(args: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    """(model, configuration, dataset of the split, device); the dataset's clips hold given and predicted frames."""
    from svg import runtime
    from svg.checkpoint import load_model
    from svg.inference import freeze
    from svg.sequences import SequenceDataset

    device = runtime.choose_device(args.device)
    runtime.prepare(device)
    model, config = load_model(args.run, args.checkpoint, device)
    data = config.data
    n_future = args.n_future if args.n_future is not None else data.n_eval - data.n_past
    if n_future < 1 or args.batch_size < 1 or args.seed < 0:
        raise InputError("--n_future, --batch_size: expected at least 1; --seed: expected at least 0")
    dataset = SequenceDataset(args.data_root or data.data_root, args.split, data.n_past + n_future, data.conditions)
    report_left_out(dataset)
    height, width, channels = dataset.frame_size
    found = (height, width, channels, len(dataset.condition_mean))
    expected = (config.model.image_width, config.model.image_width, config.model.channels, config.model.condition_dim)
    if found != expected:
        raise InputError(
            f"{dataset.root}: found frames {found[0]}x{found[1]}x{found[2]} and {found[3]} condition columns, "
            f"expected {expected[0]}x{expected[1]}x{expected[2]} and {expected[3]}, on which {args.run} was trained"
        )
    return freeze(model, config.train.precision, args.compile), config, dataset, device


def report_left_out(dataset: Any) -> None:
    """Says on stderr how many sequences of a split are too short to be used."""
    if dataset.left_out:
        total = dataset.left_out + len(dataset)
        where, frames = dataset.root / dataset.split, dataset.clip_length
        print(f"{where}: {dataset.left_out} of {total} sequences are shorter than {frames} frames and left out", file=sys.stderr)
