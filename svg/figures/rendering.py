"""What people look at: GIFs with given and predicted frames marked, and strips of every time step.

Videos are uint8 ``[T,H,W,3]``; frames before `n_past` are given (green border), the rest are predicted (orange border).
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from data_tools.errors import InputError
from data_tools.files import flush_file, remove, temporary_beside, whole_file

from .names import label

GIVEN, PREDICTED = (0, 158, 115), (213, 94, 0)
"""Green and orange of Okabe & Ito, as in the plots: told apart by the colour-blind too."""
INK, PAPER = (40, 40, 40), (255, 255, 255)
BORDER = 4
MARGIN = 8
MOST_COLUMNS = 30
MOST_PALETTE = 60
"""Frames of a strip, and pictures that a palette is made from; of more, evenly spread ones are taken."""

Scores = dict[str, np.ndarray]
"""PSNR in dB of each frame of some of the videos, by label, [T]; NaN of frames without one, such as given ones."""


def to_video(given: Tensor, predicted: Tensor) -> np.ndarray:
    """Given [n_past,C,H,W] and predicted [F,C,H,W] frames in [0,1] -> uint8 [n_past+F,H,W,3]; grey becomes RGB."""
    frames = torch.cat([given, predicted.to(given)]).clamp(0, 1).mul(255).round().byte()
    return frames.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()


def panel(frame: np.ndarray, given: bool, size: int) -> Image.Image:
    """One frame enlarged to `size` pixels a line, within its border."""
    inner = (size, round(size * frame.shape[0] / frame.shape[1]))
    picture = Image.new("RGB", panel_size(frame, size), GIVEN if given else PREDICTED)
    picture.paste(Image.fromarray(frame).resize(inner, Image.Resampling.BICUBIC), (BORDER, BORDER))
    return picture


def panel_size(frame: np.ndarray, size: int) -> tuple[int, int]:
    """(width, height) in pixels of a frame's `panel`."""
    return size + 2 * BORDER, round(size * frame.shape[0] / frame.shape[1]) + 2 * BORDER


