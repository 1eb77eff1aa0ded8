"""``svg-train``: train the predictor on an indexed data set and write a run folder."""

import argparse
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from data_tools.command import run_command, tell
from data_tools.errors import InputError
from data_tools.pool import check_workers
from svg.config import Config, TrainConfig
from svg.flags import (
    FlagParser,
    add_config_arguments,
    config_from_arguments,
    flag_values,
    flags_of_origin,
    parse_flags,
)

from . import RECIPES


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the flags: as given, else those of the run that is resumed or begun with, else the defaults."""
    description = "Train the predictor. Flags may stand in a file: svg-train @FILE."
    parser = FlagParser(prog="svg-train", description=description, recipes=RECIPES)
    add_config_arguments(parser)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --log_dir, if there is one; flags that are not given stay as they were",
    )
    parser.add_argument(
        "--take_over",
        action="store_true",
        help="with --resume: also under flags or circumstances that change the results of the run",
    )
    return parse_flags(parser, argv, flags_before)


def flags_before(args: argparse.Namespace) -> dict[str, Any]:
    """Return the flags of the run that is resumed, or else of the model that is begun with."""
    run = Path(args.log_dir)
    if args.take_over and not args.resume:
        raise InputError("--take_over: expected --resume beside it")
    if not args.resume or not (run / "config.json").exists():
        return flags_of_origin(args)
    from svg.runs.checkpoint import load_config

    before = flag_values(load_config(run))
    if args.init_from not in ("", before["init_from"]):
        begun = f"but {args.log_dir} has begun already"
        raise InputError(f"--init_from: found {args.init_from}, {begun}; leave it out")
    return before


def tell_notes(args: argparse.Namespace, config: Config) -> None:
    """Print notes on flags that have less effect than they seem to."""
    import torch

    notes = list(args.notes.values())
    if args.cuda and not torch.cuda.is_available():
        notes.append("--cuda: found no GPU, so the training runs on the CPU")
    train, defaults = config.train, TrainConfig()
    for name in ("kl_anneal_cycle", "kl_anneal_ratio"):
        if train.kl_anneal == "none" and getattr(train, name) != getattr(defaults, name):
            advice = "add --kl_anneal_cyclical True or, for monotonic annealing, False"
            notes.append(f"--{name}: without effect, as beta is not annealed; {advice}")
    processors = check_workers(None)
    if config.data.workers > processors:
        advice = "more workers than those seldom help"
        notes.append(f"--workers {config.data.workers}: the machine has {processors} processors; {advice}")
    for note in notes if int(os.environ.get("RANK", 0)) == 0 else ():
        tell(f"note: {note}", error=True)


def train(args: argparse.Namespace) -> None:
    """Train as the flags say. Raises `InputError`, and `Stopped` if a signal asked for it."""
    config = config_from_arguments(args)
    # more workers than processors, of which `tell_notes` warns in one line
    warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)

    from svg.training import distributed
    from svg.training.loop import Training
    from svg.training.signals import Stopped

    try:
        training = Training(config, args.resume, args.take_over)
        run = training.fit()
    except Stopped:
        distributed.leave()
        raise
    distributed.leave()
    if training.world.is_main:
        commands = [
            f"evaluate with `svg-evaluate {run}`",
            f"render with `svg-render {run}`",
            f"plot with `svg-plot {run}`",
        ]
        if config.model.takes_poses:
            commands.insert(0, f"predict whole videos with `svg-rollout {run}`")
        tell(f"{run}: {', '.join(commands)}")


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""

    def work() -> None:
        args = parse(argv)
        tell_notes(args, config_from_arguments(args))
        train(args)

    return run_command("svg-train", work)


if __name__ == "__main__":
    sys.exit(main())
