"""``svg-data``: make, convert and index data sets."""

import argparse
import importlib
import sys

from .command import OneLineParser, run_command

COMMANDS = {
    "simulate": ("simulators.push", "simulate robot pushing into a new data set, index included"),
    "simulate_dance": (
        "simulators.dance",
        "simulate a person with the skeleton of every frame, index included",
    ),
    "record": ("simulators.record", "record any Gymnasium environment that renders pictures, index included"),
    "bair": ("converters.bair", "convert BAIR TFRecords (softmotion30_44k), index included"),
    "rlds": ("converters.rlds", "convert RLDS episodes as TensorFlow Datasets writes them, index included"),
    "lerobot": ("converters.lerobot", "convert LeRobot data sets (versions 3.0 and 2.1), index included"),
    "frames": (
        "converters.videos",
        "take videos, animations and folders of pictures, with tables or without, index included",
    ),
    "resize": ("resize", "copy an indexed data set with frames of another size, index included"),
    "index": ("index", "check the sequences under a root and write index.csv and dataset.json"),
    "check": ("check", "read everything and report damaged and doubtful sequences"),
    "show": ("show", "draw a contact sheet and print statistics"),
    "pack": ("pack", "pack an indexed data set for fast reading"),
    "export": ("export", "write an indexed data set as a LeRobot data set"),
}
CONTINUING = ("simulate", "simulate_dance", "record", "bair", "rlds", "lerobot", "frames", "resize", "pack")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="svg-data", description=__doc__.replace("`", ""))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (room, summary) in COMMANDS.items():
        module = importlib.import_module(
            f".{room}", __package__
        )  # here, where an interrupt is answered in one line
        command = commands.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    on_interrupt = (
        "interrupted; the same command goes on from there" if args.command in CONTINUING else "interrupted"
    )
    return run_command(f"svg-data {args.command}", lambda: args.run(args), on_interrupt)


def main(argv: list[str] | None = None) -> int:
    return run_command("svg-data", lambda: run(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
