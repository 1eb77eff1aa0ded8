"""``svg-evaluate``: scores of trained runs on a split under a named protocol, beside copying the last frame.

Of several runs one table, with the significance of their paired differences to the first.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_tools.command import OneLineParser, run_command, tell
from data_tools.errors import InputError
from data_tools.files import check_writable, folder_in, write_text
from svg.evaluation.protocols import OWN, PROTOCOLS, SET_METRICS

from .command import Run, add_run_arguments, label_runs, open_run, parse_run_arguments, resolve_protocol


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="svg-evaluate", description=__doc__.replace("`", ""))
    add_run_arguments(parser, several=True)
    add_evaluation_arguments(parser)
    parser.add_argument(
        "--reuse",
        action="store_true",
        help="take scores that an evaluation of the same kind has written before",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of tables in Markdown and LaTeX (of several runs by default: evaluation in the first one)",
    )
    return parse_run_arguments(parser, argv)


def add_evaluation_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that decide what is scored and how."""
    parser.add_argument(
        "--protocol", default=OWN, metavar="NAME", help=f"{', '.join(PROTOCOLS)} (default {OWN})"
    )
    parser.add_argument(
        "--n_sample", type=int, help="futures sampled for each sequence (default: the protocol's; own: 100)"
    )
    parser.add_argument(
        "--ssim_window", choices=("uniform", "gaussian"), help="7x7 uniform or 11x11 Gaussian (own: uniform)"
    )
    parser.add_argument(
        "--metrics",
        nargs="*",
        default=[],
        choices=("lpips", *SET_METRICS),
        help="besides PSNR, SSIM and MSE; they need --weights",
    )
    parser.add_argument(
        "--lpips", choices=("alex", "vgg"), help="network of LPIPS (default: the protocol's; own: alex)"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="PATH",
        help="folder with the weights of the networks behind --metrics",
    )
    parser.add_argument(
        "--memory",
        type=float,
        default=0.0,
        help="GB for sampled futures (default: 1 on a CPU, half of what is free on a GPU)",
    )
    parser.add_argument("--limit", type=int, default=0, help="score the first sequences only; 0: all")


def result_name(args: argparse.Namespace) -> str:
    """The name of the files of a result: split, and what sets it apart from the usual evaluation."""
    parts = [
        args.split,
        args.protocol if args.protocol != OWN else "",
        "" if args.n_future is None else str(args.n_future),
        "" if args.n_sample is None else f"n{args.n_sample}",
        args.ssim_window or "",
        "_".join(["positions", args.positions, *(pair.replace(":", "-") for pair in args.displacements)])
        if args.positions != "true"
        else "",
        args.checkpoint if args.checkpoint != "best" else "",
        f"seed_{args.seed}" if args.seed != 1 else "",
        f"first_{args.limit}" if args.limit else "",
        "" if args.data_root is None else f"on_{Path(args.data_root).resolve().name}",
    ]
    return "_".join(filter(None, parts))


def check(args: argparse.Namespace) -> None:
    """Refuses impossible flags of `add_evaluation_arguments`."""
    for name in ("n_sample", "memory", "limit"):
        found = getattr(args, name)
        if found is not None and not 0 <= found < float("inf"):
            raise InputError(f"--{name}: found {found}, expected a number of at least 0")
    if args.metrics and args.weights is None:
        asked = " ".join(args.metrics)
        raise InputError(
            f"--metrics {asked}: expected --weights with the networks behind them; docs/evaluation.md says where they are"
        )
    if args.lpips and "lpips" not in args.metrics:
        raise InputError(
            "--lpips: chooses the network of --metrics lpips, which is not asked for; leave one out or add the other"
        )


def evaluate_run(args: argparse.Namespace, opened: Run, path: Path, reuse: bool = False) -> Any:
    """The `Evaluation` of the run at `path`, written to its folder; with `reuse` one that is there, if it is of the same kind.

    Raises `OSError` if it cannot be written; what it found is printed before.
    """
    from svg.evaluation.results import FOLDER
    from svg.evaluation.scoring import evaluate
    from svg.runs.checkpoint import read_identity

    identity = read_identity(path, args.checkpoint)
    digest = opened.dataset.full_digest(args.limit)
    before = saved_evaluation(args, opened, path, identity, digest) if reuse else None
    if before is not None:
        tell(f"taken as it is: {path / FOLDER / result_name(args)}.json")
        return before
    check_run_writable(path)
    result = evaluate(
        opened.model, opened.dataset, opened.protocol, opened.device, opened.config.train.precision,
        batch_size=args.batch_size, memory=args.memory, compile=args.compile, seed=args.seed, limit=args.limit,
        weights=f"{path}, {args.checkpoint} checkpoint: {identity}", action_tests=True, **open_networks(args, opened),
    )  # fmt: skip
    result = replace(result, setting=replace(result.setting, data_digest=digest))
    try:
        written = result.save(path, result_name(args))
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


def headed_report(path: Path, result: Any) -> str:
    """What an evaluation of the run at `path` found, as text."""
    setting = result.setting
    return f"{path} on {setting.data}/{setting.split}: {setting.sequences} sequences\n{result.report()}"


