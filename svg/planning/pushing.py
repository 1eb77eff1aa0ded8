"""Planning on the simulated table: candidates for pushes, the reach of the hand, the simulator as a model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_tools.camera import Camera
from data_tools.simulators.environment import PushEnv
from data_tools.simulators.pusher import HOLD, MAX_LIFT, MAX_STEP, REACH
from data_tools.simulators.tasks import away_from, unit

from .problem import Limit, Problem
from .trial import Trial
from .world import Imagined

BESIDE = 0.045
"""Metres from an object's edge to the middle of a hand beside it."""
CROSSING = 0.012
"""Metres by which a straight way may come nearer to an object than `BESIDE` before it leads round it."""
CARRIED = 0.25
"""Share of the informed candidates that go straight to the goal from where the hand is."""
SPEEDS = (0.02, 0.05)
"""Metres a frame."""
MOVES = 2
"""Numbers of an action that move the hand in the plane."""


# ------------------------------------------------------------------------------------------- what can be done


def within_reach(hand: np.ndarray, hold: int = HOLD) -> Limit:
    """Return the limit of plans from the hand's place [3]: moves that keep it within `REACH`.

    See `problem.Limit`. Where integrated moves leave the reach, each is cut where they do.
    """
    reach = torch.tensor(REACH, dtype=torch.float32)
    start = torch.tensor(hand[:MOVES], dtype=torch.float32)

    def limit(decisions: Tensor) -> Tensor:
        here = start.expand(*decisions.shape[:2], -1)
        moves = []
        for move in decisions[..., :MOVES].unbind(2):
            there = torch.minimum(torch.maximum(here + hold * move, -reach), reach)
            # from a place slightly outside, the way back may be longer than a step allows
            step = ((there - here) / hold).clamp(-MAX_STEP, MAX_STEP)
            here = here + hold * step
            moves.append(step)
        return torch.cat([torch.stack(moves, 2), decisions[..., MOVES:]], -1)

    return limit


def vary_push(plans: Tensor, scale: float, problem: Problem) -> Tensor:
    """Vary plans [B,n,K,A] beyond noise: some stop early, some are slower or faster, some lift the hand.

    See `solvers.Variation`.
    """
    batch, samples, decisions = plans.shape[:3]

    def draw(*shape: int) -> Tensor:
        return torch.rand(batch, samples, *shape, generator=problem.generator)

    moves, rest = plans.split([MOVES, plans.shape[-1] - MOVES], -1)
    end = 1 + (draw(1) * (decisions - 1)).long()  # from then on it stands
    stops = (draw(1) < 0.25) & (torch.arange(decisions) >= end)
    pace = torch.where(draw(1) < 0.15, 0.7 + 0.5 * draw(1), 1.0)
    moves = torch.where(stops[..., None], 0.0, moves * pace[..., None])
    lifted = (draw(1) < 0.1) & (torch.arange(decisions) == (draw(1) * decisions).long())
    lift = torch.where(lifted, torch.where(draw(1) < 0.5, 0.0, float(MAX_LIFT)), rest[..., 0])
    return torch.cat([moves, lift[..., None], rest[..., 1:]], -1)


# ------------------------------------------------------------------------------------------------- candidates


@dataclass(frozen=True)
class Push:
    """An object and where it is to go: places in metres [2] and the radius of its footprint."""

    place: np.ndarray
    goal: np.ndarray
    radius: float


