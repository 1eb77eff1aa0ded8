"""Run folders: configuration and checkpoints, written whole or not at all, and read without running code.

A checkpoint is a JSON file in ``checkpoints/``, ``step-00001200.json`` or ``best.json``. It holds the
progress of the run, and the names and SHA-256 of the files that belong to it: the weights and, unless it is
the best one, the state of the optimiser (safetensors). It is written after these files are complete. The
newest ``step-*`` that is undamaged is the last checkpoint. File names contain the beginning of the file's
SHA-256, so that no file is ever replaced by one with other contents.

A shared model (`svg.hub`) is a folder with `SHARED_FILE`, such a JSON file, and `SHARED_WEIGHTS`: its best
checkpoint, and its only one.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from .progress import Progress

if TYPE_CHECKING:
    from ..models.predictor import Predictor

SCHEMA_VERSION = 2
"""Version 1: ``last.json`` instead of ``step-*.json``, no checksums, optimiser states by ``torch.save``."""
CONFIG_FILE = "config.json"
FOLDER = "checkpoints"
FIGURES = "figures"
SHARED_FILE = "checkpoint.json"
SHARED_WEIGHTS = "model.safetensors"
CARD = "README.md"
PICTURE = "prediction.gif"
"""Files of a shared model, by the names that the Hugging Face Hub knows."""
OWN_NAMES = re.compile(
    r"(step|best|last)-\d{8,}(-[0-9a-f]{8})?(\.optimizer)?\.(json|safetensors|pt)|last\.json"
)
"""File names that this release and earlier ones give; files with other names belong to the user."""
MAX_FILE_BYTES = 2**34

Tensors = dict[str, Tensor]
"""Tensors by name, as a safetensors file holds them."""


class Damaged(InputError):
    """A checkpoint whose contents are not what was written."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are all there and undamaged.

    `files` and `digests` are by part: ``weights`` and perhaps ``optimizer``. `damaged` lists why newer
    checkpoints were passed over.
    """

    path: Path
    version: int
    progress: Progress
    files: dict[str, Path]
    digests: dict[str, str]
    damaged: list[str] = field(default_factory=list)

    @property
    def step(self) -> int:
        """The number of optimiser steps that are done."""
        return self.progress.step

    @property
    def identity(self) -> str:
        """What identifies the weights: ``step 1200, sha256 0123456789ab``."""
        return f"step {self.step}, sha256 {self.digests['weights'][:12]}"


# ----------------------------------------------------------------------------------------------------------
# writing


def save_last(run: Path, weights: Tensors, optimizer: Tensors, progress: Progress, keep: int) -> None:
    """Write a checkpoint to resume from and remove those before the newest `keep`."""
    name = f"step-{progress.step:08d}"
    _save(run, name, name, {"weights": weights, "optimizer": optimizer}, progress)
    _remove_all_but(run, [*_files(run, "best.json"), *_resumable(run)[:keep]])


def save_best(run: Path, weights: Tensors, progress: Progress) -> None:
    """Write the weights as the best ones so far."""
    _save(run, "best", f"best-{progress.step:08d}", {"weights": weights}, progress)
    _remove_all_but(run, [*_files(run, "best.json"), *_resumable(run)])


def save_shared(folder: Path, weights: bytes, progress: Progress) -> None:
    """Write the bytes of a file of weights as those of a shared model."""
    with whole_file(folder / SHARED_WEIGHTS) as file:
        file.write(weights)
    digests = {"weights": hashlib.sha256(weights).hexdigest()}
    _write_values(folder / SHARED_FILE, {"weights": SHARED_WEIGHTS}, digests, progress)


def _save(run: Path, name: str, stem: str, parts: dict[str, Tensors], progress: Progress) -> None:
    folder = folder_in(run, FOLDER)
    files = {}
    digests = {}
    for part, tensors in parts.items():
        data = safetensors.torch.save(tensors)
        digests[part] = hashlib.sha256(data).hexdigest()
        suffix = "" if part == "weights" else f".{part}"
        files[part] = f"{stem}-{digests[part][:8]}{suffix}.safetensors"
        with whole_file(folder / files[part]) as file:
            file.write(data)
    _write_values(folder / f"{name}.json", files, digests, progress)


def _write_values(path: Path, files: dict[str, str], digests: dict[str, str], progress: Progress) -> None:
    """Write the JSON file of a checkpoint."""
    values = {
        "schema_version": SCHEMA_VERSION,
        "files": files,
        "sha256": digests,
        "progress": progress.to_values(),
    }
    write_text(path, json.dumps(values | {"checksum": checksum(values)}, indent=2) + "\n")


def stored(tensors: Tensors) -> Tensors:
    """Return copies as they are written: on the CPU, in standard memory order, sharing no memory."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def checksum(values: dict[str, Any]) -> str:
    """Return the checksum of a checkpoint's JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _resumable(run: Path) -> list[Path]:
    """Return the checkpoints to resume from, the newest first; the one of schema version 1 comes last."""
    steps = [path for path in _files(run, "step-*.json") if _step_of(path) >= 0]
    return [*sorted(steps, key=_step_of, reverse=True), *_files(run, "last.json")]


def _files(run: Path, pattern: str) -> list[Path]:
    """Return the files and links in the folder of checkpoints; a subfolder belongs to the user."""
    return [path for path in (run / FOLDER).glob(pattern) if path.is_symlink() or not path.is_dir()]


def _step_of(path: Path) -> int:
    """Return the step in the name of a checkpoint to resume from; -1 for other files."""
    number = re.fullmatch(r"step-(\d{8,})\.json", path.name)
    return int(number[1]) if number else -1


def _remove_all_but(run: Path, kept: list[Path]) -> None:
    """Remove all checkpoints but the `kept` ones, each before the files that it names."""
    names = {path.name for path in kept}
    for path in kept:
        try:
            names |= {Path(name).name for name in read_json(path, "")["files"].values()}
        except (InputError, KeyError, TypeError, AttributeError):
            return  # which files belong to an unreadable checkpoint is not known
    others = [path for path in _files(run, "*") if path.name not in names and OWN_NAMES.fullmatch(path.name)]
    for path in sorted(others, key=lambda path: path.suffix != ".json"):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            tell(f"note: {path}: cannot be removed ({error.strerror}); remove it by hand", error=True)
    flush_names(run / FOLDER)


def remove_after(run: Path, step: int) -> None:
    """Remove checkpoints after `step`, from which the run goes on, and leftovers of killed writers."""
    for path in _resumable(run):
        if _step_of(path) > step:
            path.unlink()
    for note in [*remove_leftovers(run), *remove_leftovers(run / FOLDER)]:
        tell(f"note: {note}", error=True)


# ----------------------------------------------------------------------------------------------------------
# reading


def exists(run: Path, name: str) -> bool:
    """Return whether there is a checkpoint `name` (last or best), damaged or not."""
    return bool(_candidates(run, name))


def is_shared(run: Path) -> bool:
    """Return whether a folder holds a shared model."""
    return (run / SHARED_FILE).is_file()


def _candidates(run: Path, name: str) -> list[Path]:
    if name == "last":
        return _resumable(run)
    return _files(run, f"{name}.json") or ([run / SHARED_FILE] if is_shared(run) else [])


def find(run: Path, name: str) -> Checkpoint:
    """Return the best checkpoint, or the last one that is undamaged.

    Raises `InputError` if there is none, and `Damaged` if all are damaged.
    """
    damaged: list[str] = []
    for path in _candidates(run, name):
        try:
            return _open(path, damaged)
        except Damaged as error:
            damaged.append(str(error))
    if not damaged:
        raise InputError(
            f"{run / FOLDER}: found no {name} checkpoint; is {run} a run folder that svg-train has written?"
        )
    way_out = "; the checkpoint last may be whole" if name == "best" and exists(run, "last") else ""
    raise Damaged(f"{damaged[0]}; restore it{way_out}")


def find_any(run: Path, name: str) -> Checkpoint | None:
    """Return what `find` returns, or None if there is no such checkpoint."""
    return find(run, name) if exists(run, name) else None


def _open(path: Path, damaged: list[str]) -> Checkpoint:
    version, values = _read_values(path)
    names = _read_names(path, values, "files")
    expected = {} if version == 1 else _read_names(path, values, "sha256")
    if "weights" not in names or (expected and names.keys() != expected.keys()):
        raise Damaged(f"{path}: damaged (it names no weights)")
    try:
        progress = Progress.from_values(values.get("progress"))
    except ValueError as error:
        raise Damaged(f"{path}: damaged (it does not say how far the run was: {str(error)[:80]})") from None
    # by their names alone: a path must not lead out of the folder
    files = {part: path.parent / Path(name).name for part, name in names.items()}
    digests = {part: _digest(file, path) for part, file in files.items()}
    for part, digest in expected.items():
        if digests[part] != digest:
            raise Damaged(f"{files[part]}: damaged (its checksum does not match {path.name})")
    return Checkpoint(path, version, progress, files, digests, damaged)


def _read_values(path: Path) -> tuple[int, dict[str, Any]]:
    """Return the schema version and the values of a checkpoint's JSON file, in the newest version's form."""
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
        progress = {key: value for key, value in values.items() if key not in ("schema_version", "files")}
        return 1, {"files": values.get("files"), "progress": progress}
    if values.pop("checksum", None) != checksum(values) or version != SCHEMA_VERSION:
        raise Damaged(f"{path}: damaged (its checksum does not match)")
    return SCHEMA_VERSION, values


def _read_names(path: Path, values: dict[str, Any], key: str) -> dict[str, str]:
    names = values.get(key)
    if not isinstance(names, dict) or not all(isinstance(text, str) for text in names.values()):
        raise Damaged(f"{path}: damaged (it names no files)")
    return names


def _digest(file: Path, checkpoint: Path) -> str:
    """Return the SHA-256 of a file that a checkpoint names. Raises `Damaged` if it cannot be read."""
    try:
        with open_regular(file) as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except (OSError, ValueError) as error:  # ValueError: an impossible name
        raise Damaged(f"{file}: cannot be read, though {checkpoint.name} names it ({error})") from None


def read_tensors(path: Path, max_bytes: int = MAX_FILE_BYTES) -> Tensors:
    """Return the tensors of a safetensors file of at most `max_bytes`. Raises `Damaged`."""
    try:
        return safetensors.torch.load(read_bytes(path, max_bytes))
    except OSError as error:
        raise Damaged(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # SafetensorError, or whatever follows from impossible offsets and types
        raise Damaged(f"{path}: damaged ({first_line(error)})") from None


def max_file_bytes(model: nn.Module) -> int:
    """Return the largest size of a file of the model's weights; names and shapes take some hundred bytes."""
    return sum(1000 + value.nbytes for value in model.state_dict().values()) + 2**16


