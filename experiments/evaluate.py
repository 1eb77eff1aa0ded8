"""``svg-evaluate``: PSNR and SSIM of a trained run on a split, beside copying the last frame."""

import argparse
import sys

from data_tools.command import OneLineParser, run_command
from data_tools.layout import InputError

from .command import add_run_arguments, open_run


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="svg-evaluate", description=__doc__.replace("`", ""))
    add_run_arguments(parser)
    parser.add_argument("--n_sample", type=int, default=100, help="futures sampled for each sequence (default 100)")
    parser.add_argument(
        "--memory", type=float, default=0.0, help="GB for sampled futures (default: 1 on a CPU, half of what is free on a GPU)"
    )
    parser.add_argument(
        "--ssim_window", default="uniform", choices=("uniform", "gaussian"), help="7x7 uniform (default) or 11x11 Gaussian"
    )
    parser.add_argument("--limit", type=int, default=0, help="score the first sequences only; 0: all")
    return parser.parse_args(argv)


def evaluate(args: argparse.Namespace) -> None:
    if args.n_sample < 0 or not 0 <= args.memory < float("inf") or args.limit < 0:
        raise InputError("--n_sample, --memory, --limit: expected at least 0")

    from svg.evaluation import evaluate

    model, config, dataset, device = open_run(args)
    result = evaluate(
        model, dataset, config.data.n_past, args.n_sample, device, config.train.precision,
        batch_size=args.batch_size, memory=args.memory, ssim_window=args.ssim_window, compile=args.compile,
        seed=args.seed, limit=args.limit, weights=f"{args.run}, {args.checkpoint} checkpoint",
    )  # fmt: skip
    protocol = result.protocol
    print(
        f"{args.run} on {dataset.root / args.split}: {protocol.sequences} sequences, "
        f"{protocol.n_past} frames given, {protocol.n_future} predicted ({protocol.clip})"
    )
    print(f"PSNR: {protocol.psnr}\nSSIM: {protocol.ssim}\nbest: {protocol.best}\n\n{result.table()}\n")
    name = args.split if args.n_future is None else f"{args.split}_{args.n_future}"  # a long rollout beside the usual one
    name += f"_first_{args.limit}" if args.limit else ""
    print(f"written: {result.save(args.run, name)} and .csv")


def main(argv: list[str] | None = None) -> int:
    return run_command("svg-evaluate", lambda: evaluate(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
