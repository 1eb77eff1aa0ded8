"""The model objects: what is pushed is an object, with a place and a turn, and keeps its shape.

In the manner of SVG-LP (Denton & Fergus 2018) with encoder, posterior, prior, frame predictor and decoder,
but the recurrent state is one of objects, not of the whole picture, and the decoder's skip connections are
moved along with them:

- The hand (`hand`) integrates the actions. Of its positions only those of the observed frames are read.
- The encoder (`scene`) takes the last observed frame apart, into the table, up to ``--slots`` objects, and
  features.
- An LSTM (`object_motion`) moves each object, given its surroundings and a latent of its own.
- The decoder (`compositor`) puts the pictures together.

Where objects are, the simulator's truth has to teach: see ``svg.training.object_losses``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from .compositor import Compositor, Material, Picture
from .hand import Hand
from .object_motion import Motion, ObjectMotion, entries, put
from .predictor import Predictor, Rollout, as_images
from .recurrent import Gaussian
from .scene import Layers, Objects, SceneEncoder, exact, find_objects, joined, repeated
from .sprites import PARTS

PRIOR_SHARE = 0.5
"""Share of the training clips whose latents are the prior's means, with which most predictions are made."""


@dataclass(frozen=True)
class Observation:
    """The state after some frames: B scenes, and what moves in N futures of them, those of one together."""

    material: Material
    objects: Objects
    motion: Motion


@dataclass(frozen=True)
class Path:
    """Where hand and objects go in F steps of N futures, each with its `scene`."""

    scene: Observation
    motions: list[Motion]

    @property
    def centres(self) -> Tensor:
        """Places of the objects in the picture [N,F,K,2], in units of `grid.SIDE`, to the right and down."""
        return torch.stack([motion.centres for motion in self.motions], 1)


@dataclass(frozen=True)
class Tracks:
    """Where objects are and have been found, for losses by truth.

    layers          of the observed frame of the b clips that were drawn
    centre_logits   [b,1,H/2,W/2] of objects' centres there
    present         [B,K]: which objects there are
    first           [B,K,2]: their centres there
    centres         [B,T-n_past,K,2] in the frames from `n_past` on
    turns           [B,T-n_past,K,2,2]
    slips           [B,T-n_past,P]: by how much the hand's predicted positions are off there, each as the
                    fingers move for it in the picture
    arm             [b,n,1,H,W]: what shows the arm in the frames that were drawn
    shadow          [b,n,1,H,W]: where its shadow is
    points          [B,T,POINTS,2] of the arm in all frames, by the recorded positions of the hand
    """

    layers: Layers
    centre_logits: Tensor
    present: Tensor
    first: Tensor
    centres: Tensor
    turns: Tensor
    slips: Tensor
    arm: Tensor
    shadow: Tensor
    points: Tensor


