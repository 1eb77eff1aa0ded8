"""Models that come with the package: run folders in ``svg/released``, each with a card (``README.md``)."""

from pathlib import Path
from typing import TYPE_CHECKING

from data_tools.errors import InputError

if TYPE_CHECKING:
    from ..models.predictor import Predictor

FOLDER = Path(__file__).parent.parent / "released"


def names() -> list[str]:
    """Return the names of the released models."""
    return sorted(path.parent.name for path in FOLDER.glob("*/config.json"))


def released_folder(name: str) -> Path:
    """Return the run folder of a released model. Raises `InputError`."""
    if name not in names():
        raise InputError(f"found {name!r}, expected a released model: {', '.join(names())}")
    return FOLDER / name


def run_folder(model: str | Path) -> Path:
    """Return the run folder of a released model, given by its name (a text), or a path to a run as it is.

    Raises `InputError`.
    """
    if isinstance(model, str) and model in names():
        return released_folder(model)
    if not Path(model).is_dir():
        expected = f"a run folder or the name of a released model: {', '.join(names())}"
        raise InputError(f"found {str(model)!r}, expected {expected}")
    return Path(model)


def load(
    model: str | Path, checkpoint: str = "best", device: str = "auto", precision: str = "auto"
) -> "Predictor":
    """Return a trained predictor, ready to predict.

    `model` is the name of a released model, such as ``push-sim``, or a run folder. Nothing is downloaded.
    `checkpoint` is "best" or "last", `device` "auto", "cpu", "cuda" or "cuda:N", `precision` "auto" (bfloat16
    where the hardware supports it), "bfloat16" or "float32". The weights are fixed; gradients flow to the
    actions. See `svg.models.predictor.Predictor` for ``predict``, which takes arrays and tensors in several
    forms and checks them, and for ``observe`` and ``imagine``, which take tensors on the model's device,
    frames [B,T,C,H,W] uint8 or in [0,1].

    Raises `InputError` for an unknown name and for files that cannot be used.
    """
    # imported here: the names of the released models alone need no PyTorch
    from .. import runtime
    from ..config import TrainConfig
    from ..models.freezing import freeze
    from .checkpoint import load_model

    TrainConfig(precision=precision)  # raises `InputError` for an unknown one
    predictor, _ = load_model(run_folder(model), checkpoint, runtime.choose_device(device))
    return freeze(predictor, precision)
