"""A policy that solves the tasks of `PushEnv` in an ordinary way.

Go behind the object and push it through.
"""

from typing import Any

import numpy as np

from .environment import PushEnv
from .pusher import LOW, MAX_LIFT, MAX_STEP, REACH, PushingPolicy
from .tasks import SUCCESS, away_from

CLEARANCE = 0.035  # metres from an object's edge to the hand that waits behind it
AT_PLACE = 0.012  # metres to a place that count as there
ASIDE = 0.015  # metres that a pushing hand may be beside the line from the object to its goal
PUSH_STEP = 0.025  # metres a frame
_STREAM = 11  # separates the numbers drawn for random pushing from those drawn for scenes and tasks
HIGH_ENOUGH = 0.095  # metres: the fingers pass over every object


class PushThrough:
    """Push each object of the goal to its place from behind, looking at the true places in every frame.

    The hand passes over what lies in its way. It is no planner: it does not foresee what an object that it
    pushes runs into. In the task ``reach`` it goes to the place.
    """

    def __init__(self, env: PushEnv):
        self._env = env

    def __call__(self, observation: Any = None) -> np.ndarray:
        """Return the action for the coming frame, float32 [4]; the true places count, not the observation."""
        goal, simulator = self._env.goal, self._env.simulator
        if not goal.objects:
            return self._go(goal.places[0])
        places = simulator.object_positions[list(goal.objects), :2]
        open_goals = np.flatnonzero(np.linalg.norm(goal.places - places, axis=1) > 0.5 * SUCCESS[goal.task])
        if not len(open_goals):
            return np.zeros(4, np.float32)
        first = open_goals[0]
        return self._push(goal.objects[first], goal.places[first])

    def _push(self, number: int, place: np.ndarray) -> np.ndarray:
        """Return the action that pushes an object to `place` or brings the hand behind it."""
        simulator = self._env.simulator
        hand, there = simulator.position, simulator.object_positions[number, :2]
        left = np.linalg.norm(place - there)
        way = (place - there) / left
        offset = hand[:2] - there
        along = offset @ way
        aside = offset - along * way
        behind = there - (simulator.object_radii[number] + CLEARANCE) * way
        ready = along < 0 and np.linalg.norm(aside) < ASIDE and hand[2] < LOW + 0.01
        if not ready:
            return self._go(behind, avoid=True)
        step = way * PUSH_STEP - 0.5 * aside
        # Two fingers side by side hold an object that is pushed away from the camera or toward it; closed
        # ones meet one that is pushed to the left or right in its middle.
        close = float(abs(way[0]) > abs(way[1]))
        return np.array([*step, 0, close], np.float32)

    def _go(self, place: np.ndarray, avoid: bool = False) -> np.ndarray:
        """Return the action that brings the hand to `place`, if it is to `avoid` objects over them."""
        hand = self._env.simulator.position
        place = np.clip(place, np.negative(REACH), REACH)
        way = place - hand[:2]
        far = np.linalg.norm(way)
        step = way * min(1, MAX_STEP / max(np.abs(way).max(), 1e-9))
        lift = 0
        if avoid and far > AT_PLACE and self._is_blocked(hand[:2], place):
            lift = MAX_LIFT
            if hand[2] < HIGH_ENOUGH:
                step = np.zeros(2)
        return np.array([*step, lift, 0], np.float32)

    def _is_blocked(self, start: np.ndarray, end: np.ndarray) -> bool:
        """Return whether an object lies on the way of the hand."""
        simulator = self._env.simulator
        aside = away_from(simulator.object_positions[:, :2], start, end)
        return bool((aside < simulator.object_radii + 0.03).any())


class RandomPushing:
    """Push objects about at random, as ``svg-data simulate`` does; the task does not matter."""

    def __init__(self, env: PushEnv):
        generator = np.random.default_rng([env.scenes, env.sequence, _STREAM])
        self._policy = PushingPolicy(env.simulator, generator)

    def __call__(self, observation: Any = None) -> np.ndarray:
        """Return the action for the coming frame, float32 [4]."""
        return self._policy.act()