class ObjectPredictor(Predictor):
    """Hand, scene, motion of the objects and pictures; see the module's description."""

    entrances = (*Predictor.entrances, "track")
    condition_mean: Tensor
    condition_std: Tensor

    def __init__(
        self, config: ModelConfig, condition_mean: Sequence[float] = (), condition_std: Sequence[float] = ()
    ):
        super().__init__(config)
        self.keep_statistics(condition_mean, condition_std)
        positions = config.condition_dim - config.action_dim
        self.hand = Hand(config.action_dim, positions, config.channels, config.image_width)
        sizes = config.image_width, config.g_dim
        self.encoder = SceneEncoder(config.channels, *sizes, config.norm, self.hand.size)
        self.motion = ObjectMotion(config.channels, config.rnn_size, config.z_dim, self.hand.size, positions)
        self.decoder = Compositor(config.channels, config.g_dim, config.norm, self.hand.size)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one latent, [objects,z_dim]."""
        return (self.config.slots, self.config.z_dim)

    def fit_conditions(self, conditions: Tensor, generator: torch.Generator) -> None:
        """Fit how actions move the hand to recorded `conditions` [N,T,D]."""
        actions, positions = self._standardised(conditions)
        self.hand.integrator.fit(actions, positions, generator)

    # ----------------------------------------------------------------------------------------------- training

    def forward(
        self,
        frames: Tensor,
        conditions: Tensor | None,
        n_past: int,
        teacher_forcing: bool = False,
        noise: Tensor | None = None,
        drawn: Tensor | None = None,
    ) -> Rollout:
        """Predict clips as `Predictor.forward` says; all frames after the first `n_past` are free-running.

        Observed frames before the last one come back as they are. With `noise`, which training gives, the arm
        is drawn where the hand was recorded, and the latents of about half of the clips are the prior's
        means; in the other half the hand's motion is teacher-forced.

        `drawn` may have fewer rows than there are clips. The first clips are then drawn; where hand and
        objects go in the others is predicted with the prior's means, and teaches the encoder nothing.
        """
        clips, steps = frames.shape[0], frames.shape[1] - 1
        first = max(n_past - 2, 0)
        if drawn is None:
            drawn = torch.arange(first, steps, device=frames.device).expand(clips, -1)
        rows = len(drawn)
        # of the other clips no more than the observed frames is read
        others = as_images(frames[rows:, :n_past])
        frames = as_images(frames[:rows])
        assert conditions is not None
        scene, layers, centre_logits = self._observe(frames[:, :n_past], conditions[:rows])
        objects, motion = scene.objects, scene.motion
        if rows < clips:
            *_, more, start = self._take_apart(others, conditions[rows:], teaches_encoder=False)
            objects, motion = joined(objects, more), joined(motion, start)
        all_actions, positions = self._standardised(conditions)
        with exact(frames):
            recorded = self.hand.observed(all_actions, positions[:, : steps + 1])
            points = self.hand.project(recorded)
        looks = self.motion.look(frames[:, n_past - 1 :])
        by_prior = None
        if noise is not None:
            by_prior = torch.special.ndtr(noise[:, :1, :1, :1].flatten(1)) < PRIOR_SHARE
            by_prior[rows:] = True
            noise = noise[:rows, n_past - 1 :]
        actions = all_actions[:, n_past - 1 : steps]
        motions, reached, posterior, prior = self._infer(
            objects, motion, actions, recorded[:, n_past:], looks, noise, by_prior
        )
        centres = torch.stack([motion.centres for motion in motions], 1)
        turns = torch.stack([motion.turns for motion in motions], 1)
        hands = torch.stack([motion.hand for motion in motions], 1)
        # the last observed frame is drawn, too: with n_past 1 it is not asked for
        states = hands if noise is None else recorded[:, n_past - 1 :]
        index = drawn - (n_past - 2)
        clip = torch.arange(rows, device=frames.device)[:, None]
        picture = self._draw(scene, centres[clip, index], turns[clip, index], states[clip, index])
        parts = (picture.frames, picture.carried, picture.arm, picture.shadow)
        images, carried, arm, shadow = (part.unflatten(0, drawn.shape) for part in parts)
        if drawn.shape[1] == steps - first:
            given = frames[:, 1 : first + 1]
            images, carried = (torch.cat([given, part], 1) for part in (images, carried))
        tracks = Tracks(
            layers,
            centre_logits,
            objects.present,
            objects.centres,
            centres[:, 1:],
            turns[:, 1:],
            self.hand.reach * (reached - positions[:, n_past : steps + 1]),
            arm,
            shadow,
            points,
        )
        posterior, prior = (_padded(part, n_past - 1) for part in (posterior, prior))
        return Rollout(images, posterior, prior, carried=carried, tracks=tracks)

    def _infer(
        self,
        objects: Objects,
        motion: Motion,
        actions: Tensor,
        recorded: Tensor,
        looks: Tensor,
        noise: Tensor | None,
        by_prior: Tensor | None,
    ) -> tuple[list[Motion], Tensor, Gaussian, Gaussian]:
        """Return the motion at the start and after each step, with posteriors and priors [b,F,K,z_dim].

        Before those are the positions of the hand [B,F,P], each as the one before leads to it. Where not all
        is `by_prior`, the next one starts from the `recorded` state [B,F,state]. Errors of the objects do not
        change them. Of the first b clips there are `looks` [b,F,...] and `noise`; all others are `by_prior`.
        """
        rows = len(looks)
        present = objects.present[:rows, :, None]
        motions = [motion]
        reached = []
        posteriors = []
        priors = []
        for step, action in enumerate(actions.unbind(1)):
            after, slips = self.motion.move_hand(motion, objects, self.hand, action)
            positions = after[:, : self.hand.positions]
            reached.append(positions)
            if by_prior is not None:
                after = torch.where(by_prior, after.detach(), recorded[:, step])
                slips = slips + after[:, : self.hand.positions] - positions
            index, active, seen = self.motion.see(motion, objects, self.hand, after)
            prior = self.motion.prior_of(seen, active)
            posterior = self.motion.posterior_of(seen, active, looks[:, step])
            z = posterior.mu if noise is None else posterior.sample(entries(noise[:, step], index[:rows]))
            if by_prior is not None:
                z = torch.where(by_prior[:rows, :, None], prior.mu[:rows], z)
            z = torch.cat([z, prior.mu[rows:]])
            motion = self._step(objects, motion, index, active, seen, z, after, slips)
            motions.append(motion)
            prior = Gaussian(prior.mu[:rows], prior.logvar[:rows])
            posteriors.append(_of_present(posterior, index[:rows], present))
            priors.append(_of_present(prior, index[:rows], present))
        return motions, torch.stack(reached, 1), _stacked(posteriors), _stacked(priors)

    # --------------------------------------------------------------------------------------------- prediction

    def future_bytes(self, n_future: int) -> int:
        """Estimate `Predictor.future_bytes`: pictures are drawn a step at a time.

        Those are the layers of a scene, the channels of the decoder at half resolution, the float32 frames
        three times, and distances of all pixels from all objects.
        """
        config = self.config
        pixels = config.image_width**2
        sprites = PARTS * (config.channels + 6)
        layers = 8 * config.channels + 8 + 2 * config.slots + sprites + config.g_dim
        images = 3 * n_future * config.channels
        windows = config.slots * (64 * 144 + 12 * config.rnn_size)
        return 4 * ((layers + images) * pixels + windows)

    def observe(self, past: Tensor, conditions: Tensor | None) -> Observation:
        """Return the state after the frames `past` [B,n_past,C,H,W].

        Of `conditions` [B,>= n_past,D] the positions of these frames are read. Those of the last one may be
        left out of more than one: it then follows from the action before.
        """
        return self._observe(as_images(past), conditions)[0]

    def _observe(self, past: Tensor, conditions: Tensor | None) -> tuple[Observation, Layers, Tensor]:
        layers, centre_logits, objects, motion = self._take_apart(past, conditions)
        material = self.decoder.prepare(layers, objects, self.hand)
        return Observation(material, objects, motion), layers, centre_logits

    def _take_apart(
        self, past: Tensor, conditions: Tensor | None, teaches_encoder: bool = True
    ) -> tuple[Layers, Tensor, Objects, Motion]:
        """Return what the frames `past` show: layers, logits of objects' centres, objects, the start."""
        count = past.shape[1]
        width = self.config.condition_dim
        least = max(1, count - 1)
        if conditions is None or conditions.shape[1] < least or conditions.shape[2] != width:
            found = "none" if conditions is None else f"{conditions.shape[1]} of width {conditions.shape[2]}"
            raise ValueError(f"conditions: found {found}, expected at least {least} of width {width}")
        actions, positions = self._standardised(conditions)
        with exact(past):
            hands = self.hand.observed(actions, positions[:, :count])
            hand = hands[:, -1]
            slips = torch.zeros_like(positions[:, 0])
            if conditions.shape[1] < count:
                hand = self.hand.next(hand, actions[:, -1])
            elif count > 1:
                slips = (hand - self.hand.next(hands[:, -2], actions[:, count - 2]))[:, : self.hand.positions]
        last, before = past[:, -1], past[:, max(count - 2, 0)]
        with torch.set_grad_enabled(torch.is_grad_enabled() and teaches_encoder):
            layers, centre_logits = self.encoder(last, before, self.hand, hand)
            with exact(past):
                objects = find_objects(layers, centre_logits, self.config.slots)
        objects = self.motion.describe(objects, layers, before)
        return layers, centre_logits, objects, self.motion.begin(objects, hand, slips)

    def exchange(self, start: Observation, index: Tensor, more: Objects) -> Observation:
        """Return `start` with the objects `more` in place of its objects `index` [B,n].

        Those are objects that the observed frame does not show, such as ones behind the arm, as an earlier
        frame of the scene described them. They rest, and are not drawn.
        """
        parts = {
            item.name: put(getattr(start.objects, item.name), index, getattr(more, item.name))
            for item in fields(Objects)
        }
        begun = self.motion.begin(more, start.motion.hand, start.motion.slips)
        return Observation(start.material, Objects(**parts), start.motion.with_others(index, begun))

    def advance(
        self, start: Observation, conditions: Tensor | None, noise: Tensor
    ) -> tuple[Tensor, Observation]:
        """Continue from `start` as `Predictor.advance` says. Of `conditions` the actions are read."""
        path = self.track(start, conditions, noise)
        pictures = self.draw(path, range(noise.shape[2]))
        return _by_sample(pictures, noise.shape[0]), replace(start, motion=path.motions[-1])

    def imagine(
        self,
        start: Observation,
        conditions: Tensor | None,
        noise: Tensor | None = None,
        times: Sequence[int] | None = None,
    ) -> Tensor:
        """Return what `Predictor.imagine` says. Only the frames that are asked for are drawn."""
        if times is None:
            return super().imagine(start, conditions, noise)
        assert conditions is not None
        path = self.track(start, conditions, self.zero_noise(conditions) if noise is None else noise)
        return _by_sample(self.draw(path, times), start.motion.hand.shape[0])

    def track(self, start: Observation, conditions: Tensor | None, noise: Tensor) -> Path:
        """Return where hand and objects go in S futures of each clip; nothing is drawn.

        Arguments as of `Predictor.advance`. Gradients flow to the actions.
        """
        samples, steps = noise.shape[1:3]
        if conditions is None:
            raise ValueError("conditions: found none, expected those of the frames to predict")
        if conditions.dim() == 3:
            conditions = conditions[:, None].expand(-1, samples, -1, -1)
        actions = self._standardised(conditions.flatten(0, 1)[:, :steps])[0]
        noise = noise.flatten(0, 1)
        scene = _scene_of_each(start, noise.shape[0])
        motion = repeated(start.motion, samples)
        motions = []
        for step, action in enumerate(actions.unbind(1)):
            after, slips = self.motion.move_hand(motion, scene.objects, self.hand, action)
            index, active, seen = self.motion.see(motion, scene.objects, self.hand, after)
            z = self.motion.prior_of(seen, active).sample(entries(noise[:, step], index))
            motion = self._step(scene.objects, motion, index, active, seen, z, after, slips)
            motions.append(motion)
        return Path(scene, motions)

    def draw(self, path: Path, times: Iterable[int]) -> Tensor:
        """Return the frames `times` of the N futures of a path, [N,len(times),C,H,W]."""
        images = []
        for time in times:
            motion = path.motions[time]
            places = motion.centres[:, None], motion.turns[:, None], motion.hand[:, None]
            images.append(self._draw(path.scene, *places).frames)
        return torch.stack(images, 1)

    def hand_positions(self, path: Path) -> Tensor:
        """Return the positions of the hand after each step of a path, [N,F,P], in the data's own units."""
        width = self.config.action_dim
        hands = torch.stack([motion.hand for motion in path.motions], 1)[..., : self.hand.positions]
        return hands * self.condition_std[width:] + self.condition_mean[width:]

    def parts(self) -> Iterable[nn.Module]:
        """Return encoder and decoder; of the recurrent model a step calls methods, which are not compiled."""
        return [self.encoder, self.decoder]

    # -------------------------------------------------------------------------------------------------- parts

    def _standardised(self, conditions: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return actions [...,A] and positions [...,P] in standard deviations."""
        assert conditions is not None
        values = (conditions - self.condition_mean) / self.condition_std
        return values[..., : self.config.action_dim], values[..., self.config.action_dim :]

    def _step(
        self,
        objects: Objects,
        motion: Motion,
        index: Tensor,
        active: Motion,
        seen: Tensor,
        z: Tensor,
        after: Tensor,
        slips: Tensor,
    ) -> Motion:
        """Return the motion of all after a step of those objects that it may move."""
        present = entries(objects.present, index)
        moved = self.motion.step(active, seen, z, present, self.hand, after, slips)
        return motion.after(index, moved)

    def _draw(self, scene: Observation, centres: Tensor, turns: Tensor, states: Tensor) -> Picture:
        """Draw N * F pictures of N scenes from `centres` [N,F,K,2], `turns` and the hand's `states`."""
        count = centres.shape[1]
        return self.decoder(
            repeated(scene.material, count),
            repeated(scene.objects, count),
            centres.flatten(0, 1),
            turns.flatten(0, 1),
            self.hand,
            states.flatten(0, 1),
        )


def _by_sample(frames: Tensor, clips: int) -> Tensor:
    """Return frames [B*S,F,C,H,W] of the futures of so many clips as [S,B,F,C,H,W]."""
    return frames.unflatten(0, (clips, -1)).transpose(0, 1)


def _scene_of_each(start: Observation, futures: int) -> Observation:
    """Return `start` with the scene of each of so many futures, those of one together."""
    times = futures // start.objects.present.shape[0]
    return Observation(repeated(start.material, times), repeated(start.objects, times), start.motion)


def _of_present(latents: Gaussian, index: Tensor, present: Tensor) -> Gaussian:
    """Return the distributions of the objects `index` among those of all, which are standard normal."""
    zeros = torch.zeros_like(present).expand(-1, -1, latents.mu.shape[2])
    mu, logvar = (put(zeros, index, part) * present for part in (latents.mu, latents.logvar))
    return Gaussian(mu, logvar)


def _stacked(steps: list[Gaussian]) -> Gaussian:
    return Gaussian(
        torch.stack([step.mu for step in steps], 1), torch.stack([step.logvar for step in steps], 1)
    )


def _padded(steps: Gaussian, count: int) -> Gaussian:
    """Return distributions [B,F,...] with `count` standard normal ones before them in time."""
    zeros = steps.mu.new_zeros(len(steps.mu), count, *steps.mu.shape[2:])
    return Gaussian.cat([Gaussian(zeros, zeros), steps])
