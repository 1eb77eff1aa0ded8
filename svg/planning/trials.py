"""Trials on the simulated table: a scene, a goal, something that acts, and how near it came.

`run_trial` carries out a `trial.Trial` and returns an `Outcome`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from data_tools.simulators.environment import PushEnv
from data_tools.simulators.policies import PushThrough, RandomPushing
from data_tools.simulators.pusher import ACTION_LIMITS, REACH
from data_tools.simulators.tasks import SUCCESS

from ..models.object_predictor import ObjectPredictor
from ..models.predictor import Predictor
from ..runs.pretrained import load
from .control import Controller, Replan, Settings, Task, World
from .costs import Effort, GoalImage, HandAt, HandNear, Objective, ThingsAt, Total, cautious, of
from .perception import HEIGHT, Perceive, Perception, given, pointed_at, seen_by_judge
from .pushing import Candidates, OnTable, Push, SimulatorWorld, vary_push, within_reach
from .solvers import MPPI, EliteSearch, Solver
from .trial import SAMPLES, Trial
from .world import Marks, Memory, Seen, world_of

SCENES = {"test": 2000, "tuning": 2001}
"""Seeds of the scenes that results are of, and of those that settings are chosen on."""
NEAR = (0.055, 0.09)
"""Metres from an object's edge at which the hand begins in the protocol ``own``."""
STOP = 0.012
"""Metres from its goal within which an object is left alone."""
FINDER = "push-objects"
"""The released model that finds objects which were pointed at, where those that plan do not see objects."""
FRAMES = {"own": 24, "vp2": 15}
VP2_SUCCESS = 0.05
"""Metres; there the best moment counts."""


@dataclass
class Outcome:
    """What came of a trial.

    Args:
        number: of the scene.
        distances: metres from the goal, the largest of all things, before the first action and after each.
        shapes: forms of the objects that were to be moved.
        direction: of the way to the first goal, radians from the x axis.
        seconds: of each plan.
        tried: imagined plans.
        imagined: frames of them.
        perception_error: metres, in each plan; empty where things are given.
    """

    number: int
    distances: list[float]
    shapes: list[str]
    direction: float
    seconds: list[float] = field(default_factory=list)
    tried: int = 0
    imagined: int = 0
    perception_error: list[float] = field(default_factory=list)

    @property
    def end(self) -> float:
        """Return the distance at the end, metres."""
        return self.distances[-1]

    @property
    def best(self) -> float:
        """Return the least distance on the way, metres."""
        return min(self.distances)

    def is_solved(self, trial_protocol: str, task: str, within: float | None = None) -> bool:
        """Tell whether the trial was a success: by its protocol and task, or `within` so many metres."""
        if trial_protocol == "vp2":
            return self.best < (VP2_SUCCESS if within is None else within)
        return self.end < (SUCCESS[task] if within is None else within)


Watcher = Callable[[np.ndarray, Replan | None], None]
"""Is shown each frame, and the plan that was made in it, if one was."""


def set_up(trial: Trial) -> PushEnv:
    """Return the environment at the start of a trial."""
    env = PushEnv(task=trial.task, scenes=SCENES[trial.scenes], obs_type="pixels")
    env.reset(seed=trial.number)
    if trial.protocol == "own" and env.goal.objects:
        _place_hand_near(env, np.random.default_rng([SCENES[trial.scenes], trial.number, 13]))
    return env


def run_trial(trial: Trial, watch: Watcher | None = None) -> Outcome:
    """Carry out a trial. Raises `InputError` for a model that cannot act here."""
    env = set_up(trial)
    outcome = Outcome(trial.number, [float(env.distances().max())], _shapes(env), _direction(env))
    act = act_for(trial, env, outcome)
    replans = act.controller.replans if isinstance(act, _Planning) else []
    for _ in range(FRAMES[trial.protocol] + (trial.protocol == "vp2")):
        frame = env.render()
        count = len(replans)
        action = act(frame, env.simulator.position)
        if watch is not None:
            watch(frame, replans[-1] if len(replans) > count else None)
        env.simulator.step(action)
        outcome.distances.append(float(env.distances().max()))
    if watch is not None:
        watch(env.render(), None)
    outcome.seconds = [replan.seconds for replan in replans]
    outcome.tried = sum(replan.solution.tried for replan in replans)
    outcome.imagined = sum(replan.solution.tried * replan.solution.plan.shape[1] for replan in replans)
    return outcome


