"""Pictures of videos: frames side by side with given and predicted ones marked, strips of all time steps.

Videos are uint8 ``[T,H,W,3]``; frames before `n_past` are given (green border), the rest are predicted
(orange border).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from data_tools.files import whole_file

from ..evaluation.futures import SequenceFutures
from ..evaluation.metrics import psnr
from ..evaluation.protocols import Protocol
from ..sequences import SequenceDataset
from .colours import GIVEN, INK, PAPER, PREDICTED
from .films import save_gif, save_mp4
from .names import label

BORDER = 4
MARGIN = 8
GAP = 3
"""Pixels between the frames of a strip."""
MOST_COLUMNS = 30
"""Frames of a strip; of a longer video evenly spread ones are taken."""

Scores = dict[str, np.ndarray]
"""PSNR in dB of the frames of some videos by label, [T]; NaN of frames without one, such as given ones."""


def to_video(given: Tensor, predicted: Tensor) -> np.ndarray:
    """Return given and predicted frames as a video uint8 [n_past+F,H,W,3].

    They are [n_past,C,H,W] and [F,C,H,W] in [0,1]. Grey becomes RGB.
    """
    frames = torch.cat([given, predicted.to(given)]).clamp(0, 1).mul(255).round().byte()
    return frames.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()


def pose_video(dataset: SequenceDataset, number: int, frames: int) -> np.ndarray | None:
    """Return the poses of the first frames of a sequence, uint8 [T,H,W,3], None for data without poses.

    The first frame's pose, which nothing needs, is left empty.
    """
    if not dataset.info.pose_channels:
        return None
    poses = dataset.read_conditions(number, 0, frames - 1).float() / 255
    return to_video(poses.new_ones(1, *poses.shape[1:]), poses)


def future_videos(futures: SequenceFutures, protocol: Protocol) -> tuple[dict[str, np.ndarray], Scores]:
    """Return the videos of a sequence by label (ref, rec, pred, samples), and the PSNR of predictions."""
    videos = {"ref": futures.truth, "rec": futures.rec, "pred": futures.pred}
    videos |= {f"sample_{number}": future for number, future in enumerate(futures.samples, start=1)}
    given = np.full(protocol.n_past, np.nan)
    scores = {}
    for name, future in videos.items():
        if name != "ref":
            values = psnr(future, futures.truth, protocol.psnr, protocol.psnr_epsilon)
            scores[name] = np.concatenate([given, values.cpu().numpy()])
    return {name: to_video(futures.past, future) for name, future in videos.items()}, scores


# ---------------------------------------------------------------------------------- parts of pictures


def panel(frame: np.ndarray, given: bool, size: int) -> Image.Image:
    """Return one frame enlarged to a width of `size` pixels, within its border."""
    inner = (size, round(size * frame.shape[0] / frame.shape[1]))
    picture = Image.new("RGB", panel_size(frame, size), GIVEN if given else PREDICTED)
    picture.paste(Image.fromarray(frame).resize(inner, Image.Resampling.BICUBIC), (BORDER, BORDER))
    return picture


def panel_size(frame: np.ndarray, size: int) -> tuple[int, int]:
    """Return width and height in pixels of a frame's `panel`."""
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
    """Return the caption of each of the videos: its label, and the mean of its scores."""
    means = mean_scores(scores)
    return {name: f"{name}: {means[name]}" if name in means else name for name in videos}


def mean_scores(scores: Scores) -> dict[str, str]:
    """Return the mean of each video's scores in words, where there are any."""
    known = {name: values[~np.isnan(values)] for name, values in scores.items()}
    return {name: f"mean {values.mean():.2f} dB" for name, values in known.items() if len(values)}


def first_frame(videos: dict[str, np.ndarray]) -> np.ndarray:
    """Return a frame of the videos, all of which have the same size."""
    return next(iter(videos.values()))[0]


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
    scores = scores or {}
    cell, height = panel_size(first_frame(videos), size)
    top = 26 + (24 if title else 0)
    below = 18 if scores else 0
    width = len(videos) * (cell + MARGIN) + MARGIN
    lefts = {name: MARGIN + column * (cell + MARGIN) for column, name in enumerate(videos)}

    blank = Image.new("RGB", (width, top + height + below + 24), PAPER)
    draw = ImageDraw.Draw(blank)
    draw.text((MARGIN, 18), fitted(title, text_font(15), width - 2 * MARGIN), INK, text_font(15), anchor="ls")
    for name, caption in (above or captions(videos, scores)).items():
        place = (lefts[name] + cell / 2, top - 5)
        draw.text(place, fitted(caption, text_font(14), cell), INK, text_font(14), anchor="ms")

    pictures = []
    for step in range(len(next(iter(videos.values())))):
        time = first + step
        given = time < n_past
        picture = blank.copy()
        draw = ImageDraw.Draw(picture)
        for name, video in videos.items():
            picture.paste(panel(video[step], given, size), (lefts[name], top))
            if name in scores and not np.isnan(scores[name][step]):
                place = (lefts[name] + cell / 2, top + height + 14)
                draw.text(place, f"PSNR {scores[name][step]:.1f} dB", INK, text_font(13), anchor="ms")
        words = f"frame {time}, {'given' if given else 'predicted'}"
        colour = GIVEN if given else PREDICTED
        draw.text((MARGIN, top + height + below + 17), words, colour, text_font(15), anchor="ls")
        pictures.append(picture)
    return pictures


