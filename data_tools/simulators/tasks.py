"""The tasks of `PushEnv`: what is to go where, and how a goal is dealt for a scene."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .pusher import REACH, TABLE, Pusher

TASKS = ("reach", "push", "push_many")
SUCCESS = {"reach": 0.02, "push": 0.035, "push_many": 0.035}
"""Metres to the goal, horizontally, within which a task is solved."""
_TRIES = 200  # of a goal within a scene before its wishes are given up one by one
_ROOM = 0.045  # metres between an object's edge and a hand behind it


@dataclass(frozen=True)
class Goal:
    """The goal of an episode.

    Args:
        task: one of `TASKS`.
        objects: the numbers of the objects that are to go to `places`; empty when the hand is to go to the
            only one.
        places: float64 [K,2], metres.
    """

    task: str
    objects: tuple[int, ...]
    places: np.ndarray


class Dealer:
    """Deal the goals of a scene.

    In reach, on free ways where the scene has them, and never solved at the start.
    """

    def __init__(self, simulator: Pusher, generator: np.random.Generator):
        self._generator = generator
        self._hand = simulator.position[:2]
        self._objects = simulator.object_positions[:, :2]
        self._radii = simulator.object_radii

    def deal(self, task: str, goals: int, objects: Any, places: Any) -> Goal:
        """Return the goal of a task; `objects` and `places` are those asked for, or None."""
        if task == "reach":
            place = self._hand_goal() if places is None else checked_place("goal", places, REACH)
            return Goal(task, (), np.reshape(place, (1, 2)))
        numbers = None if objects is None else tuple(int(number) for number in np.atleast_1d(objects))
        if numbers is not None and not set(numbers) <= set(range(len(self._objects))):
            raise ValueError(f"object: found {objects}, expected numbers from 0 to {len(self._objects) - 1}")
        count = (
            len(numbers) if numbers is not None else 1 if task == "push" else min(goals, len(self._objects))
        )
        if places is not None:
            places = checked_place("goal", places, TABLE).reshape(-1, 2)
            numbers = numbers or tuple(
                int(n) for n in self._generator.permutation(len(self._objects))[: len(places)]
            )
            if len(numbers) != len(places):
                raise ValueError(f"goal: found {len(places)} places for {len(numbers)} objects")
            return Goal(task, numbers, places)
        chosen: dict[int, np.ndarray] = {}
        for number in numbers or self._generator.permutation(len(self._objects)).tolist():
            place = self._object_goal(number, chosen, careful=numbers is None)
            if place is not None:
                chosen[number] = place
            if len(chosen) == count:
                break
        if len(chosen) < count:  # a crowded scene
            for number in self._generator.permutation(len(self._objects)).tolist():
                place = self._object_goal(number, chosen, careful=False)
                if len(chosen) < count and number not in chosen and place is not None:
                    chosen[number] = place
        return Goal(task, tuple(chosen), np.array(list(chosen.values())))

    def _hand_goal(self) -> np.ndarray:
        """Return a place for the hand, 12 to 35 cm away and free of objects where there is one."""
        place = -np.sign(self._hand) * np.array(REACH) / 2
        for _ in range(_TRIES):
            drawn = self._generator.uniform(-1, 1, 2) * REACH
            far = np.linalg.norm(drawn - self._hand)
            free = (np.linalg.norm(self._objects - drawn, axis=1) > self._radii + 0.05).all()
            if free and 0.12 < far < 0.35:
                return drawn
        return place

    def _object_goal(self, number: int, others: dict[int, np.ndarray], careful: bool) -> np.ndarray | None:
        """Return a goal 6 to 10 cm from an object.

        If `careful`, only one that a hand behind it can push it to freely.
        """
        start, radius = self._objects[number], self._radii[number]
        for _ in range(_TRIES):
            angle = self._generator.uniform(0, 2 * np.pi)
            length = self._generator.uniform(0.06, 0.10)
            way = np.array([np.cos(angle), np.sin(angle)])
            place = start + length * way
            behind = start - (radius + _ROOM) * way
            on_table = (np.abs(place) < np.array(TABLE) - radius - 0.01).all() and (
                np.abs(place) < REACH
            ).all()
            apart = all(np.linalg.norm(place - other) > 2 * radius for other in others.values())
            reachable = (np.abs(behind) < REACH).all() and self._is_free(number, behind, way, length)
            if on_table and apart and (reachable or not careful):
                return place
        if careful:
            return None
        return start - 0.08 * unit(start)  # toward the middle of the table, always on it

    def _is_free(self, number: int, behind: np.ndarray, way: np.ndarray, length: float) -> bool:
        """Return whether the corridor of an object on its way and of the hand behind it is free of others."""
        rest = np.arange(len(self._objects)) != number
        offset = self._objects[rest] - behind
        along = np.clip(offset @ way, 0, length + self._radii[number] + _ROOM)
        aside = np.linalg.norm(offset - along[:, None] * way, axis=1)
        return bool((aside > self._radii[rest] + max(self._radii[number], 0.05) + 0.01).all())


def checked_place(name: str, place: Any, limits: tuple[float, float]) -> np.ndarray:
    """Return a place, or several, as float64 [...,2]. Raise `ValueError` outside the limits, in metres."""
    values = np.asarray(place, np.float64)
    if values.shape[-1:] != (2,) or not np.isfinite(values).all() or (np.abs(values) > limits).any():
        raise ValueError(f"{name}: found {place}, expected x, y in metres within ±{limits[0]}, ±{limits[1]}")
    return values


def away_from(places: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return how far places [...,2] are from the straight way between two others, [...]."""
    way = end - start
    offset = places - start
    along = np.clip(offset @ way / max(way @ way, 1e-9), 0, 1)
    return np.linalg.norm(offset - along[..., None] * way, axis=-1)


def unit(way: np.ndarray) -> np.ndarray:
    """Return a vector of length 1 in the direction of `way`."""
    return way / max(float(np.linalg.norm(way)), 1e-9)