class Candidates:
    """Plans to begin with: pushes of objects towards their goals, and pushing about at random.

    Args:
        hand: where the hand is, [>= 2], metres.
        pushes: what is to go where; may be empty.
        decisions: of a plan.
        generator: the source of all random numbers.
        goal: where the hand itself is to go, [2], if that is known.
        informed: share of the plans that know what is to go where.
        hold: frames for which a decision is kept.
    """

    def __init__(
        self,
        hand: np.ndarray,
        pushes: Sequence[Push],
        decisions: int,
        generator: np.random.Generator,
        goal: np.ndarray | None = None,
        informed: float = Trial.informed,
        hold: int = HOLD,
    ):
        self._hand = hand[:MOVES]
        self._pushes = pushes
        self._decisions = decisions
        self._random = generator
        self._goal = goal
        self._informed = informed
        self._hold = hold

    def __call__(self, count: int) -> Tensor:
        """Return `count` plans of one scene, [1,count,K,4]."""
        plans = [self._draw() for _ in range(count)]
        return torch.from_numpy(np.stack(plans).astype(np.float32))[None]

    def _draw(self) -> np.ndarray:
        is_informed = self._random.random() < self._informed
        if is_informed and self._pushes:
            push = self._any_push()
            return self.carry(push) if self._random.random() < CARRIED else self.push(push)
        if is_informed and self._goal is not None:
            return self.reach(self._goal)
        return self.wander()

    def reach(self, goal: np.ndarray) -> np.ndarray:
        """Return a plan [K,4] that brings the hand to `goal`, low or over what is in its way."""
        random = self._random
        points = [(goal + random.normal(0, 0.005, MOVES), MAX_LIFT if random.random() < 0.5 else 0)]
        if random.random() < 0.5:  # not straight
            points.insert(0, ((self._hand + goal) / 2 + random.normal(0, 0.06, MOVES), 0))
        return self._follow(points, random.uniform(0.03, MAX_STEP))

    def push(self, push: Push, turn: float = 0.5) -> np.ndarray:
        """Return a plan [K,4] that goes behind an object, round it or over it, and pushes it to its goal.

        The direction of the push is off by `turn` radians (standard deviation).
        """
        random = self._random
        way = push.goal - push.place
        far = np.linalg.norm(way)
        angle = np.arctan2(way[1], way[0]) + random.normal(0, turn)
        along = np.array([np.cos(angle), np.sin(angle)])
        room = push.radius + BESIDE
        behind = push.place - (room + random.uniform(0, 0.025)) * along
        end = push.place + along * (far * random.uniform(0.6, 1.15) - room + random.uniform(-0.01, 0.02))
        points = [(behind, 0), (end, 0)]
        if away_from(push.place, self._hand, behind) < room - CROSSING:
            if random.random() < 0.3:
                points[0] = (behind, MAX_LIFT)
            else:
                side = np.array([-along[1], along[0]]) * random.choice([-1, 1])
                round_it = push.place + side * (room + random.uniform(0, 0.02)) - 0.3 * room * along
                points.insert(0, (round_it, 0))
        return self._follow(points, random.uniform(0.025, 0.05))

    def carry(self, push: Push) -> np.ndarray:
        """Return a plan [K,4] that moves the hand straight as the object is to go, more or less.

        An object between the open fingers, or already before the hand, goes along.
        """
        way = push.goal - push.place
        end = self._hand + way * self._random.uniform(0.7, 1.3) + self._random.normal(0, 0.01, MOVES)
        return self._follow([(end, 0)], self._random.uniform(0.015, 0.04))

    def wander(self) -> np.ndarray:
        """Return a plan [K,4] in the manner of the policy of ``svg-data simulate``: smooth and unsteady."""
        random = self._random
        here = self._hand.copy()
        velocity = np.zeros(MOVES)
        plan = np.zeros((self._decisions, 4))
        goal = here
        speed = 0.0
        patience = 0
        for decision in plan:
            if patience <= 0 or np.linalg.norm(goal - here) < 0.03:
                goal = self._random_goal(here)
                speed = random.uniform(*SPEEDS)
                patience = random.integers(3, 6)
            patience -= 1
            way = goal - here
            wanted = unit(way) * min(speed, np.linalg.norm(way) / self._hold)
            velocity = 0.35 * velocity + 0.65 * wanted + random.normal(0, 0.006, MOVES)
            decision[:MOVES] = np.clip(velocity, -MAX_STEP, MAX_STEP)
            decision[2] = random.integers(1, MAX_LIFT + 1) if random.random() < 0.1 else 0
            here = here + self._hold * decision[:MOVES]
        return plan

    def _any_push(self) -> Push:
        return self._pushes[int(self._random.integers(len(self._pushes)))]

    def _random_goal(self, here: np.ndarray) -> np.ndarray:
        random = self._random
        if self._pushes and random.random() < 0.7:
            target = self._any_push().place + random.normal(0, 0.03, MOVES)
            goal = target + unit(target - here) * random.uniform(0, 0.12)
        else:
            goal = here + random.normal(0, 0.12, MOVES)
        return np.clip(goal, np.negative(REACH), REACH)

    def _follow(self, points: Sequence[tuple[np.ndarray, int]], speed: float) -> np.ndarray:
        """Return the plan [K,4] that goes through `points`, on the way to each with its lift."""
        here = self._hand.copy()
        plan = np.zeros((self._decisions, 4))
        points = list(points)
        for decision in plan:
            if not points:
                break
            left = self._hold * speed
            there = here
            decision[2] = points[0][1]
            while points and left > 1e-6:
                way = points[0][0] - there
                far = np.linalg.norm(way)
                if far > left:
                    there = there + way / far * left
                    break
                there = points[0][0]
                left -= far
                was_lifted = points.pop(0)[1] > 0
                if was_lifted:
                    break  # it comes down before it goes on
            step = (there - here) / self._hold + self._random.normal(0, 0.003, MOVES)
            decision[:MOVES] = np.clip(step, -MAX_STEP, MAX_STEP)
            here = here + self._hold * decision[:MOVES]
        return plan


