"""``svg-quickstart``: the whole chain on a laptop.

Simulate data, train or take a released model, evaluate, render, plot, report.
"""

import argparse
import shlex
import sys
import time
from pathlib import Path

from data_tools.command import OneLineParser, run_command, tell
from data_tools.errors import InputError
from data_tools.simulators import push

from . import evaluate, plot, render, report, train
from .command import take_released

RECIPE = Path(__file__).parent / "recipes" / "quickstart.args"
TEST_SEED = 1000
"""The seed of the sequences that released models are tested on."""
TRAINING_SEED = 1
"""The seed of the sequences that released models were trained on."""
DEFAULTS_TO_SHOW = {"sequences": 40, "seed": TEST_SEED, "n_sample": 20}
DEFAULTS_TO_TRAIN = {"sequences": 400, "seed": TRAINING_SEED, "minutes": 6.0}
"""Defaults with a released model and without one."""


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed flags."""
    description = (
        "The whole chain on a laptop: simulate data, train or take a released model, evaluate, render, plot, "
        "report."
    )
    parser = OneLineParser(prog="svg-quickstart", description=description)
    parser.add_argument(
        "--pretrained",
        nargs="?",
        const="push-sim",
        metavar="NAME",
        help="show a released model (default push-sim) instead of training one: less than a minute",
    )
    parser.add_argument("--minutes", type=float, help="training time (default 6)")
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), help="folder of data and run (default demo)"
    )
    parser.add_argument(
        "--sequences",
        type=int,
        help="sequences to simulate (default 400; with --pretrained 40, for the test alone)",
    )
    parser.add_argument(
        "--n_sample",
        type=int,
        help="futures sampled for each test sequence (default: as svg-evaluate; with --pretrained 20)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        help=f"seed of simulation and training (default 1; with --pretrained {TEST_SEED}, of the simulation)",
    )
    args = parser.parse_args(argv)
    if args.pretrained and args.minutes is not None:
        raise InputError("--minutes: --pretrained trains nothing; leave one out")
    if args.pretrained and args.seed == TRAINING_SEED:
        raise InputError(
            f"--seed: found {args.seed}, whose sequences {args.pretrained} was trained on; choose another"
        )
    for name, value in (DEFAULTS_TO_SHOW if args.pretrained else DEFAULTS_TO_TRAIN).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if (args.minutes is not None and not args.minutes > 0) or (args.n_sample or 0) < 0:
        raise InputError("--minutes: expected a number above 0; --n_sample: at least 0")
    least, reason = 3, "one for each of training, validation and test"
    if args.pretrained:
        least, reason = 1, "to be tested on"
    if args.sequences < least:
        raise InputError(f"--sequences: found {args.sequences}, expected at least {least}, {reason}")
    return args


def training_flags(args: argparse.Namespace, data: Path, run: Path) -> list[str]:
    """Return the flags of svg-train: the recipe, and those that the quickstart decides."""
    recipe = RECIPE.relative_to(Path.cwd()) if RECIPE.is_relative_to(Path.cwd()) else RECIPE
    words = [f"@{recipe}", "--data_root", str(data), "--log_dir", str(run)]
    return [*words, "--max_minutes", str(args.minutes), "--seed", str(args.seed)]


def free_folder(parent: Path, name: str) -> Path:
    """Return ``parent/name``, or ``name-2`` and so on if that is taken: an earlier run is kept."""
    folder = parent / name
    number = 1
    while folder.exists():
        number += 1
        folder = parent / f"{name}-{number}"
    return folder


def quickstart(args: argparse.Namespace) -> None:
    """Run the whole chain."""
    began = time.monotonic()
    if args.pretrained:
        run = take_released(args.pretrained, args.out)
        data = args.out / "unseen"
        simulate_data("1/3", data, args, ["--splits", "0", "0", "1"])
        show("2/3", "3/3", run, data, args)
    else:
        run = free_folder(args.out, "run")
        data = args.out / "data"
        simulate_data("1/4", data, args, [])
        flags = training_flags(args, data, run)
        tell(f"\n2/4  svg-train {shlex.join(flags)}: {args.minutes:g} minutes")
        train.train(train.parse(flags))
        show("3/4", "4/4", run, data, args)
    minutes = (time.monotonic() - began) / 60
    pictures = f"the pictures are in {run / 'figures'}, all together in {run / 'report.html'}"
    tell(f"\ndone in {minutes:.1f} minutes; {pictures}")


def simulate_data(number: str, data: Path, args: argparse.Namespace, splits: list[str]) -> None:
    """Simulate the data set, as part `number` of the chain."""
    flags = [str(data), "--sequences", str(args.sequences), "--seed", str(args.seed), *splits]
    tell(f"{number}  svg-data simulate {shlex.join(flags)}")
    parser = argparse.ArgumentParser()
    push.add_arguments(parser)
    push.run(parser.parse_args(flags))


def show(first: str, second: str, run: Path, data: Path, args: argparse.Namespace) -> None:
    """Score a run and draw its pictures and page, as the `first` and `second` part of the chain."""
    place = [str(run), "--data_root", str(data)] if args.pretrained else [str(run)]
    sampled = place if args.n_sample is None else [*place, "--n_sample", str(args.n_sample)]
    tell(f"\n{first}  svg-evaluate {shlex.join(sampled)}")
    evaluation = evaluate.parse(sampled)
    evaluate.evaluate(evaluation)

    name = evaluate.result_name(evaluation)
    curves = [str(run)] if name == "test" else [str(run), "--scores", name]
    page = sampled if name == "test" else [*sampled, "--out", str(run / "report.html")]
    commands = [
        f"svg-render {shlex.join(place)}",
        f"svg-plot {shlex.join(curves)}",
        f"svg-report {shlex.join(page)}",
    ]
    tell(f"\n{second}  {'; '.join(commands)}")
    render.render(render.parse(place))
    plot.plot(plot.parse(curves))
    report.report(report.parse(page))


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("svg-quickstart", lambda: quickstart(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
