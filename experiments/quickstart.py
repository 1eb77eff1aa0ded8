"""``svg-quickstart``: the whole chain on a laptop: simulate, index, train or take a released model, evaluate, render, report."""

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
"""That of the sequences that they were trained on."""


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="svg-quickstart", description=__doc__.replace("`", ""))
    parser.add_argument(
        "--pretrained", nargs="?", const="push-sim", metavar="NAME",
        help="show a released model (default push-sim) instead of training one: less than a minute",
    )  # fmt: skip
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
    shown, trained = (
        {"sequences": 40, "seed": TEST_SEED, "n_sample": 20},
        {"sequences": 400, "seed": 1, "minutes": 6.0},
    )
    usual = shown if args.pretrained else trained
    for name, value in usual.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if (args.minutes is not None and not args.minutes > 0) or (args.n_sample or 0) < 0:
        raise InputError("--minutes: expected a number above 0; --n_sample: at least 0")
    least, why = (
        (1, "to be tested on") if args.pretrained else (3, "one for each of training, validation and test")
    )
    if args.sequences < least:
        raise InputError(f"--sequences: found {args.sequences}, expected at least {least}, {why}")
    return args


def training_flags(args: argparse.Namespace, data: Path, run: Path) -> list[str]:
    """The recipe's flags and those that the quickstart decides: what svg-train would be given."""
    recipe = RECIPE.relative_to(Path.cwd()) if RECIPE.is_relative_to(Path.cwd()) else RECIPE
    flags = {"data_root": data, "log_dir": run, "max_minutes": args.minutes, "seed": args.seed}
    return [f"@{recipe}", *(str(word) for name, value in flags.items() for word in (f"--{name}", value))]


def free_folder(parent: Path, name: str) -> Path:
    """``parent/name``, or ``name-2`` and so on where that is taken: an earlier run is kept."""
    folder, number = parent / name, 1
    while folder.exists():
        number += 1
        folder = parent / f"{name}-{number}"
    return folder


def quickstart(args: argparse.Namespace) -> None:
    began = time.monotonic()
    if args.pretrained:
        run, data = take_released(args.pretrained, args.out), args.out / "unseen"
        simulate_data("1/3", data, args, ["--splits", "0", "0", "1"])
        show("2/3", "3/3", run, data, args)
    else:
        run, data = free_folder(args.out, "run"), args.out / "data"
        simulate_data("1/4", data, args, [])
        flags = training_flags(args, data, run)
        tell(f"\n2/4  svg-train {shlex.join(flags)}: {args.minutes:g} minutes")
        train.train(train.parse(flags))
        show("3/4", "4/4", run, data, args)
    minutes = (time.monotonic() - began) / 60
    tell(
        f"\ndone in {minutes:.1f} minutes; the pictures are in {run / 'figures'}, all together in {run / 'report.html'}"
    )


def simulate_data(number: str, data: Path, args: argparse.Namespace, splits: list[str]) -> None:
    flags = [str(data), "--sequences", str(args.sequences), "--seed", str(args.seed), *splits]
    tell(f"{number}  svg-data simulate {shlex.join(flags)}")
    parser = argparse.ArgumentParser()
    push.add_arguments(parser)
    push.run(parser.parse_args(flags))


def show(first: str, second: str, run: Path, data: Path, args: argparse.Namespace) -> None:
    """Scores, pictures and page of a run."""
    place = [str(run), "--data_root", str(data)] if args.pretrained else [str(run)]
    sampled = place if args.n_sample is None else [*place, "--n_sample", str(args.n_sample)]
    tell(f"\n{first}  svg-evaluate {shlex.join(sampled)}")
    evaluation = evaluate.parse(sampled)
    evaluate.evaluate(evaluation)

    name = evaluate.result_name(evaluation)
    curves = [str(run)] if name == "test" else [str(run), "--scores", name]
    page = sampled if name == "test" else [*sampled, "--out", str(run / "report.html")]
    tell(
        f"\n{second}  svg-render {shlex.join(place)}; svg-plot {shlex.join(curves)}; svg-report {shlex.join(page)}"
    )
    render.render(render.parse(place))
    plot.plot(plot.parse(curves))
    report.report(report.parse(page))


def main(argv: list[str] | None = None) -> int:
    return run_command("svg-quickstart", lambda: quickstart(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
