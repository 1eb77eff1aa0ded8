"""Pictures of any kind and size to square uint8 frames."""

import argparse
import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import InputError
from .files import open_regular

FITS = ("crop", "stretch")
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
"""Pillow's others are not opened, whatever a file is called: EPS is a program."""


@contextlib.contextmanager
def open_picture(source: bytes | Path, formats: tuple[str, ...] = FORMATS) -> Iterator[Image.Image]:
    """A picture or an animation. Raises `ValueError` if it is damaged, of another format or, by Pillow's measure, a bomb.

    Errors within the ``with``, where Pillow decodes, are of that kind, too.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # of notes beside the pixels, such as where it was taken
            with (
                io.BytesIO(source) if isinstance(source, bytes) else open_regular(source) as file,
                Image.open(file, formats=formats) as image,
            ):
                yield image
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, DecompressionBombError ... on damaged files
        raise ValueError(f"unreadable picture ({error or type(error).__name__})") from None


def decode_picture(source: bytes | Path, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """An RGB picture. Raises `ValueError` as `open_picture`, and for one of more than 8 bits a channel."""
    with open_picture(source, formats) as image:
        mode, picture = image.mode, image.convert("RGB")
    if mode.startswith(("I", "F")):  # which Pillow has cut off at 255
        raise ValueError(f"a picture of more than 8 bits a channel (mode {mode}), which must be converted first")
    return picture


def fit_picture(image: Image.Image, width: int, fit: str) -> np.ndarray:
    """uint8 [width,width,3]: "crop" takes the largest square from the middle, "stretch" changes the proportions.

    A picture that measures this already is unchanged; others are resampled with Pillow's anti-aliased Lanczos filter.
    """
    if image.size == (width, width):
        return np.asarray(image)
    box = None
    if fit == "crop":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
    return np.asarray(image.resize((width, width), Image.Resampling.LANCZOS, box))


def add_fit_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image_width", type=int, default=64, help="width and height in pixels (default: %(default)s)")
    parser.add_argument(
        "--fit", choices=FITS, default="crop",
        help="of pictures that are not square: take the square in the middle, or change the proportions (default: %(default)s)",
    )  # fmt: skip


def check_image_width(width: int) -> None:
    if not 8 <= width <= 1024:
        raise InputError(f"--image_width: found {width}, expected 8 to 1024 (the models take 64 and 128)")