def read_weights(checkpoint: Checkpoint, config: ModelConfig) -> Tensors:
    """Return the weights of a checkpoint.

    Raises `InputError` if they are not those of such a model, before memory is taken for the sizes in
    `config`.
    """
    from ..models.build import make_model

    with torch.device("meta"):
        outline = make_model(config)
    path = checkpoint.files["weights"]
    weights = read_tensors(path, max_file_bytes(outline))
    expected = _describe(outline.state_dict())
    found = _describe(weights)
    for name in [*expected, *found]:
        if found.get(name) != expected.get(name):
            shapes = f"found {name} {found.get(name, 'none')}, expected {expected.get(name, 'none')}"
            raise InputError(f"{path}: of another model: {shapes}")
    return weights


def _describe(tensors: Tensors) -> dict[str, tuple[list[int], torch.dtype]]:
    return {name: (list(value.shape), value.dtype) for name, value in tensors.items()}


def read_identity(run: Path, name: str) -> str:
    """Return the `Checkpoint.identity` of a run's checkpoint.

    Raises `InputError` naming a missing or damaged file.
    """
    return find(Path(run), name).identity


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, at most 200 characters."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def save_config(run: Path, config: Config) -> None:
    """Write the configuration of a run."""
    run.mkdir(parents=True, exist_ok=True)
    write_text(run / CONFIG_FILE, config.to_json())


