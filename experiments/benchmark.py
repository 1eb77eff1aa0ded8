"""``svg-benchmark``: measures data path, training, sampling, evaluation and scoring on this machine.

Medians of repeated measurements, with the published implementation's in turns where a clone of
github.com/edenton/svg is given.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from data_tools.command import OneLineParser, run_command, tell
from data_tools.errors import InputError
from data_tools.files import check_file_writable, write_text

from .benchmarks import measurement

PARTS = ("training", "sampling", "scoring", "imagination", "poses", "data", "cost", "growth")
PLOTTED = ("cost", "growth")
"""Parts that draw a picture, by default of their name."""


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = OneLineParser(prog="svg-benchmark", description=__doc__.replace("`", ""))
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help="training, sampling, scoring, data (by default); imagination: many plans from one scene; "
        "poses: the predictor of persons; "
        "cost: a sweep over sizes, with a plot; growth: reading up to a million sequences, with a plot",
    )
    parser.add_argument(
        "--repeats", type=int, default=9, help="repetitions of each measurement (default: %(default)s)"
    )
    parser.add_argument(
        "--folder", type=Path, help="where its data are written for a while (default: the system's)"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    parser.add_argument("--compare", type=Path, help="show the figures of this earlier file beside")
    parser.add_argument(
        "--published", type=Path, help="a clone of github.com/edenton/svg, to be measured in turns with ours"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--batch_size",
        type=int,
        help="default: 4 and 16 (published and quickstart size), on a GPU 100 and 256",
    )
    parser.add_argument(
        "--n_sample", type=int, default=10, help="sampled futures of each clip (default: %(default)s)"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile the models")
    parser.add_argument(
        "--plot",
        type=Path,
        help="picture that cost or growth draws, PDF, SVG or PNG (default: cost.png, growth.png)",
    )
    args = parser.parse_args(argv)
    for name in ("repeats", "batch_size", "n_sample"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name}: found {value}, expected 1 or more")
    for part in args.parts:
        if part not in PARTS:
            raise InputError(f"PART: found {part!r}, expected {', '.join(PARTS)}")
    if args.published and not (args.published / "train_svg_lp.py").exists():
        raise InputError(
            f"--published: no train_svg_lp.py in {args.published}; git clone https://github.com/edenton/svg"
        )
    plotted = [part for part in PLOTTED if part in args.parts]
    if args.plot and len(plotted) > 1:
        raise InputError("--plot: found both cost and growth, expected one of them; or leave it out")
    args.plots = {part: args.plot or Path(f"{part}.png") for part in plotted}
    if plotted:
        from svg.figures.drawing import picture_form

        for path in args.plots.values():
            picture_form(path)
    args.parts = args.parts or ["training", "sampling", "scoring", "data"]
    return args


def machine(device: str) -> dict[str, str]:
    """Return what the figures depend on."""
    import torch

    from svg import runtime

    precision = "bfloat16" if runtime.uses_bfloat16(torch.device(device), "auto") else "float32"
    return runtime.machine(torch.device(device)) | {"precision": f"{precision} (published code: float32)"}


def benchmark(args: argparse.Namespace) -> None:
    """Measure the parts that the flags name, print and write the figures."""
    from svg import runtime

    from .benchmarks import data, growth, model

    before = measurement.load(args.compare) if args.compare else []
    for path in filter(None, (args.json, *args.plots.values())):
        check_file_writable(path)
    device = str(runtime.choose_device(args.device))
    this_machine = machine(device)
    tell(", ".join(f"{name} {value}" for name, value in this_machine.items()))
    folder = Path(tempfile.mkdtemp(prefix="svg-benchmark-", dir=args.folder)).resolve()
    published = args.published.resolve() if args.published else None
    settings = model.Settings(
        folder / "model", args.repeats, device, args.batch_size, args.n_sample, args.compile, published
    )
    rows = []
    costs = None
    points = []
    try:
        rows += model.measure(settings, args.parts)
        if "cost" in args.parts:
            costs = model.measure_costs(settings)
        if "growth" in args.parts:
            points = growth.measure(folder / "growth", args.repeats)
        if "data" in args.parts:  # the last: it keeps this process on one core
            rows += data.measure(folder / "data", args.repeats)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if rows:
        tell(measurement.table(rows, before))
    if args.json:
        measurement.save(args.json, this_machine, rows)
    if costs:
        model.plot_costs(costs, args.plots["cost"])
        tell(save_values(args.plots["cost"], {"machine": this_machine, "costs": costs}))
    if points:
        tell(growth.table(points))
        growth.plot(points, args.plots["growth"])
        tell(save_values(args.plots["growth"], {"machine": this_machine, "points": growth.as_json(points)}))


def save_values(picture: Path, values: dict[str, Any]) -> str:
    """Write what a picture shows as JSON beside it, and return the names of both."""
    path = picture.with_suffix(".json")
    write_text(path, json.dumps(values, indent=2) + "\n")
    return f"{picture} and {path.name}"


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("svg-benchmark", lambda: benchmark(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
