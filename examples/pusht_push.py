"""A policy for `svg-data record` with PushT: push the T about, no faster than pictures can follow.

Random actions let the hand jump across the board and seldom touch the T. See docs/environment.md for the
command.
"""

from typing import Any

import numpy as np

STEP = 45.0  # how far ahead of the hand the action is; the board is 512 wide
AROUND = 110.0  # from the middle of the T to the place where a push begins
THROUGH = 60.0  # beyond the middle of the T, where a push ends
SPREAD = 25.0  # how far a push may miss the middle of the T, to turn it
NEAR = 20.0  # to a place that counts as there
BOARD = (40.0, 472.0)  # places for the hand
MOST = 15  # frames after which a place that is out of reach is given up


class PushT:
    """Go to a random place beside the T, push through it, and again.

    Args:
        env: the environment, after its reset.
    """

    def __init__(self, env: Any):
        self._env = env
        self._random = np.random.default_rng(int(env.np_random.integers(2**31)))
        self._places: list[np.ndarray] = []
        self._age = 0

    def __call__(self, observation: Any) -> np.ndarray:
        """Return the place that the hand is drawn to [2]; the true places count, not the observation."""
        hand = np.array(self._env.agent.position)
        if self._places and (np.linalg.norm(self._places[0] - hand) < NEAR or self._age >= MOST):
            self._places.pop(0)
            self._age = 0
        if not self._places:
            self._places = self._plan()
        self._age += 1
        way = self._places[0] - hand
        way *= min(1, STEP / np.linalg.norm(way))
        return (hand + way).astype(np.float32)

    def _plan(self) -> list[np.ndarray]:
        """Return two places of the hand: where a push begins and where it ends."""
        block = self._env.block
        middle = np.array(block.local_to_world(block.center_of_gravity))
        turn = self._random.uniform(0, 2 * np.pi)
        way = np.array([np.cos(turn), np.sin(turn)])
        beside = self._random.uniform(-SPREAD, SPREAD) * np.array([-way[1], way[0]])
        return [np.clip(middle + beside + far * way, *BOARD) for far in (-AROUND, THROUGH)]
