"""The parts that are shared by the commands which use a trained run."""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_tools.command import tell
from data_tools.errors import InputError
from data_tools.files import whole_folder
from data_tools.layout import SPLITS
from data_tools.remote import is_remote
from svg.config import POSITIONS, DataConfig
from svg.evaluation.protocols import OWN, Protocol, get_protocol
from svg.runs import pretrained

if TYPE_CHECKING:
    import torch

    from svg.config import Config
    from svg.models.predictor import Predictor
    from svg.positions import FuturePositions
    from svg.sequences import SequenceDataset


def add_run_arguments(parser: argparse.ArgumentParser, several: bool = False, whole: bool = False) -> None:
    """Add the flags of commands that use a trained run, or `several`, on a split.

    `whole` commands predict one whole sequence after the other, instead of batches of clips.
    """
    if several:
        parser.add_argument("runs", type=Path, nargs="*", help="run folders that svg-train has written")
    else:
        parser.add_argument("run", type=Path, nargs="?", help="run folder that svg-train has written")
    released = ", ".join(pretrained.names())
    parser.add_argument(
        "--pretrained",
        metavar="NAME",
        help=f"a released model ({released}), or user/repo or user/repo@revision of the Hugging Face Hub, "
        "which is copied here as a run folder of that name",
    )
    parser.add_argument("--split", default="test", choices=SPLITS, help="default test")
    parser.add_argument("--data_root", help="another data set than the one the run was trained on")
    default = "n_eval - n_past of the run"
    if whole:
        default = "as far as the conditions go; without any, to the end of the recording"
    parser.add_argument("--n_future", type=int, help=f"frames to predict (default: {default})")
    parser.add_argument(
        "--positions",
        choices=POSITIONS,
        default="true",
        help="for models that are given positions: which positions after the observed frames; the true ones "
        "of the recording (default), integrated from the actions, or held",
    )
    parser.add_argument(
        "--displacements",
        nargs="+",
        default=[],
        metavar="ACTION:POSITION",
        help="with --positions integrated: which action column moves which position column, counted from 0 "
        "(default: 0:0 1:1, and the height of svg-data simulate's hand)",
    )
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
    """Return the parsed flags of `add_run_arguments`; a model by its name is the run, or the last run."""
    args = parser.parse_args(argv)
    if "runs" in args:
        runs = args.runs
    else:
        runs = [args.run] if args.run else []
    if args.pretrained:
        if "run" in args and runs:
            raise InputError(
                f"--pretrained {args.pretrained}: found the run {runs[0]} beside it; leave one out"
            )
        runs.append(take_released(args.pretrained))
    if not runs:
        released = " or ".join(pretrained.names())
        raise InputError(f"expected a run folder that svg-train has written, or --pretrained {released}")
    if "run" in args:
        args.run = runs[0]
    return args


def take_released(name: str, parent: Path = Path()) -> Path:
    """Return a copy of a model (`pretrained.named_folder`) as a run folder, where results can be written.

    It is made unless it is there. Raises `InputError` if another run has that name.
    """
    try:
        source = pretrained.named_folder(name)
    except InputError as error:
        raise InputError(f"--pretrained: {error}") from None
    run = parent / name.rpartition("/")[2].partition("@")[0]
    if not run.exists():
        try:
            _copy_released(source, run)
        except OSError:
            if not run.exists():
                raise
            # another command was faster; its copy is compared with the original
        else:
            tell(f"{run}: the model {name}; its card is {run / 'README.md'}")
            return run
    from svg.runs.checkpoint import read_identity

    if read_identity(run, "best") != read_identity(source, "best"):
        raise InputError(f"{run}: found a run with other weights than the model {name}; move it away")
    return run


def _copy_released(source: Path, run: Path) -> None:
    with whole_folder(run) as folder:
        for path in source.rglob("*"):
            if path.is_file():
                copy = folder / path.relative_to(source)
                copy.parent.mkdir(exist_ok=True)
                copy.write_bytes(path.read_bytes())  # an error of shutil.copyfile would name the original


@dataclass(frozen=True)
class Run:
    """A trained run on a split; the dataset's clips hold the protocol's given and predicted frames."""

    model: "Predictor"
    config: "Config"
    dataset: "SequenceDataset"
    device: "torch.device"
    protocol: Protocol


def resolve_protocol(args: argparse.Namespace, data: DataConfig) -> Protocol:
    """Return the protocol for a run: ``args.protocol`` or this project's own, as other flags change it."""
    names = ("n_future", "n_sample", "ssim_window", "lpips") if "protocol" in args else ("n_future",)
    protocol = get_protocol(getattr(args, "protocol", OWN))
    protocol = protocol.changed(**{name: getattr(args, name) for name in names})
    return protocol.for_run(data.n_past, data.n_eval - data.n_past)


