"""``svg-plot``: curves over epochs and over predicted frames, several runs overlaid."""

import argparse
import sys
from pathlib import Path

from data_tools.command import OneLineParser, run_command, tell
from data_tools.errors import InputError
from data_tools.files import folder_in

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
    parser.add_argument(
        "--only",
        choices=("training", "frames"),
        help="draw the curves over epochs or over predicted frames alone",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="one picture of all curves, PDF, SVG or PNG by its ending, or a folder of PNGs (default: figures of the first run)",
    )
    return parser.parse_args(argv)


def is_file(out: Path | None) -> bool:
    """Return whether `out` names a picture and not a folder. Raises `InputError` for one of an unknown kind."""
    from svg.figures.drawing import picture_form

    if out is None or out.is_dir() or not out.suffix:
        return False
    try:
        picture_form(out)
    except InputError as error:
        raise InputError(f"--out: {error}; a folder with a dot in its name has to be there already") from None
    return True


def plot(args: argparse.Namespace) -> None:
    from svg.evaluation.results import load_evaluation
    from svg.figures.drawing import save
    from svg.figures.plotting import frame_curves, training_curves
    from svg.runs.checkpoint import FIGURES
    from svg.runs.metrics_log import read_metrics

    is_picture = is_file(args.out)
    labels = label_runs(args.runs)
    drawings, missing = {}, []
    if args.only != "frames":
        drawings["training"] = training_curves({label: read_metrics(run) for label, run in labels.items()})
    if args.only != "training":
        scores = {label: load_evaluation(run, args.scores) for label, run in labels.items()}
        missing = [lacking(labels[label], args.scores) for label, found in scores.items() if found is None]
        scores = {label: found for label, found in scores.items() if found is not None}
        if scores:
            drawings[f"{args.scores}_frames"] = frame_curves(scores)
    if not drawings:
        raise InputError(missing[0])
    if is_picture:
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


def lacking(run: Path, scores: str) -> str:
    """Return what to say of a run that has no such scores."""
    from svg.evaluation.results import FOLDER

    others = ", ".join(sorted(path.stem for path in (run / FOLDER).glob("*.json"))) or "nothing"
    return f"no curve over predicted frames for {run}: found no evaluation/{scores}.json (--scores); there: {others}"


def main(argv: list[str] | None = None) -> int:
    return run_command("svg-plot", lambda: plot(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
