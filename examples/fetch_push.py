"""A policy for `svg-data record` with Gymnasium-Robotics' FetchPush: push the cube about.

A random policy hardly ever touches the cube. See docs/environment.md for the command.
"""

from typing import Any

import numpy as np

STEP = 0.05  # metres that an action of 1 asks for
BEHIND = 0.075  # metres from the middle of the cube to the hand that waits behind it
ABOVE = 0.08  # metres above the cube at which the hand passes over it
NEAR = 0.03  # metres to a place that count as there
AREA = 0.12  # metres to either side of the hand's first place within which the cube is pushed


class PushCube:
    """Push the cube to the goal from behind, then to one random place after the other.

    Args:
        env: the environment, after its reset.
    """

    def __init__(self, env: Any):
        self._random = np.random.default_rng(int(env.np_random.integers(2**31)))
        self._first = None
        self._place = None

    def __call__(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """Return the action [4]: displacement of the hand in steps, and fingers, which stay closed."""
        hand, cube = observation["observation"][:3], observation["achieved_goal"]
        if self._place is None:
            self._first, self._place = hand[:2].copy(), observation["desired_goal"][:2]
        if np.linalg.norm(self._place - cube[:2]) < NEAR:
            self._place = self._first + self._random.uniform(-AREA, AREA, 2)
        way = self._place - cube[:2]
        way = way / np.linalg.norm(way)
        move = (self._target(hand, cube, way) - hand) / STEP + self._random.normal(0, 0.1, 3)
        move /= max(1, np.abs(move).max())  # its direction stays where it is too long
        return np.append(move, -1).astype(np.float32)

    def _target(self, hand: np.ndarray, cube: np.ndarray, way: np.ndarray) -> np.ndarray:
        """Return where the hand is to go [3]: over the cube, down behind it, or through it."""
        offset = hand[:2] - cube[:2]
        along = offset @ way
        aside = offset - along * way
        is_low = hand[2] < cube[2] + 0.02
        if is_low and along < 0 and np.linalg.norm(aside) < 0.02:
            return np.append(hand[:2] + STEP * way - aside, cube[2])
        behind = cube[:2] - BEHIND * way
        if np.linalg.norm(hand[:2] - behind) < 0.02:
            return np.append(behind, cube[2])
        if hand[2] < cube[2] + 0.8 * ABOVE:
            return np.append(hand[:2], cube[2] + ABOVE)
        return np.append(behind, cube[2] + ABOVE)
