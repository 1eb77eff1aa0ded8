"""Films of long predictions: the prediction beside the truth and the poses, picture by picture."""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

from ..evaluation.rollout import Stretch
from .films import Mp4Writer, save_gif
from .rendering import side_by_side, to_video

MOST_PICTURES = 700
"""Pictures of a GIF; of a longer video each n-th frame is shown. MP4 shows all."""


@dataclass(frozen=True)
class FilmOptions:
    """Files that a film is written to, and its speed in frames a second."""

    gif: bool = True
    mp4: bool = False
    fps: float = 25.0


class RolloutFilm:
    """Film of a prediction, which is written at the end of the ``with``.

    Args:
        stem: path without the ending.
        title: of all pictures.
        frames: number of all frames, given ones included.
        n_past: given frames.
        with_truth: show the truth, which is grey where it is not known.
    """

    def __init__(
        self, stem: Path, title: str, frames: int, n_past: int, with_truth: bool, options: FilmOptions
    ):
        self._title = title
        self._n_past = n_past
        self._with_truth = with_truth
        self._options = options
        self._every = -(-frames // MOST_PICTURES)
        self._gif = Path(f"{stem}.gif") if options.gif else None
        self._mp4 = Mp4Writer(Path(f"{stem}.mp4"), options.fps) if options.mp4 else None
        self._pictures: list[Image.Image] = []
        endings = [".gif"] * options.gif + [".mp4"] * options.mp4
        self.files = [Path(f"{stem}{ending}") for ending in endings]

    def __enter__(self) -> "RolloutFilm":
        return self

    def add(self, stretch: Stretch, psnr: list[float]) -> None:
        """Add the next frames; `psnr` is that of all predicted frames so far."""
        every = 1 if self._mp4 is not None else self._every
        places = [place for place in range(len(stretch.predicted)) if (stretch.first + place) % every == 0]
        if not self.files or not places:
            return
        videos = self._videos(stretch)
        means = np.cumsum(psnr) / np.arange(1, len(psnr) + 1)
        for place in places:
            time = stretch.first + place
            step = time - self._n_past
            score = psnr[step] if 0 <= step < len(psnr) else np.nan
            title = (
                self._title if np.isnan(score) else f"{self._title}: mean PSNR so far {means[step]:.2f} dB"
            )
            frames = {name: video[place : place + 1] for name, video in videos.items()}
            self._add_picture(time, frames, title, score)

    def _videos(self, stretch: Stretch) -> dict[str, np.ndarray]:
        """Return the videos that are shown beside each other, uint8 [F,H,W,3]."""
        predicted = stretch.predicted
        none = predicted[:0]
        videos = {}
        if self._with_truth:
            unknown = 0.5 * predicted.new_ones(predicted[len(stretch.truth) :].shape)
            videos["truth"] = to_video(stretch.truth, unknown)
        videos["prediction"] = to_video(predicted, none)
        if stretch.poses is not None:
            poses = stretch.poses.float() / 255
            videos["pose"] = to_video(poses, poses[:0])
        return videos

    def _add_picture(self, time: int, frames: dict[str, np.ndarray], title: str, score: float) -> None:
        scores = {"prediction": np.array([score])} if self._with_truth else {}
        captions = {name: name for name in frames}
        (picture,) = side_by_side(
            frames, self._n_past, first=time, title=title, scores=scores, above=captions
        )
        if self._gif is not None and time % self._every == 0:
            self._pictures.append(picture)
        if self._mp4 is not None:
            self._mp4.add(picture)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mp4 is not None:
            self._mp4.__exit__(kind, error, trace)
        if kind is None and self._gif is not None:
            save_gif(self._pictures, self._gif, self._options.fps)
