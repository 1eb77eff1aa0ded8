"""A trial of planning as it was watched: what the camera saw, and what each plan imagined."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

NOTHING = 238
"""Grey of what was not imagined."""


@dataclass(frozen=True)
class Plan:
    """A plan, made in frame `frame`, and what it imagines of the H frames after it.

    Args:
        frame: the number of the frame in which it was made.
        carried_out: how many of its actions were carried out.
        pictures: uint8 [H,h,w,3].
        points: where it foresees the things that are to be moved, [H,M,2], pixels to the right and down.
    """

    frame: int
    carried_out: int
    pictures: np.ndarray
    points: Sequence[Sequence[Sequence[float]]]


@dataclass(frozen=True)
class Shot:
    """One moment of a trial.

    Args:
        frame: what the camera sees, uint8 [H,W,3].
        imagined: what the last plan had foreseen for this moment, likewise; None before the first plan.
        points: where it had foreseen the things, [M,2], pixels to the right and down.
    """

    frame: np.ndarray
    imagined: np.ndarray | None = None
    points: Sequence[Sequence[float]] = ()


@dataclass(frozen=True)
class Episode:
    """A whole trial.

    Args:
        title: in words.
        frames: what the camera saw, T pictures uint8 [H,W,3].
        plans: in the order in which they were made.
        goals: places of the goals, [K,2], pixels to the right and down.
        goal_picture: what it would look like, uint8 [H,W,3].
        distances: metres from the goal in each frame, the largest of all things.
    """

    title: str
    frames: Sequence[np.ndarray]
    plans: Sequence[Plan]
    goals: np.ndarray
    goal_picture: np.ndarray
    distances: Sequence[float]

    @property
    def nothing(self) -> np.ndarray:
        """Return the picture of what was not imagined, uint8 [H,W,3]."""
        return np.full_like(self.frames[0], NOTHING)

    def plan_at(self, time: int) -> Plan | None:
        """Return the plan that was made last by a frame."""
        made = [plan for plan in self.plans if plan.frame <= time]
        return made[-1] if made else None

    def shots(self) -> list[Shot]:
        """Return what was seen and foreseen in each frame.

        Of a plan only what is carried out is shown; where no other one follows, its end stays.
        """
        shots: list[Shot] = []
        for time, frame in enumerate(self.frames):
            plan = self.plan_at(time - 1)
            if plan is None:
                shots.append(Shot(frame))
                continue
            step = time - plan.frame - 1
            if step < plan.carried_out:
                points = plan.points[step] if len(plan.points) else ()
                shots.append(Shot(frame, plan.pictures[step], points))
            else:
                shots.append(replace(shots[-1], frame=frame))
        return shots
