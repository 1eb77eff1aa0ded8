"""``svg-report``: one self-contained HTML page about a run, with videos, curves and tables.

Scores that svg-evaluate has written under the same flags are taken, others are computed first.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from data_tools.command import OneLineParser, run_command, tell
from data_tools.errors import InputError

from .command import Run, add_run_arguments, named_sequences, open_run, parse_run_arguments
from .evaluate import add_evaluation_arguments, evaluate_run, options_of, result_name

if TYPE_CHECKING:
    from svg.evaluation.results import Evaluation
    from svg.evaluation.tables import Table
    from svg.figures.page import Group


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = OneLineParser(prog="svg-report", description=__doc__.replace("`", ""))
    add_run_arguments(parser)
    add_evaluation_arguments(parser)
    parser.add_argument(
        "--sequences",
        nargs="+",
        metavar="NAME",
        help="show these sequences instead of the best, median and worst",
    )
    parser.add_argument("--fps", type=float, default=5.0, help="frames a second (default 5)")
    parser.add_argument(
        "--out",
        type=Path,
        help="file of the page (default: report.html in the run; of another evaluation than the usual one "
        "its name says so)",
    )
    return parse_run_arguments(parser, argv)


def report(args: argparse.Namespace) -> None:
    """Write the page about the run that the flags name."""
    if not 0.1 <= args.fps <= 50:
        raise InputError("--fps: expected a number from 0.1 to 50")

    from data_tools.files import check_file_writable, write_text
    from svg.figures.report import build_report, choose_sequences, shown_times

    options_of(args)  # refuses impossible flags before anything is loaded
    run = open_run(args)
    kind = result_name(args)
    out = args.out or args.run / ("report.html" if kind == "test" else f"report_{kind}.html")
    check_file_writable(out)
    named = named_sequences(run.dataset, args.sequences) if args.sequences else None
    evaluation = evaluate_run(args, run, args.run, reuse=True)
    if named:
        chosen = {f"sequence {name}": number for name, number in named.items()}
    else:
        chosen = choose_sequences(evaluation)
    times = shown_times(run.protocol.n_past + run.protocol.n_future)
    sequences = [predict(run, evaluation, title, number, times) for title, number in chosen.items()]
    name = args.run.resolve().name
    page = build_report(
        f"Video prediction: {name}",
        evaluation,
        sequences,
        curves(name, evaluation, args.run),
        details(run, evaluation),
        args.fps,
        times,
    )
    write_text(out, page)
    tell(f"written: {out} ({len(page) / 1e6:.1f} MB; opens in any browser, without a network)")


def predict(run: Run, evaluation: "Evaluation", title: str, number: int, times: list[int]) -> "Group":
    """Return the videos of a sequence, its futures those that were scored."""
    from svg.evaluation.futures import predict_sequence
    from svg.figures.rendering import pose_video
    from svg.figures.report import shown_sequence

    protocol = evaluation.protocol
    seed = evaluation.setting.seed
    futures = predict_sequence(run.model, run.dataset, protocol, number, protocol.n_sample, seed)
    poses = pose_video(run.dataset, number, len(futures.past) + len(futures.truth))
    objects = None
    if evaluation.objects:
        from svg.evaluation.judge import load_judge
        from svg.figures.objects import object_videos

        objects = object_videos(load_judge(run.device), run.dataset, number, futures)
    return shown_sequence(title, futures, evaluation, times, poses, objects)


def curves(name: str, evaluation: "Evaluation", run: Path) -> dict[str, str]:
    """Return the figures of the page as SVG elements by their headings."""
    from svg.figures.plotting import frame_curves, object_curves, training_curves
    from svg.figures.report import figure_svg
    from svg.runs.metrics_log import read_metrics

    scores = {name: evaluation}
    metrics = {name: read_metrics(run)}
    heading = "Scores, with 95 % intervals over sequences"
    figures = {heading: figure_svg("scores", frame_curves(scores), frame_curves(scores, across=1))}
    if evaluation.objects:
        drawings = object_curves(evaluation), object_curves(evaluation, across=1)
        figures["Objects, with 95 % intervals over sequences"] = figure_svg("objects", *drawings)
    if metrics[name]:
        narrow = training_curves(metrics, across=1)
        figures["Training"] = figure_svg("training", training_curves(metrics), narrow)
    return figures


def details(run: Run, evaluation: "Evaluation") -> "dict[str, Table]":
    """Return configuration and environment of a run as tables by their headings."""
    from svg.evaluation.tables import Table
    from svg.flags import flag_values

    setting = evaluation.setting
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    flags = {**flag_values(run.config), "parameters": f"{parameters:,}"}
    environment = {**setting.machine, "precision": setting.precision, "seed": setting.seed}
    return {
        "Configuration": Table(["flag", "value"], [[name, str(value)] for name, value in flags.items()]),
        "Environment": Table(["", "value"], [[name, str(value)] for name, value in environment.items()]),
    }


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("svg-report", lambda: report(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
