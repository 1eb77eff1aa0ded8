"""The policies in examples/, on tables of their own: their environments are packages of others."""

from types import SimpleNamespace

import numpy as np
import pytest

from examples import pusht_push
from examples.fetch_push import PushCube

RADIUS = 0.035  # metres between the middles of hand and cube that touch
STEP = 0.03  # metres that the hand moves for an action of 1


class Table:
    """A hand at [1.34, 0.75] and a cube that gives way to it where the hand is low."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.hand = np.array([1.34, 0.75, 0.42])
        turn = self.random.uniform(0, 2 * np.pi)
        self.cube = self.hand + 0.12 * np.array([np.cos(turn), np.sin(turn), 0])
        self.goal = self.hand + np.append(self.random.uniform(-0.15, 0.15, 2), 0)

    def observe(self):
        return {
            "observation": np.concatenate([self.hand, self.cube]),
            "achieved_goal": self.cube.copy(),
            "desired_goal": self.goal.copy(),
        }

    def step(self, action):
        self.hand = self.hand + STEP * np.clip(action[:3], -1, 1)
        offset = self.cube[:2] - self.hand[:2]
        distance = np.linalg.norm(offset)
        if self.hand[2] < self.cube[2] + 0.04 and distance < RADIUS:
            self.cube[:2] = self.hand[:2] + offset / distance * RADIUS


@pytest.mark.parametrize("seed", range(8))
def test_the_cube_comes_to_the_goal_and_goes_on(seed):
    table = Table(seed)
    policy = PushCube(SimpleNamespace(np_random=table.random))
    path, distances = 0.0, [np.linalg.norm(table.cube - table.goal)]
    for _ in range(80):
        before = table.cube.copy()
        action = policy(table.observe())
        assert action.shape == (4,) and action.dtype == np.float32 and np.abs(action).max() <= 1
        table.step(action)
        path += np.linalg.norm(table.cube - before)
        distances.append(np.linalg.norm(table.cube - table.goal))
        assert np.abs(table.cube[:2] - [1.34, 0.75]).max() < 0.25
    assert min(distances) < 0.05  # FetchPush calls this a success
    assert path > distances[0] + 0.05  # it was pushed to other places, too


class Board:
    """A hand that goes halfway to an action, and a T that it does not move."""

    def __init__(self, seed):
        self.np_random = np.random.default_rng(seed)
        self.agent = SimpleNamespace(position=self.np_random.uniform(50, 450, 2))
        middle = self.np_random.uniform(150, 350, 2)
        self.block = SimpleNamespace(center_of_gravity=(0, 45), local_to_world=lambda point: middle)
        self.middle = middle

    def step(self, action):
        self.agent.position = self.agent.position + 0.5 * (action - self.agent.position)


@pytest.mark.parametrize("seed", range(4))
def test_the_hand_goes_beside_the_t_and_through_it_in_small_steps(seed):
    board = Board(seed)
    policy = pusht_push.PushT(board)
    far = []
    for _ in range(60):
        action = policy(None)
        assert action.shape == (2,) and action.dtype == np.float32
        assert np.linalg.norm(action - board.agent.position) < pusht_push.STEP + 1e-3
        board.step(action)
        far.append(np.linalg.norm(board.agent.position - board.middle))
    begun = int(np.argmax(np.array(far) > pusht_push.AROUND - pusht_push.NEAR))
    assert far[begun] > pusht_push.AROUND - pusht_push.NEAR
    assert min(far[begun:]) < pusht_push.SPREAD + pusht_push.STEP / 2
