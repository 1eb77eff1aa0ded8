"""Training passes that a GPU starts as a whole: a CUDA graph, recorded once."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

WARM_UP = 3
"""Passes before the recorded one, in which cuDNN chooses its algorithms and memory is allocated."""


class RecordedPass:
    """A forward and backward pass over a batch, as a CUDA graph.

    A pass of a small model is thousands of short kernels, which take longer to be started one by one than to
    run. The gradients of a call are those of its batch alone. What the pass reads beside its arguments
    (weights, buffers) has to stay at its place; whatever it does on the host happens once.
    """

    def __init__(self, compute: Callable[..., Tensor], model: nn.Module, arguments: dict[str, Tensor]):
        """Record ``compute(**arguments)``, which adds to the gradients of `model` and returns a tensor.

        `arguments` are those of the first call; later ones have the same shapes. The gradients are gone
        afterwards.
        """
        self._arguments = {name: value.clone() for name, value in arguments.items()}
        buffers = list(model.buffers())
        before = [buffer.clone() for buffer in buffers]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                model.zero_grad()
                compute(**self._arguments)
        torch.cuda.current_stream().wait_stream(aside)
        model.zero_grad()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._result = compute(**self._arguments)
        self._gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
        model.zero_grad()
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)

    def __call__(self, arguments: dict[str, Tensor]) -> Tensor:
        """Compute the gradients of `arguments`; what is returned stands until the next call."""
        for name, value in arguments.items():
            self._arguments[name].copy_(value)
        self._graph.replay()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        return self._result
