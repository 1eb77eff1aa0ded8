"""Run folders: configuration and checkpoints, written whole or not at all, checked and read without running code.

A checkpoint is a JSON file in ``checkpoints/``, ``step-00001200.json`` or ``best.json``: how far the run was and the names and
SHA-256 of the files that belong to it, weights and, of the former, the optimiser's state (safetensors). It gets its name after
they are complete. The newest ``step-*`` that is whole is the last one.
"""

import hashlib
import json
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from data_tools.layout import TEMPORARY, InputError, flush_names, read_json, whole_file, write_text

from .config import Config
from .optimizers import state_names

SCHEMA_VERSION = 2
"""1: ``last.json`` instead of ``step-*.json``, no checksums, the optimiser's state as ``torch.save`` writes it."""
CONFIG_FILE = "config.json"
FOLDER = "checkpoints"
FIGURES = "figures"
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


def save_last(run: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: dict[str, Any], keep: int) -> None:
    """Writes all that resuming needs, `progress` included, and removes the checkpoints before the newest `keep` ones."""
    step = progress["step"]
    contents = {"weights": _weights(model), "optimizer": _optimizer_state(model, optimizer)}
    _save(run, f"step-{step:08d}", f"step-{step:08d}", contents, progress)
    _remove_unnamed(run, {path for path in _entries(run) if path.name == "best.json"} | set(_steps(run)[:keep]))


def save_best(run: Path, model: nn.Module, progress: dict[str, Any]) -> None:
    """Writes the weights as the best ones so far."""
    _save(run, "best", f"best-{progress['step']:08d}", {"weights": _weights(model)}, progress)
    _remove_unnamed(run, set(_entries(run)))


