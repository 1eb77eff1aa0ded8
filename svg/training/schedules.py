"""Values that change over training: teacher forcing, KL weight, learning rate."""

import math
from dataclasses import dataclass

from ..config import TrainConfig


@dataclass
class EpochSettings:
    """The values of an epoch's schedules, the learning rate being that of its latest step, and its speed."""

    beta: float
    tfr: float
    lr: float
    frames_per_second: float = 0.0


def settings_of(config: TrainConfig, epoch: int, lr: float) -> EpochSettings:
    """Return the settings of an epoch, counted from 0, that begins with the learning rate `lr`."""
    beta = config.beta * kl_annealing(config, epoch)
    return EpochSettings(beta, teacher_forcing_ratio(config, epoch), lr)


def teacher_forcing_ratio(config: TrainConfig, epoch: int) -> float:
    """Return the probability of teacher forcing in an epoch, counted from 0.

    It is `tfr` up to epoch `tfr_start_decay_epoch`, then falls by `tfr_decay_step` each epoch down to
    `tfr_lower_bound`.
    """
    decayed = config.tfr - config.tfr_decay_step * max(0, epoch - config.tfr_start_decay_epoch)
    return max(config.tfr_lower_bound, decayed)


def kl_annealing(config: TrainConfig, epoch: int) -> float:
    """Return the factor in [0,1] on `beta` (Fu et al. 2019).

    It rises linearly over the first 1/ratio of a period and is 1 for the rest. The period is ``niter /
    kl_anneal_cycle`` epochs (cyclical) or `niter` (monotonic: one ramp).
    """
    if config.kl_anneal == "none":
        return 1.0
    cycles = config.kl_anneal_cycle if config.kl_anneal == "cyclical" else 1
    period = config.niter / cycles
    return min(1.0, (epoch % period) / (period / config.kl_anneal_ratio))


def learning_rate(config: TrainConfig, progress: float) -> float:
    """Return the learning rate at `progress` in [0,1] of the training.

    It rises from 0 over the first `warmup` of the training, then is constant, or falls to 0 along a half
    cosine or a line.
    """
    if progress < config.warmup:
        return config.lr * progress / config.warmup
    rest = (progress - config.warmup) / (1 - config.warmup)
    factor = {
        "constant": 1.0,
        "cosine": 0.5 * (1 + math.cos(math.pi * min(rest, 1))),
        "linear": max(0.0, 1 - rest),
    }
    return config.lr * factor[config.lr_schedule]


def learning_rate_of_step(config: TrainConfig, step: int, minutes: float) -> float:
    """Return the learning rate of a step; with `max_minutes` it also falls with the `minutes` of training."""
    progress = (step + 0.5) / (config.niter * config.epoch_size)
    if config.max_minutes:
        progress = min(1.0, max(progress, minutes / config.max_minutes))
    return learning_rate(config, progress)
