"""The model pose_cvae: a convolutional conditional VAE that draws a person from poses.

Each frame is drawn from the one before. A frame encoder and a pose encoder give features at several
resolutions; the Gaussian predictor gives the posterior from the features of frame t and of its pose; the
decoder fusion joins the features of frame t-1, of the pose and a latent, and the generator draws frame t from
that. The prior is N(0, I). With ``levels=1`` all of it works at the frames' own resolution, as published;
more levels halve it in between, with the encoders' finer features joined where the generator gets back to
their size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ModelConfig
from .layers import BatchNorm, conv_block, fold_norm, make_activation, make_norm
from .predictor import Predictor, Rollout, as_images
from .recurrent import Gaussian

STAGES = 4
"""Stages of the encoders and, in reverse order, of fusion and generator."""

CHUNK = 32
"""Steps whose poses are encoded at a time, which bounds the memory of a long video."""


@dataclass
class Scene:
    """The state after some frames, from which `PoseCVAE.advance` goes on.

    N futures of B clips may share the part of their clip.
    """

    frame: Tensor  # the last frame [N,C,H,W]
    given: Tensor  # the last given frame [B,C,H,W]
    anchor: list[Tensor]  # its features [B,c,h,w] of each stage; none without anchor


class Encoder(nn.Module):
    """Pictures [N,C,H,W] -> features of each stage [N,c,h,w], from the finest on."""

    def __init__(self, inputs: int, channels: list[int], levels: int, norm: str):
        super().__init__()
        self.levels = levels
        shapes = pairwise([inputs, *channels])
        self.stages = nn.ModuleList(
            nn.Sequential(conv_block(a, b, norm), conv_block(b, b, norm)) for a, b in shapes
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for number, stage in enumerate(self.stages):
            x = stage(F.max_pool2d(x, 2) if 0 < number < self.levels else x)
            features.append(x)
        return features


class Join(nn.Module):
    """Convolution over features [from below, of frame, pose and anchor], normalisation, leaky ReLU.

    Convolution is linear: the shares of pose and anchor, `term`, do not wait for the frame before, and are
    computed for many steps at once.
    """

    def __init__(self, below: int, frame: int, pose: int, outputs: int, norm: str, anchor: bool):
        super().__init__()
        self.moving = nn.Conv2d(below + frame, outputs, 3, padding=1, bias=False)
        self.pose = nn.Conv2d(pose, outputs, 3, padding=1)
        self.anchor = nn.Conv2d(frame, outputs, 3, padding=1, bias=False) if anchor else None
        self.norm = make_norm(norm, outputs)
        self.act = make_activation()

    def term(self, pose: Tensor, anchor: Tensor | None) -> Tensor:
        """Return the share [B,T,outputs,h,w] of `pose` [B,T,c,h,w] and, if given, of `anchor` [B,c,h,w]."""
        term = self.pose(pose.flatten(0, 1)).unflatten(0, pose.shape[:2])
        if self.anchor is None or anchor is None:
            return term
        return term + self.anchor(anchor)[:, None]

    def forward(self, below: Tensor, frame: Tensor, term: Tensor) -> Tensor:
        return self.act(self.norm(self.moving(torch.cat([below, frame], 1)) + term))

    def fold_norm(self) -> None:
        """Fold a batch norm into the convolutions before it."""
        if isinstance(self.norm, BatchNorm):
            anchor = [] if self.anchor is None else [self.anchor]
            fold_norm(self.norm, self.pose, self.moving, *anchor)
            self.norm = nn.Identity()


class PoseCVAE(Predictor):
    """Frames [B,T,C,H,W] from the first ones and poses [B,T,C,H,W], whose entry t-1 is the pose in frame t.

    With ``config.anchor`` every frame is also drawn with the features of the last given one, so that
    predictions cannot lose its light and background. With ``config.blend`` the generator also draws a mask
    and keeps the frame before where it is 0, or with ``config.keep_given`` three masks: of the generated
    frame, the frame before and the given one.
    """

    def __init__(
        self, config: ModelConfig, condition_mean: Sequence[float] = (), condition_std: Sequence[float] = ()
    ):
        super().__init__(config)
        g_dim, pose_dim, fusion_dim = config.g_dim, config.pose_dim, config.fusion_dim
        frame = [max(1, g_dim // 2**k) for k in (3, 2, 1, 0)]
        pose = [max(1, pose_dim // 2), max(1, pose_dim // 2), pose_dim, pose_dim]
        drawn = [max(1, fusion_dim // 2**k) for k in (3, 2, 1, 0)]
        norm = config.norm
        stages = range(STAGES)
        self.frame_encoder = Encoder(config.channels, frame, config.levels, norm)
        self.pose_encoder = Encoder(config.condition_dim, pose, config.levels, norm)
        self.gaussian = nn.Sequential(
            conv_block(g_dim + pose_dim, max(1, g_dim // 2), norm),
            nn.Conv2d(max(1, g_dim // 2), 2 * config.z_dim, 1),
        )
        below = [*drawn[1:], config.z_dim]
        self.joins = nn.ModuleList(
            Join(below[k], frame[k], pose[k], drawn[k], norm, config.anchor) for k in stages
        )
        self.blocks = nn.ModuleList(conv_block(drawn[k], drawn[k], norm) for k in stages)
        masks = 3 if config.keep_given else int(config.blend)
        self.output = nn.Conv2d(drawn[0], config.channels + masks, 3, padding=1)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one latent, [z_dim,h,w] at the coarsest resolution."""
        shrunk = 2 ** (self.config.levels - 1)
        height, width = self.config.frame_size
        return self.config.z_dim, height // shrunk, width // shrunk

    def forward(
        self,
        frames: Tensor,
        conditions: Tensor | None,
        n_past: int,
        teacher_forcing: bool = False,
        noise: Tensor | None = None,
    ) -> Rollout:
        """Predict clips as `Predictor.forward` says; transitions from true frames run all at once."""
        frames = as_images(frames)
        steps = frames.shape[1] - 1
        given = steps if teacher_forcing else min(n_past, steps)  # transitions from true frames
        scene = self._scene(frames[:, min(n_past, steps) - 1])
        images = []
        posteriors = []
        for first in range(0, steps, CHUNK):
            now = slice(first, min(first + CHUNK, steps))
            known = max(0, min(given, now.stop) - first)
            poses = self._encode_poses(conditions, now)
            # Encoded once, for posterior and predictions.
            true = self._encode(frames[:, first + (not known) : now.stop + 1])
            posteriors.append(self._posterior(true[-1][:, bool(known) :], poses[-1]))
            z = posteriors[-1].mu if noise is None else posteriors[-1].sample(noise[:, now])
            if known:
                features = [_flat(x[:, :known]) for x in true]
                videos, scene = self._draw_from_true(
                    scene, frames[:, first : first + known], features, poses, z
                )
                images.append(videos)
            if first + known < now.stop:
                videos, scene = self._roll(scene, [x[:, known:] for x in poses], z[:, known:])
                images.append(videos)
        posterior = Gaussian.cat(posteriors)
        zeros = torch.zeros_like(posterior.mu)
        return Rollout(torch.cat(images, 1), posterior, Gaussian(zeros, zeros))

    def future_bytes(self, n_future: int) -> int:
        """Estimate `Predictor.future_bytes`.

        Five tensors of the largest stage, float32 frames three times, and the latents.
        """
        config = self.config
        pixels = math.prod(config.frame_size)
        channels = [max(join.moving.in_channels, join.moving.out_channels) for join in self._joins]
        largest = max(count * pixels // 4 ** min(k, config.levels - 1) for k, count in enumerate(channels))
        return 4 * (5 * largest + n_future * (3 * config.channels * pixels + math.prod(self.latent_shape)))

    def observe(self, past: Tensor, conditions: Tensor | None) -> Scene:
        """Return the state after the last frame of `past` [B,n_past,C,H,W]; earlier ones add nothing."""
        return self._scene(as_images(past)[:, -1])

    def advance(self, start: Scene, conditions: Tensor | None, noise: Tensor) -> tuple[Tensor, Scene]:
        """Continue from `start` as `Predictor.advance` says."""
        batch, samples, steps = noise.shape[:3]
        if conditions is not None and conditions.dim() == 6:  # every future is a clip of its own
            conditions = conditions.flatten(0, 1)
        clips = batch if conditions is None else conditions.shape[0]
        given, *anchor = (x.repeat_interleave(clips // x.shape[0], 0) for x in (start.given, *start.anchor))
        scene = Scene(start.frame.repeat_interleave(samples, 0), given, anchor)
        noise = noise.flatten(0, 1)
        images = []
        for first in range(0, steps, CHUNK):
            now = slice(first, min(first + CHUNK, steps))
            videos, scene = self._roll(scene, self._encode_poses(conditions, now), noise[:, now])
            images.append(videos)
        return torch.cat(images, 1).unflatten(0, (batch, samples)).transpose(0, 1), scene

    def parts(self) -> list[nn.Module]:
        """Return the encoders, the Gaussian predictor and the parts of fusion and generator."""
        encoders = [self.frame_encoder, self.pose_encoder]
        return [*encoders, self.gaussian, *self.joins, *self.blocks, self.output]

    def fold_norms(self) -> None:
        """Fold batch norms after convolutions, also after those of `Join`."""
        super().fold_norms()
        for join in self._joins:
            join.fold_norm()

    # -------------------------------------------------------------------------------------------------- parts

    @property
    def _joins(self) -> list[Join]:
        return cast(list[Join], self.joins)

    def _scene(self, frame: Tensor) -> Scene:
        frame = frame.contiguous(memory_format=torch.channels_last)
        return Scene(frame, frame, self.frame_encoder(frame) if self.config.anchor else [])

    def _encode(self, frames: Tensor) -> list[Tensor]:
        """Return the features [B,T,c,h,w] of each stage of frames [B,T,C,H,W]."""
        return [x.unflatten(0, frames.shape[:2]) for x in self.frame_encoder(_flat(frames))]

    def _encode_poses(self, poses: Tensor | None, now: slice) -> list[Tensor]:
        """Return the features [B,T,c,h,w] of each stage of the poses of the steps `now`.

        Empty paper becomes 0, like the padding around the pictures.
        """
        channels = self.config.condition_dim
        if poses is None or poses.dim() != 5 or poses.shape[1] < now.stop or poses.shape[2] != channels:
            found = "none" if poses is None else list(poses.shape)
            expected = f"[B,T,{channels},H,W] of at least {now.stop} steps"
            raise ValueError(f"poses: found {found}, expected {expected}")
        poses = 1 - as_images(poses[:, now])
        return [x.unflatten(0, poses.shape[:2]) for x in self.pose_encoder(_flat(poses))]

    def _posterior(self, frame: Tensor, pose: Tensor) -> Gaussian:
        """Return the posterior for features [B,T,c,h,w] of the true frames and of their poses."""
        # float32: the KL takes exponentials of these
        parameters = self.gaussian(torch.cat([frame, pose], 2).flatten(0, 1)).float()
        mu, logvar = parameters.unflatten(0, frame.shape[:2]).chunk(2, dim=2)
        return Gaussian(mu, logvar)

    def _terms(self, scene: Scene, poses: list[Tensor]) -> list[Tensor]:
        """Return the shares [B,T,outputs,h,w] of pose features and of the anchor in each stage."""
        anchors = scene.anchor or [None] * STAGES
        return [
            join.term(pose, anchor) for join, pose, anchor in zip(self._joins, poses, anchors, strict=True)
        ]

    def _draw_from_true(
        self, scene: Scene, frames: Tensor, features: list[Tensor], poses: list[Tensor], z: Tensor
    ) -> tuple[Tensor, Scene]:
        """Draw the frames after `frames` [B,K,C,H,W] with these `features` [B*K,c,h,w], all at once.

        Return them, and the scene after them.
        """
        known = frames.shape[1]
        terms = [_flat(term) for term in self._terms(scene, [pose[:, :known] for pose in poses])]
        given = scene.given.repeat_interleave(known, 0)
        drawn = self._draw(_flat(frames), given, features, z[:, :known].flatten(0, 1), terms)
        drawn = drawn.unflatten(0, (-1, known))
        return drawn, replace(scene, frame=drawn[:, -1])

    def _roll(self, scene: Scene, poses: list[Tensor], z: Tensor) -> tuple[Tensor, Scene]:
        """Draw frames [N,T,C,H,W] one by one from latents `z` [N,T,...] and pose features [B,T,...]."""
        terms = self._terms(scene, poses)
        frame = scene.frame
        images = []
        futures = z.shape[0] // terms[0].shape[0]
        given = scene.given.repeat_interleave(futures, 0)
        for step in range(z.shape[1]):
            now = [term[:, step].repeat_interleave(futures, 0) for term in terms]
            frame = self._draw(frame, given, self.frame_encoder(frame), z[:, step], now)
            images.append(frame)
        return torch.stack(images, 1), replace(scene, frame=frame)

    def _draw(
        self, frame: Tensor, given: Tensor, features: list[Tensor], z: Tensor, terms: list[Tensor]
    ) -> Tensor:
        """Draw the frame after `frame` [N,C,H,W] from its features, a latent `z` and the terms of `Join`.

        The masks may keep pixels of `given` [N,C,H,W].
        """
        x = z.to(features[-1])
        for k in reversed(range(STAGES)):
            if k + 1 < self.config.levels:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = self.blocks[k](self._joins[k](x, features[k], terms[k]))
        x = self.output(x).float()
        image = torch.sigmoid(x[:, : self.config.channels])
        if not self.config.blend:
            return image
        if self.config.keep_given:
            masks = torch.softmax(x[:, self.config.channels :], 1)
            of_image, of_frame, of_given = masks.split(1, dim=1)
            return of_image * image + of_frame * frame.float() + of_given * given.float()
        return torch.lerp(frame.float(), image, torch.sigmoid(x[:, self.config.channels :]))


def _flat(frames: Tensor) -> Tensor:
    """Join batch and time, [B,T,...] -> [B*T,...], with the channels innermost in memory."""
    return frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)
