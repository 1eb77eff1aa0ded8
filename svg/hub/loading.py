"""Load a trained model by its name, from a folder or from the Hugging Face Hub."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..runs import pretrained

if TYPE_CHECKING:
    from ..models.predictor import Predictor


def load(
    model: str | Path,
    checkpoint: str = "best",
    device: str = "auto",
    precision: str = "auto",
    *,
    revision: str | None = None,
    trainable: bool = False,
) -> "Predictor":
    """Return a trained predictor, ready to predict.

    Args:
        model: the name of a released model, such as ``push-sim``; a run folder, or one that
            ``save_pretrained`` has written; or ``user/repo`` of the Hugging Face Hub, of which configuration,
            weights, card and picture are downloaded into its cache. Nothing else is downloaded, and no code
            is run.
        checkpoint: "best" or "last".
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "auto" (bfloat16 where the hardware supports it), "bfloat16" or "float32".
        revision: a branch, tag or commit of the Hub's repository.
        trainable: the weights take gradients. They are those of the checkpoint, in float32, and ``forward``
            gives what `svg.training.losses.video_loss` takes. The model is in evaluation mode: call
            ``.train()`` before steps of an optimiser and ``.eval()`` before predictions, from which batch
            norms would learn.

    Otherwise the weights are fixed; gradients flow to the actions. See `svg.models.predictor.Predictor` for
    ``predict``, which takes arrays and tensors in several forms and checks them, for ``observe`` and
    ``imagine``, which take tensors on the model's device, frames [B,T,C,H,W] uint8 or in [0,1], and for
    ``save_pretrained`` and ``push_to_hub``.

    Raises `InputError` for an unknown name and for files that cannot be used.
    """
    from .origin import RunOrigin

    run = pretrained.run_folder(model, revision)
    predictor = pretrained.load(run, checkpoint, device, precision, trainable)
    predictor.origin = RunOrigin.of(run, checkpoint)
    return predictor
