"""Files of films: GIF and MP4.

Pillow and imageio-ffmpeg are used themselves, not through imageio: its GIF writer has no palette shared by
all frames and its MP4 writer writes to the final path, which an interrupted command would leave behind
half-written.
"""

from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from PIL import Image

from data_tools.errors import InputError
from data_tools.files import flush_file, remove, temporary_beside, whole_file

from .colours import MARKS

MOST_PALETTE = 60
"""Pictures that a palette is made from; of more, evenly spread ones are taken."""
COLOURS = 256
LAST_STAYS = 4
"""Times that the last picture is shown longer than the others."""


def save_gif(pictures: list[Image.Image], path: Path, fps: float) -> None:
    """Write the file of a GIF; see `write_gif`."""
    with whole_file(path) as file:
        write_gif(pictures, file, fps)


def write_gif(pictures: list[Image.Image], file: BinaryIO, fps: float) -> None:
    """Write a GIF that loops, with one palette for all frames, so that nothing flickers, and no dithering."""
    palette = common_palette(pictures)
    frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    duration = round(1000 / fps)
    pauses = [duration] * (len(frames) - 1) + [duration * LAST_STAYS]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=pauses, loop=0, disposal=1)


def common_palette(pictures: list[Image.Image]) -> Image.Image:
    """Return 256 colours for all pictures, `MARKS` among them.

    Each colour counts by the square root of its pixels: a small bright object keeps its shades.
    """
    spread = pictures[:: -(-len(pictures) // MOST_PALETTE)]
    pixels = np.concatenate([np.asarray(picture)[::2, ::2].reshape(-1, 3) for picture in spread])
    coarse = pixels.astype(np.uint32) >> 2
    _, first, counts = np.unique((coarse << (0, 6, 12)).sum(1), return_index=True, return_counts=True)
    weighted = np.repeat(pixels[first], np.ceil(np.sqrt(counts)).astype(int), axis=0)
    free = COLOURS - len(MARKS)
    palette = Image.fromarray(weighted[None]).quantize(free, Image.Quantize.MEDIANCUT, kmeans=3)
    colours = (palette.getpalette() or [])[: 3 * free]
    palette.putpalette(colours + [value for mark in MARKS for value in mark])
    return palette


def require_mp4() -> None:
    """Raise `InputError` if the package that writes MP4 is missing."""
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"--mp4: {error}; it needs imageio-ffmpeg: pip install '.[video]' or pip install imageio-ffmpeg"
        ) from None


class Mp4Writer:
    """Writer of an MP4 (H.264) that any browser plays.

    Pictures are added as they come; the last one stays for longer. The file gets its name at the end of the
    ``with``, and nothing is left of it after an error.
    """

    def __init__(self, path: Path, fps: float):
        self._path = path
        self._fps = fps
        self._folder = temporary_beside(path)  # ffmpeg follows links: a folder of our own has none
        self._growing = self._folder / "film.mp4"  # ffmpeg goes by the end of the name
        self._writer: Generator[None, np.ndarray | None, None] | None = None
        self._last: np.ndarray | None = None

    def __enter__(self) -> "Mp4Writer":
        return self

    def add(self, picture: Image.Image) -> None:
        """Add the next picture."""
        width, height = (side - side % 2 for side in picture.size)  # H.264 halves the colours' resolution
        self._last = np.ascontiguousarray(np.asarray(picture)[:height, :width])
        if self._writer is None:
            self._writer = self._open(width, height)
        self._writer.send(self._last)

    def _open(self, width: int, height: int) -> Generator[None, np.ndarray | None, None]:
        from imageio_ffmpeg import write_frames

        self._folder.mkdir()
        options = {"fps": self._fps, "quality": 8, "macro_block_size": 2, "ffmpeg_log_level": "error"}
        writer = write_frames(str(self._growing), (width, height), **options)
        writer.send(None)
        return writer

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is None:
            return
        if kind is None:
            for _ in range(LAST_STAYS - 1):
                self._writer.send(self._last)
        self._writer.close()
        if kind is None:
            flush_file(self._growing)
            self._growing.replace(self._path)
        remove(self._folder)


def save_mp4(pictures: list[Image.Image], path: Path, fps: float) -> None:
    """Write an MP4 of all pictures; see `Mp4Writer`."""
    with Mp4Writer(path, fps) as writer:
        for picture in pictures:
            writer.add(picture)