def _save(run: Path, name: str, stem: str, contents: dict[str, dict[str, Tensor]], progress: dict[str, Any]) -> None:
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    files, digests = {}, {}
    for part, tensors in contents.items():
        files[part] = f"{stem}.safetensors" if part == "weights" else f"{stem}.{part}.safetensors"
        data = safetensors.torch.save(tensors)
        digests[part] = hashlib.sha256(data).hexdigest()
        with whole_file(folder / files[part]) as file:
            file.write(data)
    values = {"schema_version": SCHEMA_VERSION, "files": files, "sha256": digests, "progress": progress}
    write_text(folder / f"{name}.json", json.dumps(values | {"checksum": _checksum(values)}, indent=2) + "\n")


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Weights that share memory with nothing and lie in standard order, whatever the memory format in training."""
    return {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}


def _optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """``{"<parameter>/<name>": tensor}``; whole numbers, such as Muon's count of steps, as int64."""
    return {
        f"{name}/{key}": value.detach().cpu().contiguous().clone() if isinstance(value, Tensor) else torch.tensor(value)
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _checksum(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _entries(run: Path) -> list[Path]:
    return [path for path in (run / FOLDER).glob("*.json") if not path.name.startswith(".")]


def _steps(run: Path) -> list[Path]:
    """The checkpoints to resume from, the newest first; that of an earlier release comes last."""
    return [*sorted((run / FOLDER).glob("step-*.json"), reverse=True), *(run / FOLDER).glob("last.json")]


def _remove_unnamed(run: Path, kept: set[Path]) -> None:
    """Removes from the checkpoints' folder what none of the `kept` ones names, each checkpoint before its files."""
    named = {path.name for path in kept}
    for path in kept:
        try:
            named |= {Path(name).name for name in read_json(path, "")["files"].values()}
        except (InputError, KeyError, TypeError, AttributeError):
            return  # one that cannot be read: which files are its own is not known
    others = [path for path in (run / FOLDER).iterdir() if path.name not in named and _is_ours(path)]
    for path in sorted(others, key=lambda path: path.suffix != ".json"):
        path.unlink(missing_ok=True)
    flush_names(run / FOLDER)


def _is_ours(path: Path) -> bool:
    leftover = path.name.startswith(".") and path.name.endswith(TEMPORARY)
    return leftover or path.name.startswith(("step-", "best-", "last-", "last."))


def remove_after(run: Path, step: int) -> None:
    """Removes checkpoints of later steps, of a run that goes on from this one."""
    for path in _steps(run):
        if path.stem.removeprefix("step-").isdecimal() and int(path.stem.removeprefix("step-")) > step:
            path.unlink()


# ---------------------------------------------------------------------------------------------------------- reading


def exists(run: Path, name: str) -> bool:
    """Whether there is a checkpoint `name` (last or best), be it whole or not."""
    return bool(_candidates(run, name))


def _candidates(run: Path, name: str) -> list[Path]:
    return _steps(run) if name == "last" else list((run / FOLDER).glob(f"{name}.json"))


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
    way_out = "; --checkpoint last may be whole" if name == "best" and exists(run, "last") else ""
    raise Damaged(f"{passed_over[0]}; restore it{way_out}")


def _open(path: Path, passed_over: list[str]) -> Checkpoint:
    try:
        values = read_json(path, "restore it")
    except InputError as error:
        raise Damaged(str(error).removesuffix("; restore it")) from None
    version = values.get("schema_version")
    if type(version) is int and version > SCHEMA_VERSION:
        raise InputError(f"{path}: found schema version {version}, expected at most {SCHEMA_VERSION}; use a newer release")
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
    places = {part: path.parent / Path(name).name for part, name in files.items()}  # names alone: nothing out of the folder
    taken = {}
    for part, place in places.items():
        try:
            with open(place, "rb") as file:
                taken[part] = hashlib.file_digest(file, "sha256").hexdigest()
        except (FileNotFoundError, IsADirectoryError):
            raise Damaged(f"{place}: not found, though {path.name} names it") from None
        if digests and taken[part] != digests[part]:
            raise Damaged(f"{place}: damaged (its checksum does not match {path.name})")
    return Checkpoint(path, version, progress, places, taken, passed_over)


def _check_progress(path: Path, progress: Any) -> None:
    number = (int, float)
    expected = {"step": int, "minutes": number, "best_psnr": (*number, type(None))}
    if not isinstance(progress, dict) or not all(
        isinstance(progress.get(name, ""), kind) and not isinstance(progress.get(name), bool) for name, kind in expected.items()
    ):
        raise Damaged(f"{path}: damaged (it does not say how far the run was)")
    if not 0 <= progress["step"] < 2**53:
        raise Damaged(f"{path}: damaged (step {progress['step']})")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises `Damaged`."""
    try:
        return safetensors.torch.load_file(path)
    except OSError as error:
        raise Damaged(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # SafetensorError and, for offsets and types that there are not, whatever follows from them
        raise Damaged(f"{path}: damaged ({_first_line(error)})") from None


def load(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Loads weights (and the optimiser's state) in place. Raises `InputError` naming a file that is of another model."""
    path = checkpoint.files["weights"]
    weights = read_tensors(path)
    _check_tensors(path, weights, model)
    model.load_state_dict(weights)
    if optimizer is None:
        return
    path = checkpoint.files.get("optimizer")
    if path is None:
        raise Damaged(f"{checkpoint.path}: damaged (it names no state of the optimiser)")
    try:
        state = _read_version_1(path) if checkpoint.version == 1 else _as_state(read_tensors(path), model, optimizer)
        _check_state(state["state"], optimizer)
        optimizer.load_state_dict(state)
    except InputError:
        raise
    except Exception as error:  # torch.load raises what the bytes provoke: struct.error, UnpicklingError, RuntimeError ...
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
    """Names the first tensor that the model has otherwise: before memory is taken for a size that a file merely claims."""
    expected = {name: (list(value.shape), value.dtype) for name, value in model.state_dict().items()}
    for name in [*expected, *found]:
        here = (list(found[name].shape), found[name].dtype) if name in found else "none"
        if here != expected.get(name, "none"):
            raise InputError(f"{path}: of another model: found {name} {here}, expected {expected.get(name, 'none')}")


def _as_state(tensors: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
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


def _read_version_1(path: Path) -> dict[str, Any]:
    """A state written by ``torch.save``, read without running code and without unpacking: it never compresses."""
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("compressed, which torch.save never does")
    return torch.load(path, weights_only=True, map_location="cpu")


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


def load_model(run: str | Path, name: str = "best", device: str | torch.device = "cpu") -> tuple[nn.Module, Config]:
    """The trained predictor of a run folder, and its configuration.

    In evaluation mode and with fixed weights: what a planner differentiates is the way from actions to frames. A last checkpoint
    that is damaged is told on stderr, and the one before it taken. Raises `InputError` naming a file that cannot be used.
    """
    from .models import make_model

    run = Path(run)
    config, checkpoint = load_config(run), find(run, name)
    tell_passed_over(checkpoint)
    with torch.device("meta"):  # takes no memory for the sizes of a configuration that may be of anybody
        outline = make_model(config.model)
    weights = read_tensors(checkpoint.files["weights"])
    _check_tensors(checkpoint.files["weights"], weights, outline)
    model = make_model(config.model)
    model.load_state_dict(weights)
    return model.to(device, memory_format=torch.channels_last).eval().requires_grad_(False), config


def tell_passed_over(checkpoint: Checkpoint) -> None:
    """Says on stderr which damaged checkpoints were passed over for this one."""
    for reason in checkpoint.passed_over:
        print(f"{reason}; going back to step {checkpoint.step}", file=sys.stderr)