@cache
def text_font(size: int) -> ImageFont.FreeTypeFont:
    """Return the font of the plots."""
    from matplotlib import get_data_path

    return ImageFont.truetype(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def fitted(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Return `text` as one line that is not wider than so many pixels: its middle is left out if need be."""
    most = 200
    line = label(text, most)
    while most > 1 and font.getlength(line) > width:
        most = min(len(line), most) - 1
        line = label(text, most)
    return line


def captions(videos: Iterable[str], scores: Scores) -> dict[str, str]:
    """Return what stands above each of the videos: its label, and the mean of its scores."""
    known = {name: values[~np.isnan(values)] for name, values in scores.items()}
    return {
        name: f"{name}: mean {known[name].mean():.2f} dB" if len(known.get(name, ())) else name
        for name in videos
    }


def side_by_side(
    videos: dict[str, np.ndarray],
    n_past: int,
    size: int = 192,
    first: int = 0,
    title: str = "",
    scores: Scores | None = None,
    above: dict[str, str] | None = None,
) -> list[Image.Image]:
    """Return a picture for each time step: the videos in a row under their captions, the time below.

    Args:
        size: width of a frame in pixels.
        first: the time of the videos' first frames.
        title: of all pictures, such as the sequence's name.
        scores: PSNR of the videos' frames, shown below each.
        above: the captions, by default those of `captions`.
    """
    font, middle, small, scores = text_font(15), text_font(14), text_font(13), scores or {}
    above = above or captions(videos, scores)
    (cell, height), bottom = panel_size(next(iter(videos.values()))[0], size), 24
    top = 26 + 24 * bool(title)
    below = 18 * bool(scores)
    width = len(videos) * (cell + MARGIN) + MARGIN
    blank = Image.new("RGB", (width, top + height + below + bottom), PAPER)
    draw = ImageDraw.Draw(blank)
    draw.text((MARGIN, 18), fitted(title, font, width - 2 * MARGIN), INK, font, anchor="ls")
    lefts = [MARGIN + column * (cell + MARGIN) for column in range(len(videos))]
    for left, name in zip(lefts, videos, strict=True):
        draw.text((left + cell / 2, top - 5), fitted(above[name], middle, cell), INK, middle, anchor="ms")
    pictures = []
    for number in range(len(next(iter(videos.values())))):
        given = first + number < n_past
        picture = blank.copy()
        draw = ImageDraw.Draw(picture)
        for left, (name, video) in zip(lefts, videos.items(), strict=True):
            picture.paste(panel(video[number], given, size), (left, top))
            if name in scores and not np.isnan(scores[name][number]):
                text = f"PSNR {scores[name][number]:.1f} dB"
                draw.text((left + cell / 2, top + height + 14), text, INK, small, anchor="ms")
        text = f"frame {first + number}, {'given' if given else 'predicted'}"
        draw.text((MARGIN, top + height + below + 17), text, GIVEN if given else PREDICTED, font, anchor="ls")
        pictures.append(picture)
    return pictures


def strip(
    videos: dict[str, np.ndarray], n_past: int, size: int = 96, title: str = "", scores: Scores | None = None
) -> Image.Image:
    """Return a row for each video and a column for each frame, or for `MOST_COLUMNS` evenly spread ones of a long video.

    Titles and scores are as in `side_by_side`.
    """
    font, small, scores = text_font(14), text_font(12), scores or {}
    (cell, height), gap = panel_size(next(iter(videos.values()))[0], size), 3
    means = {
        name: text.removeprefix(f"{name}: ")
        for name, text in captions(videos, scores).items()
        if text != name
    }
    names = {name: fitted(name, font, 2 * cell) for name in videos}
    left = 12 + max(int(font.getlength(name)) for name in names.values())
    left = max(left, *(12 + int(small.getlength(text)) for text in means.values()), 0)
    top = 22 + 22 * bool(title)
    heights = {name: height + gap + 16 * (name in means) for name in videos}
    tops = dict(zip(videos, np.cumsum([top, *heights.values()]).tolist(), strict=False))
    steps = len(next(iter(videos.values())))
    times = np.unique(np.linspace(0, steps - 1, min(steps, MOST_COLUMNS)).round().astype(int)).tolist()
    width = left + len(times) * (cell + gap)
    picture = Image.new("RGB", (width, top + sum(heights.values())), PAPER)
    draw = ImageDraw.Draw(picture)
    explained = f"{title}; PSNR of each predicted frame in dB" if means else title
    draw.text((4, 17), fitted(explained, font, width - 8), INK, font, anchor="ls")
    for name, y in tops.items():
        draw.text((4, y + height / 2), names[name], INK, font, anchor="lm")
        draw.text((4, y + height / 2 + 17), means.get(name, ""), INK, small, anchor="lm")
    for column, time in enumerate(times):
        x = left + column * (cell + gap)
        draw.text((x + cell / 2, top - 5), f"{time}", INK, font, anchor="ms")
        for name, video in videos.items():
            picture.paste(panel(video[time], time < n_past, size), (x, tops[name]))
            if name in means and not np.isnan(scores[name][time]):
                draw.text(
                    (x + cell / 2, tops[name] + height + 12),
                    f"{scores[name][time]:.1f}",
                    INK,
                    small,
                    anchor="ms",
                )
    return picture


def save_gif(pictures: list[Image.Image], path: Path, fps: float) -> None:
    """Writes a GIF that loops, with one palette for all its frames (so that nothing flickers) and no dithering."""
    palette = common_palette(pictures)
    frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    duration = round(1000 / fps)
    pauses = [duration] * (len(frames) - 1) + [duration * 4]
    with whole_file(path) as file:
        frames[0].save(
            file, "GIF", save_all=True, append_images=frames[1:], duration=pauses, loop=0, disposal=1
        )


def common_palette(pictures: list[Image.Image]) -> Image.Image:
    """256 colours for all pictures. Each colour counts by the square root of its pixels: a small bright object keeps its shades."""
    some = pictures[:: -(-len(pictures) // MOST_PALETTE)]
    pixels = np.concatenate([np.asarray(picture)[::2, ::2].reshape(-1, 3) for picture in some])
    coarse = pixels.astype(np.uint32) >> 2
    _, first, counts = np.unique((coarse << (0, 6, 12)).sum(1), return_index=True, return_counts=True)
    weighted = np.repeat(pixels[first], np.ceil(np.sqrt(counts)).astype(int), axis=0)
    marks = [PAPER, INK, GIVEN, PREDICTED]
    palette = Image.fromarray(weighted[None]).quantize(256 - len(marks), Image.Quantize.MEDIANCUT, kmeans=3)
    colours = palette.getpalette()[: 3 * (256 - len(marks))]
    palette.putpalette(colours + [value for mark in marks for value in mark])
    return palette


def require_mp4() -> None:
    """Raises `InputError` if what writes MP4 is missing."""
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"--mp4: {error}; it needs imageio-ffmpeg: pip install '.[video]' or pip install imageio-ffmpeg"
        ) from None


class Mp4Writer:
    """Writes pictures to an MP4 (H.264) that any browser plays, as they come; the last one stays for four times as long.

    The file gets its name at the end of the ``with``, and nothing is left of it after an error.
    """

    def __init__(self, path: Path, fps: float):
        self._path, self._fps, self._writer, self._last = path, fps, None, None
        self._folder = temporary_beside(path)  # of our own: ffmpeg follows links
        self._growing = self._folder / "film.mp4"  # ffmpeg goes by the end of the name

    def __enter__(self) -> "Mp4Writer":
        return self

    def add(self, picture: Image.Image) -> None:
        from imageio_ffmpeg import write_frames

        width, height = (side - side % 2 for side in picture.size)  # H.264 halves the colours' resolution
        if self._writer is None:
            self._folder.mkdir()
            options = {"fps": self._fps, "quality": 8, "macro_block_size": 2, "ffmpeg_log_level": "error"}
            self._writer = write_frames(str(self._growing), (width, height), **options)
            self._writer.send(None)
        self._last = np.ascontiguousarray(np.asarray(picture)[:height, :width])
        self._writer.send(self._last)

    def __exit__(self, error: type | None, *_: object) -> None:
        if self._writer is None:
            return
        if error is None:
            for _ in range(3):
                self._writer.send(self._last)
        self._writer.close()
        if error is None:
            flush_file(self._growing)
            self._growing.replace(self._path)
        remove(self._folder)


def save_mp4(pictures: list[Image.Image], path: Path, fps: float) -> None:
    """Writes an MP4 of all pictures; see `Mp4Writer`."""
    with Mp4Writer(path, fps) as writer:
        for picture in pictures:
            writer.add(picture)


def render_sequence(
    folder: Path,
    name: str,
    videos: dict[str, np.ndarray],
    n_past: int,
    fps: float,
    mp4: bool = False,
    title: str = "",
    scores: Scores | None = None,
) -> list[Path]:
    """Write ``<name>_<label>.gif`` for each video, side by side ``<name>.gif`` (and ``.mp4``), and ``<name>.png``, the strip.

    Titles and scores are as in `side_by_side`. Returns the paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"title": title, "scores": scores}
    written = []
    for part, video in videos.items():
        written.append(folder / f"{name}_{part.split()[0]}.gif")
        save_gif(side_by_side({part: video}, n_past, **texts), written[-1], fps)
    written.append(folder / f"{name}.gif")
    pictures = side_by_side(videos, n_past, **texts)
    save_gif(pictures, written[-1], fps)
    if mp4:
        written.append(folder / f"{name}.mp4")
        save_mp4(pictures, written[-1], fps)
    written.append(folder / f"{name}.png")
    with whole_file(written[-1]) as file:
        strip(videos, n_past, **texts).save(file, "PNG")
    return written
