"""``svg-plot``: curves over epochs and over predicted frames, several runs overlaid."""

import argparse
import sys
from pathlib import Path

from data_tools.command import OneLineParser, run_command

from .command import label_runs


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="svg-plot", description=__doc__.replace("`", ""))
    parser.add_argument("runs", type=Path, nargs="+", help="run folders that svg-train has written")
    parser.add_argument(
        "--scores",
        default="test",
        help="which scores of svg-evaluate are drawn: evaluation/NAME.json (default test)",
        metavar="NAME",
    )
    parser.add_argument("--out", type=Path, help="folder of the pictures (default: figures of the first run)")
    return parser.parse_args(argv)


def plot(args: argparse.Namespace) -> None:
    from svg.checkpoint import FIGURES
    from svg.journal import read_metrics
    from svg.plotting import plot_frames, plot_training
    from svg.results import FOLDER, load_evaluation

    folder = args.out or args.runs[0] / FIGURES
    labels = label_runs(args.runs)
    metrics = {label: read_metrics(run) for label, run in labels.items()}
    folder.mkdir(parents=True, exist_ok=True)
    plot_training(metrics, folder / "training.png")
    print(folder / "training.png")
    scores = {label: load_evaluation(run, args.scores) for label, run in labels.items()}
    missing = [str(labels[label]) for label, found in scores.items() if found is None]
    scores = {label: found for label, found in scores.items() if found is not None}
    if scores:
        plot_frames(scores, folder / f"{args.scores}_frames.png")
        print(folder / f"{args.scores}_frames.png")
    for run in missing:
        others = ", ".join(sorted(path.stem for path in (Path(run) / FOLDER).glob("*.json"))) or "nothing"
        print(f"no curve over predicted frames for {run}: found no evaluation/{args.scores}.json (--scores); there: {others}")


def main(argv: list[str] | None = None) -> int:
    return run_command("svg-plot", lambda: plot(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
