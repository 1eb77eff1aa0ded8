"""``svg-play``: one HTML page in which a model runs in the browser and is driven by hand.

It needs no server and no network. It holds the model, ONNX Runtime Web and scenes, which are simulated
unless --data_root names a data set of svg-data simulate. With --serve nothing is written: the page is
served on this computer alone, and asks PyTorch.
"""

import argparse
import sys
import tempfile
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from data_tools.command import OneLineParser, run_command, tell
from data_tools.errors import InputError
from data_tools.files import check_file_writable
from data_tools.layout import SPLITS
from svg.runs import pretrained

if TYPE_CHECKING:
    from svg.config import Config
    from svg.models.predictor import Predictor
    from svg.play.engines import Engine
    from svg.play.graphs import PackedGraphs
    from svg.play.page import About
    from svg.play.scenes import Scene

SEED = 2000
"""The seed of simulated scenes: none that a released model was trained or tested on."""
ONLY_FILE = ("out", "float32")
ONLY_SERVED = ("simulate", "device", "port", "open")
"""Flags without and with --serve."""


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = OneLineParser(prog="svg-play", description=__doc__.replace("`", ""))
    released = ", ".join(pretrained.names())
    parser.add_argument("run", help=f"run folder that svg-train has written, or a released model: {released}")
    parser.add_argument("--data_root", help="data set of the scenes (default: some are simulated)")
    parser.add_argument("--split", default="test", choices=SPLITS, help="of --data_root (default test)")
    parser.add_argument("--scenes", type=int, default=12, help="number of scenes (default 12)")
    parser.add_argument("--frames", type=int, default=30, help="frames of each recording (default 30)")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of simulated scenes (default {SEED})")
    parser.add_argument(
        "--float32",
        action="store_true",
        help="store the weights in float32 instead of float16, twice the size",
    )
    parser.add_argument(
        "--checkpoint", default="best", choices=("best", "last"), help="which weights (default best)"
    )
    parser.add_argument("--out", type=Path, help="file of the page (default: NAME.html)")
    parser.add_argument(
        "--serve", action="store_true", help="serve the page until Ctrl-C, with PyTorch behind it"
    )
    served = parser.add_argument_group("with --serve")
    served.add_argument("--simulate", action="store_true", help="show the simulator beside the model")
    served.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto)")
    served.add_argument("--port", type=int, default=0, help="of 127.0.0.1 (default: a free one)")
    served.add_argument("--open", action="store_true", help="open a browser")
    args = parser.parse_args(argv)
    for name in ONLY_FILE if args.serve else ONLY_SERVED:
        if getattr(args, name) != parser.get_default(name):
            raise InputError(f"--{name}: expected {'no ' if args.serve else ''}--serve beside it")
    if args.simulate and args.data_root is not None:
        raise InputError("--simulate: expected no --data_root beside it: other scenes cannot be simulated on")
    bounds = (("scenes", 1, 100), ("frames", 3, 1000), ("seed", 0, None), ("port", 0, 65535))
    for name, least, most in bounds:
        value = getattr(args, name)
        if value < least or (most is not None and value > most):
            expected = f"at least {least}" if most is None else f"{least} to {most}"
            raise InputError(f"--{name}: found {value}, expected {expected}")
    if args.out is None:
        args.out = Path(f"{Path(args.run).resolve().name}.html")
    return args


def play(args: argparse.Namespace) -> None:
    """Write the page, or serve it."""
    run = pretrained.run_folder(args.run)
    if not args.serve:
        check_file_writable(args.out)

    from svg.play.page import check_drivable
    from svg.runs.checkpoint import load_config

    config = load_config(run)
    check_drivable(config, run)
    scenes = take_scenes(args, config)
    (serve if args.serve else write)(args, run, config, scenes)


def write(args: argparse.Namespace, run: Path, config: "Config", scenes: "list[Scene]") -> None:
    """Write the page with the model in it."""
    from data_tools.files import write_text
    from svg.play.page import build_play_page

    model = pretrained.load(run, args.checkpoint, "cpu", "float32")
    packed = export(args, run, config, model)
    stored = "float32" if args.float32 else "float16"
    computed = (
        f"The weights are stored in {stored} and computed with in float32, on one core of your processor."
    )
    page = build_play_page(describe(run, model, computed), packed, scenes)
    write_text(args.out, page)
    tell(f"written: {args.out} ({len(page.encode()) / 1e6:.1f} MB; opens in a browser, without a network)")


def serve(args: argparse.Namespace, run: Path, config: "Config", scenes: "list[Scene]") -> None:
    """Serve the page, with the model and, if it is asked for, the simulator behind it."""
    from svg.play.engines import ModelEngine, SimulatorEngine, States
    from svg.play.page import build_served_page
    from svg.play.server import PlayServer

    model = pretrained.load(run, args.checkpoint, args.device, "float32")
    engines: dict[str, Engine] = {"model": ModelEngine(model, scenes, config.data.n_past)}
    if args.simulate:
        engines["simulator"] = SimulatorEngine(args.seed, scenes, config.data.n_past)
    states = {
        name: States(engine, len(scenes), config.model.condition_dim) for name, engine in engines.items()
    }
    about = describe(run, model, f"It is computed in float32, by PyTorch on {model.device}.")
    page = build_served_page(about, config, scenes, args.simulate)
    with PlayServer(page, states, args.port) as server:
        tell(f"{run.resolve().name} on {model.device}: {server.address} (Ctrl-C ends it)")
        if args.open:
            webbrowser.open(server.address)
        server.serve_forever()


def describe(run: Path, model: "Predictor", computed: str) -> "About":
    """Return what the page says of the model; `computed` says where it runs."""
    from svg.play.card import card_html
    from svg.play.page import About
    from svg.runs.checkpoint import CARD

    card = run / CARD
    words = card_html(card.read_text(encoding="utf-8") if card.is_file() else "")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return About(run.resolve().name, parameters, words, computed)


def take_scenes(args: argparse.Namespace, config: "Config") -> "list[Scene]":
    """Return scenes of the data set that the flags name, or simulated ones."""
    from data_tools.simulators import push
    from svg.play.scenes import read_scenes
    from svg.sequences import SequenceDataset

    if args.frames <= config.data.n_past:
        raise InputError(
            f"--frames: found {args.frames}, expected more than the {config.data.n_past} that the model sees"
        )
    with tempfile.TemporaryDirectory() as folder:
        root, split = args.data_root, args.split
        if root is None:
            height, width = config.model.frame_size
            if height != width:
                raise InputError(f"--data_root: expected a data set with frames of {height}x{width}")
            root, split = folder, "test"
            push.simulate(Path(root), args.scenes, args.seed, (0, 0, 1), width, args.frames)
        dataset = SequenceDataset(root, split, args.frames)
        expected = (*config.model.frame_size, config.model.channels)
        if dataset.frame_size != expected:
            size, wanted = ("x".join(map(str, numbers)) for numbers in (dataset.frame_size, expected))
            raise InputError(f"{dataset.place}: found frames {size}, expected {wanted}, as of the model")
        return read_scenes(dataset, args.scenes)


def export(args: argparse.Namespace, run: Path, config: "Config", model: "Predictor") -> "PackedGraphs":
    """Return the graphs of the model."""
    from svg.play.graphs import pack_graphs
    from svg.runs.checkpoint import read_identity
    from svg.runs.graphs import write_graphs

    weights = read_identity(run, args.checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        write_graphs(model, Path(folder), "onnx", run.resolve().name, weights, config.data.n_past)
        return pack_graphs(Path(folder), not args.float32)


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("svg-play", lambda: play(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
