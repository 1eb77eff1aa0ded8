"""Films of planning: what happens, beside what was imagined of it when the plan was made."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from .colours import GIVEN, INK, PAPER, PREDICTED
from .episode import Episode
from .rendering import fitted, panel, text_font

SIZE = 208
"""Width of a frame in pixels."""
RING = 5.0
"""Radius in pixels of a frame of the ring about a goal."""
MARGIN, TOP = 8, 50
"""Pixels about the panels and above them."""


def plan_film(episode: Episode) -> list[Image.Image]:
    """Return the pictures of a film, a ring about each of the goals, a cross at foreseen places."""
    pictures = []
    for time, shot in enumerate(episode.shots()):
        seen = panel(_marked(shot.frame, episode.goals, ()), True, SIZE)
        imagined = panel(
            episode.nothing if shot.imagined is None else _marked(shot.imagined, episode.goals, shot.points),
            False,
            SIZE,
        )
        width, height = seen.size
        picture = Image.new("RGB", (2 * width + 3 * MARGIN, height + TOP + MARGIN), PAPER)
        draw = ImageDraw.Draw(picture)
        draw.text((MARGIN, 4), fitted(episode.title, text_font(15), 2 * width), INK, text_font(15))
        for number, (part, caption) in enumerate(((seen, f"frame {time}"), (imagined, "as it was imagined"))):
            left = MARGIN + number * (width + MARGIN)
            draw.text((left, 28), caption, INK, text_font(14))
            picture.paste(part, (left, TOP))
        pictures.append(picture)
    return pictures


def _marked(frame: np.ndarray, goals: np.ndarray, points: Sequence[Sequence[float]]) -> np.ndarray:
    """Return a frame enlarged, with rings about goals and crosses at points."""
    picture = Image.fromarray(frame).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    scale = SIZE / frame.shape[1]
    draw = ImageDraw.Draw(picture)
    for x, y in (np.asarray(goals) + 0.5) * scale:
        radius = RING * scale
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=GIVEN, width=3)
    for x, y in (np.asarray(points).reshape(-1, 2) + 0.5) * scale:
        draw.line((x - 6, y, x + 6, y), PREDICTED, 2)
        draw.line((x, y - 6, x, y + 6), PREDICTED, 2)
    return np.asarray(picture)
