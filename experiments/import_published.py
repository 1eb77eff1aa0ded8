"""``svg-import``: makes a run folder of a checkpoint that the published code of SVG has written.

The file is a ``.pth`` of edenton/svg, whole pickled modules; no code of it is run. The run works with
svg-evaluate, svg-render, svg-report, svg.load and as --init_from.
"""

import argparse
import sys
from pathlib import Path

from data_tools.command import OneLineParser, run_command, tell
from data_tools.errors import InputError


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = OneLineParser(prog="svg-import", description=__doc__.replace("`", ""))
    parser.add_argument("checkpoint", type=Path, help="model.pth of edenton/svg, SVG-LP or SVG-FP")
    parser.add_argument("out", type=Path, help="run folder to write; it must not exist")
    return parser.parse_args(argv)


def import_published(args: argparse.Namespace) -> None:
    """Write the run folder that the flags name."""
    if args.out.exists():
        raise InputError(f"{args.out}: is there already; choose another place or move it away")

    from data_tools.files import whole_folder
    from svg.runs.checkpoint import save_best, save_config
    from svg.runs.progress import Progress
    from svg.runs.published import read_published

    config, weights = read_published(args.checkpoint)
    with whole_folder(args.out) as folder:
        save_config(folder, config)
        save_best(folder, weights, Progress())
    model = config.model
    kind = "SVG-LP" if model.prior == "learned" else "SVG-FP"
    shape = f"{model.backbone}, {model.image_width} pixels, {model.channels} channels"
    tell(f"{args.out}: {kind}, {shape}; score it with svg-evaluate {args.out} --data_root DATA")


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("svg-import", lambda: import_published(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
