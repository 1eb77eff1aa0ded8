"""``svg-plot``: curves over epochs and over predicted frames, several runs overlaid."""

import argparse
import sys
from pathlib import Path

from data_tools.command import OneLineParser, run_command, tell
from data_tools.errors import InputError
from data_tools.files import folder_in

from .command import label_runs


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = OneLineParser(prog="svg-plot", description=__doc__.replace("`", ""))
    parser.add_argument("runs", type=Path, nargs="+", help="run folders that svg-train has written")
    parser.add_argument(
        "--scores",
        default="test",
        help="which scores of svg-evaluate are drawn: evaluation/NAME.json (default test)",
        metavar="NAME",
    )
    parser.add_argument(
        "--only",
        choices=("training", "frames"),
        help="draw the curves over epochs or over predicted frames alone",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="one picture of all curves, PDF, SVG or PNG by its ending, or a folder of PNGs "
        "(default: figures of the first run)",
    )
    return parser.parse_args(argv)


def is_picture(out: Path | None) -> bool:
    """Tell whether `out` names a picture, not a folder. Raises `InputError` for an unknown kind."""
    from svg.figures.drawing import picture_form

    if out is None or out.is_dir() or not out.suffix:
        return False
    try:
        picture_form(out)
    except InputError as error:
        raise InputError(f"--out: {error}; a folder with a dot in its name has to be there already") from None
    return True


def plot(args: argparse.Namespace) -> None:
    """Draw the curves that the flags ask for."""
    from svg.evaluation.results import load_evaluation
    from svg.figures.drawing import save
    from svg.figures.plotting import frame_curves, training_curves
    from svg.runs.checkpoint import FIGURES
    from svg.runs.metrics_log import read_metrics

    in_one_picture = is_picture(args.out)
    labels = label_runs(args.runs)
    drawings = {}
    missing = []
    if args.only != "frames":
        drawings["training"] = training_curves({label: read_metrics(run) for label, run in labels.items()})
    if args.only != "training":
        scores = {}
        for label, run in labels.items():
            evaluation = load_evaluation(run, args.scores)
            if evaluation is None:
                missing.append(missing_scores(run, args.scores))
            else:
                scores[label] = evaluation
        if scores:
            drawings[f"{args.scores}_frames"] = frame_curves(scores)
    if not drawings:
        raise InputError(missing[0])
    if in_one_picture:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        pictures = {args.out: list(drawings.values())}
    else:
        folder = args.out or folder_in(args.runs[0], FIGURES)
        folder.mkdir(parents=True, exist_ok=True)
        pictures = {folder / f"{name}.png": [drawing] for name, drawing in drawings.items()}
    for path, shown in pictures.items():
        save(shown, path)
        tell(f"{path}")
    for line in missing:
        tell(line)


def missing_scores(run: Path, scores: str) -> str:
    """Return a line about a run without the scores of this name."""
    from svg.evaluation.results import FOLDER

    others = ", ".join(sorted(path.stem for path in (run / FOLDER).glob("*.json"))) or "nothing"
    return (
        f"no curve over predicted frames for {run}: found no evaluation/{scores}.json (--scores); "
        f"there: {others}"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("svg-plot", lambda: plot(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
