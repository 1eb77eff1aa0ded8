"""Run folders: configuration and checkpoints, written whole or not at all, checked and read without running code.

A checkpoint is a JSON file in ``checkpoints/``, ``step-00001200.json`` or ``best.json``: how far the run was and the names and
SHA-256 of the files that belong to it, weights and, of the former, the optimiser's state (safetensors). It gets its name after
they are complete. The newest ``step-*`` that is whole is the last one. Names of files hold the beginning of their SHA-256, so that
none is ever replaced by another content.
"""

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from data_tools.command import tell
from data_tools.errors import InputError
from data_tools.files import (
    flush_names,
    folder_in,
    open_regular,
    read_bytes,
    remove_leftovers,
    whole_file,
    write_text,
)
from data_tools.layout import read_json

from ..config import Config, ModelConfig
from ..training.losses import LOSSES
from ..training.optimizers import state_names
from .pickles import read_version_1

SCHEMA_VERSION = 2
"""1: ``last.json`` instead of ``step-*.json``, no checksums, the optimiser's state as ``torch.save`` writes it."""
COUNTS = ("counted", "skipped")
"""Of the steps of an epoch that is not at its end, beside the sums of their losses."""
CONFIG_FILE = "config.json"
FOLDER = "checkpoints"
FIGURES = "figures"
OURS = re.compile(r"(step|best|last)-\d{8,}(-[0-9a-f]{8})?(\.optimizer)?\.(json|safetensors|pt)|last\.json")
"""Names that this and earlier releases give: others are a user's own."""
MOST_BYTES = 2**34  # of a file of a checkpoint
MOMENTS = 4  # numbers of an optimiser's state for each weight, on the safe side
WHERE = "is {} a run folder that svg-train has written?"


class Damaged(InputError):
    """A checkpoint that is not what was written."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are there and whole; `passed_over` says which newer ones are not, and why."""

    path: Path
    version: int
    progress: dict[str, Any]
    files: dict[str, Path]
    digests: dict[str, str]
    passed_over: list[str] = field(default_factory=list)

    @property
    def step(self) -> int:
        return self.progress["step"]


# ---------------------------------------------------------------------------------------------------------- writing


def save_last(
    run: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: dict[str, Any], keep: int
) -> None:
    """Writes all that resuming needs, `progress` included, and removes the checkpoints before the newest `keep` ones."""
    step = progress["step"]
    contents = {"weights": stored_weights(model), "optimizer": _optimizer_state(model, optimizer)}
    _save(run, f"step-{step:08d}", f"step-{step:08d}", contents, progress)
    _remove_unnamed(run, _entries(run, keep))


def save_best(run: Path, model: nn.Module, progress: dict[str, Any]) -> None:
    """Writes the weights as the best ones so far."""
    _save(run, "best", f"best-{progress['step']:08d}", {"weights": stored_weights(model)}, progress)
    _remove_unnamed(run, _entries(run))


def _save(
    run: Path, name: str, stem: str, contents: dict[str, dict[str, Tensor]], progress: dict[str, Any]
) -> None:
    folder = folder_in(run, FOLDER)
    files, digests = {}, {}
    for part, tensors in contents.items():
        data = safetensors.torch.save(tensors)
        digests[part] = hashlib.sha256(data).hexdigest()
        files[part] = f"{stem}-{digests[part][:8]}{'' if part == 'weights' else f'.{part}'}.safetensors"
        with whole_file(folder / files[part]) as file:
            file.write(data)
    values = {"schema_version": SCHEMA_VERSION, "files": files, "sha256": digests, "progress": progress}
    write_text(folder / f"{name}.json", json.dumps(values | {"checksum": _checksum(values)}, indent=2) + "\n")