def goal_of(trial: Trial) -> tuple[np.ndarray, np.ndarray]:
    """Return where the goals of a trial are in the picture, [K,2], and a picture of the goal, uint8 [H,W,3].

    Places are pixels to the right and down.
    """
    env = set_up(trial)
    objects = list(env.goal.objects)
    heights = env.simulator.object_positions[objects, 2] if objects else env.simulator.position[2:]
    return env.project(np.concatenate([env.goal.places, heights[:, None]], 1)), env.goal_image()


def act_for(trial: Trial, env: PushEnv, outcome: Outcome) -> Callable[..., np.ndarray]:
    """Return what acts in a trial: a function of the frame and the hand's position.

    ``nothing`` stays; ``random`` pushes about as the training data do; ``blind`` carries out one of the
    planner's first candidates, drawn blindly; ``through`` is `PushThrough`, which sees true places in every
    frame; ``simulator`` plans as models do, in the simulator itself.
    """
    seed = SCENES[trial.scenes] + trial.number
    if trial.actor == "nothing":
        return lambda frame, position: np.zeros(4, np.float32)
    if trial.actor in ("random", "through"):
        policy = PushThrough(env) if trial.actor == "through" else RandomPushing(env)
        return lambda frame, position: policy(frame)
    return _Planning(trial, env, outcome, seed)


@lru_cache(maxsize=8)
def load_model(model: str) -> Predictor:
    """Return the model of a released name or a run folder, once for each process."""
    return load(Path(model) if Path(model).is_dir() else model, device="cpu")


