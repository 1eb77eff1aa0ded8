"""Predictors whose scores are known beforehand: they go through the same evaluation as a trained one."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class ReferenceModel(ABC):
    """The part of `VideoPredictor` that evaluation uses. Subclasses say what the future is."""

    latent_shape = (1,)
    device = torch.device("cpu")
    precision = "float32"

    def future_bytes(self, n_future: int) -> int:
        return 1000 * n_future

    @abstractmethod
    def future(self, last: Tensor, n_future: int) -> Tensor:
        """From the last observed frames [B,C,H,W]: [B,F,C,H,W]."""

    def reconstruct(self, frames: Tensor, conditions: Tensor, n_past: int) -> Tensor:
        future = self.future(frames[:, n_past - 1], frames.shape[1] - n_past)
        return torch.cat([frames[:, 1:n_past], future], 1)

    def observe(self, past: Tensor, conditions: Tensor) -> Tensor:
        return past[:, -1]

    def imagine(self, start: Tensor, conditions: Tensor, noise: Tensor | None = None) -> Tensor:
        samples = 1 if noise is None else noise.shape[1]
        future = self.future(start, conditions.shape[1])
        return future.expand(samples, *future.shape)


class ConstantModel(ReferenceModel):
    """The same grey everywhere."""

    def future(self, last: Tensor, n_future: int) -> Tensor:
        return torch.full((len(last), n_future, *last.shape[1:]), 0.5)


class CopyModel(ReferenceModel):
    """The last observed frame, held."""

    def future(self, last: Tensor, n_future: int) -> Tensor:
        return last[:, None].expand(-1, n_future, -1, -1, -1)


class TruthModel(ReferenceModel):
    """The true frames, which it looks up by the last observed one."""

    def __init__(self, clips: Tensor, n_past: int):
        """`clips` [N,T,C,H,W] in [0,1]."""
        self.last, self.futures = clips[:, n_past - 1].flatten(1), clips[:, n_past:]

    def future(self, last: Tensor, n_future: int) -> Tensor:
        number = torch.cdist(last.flatten(1), self.last).argmin(1)
        return self.futures[number, :n_future]