def stored_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights as they are written."""
    return {key: _stored(value) for key, value in model.state_dict().items()}


def _stored(tensor: Tensor) -> Tensor:
    """In standard order, whatever the memory format in training, and sharing its memory with no other."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def _optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """``{"<parameter>/<name>": tensor}``; whole numbers, such as Muon's count of steps, as int64."""
    return {
        f"{name}/{key}": _stored(value) if isinstance(value, Tensor) else torch.tensor(value)
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _checksum(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _entries(run: Path, newest: int | None = None) -> list[Path]:
    """The best checkpoint and those to resume from, all or so many."""
    return [*_files(run, "best.json"), *_steps(run)[:newest]]


def _steps(run: Path) -> list[Path]:
    """The checkpoints to resume from, the newest first; that of an earlier release comes last."""
    steps = [path for path in _files(run, "step-*.json") if _step_of(path) >= 0]
    return [*sorted(steps, key=_step_of, reverse=True), *_files(run, "last.json")]


def _files(run: Path, pattern: str) -> list[Path]:
    """Return the files of the checkpoints' folder, links among them: a folder of such a name is none of ours."""
    return [path for path in (run / FOLDER).glob(pattern) if path.is_symlink() or not path.is_dir()]


def _step_of(path: Path) -> int:
    """The step of a checkpoint to resume from, by its name; -1 for other files."""
    number = re.fullmatch(r"step-(\d{8,})\.json", path.name)
    return int(number[1]) if number else -1


def _remove_unnamed(run: Path, kept: list[Path]) -> None:
    """Removes from the checkpoints' folder what none of the `kept` ones names, each checkpoint before its files."""
    named = {path.name for path in kept}
    for path in kept:
        try:
            named |= {Path(name).name for name in read_json(path, "")["files"].values()}
        except (InputError, KeyError, TypeError, AttributeError):
            return  # one that cannot be read: which files are its own is not known
    others = [path for path in _files(run, "*") if path.name not in named and OURS.fullmatch(path.name)]
    for path in sorted(others, key=lambda path: path.suffix != ".json"):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            tell(f"note: {path}: cannot be removed ({error.strerror}); remove it by hand", error=True)
    flush_names(run / FOLDER)


def remove_after(run: Path, step: int) -> None:
    """Removes checkpoints of later steps, of a run that goes on from this one, and what killed writers left in its folders."""
    for path in _steps(run):
        if _step_of(path) > step:
            path.unlink()
    for line in [*remove_leftovers(run), *remove_leftovers(run / FOLDER)]:
        tell(f"note: {line}", error=True)


# ---------------------------------------------------------------------------------------------------------- reading


def exists(run: Path, name: str) -> bool:
    """Whether there is a checkpoint `name` (last or best), be it whole or not."""
    return bool(_candidates(run, name))


def _candidates(run: Path, name: str) -> list[Path]:
    return _steps(run) if name == "last" else _files(run, f"{name}.json")


def find(run: Path, name: str) -> Checkpoint:
    """The checkpoint `name`: the best one, or the last one that is whole.

    Raises `InputError` if there is none, and `Damaged` if none is whole.
    """
    passed_over: list[str] = []
    for path in _candidates(run, name):
        try:
            return _open(path, passed_over)
        except Damaged as error:
            passed_over.append(str(error))
    if not passed_over:
        raise InputError(f"{run / FOLDER}: found no {name} checkpoint; {WHERE.format(run)}")
    way_out = "; the checkpoint last may be whole" if name == "best" and exists(run, "last") else ""
    raise Damaged(f"{passed_over[0]}; restore it{way_out}")


def find_any(run: Path, name: str) -> Checkpoint | None:
    """As `find`, and None if there is none."""
    return find(run, name) if exists(run, name) else None


def _open(path: Path, passed_over: list[str]) -> Checkpoint:
    try:
        values = read_json(path, "restore it")
    except InputError as error:
        raise Damaged(str(error).removesuffix("; restore it")) from None
    version = values.get("schema_version")
    if type(version) is int and version > SCHEMA_VERSION:
        raise InputError(
            f"{path}: found schema version {version}, expected at most {SCHEMA_VERSION}; use a newer release"
        )
    if version == 1:
        files, digests = values.pop("files", None), {}
        progress = {key: value for key, value in values.items() if key != "schema_version"}
    else:
        if values.pop("checksum", None) != _checksum(values) or version != SCHEMA_VERSION:
            raise Damaged(f"{path}: damaged (its checksum does not match)")
        files, digests, progress = values.get("files"), values.get("sha256"), values.get("progress")
    for found in (files, digests):
        if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
            raise Damaged(f"{path}: damaged (it names no files)")
    if "weights" not in files or (digests and files.keys() != digests.keys()):
        raise Damaged(f"{path}: damaged (it names no weights)")
    _check_progress(path, progress)
    places = {
        part: path.parent / Path(name).name for part, name in files.items()
    }  # names alone: nothing out of the folder
    taken = {}
    for part, place in places.items():
        try:
            with open_regular(place) as file:
                taken[part] = hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, ValueError) as error:  # ValueError: a name that cannot be
            raise Damaged(f"{place}: cannot be read, though {path.name} names it ({error})") from None
        if digests and taken[part] != digests[part]:
            raise Damaged(f"{place}: damaged (its checksum does not match {path.name})")
    return Checkpoint(path, version, progress, places, taken, passed_over)


def _check_progress(path: Path, progress: Any) -> None:
    """Raises `Damaged` unless `progress` is what a training writes; earlier releases wrote less."""
    try:
        checks = {
            "step": _is_count, "minutes": _is_number, "best_psnr": lambda found: found is None or _is_number(found),
            "sums": _is_sums, "skipped_in_a_row": _is_count, "circumstances": lambda found: isinstance(found, dict),
            "flags": lambda found: isinstance(found, dict),
        }  # fmt: skip
        for name, found in progress.items():
            if not checks[name](found):
                raise ValueError(f"{name} {found!r}")
        if not {"step", "minutes", "best_psnr"} <= progress.keys():
            raise ValueError("no step")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{path}: damaged (it does not say how far the run was: {str(error)[:80]})") from None


def _is_sums(found: Any) -> bool:
    complete = found.keys() == {*COUNTS, *LOSSES} and all(map(_is_number, found.values()))
    return complete and all(_is_count(found[name]) for name in COUNTS)


def _is_number(found: Any) -> bool:
    return type(found) in (int, float) and math.isfinite(found)


def _is_count(found: Any) -> bool:
    return type(found) is int and 0 <= found < 2**53


def read_tensors(path: Path, most: int = MOST_BYTES) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file that may have `most` bytes. Raises `Damaged`."""
    try:
        return safetensors.torch.load(read_bytes(path, most))
    except OSError as error:
        raise Damaged(f"{path}: cannot be read ({error.strerror or error})") from None
    except (
        Exception
    ) as error:  # SafetensorError and, for offsets and types that there are not, whatever follows from them
        raise Damaged(f"{path}: damaged ({_first_line(error)})") from None


def _file_size(model: nn.Module) -> int:
    """Return the most bytes that a file of the model's weights has: a tensor's name and shape take some hundred."""
    return sum(1000 + value.nbytes for value in model.state_dict().values()) + 2**16


def check_model(checkpoint: Checkpoint, config: ModelConfig) -> dict[str, Tensor]:
    """The weights, if they are those of such a model. Raises `InputError` before memory is taken for sizes of a configuration."""
    from ..models.build import make_model

    with torch.device("meta"):
        outline = make_model(config)
    weights = read_tensors(checkpoint.files["weights"], _file_size(outline))
    _check_tensors(checkpoint.files["weights"], weights, outline)
    return weights


def load(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Loads weights (and the optimiser's state) in place. Raises `InputError` naming a file that is of another model."""
    path = checkpoint.files["weights"]
    weights = read_tensors(path, _file_size(model))
    _check_tensors(path, weights, model)
    model.load_state_dict(weights)
    if optimizer is None:
        return
    path = checkpoint.files.get("optimizer")
    if path is None:
        raise Damaged(f"{checkpoint.path}: damaged (it names no state of the optimiser)")
    try:
        state = (
            read_version_1(path)
            if checkpoint.version == 1
            else _as_state(read_tensors(path, MOMENTS * _file_size(model)), model, optimizer)
        )
        _check_state(state["state"], optimizer)
        optimizer.load_state_dict(state)
    except InputError:
        raise
    except (
        Exception
    ) as error:  # torch.load raises what the bytes provoke: struct.error, UnpicklingError, RuntimeError ...
        raise Damaged(f"{path}: damaged or of another optimiser ({_first_line(error)})") from None


def _check_state(state: dict[int, dict[str, Any]], optimizer: torch.optim.Optimizer) -> None:
    """Raises `ValueError` unless every weight that has a state has all that the optimiser's next step looks for."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, values in state.items():
        parameter = parameters[number]
        if values.keys() != state_names(optimizer, parameter):
            raise ValueError(f"found {', '.join(values)} for weight {number}")
        for name, value in values.items():
            alike = name == "step" or (
                isinstance(value, Tensor) and (value.shape, value.dtype) == (parameter.shape, parameter.dtype)
            )
            if not alike or (name == "step" and not 0 <= float(value) < 2**53):
                raise ValueError(f"{name} of weight {number}")


def _check_tensors(path: Path, found: dict[str, Tensor], model: nn.Module) -> None:
    """Names the first tensor that the model has otherwise."""
    expected = {name: (list(value.shape), value.dtype) for name, value in model.state_dict().items()}
    for name in [*expected, *found]:
        here = (list(found[name].shape), found[name].dtype) if name in found else "none"
        if here != expected.get(name, "none"):
            raise InputError(
                f"{path}: of another model: found {name} {here}, expected {expected.get(name, 'none')}"
            )


def _as_state(
    tensors: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """What `_optimizer_state` wrote, as an optimiser takes it; its settings are those that it has."""
    parameters = dict(model.named_parameters())
    state: dict[Tensor, dict[str, Any]] = {parameter: {} for parameter in parameters.values()}
    for place, value in tensors.items():
        name, _, key = place.rpartition("/")
        if name not in parameters or (value.dim() and value.shape != parameters[name].shape):
            raise ValueError(f"found {place} {list(value.shape)}")
        if value.dtype == torch.int64:
            state[parameters[name]][key] = value.item()
        elif value.dim():  # in the parameter's memory format: fused optimisers go through memory as it lies
            state[parameters[name]][key] = torch.empty_like(parameters[name]).copy_(value).detach()
        else:
            state[parameters[name]][key] = value
    places = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return optimizer.state_dict() | {
        "state": {number: state[parameter] for number, parameter in enumerate(places) if state[parameter]}
    }


def read_identity(run: Path, name: str) -> str:
    """What tells the weights of a checkpoint from others: ``step 1200, sha256 0123456789ab``.

    Raises `InputError` naming a missing or damaged file.
    """
    found = find(Path(run), name)
    return f"step {found.step}, sha256 {found.digests['weights'][:12]}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def save_config(run: Path, config: Config) -> None:
    run.mkdir(parents=True, exist_ok=True)
    write_text(run / CONFIG_FILE, config.to_json())


def load_config(run: Path) -> Config:
    path = Path(run) / CONFIG_FILE
    if not path.exists():
        raise InputError(f"{path}: not found; expected a run folder that svg-train has written")
    return Config.from_values(read_json(path, "restore it"), str(path))


def load_model(
    run: str | Path, name: str = "best", device: str | torch.device = "cpu"
) -> tuple[nn.Module, Config]:
    """The trained predictor of a run folder, and its configuration.

    In evaluation mode and with fixed weights: what a planner differentiates is the way from actions to frames. A last checkpoint
    that is damaged is told on stderr, and the one before it taken. Raises `InputError` naming a file that cannot be used.
    """
    from ..models.build import make_model

    run = Path(run)
    config, checkpoint = load_config(run), find(run, name)
    tell_passed_over(checkpoint)
    weights = check_model(checkpoint, config.model)
    model = make_model(config.model)
    model.load_state_dict(weights)
    return model.to(device, memory_format=torch.channels_last).eval().requires_grad_(False), config


def tell_passed_over(checkpoint: Checkpoint) -> None:
    """Says on stderr which damaged checkpoints were passed over for this one."""
    for reason in checkpoint.passed_over:
        tell(f"{reason}; going back to step {checkpoint.step}", error=True)