class _Planning:
    """A controller, and what it is told of a trial."""

    def __init__(self, trial: Trial, env: PushEnv, outcome: Outcome, seed: int):
        self._trial = trial
        self._env = env
        self._outcome = outcome
        self._random = np.random.default_rng([SCENES[trial.scenes], trial.number, 17])
        self._models = [load_model(model) for model in trial.models]
        needs_image = trial.protocol == "vp2" or trial.cost != "things"
        self._goal_image = torch.from_numpy(env.goal_image()).movedim(-1, 0)[None] if needs_image else None
        objects = list(env.goal.objects)
        self._objects = objects
        # blind candidates are those of the own planner, whatever the protocol
        self._as_vp2 = trial.protocol == "vp2" and trial.actor != "blind"
        self._heights = env.simulator.object_positions[objects, 2]
        if trial.perception == "pointed":
            self._heights = np.full_like(self._heights, HEIGHT)
        self._place = OnTable(self._heights, env.image_width)
        self._memories = [Memory() for _ in self._models]
        self._perceive: Perceive | None = None
        if objects:
            self._perceive = self._perception()
        self._perceived: list[Perception] = []
        self.controller = Controller(self.look, self.solver(), self.settings(), seed)

    def _perception(self) -> Perceive:
        """Return what finds the objects in each frame."""
        if self._trial.perception == "given":
            return given(self._env)
        if self._trial.perception == "seen":
            return seen_by_judge(self._env)
        models = [*self._models, load_model(FINDER)]
        finder = next(model for model in models if isinstance(model, ObjectPredictor))
        return pointed_at(self._env, finder)

    def __call__(self, frame: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Return the action to carry out now."""
        if self._perceive is not None:
            self._perceived.append(self._perceive(frame, self._expected()))
        return self.controller(frame, position)

    def _expected(self) -> torch.Tensor | None:
        """Return where the last plan has foreseen the objects by now, pixels [1,M,2], if there is one."""
        if self._trial.perception == "given" or not self.controller.replans:
            return None
        last = self.controller.replans[-1]
        step = len(self._perceived) - last.frame - 1
        if step >= last.actions:
            return None
        points = last.imagined.points
        return None if points is None else points[:, 0, step]

    def settings(self) -> Settings:
        """Return how far the planner looks."""
        low, high = (limit.tolist() for limit in ACTION_LIMITS)
        if self._as_vp2:
            return Settings(low, high, decisions=10, hold=1, replan=1)
        return Settings(low, high, self._trial.decisions, self._trial.hold, self._trial.replan)

    def solver(self) -> Solver:
        """Return the planner of the protocol."""
        samples = self._trial.samples or SAMPLES[self._trial.protocol]
        if self._trial.actor == "blind":
            return EliteSearch((0, 0, 0, 0), (2,), elites=1)
        if self._as_vp2:
            # there deviations are half of an action's range, and the gripper's is 0
            return MPPI((0.025, 0.025, 0.75, 0), samples[0])
        return EliteSearch((0.012, 0.012, 0, 0), samples, vary=vary_push)

    def look(self, seen: Seen) -> Task:
        """Return the task of a moment; see `control.Controller`."""
        perceived = self._perceived[-1] if self._perceived else None
        places = np.zeros((0, 2)) if perceived is None else perceived.places
        if self._trial.perception != "given" and perceived is not None:
            true = self._env.simulator.object_positions[self._objects, :2]
            self._outcome.perception_error.append(float(np.linalg.norm(places - true, axis=1).max()))
        worlds = self._worlds(seen, None if perceived is None else perceived.marks)
        objective = self._objective(places)
        cost = cautious([of(world, objective) for world in worlds])
        if self._as_vp2:
            return Task(worlds[0], cost)
        pushes = self._pushes(places)
        hand = self._env.simulator.position
        if self._trial.actor == "blind":
            cost = _first_costs_most
        settings = self.settings()
        candidates = Candidates(
            hand, pushes, settings.decisions, self._random, self._hand_goal, self._informed, settings.hold
        )
        is_done = perceived is not None and not pushes
        return Task(worlds[0], cost, candidates, within_reach(hand, settings.hold), is_done)

    def _worlds(self, seen: Seen, marks: Marks | None) -> list[World]:
        """Return what imagines plans: a world of each model, or the simulator."""
        if not self._models:
            return [SimulatorWorld(self._env, self._objects)]
        if self._as_vp2 or self._trial.cost == "image":
            marks = None  # nothing has to be followed
        pairs = zip(self._models, self._memories, strict=True)
        return [world_of(model, seen, marks, memory) for model, memory in pairs]

    def _pushes(self, places: np.ndarray) -> list[Push]:
        """Return what is still to go where, with the objects at `places` [M,2]."""
        radii = self._env.simulator.object_radii[self._objects]
        pushes = map(Push, places, self._env.goal.places, radii)
        return [push for push in pushes if np.linalg.norm(push.goal - push.place) > STOP]

    @property
    def _hand_goal(self) -> np.ndarray | None:
        """Where the hand is to go, if it is told: not if all that is compared are pictures."""
        is_told = not self._objects and self._trial.cost != "image"
        return self._env.goal.places[0] if is_told else None

    @property
    def _informed(self) -> float:
        return 1.0 if self._trial.actor == "blind" else self._trial.informed

    def _objective(self, places: np.ndarray) -> Objective:
        """Return the cost of what is imagined, with the objects at `places` [M,2] now."""
        goals = torch.from_numpy(self._env.goal.places).float()[None]
        image = None if self._goal_image is None else GoalImage(self._goal_image)
        if self._as_vp2:
            assert image is not None
            return image
        if not self._objects:
            if self._trial.cost == "image":
                assert image is not None
                return Total([(1.0, GoalImage(image.goal, (-3, -2, -1), 2)), (1e-3, Effort())])
            return Total([(1.0, HandAt(goals[:, 0])), (1e-4, Effort())])
        now = torch.from_numpy(places).float()[None]
        is_open = (now - goals).norm(dim=-1) > STOP
        approach = (0.05, HandNear(now, is_open))
        things = ThingsAt(goals, self._place)
        if self._trial.cost == "things":
            return Total([(1.0, things), approach, (1e-4, Effort())])
        assert image is not None
        blurred = GoalImage(image.goal, (-3, -2, -1), 2)
        if self._trial.cost == "image":
            return Total([(1.0, Total([(0.02, blurred)], evenly=True)), approach, (1e-4, Effort())])
        both = Total([(0.02, things), (0.02, blurred)], evenly=True)
        return Total([(1.0, both), approach, (1e-4, Effort())])


def _first_costs_most(plans: torch.Tensor) -> torch.Tensor:
    """Return costs [B,S] by which the last of the plans is chosen, whatever it does."""
    return -torch.arange(plans.shape[1], dtype=torch.float32).expand(len(plans), -1)


def _place_hand_near(env: PushEnv, random: np.random.Generator) -> None:
    """Put the hand beside the first object of the goal, on any side that is free; else it stays."""
    number = env.goal.objects[0]
    places, radii = env.simulator.object_positions[:, :2], env.simulator.object_radii
    for _ in range(100):
        angle = random.uniform(0, 2 * np.pi)
        away = radii[number] + random.uniform(*NEAR)
        hand = places[number] + away * np.array([np.cos(angle), np.sin(angle)])
        is_free = (np.linalg.norm(places - hand, axis=1) > radii + 0.052).all()
        if is_free and (np.abs(hand) < REACH).all():
            env.simulator.place_hand(hand)
            env.simulator.step(np.zeros(4))
            return


def _shapes(env: PushEnv) -> list[str]:
    return [env.simulator.object_shapes[number] for number in env.goal.objects]


def _direction(env: PushEnv) -> float:
    if env.goal.objects:
        start = env.simulator.object_positions[env.goal.objects[0], :2]
    else:
        start = env.simulator.position[:2]
    way = env.goal.places[0] - start
    return float(np.arctan2(way[1], way[0]))
