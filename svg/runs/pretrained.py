"""Models that come with the package: run folders in ``svg/released``, each with a card about it (``README.md``)."""

from pathlib import Path
from typing import TYPE_CHECKING

from data_tools.errors import InputError

if TYPE_CHECKING:
    from ..models.predictor import Predictor

FOLDER = Path(__file__).parent.parent / "released"


def names() -> list[str]:
    """The released models."""
    return sorted(path.parent.name for path in FOLDER.glob("*/config.json"))


def released_folder(name: str) -> Path:
    """Where a released model lies. Raises `InputError`."""
    if name not in names():
        raise InputError(f"found {name!r}, expected a released model: {', '.join(names())}")
    return FOLDER / name


def run_folder(model: str | Path) -> Path:
    """The run folder that the name of a released model (a text) or the path of a run stands for. Raises `InputError`."""
    if isinstance(model, str) and model in names():
        return released_folder(model)
    if not Path(model).is_dir():
        raise InputError(
            f"found {str(model)!r}, expected a run folder or the name of a released model: {', '.join(names())}"
        )
    return Path(model)


def load(
    model: str | Path, checkpoint: str = "best", device: str = "auto", precision: str = "auto"
) -> "Predictor":
    """A trained predictor, ready to predict: a released model by its name, such as ``push-sim``, or a run folder.

    Nothing is downloaded. `checkpoint` is "best" or "last", `device` "auto", "cpu", "cuda" or "cuda:N", `precision` "auto"
    (bfloat16 where the hardware has it), "bfloat16" or "float32". The weights are fixed; gradients flow to the actions. See
    `svg.models.predictor.Predictor` for ``predict``, which takes arrays and tensors of several forms and checks them, and
    for ``observe`` and ``imagine``, which take tensors on the model's device, frames [B,T,C,H,W] uint8 or in [0,1].

    Raises `InputError` for a name that is neither, and for files that cannot be used.
    """
    from .. import runtime  # here: whoever wants a name alone need not wait for PyTorch
    from ..config import TrainConfig
    from ..models.freezing import freeze
    from .checkpoint import load_model

    TrainConfig(precision=precision)  # raises `InputError` for an unknown one
    predictor, _ = load_model(run_folder(model), checkpoint, runtime.choose_device(device))
    return freeze(predictor, precision)
