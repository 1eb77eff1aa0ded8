"""Where the objects of a goal are: given by the simulator, or found in the pictures by the judge."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from data_tools.simulators.environment import PushEnv
from data_tools.truth import FIRST_OBJECT

from ..evaluation.judge import Judge, correction, load_judge, outlines
from .world import Marks


@dataclass(frozen=True)
class Perception:
    """Where M objects are now.

    Args:
        places: [M,2], metres on the table.
        marks: the same in the picture.
    """

    places: np.ndarray
    marks: Marks


def given(env: PushEnv) -> Callable[[np.ndarray], Perception]:
    """Return what tells true places and masks of the objects of the goal, whatever frame it is shown."""

    def perceive(frame: np.ndarray) -> Perception:
        objects = list(env.goal.objects)
        places = env.simulator.object_positions[objects]
        return Perception(places[:, :2], Marks(_masks(env), _points(env, places)))

    return perceive


def seen_by_judge(env: PushEnv) -> Callable[[np.ndarray], Perception]:
    """Return what finds the objects of the goal in a frame by their looks.

    It is told once, now, where they are and which pixels show them. An object that is hidden stays where it
    was seen last.
    """
    judge = _judge()
    objects = list(env.goal.objects)
    true = env.simulator.object_positions[objects]
    masks = _masks(env)
    points = _points(env, true)
    heights = true[:, 2:]
    with torch.no_grad():
        features = judge.look(_as_batch(env.render()))
        look = judge.remember(
            features, masks, outlines(masks, points, torch.from_numpy(heights[:, 0]).float()[None])
        )
        first = judge.find(features, look)
        lasting = correction(first.centres, points)
    last = points

    @torch.no_grad()
    def perceive(frame: np.ndarray) -> Perception:
        nonlocal last
        found = judge.find(judge.look(_as_batch(frame)), look)
        is_there = found.presence > 0
        last = torch.where(is_there[..., None], found.centres + lasting, last)
        shown = (found.masks > 0) & is_there[..., None, None]
        places = env.unproject(last[0].double().numpy(), heights)[:, :2]
        return Perception(places, Marks(shown, last))

    return perceive


@cache
def _judge() -> Judge:
    return load_judge(torch.device("cpu"))


def _as_batch(frame: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frame).movedim(-1, 0)[None].float() / 255


def _masks(env: PushEnv) -> torch.Tensor:
    labels = torch.from_numpy(env.segment())
    numbers = torch.tensor(env.goal.objects) + FIRST_OBJECT
    return (labels == numbers[:, None, None])[None]


def _points(env: PushEnv, places: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(env.project(places)).float()[None]
