"""A model that learns: one optimiser step, for any model, device and number of processes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, get_total_norm

from data_tools.errors import InputError

from .. import runtime
from ..config import Config
from ..models.backbones import upsample
from ..models.build import make_model
from ..models.layers import BatchNorm
from ..models.predictor import Predictor, Rollout, as_images
from ..processes import World
from ..runs import checkpoint
from ..runs.progress import LOSSES, Progress
from ..sequences import Batch, SequenceDataset
from . import distributed, truth
from .augmentation import shift_and_scale
from .losses import places_error, video_loss
from .object_losses import arm_error, points_error, tracks_errors
from .optimizers import load_state, make_optimizer, set_learning_rate, state_tensors, step_unless
from .recorded import RecordedPass

FITTED = 4096
"""Most sequences whose conditions are read before the first step."""


@dataclass(frozen=True)
class StepReport:
    """The outcome of a training step. On a GPU, reading it waits for this step, not for later ones."""

    step: int
    lr: float
    beta: float
    read: Callable[[], list[float]]

    @cached_property
    def _values(self) -> list[float]:
        return self.read()

    @property
    def losses(self) -> dict[str, float]:
        """Loss, mse, kl and gradient norm by name, means over the step's batches and all processes."""
        return dict(zip(LOSSES, self._values, strict=False))

    @property
    def is_skipped(self) -> bool:
        """Whether loss or gradients were not finite, so that the weights stayed as they were."""
        return bool(self._values[len(LOSSES)])

    @property
    def is_stop_requested(self) -> bool:
        """Whether any process was asked to stop."""
        return self._values[len(LOSSES) + 1] > 0


