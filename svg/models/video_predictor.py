"""The model svg: posterior, prior and frame predictor between encoder and decoder, conditioned on actions.

The transition from frame t-1 to frame t sees the features ``h[t-1]``, the condition ``conditions[t-1]`` (time
as in `predictor`) and a latent ``z[t]``. The posterior sees ``h[t]``, the prior ``h[t-1]``. Frame t is drawn
with the skips of the last frame observed before it; with ``--skips published``, of the last one that another
observed frame follows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from data_tools.errors import InputError

from ..config import ModelConfig
from .backbones import Decoder, Encoder, initialise, level_channels
from .layers import BatchNorm, SkipConv, SkipTerm, fold_norm
from .predictor import Predictor, Rollout, as_images
from .recomputation import Chain
from .recurrent import FramePredictor, Gaussian, GaussianLSTM, State, repeat_state

STATISTICS = ("condition_mean", "condition_std")
EMBEDDING = "core.embed.weight"
"""The layer of predictor, posterior and prior over features, latent and conditions side by side."""


@dataclass
class Observation:
    """The state after some frames, from which `VideoPredictor.advance` goes on.

    N futures of B clips may share the skips of their clip.
    """

    h: Tensor | None  # features of the last frame [N,1,g_dim(,grid,grid)]; None: it has yet to be encoded
    last: Tensor  # the last frame, seen or predicted [N,1,C,H,W]
    predictor: State
    prior: State
    skips: list[SkipTerm]  # the decoder's, of an observed frame of B clips (`ModelConfig.skips`)
    observed: Tensor  # the last observed frame [B,1,C,H,W]
    places: Tensor | None  # from where in it each pixel of the last frame comes [N,1,2,H/2,W/2], if carried


class VideoPredictor(Predictor):
    """SVG-LP / SVG-FP (Denton & Fergus 2018) with actions, in the vector or the spatial form.

    `condition_mean` and `condition_std` (length D, from ``dataset.json``) standardise the conditions inside
    the model and are stored with its weights, so that callers pass metres as they come.
    """

    condition_mean: Tensor
    condition_std: Tensor
    coordinates: Tensor  # rows and columns of the grid in [-1,1], [2,grid,grid]

    def __init__(
        self, config: ModelConfig, condition_mean: Sequence[float] = (), condition_std: Sequence[float] = ()
    ):
        super().__init__(config)
        self.keep_statistics(condition_mean, condition_std)
        spatial, g_dim, z_dim = config.spatial, config.g_dim, config.z_dim
        shape = (
            config.backbone,
            config.image_width,
            config.channels,
            g_dim,
            config.width,
            config.norm,
            config.feature_grid,
        )
        self.encoder = Encoder(*shape)
        self.decoder = Decoder(*shape, config.blend, config.warp)
        conditions = config.condition_dim + (2 if spatial else 0)
        latent_size = config.latent_rnn_size or config.rnn_size
        self.predictor = FramePredictor(
            g_dim + z_dim + conditions, g_dim, config.rnn_size, config.predictor_rnn_layers, spatial
        )
        self.posterior = GaussianLSTM(
            g_dim + conditions, z_dim, latent_size, config.posterior_rnn_layers, spatial
        )
        self.prior = None
        if config.prior == "learned":
            self.prior = GaussianLSTM(
                g_dim + conditions, z_dim, latent_size, config.prior_rnn_layers, spatial
            )
        if not spatial:
            self.apply(initialise)
        axis = torch.linspace(-1, 1, config.grid)
        coordinates = torch.stack(torch.meshgrid(axis, axis, indexing="ij"))
        self.register_buffer("coordinates", coordinates, persistent=False)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one latent, [z_dim] or [z_dim,grid,grid]."""
        grid = self.config.feature_grid
        return (self.config.z_dim, grid, grid) if grid else (self.config.z_dim,)

    # ----------------------------------------------------------------------------------------------- training

    def forward(
        self,
        frames: Tensor,
        conditions: Tensor | None,
        n_past: int,
        teacher_forcing: bool = False,
        noise: Tensor | None = None,
    ) -> Rollout:
        """Predict clips as `Predictor.forward` says.

        Transitions from true frames run as whole sequences, the others step by step.
        """
        frames = as_images(frames)
        steps = frames.shape[1] - 1
        given = steps if teacher_forcing else min(n_past, steps)  # transitions from true frames
        # frames whose skips others may take
        sources = given if self.config.last_frame_skip else min(n_past, steps)
        h, skips = self.encoder(frames, self._skip_sources(n_past, sources))
        conditions = self._spread(conditions, steps, frames)
        posterior, _ = self.posterior(torch.cat([h[:, 1:], conditions], 2))
        z = posterior.mu if noise is None else posterior.sample(noise)
        skips = self.decoder.prepare(skips)
        observed = frames[:, :sources]

        prior, prior_state = self._prior(h[:, :given], conditions[:, :given])
        g, state = self._predict(h[:, :given], z[:, :given], conditions[:, :given])
        priors = [prior]
        features = [g]
        images = []
        carried = []
        reencode = self.config.feedback == "frame" and given < steps
        if reencode:
            drawn, places = self.decoder(g, skips, observed, frames[:, :given])
            images.append(drawn)
            carried.append(places)
            skips = [skip.last() for skip in skips]
            observed = observed[:, -1:]
        for step in range(given, steps):
            if reencode:
                h_own, own_skips = self.encoder(images[-1][:, -1:], 1)
                places = None if carried[-1] is None else carried[-1][:, -1:]
                if self.config.last_frame_skip:
                    skips = self.decoder.prepare(own_skips)
                    observed = images[-1][:, -1:]
                    places = None
            else:
                h_own = features[-1][:, -1:]
            now = slice(step, step + 1)
            prior, prior_state = self._prior(h_own, conditions[:, now], prior_state)
            g, state = self._predict(h_own, z[:, now], conditions[:, now], state)
            priors.append(prior)
            features.append(g)
            if reencode:
                drawn, places = self.decoder(g, skips, observed, images[-1][:, -1:], places)
                images.append(drawn)
                carried.append(places)
        if not reencode:
            drawn, places = self.decoder(torch.cat(features, 1), skips, observed, frames[:, :given])
            images.append(drawn)
            carried.append(places)
        places = None if carried[0] is None else torch.cat(carried, 1)
        return Rollout(torch.cat(images, 1), posterior, Gaussian.cat(priors), places)

    # --------------------------------------------------------------------------------------------- prediction

    def future_bytes(self, n_future: int) -> int:
        """Estimate `Predictor.future_bytes`.

        Five tensors of the level at full resolution, where they are largest, its float32 frames three times,
        latents and conditions of all steps, and of the frame predictor the states before and after a step,
        its gates and its inputs.
        """
        config = self.config
        pixels = config.image_width**2
        levels = level_channels(config.backbone, config.image_width, config.width, config.feature_grid)
        shrunk = 1 if config.backbone == "vgg" else 4  # DCGAN's first convolution halves the sides
        recurrent = (4 * config.predictor_rnn_layers + 8) * config.rnn_size
        steps = n_future * (config.z_dim + config.condition_dim + 2)
        images = 5 * levels[0][0] * pixels // shrunk + 3 * n_future * config.channels * pixels
        return 4 * (images + (recurrent + steps) * max(1, config.feature_grid) ** 2)

    def observe(self, past: Tensor, conditions: Tensor | None) -> Observation:
        """Return the state after the frames `past` [B,n_past,C,H,W] and `conditions` [B,>= n_past-1,D].

        Latents are the posterior's means, so that all futures share one past.
        """
        past = as_images(past)
        steps = past.shape[1] - 1
        published = self.config.skips == "published" and steps > 0
        h, skips = self.encoder(past, -2 if published else -1)
        state = None
        prior_state = None
        if steps:
            spread = self._spread(conditions, steps, past)
            posterior, _ = self.posterior(torch.cat([h[:, 1:], spread], 2))
            _, prior_state = self._prior(h[:, :-1], spread)
            _, state = self._predict(h[:, :-1], posterior.mu, spread)
        skips = self.decoder.prepare([skip[:, :1] for skip in skips])
        last = past[:, -1:]
        return Observation(h[:, -1:], last, state, prior_state, skips, last, self._places_of(last))

    def advance(
        self, start: Observation, conditions: Tensor | None, noise: Tensor
    ) -> tuple[Tensor, Observation]:
        """Continue from `start` as `Predictor.advance` says."""
        batch, samples, steps = noise.shape[:3]
        if conditions is not None:
            if conditions.dim() == 3:
                conditions = conditions[:, None].expand(-1, samples, -1, -1)
            conditions = conditions.flatten(0, 1)
        noise = noise.flatten(0, 1)
        spread = self._spread(conditions, steps, noise)
        h = None if start.h is None else start.h.repeat_interleave(samples, 0)
        last = start.last.repeat_interleave(samples, 0)
        state = repeat_state(start.predictor, samples)
        prior_state = repeat_state(start.prior, samples)
        skips = start.skips
        observed = start.observed
        places = None if start.places is None else start.places.repeat_interleave(samples, 0)
        frames = []
        for step in range(steps):
            if h is None:
                h, own_skips = self.encoder(last[:, :, : self.config.channels], 1)
                if self.config.last_frame_skip:
                    skips = self.decoder.prepare(own_skips)
                    observed = last
                    places = self._places_of(last)
            now = slice(step, step + 1)
            prior, prior_state = self._prior(h, spread[:, now], prior_state)
            h, state = self._predict(h, prior.sample(noise[:, now]), spread[:, now], state)
            # All futures of a clip share its skip terms: the decoder takes them for frames of one clip.
            g = h.unflatten(0, (observed.shape[0], -1)).flatten(1, 2)
            before = last.unflatten(0, (observed.shape[0], -1)).flatten(1, 2)
            if places is not None:
                places = places.unflatten(0, (observed.shape[0], -1)).flatten(1, 2)
            drawn, places = self.decoder(g, skips, observed, before, places)
            last = drawn.reshape(last.shape)
            if places is not None:
                places = places.reshape(last.shape[0], 1, *places.shape[2:])
            frames.append(last[:, 0])
            if self.config.feedback == "frame":
                h = None
        videos = torch.stack(frames, 1).unflatten(0, (batch, samples)).transpose(0, 1)
        return videos, Observation(h, last, state, prior_state, skips, observed, places)

    def carrying(self, start: Observation, masks: Tensor) -> Observation:
        """Return `start` with M `masks` [B,M,H,W] of what is in its last frame, which are moved with it.

        The frames of `advance` and `imagine` then have M more channels after those of the picture. They are
        taken from the observed frame and moved from frame to frame as its pixels are, and nothing is drawn
        over them. Raises `InputError` for a model that draws everything anew.
        """
        if not self.config.blend:
            raise InputError(
                "marks: found a model trained without --blend, which moves no pixels; choose another"
            )
        marked = torch.cat([start.last, masks[:, None].to(start.last)], 2)
        return replace(start, last=marked, observed=marked)

    def parts(self) -> Iterable[nn.Module]:
        """Return encoder, decoder and the recurrent modules."""
        parts = (self.encoder, self.decoder, self.predictor, self.posterior, self.prior)
        return [part for part in parts if part is not None]

    def fold_norms(self) -> None:
        """Fold batch norms after convolutions, also after those of `SkipConv`."""
        super().fold_norms()
        skip_convs = cast(list[SkipConv], self.decoder.skip_convs)
        levels = cast(list[Chain], self.decoder.levels)
        for skip_conv, level in zip(skip_convs, levels, strict=True):
            if len(level) and isinstance(level[0], BatchNorm):
                fold_norm(level[0], skip_conv.conv)
                level[0] = nn.Identity()

    def adopt(self, weights: dict[str, Tensor], origin: ModelConfig) -> tuple[float, list[str]]:
        """Take over weights as `Predictor.adopt` does, and the statistics of conditions with their columns.

        Columns and statistics together are one function. Where no columns of conditions fit, the statistics
        stay those of this model's own data.
        """
        share, own = super().adopt(weights, origin)
        layers = [name for name in self.state_dict() if name.endswith(f".{EMBEDDING}")]
        same_columns = self.config.condition_dim == origin.condition_dim
        if same_columns and any(f"{name} (conditions)" not in own for name in layers):
            for name in STATISTICS:
                getattr(self, name).copy_(weights[name])
        return share, own

    # -------------------------------------------------------------------------------------------------- parts

    def _skip_sources(self, n_past: int, sources: int) -> int:
        """Return how many of the first `sources` frames give skips: all, or as published one less."""
        published = self.config.skips == "published"
        return max(1, min(n_past - 1, sources)) if published else sources

    def _spread(self, conditions: Tensor | None, steps: int, like: Tensor) -> Tensor:
        """Return the first `steps` conditions, standardised: [B,T,D] or, spatial, [B,T,D+2,grid,grid].

        The two additional channels are coordinates. `like` gives the batch size and device where there are no
        conditions (D = 0).
        """
        width = self.config.condition_dim
        if width == 0:
            values = like.new_zeros(like.shape[0], steps, 0, dtype=torch.float32)
        elif conditions is None or conditions.shape[1] < steps or conditions.shape[2] != width:
            found = "none" if conditions is None else f"{conditions.shape[1]} of width {conditions.shape[2]}"
            raise ValueError(f"conditions: found {found}, expected at least {steps} of width {width}")
        else:
            values = (conditions[:, :steps] - self.condition_mean) / self.condition_std
        if not self.config.spatial:
            return values
        tiled = values[..., None, None].expand(-1, -1, -1, *self.coordinates.shape[1:])
        return torch.cat([tiled, self.coordinates.expand(*values.shape[:2], -1, -1, -1)], 2)

    @staticmethod
    def pieces(name: str, tensor: Tensor, config: ModelConfig) -> dict[str, Tensor]:
        """Split the inputs of a layer by kind. Statistics of conditions go with their columns (`adopt`)."""
        if name in STATISTICS:
            return {}
        part, _, layer = name.partition(".")
        if layer != EMBEDDING:
            return {"": tensor}
        sizes = {
            "features": config.g_dim,
            "latent": config.z_dim if part == "predictor" else 0,
            "conditions": config.condition_dim,
            "coordinates": 2 if config.spatial else 0,
        }
        return dict(zip(sizes, tensor.split(list(sizes.values()), 1), strict=True))

    def _places_of(self, frames: Tensor) -> Tensor | None:
        """Return where in `frames` [N,1,C,H,W] their own pixels come from: offsets of 0, if carried."""
        if self.config.warp != "carried":
            return None
        height, width = frames.shape[-2:]
        return frames.new_zeros(frames.shape[0], 1, 2, height // 2, width // 2)

    def _prior(self, h: Tensor, conditions: Tensor, state: State = None) -> tuple[Gaussian, State]:
        if self.prior is not None:
            return self.prior(torch.cat([h, conditions], 2), state)
        standard = h.new_zeros(*h.shape[:2], *self.latent_shape, dtype=torch.float32)
        return Gaussian(standard, standard), None

    def _predict(self, h: Tensor, z: Tensor, conditions: Tensor, state: State = None) -> tuple[Tensor, State]:
        return self.predictor(torch.cat([h, z.to(h), conditions.to(h)], 2), state)
