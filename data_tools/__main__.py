"""``svg-data``: make, convert and index data sets."""

import argparse
import sys

from . import bair, check, frames, index, pack, rlds, show, simulate, simulate_dance
from .command import OneLineParser, run_command

COMMANDS = {
    "simulate": (simulate, "simulate robot pushing into a new data set, index included"),
    "simulate_dance": (simulate_dance, "simulate a person with the skeleton of every frame, index included"),
    "bair": (bair, "convert BAIR TFRecords (softmotion30_44k), index included"),
    "rlds": (rlds, "convert RLDS episodes as TensorFlow Datasets writes them, index included"),
    "frames": (frames, "take videos, and folders of pictures with tables or without, index included"),
    "index": (index, "check the sequences under a root and write index.csv and dataset.json"),
    "check": (check, "read everything and report damaged and doubtful sequences"),
    "show": (show, "draw a contact sheet and print statistics"),
    "pack": (pack, "pack an indexed data set for fast reading"),
}

CONTINUING = ("simulate", "simulate_dance", "bair", "rlds", "frames", "pack")


def main(argv: list[str] | None = None) -> int:
    parser = OneLineParser(prog="svg-data", description=__doc__.replace("`", ""))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(
            name, help=summary, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(command)
    args = parser.parse_args(argv)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be in no encoding
    work = COMMANDS[args.command][0].run
    on_interrupt = "interrupted; the same command goes on from there" if args.command in CONTINUING else "interrupted"
    return run_command(f"svg-data {args.command}", lambda: work(args), on_interrupt)


if __name__ == "__main__":
    sys.exit(main())
