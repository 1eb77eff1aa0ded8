"""The contract between a model and training, evaluation and rendering.

README.md beside this file shows how to add a model.

The transition from frame t-1 to frame t sees ``conditions[t-1]`` and a latent ``z[t]``, which comes from the
posterior in training, where frame t is known, and from the prior in prediction. For robots
``conditions[t-1]`` = [actions[t-1], positions[t-1]]; for persons it is the pose that frame t is to show
(`data_tools.layout`).

Frames are [B,T,C,H,W], uint8 or float in [0,1]; conditions [B,T,D] in the data's own units or, of poses,
uint8 [B,T,C,H,W]. No module keeps state.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_tools.errors import InputError

from .. import runtime
from ..config import ModelConfig
from .inputs import Array, check_count, check_request
from .layers import fold_sequential_norms
from .recurrent import Gaussian

CHANNELS = 64
"""Channels at full resolution that `Predictor.future_bytes` assumes of a model that does not say."""


@dataclass
class Rollout:
    """Predicted frames 1..T-1 of a clip [B,T-1,C,H,W] in [0,1], with posterior and prior of each step.

    Of a model that carries places, `places` [B,T-1,2,H/2,W/2] say from where in the last frame observed
    before each pixel comes: offsets to the right and down in pixels. `carried`, of a
    model that draws over what it has carried from the observed frame, are the frames before that, like
    `frames`; `tracks` are those of the model objects.
    """

    frames: Tensor
    posterior: Gaussian
    prior: Gaussian
    places: Tensor | None = None
    carried: Tensor | None = None
    tracks: Any = None


def as_images(frames: Tensor) -> Tensor:
    """Return uint8 frames as floats in [0,1], and float frames as they are."""
    return frames.float() / 255 if frames.dtype == torch.uint8 else frames


class Origin(ABC):
    """What a model was loaded from, which knows what is told of the weights besides themselves."""

    @abstractmethod
    def save(self, model: "Predictor", folder: Path, licence: str = "") -> None:
        """Write the model; see `Predictor.save_pretrained`."""

    @abstractmethod
    def push(self, model: "Predictor", repository: str, licence: str = "", **options: Any) -> str:
        """Upload the model; see `Predictor.push_to_hub`."""


class Predictor(nn.Module, ABC):
    """A model that predicts frames from the first ones and from conditions.

    A model defines `latent_shape`, `forward`, `observe` and `advance`; all else has defaults. `observe`
    returns the state after the given frames; `advance` goes on from a state and returns the next one, so that
    a video of any length can be predicted in pieces.
    """

    entrances: tuple[str, ...] = ("forward", "observe", "advance", "imagine", "predict")
    """Methods that callers use: those of a frozen model cast by themselves."""
    precision = "float32"
    """Numbers in which predictions are computed unless the caller casts; `freezing.freeze` sets it."""
    is_frozen = False
    """The weights are in the form in which they predict fastest; `freezing.freeze` sets it."""
    origin: Origin | None = None
    """What the model was loaded from; `svg.load` sets it."""

    def __init__(
        self, config: ModelConfig, condition_mean: Sequence[float] = (), condition_std: Sequence[float] = ()
    ):
        """Keep the configuration. A model may standardise conditions with their statistics."""
        super().__init__()
        self.config = config

    def keep_statistics(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Keep what standardises the conditions beside the weights; without any, 0 and 1."""
        width = self.config.condition_dim
        deviation = torch.tensor(list(std) or [1.0] * width)
        deviation = torch.where(deviation > 1e-6, deviation, 1.0)  # a constant column stays finite
        self.register_buffer("condition_mean", torch.tensor(list(mean) or [0.0] * width))
        self.register_buffer("condition_std", deviation)

    # ----------------------------------------------------------------------------------- what a model defines

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
        """Predict frames 1..T-1 of clips `frames` [B,T,C,H,W] with latents from the posterior.

        Transitions start from true frames, all of them with `teacher_forcing`, else those of the first
        `n_past`; the others start from what the model has predicted itself. `noise` [B,T-1,*latent_shape],
        standard normal, gives ``z = mu + sigma * noise``; without it latents are the means.
        """

    @abstractmethod
    def observe(self, past: Tensor, conditions: Tensor | None) -> Any:
        """Return the state after the frames `past` [B,n_past,C,H,W] and `conditions` [B,>= n_past-1,...]."""

    @abstractmethod
    def advance(self, start: Any, conditions: Tensor | None, noise: Tensor) -> tuple[Tensor, Any]:
        """Continue from `start` with S futures of each clip: return frames [S,B,F,C,H,W] and the next state.

        `conditions` [B,>=F,...], the same for all futures of a clip, or [B,S,>=F,...], one sequence for each;
        its first entry is that of the last frame that `start` knows. `noise` [B,S,F,*latent_shape] gives ``z
        = mu + sigma * noise`` under the prior; zeros take the prior's mean. The returned state starts B * S
        clips, the futures of one together. Gradients flow to conditions that are numbers.
        """

    # ------------------------------------------------------------------------------ what a model may redefine

    def future_bytes(self, n_future: int) -> int:
        """Return the bytes that one future of `n_future` frames takes while it is predicted and scored.

        An estimate on the safe side; this one is five tensors of `CHANNELS` channels at full resolution, the
        float32 frames three times, and the latents.
        """
        pixels = math.prod(self.config.frame_size)
        of_frame = 3 * self.config.channels * pixels + math.prod(self.latent_shape)
        return 4 * (5 * CHANNELS * pixels + n_future * of_frame)

    def parts(self) -> Iterable[nn.Module]:
        """Return the modules that a step calls; each is compiled for itself."""
        return self.children()

    def fold_norms(self) -> None:
        """Fold batch norms, fixed scales and shifts in evaluation mode, into the convolutions before them."""
        fold_sequential_norms(self)

    def fit_conditions(self, conditions: Tensor, generator: torch.Generator) -> None:
        """Fit what follows from recorded `conditions` [N,T,D] alone, once, before the first step.

        The generator is one of the CPU: what is fitted does not depend on the device.
        """

    @staticmethod
    def pieces(name: str, tensor: Tensor, config: ModelConfig) -> dict[str, Tensor]:
        """Split a tensor of the state into pieces that another model may take over: {kind of piece: view}."""
        return {"": tensor}

    @torch.no_grad()
    def adopt(self, weights: dict[str, Tensor], origin: ModelConfig) -> tuple[float, list[str]]:
        """Take over each piece of another model's `weights` that has the same shape here.

        `origin` is the configuration of the other model. Return the share of all numbers that were taken
        over, and the names of the pieces that keep their own.
        """
        taken = 0
        total = 0
        own = []
        for name, value in self.state_dict().items():
            theirs = self.pieces(name, weights[name], origin) if name in weights else {}
            for kind, piece in self.pieces(name, value, self.config).items():
                total += piece.numel()
                if kind in theirs and theirs[kind].shape == piece.shape:
                    piece.copy_(theirs[kind])
                    taken += piece.numel()
                elif piece.numel():
                    own.append(f"{name} ({kind})" if kind else name)
        return taken / total, own

    # -------------------------------------------------------------------------------------- made of the above

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    def reconstruct(self, frames: Tensor, conditions: Tensor | None, n_past: int) -> Tensor:
        """Return the "rec" video, frames 1..T-1 [B,T-1,C,H,W].

        Latents are the posterior's means; after `n_past` frames own predictions are fed back.
        """
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
            conditions: [B,>=n_past+n_future-1,D] in the data's own units, from the first observed frame on,
                those of the future included. For positions that nobody knows yet see
                `svg.integrate_positions`. Poses are pictures like `past`. None for a model without
                conditions.
            n_future: frames to predict.
            n_samples: futures of each clip, S.
            generator: the source of the latents.
            seed: the same as a number. The futures of clip b then depend on (seed, b) alone: they are those
                that `svg.evaluate` samples of sequence b.
            latent: ``sampled`` from the prior, or its ``mean``, with which there is one future.

        Arrays and tensors are taken, of a batch or of one clip without B, with channels first or last, on any
        device. The answer has the form of `past`: an array if that is one, else a tensor on the model's
        device; without B or with channels last if it came so. No gradients flow; see `imagine`.

        Raises `InputError`, a `ValueError`, with the expected shape for anything else, for values out of
        range or not finite, and for too few conditions.
        """
        n_future = check_count("n_future", n_future)
        n_samples = check_count("n_samples", n_samples)
        _check_latent(latent, n_samples, generator, seed)
        request = check_request(self.config, past, conditions, n_future, self.device)
        clips = len(request.past)
        shape = (n_samples, n_future, *self.latent_shape)
        if latent == "mean":
            noise = torch.zeros(clips, *shape)
        elif seed is not None:
            generators = [runtime.generator(torch.device("cpu"), seed, clip) for clip in range(clips)]
            noise = torch.stack([torch.randn(shape, generator=own) for own in generators])
        else:
            source = self.device if generator is None else generator.device
            noise = torch.randn((clips, *shape), generator=generator, device=source)
        known = request.past.shape[1] - 1
        future = None if request.conditions is None else request.conditions[:, known:]
        state = self.observe(request.past, request.conditions)
        return request.finish(self.imagine(state, future, noise.to(self.device)))

    def imagine(
        self,
        start: Any,
        conditions: Tensor | None,
        noise: Tensor | None = None,
        times: Sequence[int] | None = None,
    ) -> Tensor:
        """Return the frames [S,B,F,C,H,W] of `advance`, or those with the numbers `times`, counted from 0.

        Without `noise` latents are the prior's means, as of `zero_noise`. Takes tensors on the model's device
        and checks nothing. Gradients flow to `conditions`.
        """
        if noise is None:
            if conditions is None:
                raise ValueError("noise: found None, expected a tensor where conditions are None, too")
            noise = self.zero_noise(conditions)
        frames = self.advance(start, conditions, noise)[0]
        return frames if times is None else frames[:, :, list(times)]

    def save_pretrained(self, folder: str | Path, *, license: str = "") -> None:
        """Write the model as a folder that `svg.load` reads and the Hugging Face Hub shows.

        It holds ``config.json``, ``model.safetensors``, ``checkpoint.json``, and a card: the one that the run
        has (``README.md``), else one with the scores that `svg-evaluate` has taken of these weights and the
        GIF that `svg-render` has drawn. `license` is one of the Hub's names, such as ``mit``. Weights that
        were changed since the model was loaded are saved as they are, without these scores.

        Raises `InputError` for a model that `svg.load` has not returned, and for a folder with other files.
        """
        self._known_origin().save(self, Path(folder), license)

    def push_to_hub(self, repo_id: str, *, license: str = "", **options: Any) -> str:
        """Upload what `save_pretrained` writes to the Hugging Face Hub and return the commit's address.

        `repo_id` is ``user/repo``, which is made if it is not there. `options` are those of
        ``huggingface_hub.ModelHubMixin.push_to_hub``: private, branch, commit_message, create_pr, token (by
        default that of ``hf auth login``). Raises `InputError` for what the Hub refuses.
        """
        return self._known_origin().push(self, repo_id, license, **options)

    def _known_origin(self) -> Origin:
        if self.origin is None:
            raise InputError("save_pretrained: of this model no run is known; save one that svg.load returns")
        return self.origin

    def zero_noise(self, conditions: Tensor) -> Tensor:
        """Return the noise [B,S,F,*latent_shape] with which `advance` takes the prior's means.

        `conditions` are those of `advance`, one for each frame: [B,F,...] for one future of each clip, or
        [B,S,F,...]. Of a model without conditions they are [B,F,0].
        """
        per_clip = conditions.dim() in (3, 5)  # numbers and poses, without S
        shape = (len(conditions), 1, conditions.shape[1]) if per_clip else conditions.shape[:3]
        return torch.zeros(*shape, *self.latent_shape, device=self.device)


def _check_latent(latent: str, n_samples: int, generator: torch.Generator | None, seed: int | None) -> None:
    """Raise `InputError` for arguments of `Predictor.predict` that exclude each other."""
    if latent not in ("sampled", "mean"):
        raise InputError(f"latent: found {latent!r}, expected sampled or mean")
    if latent == "mean" and n_samples > 1:
        reason = "with the mean latent all would be the same"
        raise InputError(f"n_samples: found {n_samples}, expected 1: {reason}")
    if generator is not None and seed is not None:
        raise InputError("seed: found a generator beside it; leave one out")
