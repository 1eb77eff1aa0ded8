"""Films of planning: what is drawn where."""

import numpy as np

from svg.figures.colours import GIVEN, PREDICTED
from svg.figures.episode import NOTHING, Episode, Plan
from svg.figures.plan_film import MARGIN, SIZE, TOP, plan_film


def test_a_film_of_planning():
    frame = np.full((64, 64, 3), 100, np.uint8)
    made = Plan(0, 1, np.full((2, 64, 64, 3), 50, np.uint8), [[[16.0, 8.0]], [[0.0, 0.0]]])
    episode = Episode("a title", [frame, frame], [made], np.array([[32.0, 48.0]]), frame, [0.1, 0.05])
    first, second = (np.asarray(picture) for picture in plan_film(episode))
    assert first.shape == second.shape
    border = 4
    left, top = MARGIN + border, TOP + border
    right = left + SIZE + 2 * border + MARGIN
    scale = SIZE / 64
    middle = slice(top + SIZE // 4, top + SIZE // 2)
    assert (first[middle, right : right + SIZE] == NOTHING).all()  # nothing was imagined yet
    assert (second[middle, right + SIZE // 2 : right + SIZE] == 50).all()
    assert (second[middle, left : left + SIZE] == 100).all()

    def colours(panel_left: int, x: float, y: float, reach: int) -> set:
        column, row = panel_left + int((x + 0.5) * scale), top + int((y + 0.5) * scale)
        part = second[row - reach : row + reach + 1, column - reach : column + reach + 1]
        return set(map(tuple, part.reshape(-1, 3).tolist()))

    # the ring is about the goal in both panels, the cross at the imagined place in the right one alone
    for panel_left in (left, right):
        assert GIVEN in colours(panel_left, 32 + 5, 48, 4)
        assert GIVEN not in colours(panel_left, 32, 48, 4)
    assert PREDICTED in colours(right, 16, 8, 2) and PREDICTED not in colours(left, 16, 8, 2)