# ---------------------------------------------------------------------------------------------- strips


@dataclass(frozen=True)
class StripLayout:
    """Places in a strip: of the row of each video, and of the columns of frames.

    names   of the videos, as far as they fit
    tops    of the rows, in pixels
    left    of the first column
    cell    width of a column, with `GAP` after it
    height  of a frame
    size    of the picture
    """

    names: dict[str, str]
    tops: dict[str, int]
    left: int
    cell: int
    height: int
    size: tuple[int, int]


def strip(
    videos: dict[str, np.ndarray], n_past: int, size: int = 96, title: str = "", scores: Scores | None = None
) -> Image.Image:
    """Return a picture with a row for each video and a column for each frame.

    Of a long video `MOST_COLUMNS` evenly spread frames are shown. Titles and scores are as in `side_by_side`.
    """
    scores = scores or {}
    means = {name: words for name, words in mean_scores(scores).items() if name in videos}
    steps = len(next(iter(videos.values())))
    times = np.unique(np.linspace(0, steps - 1, min(steps, MOST_COLUMNS)).round().astype(int)).tolist()
    top = 22 + (22 if title else 0)
    layout = _strip_layout(videos, means, size, top, len(times))

    picture = Image.new("RGB", layout.size, PAPER)
    draw = ImageDraw.Draw(picture)
    explained = f"{title}; PSNR of each predicted frame in dB" if means else title
    font = text_font(14)
    draw.text((4, 17), fitted(explained, font, layout.size[0] - 8), INK, font, anchor="ls")
    for name, y in layout.tops.items():
        draw.text((4, y + layout.height / 2), layout.names[name], INK, font, anchor="lm")
        draw.text((4, y + layout.height / 2 + 17), means.get(name, ""), INK, text_font(12), anchor="lm")
    for column, time in enumerate(times):
        x = layout.left + column * (layout.cell + GAP)
        draw.text((x + layout.cell / 2, top - 5), f"{time}", INK, font, anchor="ms")
        for name, video in videos.items():
            y = layout.tops[name]
            picture.paste(panel(video[time], time < n_past, size), (x, y))
            if name in means and not np.isnan(scores[name][time]):
                place = (x + layout.cell / 2, y + layout.height + 12)
                draw.text(place, f"{scores[name][time]:.1f}", INK, text_font(12), anchor="ms")
    return picture


def _strip_layout(
    videos: dict[str, np.ndarray], means: dict[str, str], size: int, top: int, columns: int
) -> StripLayout:
    """Return the layout of a strip; below the rows of `means` there is place for scores."""
    cell, height = panel_size(first_frame(videos), size)
    names = {name: fitted(name, text_font(14), 2 * cell) for name in videos}
    widths = [int(text_font(14).getlength(name)) for name in names.values()]
    widths += [int(text_font(12).getlength(words)) for words in means.values()]
    left = 12 + max(widths)
    tops = {}
    for name in videos:
        tops[name] = top
        top += height + GAP + (16 if name in means else 0)
    return StripLayout(names, tops, left, cell, height, (left + columns * (cell + GAP), top))


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
    """Write GIFs (and MP4) of a sequence and its strip.

    ``<name>_<label>.gif`` for each video, ``<name>.gif`` (and ``.mp4``) side by side, ``<name>.png``. Titles
    and scores are as in `side_by_side`. Returns the paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for part, video in videos.items():
        written.append(folder / f"{name}_{part.split()[0]}.gif")
        save_gif(side_by_side({part: video}, n_past, title=title, scores=scores), written[-1], fps)
    written.append(folder / f"{name}.gif")
    pictures = side_by_side(videos, n_past, title=title, scores=scores)
    save_gif(pictures, written[-1], fps)
    if mp4:
        written.append(folder / f"{name}.mp4")
        save_mp4(pictures, written[-1], fps)
    written.append(folder / f"{name}.png")
    with whole_file(written[-1]) as file:
        strip(videos, n_past, title=title, scores=scores).save(file, "PNG")
    return written
