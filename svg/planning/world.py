"""What plans lead to, as a model imagines it: the hand, the things that are to be pushed, and pictures."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from data_tools.errors import InputError

from ..models.object_motion import entries
from ..models.object_predictor import ObjectPredictor, Observation, Path
from ..models.predictor import Predictor
from ..models.scene import Objects, entry, moved_to
from ..models.video_predictor import VideoPredictor
from ..positions import SIMULATED_HEIGHT, Columns, Target, integrate_positions

MEMORY = 2**30
"""Bytes that the plans imagined at a time may take."""
DISC = 1.6
"""Radius in pixels of the disc that stands for a thing that nothing shows."""
LEAST_SEEN = 4
"""Pixels of a mask below which it shows nothing."""
AT_POINT = 5.0
"""Pixels from a mark within which the object nearest to it is the one that is marked."""
SEEN_WELL = 0.6
"""Share of the largest mask of a thing seen so far below which it is remembered rather than seen."""
LEAST_LEFT = 0.15
"""Share of a mask that must be left for its middle to be where the thing is; before that it stays."""


@dataclass(frozen=True)
class Seen:
    """What has been seen of B scenes so far, the oldest first.

    Args:
        frames: uint8 or float in [0,1], [B,n,C,H,W].
        actions: carried out between them, [B,n-1,A].
        positions: of the hand in them, [B,n,P]; P may be 0.
    """

    frames: Tensor
    actions: Tensor
    positions: Tensor


@dataclass(frozen=True)
class Marks:
    """Things in the last frame seen that are to be followed, M in each scene.

    Args:
        masks: bool [B,M,H,W]: pixels that show them; empty for what is hidden.
        points: [B,M,2]: pixels to the right and down, where their centres are.
    """

    masks: Tensor
    points: Tensor

    def filled(self) -> Tensor:
        """Return the masks as floats [B,M,H,W]; where one shows next to nothing, a disc at its point."""
        height, width = self.masks.shape[-2:]
        down = torch.arange(height, device=self.points.device)[:, None] - self.points[..., 1, None, None]
        right = torch.arange(width, device=self.points.device) - self.points[..., 0, None, None]
        is_hidden = self.masks.sum((-2, -1), keepdim=True) < LEAST_SEEN
        return (self.masks | (is_hidden & (torch.hypot(right, down) < DISC))).float()


class Memory:
    """What the marked things of one scene look like to an `ObjectPredictor`, from when they showed best.

    A hand that pushes a thing away from the camera hides it, from the model, too.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Objects, Tensor]] = {}
        self._most: dict[int, int] = {}

    def complete(self, model: ObjectPredictor, start: Observation, marks: Marks) -> Observation:
        """Return `start` with the things that hardly show in its frame as it remembers them.

        Those that show are remembered.
        """
        areas = marks.masks.sum((-2, -1))[0].tolist()
        for number, (point, area) in enumerate(zip(marks.points[0], areas, strict=True)):
            objects = start.objects
            is_there = objects.present[0] > 0
            away = torch.where(is_there, (objects.centres[0] - point).norm(dim=1), torch.inf)
            nearest = int(away.argmin())
            is_found = bool(away[nearest] < AT_POINT)
            if is_found and area >= SEEN_WELL * self._most.get(number, 0):
                self._most[number] = max(area, self._most.get(number, 0))
                self._known[number] = (entry(objects, nearest), objects.centres[:, nearest] - point)
            elif number in self._known:
                known, offset = self._known[number]
                # instead of what little shows of it, or of nothing, or of the last object there is
                place = nearest if is_found else int(is_there.float().argmin())
                index = torch.tensor([[place]], device=point.device)
                start = model.exchange(start, index, moved_to(known, (point + offset)[:, None]))
        return start


class Imagined(ABC):
    """What S plans of H actions of each of B scenes lead to.

    Args:
        plans: [B,S,H,A].
        hand: [B,S,H,P], the hand's positions after each action, in the units of the data.
        points: [B,S,H,M,2], where the marks are after each action, pixels to the right and down; None where
            nothing was marked.
    """

    plans: Tensor
    hand: Tensor
    points: Tensor | None

    @abstractmethod
    def frames(self, times: Sequence[int]) -> Tensor:
        """Return the pictures after the actions `times` (negative ones count from the end), [B,S,n,C,H,W]."""


