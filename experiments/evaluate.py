"""``svg-evaluate``: scores of trained runs on a split under a named protocol, beside copying the last frame.

Of several runs one table, with the significance of their paired differences to the first. Under torchrun all
processes score, each its share of the batches, and the main one prints and writes what a single one would.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from data_tools.command import OneLineParser, run_command, tell
from data_tools.errors import InputError
from data_tools.files import check_writable, folder_in
from svg.evaluation.metrics import METRICS, optional
from svg.evaluation.options import SCORERS, EvaluationOptions
from svg.evaluation.protocols import CHOICES, OWN, PROTOCOLS
from svg.processes import World, together

from .command import Run, add_run_arguments, label_runs, open_run, parse_run_arguments, resolve_protocol

if TYPE_CHECKING:
    from svg.evaluation.results import Evaluation


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = OneLineParser(prog="svg-evaluate", description=__doc__.replace("`", ""))
    add_run_arguments(parser, several=True)
    add_evaluation_arguments(parser)
    parser.add_argument(
        "--reuse",
        action="store_true",
        help="take the scores of an earlier evaluation of the same weights, data and kind",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of tables in Markdown and LaTeX (default for several runs: evaluation in the first one)",
    )
    return parse_run_arguments(parser, argv)


def add_evaluation_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that decide what is scored and how."""
    parser.add_argument(
        "--protocol", default=OWN, metavar="NAME", help=f"{', '.join(PROTOCOLS)} (default {OWN})"
    )
    parser.add_argument(
        "--n_sample", type=int, help="futures sampled for each sequence (default: the protocol's; own: 100)"
    )
    parser.add_argument(
        "--ssim_window", choices=CHOICES["ssim_window"], help="7x7 uniform or 11x11 Gaussian (own: uniform)"
    )
    parser.add_argument(
        "--metrics",
        nargs="*",
        default=[],
        choices=optional(),
        help="metrics besides PSNR, SSIM and MSE; lpips, fvd and kvd need --weights",
    )
    parser.add_argument(
        "--lpips", choices=CHOICES["lpips"], help="network of LPIPS (default: the protocol's; own: alex)"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="PATH",
        help="folder with the weights of the networks behind --metrics",
    )
    parser.add_argument(
        "--objects",
        action="store_true",
        help="find the objects in predicted frames, too: where they are, which have vanished, where the "
        "error lies; for data of svg-data simulate --truth",
    )
    parser.add_argument(
        "--scorer",
        default=SCORERS[0],
        choices=SCORERS,
        help="PSNR and SSIM by this project (torch, default) or, as a second opinion, by scikit-image",
    )
    parser.add_argument(
        "--memory",
        type=float,
        default=0.0,
        help="GB for sampled futures (default: 1 on a CPU, half of what is free on a GPU)",
    )
    parser.add_argument("--limit", type=int, default=0, help="score the first sequences only; 0: all")


def options_of(args: argparse.Namespace) -> EvaluationOptions:
    """Return the `EvaluationOptions` of the flags. Raises `InputError` for impossible ones."""
    if args.n_sample is not None and args.n_sample < 0:
        raise InputError(f"found {args.n_sample}, expected a number of at least 0", "n_sample")
    if args.weights is None and any(METRICS[metric].network for metric in args.metrics):
        raise InputError(
            f"--metrics {' '.join(args.metrics)}: expected --weights with the networks behind them; "
            "docs/evaluation.md says where they are"
        )
    if args.lpips and "lpips" not in args.metrics:
        raise InputError(
            "--lpips: chooses the network of --metrics lpips, which is not asked for; "
            "leave one out or add the other"
        )
    return EvaluationOptions(
        batch_size=args.batch_size,
        seed=args.seed,
        limit=args.limit,
        metrics=tuple(metric for metric in METRICS if metric in args.metrics),
        action_tests=True,
        scorer=args.scorer,
        memory=args.memory,
        compile=args.compile,
        objects=args.objects,
    )


def result_name(args: argparse.Namespace) -> str:
    """Return the name of a result's files: the split, and how it departs from the usual evaluation."""
    displacements = [pair.replace(":", "-") for pair in args.displacements]
    parts = [
        args.split,
        args.protocol if args.protocol != OWN else "",
        "" if args.n_future is None else str(args.n_future),
        "" if args.n_sample is None else f"n{args.n_sample}",
        args.ssim_window or "",
        args.scorer if args.scorer != SCORERS[0] else "",
        "_".join(["positions", args.positions, *displacements]) if args.positions != "true" else "",
        args.checkpoint if args.checkpoint != "best" else "",
        f"seed_{args.seed}" if args.seed != 1 else "",
        f"first_{args.limit}" if args.limit else "",
        "" if args.data_root is None else f"on_{Path(args.data_root).resolve().name}",
    ]
    return "_".join(filter(None, parts))


