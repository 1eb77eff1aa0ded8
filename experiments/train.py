"""``svg-train``: trains the predictor on an indexed data set and writes a run folder."""

import argparse
import sys
from pathlib import Path
from typing import Any

from data_tools.command import run_command
from data_tools.layout import InputError
from svg.config import FlagParser, add_config_arguments, config_from_arguments, flag_values

from .command import report_left_out


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = FlagParser(prog="svg-train", description="Trains the predictor. Flags may stand in a file: svg-train @FILE.")
    add_config_arguments(parser)
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in --log_dir, if there is one; flags not given are as they were"
    )
    parser.add_argument(
        "--take_over", action="store_true", help="with --resume: also under flags or circumstances that change what becomes of it"
    )
    args = parser.parse_args(argv)
    if args.take_over and not args.resume:
        raise InputError("--take_over: expected --resume beside it")
    if args.resume and (Path(args.log_dir) / "config.json").exists():
        from svg.checkpoint import load_config

        before = flag_values(load_config(Path(args.log_dir))) | {"log_dir": args.log_dir}
        if args.init_from not in ("", before["init_from"]):
            raise InputError(f"--init_from: found {args.init_from}, but {args.log_dir} has begun already; leave it out")
        parser.set_defaults(**before)
        args = parser.parse_args(argv)
    elif args.init_from:
        parser.set_defaults(**flags_of_model(args.init_from))
        args = parser.parse_args(argv)
    return args


def flags_of_model(model: str) -> dict[str, Any]:
    """The flags of the model whose weights a training begins with. Raises `InputError`."""
    from svg.checkpoint import load_config
    from svg.pretrained import run_folder

    try:
        return flag_values(load_config(run_folder(model)), ["model"])
    except InputError as error:
        raise InputError(f"--init_from: {error}") from None


def train(args: argparse.Namespace) -> None:
    if not args.data_root:
        raise InputError("--data_root: not given; expected the root of a data set (svg-data simulate makes one)")
    config = config_from_arguments(args)

    from svg import distributed
    from svg.signals import Stopped
    from svg.training import Training

    try:
        training = Training(config, args.resume, args.take_over)
        if training.world.first:
            for dataset in filter(None, (training.training_data, training.validation_data)):
                report_left_out(dataset)
        run = training.fit()
    except Stopped:
        distributed.leave()
        raise
    except BaseException:
        distributed.fall_silent()
        raise
    distributed.leave()
    if training.world.first:
        more = f"predict whole videos with `svg-rollout {run}`, " if config.model.with_poses else ""
        print(f"{run}: {more}evaluate with `svg-evaluate {run}`, render with `svg-render {run}`, plot with `svg-plot {run}`")


def main(argv: list[str] | None = None) -> int:
    return run_command("svg-train", lambda: train(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