def future_positions(args: argparse.Namespace, n_past: int) -> "FuturePositions | None":
    """Return the positions of the flags ``--positions`` and ``--displacements``; None for the true ones."""
    from svg.positions import FuturePositions

    how = getattr(args, "positions", "true")
    displacements = []
    for text in getattr(args, "displacements", []):
        pair = re.fullmatch(r"([0-9]{1,4}):([0-9]{1,4})", text)
        if pair is None:
            raise InputError(f"--displacements: found {text!r}, expected ACTION:POSITION such as 0:0")
        displacements.append((int(pair[1]), int(pair[2])))
    if displacements and how != "integrated":
        raise InputError(
            f"--displacements: goes with --positions integrated, found {how}; leave it out or add that"
        )
    if how == "true":
        return None
    return FuturePositions(how, n_past, tuple(displacements))


def open_run(args: argparse.Namespace, run: Path | None = None, only_given: bool = False) -> Run:
    """Open the run that `args` name, or `run`, on the split and under the protocol of `args`.

    With `only_given` the dataset's clips are the given frames alone: for later frames the conditions are
    enough.
    """
    from svg import runtime
    from svg.models.freezing import freeze
    from svg.runs.checkpoint import load_config, load_model

    run = run or args.run
    for name, least in {"n_future": 1, "batch_size": 1, "seed": 0}.items():
        value = getattr(args, name, None)
        if value is not None and value < least:
            raise InputError(f"--{name}: found {value}, expected at least {least}")
    config = load_config(run)
    protocol = resolve_protocol(args, config.data)
    clip_length = protocol.n_past + (0 if only_given else protocol.n_future)
    dataset = _open_dataset(args, run, config, protocol.n_past, clip_length)
    device = runtime.choose_device(args.device)
    runtime.prepare(device)
    model, _ = load_model(run, args.checkpoint, device)
    return Run(freeze(model, config.train.precision, args.compile), config, dataset, device, protocol)


def _open_dataset(
    args: argparse.Namespace, run: Path, config: "Config", n_past: int, clip_length: int
) -> "SequenceDataset":
    """Return the clips of the split that `args` name.

    Raises `InputError` if they do not fit the run's model.
    """
    from svg.sequences import SequenceDataset, report_left_out

    trained_on = config.data.data_root
    if args.data_root is None and not is_remote(trained_on) and not Path(trained_on).is_dir():
        raise InputError(
            f"{trained_on}: not found from here; {run} was trained on it: name its place with --data_root"
        )
    root = args.data_root or trained_on
    positions = future_positions(args, n_past)
    dataset = SequenceDataset(root, args.split, clip_length, config.data.conditions, positions)
    dataset.is_integrated = config.model.entry.integrates
    if positions is not None and (dataset.future_positions is None or dataset.is_integrated):
        given = "of the future" if dataset.is_integrated else ""
        reason = f"{run} is given no positions {given}".rstrip()
        tell(f"note: {reason}; --positions {positions.how} changes nothing", error=True)
    report_left_out(dataset)
    model = config.model
    found = _describe_data(dataset.frame_size, bool(dataset.info.pose_channels), dataset.condition_dim)
    expected = _describe_data((*model.frame_size, model.channels), model.takes_poses, model.condition_dim)
    if found != expected:
        raise InputError(
            f"{dataset.place}: found frames {found}, expected {expected}, on which {run} was trained"
        )
    return dataset


def _describe_data(frame_size: tuple[int, ...], with_poses: bool, condition_dim: int) -> str:
    size = "x".join(map(str, frame_size))
    return f"{size} and {'poses' if with_poses else 'condition columns'} ({condition_dim})"


def label_runs(runs: list[Path]) -> dict[str, Path]:
    """Return the runs by their labels in tables: the folders' names, or their paths if names repeat."""
    names = [run.resolve().name for run in runs]
    if len({run.resolve() for run in runs}) < len(runs):
        raise InputError(f"found {' '.join(map(str, runs))}, expected each run once")
    if len(set(names)) < len(names):
        return {str(run): run for run in runs}
    return dict(zip(names, runs, strict=True))


def named_sequences(dataset: "SequenceDataset", names: list[str]) -> dict[str, int]:
    """Return the numbers of sequences by their names in the index. Raises `InputError` for unknown names."""
    numbers = {name: number for number, name in enumerate(dataset.index["sequence"])}
    for name in names:
        if name not in numbers:
            raise InputError(
                f"--sequences: found no sequence {name!r} in split {dataset.split} of {dataset.root}"
            )
    return {name: numbers[name] for name in names}