class Learner:
    """The model of `config` with its optimiser. Each process takes its `shard` of every batch."""

    def __init__(
        self,
        config: Config,
        condition_mean: list[float],
        condition_std: list[float],
        device: torch.device,
        world: World,
        shard: slice,
    ):
        train = config.train
        self.config = config
        self.device = device
        self.world = world
        self.shard = shard
        torch.manual_seed(train.seed)
        self.model = make_model(config.model, condition_mean, condition_std)
        self.model.to(device).to(memory_format=torch.channels_last)
        if world.size > 1:
            distributed.synchronise_norms(self.model, device)
        self.parallel = distributed.wrap(self.model, world, device)
        self.predictor = self.parallel
        if train.compile:
            # CUDA graphs would write the gradients of a batch over those of the batch before
            graphs = device.type == "cuda" and train.accumulate == 1
            self.predictor = torch.compile(self.parallel, mode="reduce-overhead" if graphs else "default")
        learned = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = make_optimizer(train, learned)
        self._recorded: dict[bool, RecordedPass] = {}  # with teacher forcing and without
        norms = [module for module in self.model.modules() if isinstance(module, BatchNorm)]
        self._statistics = [values for norm in norms for values in norm.buffers()]

    def start_from(self, run: Path) -> tuple[str, float, list[str]]:
        """Take over the best weights of `run`; return their SHA-256 and what `Predictor.adopt` returns.

        Raises `InputError` for files that cannot be used, and if next to nothing fits.
        """
        config = checkpoint.load_config(run)
        source = checkpoint.find(run, "best")
        share, new = self.model.adopt(checkpoint.read_weights(source, config.model), config.model)
        if share < 0.01:
            advice = "leave out the flags that change the model"
            raise InputError(f"{run}: found next to no weights that fit this model; {advice}")
        return source.digests["weights"], share, new

    def fit_conditions(self, dataset: SequenceDataset) -> None:
        """Let the model fit what follows from conditions alone, on the first frames of some sequences."""
        if type(self.model).fit_conditions is Predictor.fit_conditions:
            return
        numbers = np.flatnonzero(dataset.lengths >= dataset.clip_length)[:FITTED]
        length = int(dataset.lengths[numbers].min())
        clips = [dataset.read_conditions(int(number), 0, length) for number in numbers]
        random = runtime.generator(torch.device("cpu"), self.config.train.seed, FITTED)
        self.model.fit_conditions(torch.stack(clips).to(self.device), random)

    def load(self, source: checkpoint.Checkpoint) -> None:
        """Load weights and the optimiser's state; the optimiser's settings stay those of the flags."""
        self.model.load_state_dict(checkpoint.read_weights(source, self.config.model))
        load_state(source, self.model, self.optimizer)

    def save(self, run: Path, progress: Progress) -> None:
        """Write the last checkpoint."""
        weights = checkpoint.stored(self.model.state_dict())
        optimizer = state_tensors(self.model, self.optimizer)
        checkpoint.save_last(run, weights, optimizer, progress, self.config.train.keep_checkpoints)

    def save_best(self, run: Path, progress: Progress) -> None:
        """Write the weights as the best ones so far."""
        checkpoint.save_best(run, checkpoint.stored(self.model.state_dict()), progress)

    def is_finite(self) -> bool:
        """Return whether all weights are finite: a step can ruin them though its loss was finite."""
        return all(bool(parameter.isfinite().all()) for parameter in self.model.parameters())

    def step(
        self,
        step: int,
        batches: list[Batch],
        lr: float,
        beta: float,
        tfr: float,
        is_stop_requested: bool = False,
    ) -> StepReport:
        """Take an optimiser step with the mean gradients of `batches`, if they and the loss are finite.

        Randomness is a function of the seed and `step`. `tfr` is the probability of teacher forcing.
        """
        train = self.config.train
        teacher_forcing = bool(np.random.default_rng((train.seed, step, 2)).random() < tfr)
        random = runtime.generator(self.device, train.seed, step)
        statistics = [values.clone() for values in self._statistics]
        sums = torch.zeros(4, device=self.device)
        for number, batch in enumerate(batches, start=1):
            with distributed.exchange_if(number == len(batches), self.parallel):
                sums[:3] += self._backward(batch, beta, teacher_forcing, random)
        sums[3] = float(is_stop_requested)
        # equal in all processes, and so is what follows from them
        sums = self.world.mean(sums)
        norm = self._gradient_norm()
        unusable = ~(sums.isfinite().all() & norm.isfinite())
        set_learning_rate(self.optimizer, lr)
        step_unless(unusable, self.optimizer)
        for values, before in zip(self._statistics, statistics, strict=True):
            values.copy_(torch.where(unusable, before, values))
        self.optimizer.zero_grad()
        report = torch.stack([*sums[:3], norm, unusable.float(), sums[3]])
        return StepReport(step, lr, beta, runtime.fetch(report))

    def _backward(self, batch: Batch, beta: float, teacher_forcing: bool, random: torch.Generator) -> Tensor:
        """Add the gradients of one of the step's batches; return its part of loss, mse and kl [3]."""
        compute = partial(self._pass, teacher_forcing)
        arguments = self._arguments(batch, beta, random)
        if not self.config.train.cuda_graph:
            return compute(**arguments)
        if teacher_forcing not in self._recorded:
            self._recorded[teacher_forcing] = RecordedPass(compute, self.model, arguments)
        return self._recorded[teacher_forcing](arguments)

    def _arguments(self, batch: Batch, beta: float, random: torch.Generator) -> dict[str, Tensor]:
        """Return the arguments of `_pass` on the device, with all of its random numbers."""
        data = self.config.data
        batch_size = self.config.train.batch_size
        frames = batch["frames"].to(self.device, non_blocking=True)
        conditions = batch["conditions"].to(self.device, non_blocking=True)
        # random numbers are drawn for the whole batch, so that they do not depend on the number of processes
        if data.augment:
            amounts = torch.rand(batch_size, 2, 2, generator=random, device=self.device) * 2 - 1
            frames, conditions = shift_and_scale(frames, conditions, data.augment * amounts[self.shard])
        shape = batch_size, frames.shape[1] - 1, *self.model.latent_shape
        noise = torch.randn(shape, generator=random, device=self.device)[self.shard]
        frames, conditions, noise = map(self._drawn_first, (frames, conditions, noise))
        arguments = {"frames": frames, "conditions": conditions, "noise": noise}
        arguments["beta"] = torch.full((), beta, device=self.device)
        drawn = self._drawn_frames(frames, random)
        if drawn is not None:
            arguments["drawn"] = drawn
        for name in ("labels", "poses"):
            if name in batch:
                arguments[name] = self._drawn_first(batch[name].to(self.device, non_blocking=True))
        return arguments

    def _pass(
        self,
        teacher_forcing: bool,
        frames: Tensor,
        conditions: Tensor,
        noise: Tensor,
        beta: Tensor,
        drawn: Tensor | None = None,
        labels: Tensor | None = None,
        poses: Tensor | None = None,
    ) -> Tensor:
        """Add the gradients of a batch to those of the model; return its part of loss, mse and kl [3].

        What it reads is all on the device, which it gives nothing to wait for.
        """
        data = self.config.data
        chosen = () if drawn is None else (drawn,)
        with runtime.autocast(self.device, self.config.train.precision):
            rollout = self.predictor(frames, conditions, data.n_past, teacher_forcing, noise, *chosen)
        target = as_images(of_times(frames[:, 1:], drawn))
        loss, mse, kl = video_loss(rollout, target, beta)
        if labels is not None and poses is not None:
            loss = loss + self._loss_by_truth(rollout, frames, conditions, target, labels, poses, drawn)
        count = self.config.train.accumulate
        loss = loss / count
        loss.backward()
        return torch.stack([loss.detach(), mse.detach() / count, kl.detach() / count])

    def _drawn_frames(self, frames: Tensor, random: torch.Generator) -> Tensor | None:
        """Return which of the frames after the first are drawn [b,n] of the first clips; None for all."""
        model = self.config.model
        first = self.config.data.n_past - 1
        choices = frames.shape[1] - 1 - first
        count = min(model.drawn_frames or choices, choices)
        if count == choices and not model.drawn_clips:
            return None
        shape = self.config.train.batch_size, choices
        order = torch.rand(shape, generator=random, device=self.device)[self.shard].argsort(1)
        return first + order[:: self._clips_for_each_drawn, :count]

    def _drawn_first(self, values: Tensor) -> Tensor:
        """Return `values` [B,...] with those of the clips that are drawn before all others."""
        step = self._clips_for_each_drawn
        if step == 1:
            return values
        return values.unflatten(0, (-1, step)).transpose(0, 1).flatten(0, 1)

    @property
    def _clips_for_each_drawn(self) -> int:
        drawn = self.config.model.drawn_clips
        return self.config.train.batch_size // drawn if drawn else 1

    def _loss_by_truth(
        self,
        rollout: Rollout,
        frames: Tensor,
        conditions: Tensor,
        target: Tensor,
        all_labels: Tensor,
        all_poses: Tensor,
        drawn: Tensor | None,
    ) -> Tensor:
        """Return what the loss has beyond that of all pixels and the KL, by the truth of the simulator.

        `target` are the frames that those of `rollout` are compared with, `drawn` their numbers.
        """
        train = self.config.train
        n_past = self.config.data.n_past
        observed = of_times(truth.observed_before(all_poses, n_past), drawn)
        labels, poses = (of_times(values[:, 1:], drawn) for values in (all_labels, all_poses))
        pushed = truth.is_pushed(labels, poses, observed)
        errors = (rollout.frames - target) ** 2
        loss = (train.pushed_weight - 1) * (errors * pushed[:, :, None]).mean()
        if rollout.tracks is not None:
            drawn_clips = as_images(frames[: len(target)])
            scene, motion = tracks_errors(rollout.tracks, drawn_clips, all_labels, all_poses, n_past)
            motion = motion + points_error(rollout.tracks, conditions)
            scene = scene + arm_error(rollout.tracks, labels[:, -rollout.tracks.arm.shape[1] :])
            loss = loss + train.objects_weight * scene + train.places_weight * motion
        elif train.places_weight:
            assert rollout.places is not None  # --warp carried
            target = truth.true_places(labels, poses, observed)
            loss = loss + train.places_weight * places_error(upsample(rollout.places), target, pushed)
        return loss

    def _gradient_norm(self) -> Tensor:
        """Return the norm of all gradients, and clip them if the flags say so."""
        if self.config.train.max_grad_norm:
            return clip_grad_norm_(self.model.parameters(), self.config.train.max_grad_norm)
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        return get_total_norm(gradients)


def of_times(values: Tensor, times: Tensor | None) -> Tensor:
    """Return the entries `times` [b,n] of the first b of `values` [B,T,...]; all of them for None."""
    if times is None:
        return values
    return values[torch.arange(len(times), device=values.device)[:, None], times]
