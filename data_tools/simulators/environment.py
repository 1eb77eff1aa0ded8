"""The simulated robot as an environment in the form of Gymnasium: `PushEnv`.

`PushEnv` also works without the package gymnasium. It knows three tasks: ``reach`` (the hand goes to a
place), ``push`` (one object goes to a place) and ``push_many`` (several objects go to places of their own).
"""

from typing import Any, ClassVar

import numpy as np

from ..truth import SHADOW
from .push import make_scene
from .pusher import (
    ACTION_LIMITS,
    OBJECTS,
    REACH,
)
from .raycast import Camera
from .tasks import SUCCESS, TASKS, Dealer, checked_place, unit

try:
    import gymnasium
except ImportError:  # the environment is then a plain class, without spaces
    gymnasium = None

OBS_TYPES = ("pixels", "pixels_state", "state")
MOST_OBJECTS = OBJECTS[1]
MOST = 4.0
"""A bound for every number of a state: cosines, and metres on a table."""
_TASK_STREAM = 7  # separates the numbers drawn for tasks from those drawn for scenes


_Base: Any = gymnasium.Env if gymnasium else object


class PushEnv(_Base):
    """A robot hand that pushes objects about on a table.

    ``reset(seed=n)`` deals the scene of sequence n of ``svg-data simulate --seed SCENES``: the same objects,
    light and first frame. Without a seed it deals random scenes.

    An action is ``[dx, dy, lift, close]`` (`action_names`, `action_units`): see
    `data_tools.simulators.pusher`. The reward is minus the mean distance to the goal in metres; an episode
    ends when all distances are within `SUCCESS`.

    Args:
        obs_type: ``pixels``: uint8 [H,W,3]; ``state``: float32 [D], the numbers that `state_names` names;
            ``pixels_state``: a dictionary of both.
        task: one of `TASKS`.
        scenes: the seed of the data set that the scenes are those of.
        image_width: height and width of the pictures in pixels, a multiple of 4.
        goals: how many objects are to be pushed in the task ``push_many``.
        render_mode: ``rgb_array`` or None; `render` gives pictures in either case.

    Raises `ValueError` for values that are not offered.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 6}
    action_names = ("dx", "dy", "lift", "close")
    action_units = ("metres a frame", "metres a frame", "steps of 0.03 metres", "1: closed")

    def __init__(
        self,
        obs_type: str = "pixels_state",
        task: str = "push",
        scenes: int = 0,
        image_width: int = 64,
        goals: int = 2,
        render_mode: str | None = None,
    ):
        _check_choice("obs_type", obs_type, OBS_TYPES)
        _check_choice("task", task, TASKS)
        _check_choice("render_mode", render_mode, (None, "rgb_array"))
        self.obs_type = obs_type
        self.task = task
        self.scenes = scenes
        self.image_width = image_width
        self.goals = goals
        self.render_mode = render_mode
        self.camera = Camera()
        self.sequence = -1
        self.state_names = _state_names()
        if gymnasium:
            self.action_space = gymnasium.spaces.Box(*ACTION_LIMITS, dtype=np.float32)
            self.observation_space = self._observation_space()

    # ---------------------------------------------------------------------------------------------- Gymnasium

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Deal a scene and a task.

        Args:
            seed: the number of the scene, and the seed of those dealt by later resets without one.
            options: ``task``: another one of `TASKS`; ``hand``: where the hand begins, [2], metres;
                ``object``: the number of the object to push, or several; ``goal``: its place, [2], or theirs,
                    [K,2], metres.

        Returns the observation and the information that `step` gives, too. Raises `ValueError` for options
        that cannot be, such as a task that is solved at its start.
        """
        if gymnasium:
            super().reset(seed=seed)
            generator = self.np_random
        else:
            if seed is not None or not hasattr(self, "_generator"):
                self._generator = np.random.default_rng(seed)
            generator = self._generator
        number = int(generator.integers(2**31)) if seed is None else seed
        self._build(number)
        self._begin(dict(options or {}))
        return self._observe(), self._info()

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Carry out an action, float [4], for one frame.

        Returns observation, reward, whether the task is solved, False, and information: ``hand`` [3],
        ``count`` of objects, ``objects`` [8,3], ``headings`` [8] and ``radii`` [8] (zeros beyond the scene's
        own), ``goal`` [K,2], ``targets`` [K] (the objects that are to go there; -1 is the hand),
        ``distances`` [K], ``success``.
        """
        self.simulator.step(action)
        info = self._info()
        reward = -float(info["distances"].mean())
        return self._observe(), reward, info["success"], False, info

    def render(self) -> np.ndarray:
        """Return the picture of the scene, uint8 [H,W,3]."""
        return self._renderer.render(self.simulator.data)

    def close(self) -> None:
        """Do nothing: there is no window."""

    # -------------------------------------------------------------------------------- for planners and labels

    def save(self) -> np.ndarray:
        """Return all that decides what happens next in this episode, float64 [D]."""
        return self.simulator.save()

    def restore(self, state: np.ndarray) -> None:
        """Go back to a saved state of this episode, bit for bit."""
        self.simulator.restore(state)

    def segment(self) -> np.ndarray:
        """Return the label of each pixel, uint8 [H,W]: 0 still, 1 arm, 2 shadow, 3 + n object n."""
        _, labels = self._renderer.render_with_labels(self.simulator.data, self._labels, SHADOW)
        return labels

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return the pixels [...,2] (right, down) in which points [...,3] (metres) appear."""
        return self.camera.project(points, self.image_width, self.image_width)

    def unproject(self, pixels: np.ndarray, z: float = 0.0) -> np.ndarray:
        """Return the points [...,3] at height `z` (metres) that appear in pixels [...,2] (right, down)."""
        return self.camera.unproject(pixels, self.image_width, self.image_width, z)

    def goal_image(self) -> np.ndarray:
        """Return a picture of the goal, uint8 [H,W,3].

        Objects at their places, the hand at its own or behind the last one.
        """
        state = self.save()
        hand = self.goal.places[-1]
        for number, place in zip(self.goal.objects, self.goal.places, strict=False):  # to reach: no objects
            way = place - self.simulator.object_positions[number, :2]
            behind = place - (self.simulator.object_radii[number] + 0.02) * unit(way)
            hand = np.clip(behind, np.negative(REACH), REACH)
            self.simulator.place_object(number, place)
        self.simulator.place_hand(hand)
        image = self.render()
        self.restore(state)
        return image

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made from; MuJoCo's own objects are made anew."""
        values = {name: value for name, value in vars(self).items() if name not in _BUILT}
        return values | {"saved": self.save() if self.sequence >= 0 else None}

    def __setstate__(self, values: dict[str, Any]) -> None:
        saved = values.pop("saved")
        self.__dict__.update(values)
        if saved is not None:
            self._build(self.sequence)
            self.restore(saved)

    # ------------------------------------------------------------------------------------------------ a scene

    def _build(self, number: int) -> None:
        """Make the scene of a sequence of the data set."""
        self.sequence = number
        self.simulator, _, self._renderer = make_scene(self.scenes, number, self.image_width)
        self._labels = self.simulator.labels

    def _begin(self, options: dict[str, Any]) -> None:
        task = options.pop("task", self.task)
        hand = options.pop("hand", None)
        objects = options.pop("object", None)
        places = options.pop("goal", None)
        if options:
            raise ValueError(f"options: found {', '.join(options)}, expected task, hand, object, goal")
        _check_choice("task", task, TASKS)
        if hand is not None:
            self.simulator.place_hand(checked_place("hand", hand, REACH))
            self.simulator.step(np.zeros(4))
        generator = np.random.default_rng([self.scenes, self.sequence, _TASK_STREAM])
        self.goal = Dealer(self.simulator, generator).deal(task, self.goals, objects, places)
        if (self.distances() < SUCCESS[task]).all():
            raise ValueError(
                f"goal: found {self.goal.places.tolist()}, where the task is solved at the start"
            )

    # ------------------------------------------------------------------------------------------ what is shown

    def distances(self) -> np.ndarray:
        """Return how far the hand, or each object of the goal, is from its place, [K], metres."""
        if not self.goal.objects:
            return np.linalg.norm(self.simulator.position[:2] - self.goal.places, axis=1)
        there = self.simulator.object_positions[list(self.goal.objects), :2]
        return np.linalg.norm(there - self.goal.places, axis=1)

    def _info(self) -> dict[str, Any]:
        distances = self.distances()
        return {
            "hand": self.simulator.position,
            "count": len(self.simulator.object_radii),
            "objects": _padded(self.simulator.object_positions),
            "headings": _padded(self.simulator.object_headings),
            "radii": _padded(self.simulator.object_radii),
            "goal": self.goal.places.copy(),
            "targets": np.array(self.goal.objects or (-1,)),
            "distances": distances,
            "success": bool((distances < SUCCESS[self.goal.task]).all()),
        }

    def _state(self) -> np.ndarray:
        count = len(self.simulator.object_radii)
        objects = np.zeros((MOST_OBJECTS, 8))
        headings = self.simulator.object_headings
        objects[:count, 0] = 1
        objects[:count, 1:4] = self.simulator.object_positions
        objects[:count, 4] = np.cos(headings)
        objects[:count, 5] = np.sin(headings)
        for number, place in zip(self.goal.objects, self.goal.places, strict=False):
            objects[number, 6:8] = place - self.simulator.object_positions[number, :2]
        hand_goal = np.zeros(2) if self.goal.objects else self.goal.places[0] - self.simulator.position[:2]
        return np.concatenate([self.simulator.position, hand_goal, objects.ravel()]).astype(np.float32)

    def _observe(self) -> Any:
        if self.obs_type == "pixels":
            return self.render()
        if self.obs_type == "state":
            return self._state()
        return {"pixels": self.render(), "state": self._state()}

    def _observation_space(self) -> Any:
        from gymnasium import spaces

        size = (self.image_width, self.image_width, 3)
        pixels = spaces.Box(0, 255, size, np.uint8)
        state = spaces.Box(-MOST, MOST, (len(self.state_names),), np.float32)
        if self.obs_type == "pixels_state":
            return spaces.Dict({"pixels": pixels, "state": state})
        return pixels if self.obs_type == "pixels" else state


_BUILT = ("simulator", "_renderer", "_labels")
"""Attributes that `PushEnv` makes anew from the number of the scene."""


# ---------------------------------------------------------------------------------------------------- helpers


def _check_choice(name: str, value: Any, choices: tuple) -> None:
    if value not in choices:
        raise ValueError(f"{name}: found {value!r}, expected one of {', '.join(map(repr, choices))}")


def _padded(values: np.ndarray) -> np.ndarray:
    """Return `values` [N,...] with zeros up to [8,...]: every scene then has arrays of one shape."""
    padded = np.zeros((MOST_OBJECTS, *values.shape[1:]))
    padded[: len(values)] = values
    return padded


def _state_names() -> tuple[str, ...]:
    names = ["hand_x", "hand_y", "hand_z", "hand_goal_dx", "hand_goal_dy"]
    parts = ("present", "x", "y", "z", "cos_heading", "sin_heading", "goal_dx", "goal_dy")
    return (*names, *(f"object{number}_{part}" for number in range(MOST_OBJECTS) for part in parts))
