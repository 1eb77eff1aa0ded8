"""``svg-report``: one self-contained HTML page about a run, with videos, curves, tables and how they were made.

Scores that svg-evaluate has written under the same flags are taken, others are computed first.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from data_tools.command import OneLineParser, run_command, tell
from data_tools.errors import InputError

from .command import Run, add_run_arguments, named_sequences, open_run, parse_run_arguments, pose_video
from .evaluate import add_evaluation_arguments, check, evaluate_run, result_name

SHOWN = 7
"""Sampled futures that are shown of each sequence, from the best to the worst in equal steps."""
MOST_FRAMES = 100
"""Of a longer video so many are shown, evenly spread, lest the page become too large."""


def parse(argv: list[str] | None) -> argparse.Namespace:
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
        help="file of the page (default report.html in the run, with what sets the evaluation apart in its name)",
    )
    return parse_run_arguments(parser, argv)


def choose_sequences(run: Run, evaluation) -> dict[str, int]:
    """Best, median and worst sequence by the PSNR of the prediction with the mean latent: {title: number}."""
    order = np.argsort(evaluation.per_sequence("pred", "psnr"))
    chosen = {"best": order[-1], "median": order[len(order) // 2], "worst": order[0]}
    titles = {}
    for kind, number in chosen.items():
        titles.setdefault(int(number), []).append(kind)
    names = run.dataset.index["sequence"]
    return {
        f"{' and '.join(kinds)}: sequence {names.iloc[number]}": number for number, kinds in titles.items()
    }


def shown_times(protocol) -> list[int]:
    """The times of the frames that are shown."""
    total = protocol.n_past + protocol.n_future
    return sorted({round(time) for time in np.linspace(0, total - 1, min(total, MOST_FRAMES))})


def shown_sequence(run: Run, evaluation, title: str, number: int, times: list[int]):
    """The sequence's videos with their scores, at `times`."""
    from svg.evaluation.metrics import psnr
    from svg.evaluation.scoring import predict_sequence
    from svg.figures.rendering import to_video
    from svg.figures.report import Panel, ShownSequence, error_map

    protocol = evaluation.protocol
    found = predict_sequence(
        run.model,
        run.dataset,
        protocol,
        number,
        run.device,
        run.config.train.precision,
        protocol.n_sample,
        evaluation.setting.seed,
    )
    given = [""] * protocol.n_past

    def score(future):
        return psnr(future, found.truth, protocol.psnr, protocol.psnr_epsilon)

    def panel(label: str, future) -> Panel:
        scores = score(future)
        here = [*given, *(f"{value:.1f} dB here" for value in scores.tolist())]
        video = to_video(found.past, future)[times]
        return Panel(f"{label}, {scores.mean():.2f} dB", video, [here[time] for time in times])

    truth = Panel("truth", to_video(found.past, found.truth)[times], [])
    rec, pred = panel("rec", found.rec), panel("pred", found.pred)
    errors = Panel("error of pred", error_map(pred.frames, truth.frames), [])
    copied = panel("copy", found.past[-1:].expand_as(found.truth))
    samples = []
    if found.samples:
        order = np.argsort([-score(future).mean().item() for future in found.samples])
        ranks = sorted({round(rank) for rank in np.linspace(0, len(order) - 1, SHOWN)})
        names = {0: "best", len(order) - 1: "worst"} if len(order) > 1 else {0: "sample"}
        samples = [
            panel(names.get(rank, f"{rank + 1} of {len(order)}"), found.samples[order[rank]])
            for rank in ranks
        ]
    poses = [Panel("pose", pose_video(run, number)[times], [])] if run.config.model.takes_poses else []
    return ShownSequence(title, [truth, pred, errors, *poses, rec, copied], samples)


def report(args: argparse.Namespace) -> None:
    if not 0.1 <= args.fps <= 50:
        raise InputError("--fps: expected a number from 0.1 to 50")

    from data_tools.files import check_file_writable, write_text
    from svg.evaluation.tables import Table
    from svg.figures.plotting import frame_curves, training_curves
    from svg.figures.report import build_report, figure_svg
    from svg.flags import flag_values
    from svg.runs.metrics_log import read_metrics

    check(args)
    run = open_run(args)
    kind = result_name(args)
    out = args.out or args.run / ("report.html" if kind == "test" else f"report_{kind}.html")
    check_file_writable(out)
    named = named_sequences(run.dataset, args.sequences) if args.sequences else None
    evaluation = evaluate_run(args, run, args.run, reuse=True)
    chosen = (
        {f"sequence {name}": number for name, number in named.items()}
        if named
        else choose_sequences(run, evaluation)
    )
    times = shown_times(evaluation.protocol)
    sequences = [shown_sequence(run, evaluation, title, number, times) for title, number in chosen.items()]
    name = args.run.resolve().name
    scores, metrics = {name: evaluation}, {name: read_metrics(args.run)}
    figures = {
        "Scores, with 95 % intervals over sequences": figure_svg(
            "scores", frame_curves(scores), frame_curves(scores, across=1)
        )
    }
    if metrics[name]:
        figures["Training"] = figure_svg(
            "training", training_curves(metrics), training_curves(metrics, across=1)
        )
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    flags = {**flag_values(run.config), "parameters": f"{parameters:,}"}
    setting = evaluation.setting
    environment = {**setting.machine, "precision": setting.precision, "seed": setting.seed}
    tables = {
        "Configuration": Table(["flag", "value"], [[name, str(value)] for name, value in flags.items()]),
        "Environment": Table(["", "value"], [[name, str(value)] for name, value in environment.items()]),
    }
    page = build_report(f"Video prediction: {name}", evaluation, sequences, figures, tables, args.fps, times)
    write_text(out, page)
    tell(f"written: {out} ({len(page) / 1e6:.1f} MB; opens in any browser, without a network)")


def main(argv: list[str] | None = None) -> int:
    return run_command("svg-report", lambda: report(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
