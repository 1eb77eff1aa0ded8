"""``svg-export``: a trained model for other programs, or for others to use.

``--format onnx`` and ``torch`` write OUT/observe and OUT/step, graphs for ONNX Runtime, browsers and
torch.export, and OUT/model.json, which says how to call them; then they are run beside the model, and it is
said by how much they differ. ``--format hub`` writes what the Hugging Face Hub takes, with a card.
"""

import argparse
import sys
import time
from pathlib import Path

from data_tools.command import OneLineParser, run_command, tell
from data_tools.errors import InputError
from data_tools.files import check_writable
from svg.runs import pretrained

HUB = "hub"


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = OneLineParser(prog="svg-export", description=__doc__.replace("`", ""))
    released = ", ".join(pretrained.names())
    parser.add_argument("run", help=f"run folder that svg-train has written, or a released model: {released}")
    parser.add_argument(
        "--format",
        choices=("onnx", "torch", HUB),
        default="onnx",
        help="ONNX (default), torch.export's, or a "
        "folder for the Hugging Face Hub: weights, configuration, a card with scores and a picture",
    )
    parser.add_argument(
        "--half", action="store_true", help="store the weights in float16, half the size; ONNX alone"
    )
    parser.add_argument(
        "--checkpoint", default="best", choices=("best", "last"), help="which weights (default best)"
    )
    parser.add_argument(
        "--n_past", type=int, help="observed frames of the graphs (default: those of the training)"
    )
    parser.add_argument(
        "--license",
        default="",
        metavar="NAME",
        help="for the Hub: the licence that the card states, such as mit",
    )
    parser.add_argument("--out", type=Path, help="folder that is written (default: NAME_FORMAT)")
    args = parser.parse_args(argv)
    if args.half and args.format != "onnx":
        raise InputError(f"--half: found --format {args.format} beside it, expected onnx")
    if args.license and args.format != HUB:
        raise InputError(f"--license: found --format {args.format} beside it, expected {HUB}")
    if args.n_past is not None and args.format == HUB:
        raise InputError(f"--n_past: found --format {HUB} beside it, which has no graphs; leave it out")
    if args.n_past is not None and args.n_past < 1:
        raise InputError(f"--n_past: found {args.n_past}, expected at least 1")
    if args.out is None:
        args.out = Path(f"{Path(args.run).resolve().name}_{args.format}")
    return args


def export(args: argparse.Namespace) -> None:
    """Write the model in the format of the flags."""
    if args.format == HUB:
        export_shared(args)
    else:
        export_graphs(args)


def export_shared(args: argparse.Namespace) -> None:
    """Write the model as one to be shared, and say how."""
    from svg.hub.loading import load

    load(args.run, args.checkpoint, "cpu").save_pretrained(args.out, license=args.license)
    for path in sorted(args.out.iterdir()):
        tell(f"{path}: {path.stat().st_size / 1e3:,.0f} kB")
    tell(f"{args.out}: `svg.load` reads it; `hf upload USER/NAME {args.out}` shares it")


def export_graphs(args: argparse.Namespace) -> None:
    """Write the graphs and say how large they are, and how near to the model."""
    run = pretrained.run_folder(args.run)
    check_writable(args.out)

    from svg.runs.checkpoint import load_config, read_identity
    from svg.runs.graphs import ENDINGS, STEPS, write_graphs

    start = time.perf_counter()
    model = pretrained.load(run, args.checkpoint, "cpu", "float32")
    n_past = load_config(run).data.n_past if args.n_past is None else args.n_past
    weights = read_identity(run, args.checkpoint)
    manifest = write_graphs(model, args.out, args.format, run.resolve().name, weights, n_past, args.half)
    for part in ("observe", "step"):
        path = args.out / f"{part}{ENDINGS[args.format]}"
        tell(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    near = f"at most {manifest.largest_difference:.1e} off in {STEPS} frames, pixels in [0,1]"
    seconds = time.perf_counter() - start
    tell(f"{args.out / 'model.json'}: how to call them; {near}; {seconds:.0f} s")


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("svg-export", lambda: export(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
