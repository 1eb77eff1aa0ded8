"""Colours of pictures beside those of their frames."""

GIVEN = (0, 158, 115)
PREDICTED = (213, 94, 0)
"""Green and orange of Okabe & Ito, as in the plots: told apart by the colour-blind too."""
INK = (40, 40, 40)
PAPER = (255, 255, 255)
MARKS = (PAPER, INK, GIVEN, PREDICTED)
"""Colours that every palette has exactly."""
