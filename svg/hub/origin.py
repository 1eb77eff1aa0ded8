"""Where a model was loaded from, and what of that is shared with its weights."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import safetensors.torch
import torch

from data_tools.errors import InputError
from data_tools.files import check_writable, read_bytes, whole_file, write_text

from ..config import Config
from ..models.build import make_model
from ..models.predictor import Origin, Predictor
from ..runs import checkpoint, hub
from ..runs.checkpoint import CARD, FIGURES, PICTURE, Checkpoint
from ..runs.progress import Progress

MOST_CARD_BYTES = 2**20
MOST_PICTURE_BYTES = 2**26


@dataclass(frozen=True)
class RunOrigin(Origin):
    """A checkpoint, best or last, of a run folder, and the identity of the weights that were loaded."""

    run: Path
    checkpoint: str
    identity: str

    @classmethod
    def of(cls, run: Path, name: str) -> "RunOrigin":
        """Return the origin of a model that is loaded from the checkpoint `name` of a run."""
        return cls(run, name, checkpoint.read_identity(run, name))

    def save(self, model: Predictor, folder: Path, licence: str = "", name: str = "") -> None:
        """Write the model as a shared one: configuration, weights, card and picture.

        `name` is what the card calls it; the folder's without. See `Predictor.save_pretrained`.
        """
        if folder.exists() and any(folder.iterdir()) and not checkpoint.is_shared(folder):
            raise InputError(f"{folder}: found other files there, expected a new folder or a shared model")
        found = checkpoint.find(self.run, self.checkpoint)
        if found.identity != self.identity:
            raise InputError(f"{self.run}: has other weights than when the model was loaded; load it again")
        config = _shared_config(checkpoint.load_config(self.run))
        weights, is_changed = _weights(model, found, config)
        progress = Progress(found.progress.step, found.progress.minutes, found.progress.best_psnr)
        picture = None if is_changed else self._picture()
        card = self._own_card(licence, is_changed)
        if card is None:
            from .card import evaluations_of, make_card  # the tables take a second to import

            name = name or folder.resolve().name
            numbers = {"weights": _count(config), "steps": found.step}
            evaluations = [] if is_changed else evaluations_of(self.run, self.identity)
            shown = PICTURE if picture else ""
            card = make_card(name, config, numbers, evaluations, shown, licence, is_changed)
        check_writable(folder)
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.save_shared(folder, weights, progress)
        checkpoint.save_config(folder, config)
        write_text(folder / CARD, card)
        (folder / PICTURE).unlink(missing_ok=True)
        if picture is not None:
            with whole_file(folder / PICTURE) as file:
                file.write(picture)

    def push(self, model: Predictor, repository: str, licence: str = "", **options: Any) -> str:
        """Upload the model and return the address of the commit; see `Predictor.push_to_hub`."""
        with hub.explained(repository):
            from .upload import SharedModel

            shared = SharedModel(lambda folder: self.save(model, folder, licence, repository))
            return str(shared.push_to_hub(repository, **options))

    def _own_card(self, licence: str, is_changed: bool) -> str | None:
        """Return the card that the run has, unless it speaks of other weights."""
        path = self.run / CARD
        if is_changed or not path.is_file():
            return None
        if licence:
            raise InputError(f"license: found {licence!r}, but {path} is the card; state it there")
        return read_bytes(path, MOST_CARD_BYTES).decode(errors="replace")

    def _picture(self) -> bytes | None:
        """Return a GIF of a random sequence, if there is one."""
        splits = ("test", "validate", "train")
        drawn = [self.run / FIGURES / f"{split}_random.gif" for split in splits]
        path = next(filter(Path.is_file, [self.run / PICTURE, *drawn]), None)
        return None if path is None else read_bytes(path, MOST_PICTURE_BYTES)


def _weights(model: Predictor, found: Checkpoint, config: Config) -> tuple[bytes, bool]:
    """Return the file of a model's weights, and whether they are others than those of the checkpoint.

    A frozen model is another form of the checkpoint's weights.
    """
    data = read_bytes(found.files["weights"], checkpoint.MAX_FILE_BYTES)
    if model.is_frozen:
        return data, False
    before = checkpoint.read_weights(found, config.model)
    now = checkpoint.stored(model.state_dict())
    if all(torch.equal(now[name], value) for name, value in before.items()):
        return data, False
    return safetensors.torch.save(now), True


def _count(config: Config) -> int:
    """Return how many weights such a model has."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in make_model(config.model).parameters())


def _shared_config(config: Config) -> Config:
    """Return the configuration without places on this machine: of absolute paths the last part alone."""
    paths = {name: _shared_path(getattr(config.train, name)) for name in ("log_dir", "init_from")}
    data = dataclasses.replace(config.data, data_root=_shared_path(config.data.data_root))
    return dataclasses.replace(config, data=data, train=dataclasses.replace(config.train, **paths))


def _shared_path(path: str) -> str:
    return PurePath(path).name if PurePath(path).is_absolute() or "://" in path else path
