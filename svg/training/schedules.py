"""Values that change over training: teacher forcing, KL weight, learning rate."""

import math

from ..config import TrainConfig


def teacher_forcing_ratio(config: TrainConfig, epoch: int) -> float:
    """The probability of teacher forcing: `tfr` up to epoch `tfr_start_decay_epoch`, then `tfr_decay_step` less each epoch.

    It never falls below `tfr_lower_bound`. Epochs count from 0.
    """
    decayed = config.tfr - config.tfr_decay_step * max(0, epoch - config.tfr_start_decay_epoch)
    return max(config.tfr_lower_bound, decayed)


def kl_annealing(config: TrainConfig, epoch: int) -> float:
    """The factor in [0,1] on `beta` (Fu et al. 2019): a linear ramp over the first 1/ratio of a period, then 1.

    The period is ``niter / kl_anneal_cycle`` epochs (cyclical) or `niter` (monotonic: one ramp).
    """
    if config.kl_anneal == "none":
        return 1.0
    cycles = config.kl_anneal_cycle if config.kl_anneal == "cyclical" else 1
    period = config.niter / cycles
    return min(1.0, (epoch % period) / (period / config.kl_anneal_ratio))


def learning_rate(config: TrainConfig, progress: float) -> float:
    """The learning rate at `progress` in [0,1] of the training: constant, or falling to 0 along a half cosine or a line.

    It rises from 0 over the first `warmup` of the training.
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
