"""Trained models by name: those of ``svg/released``, each with a card, and those of the Hub."""

from pathlib import Path
from typing import TYPE_CHECKING

from data_tools.errors import InputError

from . import hub

if TYPE_CHECKING:
    from ..models.predictor import Predictor

FOLDER = Path(__file__).parent.parent / "released"


def names() -> list[str]:
    """Return the names of the released models."""
    return sorted(path.parent.name for path in FOLDER.glob("*/config.json"))


def named_folder(name: str, revision: str | None = None) -> Path:
    """Return the folder of a released model, or of one of the Hugging Face Hub, which is downloaded.

    The latter are called ``user/repo`` or ``user/repo@revision``. Raises `InputError`.
    """
    folder = _find(name, revision)
    if folder is None:
        raise InputError(f"found {name!r}, expected {_released()}")
    return folder


def run_folder(model: str | Path, revision: str | None = None) -> Path:
    """Return the run folder of a model: a path to a run as it is, of a name (a text) its `named_folder`.

    Names of released models come first, then paths; with a `revision` it is a name of the Hub. Raises
    `InputError`.
    """
    if revision is None and model not in names() and Path(model).is_dir():
        return Path(model)
    try:
        folder = _find(model, revision) if isinstance(model, str) else None
    except InputError as error:
        raise InputError(f"{error}; nor is there such a folder here") from None
    if folder is None:
        raise InputError(f"found {str(model)!r}, expected a run folder or {_released()}")
    return folder


def _find(name: str, revision: str | None) -> Path | None:
    """Return the folder of a model by its name; None for what cannot be a name."""
    if name in names() and revision is None:
        return FOLDER / name
    repository = hub.repository_of(name)
    return None if repository is None else hub.download(repository[0], revision or repository[1])


def _released() -> str:
    return f"the name of a released model: {', '.join(names())}, or user/repo of the Hugging Face Hub"


def load(
    model: str | Path,
    checkpoint: str = "best",
    device: str = "auto",
    precision: str = "auto",
    trainable: bool = False,
) -> "Predictor":
    """Return a trained predictor by its `run_folder`, frozen unless it is `trainable`.

    `svg.load` is the same and can also share it (`svg.hub.loading`). Raises `InputError`.
    """
    # imported here: the names of the released models alone need no PyTorch
    from .. import runtime
    from ..config import TrainConfig
    from ..models.freezing import freeze
    from .checkpoint import load_model

    TrainConfig(precision=precision)  # raises `InputError` for an unknown one
    if trainable and precision == "bfloat16":
        advice = "whose weights are float32; leave it out, and compute steps under torch.autocast"
        raise InputError(f"found bfloat16 beside trainable=True, {advice}", "precision")
    predictor, _ = load_model(run_folder(model), checkpoint, runtime.choose_device(device), trainable)
    return predictor if trainable else freeze(predictor, precision)