def saved_evaluation(args: argparse.Namespace, opened: Run, path: Path, identity: str, digest: str) -> Any:
    """What an earlier evaluation of the same weights, data and kind has written, or None.

    Earlier releases noted the first part of the data's `digest` alone.
    """
    from svg.evaluation.results import load_evaluation
    from svg.sequences import evaluated

    try:
        found = load_evaluation(path, result_name(args))
    except InputError:  # damaged or of an earlier release: it is taken anew
        return None
    if found is None:
        return None
    dataset = opened.dataset
    total = evaluated(dataset, args.limit)
    if (
        not found.setting.conditions and dataset.future_positions is None
    ):  # earlier releases knew no other way
        found = replace(found, setting=replace(found.setting, conditions=dataset.given))
    setting = found.setting
    noted = digest if setting.data_digest == digest.partition("-")[0] else setting.data_digest
    expected = (opened.protocol, args.split, total, args.seed, digest, dataset.given)
    kind = (found.protocol, setting.split, setting.sequences, setting.seed, noted, setting.conditions)
    is_wanted = setting.weights.endswith(identity) and kind == expected
    return found if is_wanted and set(args.metrics) <= set(found.measured) else None


def open_networks(args: argparse.Namespace, run: Run) -> dict[str, Any]:
    """The networks behind ``args.metrics``, as `svg.evaluation.evaluate` takes them."""
    if not args.metrics:
        return {}
    from svg.evaluation.perceptual import I3D_FRAMES, load_lpips, load_video_features
    from svg.sequences import evaluated

    channels = run.dataset.frame_size[2]
    if channels not in (1, 3):
        raise InputError(
            f"--metrics: found frames of {channels} channels, expected 1 or 3: the networks see grey or colour"
        )
    networks = {"distances": tuple(metric for metric in SET_METRICS if metric in args.metrics)}
    if "lpips" in args.metrics:
        networks["lpips"] = load_lpips(run.protocol.lpips, args.weights, run.device)
    if networks["distances"]:
        frames, sequences = run.protocol.n_past + run.protocol.n_future, evaluated(run.dataset, args.limit)
        if frames < I3D_FRAMES or sequences < 2:
            raise InputError(
                f"--metrics fvd, kvd: found {sequences} clips of {frames} frames, expected at least 2 of at least {I3D_FRAMES}"
            )
        networks["video_features"] = load_video_features(args.weights, run.device)
    return networks


def evaluate(args: argparse.Namespace) -> None:
    from svg.evaluation.results import FOLDER

    check(args)
    labels = label_runs(args.runs)
    check_same_protocol(args, labels)
    folder = args.out or args.runs[0] / FOLDER
    for path in () if args.reuse else labels.values():
        check_run_writable(path)
    if args.out or len(labels) > 1:
        check_writable(folder)
    results = {}
    for label, path in labels.items():
        results[label] = evaluate_run(args, open_run(args, path), path, args.reuse)
    if len(results) > 1:
        compare(results, folder, result_name(args))
        return
    result = results[label]
    tell(f"\n{headed_report(path, result)}")
    if args.out:
        write_tables(
            folder / result_name(args), [result.table()], result.in_words() | {"data": result.setting.scored}
        )


def check_same_protocol(args: argparse.Namespace, runs: dict[str, Path]) -> None:
    """Refuses runs that the flags do not bring under one protocol, before hours of work."""
    from svg.evaluation.comparison import what_differs
    from svg.runs.checkpoint import load_config

    protocols = {label: resolve_protocol(args, load_config(path).data) for label, path in runs.items()}
    (first, expected), *others = protocols.items()
    for label, protocol in others:
        if protocol != expected:
            raise InputError(f"{label} and {first}: {what_differs(protocol, expected)}")


def compare(results: dict[str, Any], folder: Path, name: str) -> None:
    """Prints the table of several runs and writes it to ``folder/comparison_<name>`` as CSV, Markdown and LaTeX."""
    from svg.evaluation.comparison import Comparison
    from svg.evaluation.results import listing

    comparison = Comparison(results)
    means, differences = comparison.tables()
    words = comparison.in_words() | {
        "data": comparison.first.setting.scored,
        "p": "sign-flip test of the differences of the same sequences, corrected after Holm for the number of runs",
    }
    tell(f"\n{listing(words)}\n\n{means.text()}\n\n{differences.text()}\n")
    stem = folder / f"comparison_{name}"
    write_text(Path(f"{stem}.csv"), comparison.rows.to_csv(index=False, float_format="%.7g"))
    write_tables(stem, [means, differences], words)


def write_tables(stem: Path, tables: list[Any], words: dict[str, str]) -> None:
    """Writes tables, with `words` about them, as Markdown and LaTeX."""
    from svg.evaluation.tables import latex_comment, one_line

    notes = "".join(f"- {one_line(f'{part}: {line}')}\n" for part, line in words.items())
    write_text(Path(f"{stem}.md"), "\n".join([*(table.markdown() for table in tables), notes]))
    comments = "".join(latex_comment(f"{part}: {line}") for part, line in words.items())
    write_text(Path(f"{stem}.tex"), comments + "\n".join(table.latex() for table in tables))
    tell(f"tables: {stem}.md and .tex")


def main(argv: list[str] | None = None) -> int:
    return run_command("svg-evaluate", lambda: evaluate(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
