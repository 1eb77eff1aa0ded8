"""Several processes that train one model, as torchrun starts them: each takes its shard of every batch.

The batch size is that of all processes together and batch norm takes its statistics over all of them, so that
the number of processes changes nothing but the speed.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from data_tools.errors import InputError

from ..config import Config
from ..processes import World, processes


def check_shares(config: Config) -> None:
    """Raise `InputError` if the processes cannot share a batch evenly, or its clips that are drawn."""
    counts = {"batch_size": config.train.batch_size, "drawn_clips": config.model.drawn_clips}
    for name, count in counts.items():
        if count % processes():
            expected = f"a multiple of the {processes()} processes: it is that of all together"
            raise InputError(f"--{name}: found {count}, expected {expected}")


def leave() -> None:
    """Leave the other processes, at the end of a run that succeeded or was stopped."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def wrap(model: nn.Module, world: World, device: torch.device) -> nn.Module:
    """Return the model for training steps, whose gradients are averaged over the processes."""
    if world.size == 1:
        return model
    return nn.parallel.DistributedDataParallel(model, [device] if device.type == "cuda" else None)


def exchange_if(is_last: bool, model: nn.Module) -> AbstractContextManager:
    """Return a context in which gradients are exchanged with the last accumulated batch alone."""
    if is_last or not isinstance(model, nn.parallel.DistributedDataParallel):
        return nullcontext()
    return model.no_sync()


def synchronise_norms(model: nn.Module, device: torch.device) -> None:
    """Let batch norms take their statistics over all processes; names and values of weights stay."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return
    for parent in list(model.modules()):
        for name, norm in list(parent.named_children()):
            if type(norm) is nn.BatchNorm2d:
                synchronised = SynchronisedBatchNorm(norm.num_features, norm.eps, norm.momentum)
                synchronised.load_state_dict(norm.state_dict())
                setattr(parent, name, synchronised)


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """Batch norm over all processes on a CPU, for which PyTorch has none."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise images [B,C,H,W]."""
        if not self.training:
            return super().forward(input)
        floats = input.float()
        count = dist.get_world_size() * input[:, 0].numel()  # shards of a batch are equal
        mean = SumOverProcesses.apply(floats.sum((0, 2, 3))) / count
        centred = floats - mean[:, None, None]
        variance = SumOverProcesses.apply((centred**2).sum((0, 2, 3))) / count
        self._update_statistics(mean, variance * count / (count - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    @torch.no_grad()
    def _update_statistics(self, mean: Tensor, variance: Tensor) -> None:
        assert self.num_batches_tracked is not None and self.momentum is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class SumOverProcesses(torch.autograd.Function):
    """The sum over all processes. As each result depends on the values of all, gradients are summed, too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """Return the sum of `values` over the processes."""
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the sum of the gradients of all processes."""
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total
