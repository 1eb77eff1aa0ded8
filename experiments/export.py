"""``svg-export``: a trained model as graphs for ONNX Runtime, browsers and torch.export.

Writes OUT/observe and OUT/step, as .onnx or .pt2, and OUT/model.json, which says how to call them; then runs
them beside the model and says by how much they differ.
"""

import argparse
import sys
import time
from pathlib import Path

from data_tools.command import OneLineParser, run_command, tell
from data_tools.errors import InputError
from data_tools.files import check_writable
from svg.runs import pretrained


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = OneLineParser(prog="svg-export", description=__doc__.replace("`", ""))
    released = ", ".join(pretrained.names())
    parser.add_argument("run", help=f"run folder that svg-train has written, or a released model: {released}")
    parser.add_argument(
        "--format", choices=("onnx", "torch"), default="onnx", help="ONNX (default), or torch.export's"
    )
    parser.add_argument(
        "--half", action="store_true", help="store the weights in float16, half the size; ONNX alone"
    )
    parser.add_argument(
        "--checkpoint", default="best", choices=("best", "last"), help="which weights (default best)"
    )
    parser.add_argument("--n_past", type=int, help="observed frames (default: those of the training)")
    parser.add_argument("--out", type=Path, help="folder of the graphs (default: NAME_FORMAT)")
    args = parser.parse_args(argv)
    if args.half and args.format != "onnx":
        raise InputError("--half: found --format torch beside it, expected onnx")
    if args.n_past is not None and args.n_past < 1:
        raise InputError(f"--n_past: found {args.n_past}, expected at least 1")
    if args.out is None:
        args.out = Path(f"{Path(args.run).resolve().name}_{args.format}")
    return args


def export(args: argparse.Namespace) -> None:
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
