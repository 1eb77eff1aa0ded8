"""What the commands that use a trained run share."""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.command import tell
from data_tools.errors import InputError
from data_tools.files import whole_folder
from data_tools.layout import SPLITS
from svg.config import POSITIONS, DataConfig
from svg.evaluation.protocols import OWN, Protocol, get_protocol
from svg.runs import pretrained


def add_run_arguments(parser: argparse.ArgumentParser, several: bool = False, whole: bool = False) -> None:
    """The flags of commands that use a trained run, or `several`, on a split; `whole` ones predict one sequence after the other."""
    if several:
        parser.add_argument("runs", type=Path, nargs="*", help="run folders that svg-train has written")
    else:
        parser.add_argument("run", type=Path, nargs="?", help="run folder that svg-train has written")
    parser.add_argument(
        "--pretrained", metavar="NAME",
        help=f"a released model ({', '.join(pretrained.names())}), which becomes a run folder of that name here",
    )  # fmt: skip
    parser.add_argument("--split", default="test", choices=SPLITS, help="default test")
    parser.add_argument("--data_root", help="another data set than the run was trained on")
    usual = (
        "as far as conditions go, without any to the end of the recording"
        if whole
        else "n_eval - n_past of the run"
    )
    parser.add_argument("--n_future", type=int, help=f"frames to predict (default: {usual})")
    parser.add_argument(
        "--positions", choices=POSITIONS, default="true",
        help="which positions after the observed frames a model is given that is told positions: the true ones of the recording "
        "(default), integrated from the actions, or held",
    )  # fmt: skip
    parser.add_argument(
        "--displacements", nargs="+", default=[], metavar="ACTION:POSITION",
        help="with --positions integrated: which action column moves which position column, counted from 0 (default: 0:0 1:1, and "
        "the height of svg-data simulate's hand)",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", default="best", choices=("best", "last"), help="which weights (default best)"
    )
    if not whole:
        parser.add_argument("--batch_size", type=int, default=16, help="sequences at a time (default 16)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile the model; the first predictions take minutes"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the sampled futures (default 1)")


def parse_run_arguments(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """The parsed flags of `add_run_arguments`; a released model is among the runs, or the run."""
    args = parser.parse_args(argv)
    runs = args.runs if "runs" in args else [args.run] if args.run else []
    if args.pretrained:
        if "run" in args and runs:
            raise InputError(
                f"--pretrained {args.pretrained}: found the run {runs[0]} beside it; leave one out"
            )
        runs.append(take_released(args.pretrained))
    if not runs:
        raise InputError(
            f"expected a run folder that svg-train has written, or --pretrained {' or '.join(pretrained.names())}"
        )
    if "run" in args:
        args.run = runs[0]
    return args


def take_released(name: str, parent: Path = Path()) -> Path:
    """The released model `name` as a run folder of that name, a copy, in which results find room; made if it is not there."""
    try:
        source, run = pretrained.released_folder(name), parent / name
    except InputError as error:
        raise InputError(f"--pretrained: {error}") from None
    if not run.exists():
        try:
            _copy_released(source, run)
        except OSError:
            if not run.exists():
                raise
            # another command was faster; its copy is compared with the original
        else:
            tell(f"{run}: the released model; its card is {run / 'README.md'}")
            return run
    from svg.runs.checkpoint import read_identity

    if read_identity(run, "best") != read_identity(source, "best"):
        raise InputError(f"{run}: found a run with other weights than the released ones; move it away")
    return run


def _copy_released(source: Path, run: Path) -> None:
    with whole_folder(run) as folder:
        for path in (path for path in source.rglob("*") if path.is_file()):
            copy = folder / path.relative_to(source)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())  # an error of shutil.copyfile names the original


@dataclass(frozen=True)
class Run:
    """A trained run on a split; the dataset's clips hold the protocol's given and predicted frames."""

    model: Any
    config: Any
    dataset: Any
    device: Any
    protocol: Protocol


def resolve_protocol(args: argparse.Namespace, data: DataConfig) -> Protocol:
    """The `Protocol` of the flags for a run: ``args.protocol``, else this project's own, with what other flags change of it."""
    names = ("n_future", "n_sample", "ssim_window", "lpips") if "protocol" in args else ("n_future",)
    protocol = get_protocol(getattr(args, "protocol", OWN)).changed(
        **{name: getattr(args, name) for name in names}
    )
    return protocol.for_run(data.n_past, data.n_eval - data.n_past)


def future_positions(args: argparse.Namespace, n_past: int) -> Any:
    """The `FuturePositions` of the flags; None for the true ones."""
    from svg.positions import FuturePositions

    how, displacements = getattr(args, "positions", "true"), getattr(args, "displacements", [])
    pairs = [re.fullmatch(r"([0-9]{1,4}):([0-9]{1,4})", text) for text in displacements]
    if None in pairs:
        raise InputError(
            f"--displacements: found {displacements[pairs.index(None)]!r}, expected ACTION:POSITION such as 0:0"
        )
    if pairs and how != "integrated":
        raise InputError(
            f"--displacements: are of --positions integrated, found {how}; leave them out or add that"
        )
    if how == "true":
        return None
    return FuturePositions(how, n_past, tuple((int(pair[1]), int(pair[2])) for pair in pairs))


def open_run(args: argparse.Namespace, run: Path | None = None, only_given: bool = False) -> Run:
    """The run that `args` name, or `run`, on the split and under the protocol of `args`.

    With `only_given` the dataset's clips are the given frames alone: of what comes after them the conditions are enough.
    """
    from svg import runtime
    from svg.models.freezing import freeze
    from svg.runs.checkpoint import load_config, load_model
    from svg.sequences import SequenceDataset

    run = run or args.run
    for name, least in {"n_future": 1, "batch_size": 1, "seed": 0}.items():
        found = getattr(args, name, None)
        if found is not None and found < least:
            raise InputError(f"--{name}: found {found}, expected at least {least}")
    config = load_config(run)
    data, protocol = config.data, resolve_protocol(args, config.data)
    clip = protocol.n_past + (0 if only_given else protocol.n_future)
    if args.data_root is None and not Path(data.data_root).is_dir():
        raise InputError(
            f"{data.data_root}: not found from here; {run} was trained on it: name its place with --data_root"
        )
    given = future_positions(args, protocol.n_past)
    dataset = SequenceDataset(args.data_root or data.data_root, args.split, clip, data.conditions, given)
    if given is not None and dataset.future_positions is None:
        tell(f"note: {run} is given no positions; --positions {given.how} changes nothing", error=True)
    report_left_out(dataset)
    found = (*dataset.frame_size, bool(dataset.info.pose_channels), dataset.condition_dim)
    expected = (
        *config.model.frame_size,
        config.model.channels,
        config.model.takes_poses,
        config.model.condition_dim,
    )
    if found != expected:
        told = "{}x{}x{} and {} ({})"
        shown = [
            told.format(*some[:3], "poses" if some[3] else "condition columns", some[4])
            for some in (found, expected)
        ]
        raise InputError(
            f"{dataset.root}: found frames {shown[0]}, expected {shown[1]}, on which {run} was trained"
        )
    device = runtime.choose_device(args.device)
    runtime.prepare(device)
    model, _ = load_model(run, args.checkpoint, device)
    return Run(freeze(model, config.train.precision, args.compile), config, dataset, device, protocol)


def label_runs(runs: list[Path]) -> dict[str, Path]:
    """The runs by the names that tables and legends give them: their folders' names, or paths where these are not enough."""
    names = [run.resolve().name for run in runs]
    labels = {
        str(run) if len(set(names)) < len(names) else name: run for name, run in zip(names, runs, strict=True)
    }
    if len({run.resolve() for run in runs}) < len(runs):
        raise InputError(f"found {' '.join(map(str, runs))}, expected each run once")
    return labels


def report_left_out(dataset: Any) -> None:
    """Says on stderr how many sequences of a split are too short to be used."""
    if dataset.left_out:
        total = dataset.left_out + len(dataset)
        where, frames = dataset.root / dataset.split, dataset.clip_length
        tell(
            f"{where}: {dataset.left_out} of {total} sequences are shorter than {frames} frames and left out",
            error=True,
        )


def named_sequences(dataset: Any, names: list[str]) -> dict[str, int]:
    """The numbers of sequences by their names in the index."""
    numbers = {name: number for number, name in enumerate(dataset.index["sequence"])}
    for name in names:
        if name not in numbers:
            raise InputError(
                f"--sequences: found no sequence {name!r} in split {dataset.split} of {dataset.root}"
            )
    return {name: numbers[name] for name in names}


def pose_video(run: Run, number: int) -> Any:
    """The poses of a sequence's clip, uint8 [T,H,W,3]; that of the first frame, which nobody needs, is empty."""
    from svg.figures.rendering import to_video

    poses = (
        run.dataset.read_conditions(number, 0, run.protocol.n_past + run.protocol.n_future - 1).float() / 255
    )
    return to_video(poses.new_ones(1, *poses.shape[1:]), poses)