def evaluate_run(
    args: argparse.Namespace, run: Run, path: Path, reuse: bool = False, world: World | None = None
) -> "Evaluation":
    """Return the `Evaluation` of the run at `path`, after writing it to the run's folder.

    With `reuse` an earlier one of the same kind is taken. The main process of `world` does all but scoring.

    Raises `OSError` if it cannot be written; its scores are printed before.
    """
    from svg.evaluation.perceptual import load_networks
    from svg.evaluation.results import FOLDER
    from svg.evaluation.scoring import evaluate
    from svg.runs.checkpoint import read_identity

    world = world or World()
    options = options_of(args)
    identity = read_identity(path, args.checkpoint)
    digest = world.from_main(lambda: run.dataset.full_digest(args.limit))
    name = result_name(args)
    earlier = None
    if reuse:
        earlier = world.from_main(lambda: saved_evaluation(path, name, run, options, identity))
    if earlier is not None:
        tell(f"taken as it is: {path / FOLDER / name}.json")
        return earlier
    if world.is_main:
        check_run_writable(path)
    networks = load_networks(options, run.protocol, run.dataset, args.weights, run.device)
    weights = f"{path}, {args.checkpoint} checkpoint: {identity}"
    result = evaluate(run.model, run.dataset, run.protocol, options, networks, weights, world)
    if not world.is_main:
        return result
    result = replace(result, setting=replace(result.setting, data_digest=digest))
    try:
        written = result.save(path, name)
    except OSError:
        tell(f"\n{headed_report(path, result)}\n")
        raise
    tell(f"written: {written} and .csv")
    return result


def check_run_writable(run: Path) -> None:
    """Raise `InputError` if scores of a run could not be written, before they are taken."""
    from svg.evaluation.results import FOLDER

    check_writable(run / FOLDER, "make it writable, or copy the run to a place that is")
    folder_in(run, FOLDER)  # refuses a link


def headed_report(path: Path, result: "Evaluation") -> str:
    """Return an evaluation of the run at `path` as text."""
    setting = result.setting
    return f"{path} on {setting.data}/{setting.split}: {setting.sequences} sequences\n{result.report()}"


def saved_evaluation(
    path: Path, name: str, run: Run, options: EvaluationOptions, identity: str
) -> "Evaluation | None":
    """Return the saved evaluation of the run at `path` if it is of the same weights, data and kind."""
    from svg.evaluation.results import load_evaluation
    from svg.sequences import evaluated

    try:
        saved = load_evaluation(path, name)
    except InputError:  # damaged or of an earlier release: it is taken anew
        return None
    if saved is None or not saved.setting.is_of(identity):
        return None
    dataset = run.dataset
    setting = saved.setting
    # Earlier releases knew no other positions than the true ones, and recorded the first part of the digest
    # alone.
    conditions = setting.conditions or (dataset.given if dataset.future_positions is None else "")
    digest = dataset.full_digest(options.limit)
    is_same_data = setting.data_digest in (digest, digest.partition("-")[0])
    expected = (run.protocol, dataset.split, evaluated(dataset, options.limit), options.seed, dataset.given)
    kind = (saved.protocol, setting.split, setting.sequences, setting.seed, conditions)
    if not is_same_data or kind != expected or not set(options.metrics) <= set(saved.measured):
        return None
    if options.objects and saved.objects is None:
        return None
    return replace(saved, setting=replace(setting, conditions=conditions))


def evaluate(args: argparse.Namespace, world: World | None = None) -> None:
    """Score the runs that the flags name, print the result and write it."""
    from svg.evaluation.results import FOLDER
    from svg.evaluation.tables import write_tables

    options_of(args)  # refuses impossible flags before anything is loaded
    labels = label_runs(args.runs)
    check_same_protocol(args, labels)
    folder = args.out or args.runs[0] / FOLDER
    world = world or World()
    if world.is_main:
        check_places(args, labels, folder)
    results = {}
    for label, path in labels.items():
        results[label] = evaluate_run(args, open_run(args, path), path, args.reuse, world)
    if not world.is_main:
        return
    name = result_name(args)
    if len(results) > 1:
        compare(results, folder / f"comparison_{name}")
        return
    for label, result in results.items():
        tell(f"\n{headed_report(labels[label], result)}")
        if args.out:
            notes = result.in_words() | {"data": result.setting.scored} | result.object_words()
            write_tables(folder / name, [result.table(), *result.object_tables()], notes)
            tell(f"tables: {folder / name}.md and .tex")


def check_places(args: argparse.Namespace, runs: dict[str, Path], folder: Path) -> None:
    """Raise `InputError` if scores of the runs, or tables in `folder`, could not be written."""
    for path in () if args.reuse else runs.values():
        check_run_writable(path)
    if args.out or len(runs) > 1:
        check_writable(folder)


def check_same_protocol(args: argparse.Namespace, runs: dict[str, Path]) -> None:
    """Refuse runs that the flags do not bring under one protocol, before hours of work."""
    from svg.evaluation.comparison import describe_difference
    from svg.runs.checkpoint import load_config

    protocols = {label: resolve_protocol(args, load_config(path).data) for label, path in runs.items()}
    (first, expected), *others = protocols.items()
    for label, protocol in others:
        if protocol != expected:
            raise InputError(f"{label} and {first}: {describe_difference(protocol, expected)}")


def compare(results: dict[str, "Evaluation"], stem: Path) -> None:
    """Print the table of several runs and write it to `stem` with the endings of CSV, Markdown and LaTeX."""
    from svg.evaluation.comparison import Comparison

    comparison = Comparison(results)
    tell(f"\n{comparison.report()}")
    comparison.save(stem)
    tell(f"tables: {stem}.md and .tex")


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""

    def work() -> None:
        with together() as world:
            evaluate(world.from_main(lambda: parse(argv)), world)

    return run_command("svg-evaluate", work)


if __name__ == "__main__":
    sys.exit(main())