# ------------------------------------------------------------------------------------- the simulator as model


class SimulatorWorld:
    """The simulator as the model of itself, the upper bound of all models: what plans really lead to.

    Args:
        env: plans begin in its state now. It is stepped, and brought back to where it then is.
        objects: the numbers of the objects that are followed.
    """

    def __init__(self, env: PushEnv, objects: Sequence[int]):
        self._env = env
        self._objects = list(objects)
        self._start = env.save()

    def __call__(self, plans: Tensor) -> Imagined:
        """Return what plans [1,S,H,4] lead to."""
        return _Simulated(self._env, self._start, self._objects, plans)


class _Simulated(Imagined):
    def __init__(self, env: PushEnv, start: np.ndarray, objects: list[int], plans: Tensor):
        self.plans = plans
        self._env = env
        self._start = start
        samples, steps = plans.shape[1:3]
        hands = np.empty((samples, steps, 3))
        places = np.empty((samples, steps, len(objects), 3))
        for number, time in self._each():
            hands[number, time] = env.simulator.position
            places[number, time] = env.simulator.object_positions[objects]
        self.hand = torch.from_numpy(hands).float()[None]
        self.points = torch.from_numpy(env.project(places)).float()[None]

    def frames(self, times: Sequence[int]) -> Tensor:
        steps = self.plans.shape[2]
        wanted = [time % steps for time in times]
        pictures = {
            (number, time): self._env.render() for number, time in self._each() if time in set(wanted)
        }
        stacked = np.stack(
            [np.stack([pictures[number, time] for time in wanted]) for number in range(self.plans.shape[1])]
        )
        return torch.from_numpy(stacked).movedim(-1, 2)[None].float() / 255

    def _each(self) -> Iterator[tuple[int, int]]:
        """Carry out all plans, and stop after each action: yield the numbers of plan and action."""
        now = self._env.save()
        for number, plan in enumerate(self.plans[0].double().numpy()):
            self._env.restore(self._start)
            for time, action in enumerate(plan):
                self._env.simulator.step(action)
                yield number, time
        self._env.restore(now)


class OnTable:
    """Pixels to places on the table, in metres, for things whose centres lie at known heights.

    See `costs.Place`.

    Args:
        heights: of the centres of M things, [M], metres.
        width: height and width of the pictures.
        camera: that took them.
    """

    def __init__(self, heights: np.ndarray, width: int = 64, camera: Camera | None = None):
        # a pinhole camera's picture of a plane is a linear function over another: this is its inverse
        matrix = (camera or Camera()).matrix(width, width)
        heights = np.asarray(heights, np.float64)[:, None, None]
        planes = np.concatenate(
            [np.broadcast_to(matrix[:, :2], (len(heights), 3, 2)), matrix[:, 2:3] * heights + matrix[:, 3:]],
            -1,
        )
        self._inverse = torch.from_numpy(np.linalg.inv(planes)).float()

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return places [...,M,2] of pixels [...,M,2]."""
        full = torch.cat([pixels, torch.ones_like(pixels[..., :1])], -1)
        places = torch.einsum("mij,...mj->...mi", self._inverse, full)
        return places[..., :2] / places[..., 2:]
