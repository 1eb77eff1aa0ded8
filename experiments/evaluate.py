"""``svg-evaluate``: scores of trained runs on a split under a named protocol, beside copying the last frame.

Of several runs one table, with the significance of their paired differences to the first.
"""

import argparse
import sys
from pathlib import Path

from data_tools.command import OneLineParser, run_command
from data_tools.layout import InputError

from .command import add_run_arguments, label_runs, open_run


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="svg-evaluate", description=__doc__.replace("`", ""))
    add_run_arguments(parser, several=True)
    add_evaluation_arguments(parser)
    parser.add_argument("--reuse", action="store_true", help="take scores that an evaluation of the same kind has written before")
    parser.add_argument("--out", type=Path, help="folder of the tables of several runs (default: evaluation of the first run)")
    return parser.parse_args(argv)


def add_evaluation_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that decide what is scored and how."""
    parser.add_argument(
        "--protocol", default="own", metavar="NAME", help="own, svg, lab, srvp, savp, fitvid, ivideogpt or openstl (default own)"
    )
    parser.add_argument("--n_sample", type=int, help="futures sampled for each sequence (default: the protocol's; own: 100)")
    parser.add_argument("--ssim_window", choices=("uniform", "gaussian"), help="7x7 uniform or 11x11 Gaussian (own: uniform)")
    parser.add_argument(
        "--metrics", nargs="*", default=[], choices=("lpips", "fvd", "kvd"), help="besides PSNR, SSIM and MSE; they need --weights"
    )
    parser.add_argument("--lpips", choices=("alex", "vgg"), help="network of LPIPS (default: the protocol's; own: alex)")
    parser.add_argument("--weights", type=Path, metavar="PATH", help="folder with the weights of the networks behind --metrics")
    parser.add_argument(
        "--memory", type=float, default=0.0, help="GB for sampled futures (default: 1 on a CPU, half of what is free on a GPU)"
    )
    parser.add_argument("--limit", type=int, default=0, help="score the first sequences only; 0: all")


def result_name(args: argparse.Namespace) -> str:
    """The name of the files of a result: split, and what sets it apart from the usual evaluation."""
    parts = [
        args.split,
        args.protocol if args.protocol != "own" else "",
        "" if args.n_future is None else str(args.n_future),
        f"first_{args.limit}" if args.limit else "",
        "" if args.data_root is None else f"on_{Path(args.data_root).resolve().name}",
    ]
    return "_".join(filter(None, parts))


def protocol_changes(args: argparse.Namespace) -> dict[str, int | str | None]:
    """What the flags change of their protocol."""
    return {"n_sample": args.n_sample, "ssim_window": args.ssim_window, "lpips": args.lpips}


def evaluate_run(args: argparse.Namespace, run: Path, reuse: bool = False):
    """The `Evaluation` of one run, written to its folder; with `reuse` one that is there, if it is of the same kind."""
    if (args.n_sample is not None and args.n_sample < 0) or not 0 <= args.memory < float("inf") or args.limit < 0:
        raise InputError("--n_sample, --memory, --limit: expected at least 0")

    from svg.checkpoint import read_step
    from svg.evaluation import evaluate
    from svg.results import load_evaluation

    name = result_name(args)
    opened = open_run(args, run, **protocol_changes(args))
    protocol, device = opened.protocol, opened.device
    weights = f"{run}, {args.checkpoint} checkpoint of step {read_step(run, args.checkpoint)}"
    distances = tuple(metric for metric in ("fvd", "kvd") if metric in args.metrics)
    if reuse:
        before = load_evaluation(run, name)
        wanted = (str(opened.dataset.root), args.split, min(args.limit or len(opened.dataset), len(opened.dataset)), args.seed)
        if (
            before is not None
            and before.protocol == protocol
            and (before.setting.data, before.setting.split, before.setting.sequences, before.setting.seed) == wanted
            and before.setting.weights == weights
            and {*before.metrics, *(before.distances.columns if before.distances is not None else ())} >= set(args.metrics)
        ):
            return before
    networks = open_networks(args, protocol, device)
    result = evaluate(
        opened.model, opened.dataset, protocol, device, opened.config.train.precision,
        batch_size=args.batch_size, memory=args.memory, compile=args.compile, seed=args.seed, limit=args.limit,
        weights=weights, action_tests=True, distances=distances, **networks,
    )  # fmt: skip
    result.save(run, name)
    return result


def open_networks(args: argparse.Namespace, protocol, device) -> dict:
    """The networks behind ``args.metrics``, as `svg.evaluation.evaluate` takes them."""
    if not args.metrics:
        return {}
    from svg.perceptual import I3D_FRAMES, load_lpips, load_video_features

    networks = {}
    if "lpips" in args.metrics:
        networks["lpips"] = load_lpips(protocol.lpips, args.weights, device)
    if {"fvd", "kvd"} & set(args.metrics):
        if protocol.n_past + protocol.n_future < I3D_FRAMES:
            raise InputError(
                f"--metrics fvd, kvd: found clips of {protocol.n_past + protocol.n_future} frames, expected {I3D_FRAMES}"
            )
        networks["video_features"] = load_video_features(args.weights, device)
    return networks


def evaluate(args: argparse.Namespace) -> None:
    from svg.checkpoint import load_config

    for run in args.runs:
        load_config(run)  # a mistyped one is named before hours of work on the others
    results = {}
    for label, run in label_runs(args.runs).items():
        results[label] = result = evaluate_run(args, run, args.reuse)
        setting, name = result.setting, result_name(args)
        if len(args.runs) == 1:
            print(f"{run} on {setting.data}/{setting.split}: {setting.sequences} sequences\n{result.report()}\n")
        print(f"written: {run / 'evaluation' / name}.json and .csv")
    if len(results) > 1:
        compare(args, results)


def compare(args: argparse.Namespace, results: dict) -> None:
    """Prints and writes the table of several runs."""
    from data_tools.layout import write_text
    from svg.comparison import Comparison

    comparison = Comparison(results)
    first, means, differences = comparison.first, *comparison.tables()
    protocol = "\n".join(f"{name:9s} {line}" for name, line in first.protocol.describe(first.metrics).items())
    words = (
        "means over sequences with 95 % bootstrap intervals; differences of the same sequences, with p-values of a sign-flip test "
        "after Holm's correction"
    )
    print(f"\n{first.setting.data}/{first.setting.split}: {first.setting.sequences} sequences\n{protocol}\n{words}")
    print(f"\n{means.text()}\n\n{differences.text()}\n")
    folder = args.out or args.runs[0] / "evaluation"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"comparison_{result_name(args)}"
    write_text(path.with_suffix(".csv"), comparison.rows().to_csv(index=False, float_format="%.7g"))
    notes = "".join(f"- {name}: {line}\n" for name, line in first.protocol.describe(first.metrics).items()) + f"- {words}\n"
    write_text(path.with_suffix(".md"), f"{means.markdown()}\n{differences.markdown()}\n{notes}")
    comments = "".join(f"% {name}: {line}\n" for name, line in first.protocol.describe(first.metrics).items()) + f"% {words}\n"
    write_text(path.with_suffix(".tex"), f"{comments}{means.latex()}\n{differences.latex()}")
    print(f"written: {path}.csv, .md and .tex")


def main(argv: list[str] | None = None) -> int:
    return run_command("svg-evaluate", lambda: evaluate(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
