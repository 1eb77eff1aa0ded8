"""Plan with a robot of your own: three callbacks, a model, a picture of the goal and where the hand is in it.

    python examples/plan_with_your_robot.py             # the simulator stands in for the robot

Put your camera and your arm in place of `SimulatedRobot`. The camera has to look as in the training data of
the model, 64x64 pixels, and an action has to mean what it means there (for `push-objects` metres in a frame
of 0.16 s); otherwise fine-tune it on recordings of your own (docs/models.md).
"""

import argparse
import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

import svg
from svg.planning.control import Controller, Settings, Task
from svg.planning.costs import GoalImage, HandAt, Total, of
from svg.planning.solvers import CEM
from svg.planning.world import Seen, world_of


class Robot(Protocol):
    """What you have to provide."""

    low: Sequence[float]
    high: Sequence[float]

    def picture(self) -> np.ndarray:
        """Return what the camera sees now, uint8 [64,64,3]."""
        ...

    def position(self) -> np.ndarray:
        """Return where the hand is now, in the units of the model's data."""
        ...

    def send(self, action: np.ndarray) -> None:
        """Carry out an action, and return when its frame is over."""
        ...


class SimulatedRobot:
    """The simulator behind the same methods."""

    def __init__(self, seed: int):
        from data_tools.simulators.environment import PushEnv

        self.env = PushEnv(task="reach", obs_type="pixels")
        self.env.reset(seed=seed)
        self.low = self.env.action_space.low.tolist()
        self.high = self.env.action_space.high.tolist()

    def picture(self) -> np.ndarray:
        """Return what the camera sees."""
        return self.env.render()

    def position(self) -> np.ndarray:
        """Return where the hand is, metres."""
        return self.env.simulator.position

    def send(self, action: np.ndarray) -> None:
        """Carry out an action."""
        self.env.step(action)


def control(robot: Robot, model: str, goal: np.ndarray, hand: np.ndarray, frames: int) -> list[float]:
    """Make what the camera sees like the picture `goal`, with the hand at `hand`; return seconds of plans."""
    predictor = svg.load(model, device="cpu")
    picture = torch.from_numpy(goal).movedim(-1, 0)[None]
    # a picture alone says little as long as the hand is far away
    alike = GoalImage(picture, times=(-1,), blur=2)
    at_goal = HandAt(torch.tensor(hand[None], dtype=torch.float32))
    objective = Total([(1.0, at_goal), (0.5, alike)], evenly=True)

    def look(seen: Seen) -> Task:
        world = world_of(predictor, seen)
        return Task(world, of(world, objective))

    solver = CEM(spread=(0.04, 0.04, 0, 0), samples=32, iterations=3, elites=5, smooth=0.8)
    controller = Controller(look, solver, Settings(robot.low, robot.high, decisions=5, hold=2, replan=2))
    began = time.perf_counter()
    for _ in range(frames):
        robot.send(controller(robot.picture(), robot.position()))
    seconds = [replan.seconds for replan in controller.replans]
    rate = len(seconds) / (time.perf_counter() - began)
    print(f"{len(seconds)} plans, {np.median(seconds):.2f} s each (median): {rate:.1f} Hz")
    return seconds


def main(argv: list[str] | None = None) -> float:
    """Reach what a picture shows, in the simulator; return how far the hand ends from it, metres."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="push-objects")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frames", type=int, default=20)
    args = parser.parse_args(argv)
    robot = SimulatedRobot(args.seed)
    goal = robot.env.goal.places[0]
    start = np.linalg.norm(robot.position()[:2] - goal)
    control(robot, args.model, robot.env.goal_image(), goal, args.frames)
    end = float(np.linalg.norm(robot.position()[:2] - goal))
    print(f"the hand began {1000 * start:.0f} mm from its goal and is {1000 * end:.0f} mm from it")
    return end


if __name__ == "__main__":
    main()
