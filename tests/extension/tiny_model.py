"""A model of another package: one convolution over the last frame, the condition and a latent."""

import torch
from torch import Tensor, nn

from svg.config import ModelConfig
from svg.models.predictor import Predictor, Rollout, as_images
from svg.models.recurrent import Gaussian
from svg.models.registry import ModelEntry

ENTRY = ModelEntry("tests.extension.tiny_model:TinyModel", widths=())


class TinyModel(Predictor):
    """Draw each frame from the one before it."""

    def __init__(self, config: ModelConfig, condition_mean: list[float], condition_std: list[float]):
        super().__init__(config, condition_mean, condition_std)
        inputs = config.channels + config.condition_dim + config.z_dim
        self.posterior = nn.Linear(config.channels, 2 * config.z_dim)
        self.draw = nn.Conv2d(inputs, config.channels, 3, padding=1)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Return the shape of one latent."""
        return (self.config.z_dim,)

    def forward(self, frames, conditions, n_past, teacher_forcing=False, noise=None) -> Rollout:
        """Predict frames 1..T-1 of `frames` [B,T,C,H,W], from the true ones as long as they are given."""
        frames = as_images(frames)
        posterior = Gaussian(*self.posterior(frames[:, 1:].mean((3, 4))).chunk(2, dim=2))
        z = posterior.mu if noise is None else posterior.sample(noise)
        frame = frames[:, 0]
        images = []
        for step in range(frames.shape[1] - 1):
            if teacher_forcing or step < n_past:
                frame = frames[:, step]
            frame = self._next(frame, conditions[:, step], z[:, step])
            images.append(frame)
        zeros = torch.zeros_like(posterior.mu)
        return Rollout(torch.stack(images, 1), posterior, prior=Gaussian(zeros, zeros))

    def observe(self, past, conditions) -> Tensor:
        """Return the last observed frame: the state from which `advance` goes on."""
        return as_images(past)[:, -1]

    def advance(self, start, conditions, noise) -> tuple[Tensor, Tensor]:
        """Predict S futures of each of B clips, [S,B,F,C,H,W], and return them with the last frames."""
        batch, samples, steps = noise.shape[:3]
        if conditions.dim() == 3:  # the same for all futures of a clip
            conditions = conditions[:, None].expand(-1, samples, -1, -1)
        frame = start.repeat_interleave(samples, 0)
        images = []
        for step in range(steps):
            frame = self._next(frame, conditions[:, :, step].flatten(0, 1), noise[:, :, step].flatten(0, 1))
            images.append(frame)
        return torch.stack(images, 1).unflatten(0, (batch, samples)).transpose(0, 1), frame

    def _next(self, frame: Tensor, condition: Tensor, z: Tensor) -> Tensor:
        planes = torch.cat([condition, z], 1)[..., None, None].expand(-1, -1, *frame.shape[2:])
        return torch.sigmoid(self.draw(torch.cat([frame, planes.to(frame)], 1)).float())
