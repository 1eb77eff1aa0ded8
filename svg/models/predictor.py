"""What training, evaluation and rendering know of a model.

Time, once: the transition from frame t-1 to frame t sees ``conditions[t-1]`` and a latent ``z[t]``, which comes from the posterior
in training, where frame t is known, and from the prior in prediction. For robots ``conditions[t-1]`` = [actions[t-1],
positions[t-1]]; for persons it is the pose that frame t is to show (`data_tools.layout`).

Frames are ``[B,T,C,H,W]``, uint8 or float in [0,1]; conditions ``[B,T,D]`` in the data's own units or, of poses, uint8
``[B,T,C,H,W]``. No module keeps state.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from data_tools.errors import InputError

from .. import runtime
from ..config import ModelConfig
from .inputs import Array, check_count, check_request
from .recurrent import Gaussian


@dataclass
class Rollout:
    """Predicted frames 1..T-1 of a clip [B,T-1,C,H,W] in [0,1] with posterior and prior of each of these steps."""

    frames: Tensor
    posterior: Gaussian
    prior: Gaussian


def as_images(frames: Tensor) -> Tensor:
    """uint8 frames to float in [0,1]; float frames as they are."""
    return frames.float() / 255 if frames.dtype == torch.uint8 else frames


class Predictor(nn.Module, ABC):
    """A model that predicts frames from the first ones and from conditions.

    `observe` gives what it knows after the given frames, `advance` goes on from there; what it then knows comes back, so that a
    video of any length can be predicted in pieces.
    """

    precision = "float32"
    """Numbers in which predictions are computed unless the caller casts; `freezing.freeze` sets it."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @property
    @abstractmethod
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of the latent of one step."""

    @abstractmethod
    def forward(
        self,
        frames: Tensor,
        conditions: Tensor | None,
        n_past: int,
        teacher_forcing: bool = False,
        noise: Tensor | None = None,
    ) -> Rollout:
        """Predicts frames 1..T-1 of clips `frames` [B,T,C,H,W] with latents from the posterior.

        Transitions start from true frames, all of them with `teacher_forcing`, else those of the first `n_past`; the others start
        from what the model has predicted itself. `noise` [B,T-1,*latent_shape], standard normal, gives ``z = mu + sigma * noise``;
        without it latents are the means.
        """

    @abstractmethod
    def observe(self, past: Tensor, conditions: Tensor | None) -> Any:
        """Takes in the observed frames `past` [B,n_past,C,H,W] and `conditions` [B,>= n_past-1,...]."""

    @abstractmethod
    def advance(self, start: Any, conditions: Tensor | None, noise: Tensor) -> tuple[Tensor, Any]:
        """Continues from `start` for S futures of each clip: frames [S,B,F,C,H,W], and where they have come to.

        `conditions` [B,>=F,...], the same for all futures of a clip, or [B,S,>=F,...], one sequence for each; its first entry is
        that of the last frame that `start` knows. `noise` [B,S,F,*latent_shape] gives ``z = mu + sigma * noise`` under the prior;
        zeros take the prior's mean. What comes back starts B * S clips, the futures of one together. Gradients flow to conditions
        that are numbers.
        """

    @abstractmethod
    def future_bytes(self, n_future: int) -> int:
        """Memory that one sampled future of `n_future` frames takes while it is imagined and scored, on the safe side."""

    @abstractmethod
    def parts(self) -> Iterator[nn.Module]:
        """The modules that a step calls, to be compiled each."""

    @abstractmethod
    def fold_norms(self) -> None:
        """Takes batch norms, fixed scales and shifts in evaluation mode, into the convolutions before them: for prediction."""

    @staticmethod
    def pieces(name: str, tensor: Tensor, config: ModelConfig) -> dict[str, Tensor]:
        """A tensor of the state in pieces, each of which another model may take over or not: {kind of piece: view}."""
        return {"": tensor}

    @torch.no_grad()
    def adopt(self, weights: dict[str, Tensor], origin: ModelConfig) -> tuple[float, list[str]]:
        """Takes over, of the weights of a model of the configuration `origin`, each piece that has the same shape here.

        Returns the share of all numbers that were taken over, and the names of the pieces that start afresh.
        """
        taken, total, afresh = 0, 0, []
        for name, value in self.state_dict().items():
            there = self.pieces(name, weights[name], origin) if name in weights else {}
            for kind, piece in self.pieces(name, value, self.config).items():
                total += piece.numel()
                if kind in there and there[kind].shape == piece.shape:
                    piece.copy_(there[kind])
                    taken += piece.numel()
                elif piece.numel():
                    afresh.append(f"{name} ({kind})" if kind else name)
        return taken / total, afresh

    # ------------------------------------------------------------------------------------------------- made of the above

    def reconstruct(self, frames: Tensor, conditions: Tensor | None, n_past: int) -> Tensor:
        """The "rec" video, frames 1..T-1 [B,T-1,C,H,W]: latents are the posterior's means, own predictions after `n_past`."""
        return self(frames, conditions, n_past, teacher_forcing=False).frames

    @torch.no_grad()
    def predict(
        self,
        past: Array,
        conditions: Array | None,
        n_future: int,
        n_samples: int = 1,
        generator: torch.Generator | None = None,
        *,
        seed: int | None = None,
        latent: str = "sampled",
    ) -> Array:
        """Return the "pred" videos [S,B,n_future,C,H,W], float32 in [0,1]: own predictions are fed back.

        Args:
            past: the observed frames [B,n_past,C,H,W], uint8 or float in [0,1].
            conditions: [B,>=n_past+n_future-1,D] in the data's own units, from the first observed frame on, those of
                the future included. For positions that nobody knows yet see `svg.integrate_positions`. Poses are
                pictures like `past`. None for a model without conditions.
            n_future: frames to predict.
            n_samples: futures of each clip, S.
            generator, seed: where latents are drawn from, one or the other. With `seed` the futures of clip b depend
                on (seed, b) alone: they are those that `svg.evaluation.evaluate` samples of sequence b.
            latent: ``sampled`` from the prior, or its ``mean``, with which there is one future.

        Arrays and tensors are taken, of a batch or of one clip without B, with channels first or last, on any device.
        The answer has the form of `past`: an array if that is one, else a tensor on the model's device; without B or
        with channels last if it came so. No gradients flow; see `imagine`.

        Raises `InputError`, a `ValueError`, with the expected shape for anything else, for values out of range or not
        finite, and for too few conditions.
        """
        n_future, n_samples = check_count("n_future", n_future), check_count("n_samples", n_samples)
        if latent not in ("sampled", "mean"):
            raise InputError(f"latent: found {latent!r}, expected sampled or mean")
        if latent == "mean" and n_samples > 1:
            raise InputError(
                f"n_samples: found {n_samples}, expected 1: with the mean latent all would be the same"
            )
        if generator is not None and seed is not None:
            raise InputError("seed: found a generator beside it; leave one out")
        device = self.device
        request = check_request(self.config, past, conditions, n_future, device)
        shape = (n_samples, n_future, *self.latent_shape)
        clips = range(len(request.past))
        if latent == "mean":
            noise = torch.zeros(len(clips), *shape)
        elif seed is not None:
            generators = (runtime.generator(torch.device("cpu"), seed, clip) for clip in clips)
            noise = torch.stack([torch.randn(shape, generator=own) for own in generators])
        else:
            where = device if generator is None else generator.device
            noise = torch.randn((len(clips), *shape), generator=generator, device=where)
        known = request.past.shape[1] - 1
        future = None if request.conditions is None else request.conditions[:, known:]
        return request.finish(
            self.imagine(self.observe(request.past, request.conditions), future, noise.to(device))
        )

    def imagine(self, start: Any, conditions: Tensor | None, noise: Tensor | None = None) -> Tensor:
        """Return the frames [S,B,F,C,H,W] of `advance`, whose futures have the same conditions or each its own.

        Without `noise` latents are the prior's means, as of `zero_noise`. Takes tensors on the model's device and checks
        nothing. Gradients flow to `conditions`.
        """
        if noise is None:
            noise = self.zero_noise(conditions)
        return self.advance(start, conditions, noise)[0]

    def zero_noise(self, conditions: Tensor) -> Tensor:
        """Return the noise [B,S,F,*latent_shape] with which `advance` takes the prior's means, a frame for each condition.

        `conditions` are those of `advance`: [B,F,...] for one future of each clip, or [B,S,F,...]. A model without
        conditions takes [B,F,0].
        """
        per_clip = conditions.dim() in (3, 5)  # numbers and poses, without S
        shape = (len(conditions), 1, conditions.shape[1]) if per_clip else conditions.shape[:3]
        return torch.zeros(*shape, *self.latent_shape, device=self.device)
