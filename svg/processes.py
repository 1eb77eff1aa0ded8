"""Several processes that torchrun has started for one work: which of them this is, and what they exchange.

A training exchanges tensors of its device; an evaluation exchanges results in memory, see `together`.
PyTorch is imported where there are several processes: a single one needs none of it.
"""

import contextlib
import os
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import numpy as np

from data_tools.command import explain, silenced
from data_tools.errors import InputError

if TYPE_CHECKING:
    import torch

TIMEOUT = timedelta(minutes=10)
"""How long processes of a training wait for a silent one: the main one alone checks files and saves."""
LONG_TIMEOUT = timedelta(hours=12)
"""How long those of `together` wait: for a batch of another one, which may be large and its machine slow."""
CONNECTION_WORDS = ("gloo", "Connection closed by peer", "Connection reset")

T = TypeVar("T")


class Disconnected(InputError):
    """A process has ended without a word."""


@dataclass(frozen=True)
class _Failure:
    """The line of an error, empty if it is printed already, and the exit code."""

    line: str
    code: int


class Failed(InputError):
    """Another process has failed, in the words of its error."""

    def __init__(self, failure: _Failure):
        super().__init__(failure.line)
        self.failure = failure


@dataclass(frozen=True)
class World:
    """The processes of a work, and this one's number among them; by default it is alone."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def shard(self, batch_size: int) -> slice:
        """Return this process's part of a batch."""
        length = batch_size // self.size
        return slice(self.rank * length, (self.rank + 1) * length)

    def broadcast(self, value: float) -> float:
        """Return the main process's value in all processes."""
        if self.size == 1:
            return value
        import torch

        tensor = torch.tensor(value, dtype=torch.float64, device=_device())
        torch.distributed.broadcast(tensor, 0)
        return tensor.item()

    def any(self, value: bool) -> bool:
        """Return whether the value is true in any process."""
        return bool(self.sum(np.array(float(value))) > 0)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of each entry over the processes, in float64."""
        if self.size == 1:
            return values
        import torch

        tensor = torch.tensor(values, dtype=torch.float64, device=_device())
        torch.distributed.all_reduce(tensor)
        return tensor.cpu().numpy()

    def mean(self, values: "torch.Tensor") -> "torch.Tensor":
        """Return the mean of each entry over the processes, written to `values`."""
        if self.size > 1:
            import torch

            torch.distributed.all_reduce(values)
            values /= self.size
        return values

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            import torch

            torch.distributed.barrier()

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes of `together`, in the order of their numbers, in each of them.

        Values are any that can be pickled. Raises `Failed` if another process has failed since, and
        `Disconnected` if one has ended.
        """
        if self.size == 1:
            return [value]
        values = self._exchange(value)
        for other in values:
            if isinstance(other, _Failure):
                raise Failed(other)
        return values

    def from_main(self, work: Callable[[], T]) -> T:
        """Return in all processes of `together` what `work` returns in the main one, which alone does it."""
        if self.size == 1:
            return work()
        values: list[Any] = self.gather(work() if self.is_main else None)
        return values[0]

    def _exchange(self, value: Any) -> list[Any]:
        import torch

        values = [None] * self.size
        try:
            torch.distributed.all_gather_object(values, value)
        except RuntimeError as error:
            reason = explain_disconnection(error)
            if reason is None:
                raise
            raise Disconnected(reason) from error
        return values


def _device() -> str:
    """Return the kind of device whose tensors the processes exchange."""
    import torch

    return "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"


def processes() -> int:
    """Return how many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def join(device: "torch.device", timeout: timedelta | None = None) -> World:
    """Join the processes that torchrun has started, if it has; they exchange tensors on `device`.

    They wait for one another for `timeout`, by default `TIMEOUT`.
    """
    size = processes()
    if size == 1:
        return World()
    import torch.distributed as dist

    if not dist.is_initialized():
        timeout = timeout or TIMEOUT
        if device.type == "cuda":
            dist.init_process_group("nccl", timeout=timeout, device_id=device)
        else:
            dist.init_process_group("gloo", timeout=timeout)
    return World(dist.get_rank(), size)


def explain_disconnection(error: Exception) -> str | None:
    """Return in words that the connection to other processes is lost; None for any other error."""
    import torch.distributed as dist

    text = str(error)
    if not isinstance(error, dist.DistError) and not any(words in text for words in CONNECTION_WORDS):
        return None
    first = (text.splitlines() or [type(error).__name__])[0][:200]
    reason = re.sub(r"^\[\S+\] ", "", first).split(". ")[0]
    advice = "the message of the process that ended first gives the cause"
    return f"the connection to the other processes is lost ({reason}); {advice}"


# ------------------------------------------------------------------------------------- one work, one voice


@contextlib.contextmanager
def together() -> Generator[World]:
    """Join the processes that torchrun has started for one result, and let the main one alone print.

    An error that a user can fix, in whichever process, ends all of them: it is raised in the main one when
    that next exchanges something, and the others end quietly with the same exit code. What they exchange
    lies in memory, so that CPUs and GPUs do it in the same way.
    """
    if processes() == 1:
        yield World()
        return
    import torch

    world = join(torch.device("cpu"), LONG_TIMEOUT)
    try:
        with contextlib.nullcontext() if world.is_main else silenced():
            try:
                yield world
                world.gather(None)  # for errors since the last exchange
            except BaseException as error:
                _end(world, error)
    finally:
        torch.distributed.destroy_process_group()


def _end(world: World, error: BaseException) -> NoReturn:
    """Tell the others of an error, and raise it in the form in which it ends this process."""
    code = 2
    if isinstance(error, KeyboardInterrupt):  # torchrun hands the signal to all
        code = getattr(error, "exit_code", 130)
    elif isinstance(error, SystemExit):
        code = int(error.code or 0)
        _send(world, error, _Failure("", code))
    elif isinstance(error, Failed):
        code = error.failure.code
        if not error.failure.line:
            raise SystemExit(code) from None
    else:
        line = explain(error) if isinstance(error, Exception) else None
        if line is None or isinstance(error, Disconnected):
            raise error
        _send(world, error, _Failure(line, code))
    if world.is_main:
        raise error
    raise SystemExit(code) from None


def _send(world: World, error: BaseException, failure: _Failure) -> None:
    """Let the others know of a failure. Raises `error`, for which it stands, if they are not there."""
    try:
        world._exchange(failure)
    except Disconnected:
        raise error from None
