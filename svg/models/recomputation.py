"""Save memory in training: keep how an activation is computed, not the activation itself.

The backward pass of convolution, norm and activation needs what the convolution gave (for the norm) and what
the activation gave (for itself and for the next convolution). Only the former is kept; the latter is computed
again from it when it is needed (compare Rota Bulo et al. 2018). That halves the memory of training for some
percent of its time, and changes no bit of the gradients.

A network opts in where it runs, with ``with recomputed_activations(): ...`` around its `Chain` modules.
"""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F


class Chain(nn.Sequential):
    """Modules in a row, each activation after a norm is one that `recomputed_activations` need not keep."""

    def forward(self, input: Tensor) -> Tensor:
        x = source = input
        norm: nn.Module | None = None
        for module in self:
            if isinstance(module, nn.LeakyReLU) and norm is not None:
                x = _activate(norm, module, source, x)
            else:
                norm, source = module, x
                x = module(x)
        return x


def recomputed_activations() -> AbstractContextManager:
    """Return the context in which the activations of `Chain` modules are not kept for the backward pass.

    A compiler weighs keeping against recomputing by itself, and without gradients nothing is kept.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return nullcontext()
    return _hooked()


def _activate(norm: nn.Module, activation: nn.Module, source: Tensor, normalised: Tensor) -> Tensor:
    """Return the activation of ``normalised = norm(source)``, and tell the active hook how to compute it."""
    if torch.compiler.is_compiling():
        return activation(normalised)
    hook = _active_hook.get()
    # Norms over several processes would have to communicate again.
    synchronised = isinstance(norm, nn.BatchNorm2d) and type(norm) is not nn.BatchNorm2d
    if (
        hook is not None
        and normalised.requires_grad
        and isinstance(norm, nn.BatchNorm2d | nn.GroupNorm)
        and not synchronised
    ):
        autocast = torch.is_autocast_enabled(source.device.type)
        again = partial(_activate_again, norm, activation, norm.training, autocast)
        hook.latest = Recomputed(normalised, again, (source.detach(), norm.weight, norm.bias))
    return activation(normalised)


def _activate_again(
    norm: nn.BatchNorm2d | nn.GroupNorm,
    activation: nn.Module,
    training: bool,
    autocast: bool,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
) -> Tensor:
    """Compute ``activation(norm(x))`` as in the forward pass, without counting the batch a second time."""
    with torch.no_grad(), torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
        if isinstance(norm, nn.GroupNorm):
            x = F.group_norm(x, norm.num_groups, weight, bias, norm.eps)
        elif training:
            x = F.batch_norm(x, None, None, weight, bias, True, 0.0, norm.eps)
        else:
            x = F.batch_norm(x, norm.running_mean, norm.running_var, weight, bias, False, 0.0, norm.eps)
        return activation(x)


@dataclass
class Unchanged:
    """A tensor that must not be changed in place until it is needed: as PyTorch checks its own."""

    tensor: Tensor
    version: int

    @staticmethod
    def from_now(tensor: Tensor) -> "Unchanged":
        """Remember the version of a tensor."""
        return Unchanged(tensor, tensor._version)

    def get(self) -> Tensor:
        """Return the tensor. Raises `RuntimeError` if it was changed."""
        if self.tensor._version != self.version:
            shape = tuple(self.tensor.shape)
            raise RuntimeError(f"a tensor of shape {shape} that the backward pass needs was changed in place")
        return self.tensor


class Recomputed:
    """A tensor of which only the way to compute it is kept: ``function(*sources)``."""

    def __init__(self, tensor: Tensor, function: Callable[..., Tensor], sources: tuple[Tensor, ...]):
        self.pointer = tensor.data_ptr()
        self.shape = tensor.shape
        self.function = function
        self.sources = [Unchanged.from_now(source) for source in sources]
        self.uses = 0
        self.value: Tensor | None = None

    def is_of(self, tensor: Tensor) -> bool:
        """Return whether a tensor that an operation keeps is this one; its Python object is another."""
        return tensor.data_ptr() == self.pointer and tensor.shape == self.shape

    def get(self) -> Tensor:
        """Return the tensor, computed again at the first of its uses and held until the last one."""
        value = self.value
        if value is None:
            value = self.function(*(source.get() for source in self.sources))
        self.uses -= 1
        self.value = value if self.uses > 0 else None
        return value


class Hook:
    """Decide for each tensor that an operation keeps for its backward pass whether it is computed again.

    Only the latest activation can be: it is used by what directly follows it. By the time that its memory may
    belong to another tensor, the next activation has taken its place, or tensors have another shape (after
    pooling).
    """

    latest: Recomputed | None = None

    def pack(self, tensor: Tensor) -> Unchanged | Recomputed:
        """Return what is kept of a tensor."""
        if self.latest is None or not self.latest.is_of(tensor):
            return Unchanged.from_now(tensor)
        self.latest.uses += 1
        return self.latest

    @staticmethod
    def unpack(packed: Unchanged | Recomputed) -> Tensor:
        """Return the tensor."""
        return packed.get()


_active_hook: ContextVar[Hook | None] = ContextVar("active_hook", default=None)


@contextmanager
def _hooked() -> Generator[Hook]:
    hook = Hook()
    token = _active_hook.set(hook)
    try:
        with saved_tensors_hooks(hook.pack, hook.unpack):
            yield hook
    finally:
        _active_hook.reset(token)
