"""``svg-quickstart``: the whole chain on a laptop: simulate, index, train, evaluate, render, plot, report."""

import argparse
import shlex
import sys
import time
from pathlib import Path

from data_tools import simulate
from data_tools.command import OneLineParser, run_command
from data_tools.layout import InputError

from . import evaluate, plot, render, report, train

RECIPE = Path(__file__).parent / "recipes" / "quickstart.args"


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="svg-quickstart", description=__doc__.replace("`", ""))
    parser.add_argument("--minutes", type=float, default=6.0, help="training time (default 6)")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder of data and run (default demo)")
    parser.add_argument("--sequences", type=int, default=400, help="sequences to simulate (default 400)")
    parser.add_argument("--n_sample", type=int, help="futures sampled for each test sequence (default: as svg-evaluate)")
    parser.add_argument("--seed", type=int, default=1, help="seed of simulation and training (default 1)")
    return parser.parse_args(argv)


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
    if not args.minutes > 0 or (args.n_sample or 0) < 0 or args.sequences < 3:
        raise InputError(
            "--minutes: expected a number above 0; --n_sample: at least 0; --sequences: at least 3, one for each of "
            "training, validation and test"
        )
    began = time.monotonic()
    data, run = args.out / "data", free_folder(args.out, "run")

    print(f"1/4  svg-data simulate: {args.sequences} sequences of robot pushing in {data}")
    parser = argparse.ArgumentParser()
    simulate.add_arguments(parser)
    simulate.run(parser.parse_args([str(data), "--sequences", str(args.sequences), "--seed", str(args.seed)]))

    flags = training_flags(args, data, run)
    print(f"\n2/4  svg-train {shlex.join(flags)}: {args.minutes:g} minutes")
    train.train(train.parse(flags))

    sampled = [] if args.n_sample is None else ["--n_sample", str(args.n_sample)]
    evaluation = evaluate.parse([str(run), *sampled])
    print(f"\n3/4  svg-evaluate {shlex.join([str(run), *sampled])}")
    evaluate.evaluate(evaluation)

    print(f"\n4/4  svg-render {run}; svg-plot {run}; svg-report {run}")
    render.render(render.parse([str(run)]))
    plot.plot(plot.parse([str(run), "--scores", evaluate.result_name(evaluation)]))
    page = report.parse([str(run), *sampled, "--out", str(run / "report.html")])
    report.report(page)
    minutes = (time.monotonic() - began) / 60
    print(f"\ndone in {minutes:.1f} minutes; the pictures are in {run / 'figures'}, all together in {page.out}")


def main(argv: list[str] | None = None) -> int:
    return run_command("svg-quickstart", lambda: quickstart(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
