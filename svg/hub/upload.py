"""Upload to the Hugging Face Hub. Importing this needs ``huggingface_hub``, of the extra ``hub``."""

from collections.abc import Callable
from pathlib import Path

from huggingface_hub import ModelHubMixin


class SharedModel(ModelHubMixin):
    """A model that can be uploaded: ``push_to_hub`` of the library, with files that `write` makes."""

    def __init__(self, write: Callable[[Path], None]):
        self._write = write

    def _save_pretrained(self, save_directory: Path) -> None:
        self._write(save_directory)
