"""Films of several sequences at once: a column for each sequence, a row for each of its videos."""

import numpy as np
from PIL import Image, ImageDraw

from .colours import GIVEN, INK, PAPER, PREDICTED
from .rendering import GAP, first_frame, panel, panel_size, text_font

SIZE = 80
"""Width of a frame in pixels."""
MARGIN, TOP = 6, 22
"""Pixels about the panels and above them."""


def samples_film(sequences: list[dict[str, np.ndarray]], n_past: int) -> list[Image.Image]:
    """Return a picture for each time step of sequences, each of which has videos [T,H,W,3] by label."""
    names = list(sequences[0])
    cell, height = panel_size(first_frame(sequences[0]), SIZE)
    left = 2 * MARGIN + max(int(text_font(13).getlength(name)) for name in names)
    size = (left + len(sequences) * (cell + GAP) + MARGIN, TOP + len(names) * (height + GAP) + MARGIN)
    blank = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(blank)
    for row, name in enumerate(names):
        draw.text((MARGIN, TOP + row * (height + GAP) + height / 2), name, INK, text_font(13), anchor="lm")

    pictures = []
    for time in range(len(sequences[0][names[0]])):
        is_given = time < n_past
        picture = blank.copy()
        words = f"frame {time}, {'given' if is_given else 'predicted'}"
        colour = GIVEN if is_given else PREDICTED
        ImageDraw.Draw(picture).text((left, 16), words, colour, text_font(13), anchor="ls")
        for column, videos in enumerate(sequences):
            for row, name in enumerate(names):
                place = (left + column * (cell + GAP), TOP + row * (height + GAP))
                picture.paste(panel(videos[name][time], is_given, SIZE), place)
        pictures.append(picture)
    return pictures
