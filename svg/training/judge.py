"""Train the judge of `svg.evaluation.judge` on true frames of simulated scenes.

The frames are altered, since a prediction is not a true frame: objects are moved, blurred, faded and taken
away, the whole picture is made softer and noisier. What was done to an object is known, and so is the right
answer.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_tools.camera import Camera
from data_tools.errors import InputError
from data_tools.truth import FIRST_OBJECT, SHADOW, STILL

from ..evaluation.judge import SIZE, Found, Judge, cell_centres, locate, outlines
from ..evaluation.object_tables import LEAST_AREA
from ..sequences import SequenceDataset
from .optimizers import Muon, set_learning_rate

MOST_OBJECTS = 8
GONE = 0.25
"""Strength of an object up to which it counts as vanished when the judge is trained."""
THERE = 0.6
"""Strength from which it counts as there."""
TARGETS = 3
"""Frames of a scene in which the objects of one of its frames are looked for in a step."""
ASKED = 4
"""Objects of a frame that are looked for in a step."""
HAND_BATCH = 32
REACH = 8
"""Pixels that a blur reaches to each side."""


@dataclass(frozen=True)
class Scenes:
    """All that is known of simulated scenes, in memory; S scenes of T frames with up to N objects.

    frames       uint8 [S,T,3,H,W]
    labels       uint8 [S,T,H,W], see `data_tools.truth`
    backgrounds  uint8 [S,3,H,W]: the table without arm and objects
    centres      float32 [S,T,N,2], pixels: where the centres of the objects appear
    heights      float32 [S,T,N], metres
    hands        float32 [S,T,3], metres
    """

    frames: Tensor
    labels: Tensor
    backgrounds: Tensor
    centres: Tensor
    heights: Tensor
    hands: Tensor

    def masks(self, scenes: Tensor, times: Tensor) -> Tensor:
        """Return the true masks of the objects in some frames, bool [B,N,H,W]."""
        numbers = torch.arange(MOST_OBJECTS, dtype=torch.uint8) + FIRST_OBJECT
        return self.labels[scenes, times][:, None] == numbers[:, None, None]


def read_scenes(dataset: SequenceDataset, tell: Callable[[int], object] = lambda count: None) -> Scenes:
    """Read all sequences of a split that was simulated with ``--truth``; `tell` is called with 1 after each.

    Raises `InputError` for other data.
    """
    if dataset.frame_size != (SIZE, SIZE, 3):
        found = "x".join(map(str, dataset.frame_size))
        raise InputError(f"{dataset.root}: found frames {found}, expected {SIZE}x{SIZE}x3")
    length = int(dataset.lengths.min())
    parts = []
    for number in range(len(dataset)):
        parts.append(_read_scene(dataset, number, length))
        tell(1)
    return Scenes(*(torch.stack(values) for values in zip(*parts, strict=True)))


def _read_scene(dataset: SequenceDataset, number: int, length: int) -> tuple[Tensor, ...]:
    frames = dataset.read_frames(number, 0, length)
    truth = dataset.truth(number, 0, length)
    labels = torch.from_numpy(truth.segmentation)
    count = truth.poses.shape[1]
    centres = np.zeros((length, MOST_OBJECTS, 2), np.float32)
    centres[:, :count] = Camera().project(truth.poses[..., :3], SIZE, SIZE)
    heights = np.zeros((length, MOST_OBJECTS), np.float32)
    heights[:, :count] = truth.poses[..., 2]
    hands = dataset.recorded_positions(number, 0, length)
    background = background_of(frames, labels)
    return frames, labels, background, *map(torch.from_numpy, (centres, heights, hands))


def background_of(frames: Tensor, labels: Tensor) -> Tensor:
    """Return what a scene looks like without arm, objects and shadows, uint8 [3,H,W].

    The mean of the frames uint8 [T,3,H,W] in which a pixel and those about it show the still scene; what
    never does is filled in from around.
    """
    is_still = 1 - F.max_pool2d((labels != STILL).float()[:, None], 3, 1, 1)
    known = is_still.sum(0)
    picture = (frames * is_still).sum(0) / known.clamp(min=1)
    known = (known > 0).float()
    while not known.all():
        around = F.avg_pool2d(torch.cat([picture * known, known])[None], 3, 1, 1)[0]
        picture = torch.where(known > 0, picture, around[:3] / around[3:].clamp(min=1e-6))
        known = (around[3:] > 0).float()
    return picture.round().byte()


# -------------------------------------------------------------------------------- frames with known changes


@dataclass(frozen=True)
class Changes:
    """What is done to an object of each of B frames.

    strength  [B], 1: as it is, 0: taken away, between: the table shines through
    shift     [B,2], pixels to the right and down
    blur      [B,2], standard deviation of a Gaussian in pixels, to the right and down
    """

    strength: Tensor
    shift: Tensor
    blur: Tensor

    def of(self, frames: Tensor) -> "Changes":
        """Return the changes in some of the frames, by their numbers."""
        return Changes(self.strength[frames], self.shift[frames], self.blur[frames])


def change_object(
    frames: Tensor, backgrounds: Tensor, masks: Tensor, changes: Changes
) -> tuple[Tensor, Tensor]:
    """Return frames with a changed object [B,3,H,W] and where it now covers what, [B,1,H,W] in [0,1].

    `masks` [B,1,H,W] in [0,1] tell the object's pixels; `backgrounds` [B,3,H,W] show up where it was. Its
    shadow stays.
    """
    layer = torch.cat([masks * frames, masks], 1)
    layer = blurred(moved(layer, changes.shift), changes.blur)
    without = frames + masks * (backgrounds - frames)
    strength = changes.strength[:, None, None, None]
    cover = strength * layer[:, 3:]
    return without * (1 - cover) + strength * layer[:, :3], cover


def moved(pictures: Tensor, shift: Tensor) -> Tensor:
    """Return pictures [B,C,H,W] moved by `shift` [B,2] pixels to the right and down; zero comes in."""
    theta = torch.zeros(len(pictures), 2, 3, device=pictures.device)
    theta[:, 0, 0] = theta[:, 1, 1] = 1
    size = torch.tensor([pictures.shape[-1], pictures.shape[-2]], device=pictures.device)
    theta[:, :, 2] = -2 * shift / size
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False)


def blurred(pictures: Tensor, blur: Tensor) -> Tensor:
    """Return pictures [B,C,H,W], each blurred by its own Gaussian: `blur` [B,2] pixels, right and down."""
    batch, channels = pictures.shape[:2]
    place = torch.arange(-REACH, REACH + 1, device=pictures.device)
    kernels = torch.exp(-0.5 * (place / blur.clamp(min=1e-3)[..., None]) ** 2)
    kernels = (kernels / kernels.sum(-1, keepdim=True)).repeat_interleave(channels, 0)  # [B*C,2,K]
    layers = pictures.reshape(1, batch * channels, *pictures.shape[-2:])
    padded = F.pad(layers, (REACH, REACH, REACH, REACH), "replicate")
    across = F.conv2d(padded, kernels[:, None, None, 0], groups=batch * channels)
    both = F.conv2d(across, kernels[:, None, 1, :, None], groups=batch * channels)
    return both.view_as(pictures)


def soft_masks(masks: Tensor, labels: Tensor) -> Tensor:
    """Return masks with the rim of pixels that an object shares with the table, float [B,N,H,W].

    `masks` bool [B,N,H,W]; `labels` uint8 [B,H,W].
    """
    grown = F.max_pool2d(masks.float(), 3, 1, 1)
    is_free = ((labels == STILL) | (labels == SHADOW))[:, None]
    return torch.where(masks | is_free, grown, 0.0)


class _Alteration:
    """Random changes of all objects and of the whole frame, a function of the generator alone."""

    def __init__(self, generator: torch.Generator):
        self._generator = generator

    def _uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=self._generator)

    def _some(self, count: int, share: float) -> Tensor:
        """Return 1.0 for that share of `count`, 0.0 for the others."""
        return (self._uniform(count) < share).float()

    def changes(self, exists: Tensor) -> tuple[Changes, Tensor]:
        """Return what is done to an object of each frame in which it `exists`, bool [B], and the frames that
        this changes; to many nothing is done.
        """
        count = len(exists)
        touched = (self._uniform(count) < 0.6) & exists
        choice = self._uniform(count)
        strength = torch.ones(count)
        strength = torch.where(choice < 0.55, self._uniform(count, low=THERE), strength)
        strength = torch.where(choice < 0.4, self._uniform(count, high=GONE), strength)
        strength = torch.where(choice < 0.3, torch.zeros(count), strength)
        shift = 4 * torch.randn(count, 2, generator=self._generator).clamp(-3, 3)
        shift = shift * (touched * self._some(count, 0.5))[:, None]
        blur = self._uniform(count, 2, high=2.5) * self._some(count, 0.6)[:, None]
        changes = Changes(torch.where(touched, strength, 1.0), shift, blur * touched[:, None])
        return changes, touched.nonzero()[:, 0]

    def whole(self, frames: Tensor) -> Tensor:
        """Return the frames softer, noisier, lighter or darker, some of them."""
        count = len(frames)
        frames = blurred(frames, self._uniform(count, 2, high=0.9) * self._some(count, 0.4)[:, None])
        gain = 1 + self._uniform(count, 3, 1, 1, low=-0.04, high=0.04)
        noise = torch.randn(frames.shape, generator=self._generator)
        strength = self._uniform(count, high=0.03) * self._some(count, 0.4)
        return (frames * gain + noise * strength[:, None, None, None]).clamp(0, 1)


@dataclass(frozen=True)
class Examples:
    """Frames and what the judge should say about K of the N objects of each: B pairs of frames.

    observed, frames        [S,3,H,W], [B,3,H,W]: TARGETS frames for each observed one
    seen, outline           bool [S,N,H,W], [S,N,6]: what the judge is told
    objects                 int [B,K]: which of the objects are asked for
    centres, masks          [B,K,2], bool [B,K,H,W]
    is_there, is_gone       bool [B,K]; of others, such as those that the arm hides, nothing is asked
    """

    observed: Tensor
    seen: Tensor
    outline: Tensor
    frames: Tensor
    objects: Tensor
    centres: Tensor
    masks: Tensor
    is_there: Tensor
    is_gone: Tensor


def draw_examples(scenes: Scenes, count: int, generator: torch.Generator) -> Examples:
    """Return examples of `count` scenes, a function of the generator alone."""
    total, length = scenes.labels.shape[:2]
    numbers = torch.randint(total, (count,), generator=generator)
    first = torch.randint(length, (count,), generator=generator)
    later = torch.randint(length, (count * TARGETS,), generator=generator)
    many = numbers.repeat_interleave(TARGETS)
    seen = scenes.masks(numbers, first)
    is_known = (seen.sum((-2, -1)) >= LEAST_AREA).repeat_interleave(TARGETS, 0)
    masks = scenes.masks(many, later)
    alter = _Alteration(generator)
    changed = _change_all(scenes, many, later, masks, alter)
    frames, masks, strength, shift = changed
    centres = scenes.centres[many, later] + shift
    is_inside = ((centres > 0) & (centres < SIZE - 1)).all(-1)
    is_seen = (masks.sum((-2, -1)) >= LEAST_AREA) & is_known & is_inside
    is_there = is_seen & (strength >= THERE)
    is_gone = is_known & (strength <= GONE)
    chance = torch.rand(is_there.shape, generator=generator) + (is_there | is_gone)
    objects = chance.argsort(1, descending=True)[:, :ASKED]
    rows = torch.arange(len(objects))[:, None]
    return Examples(
        scenes.frames[numbers, first] / 255,
        seen,
        outlines(seen, scenes.centres[numbers, first], scenes.heights[numbers, first]),
        alter.whole(frames),
        objects,
        centres[rows, objects],
        (masks & (strength >= THERE)[..., None, None])[rows, objects],
        is_there[rows, objects],
        is_gone[rows, objects],
    )


def _change_all(
    scenes: Scenes, numbers: Tensor, times: Tensor, masks: Tensor, alter: _Alteration
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return frames, visible masks, strengths [B,N] and shifts [B,N,2] after a change of each object."""
    frames = scenes.frames[numbers, times] / 255
    backgrounds = scenes.backgrounds[numbers] / 255
    labels = scenes.labels[numbers, times]
    masks = masks.clone()
    all_changes = []
    for number in range(MOST_OBJECTS):
        changes, touched = alter.changes(masks[:, number].any(-1).any(-1))
        all_changes.append(changes)
        if not len(touched):
            continue
        some = changes.of(touched)
        own = masks[touched, number : number + 1]
        soft = soft_masks(own, labels[touched])
        frames[touched], cover = change_object(frames[touched], backgrounds[touched], soft, some)
        masks[touched] &= cover < 0.5
        masks[touched, number] = moved(own.float(), some.shift)[:, 0] > 0.5
    strength = torch.stack([changes.strength for changes in all_changes], 1)
    shift = torch.stack([changes.shift for changes in all_changes], 1)
    return frames, masks, strength, shift


