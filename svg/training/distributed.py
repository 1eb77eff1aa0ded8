"""Several processes that train one model, as torchrun starts them: each takes its share of every batch.

The batch size is that of all processes together and batch norm takes its statistics over all of them, so that the number of
processes changes nothing but the speed.
"""

import os
import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from data_tools.command import tell
from data_tools.errors import InputError

BEAT, MISSES, ARRIVAL = 5.0, 6, 60
"""Each process says every so many seconds that it is there, and ends when another one has missed so many times; before its first
beat, while it is started, it has more time."""


@dataclass(frozen=True)
class World:
    """This process among all."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """This process's part of a batch."""
        each = batch_size // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def agree(self, value: float) -> float:
        """The first process's value, in all."""
        if self.size == 1:
            return value
        tensor = torch.tensor(
            value, dtype=torch.float64, device="cuda" if dist.get_backend() == "nccl" else "cpu"
        )
        dist.broadcast(tensor, 0)
        return tensor.item()

    def mean(self, values: Tensor) -> Tensor:
        """The mean of each entry over the processes."""
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return values

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


def processes() -> int:
    """How many torchrun has started; 1 where it has not."""
    return int(os.environ.get("WORLD_SIZE", 1))


def check_batch_size(batch_size: int) -> None:
    """Raises `InputError` if the processes cannot share a batch evenly."""
    if batch_size % processes():
        raise InputError(
            f"--batch_size: found {batch_size}, expected a multiple of the {processes()} processes: it is that of all together"
        )


def join(device: torch.device) -> World:
    """Joins the processes that torchrun has started; alone where it has not."""
    size = processes()
    if size == 1:
        return World()
    if not dist.is_initialized():
        backend, own = ("nccl", device) if device.type == "cuda" else ("gloo", None)
        store, rank, _ = next(rendezvous("env://", timeout=timedelta(seconds=BEAT * ARRIVAL)))
        Watch(rank, size).start()
        # the others wait while the first one scores the validation split; of one that has ended, `Watch` knows
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=size, timeout=timedelta(hours=2), device_id=own
        )
    return World(dist.get_rank(), size)


def leave() -> None:
    """At the end of a run that went well, or was stopped."""
    if dist.is_initialized():
        dist.barrier()
        Watch.ended.set()
        dist.destroy_process_group()


def fall_silent() -> None:
    """After an error, whatever this process still waits for: the others notice, and end."""
    Watch.ended.set()


class Watch(threading.Thread):
    """Ends this process when another one of the run is silent: killed, failed, suspended, or on a machine that cannot be reached.

    What waits for it, in the middle of an operation, would wait for hours otherwise.
    """

    ended = threading.Event()

    def __init__(self, rank: int, size: int):
        super().__init__(daemon=True)
        self._rank, self._others = rank, [other for other in range(size) if other != rank]
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(*place, is_master=False, timeout=timedelta(seconds=BEAT * MISSES))
        self._store = dist.PrefixStore(f"beats {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        Watch.ended.clear()

    def run(self) -> None:
        counts, missed = dict.fromkeys(self._others, 0), dict.fromkeys(self._others, 0)
        while not Watch.ended.wait(BEAT):
            before, counts = counts, self._beat()
            # counted in beats of its own: all processes may have been suspended together
            missed = {
                other: missed[other] + 1 if counts[other] == before[other] else 0 for other in self._others
            }
            for other, beats in missed.items():
                if beats >= (MISSES if counts[other] else ARRIVAL):
                    self._end(f"nothing was heard of process {other} for {beats * BEAT:g} seconds")

    def _beat(self) -> dict[int, int]:
        """Says that this process is there, and how often each other one has said so."""
        lost = "the process that keeps this training together cannot be reached"
        waiting = threading.Timer(
            BEAT * MISSES, self._end, [lost]
        )  # what is asked of one that hangs never returns
        waiting.daemon = True
        waiting.start()
        try:
            self._store.add(str(self._rank), 1)
            return {other: self._store.add(str(other), 0) for other in self._others}
        except (RuntimeError, OSError):  # DistError is the former
            self._end(lost)
            return dict.fromkeys(self._others, 0)
        finally:
            waiting.cancel()

    def _end(self, reason: str) -> None:
        if not Watch.ended.is_set():
            try:
                tell(f"process {self._rank}: {reason}; this one ends; svg-train --resume goes on", error=True)
            finally:
                os._exit(1)


def wrap(model: nn.Module, world: World, device: torch.device) -> nn.Module:
    """The model for training steps: its gradients are averaged over the processes."""
    if world.size == 1:
        return model
    return nn.parallel.DistributedDataParallel(model, [device] if device.type == "cuda" else None)


def without_exchange(model: nn.Module, last: bool) -> AbstractContextManager:
    """Gradients of accumulated batches are exchanged with the last one."""
    return (
        nullcontext()
        if last or not isinstance(model, nn.parallel.DistributedDataParallel)
        else model.no_sync()
    )


def synchronise_norms(model: nn.Module, device: torch.device) -> nn.Module:
    """Batch norms take their statistics over all processes; weights and their names stay."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for parent in list(model.modules()):
        for name, norm in list(parent.named_children()):
            if type(norm) is nn.BatchNorm2d:
                synchronised = SynchronisedBatchNorm(norm.num_features, norm.eps, norm.momentum)
                synchronised.load_state_dict(norm.state_dict())
                setattr(parent, name, synchronised)
    return model


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """Batch norm over all processes on a CPU, for which PyTorch has none."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        floats, count = x.float(), dist.get_world_size() * x[:, 0].numel()  # shares of a batch are equal
        mean = SumOverProcesses.apply(floats.sum((0, 2, 3))) / count
        centred = floats - mean[:, None, None]
        variance = SumOverProcesses.apply((centred**2).sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class SumOverProcesses(torch.autograd.Function):
    """The sum over all processes; every process's result depends on every process's values, hence likewise the gradient."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total
