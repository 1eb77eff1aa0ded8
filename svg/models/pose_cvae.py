"""The predictor of a person's video from poses: a convolutional conditional VAE that draws each frame from the one before.

A frame encoder and a pose encoder give features at several resolutions; the Gaussian predictor gives the posterior from the
features of frame t and of its pose; the decoder fusion joins the features of frame t-1, of the pose and a latent, and the generator
draws frame t from that. The prior is N(0, I). With ``levels=1`` all of it works at the frames' own resolution, as published; more
levels halve it in between, with the encoders' finer features joined where the generator gets back to their size.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ModelConfig
from .layers import BatchNorm, conv_block, fold_norm, fold_sequential_norms, make_activation, make_norm
from .predictor import Predictor, Rollout, as_images
from .recurrent import Gaussian

STAGES = 4
"""Of the encoders and, the other way round, of fusion and generator."""

CHUNK = 32
"""Steps whose poses are encoded at a time: what bounds the memory of a long video."""


@dataclass
class Scene:
    """What is known after some frames: the start of `PoseCVAE.advance`. N futures of B clips may share what was given of them."""

    frame: Tensor  # the last frame [N,C,H,W]
    given: Tensor  # the last given frame [B,C,H,W]
    anchor: list[Tensor]  # its features [B,c,h,w] of each stage; none without anchor


class Encoder(nn.Module):
    """Pictures [N,C,H,W] -> features of each stage [N,c,h,w], the finest first."""

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
    """Convolution over [what comes from below, frame features, pose features, anchor features], normalisation, leaky ReLU.

    Convolution is linear: the shares of pose and anchor, `term`, do not wait for the frame before, and are computed for many steps
    at once.
    """

    def __init__(self, below: int, frame: int, pose: int, outputs: int, norm: str, anchor: bool):
        super().__init__()
        self.moving = nn.Conv2d(below + frame, outputs, 3, padding=1, bias=False)
        self.pose = nn.Conv2d(pose, outputs, 3, padding=1)
        self.anchor = nn.Conv2d(frame, outputs, 3, padding=1, bias=False) if anchor else None
        self.norm, self.act = make_norm(norm, outputs), make_activation()

    def term(self, pose: Tensor, anchor: Tensor | None) -> Tensor:
        """`pose` [B,T,c,h,w] and, where there is one, `anchor` [B,c,h,w] -> [B,T,outputs,h,w]."""
        term = self.pose(pose.flatten(0, 1)).unflatten(0, pose.shape[:2])
        return term if anchor is None else term + self.anchor(anchor)[:, None]

    def forward(self, below: Tensor, frame: Tensor, term: Tensor) -> Tensor:
        return self.act(self.norm(self.moving(torch.cat([below, frame], 1)) + term))

    def fold_norm(self) -> None:
        if isinstance(self.norm, BatchNorm):
            fold_norm(self.norm, *filter(None, (self.pose, self.moving, self.anchor)))
            self.norm = nn.Identity()


class PoseCVAE(Predictor):
    """Frames [B,T,C,H,W] from the first ones and poses [B,T,C,H,W], whose entry t-1 shows what frame t is to show.

    With ``config.anchor`` every frame is also drawn with the features of the last given one, whose light and background the
    predictions cannot lose; with ``config.blend`` the generator also draws a mask and keeps the frame before where it is 0, or with
    ``config.keep_given`` masks of what is generated, of the frame before and of the given one.
    """

    def __init__(
        self, config: ModelConfig, condition_mean: Sequence[float] = (), condition_std: Sequence[float] = ()
    ):
        super().__init__(config)
        g_dim, pose_dim, fusion_dim = config.g_dim, config.pose_dim, config.fusion_dim
        frame = [max(1, g_dim // 2**k) for k in (3, 2, 1, 0)]
        pose = [max(1, pose_dim // 2), max(1, pose_dim // 2), pose_dim, pose_dim]
        drawn = [max(1, fusion_dim // 2**k) for k in (3, 2, 1, 0)]
        norm, stages = config.norm, range(STAGES)
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
        frames = as_images(frames)
        steps = frames.shape[1] - 1
        given = steps if teacher_forcing else min(n_past, steps)  # transitions from true frames
        scene = self._scene(frames[:, min(n_past, steps) - 1])
        images, posteriors = [], []
        for first in range(0, steps, CHUNK):
            now = slice(first, min(first + CHUNK, steps))
            known = max(0, min(given, now.stop) - first)
            poses = self._encode_poses(conditions, now)
            true = self._encode(
                frames[:, first + (not known) : now.stop + 1]
            )  # once, for posterior and predictions
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
        """`Predictor.future_bytes`: five tensors of the largest stage, float32 frames three times, and the latents."""
        config, pixels = self.config, math.prod(self.config.frame_size)
        stages = enumerate(max(join.moving.in_channels, join.moving.out_channels) for join in self.joins)
        largest = max(channels * pixels // 4 ** min(k, config.levels - 1) for k, channels in stages)
        return 4 * (5 * largest + n_future * (3 * config.channels * pixels + math.prod(self.latent_shape)))

    def observe(self, past: Tensor, conditions: Tensor | None) -> Scene:
        """Takes the last of the frames `past` [B,n_past,C,H,W]; those before it tell the model nothing more."""
        return self._scene(as_images(past)[:, -1])

    def advance(self, start: Scene, conditions: Tensor | None, noise: Tensor) -> tuple[Tensor, Scene]:
        batch, samples, steps = noise.shape[:3]
        if conditions is not None and conditions.dim() == 6:  # every future is a clip of its own
            conditions = conditions.flatten(0, 1)
        clips = batch if conditions is None else len(conditions)
        given, *anchor = (x.repeat_interleave(clips // len(x), 0) for x in (start.given, *start.anchor))
        scene = Scene(start.frame.repeat_interleave(samples, 0), given, anchor)
        noise, images = noise.flatten(0, 1), []
        for first in range(0, steps, CHUNK):
            now = slice(first, min(first + CHUNK, steps))
            videos, scene = self._roll(scene, self._encode_poses(conditions, now), noise[:, now])
            images.append(videos)
        return torch.cat(images, 1).unflatten(0, (batch, samples)).transpose(0, 1), scene

    def parts(self) -> Iterator[nn.Module]:
        yield from (
            self.frame_encoder,
            self.pose_encoder,
            self.gaussian,
            *self.joins,
            *self.blocks,
            self.output,
        )

    def fold_norms(self) -> None:
        fold_sequential_norms(self)
        for join in self.joins:
            join.fold_norm()

    # --------------------------------------------------------------------------------------------------------- parts

    def _scene(self, frame: Tensor) -> Scene:
        frame = frame.contiguous(memory_format=torch.channels_last)
        return Scene(frame, frame, self.frame_encoder(frame) if self.config.anchor else [])

    def _encode(self, frames: Tensor) -> list[Tensor]:
        """Features [B,T,c,h,w] of each stage of frames [B,T,C,H,W]."""
        return [x.unflatten(0, frames.shape[:2]) for x in self.frame_encoder(_flat(frames))]

    def _encode_poses(self, poses: Tensor | None, now: slice) -> list[Tensor]:
        """Features [B,T,c,h,w] of each stage of the poses of the steps `now`. Empty paper becomes 0, as what lies outside is."""
        if (
            poses is None
            or poses.dim() != 5
            or poses.shape[1] < now.stop
            or poses.shape[2] != self.config.condition_dim
        ):
            found = "none" if poses is None else list(poses.shape)
            raise ValueError(
                f"poses: found {found}, expected [B,T,{self.config.condition_dim},H,W] of at least {now.stop} steps"
            )
        poses = 1 - as_images(poses[:, now])
        return [x.unflatten(0, poses.shape[:2]) for x in self.pose_encoder(_flat(poses))]

    def _posterior(self, frame: Tensor, pose: Tensor) -> Gaussian:
        """Of features [B,T,c,h,w] of the true frames and of their poses."""
        parameters = self.gaussian(
            torch.cat([frame, pose], 2).flatten(0, 1)
        ).float()  # the KL takes exponentials of these
        return Gaussian(*parameters.unflatten(0, frame.shape[:2]).chunk(2, dim=2))

    def _terms(self, scene: Scene, poses: list[Tensor]) -> list[Tensor]:
        """What pose features [B,T,c,h,w] and the anchor add in each stage, [B,T,outputs,h,w]."""
        anchors = scene.anchor or [None] * STAGES
        return [
            join.term(pose, anchor) for join, pose, anchor in zip(self.joins, poses, anchors, strict=True)
        ]

    def _draw_from_true(
        self, scene: Scene, frames: Tensor, features: list[Tensor], poses: list[Tensor], z: Tensor
    ) -> tuple[Tensor, Scene]:
        """The frames after `frames` [B,K,C,H,W] with these `features` [B*K,c,h,w], all at once, and the scene after them."""
        known = frames.shape[1]
        terms = [_flat(term) for term in self._terms(scene, [pose[:, :known] for pose in poses])]
        given = scene.given.repeat_interleave(known, 0)
        drawn = self._draw(_flat(frames), given, features, z[:, :known].flatten(0, 1), terms).unflatten(
            0, (-1, known)
        )
        return drawn, replace(scene, frame=drawn[:, -1])

    def _roll(self, scene: Scene, poses: list[Tensor], z: Tensor) -> tuple[Tensor, Scene]:
        """Draws the frames [N,T,C,H,W] of latents `z` [N,T,...] and pose features [B,T,...], each from the one before it."""
        terms, frame, images = self._terms(scene, poses), scene.frame, []
        futures = len(z) // len(terms[0])
        given = scene.given.repeat_interleave(futures, 0)
        for step in range(z.shape[1]):
            now = [term[:, step].repeat_interleave(futures, 0) for term in terms]
            frame = self._draw(frame, given, self.frame_encoder(frame), z[:, step], now)
            images.append(frame)
        return torch.stack(images, 1), replace(scene, frame=frame)

    def _draw(
        self, frame: Tensor, given: Tensor, features: list[Tensor], z: Tensor, terms: list[Tensor]
    ) -> Tensor:
        """The frame after `frame` [N,C,H,W] from its features, latent `z` [N,...] and the terms of pose and anchor [N,c,h,w].

        `given` [N,C,H,W] is what the masks may keep.
        """
        x = z.to(features[-1])
        for k in reversed(range(STAGES)):
            if k + 1 < self.config.levels:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = self.blocks[k](self.joins[k](x, features[k], terms[k]))
        x = self.output(x).float()
        image = torch.sigmoid(x[:, : self.config.channels])
        if not self.config.blend:
            return image
        if self.config.keep_given:
            masks = torch.softmax(x[:, self.config.channels :], 1).split(1, dim=1)
            return sum(
                mask * kept for mask, kept in zip(masks, (image, frame.float(), given.float()), strict=True)
            )
        return torch.lerp(frame.float(), image, torch.sigmoid(x[:, self.config.channels :]))


def _flat(frames: Tensor) -> Tensor:
    """[B,T,...] -> [B*T,...] with the channels innermost in memory."""
    return frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)