# ---------------------------------------------------------------------------------------------- training


def judge_loss(found: Found, examples: Examples) -> Tensor:
    """Return the loss of what was found: place, mask and presence of the objects that are asked for."""
    placed = examples.is_there.float()
    cells = cell_centres(SIZE // 2, found.heat.device)
    distances = ((cells - examples.centres[..., None, :]) ** 2).sum(-1)
    wanted = (-distances / (2 * 1.5**2)).softmax(-1)
    place = -(wanted * found.heat.log_softmax(-1)).sum(-1)
    nearest = cells[distances.argmin(-1)]
    centres = locate(found.heat, found.offsets, nearest)
    away = F.smooth_l1_loss(centres, examples.centres, reduction="none", beta=0.5).sum(-1)
    asked = (examples.is_there | examples.is_gone).float()
    shown = examples.masks.float()
    pixels = F.binary_cross_entropy_with_logits(found.masks, shown, reduction="none").mean((-2, -1))
    presence = F.binary_cross_entropy_with_logits(found.presence, examples.is_there.float(), reduction="none")
    located = ((0.5 * place + away) * placed).sum() / placed.sum().clamp(min=1)
    judged = ((60 * pixels + 2 * presence) * asked).sum() / asked.sum().clamp(min=1)
    return located + judged


def examine(judge: Judge, examples: Examples) -> Found:
    """Return what the judge finds in examples."""
    features = judge.look(torch.cat([examples.observed, examples.frames]))
    count = len(examples.observed)
    look = judge.remember(features[:count], examples.seen, examples.outline)
    rows = torch.arange(len(examples.frames))[:, None]
    return judge.find(features[count:], look.repeat_interleave(TARGETS, 0)[rows, examples.objects])


def train_judge(
    scenes: Scenes,
    steps: int,
    hand_steps: int,
    batch: int,
    lr: float,
    seed: int,
    report: Callable[[int, float], object] = lambda step, loss: None,
) -> Judge:
    """Return a judge that is trained for `steps` steps of `batch` scenes, and `hand_steps` for the hand.

    `report` is called with the number of steps and the loss after each step.
    """
    torch.manual_seed(seed)
    judge = Judge().to(memory_format=torch.channels_last)
    finding = [*judge.eye.parameters(), *judge.finder.parameters()]

    def finding_loss(generator: torch.Generator) -> Tensor:
        examples = draw_examples(scenes, batch, generator)
        return judge_loss(examine(judge, examples), examples)

    def hand_loss(generator: torch.Generator) -> Tensor:
        before, after, motion = draw_motions(scenes, HAND_BATCH, generator)
        return F.smooth_l1_loss(judge.hand_motion(before, after), motion, beta=1.0)

    _optimise(finding, finding_loss, steps, lr, seed, report)
    _optimise(list(judge.hand.parameters()), hand_loss, hand_steps, lr, seed + 1, report)
    return judge.eval()


def draw_motions(scenes: Scenes, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return pairs of consecutive frames [B,3,H,W], a little softened, and the hand's motion [B,3] in mm."""
    total, length = scenes.labels.shape[:2]
    numbers = torch.randint(total, (count,), generator=generator)
    times = torch.randint(length - 1, (count,), generator=generator)
    alter = _Alteration(generator)
    before, after = (alter.whole(scenes.frames[numbers, time] / 255) for time in (times, times + 1))
    return before, after, 1000 * (scenes.hands[numbers, times + 1] - scenes.hands[numbers, times])


def _optimise(
    parameters: Sequence[nn.Parameter],
    loss_of: Callable[[torch.Generator], Tensor],
    steps: int,
    lr: float,
    seed: int,
    report: Callable[[int, float], object],
) -> None:
    """Minimise a loss with Muon, whose rate rises for a twentieth of the steps and falls to nothing."""
    optimizer = Muon(parameters, lr, (0.9, 0.999))
    warm = max(1, steps // 20)
    for step in range(steps):
        rate = lr * min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / steps))
        set_learning_rate(optimizer, rate)
        generator = torch.Generator().manual_seed(seed * 1_000_000 + step)
        loss = loss_of(generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        report(step + 1, loss.item())
