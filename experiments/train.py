"""``svg-train``: train the predictor on an indexed data set and write a run folder."""

import argparse
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from data_tools import layout
from data_tools.command import run_command, tell
from data_tools.errors import InputError
from data_tools.pool import check_workers
from data_tools.remote import is_remote
from svg.config import Config, TrainConfig
from svg.flags import FlagParser, add_config_arguments, config_from_arguments, flag_values
from svg.processes import processes

from . import RECIPES
from .command import report_left_out


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
    args = parser.parse_args(argv)
    log_dir = str(Path(args.log_dir, args.name)) if args.name else args.log_dir
    if args.take_over and not args.resume:
        raise InputError("--take_over: expected --resume beside it")
    if args.resume and (Path(log_dir) / "config.json").exists():
        from svg.runs.checkpoint import load_config

        before = flag_values(load_config(Path(log_dir)))
        if args.init_from not in ("", before["init_from"]):
            begun = f"but {log_dir} has begun already"
            raise InputError(f"--init_from: found {args.init_from}, {begun}; leave it out")
        parser.set_defaults(**before)
        args = parser.parse_args(argv)
    elif args.init_from:
        parser.set_defaults(**flags_of_model(args.init_from))
        args = parser.parse_args(argv)
    args.log_dir = log_dir
    return args


def flags_of_model(model: str) -> dict[str, Any]:
    """Return the flags of the model whose weights a training begins with. Raises `InputError`."""
    from svg.runs.checkpoint import load_config
    from svg.runs.pretrained import run_folder

    try:
        return flag_values(load_config(run_folder(model)), ["model"])
    except InputError as error:
        raise InputError(f"--init_from: {error}") from None


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


def index_if_new(root: Path) -> None:
    """Index a local data root that has no index yet, if it holds sequences as `svg-data index` takes them.

    Several processes do not: all but one would have to wait. Raises `InputError` for faulty sequences and if
    no index can be written.
    """
    from data_tools import index

    if is_remote(root):
        return
    has_index = any((root / name).exists() for name in (layout.INDEX_FILE, layout.INFO_FILE))
    if has_index or processes() > 1:
        return
    if not any(index.kind_of(root).find(root, split) for split in layout.SPLITS):
        return
    if not os.access(root, os.W_OK):
        advice = "change its rights or index a copy of it"
        raise InputError(f"{root}: has no index, and none can be written there; {advice}")
    tell(f"{root}: has no index yet; `svg-data index {root}` does it now, once")
    index.run(argparse.Namespace(root=root, name=None, source=None))


def train(args: argparse.Namespace) -> None:
    """Train as the flags say. Raises `InputError`, and `Stopped` if a signal asked for it."""
    if not args.data_root:
        raise InputError(
            "--data_root: not given; expected the root of a data set (svg-data simulate makes one)"
        )
    config = config_from_arguments(args)
    index_if_new(Path(args.data_root))
    # more workers than processors, of which `tell_notes` warns in one line
    warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)

    from svg.training import distributed
    from svg.training.loop import Training
    from svg.training.signals import Stopped

    try:
        training = Training(config, args.resume, args.take_over)
        if training.world.is_main:
            for dataset in filter(None, (training.training_data, training.validation_data)):
                report_left_out(dataset)
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
