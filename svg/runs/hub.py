"""Models of the Hugging Face Hub: read the names that it gives them, and download them."""

import contextlib
import re
from collections.abc import Generator
from pathlib import Path

from data_tools.errors import InputError

PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
NAME = re.compile(rf"({PART}/{PART})(?:@(\S+))?")
EXTRA = "pip install 'svg-push[hub]'"


def repository_of(model: str) -> tuple[str, str | None] | None:
    """Return the repository and the revision of ``user/repo`` and ``user/repo@revision``.

    None for what the Hub cannot hold, such as an absolute path.
    """
    match = NAME.fullmatch(model)
    return (match[1], match[2]) if match else None


def download(repository: str, revision: str | None = None) -> Path:
    """Return the folder of a shared model, in the cache of ``huggingface_hub``; what is there is not fetched.

    `revision` is a branch, a tag or a commit; None is the newest state. Without a network it is what was
    downloaded last. No code is run. Raises `InputError`.
    """
    from .checkpoint import CARD, CONFIG_FILE, PICTURE, SHARED_FILE, SHARED_WEIGHTS

    name = f"{repository}@{revision}" if revision else repository
    needed = [CONFIG_FILE, SHARED_FILE, SHARED_WEIGHTS]
    with explained(name):
        from huggingface_hub import snapshot_download

        files = [*needed, CARD, PICTURE]
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=files))
    for file in needed:
        if not (folder / file).is_file():
            raise InputError(
                f"{name}: found no {file} there, expected a model that save_pretrained has written"
            )
    return folder


@contextlib.contextmanager
def explained(name: str) -> Generator[None]:
    """Turn what the Hub refuses, or a missing library, into an `InputError` of one line."""
    from .checkpoint import first_line

    try:
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        raise InputError(f"{name}: models of the Hugging Face Hub need huggingface_hub; {EXTRA}") from None
    try:
        yield
    except InputError:
        raise
    except LocalEntryNotFoundError:
        advice = "it cannot be reached, or HF_HUB_OFFLINE is set, and its cache has no such model"
        raise InputError(f"{name}: not to be had from the Hugging Face Hub: {advice}") from None
    except HfHubHTTPError as error:
        reason = error.server_message or first_line(error)
        raise InputError(f"{name}: refused by the Hugging Face Hub: {reason}") from None
    except Exception as error:  # whatever the library that speaks HTTP raises
        raise InputError(f"{name}: {first_line(error)}") from None