def load_config(run: Path) -> Config:
    """Return the configuration of a run. Raises `InputError`."""
    path = Path(run) / CONFIG_FILE
    if not path.exists():
        raise InputError(f"{path}: not found; expected a run folder that svg-train has written")
    return Config.from_values(read_json(path, "restore it"), str(path))


def load_model(
    run: str | Path, name: str = "best", device: str | torch.device = "cpu", trainable: bool = False
) -> tuple["Predictor", Config]:
    """Return the trained predictor of a run folder and its configuration.

    The model is in evaluation mode and its weights take no gradients, unless it is to be `trainable`;
    gradients flow to the actions. If the last checkpoint is damaged, the one before it is loaded, with a note
    on stderr. Raises `InputError` naming a file that cannot be used.
    """
    from ..models.build import make_model

    run = Path(run)
    config = load_config(run)
    checkpoint = find(run, name)
    report_damaged(checkpoint)
    weights = read_weights(checkpoint, config.model)
    model = make_model(config.model)
    model.load_state_dict(weights)
    model.to(device).to(memory_format=torch.channels_last)
    if not trainable:
        model.requires_grad_(False)
    return model.eval(), config


def report_damaged(checkpoint: Checkpoint) -> None:
    """Print to stderr which damaged checkpoints were passed over for this one."""
    for reason in checkpoint.damaged:
        tell(f"{reason}; going back to step {checkpoint.step}", error=True)
