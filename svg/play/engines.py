"""What a served page asks to go on by an action: the model, and the simulator of its scenes.

Both keep nothing themselves. `States` keeps what they go on from, so that the page needs numbers alone.
"""

import itertools
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from data_tools.errors import InputError
from data_tools.json_files import read_dataclass
from data_tools.simulators.push import make_scene

from .. import runtime
from ..models.predictor import Predictor
from .scenes import Scene

if TYPE_CHECKING:
    from data_tools.simulators.pusher import Pusher
    from data_tools.simulators.raycast import Renderer

MOST_STATES = 600
"""States that are kept at most: two long drives, half a gigabyte of push-sim-large."""
ACTION = 4
"""Numbers of an action, with which a condition begins."""


class Engine(Protocol):
    """What goes on from a state by an action."""

    def start(self, scene: int) -> Any:
        """Return the state after the frames that are seen of a scene."""

    def step(self, state: Any, condition: np.ndarray, seed: int | None) -> tuple[np.ndarray, Any]:
        """Return the next frame, float32 [C,H,W] in [0,1], and the state after it.

        `condition` [D] begins with the action. What is left to chance follows from `seed`; with None it is
        the mean.
        """


class ModelEngine:
    """A frozen `model`, which sees `n_past` frames of the `scenes`."""

    def __init__(self, model: Predictor, scenes: Sequence[Scene], n_past: int):
        self._model = model
        self._scenes = scenes
        self._n_past = n_past

    @torch.inference_mode()
    def start(self, scene: int) -> Any:
        """See `Engine`."""
        frames = self._scenes[scene].frames[: self._n_past].transpose(0, 3, 1, 2)
        conditions = self._scenes[scene].conditions[: self._n_past, : self._model.config.condition_dim]
        return self._model.observe(self._tensor(frames), self._tensor(conditions))

    @torch.inference_mode()
    def step(self, state: Any, condition: np.ndarray, seed: int | None) -> tuple[np.ndarray, Any]:
        """See `Engine`."""
        noise = torch.zeros(1, 1, 1, *self._model.latent_shape)
        if seed is not None:
            noise.normal_(generator=runtime.generator(torch.device("cpu"), seed))
        known = self._tensor(condition.astype(np.float32)[None])
        frames, after = self._model.advance(state, known, noise.to(self._model.device))
        return frames[0, 0, 0].float().cpu().numpy(), after

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        """Return an array as a batch of one."""
        return torch.from_numpy(np.ascontiguousarray(values))[None].to(self._model.device)


class SimulatorEngine:
    """The simulator of `scenes`, which are those of ``push.simulate`` with this seed, from its first one on.

    A state is the number of the scene and what `Pusher.save` returns.
    """

    def __init__(self, seed: int, scenes: Sequence[Scene], n_past: int):
        self._seed = seed
        self._scenes = scenes
        self._n_past = n_past
        self._made: dict[int, tuple[Pusher, Renderer]] = {}

    def start(self, scene: int) -> tuple[int, np.ndarray]:
        """See `Engine`."""
        recorded = self._scenes[scene]
        pusher, _, renderer = make_scene(self._seed, scene, recorded.frames.shape[2])
        self._made[scene] = pusher, renderer
        for action in recorded.actions[: self._n_past - 1]:
            pusher.step(action)
        return scene, pusher.save()

    def step(
        self, state: tuple[int, np.ndarray], condition: np.ndarray, seed: int | None
    ) -> tuple[np.ndarray, tuple[int, np.ndarray]]:
        """See `Engine`; nothing is left to chance."""
        scene, saved = state
        pusher, renderer = self._made[scene]
        pusher.restore(saved)
        pusher.step(condition[:ACTION])
        picture = renderer.render(pusher.data).transpose(2, 0, 1)
        return picture.astype(np.float32) / 255, (scene, pusher.save())


@dataclass(frozen=True)
class Step:
    """What a page asks for: to go on from the state with this number; see `Engine.step`."""

    state: int = field(metadata={"least": 0})
    condition: list[float]
    seed: int | None = field(default=None, metadata={"least": 0})


class States:
    """The states of an engine by number. Those below `scenes` are the starts of scenes, which always work.

    Args:
        engine: asked by one thread at a time.
        scenes: number of scenes.
        columns: numbers of a condition.
        most: other states that are kept; those that were not used for the longest time are forgotten.
    """

    def __init__(self, engine: Engine, scenes: int, columns: int, most: int = MOST_STATES):
        self._engine = engine
        self._scenes = scenes
        self._columns = columns
        self._most = most
        self._starts: dict[int, Any] = {}
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._numbers = itertools.count(scenes)
        self._lock = threading.Lock()

    def step(self, values: object) -> tuple[np.ndarray, int]:
        """Return the frame that `values`, a `Step` as JSON, ask for, and the number of the state after it.

        Raises `InputError` for anything else and for a state that is forgotten.
        """
        step = read_dataclass(Step, values, "request", "see svg.play.engines.Step")
        condition = np.array(step.condition)
        if len(condition) != self._columns:
            raise InputError(f"condition: found {len(condition)} numbers, expected {self._columns}")
        with self._lock:
            frame, after = self._engine.step(self._find(step.state), condition, step.seed)
            number = next(self._numbers)
            self._kept[number] = after
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return frame, number

    def close(self) -> None:
        """Wait until the engine is idle, and ask it for nothing more: the program is about to end."""
        self._lock.acquire()

    def _find(self, number: int) -> Any:
        if number < self._scenes:
            if number not in self._starts:
                self._starts[number] = self._engine.start(number)
            return self._starts[number]
        if number not in self._kept:
            raise InputError("this frame is too old to go on from; choose a later one, or start over")
        self._kept.move_to_end(number)
        return self._kept[number]
