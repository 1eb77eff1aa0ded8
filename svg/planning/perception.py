"""Where the objects of a goal are: given by the simulator, or found in pictures by the judge or a model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from data_tools.simulators.environment import PushEnv
from data_tools.truth import FIRST_OBJECT

from ..evaluation.judge import CELL, Judge, cell_centres, correction, load_judge, locate, outlines
from ..models.object_predictor import ObjectPredictor
from .world import AT_POINT, Marks

STRAY = 5.0
"""Pixels (standard deviation) from where an object is expected at which it is still likely to be found."""
EXTENT = 8.0
"""Pixels from its centre beyond which nothing is of an object."""
NEAR_CENTRE = 3.0
"""Pixels from an object's centre within which what points at it is of the object."""
HEIGHT = 0.03
"""Metres above the table at which the middle of an object is taken to be: the mean of simulated ones."""
Perceive = Callable[[np.ndarray, torch.Tensor | None], "Perception"]
"""Tells where objects are in a frame uint8 [H,W,3], expected at pixels [1,M,2], or where they were."""


@dataclass(frozen=True)
class Perception:
    """Where M objects are now.

    Args:
        places: [M,2], metres on the table.
        marks: the same in the picture.
    """

    places: np.ndarray
    marks: Marks


def given(env: PushEnv) -> Perceive:
    """Return what tells true places and masks of the objects of the goal, whatever frame it is shown."""

    def perceive(frame: np.ndarray, expected: torch.Tensor | None = None) -> Perception:
        objects = list(env.goal.objects)
        places = env.simulator.object_positions[objects]
        return Perception(places[:, :2], Marks(_masks(env), _points(env, places)))

    return perceive


def seen_by_judge(env: PushEnv) -> Perceive:
    """Return what finds the objects of the goal in a frame by their looks.

    It is told once, now, where they are and which pixels show them. The judge looks for an object in the
    whole picture; here the likelier of two places is the one nearer to where it is expected. An object that
    is hidden is taken to be there, or where it was before if nothing is expected.
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
    def perceive(frame: np.ndarray, expected: torch.Tensor | None = None) -> Perception:
        nonlocal last
        about = last if expected is None else expected
        found = judge.find(judge.look(_as_batch(frame)), look)
        cells = cell_centres(frame.shape[0] // CELL, about.device)
        away = (cells - about[..., None, :]).square().sum(-1)
        likeliest = (found.heat - away / (2 * STRAY**2)).argmax(-1)
        centres = locate(found.heat, found.offsets, cells[likeliest]) + lasting
        is_there = found.presence > 0
        last = torch.where(is_there[..., None], centres, about)
        right, down = torch.meshgrid(*2 * [torch.arange(len(frame))], indexing="xy")
        beyond = torch.hypot(right - last[..., 0, None, None], down - last[..., 1, None, None]) > EXTENT
        shown = (found.masks > 0) & is_there[..., None, None] & ~beyond
        places = env.unproject(last[0].double().numpy(), heights)[:, :2]
        return Perception(places, Marks(shown, last))

    return perceive


def pointed_at(env: PushEnv, model: ObjectPredictor, points: torch.Tensor | None = None) -> Perceive:
    """Return what finds the objects at which somebody has pointed, by what the model takes for objects.

    `points` [1,M,2] are pixels to the right and down, as of clicks, in the picture of now; by default they
    are in the middle of the goal's objects. Each object is then the one nearest to where it is expected; one
    that is hidden is taken to be there, or where it was before if nothing is expected.
    """
    if points is None:
        points = _points(env, env.simulator.object_positions[list(env.goal.objects)]).round()
    last = points

    @torch.no_grad()
    def perceive(frame: np.ndarray, expected: torch.Tensor | None = None) -> Perception:
        nonlocal last
        about = last if expected is None else expected
        hand = torch.from_numpy(env.simulator.position).float()
        conditions = torch.cat([torch.zeros(model.config.action_dim), hand])[None, None]
        start = model.observe(_as_batch(frame)[None], conditions)
        objects = start.objects
        away = torch.cdist(about, objects.centres) + (1 - objects.present[:, None]) * 1e4
        distance, nearest = away.min(2)
        centres = objects.centres[0][nearest[0]][None]
        last = torch.where((distance < AT_POINT)[..., None], centres, about)
        mask, right, down = start.material.objects[:, model.config.channels :][:, :3].split(1, 1)
        off = torch.hypot(right - last[..., 0, None, None], down - last[..., 1, None, None])
        shown = (mask > 0.5) & (off < NEAR_CENTRE)
        places = env.unproject(last[0].double().numpy(), HEIGHT)[:, :2]
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
