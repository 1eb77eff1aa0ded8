"""Run folders: configuration, metrics and checkpoints, written whole or not at all, read without running code.

A checkpoint is ``checkpoints/{last,best}.json``, which names its files: weights (safetensors) and, for the last one, the
optimiser's state. The JSON is replaced in one step after the files it names are complete.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from data_tools.layout import InputError, read_json, write_text

from .config import SCHEMA_VERSION, Config

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
FOLDER = "checkpoints"
FIGURES = "figures"


def save(run: Path, name: str, model: nn.Module, progress: dict[str, Any], optimizer: torch.optim.Optimizer | None) -> None:
    """Writes the checkpoint `name` (last or best); `progress` is what resuming needs besides weights and optimiser state."""
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name}-{progress['step']:08d}"
    files = {"weights": f"{stem}.safetensors"}
    # Weights that share memory with nothing and lie in standard order, whatever the memory format in training
    weights = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    _write(folder / files["weights"], lambda path: save_file(weights, path))
    if optimizer is not None:
        files["optimizer"] = f"{stem}.optimizer.pt"
        _write(folder / files["optimizer"], lambda path: torch.save(optimizer.state_dict(), path))
    write_text(folder / f"{name}.json", json.dumps({"schema_version": SCHEMA_VERSION, "files": files, **progress}, indent=2) + "\n")
    for old in folder.glob(f"{name}-*"):
        if old.name not in files.values():
            old.unlink()


def _write(path: Path, write: Any) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    write(temporary)
    os.replace(temporary, path)


def exists(run: Path, name: str) -> bool:
    return (run / FOLDER / f"{name}.json").exists()


def load(run: Path, name: str, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> dict[str, Any]:
    """Loads weights (and optimiser state) in place and returns the progress. Raises `InputError` naming a missing or bad file."""
    path = run / FOLDER / f"{name}.json"
    try:
        progress = json.loads(path.read_text())
        files = progress.pop("files")
        version = progress.pop("schema_version")
        if version != SCHEMA_VERSION:
            raise InputError(f"{path}: found schema version {version}, expected {SCHEMA_VERSION}; use a matching release")
        path = run / FOLDER / Path(files["weights"]).name
        model.load_state_dict(load_file(path))
        if optimizer is not None:
            path = run / FOLDER / Path(files["optimizer"]).name
            optimizer.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: not found; is {run} a run folder that svg-train has written?") from None
    except Exception as error:  # torch.load raises what the bytes provoke: struct.error, UnpicklingError, RuntimeError ...
        raise InputError(f"{path}: damaged or of another model ({_first_line(error)}); restore it") from None
    return progress


def read_identity(run: Path, name: str) -> str:
    """What tells the weights of a checkpoint from others: ``step 1200, sha256 0123456789ab``.

    Raises `InputError` naming a missing or damaged file.
    """
    path = Path(run) / FOLDER / f"{name}.json"
    progress = read_json(path, f"is {run} a run folder that svg-train has written?")
    try:
        weights = path.parent / Path(progress["files"]["weights"]).name
        with open(weights, "rb") as file:
            return f"step {progress['step']}, sha256 {hashlib.file_digest(file, 'sha256').hexdigest()[:12]}"
    except (KeyError, TypeError, OSError) as error:
        raise InputError(f"{path}: damaged ({error}); restore it") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def save_config(run: Path, config: Config) -> None:
    run.mkdir(parents=True, exist_ok=True)
    write_text(run / CONFIG_FILE, config.to_json())


def load_config(run: Path) -> Config:
    path = Path(run) / CONFIG_FILE
    return Config.from_json(_read_text(path), str(path))


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        raise InputError(f"{path}: not found; expected a run folder that svg-train has written") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; restore it") from None


def load_model(run: str | Path, name: str = "best", device: str | torch.device = "cpu") -> tuple[nn.Module, Config]:
    """The trained predictor of a run folder, and its configuration.

    In evaluation mode and with fixed weights: what a planner differentiates is the way from actions to frames.
    """
    from .models import make_model

    run = Path(run)
    config = load_config(run)
    model = make_model(config.model)
    load(run, name, model)
    return model.to(device, memory_format=torch.channels_last).eval().requires_grad_(False), config


def append_metrics(run: Path, values: dict[str, Any]) -> None:
    with open(run / METRICS_FILE, "a") as file:
        file.write(json.dumps(values) + "\n")


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``, one an epoch. Raises `InputError` naming a bad line."""
    path = Path(run) / METRICS_FILE
    lines = []
    for number, text in enumerate(_read_text(path).splitlines(), start=1):
        line = _parse_line(text)
        if line is None:
            raise InputError(f"{path} line {number}: found {text[:40]!r}, expected an epoch's metrics; remove this line")
        lines.append(line)
    return lines


def _parse_line(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except json.JSONDecodeError:
        return None
    return line if isinstance(line, dict) and {"epoch", "step"} <= line.keys() else None


def truncate_metrics(run: Path, step: int) -> None:
    """Drops what was logged after `step` and a line cut off while it was written: a resumed run does these epochs again."""
    if (run / METRICS_FILE).exists():
        lines = [_parse_line(text) for text in _read_text(run / METRICS_FILE).splitlines()]
        kept = [line for line in lines if line is not None and line["step"] <= step]
        write_text(run / METRICS_FILE, "".join(json.dumps(line) + "\n" for line in kept))