class ModelWorld(ABC):
    """The scenes `seen`, from which a model imagines plans with the mean of its latents.

    Args:
        model: see `world_of`.
        seen: at least one frame of each scene.
        marks: things to follow, if any.
        columns: of `svg.integrate_positions`: how actions move the hand.
        targets: likewise; by default those of the simulated robot.
    """

    def __init__(
        self,
        model: Predictor,
        seen: Seen,
        marks: Marks | None = None,
        columns: Columns = ((0, 0), (1, 1)),
        targets: Sequence[Target] = (SIMULATED_HEIGHT,),
    ):
        self.model = model
        self.marks = marks
        self._motion = (columns, targets)
        self._position = seen.positions[:, -1]

    @abstractmethod
    def _imagine(self, plans: Tensor, conditions: Tensor) -> Imagined:
        """Imagine plans with the conditions that they make."""

    def conditions_for(self, plans: Tensor) -> Tensor:
        """Return the conditions [B,S,H,D] of plans [B,S,H,A].

        The actions and, for a model that is given positions, those of the hand that follow from them.
        """
        positions = self._course(plans)[:, :, :-1]
        return torch.cat([plans, positions], -1)[..., : self.model.config.condition_dim]

    def __call__(self, plans: Tensor) -> Imagined:
        """Imagine plans [B,S,H,A], so many at a time as fit into `MEMORY`. Gradients flow to the plans."""
        conditions = self.conditions_for(plans)
        count = max(1, MEMORY // (len(plans) * self.model.future_bytes(plans.shape[2])))
        pairs = zip(plans.split(count, 1), conditions.split(count, 1), strict=True)
        parts = [self._imagine(some, part) for some, part in pairs]
        return parts[0] if len(parts) == 1 else _Joined(parts)

    def _course(self, plans: Tensor) -> Tensor:
        """Return the positions of the hand [B,S,H+1,P] before, between and after the actions."""
        if not self._position.shape[-1]:
            return plans.new_zeros(*plans.shape[:2], plans.shape[2] + 1, 0)
        positions = integrate_positions(self._position[:, None], F.pad(plans, (0, 0, 0, 1)), *self._motion)
        return torch.as_tensor(positions)


class ObjectWorld(ModelWorld):
    """The imagination of an `ObjectPredictor`: where objects go, and pictures only where they are asked for.

    With `memory`, of a single scene, it does not forget marked things that the hand hides.
    """

    def __init__(
        self,
        model: ObjectPredictor,
        seen: Seen,
        marks: Marks | None = None,
        memory: Memory | None = None,
        **motion: Any,
    ):
        super().__init__(model, seen, marks, **motion)
        self._predictor = model
        # it reads the hand's position in the last frame, too, whose action is not known yet
        actions = F.pad(seen.actions, (0, 0, 0, 1))
        with torch.no_grad():
            self.start = model.observe(seen.frames, torch.cat([actions, seen.positions], -1))
            if marks is not None and memory is not None:
                self.start = memory.complete(model, self.start, marks)

    def _imagine(self, plans: Tensor, conditions: Tensor) -> Imagined:
        path = self._predictor.track(self.start, conditions, self.model.zero_noise(conditions))
        return _Tracked(self._predictor, path, plans, self.marks)


class VideoWorld(ModelWorld):
    """The imagination of a `VideoPredictor`: all pictures, with marks that are moved along with pixels.

    Raises `InputError` for marks if the model was trained without ``--blend``: it moves no pixels.
    """

    def __init__(self, model: VideoPredictor, seen: Seen, marks: Marks | None = None, **motion: Any):
        super().__init__(model, seen, marks, **motion)
        known = torch.cat([seen.actions, seen.positions[:, :-1]], -1)
        with torch.no_grad():
            self.start = model.observe(seen.frames, known[..., : model.config.condition_dim])
            if marks is not None:
                self.start = model.carrying(self.start, marks.filled())

    def _imagine(self, plans: Tensor, conditions: Tensor) -> Imagined:
        frames = self.model.imagine(self.start, conditions).transpose(0, 1)
        return _Drawn(frames, plans, self._course(plans)[:, :, 1:], self.model.config.channels, self.marks)


def world_of(
    model: Predictor, seen: Seen, marks: Marks | None = None, memory: Memory | None = None, **motion: Any
) -> ModelWorld:
    """Return the `ModelWorld` of a model: an `ObjectWorld` or a `VideoWorld`. Raises `InputError`."""
    if isinstance(model, ObjectPredictor):
        return ObjectWorld(model, seen, marks, memory, **motion)
    if isinstance(model, VideoPredictor):
        return VideoWorld(model, seen, marks, **motion)
    raise InputError(f"found a model of type {type(model).__name__}, expected one that is given actions")


class _Tracked(Imagined):
    """Where the objects of an `ObjectPredictor` go; pictures are drawn when they are asked for."""

    def __init__(self, model: ObjectPredictor, path: Path, plans: Tensor, marks: Marks | None):
        self.plans = plans
        self._model, self._path = model, path
        self.hand = model.hand_positions(path).unflatten(0, plans.shape[:2])
        self.points = None if marks is None else self._follow(marks)

    def _follow(self, marks: Marks) -> Tensor:
        """Return where the marks [B,M] are, as parts of the objects nearest to them."""
        scenes, samples = self.plans.shape[:2]
        objects = self._path.scene.objects
        first = objects.centres.unflatten(0, (scenes, -1))[:, 0]
        is_there = objects.present.unflatten(0, (scenes, -1))[:, 0]
        away = torch.cdist(marks.points, first) + (1 - is_there[:, None]) * 1e4
        nearest = away.argmin(2)  # [B,M]
        each = nearest.repeat_interleave(samples, 0)
        offsets = (marks.points - entries(first, nearest)).repeat_interleave(samples, 0)
        points = []
        for motion in self._path.motions:
            turned = torch.einsum("nmij,nmj->nmi", entries(motion.turns, each), offsets)
            points.append(entries(motion.centres, each) + turned)
        return torch.stack(points, 1).unflatten(0, (scenes, samples))

    def frames(self, times: Sequence[int]) -> Tensor:
        scenes, samples = self.plans.shape[:2]
        steps = len(self._path.motions)
        drawn = self._model.draw(self._path, [time % steps for time in times])
        return drawn.unflatten(0, (scenes, samples))


class _Drawn(Imagined):
    """Pictures that a `VideoPredictor` has drawn, with the masks that it has moved along."""

    def __init__(self, frames: Tensor, plans: Tensor, hand: Tensor, channels: int, marks: Marks | None):
        self.plans = plans
        self.hand = hand
        self._frames, masks = frames.split([channels, frames.shape[3] - channels], 3)
        self.points = None if marks is None else _middles(masks, marks)

    def frames(self, times: Sequence[int]) -> Tensor:
        return self._frames[:, :, list(times)]


class _Joined(Imagined):
    """Plans that were imagined one part after the other."""

    def __init__(self, parts: Sequence[Imagined]):
        self._parts = parts
        self.plans = torch.cat([part.plans for part in parts], 1)
        self.hand = torch.cat([part.hand for part in parts], 1)
        points = [part.points for part in parts if part.points is not None]
        self.points = torch.cat(points, 1) if points else None

    def frames(self, times: Sequence[int]) -> Tensor:
        return torch.cat([part.frames(times) for part in self._parts], 1)


def _middles(masks: Tensor, marks: Marks) -> Tensor:
    """Return where marks are, [B,S,H,M,2], from their moved `masks` [B,S,H,M,h,w].

    The way of a mask's middle is added to the mark's point. Where next to nothing of it is left, it stays
    where it was last seen.
    """
    first, least = _middle(marks.filled())
    middles, left = _middle(masks.clamp(min=0))
    is_left = left >= LEAST_LEFT * least[:, None, None]
    places = []
    last = first[:, None].expand_as(middles[:, :, 0])
    for middle, is_seen in zip(middles.unbind(2), is_left.unbind(2), strict=True):
        last = torch.where(is_seen[..., None], middle, last)
        places.append(last)
    return torch.stack(places, 2) + (marks.points - first)[:, None, None]


def _middle(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the middles [...,2] of masks [...,h,w], in which the sure pixels count most, and their mass."""
    weights = masks.square()
    height, width = masks.shape[-2:]
    mass = weights.sum((-2, -1))
    right = (weights.sum(-2) * torch.arange(width, device=masks.device)).sum(-1)
    down = (weights.sum(-1) * torch.arange(height, device=masks.device)).sum(-1)
    return torch.stack([right, down], -1) / mass.clamp(min=1e-6)[..., None], mass
