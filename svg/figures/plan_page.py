"""The page of episodes of ``svg-plan``: what the camera saw, and what was imagined at each plan.

The page is the template ``plan.html``.
"""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from ..evaluation.tables import Table
from .episode import Episode
from .page import Group, Panel, Row, render_page

AHEAD = 6
"""Moments of a plan that are shown."""
FPS = 5.0


def build_plan_page(title: str, settings: str, tables: Sequence[Table], episodes: Sequence[Episode]) -> str:
    """Return the page with the `tables` of results and the `episodes` that were watched."""
    frames = max(len(episode.frames) for episode in episodes)
    return render_page(
        "plan.html",
        title,
        [Group(episode.title, [_what_happens(episode), _what_is_ahead(episode)]) for episode in episodes],
        [f"frame {time}" for time in range(frames)],
        0,
        FPS,
        settings=settings,
        tables=[Markup(table.html()) for table in tables],
    )


def _what_happens(episode: Episode) -> Row:
    """Return the camera, what had been imagined of each moment, and the goal."""
    shots = episode.shots()
    goals = episode.goals.tolist()
    away = [f"{1000 * distance:.0f} mm from the goal" for distance in episode.distances]
    nothing = episode.nothing
    imagined = np.stack([nothing if shot.imagined is None else shot.imagined for shot in shots])
    return Row(
        [
            Panel("what happens", np.stack(episode.frames), away, len(shots), goals),
            Panel("as the last plan had it", imagined, (), 0, goals, [shot.points for shot in shots]),
            Panel("the goal", episode.goal_picture[None], (), len(shots), goals),
        ]
    )


def _what_is_ahead(episode: Episode) -> Row:
    """Return what the plan that was made last imagines, at moments ahead, in every frame."""
    horizon = max((len(plan.pictures) for plan in episode.plans), default=0)
    steps = sorted({round(step) for step in np.linspace(horizon / AHEAD, horizon, AHEAD)} - {0})
    last = [episode.plan_at(time) for time in range(len(episode.frames))]
    nothing = episode.nothing
    panels = []
    for step in steps:
        pictures = np.stack([nothing if plan is None else plan.pictures[step - 1] for plan in last])
        points = [() if plan is None or not len(plan.points) else plan.points[step - 1] for plan in last]
        words = ["" if plan is None else f"frame {plan.frame + step}" for plan in last]
        panels.append(Panel(f"{step} ahead", pictures, words, 0, episode.goals.tolist(), points))
    return Row(panels, "What the plan that was made last imagines:" if panels else "", is_small=True)
