"""Read pictures and animations of any kind and size, and fit them into square uint8 frames.

Pillow is called directly. imageio, which reads these files by Pillow as well, does not tell the kinds of TIFF
pages and takes whatever format it finds; scikit-image resizes to other pixels in some eighteen times the time
(30 ms against 1.7 ms from 480 to 64 pixels).
"""

import argparse
import contextlib
import io
import warnings
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InputError
from ..files import open_regular
from ..layout import MODEL_WIDTHS

FITS = ("crop", "stretch")
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "GIF")
"""Other formats of Pillow are not opened, whatever a file is called: an EPS file is a program."""
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif", ".apng")
CONTAINERS = (".gif", ".png", ".apng", ".webp", ".tif", ".tiff")  # files that may hold several frames
MOST_REPEATS = 100  # of a frame; an animation that shows one for longer makes a pause
_TIFF_KIND = 254  # tag of the kind of a page
_TIFF_NO_FRAME = 1 | 4  # its bits of thumbnails and masks


class PictureError(ValueError):
    """The error for a readable picture that is refused; the message has the reason."""


@contextlib.contextmanager
def open_picture(source: bytes | Path, formats: tuple[str, ...] = FORMATS) -> Generator[Image.Image]:
    """Open a picture or an animation.

    Raises `ValueError` if it is damaged, of another format or so large that it is a decompression bomb for
    Pillow. Errors within the ``with``, where Pillow decodes, are converted as well.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # about metadata, such as the place
            with (
                io.BytesIO(source) if isinstance(source, bytes) else open_regular(source) as file,
                Image.open(file, formats=formats) as image,
            ):
                yield image
    except PictureError:
        raise
    except Exception as error:  # on damaged files Pillow raises OSError, SyntaxError, ValueError ...
        raise ValueError(f"unreadable picture ({str(error) or type(error).__name__})") from None


def decode_picture(source: bytes | Path, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Return an RGB picture. Raises `ValueError` as `open_picture`, and for more than 8 bits a channel."""
    with open_picture(source, formats) as image:
        return _to_rgb(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # Pillow would cut off values above 255
        found = f"a picture of more than 8 bits a channel (mode {image.mode})"
        raise PictureError(f"{found}, which must be converted first")
    return image.convert("RGB")


def count_frames(path: Path) -> int:
    """Return the number of frames in a picture file; 0 if it may hold several and cannot be read."""
    if path.suffix.lower() not in CONTAINERS:
        return 1
    try:
        with open_picture(path) as image:
            return len(_frame_numbers(image))
    except ValueError:
        return 0


def read_animation(path: Path) -> Iterator[Image.Image]:
    """Yield the frames of an animated GIF, PNG or WebP or a TIFF of several pages, as RGB pictures.

    Animations store equal frames as one that is shown for longer: a frame that is shown k times as long as
    most of them is yielded k times. Raises `ValueError` as `decode_picture`.
    """
    with open_picture(path) as image:
        if image.format == "GIF":
            _check_end(path)
        numbers = _frame_numbers(image)
        for number, repeats in zip(numbers, _repeats(image, numbers), strict=True):
            image.seek(number)
            most = Image.MAX_IMAGE_PIXELS
            if (
                most is not None and image.width * image.height > most
            ):  # a page may be larger than the first one
                size = f"{image.width}x{image.height}"
                raise PictureError(f"frame {number} has {size} pixels, more than any real picture")
            picture = _to_rgb(image)
            for _ in range(repeats):
                yield picture


def _check_end(path: Path) -> None:
    """Raise `PictureError` for a GIF without its last byte: Pillow would accept one that was cut short."""
    with open_regular(path) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - 1024))
        end = file.read().rstrip(b"\0")
    if not end.endswith(b";"):
        raise PictureError("the file ends in the middle of the animation")


def _frame_numbers(image: Image.Image) -> list[int]:
    """Return the places of the frames in a file.

    The default image of an animated PNG and the thumbnails and masks of a TIFF are left out.
    """
    count = getattr(image, "n_frames", 1)
    if image.format != "TIFF" or count == 1:
        return list(range(1 if getattr(image, "default_image", False) else 0, count))
    numbers = []
    for number in range(count):
        image.seek(number)
        if not image.tag_v2.get(_TIFF_KIND, 0) & _TIFF_NO_FRAME:  # ty: ignore[missing-attribute] of a TIFF
            numbers.append(number)
    return numbers


def _repeats(image: Image.Image, numbers: list[int]) -> list[int]:
    """Return the duration of each frame as a multiple of the most frequent duration."""
    durations = []
    for number in numbers if image.format != "TIFF" else ():
        image.seek(number)
        image.load()  # a WebP tells the duration only then
        durations.append(image.info.get("duration") or 0)
    counts = Counter(duration for duration in durations if duration > 0)
    if not counts:
        return [1] * len(numbers)
    usual = min(counts, key=lambda duration: (-counts[duration], duration))
    multiples = [max(1, round(duration / usual)) for duration in durations]
    return [multiple if multiple <= MOST_REPEATS else 1 for multiple in multiples]


def fit_picture(image: Image.Image, width: int, fit: str) -> np.ndarray:
    """Return the picture scaled to uint8 [width,width,3]; [width,width] of a grey one (mode L).

    "crop" takes the largest square from the middle, "stretch" changes the proportions. A picture of this size
    is unchanged; others are resampled with the anti-aliased Lanczos filter of Pillow.
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
    """Add --image_width and --fit."""
    parser.add_argument(
        "--image_width", type=int, default=64, help="width and height in pixels (default: %(default)s)"
    )
    parser.add_argument(
        "--fit",
        choices=FITS,
        default="crop",
        help="if pictures are not square: take the square in the middle, or change the proportions "
        "(default: %(default)s)",
    )


def check_image_width(width: int) -> None:
    """Raise `InputError` for a value of --image_width that is out of range."""
    if not 8 <= width <= 1024:
        widths = " and ".join(map(str, MODEL_WIDTHS))
        raise InputError(f"--image_width: found {width}, expected 8 to 1024 (the models take {widths})")
