"""Pictures and animations of any kind and size to square uint8 frames."""

import argparse
import contextlib
import io
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InputError
from ..files import open_regular
from ..layout import MODEL_WIDTHS

FITS = ("crop", "stretch")
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "GIF")
"""Pillow's others are not opened, whatever a file is called: EPS is a program."""
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif", ".apng")
CONTAINERS = (".gif", ".png", ".apng", ".webp", ".tif", ".tiff")  # files that may hold several frames
MOST_REPEATS = 100  # of a frame: one that an animation shows for longer is a pause
_TIFF_KIND, _TIFF_NO_FRAME = 254, 1 | 4  # a tag, and its bits of thumbnails and masks


class PictureError(ValueError):
    """A picture that can be read and is not taken; the message says why."""


@contextlib.contextmanager
def open_picture(source: bytes | Path, formats: tuple[str, ...] = FORMATS) -> Iterator[Image.Image]:
    """Open a picture or an animation. Raises `ValueError` if it is damaged, of another format or, by Pillow's measure, a bomb.

    Errors within the ``with``, where Pillow decodes, are of that kind, too.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter(
                "ignore", UserWarning
            )  # of notes beside the pixels, such as where it was taken
            with (
                io.BytesIO(source) if isinstance(source, bytes) else open_regular(source) as file,
                Image.open(file, formats=formats) as image,
            ):
                yield image
    except PictureError:
        raise
    except (
        Exception
    ) as error:  # Pillow raises OSError, SyntaxError, ValueError, DecompressionBombError ... on damaged files
        raise ValueError(f"unreadable picture ({error or type(error).__name__})") from None


def decode_picture(source: bytes | Path, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Return an RGB picture. Raises `ValueError` as `open_picture`, and for one of more than 8 bits a channel."""
    with open_picture(source, formats) as image:
        return _to_rgb(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # which Pillow would cut off at 255
        raise PictureError(
            f"a picture of more than 8 bits a channel (mode {image.mode}), which must be converted first"
        )
    return image.convert("RGB")


def count_frames(path: Path) -> int:
    """Return how many frames a picture file holds; 0 if it may hold several and cannot be read."""
    if path.suffix.lower() not in CONTAINERS:
        return 1
    try:
        with open_picture(path) as image:
            return len(_frame_numbers(image))
    except ValueError:
        return 0


def read_animation(path: Path) -> Iterator[Image.Image]:
    """Yield the frames of an animated GIF, PNG or WebP or a TIFF of several pages, as RGB pictures.

    Animations store a frame that stays the same as one that is shown for longer: a frame that is shown k times as long as most
    of them are is yielded k times. Raises `ValueError` as `decode_picture`.
    """
    with open_picture(path) as image:
        if image.format == "GIF":
            _check_end(path)
        numbers = _frame_numbers(image)
        for number, repeats in zip(numbers, _repeats(image, numbers), strict=True):
            image.seek(number)
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:  # a page may be larger than the first one
                raise PictureError(
                    f"frame {number} has {image.width}x{image.height} pixels, more than anything sound"
                )
            picture = _to_rgb(image)
            for _ in range(repeats):
                yield picture


def _check_end(path: Path) -> None:
    """Raise `PictureError` for a GIF without the byte that ends it: Pillow would take what is left of one that was cut."""
    with open_regular(path) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - 1024))
        end = file.read().rstrip(b"\0")
    if not end.endswith(b";"):
        raise PictureError("the file ends in the middle of the animation")


def _frame_numbers(image: Image.Image) -> list[int]:
    """Return the places of the frames in a file: without the still of an animated PNG, and thumbnails and masks of a TIFF."""
    count = getattr(image, "n_frames", 1)
    if image.format != "TIFF" or count == 1:
        return list(range(1 if getattr(image, "default_image", False) else 0, count))
    numbers = []
    for number in range(count):
        image.seek(number)
        if not image.tag_v2.get(_TIFF_KIND, 0) & _TIFF_NO_FRAME:
            numbers.append(number)
    return numbers


def _repeats(image: Image.Image, numbers: list[int]) -> list[int]:
    """Return how many times as long as most frames are shown each of them is."""
    durations = []
    for number in numbers if image.format != "TIFF" else ():
        image.seek(number)
        image.load()  # before which a WebP does not say it
        durations.append(image.info.get("duration") or 0)
    counts = Counter(duration for duration in durations if duration > 0)
    if not counts:
        return [1] * len(numbers)
    usual = min(counts, key=lambda duration: (-counts[duration], duration))
    multiples = [max(1, round(duration / usual)) for duration in durations]
    return [multiple if multiple <= MOST_REPEATS else 1 for multiple in multiples]


def fit_picture(image: Image.Image, width: int, fit: str) -> np.ndarray:
    """Return uint8 [width,width,3], of a grey picture (mode L) [width,width], scaled from the picture.

    "crop" takes the largest square from the middle, "stretch" changes the proportions. A picture that measures this already is
    unchanged; others are resampled with Pillow's anti-aliased Lanczos filter.
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
    parser.add_argument(
        "--image_width", type=int, default=64, help="width and height in pixels (default: %(default)s)"
    )
    parser.add_argument(
        "--fit", choices=FITS, default="crop",
        help="of pictures that are not square: take the square in the middle, or change the proportions (default: %(default)s)",
    )  # fmt: skip


def check_image_width(width: int) -> None:
    if not 8 <= width <= 1024:
        raise InputError(
            f"--image_width: found {width}, expected 8 to 1024 (the models take {' and '.join(map(str, MODEL_WIDTHS))})"
        )
