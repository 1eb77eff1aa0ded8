"""A model that learns: one optimiser step, whichever model, device and number of processes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_, get_total_norm

from data_tools.errors import InputError

from .. import runtime
from ..config import Config
from ..models.build import make_model
from ..models.layers import BatchNorm
from ..models.predictor import as_images
from ..runs import checkpoint
from ..runs.progress import Progress
from ..sequences import Batch
from . import distributed
from .augmentation import shift_and_scale
from .losses import kl_divergence, mean_squared_error
from .optimizers import load_state, make_optimizer, state_tensors, step_unless


class Learner:
    """The model of `config` with its optimiser. Under torchrun each process takes its `share` of every batch."""

    def __init__(
        self,
        config: Config,
        condition_mean: list[float],
        condition_std: list[float],
        device: torch.device,
        world: distributed.World,
        share: slice,
    ):
        train = config.train
        self.config, self.device, self.world, self.share = config, device, world, share
        torch.manual_seed(train.seed)
        self.model = make_model(config.model, condition_mean, condition_std).to(
            device, memory_format=torch.channels_last
        )
        if world.size > 1:
            self.model = distributed.synchronise_norms(self.model, device)
        self.predictor = self.parallel = distributed.wrap(self.model, world, device)
        if train.compile:
            # CUDA graphs write the gradients of each batch where those of the batch before still lie
            graphs = device.type == "cuda" and train.accumulate == 1
            self.predictor = torch.compile(self.parallel, mode="reduce-overhead" if graphs else "default")
        self.optimizer = make_optimizer(train, self.model.parameters())
        norms = (module for module in self.model.modules() if isinstance(module, BatchNorm))
        self._statistics = [values for norm in norms for values in norm.buffers()]

    def start_from(self, run: Path) -> tuple[str, float, list[str]]:
        """Takes over the best weights of `run`, as `Predictor.adopt` does, and returns their SHA-256 before what that returns.

        Raises `InputError` for files that cannot be used, and if next to nothing fits.
        """
        config, found = checkpoint.load_config(run), checkpoint.find(run, "best")
        share, afresh = self.model.adopt(checkpoint.read_weights(found, config.model), config.model)
        if share < 0.01:
            raise InputError(
                f"{run}: found next to no weights that fit this model; leave out the flags that make it another"
            )
        return found.digests["weights"], share, afresh

    def load(self, found: checkpoint.Checkpoint) -> None:
        """Weights and the optimiser's state of a checkpoint; its settings stay those of the flags."""
        self.model.load_state_dict(checkpoint.read_weights(found, self.config.model))
        load_state(found, self.model, self.optimizer)

    def save(self, run: Path, progress: Progress) -> None:
        """Writes the last checkpoint."""
        weights = checkpoint.stored(self.model.state_dict())
        optimizer = state_tensors(self.model, self.optimizer)
        checkpoint.save_last(run, weights, optimizer, progress, self.config.train.keep_checkpoints)

    def is_finite(self) -> bool:
        """Whether all weights are: the last step can ruin them though its own loss was finite."""
        return all(bool(parameter.isfinite().all()) for parameter in self.model.parameters())

    def step(
        self, step: int, batches: list[Batch], lr: float, beta: float, tfr: float, stop: bool = False
    ) -> Callable[[], list[float]]:
        """One optimiser step over `batches`, whose gradients are averaged; left out if its loss or its gradients are not finite.

        Returns what waits for its loss, mse, kl and norm of the gradients, then 1 if it was left out, and a number above 0 if a
        process called with `stop`.
        """
        config = self.config
        teacher_forcing = bool(np.random.default_rng((config.train.seed, step, 2)).random() < tfr)
        random = runtime.generator(self.device, config.train.seed, step)
        sums = torch.zeros(4, device=self.device)
        statistics = [values.clone() for values in self._statistics]
        for number, batch in enumerate(batches, start=1):
            frames, conditions = self._to_device(batch)
            if config.data.augment:
                amounts = (
                    torch.rand(config.train.batch_size, 2, 2, generator=random, device=self.device) * 2 - 1
                )
                frames, conditions = shift_and_scale(
                    frames, conditions, config.data.augment * amounts[self.share]
                )
            # drawn for the whole batch, so that it does not depend on the number of processes
            shape = config.train.batch_size, frames.shape[1] - 1, *self.model.latent_shape
            noise = torch.randn(shape, generator=random, device=self.device)[self.share]
            with distributed.without_exchange(self.parallel, number == len(batches)):
                with runtime.autocast(self.device, config.train.precision):
                    rollout = self.predictor(frames, conditions, config.data.n_past, teacher_forcing, noise)
                mse = mean_squared_error(rollout.frames, as_images(frames[:, 1:]))
                kl = kl_divergence(rollout.posterior, rollout.prior)
                loss = (mse + beta * kl) / len(batches)
                loss.backward()
            sums[:3] += torch.stack([loss.detach(), mse.detach() / len(batches), kl.detach() / len(batches)])
        sums[3] = float(stop)
        sums, norm = (
            self.world.mean(sums),
            self._gradient_norm(),
        )  # alike in all processes, and so what follows from them
        unusable = ~(sums.isfinite().all() & norm.isfinite())
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        step_unless(unusable, self.optimizer)
        for values, before in zip(self._statistics, statistics, strict=True):
            values.copy_(torch.where(unusable, before, values))
        self.optimizer.zero_grad()
        return runtime.fetch(torch.stack([*sums[:3], norm, unusable.float(), sums[3]]))

    def _gradient_norm(self) -> torch.Tensor:
        """The norm of all gradients, which are clipped if the flags say so."""
        if self.config.train.max_grad_norm:
            return clip_grad_norm_(self.model.parameters(), self.config.train.max_grad_norm)
        return get_total_norm(
            [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        )

    def _to_device(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return batch["frames"].to(self.device, non_blocking=True), batch["conditions"].to(
            self.device, non_blocking=True
        )
