"""``svg-data``: make, convert and index data sets."""

import argparse
import importlib
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from .command import OneLineParser, run_command, tell

ENTRY_POINTS = "svg_push.converters"
"""The group of entry points by which other packages add commands; see ``converters/README.md``."""


@dataclass(frozen=True)
class Command:
    """One command of svg-data.

    Args:
        name: what is typed after ``svg-data``.
        module: has `add_arguments(parser)`, `run(args)`, which returns an exit code or None, and a docstring
            for --help.
        summary: one line for the list of commands.
        continues: whether the same command, started again after an interrupt, goes on from there.
    """

    name: str
    module: str | EntryPoint
    summary: str = ""
    continues: bool = True

    def load(self) -> ModuleType:
        """Import the module. Raises whatever it raises."""
        if isinstance(self.module, EntryPoint):
            return self.module.load()
        return importlib.import_module(f".{self.module}", __package__)


COMMANDS: tuple[Command, ...] = (
    Command("simulate", "simulators.push", "simulate robot pushing into a new data set"),
    Command("simulate_dance", "simulators.dance", "simulate a person, with the skeleton of every frame"),
    Command("record", "simulators.record", "record any Gymnasium environment that renders pictures"),
    Command("bair", "converters.bair", "convert BAIR TFRecords (softmotion30_44k)"),
    Command("rlds", "converters.rlds", "convert RLDS episodes as TensorFlow Datasets writes them"),
    Command("lerobot", "converters.lerobot", "convert LeRobot data sets (versions 3.0 and 2.1)"),
    Command("frames", "converters.videos", "convert videos, animations and folders of pictures"),
    Command("resize", "resize", "copy an indexed data set with frames of another size"),
    Command("pack", "pack", "pack an indexed data set for fast reading"),
    Command("index", "index", "check the sequences and write index.csv and dataset.json", continues=False),
    Command("check", "check", "read everything and report damaged and doubtful sequences", continues=False),
    Command("show", "show", "draw a contact sheet and print statistics", continues=False),
    Command("export", "export", "write an indexed data set as a LeRobot data set", continues=False),
)  # fmt: skip
"""The commands of this package. Those that continue after an interrupt write a data set, index included."""


def all_commands() -> list[Command]:
    """Return the commands of this package and those that other installed packages add under other names."""
    names = {command.name for command in COMMANDS}
    added = [entry for entry in entry_points(group=ENTRY_POINTS) if entry.name not in names]
    return [*COMMANDS, *(Command(entry.name, entry) for entry in added)]


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line. A command of another package that cannot be imported is named and left out."""
    parser = OneLineParser(prog="svg-data", description="Make, convert and index data sets.")
    choices = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in all_commands():
        try:
            module = command.load()
        except Exception as error:
            if command in COMMANDS:
                raise
            tell(f"svg-data: note: {command.name} is not available: {error!r}", error=True)
            continue
        summary, _, _ = (module.__doc__ or "").strip().partition("\n")
        choice = choices.add_parser(
            command.name,
            help=(command.summary or summary).replace("%", "%%"),
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(choice)
        choice.set_defaults(run=module.run, continues=command.continues)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Run the chosen command and return its exit code."""
    go_on = "; the same command goes on from there" if args.continues else ""
    return run_command(f"svg-data {args.command}", lambda: args.run(args), f"interrupted{go_on}")


def main(argv: list[str] | None = None) -> int:
    """Run ``svg-data``, with the arguments of the command line if none are given."""
    return run_command("svg-data", lambda: run(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
