"""How objects move: an LSTM for each, with prior and posterior of its latent, in a window about the object.

An object's motion is a place ``c`` and a turn ``A`` (2x2, with what perspective does to it): what was at p in
the observed frame, where its centre was c0, is at ``c + A (p - c0)`` now. Shape and colours are never drawn
again, so that nothing wears off.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .grid import SIDE, cell_centres, square
from .hand import Hand
from .layers import SLOPE, activate, grid_sample, leaky_conv, leaky_linear, output_layer
from .recurrent import Gaussian, lstm_cell
from .scene import FAR_OFF, FEATURES, SHAPE, Objects, exact

WINDOW = 12
"""Cells of the window about an object, to each side of it half; a cell is two units of `grid.SIDE`."""
STEP = 2.0
TOUCHING = 2
"""Points of the arm, the first ones, whose offsets the window shows."""
CHANNELS = 32
HEAD = 64
EYE_CHANNELS = 16
MOVE, ALONG, TURN = 4.0, 1.5, 0.3
"""Most that an object moves by itself in a step, in units of `grid.SIDE`, along with the hand, as a share of
its move, and in each number of its turn."""
SLIP = 4.0
"""Most that something in its way keeps the hand in a step from where its action leads, in standard deviations
of its position."""
RESISTANCE_CHANNELS = 24
ACTIVE = 4
"""Most objects that a step may move: those nearest to the fingers, or moving."""
ROLLING = 4.0
"""Steps for which what moves counts as nearer by its last move."""
LOGVAR = 6.0
"""Bound of the logarithms of latents' variances."""
CLOSED = -1.0
"""Start of the logit of whether an object moves at all."""


@dataclass(frozen=True)
class Motion:
    """Where the hand and K objects of N futures are.

    hand        [N,state], see `hand.Hand`
    slips       [N,P]: how far the hand was kept from where its last action leads
    centres     [N,K,2]
    turns       [N,K,2,2]
    moves       [N,K,2], the last step
    hidden      [N,K,H], the LSTM's
    cell        [N,K,H]
    """

    hand: Tensor
    slips: Tensor
    centres: Tensor
    turns: Tensor
    moves: Tensor
    hidden: Tensor
    cell: Tensor

    def of(self, index: Tensor) -> "Motion":
        """Return the motion of the objects `index` [N,n] alone."""
        return replace(self, **{name: entries(getattr(self, name), index) for name in OF_OBJECTS})

    def after(self, index: Tensor, moved: "Motion") -> "Motion":
        """Return the motion after that of the objects `index` [N,n]; all others stayed."""
        parts = {name: put(getattr(self, name), index, getattr(moved, name)) for name in OF_OBJECTS}
        parts["moves"] = put(torch.zeros_like(self.moves), index, moved.moves)
        return Motion(moved.hand, moved.slips, **parts)


OF_OBJECTS = ("centres", "turns", "moves", "hidden", "cell")


def entries(values: Tensor, index: Tensor) -> Tensor:
    """Return the entries `index` [N,n] of `values` [N,K,...], [N,n,...]."""
    return values.gather(1, _widened(index, values))


def put(values: Tensor, index: Tensor, part: Tensor) -> Tensor:
    """Return `values` [N,K,...] with `part` [N,n,...] in place of the entries `index` [N,n]."""
    return values.scatter(1, _widened(index, values), part)


def _widened(index: Tensor, like: Tensor) -> Tensor:
    return index[(...,) + (None,) * (like.dim() - 2)].expand(-1, -1, *like.shape[2:])


@dataclass(frozen=True)
class Surroundings:
    """What is where before a step, at half resolution.

    maps        [N,C,h,w]: all objects, their last moves, the scene's features
    each        [N,K,h,w]: each object
    """

    maps: Tensor
    each: Tensor


@dataclass(frozen=True)
class Ownership:
    """Which object each cell belongs to, and from where in the observed frame it comes.

    sources     [N,2,h,w]: places in the observed frame
    owners      [N,K,h,w]: 1 for the nearest object, else 0; a cell as near to two is half of each
    own         [N,2+E,h,w]: its centre in the observed frame, and E more numbers of it
    """

    sources: Tensor
    owners: Tensor
    own: Tensor


def unturned(objects: Objects) -> Tensor:
    """Return the turns [B,K,2,2] of objects that have not turned."""
    return torch.eye(2, device=objects.centres.device).expand(*objects.present.shape, 2, 2)


def find_owners(
    centres: Tensor, turns: Tensor, objects: Objects, cells: int, more: Tensor | None = None
) -> Ownership:
    """Return the owners of the cells, given where objects are now: `centres` [N,K,2], `turns` [N,K,2,2].

    A cell belongs to the object whose centre is nearest, in units of the object's size. `more` [N,K,E] are
    further numbers of objects.
    """
    right, down = cell_centres(cells, centres.device)
    back = _inverse(turns)
    with torch.no_grad():
        # distances of all cells from all objects are one matrix product: they are quadratic in the place
        x, y = right.flatten(), down.flatten()
        basis = torch.stack([x * x, x * y, y * y, x, y, torch.ones_like(x)])
        form = back.transpose(-1, -2) @ back / objects.spread[..., None, None]
        linear = torch.einsum("nkij,nkj->nki", form, centres)
        constant = (linear * centres).sum(-1) + (1 - objects.present) * FAR_OFF
        square = [form[..., 0, 0], 2 * form[..., 0, 1], form[..., 1, 1]]
        distances = torch.stack([*square, -2 * linear[..., 0], -2 * linear[..., 1], constant], -1) @ basis
        owners = (distances <= distances.amin(1, keepdim=True)).float()
        owners /= owners.sum(1, keepdim=True)  # a cell as near to two objects is half of each
    offset = objects.centres - torch.einsum("nkij,nkj->nki", back, centres)
    numbers = [back.flatten(2), offset, objects.centres] + ([] if more is None else [more])
    own = (torch.cat(numbers, -1).transpose(1, 2) @ owners).unflatten(2, (cells, cells))
    xx, xy, yx, yy, x_offset, y_offset, own = own.split([1] * 6 + [own.shape[1] - 6], 1)
    x_source = xx * right + xy * down + x_offset
    y_source = yx * right + yy * down + y_offset
    return Ownership(torch.cat([x_source, y_source], 1), owners.unflatten(2, (cells, cells)), own)


def sample(maps: Tensor, places: Tensor, padding: str = "border") -> Tensor:
    """Return `maps` [N,C,H,W] at `places` [N,2,h,w], bilinear."""
    return grid_sample(maps, ((places + 0.5) * (2 / SIDE) - 1).movedim(1, -1), padding)


def sample_windows(maps: Tensor, places: Tensor) -> Tensor:
    """Return `maps` [N,C,H,W] at K windows of `places` [N,K,2,h,w], [N,K,C,h,w]; 0 beyond the border."""
    sampled = sample(maps, places.transpose(1, 2).flatten(2, 3), "zeros")
    return sampled.unflatten(2, (places.shape[1], -1)).transpose(1, 2)


def shown_objects(masks: Tensor, owned: Ownership) -> Tensor:
    """Return where an object shows, [N,1,h,w]: each cell as surely as it is of its owner.

    `masks` [N,3,h,w] are what shows any object, and the centre that a cell votes for.
    """
    outline, pointed = masks.split([1, 2], 1)
    return outline * torch.exp(-((pointed - owned.own[:, :2]) ** 2).sum(1, keepdim=True) / 32)


class ObjectMotion(nn.Module):
    """The recurrent model of the objects' motion, `step` by step."""

    def __init__(self, channels: int, hidden: int, z_dim: int, hand_size: int, positions: int):
        super().__init__()
        self.positions = positions
        self.start = leaky_linear(FEATURES + SHAPE, hidden)
        inputs = 3 + FEATURES + 2 * 3 * TOUCHING
        self.resistance = _Window(inputs, RESISTANCE_CHANNELS, HEAD)
        self.slips = nn.Sequential(
            leaky_linear(HEAD + 2 * hand_size + positions, HEAD),
            nn.LeakyReLU(SLOPE),
            output_layer(leaky_linear(HEAD, positions, 0.1)),
        )
        self.window = _Window(1 + inputs, CHANNELS, hidden)
        seen = hidden + 2 * hand_size + 4 * TOUCHING + 2 + 8
        self.embed = leaky_linear(seen + z_dim, hidden)
        self.gates = nn.Linear(2 * hidden, 4 * hidden)
        self.prior = _latent_head(seen + hidden, z_dim)
        self.eye = nn.Sequential(
            nn.Conv2d(2 * channels, 24, 4, 2, 1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(24, 32, 4, 2, 1),
            nn.LeakyReLU(SLOPE),
            leaky_conv(32, EYE_CHANNELS),
        )
        self.posterior = _latent_head(seen + hidden + 9 * EYE_CHANNELS, z_dim)
        self.output = leaky_linear(hidden, 8, 0.05)
        with torch.no_grad():
            self.output.bias[6] = CLOSED

    def begin(self, objects: Objects, hand: Tensor, slips: Tensor) -> Motion:
        """Return the motion at the observed frame, where all rests, with the hand's state and last slip."""
        hidden = torch.tanh(self.start(objects.features)).float()
        centres = objects.centres
        moves = torch.zeros_like(centres)
        return Motion(hand, slips, centres, unturned(objects), moves, hidden, torch.zeros_like(hidden))

    def look(self, frames: Tensor) -> Tensor:
        """Return what the posterior sees of each frame but the first, [B,T-1,EYE_CHANNELS,H/4,W/4]."""
        pairs = torch.cat([frames[:, :-1], frames[:, 1:]], 2).flatten(0, 1) - 0.5
        return self.eye(pairs).float().unflatten(0, (len(frames), -1))

    def around(self, motion: Motion, objects: Objects, masks: Tensor, features: Tensor) -> Surroundings:
        """Return what is where before a step.

        `masks` [N,3,H,W] and `features` are those of the scenes, see `Material`.
        """
        with exact(motion.centres):
            owned = find_owners(motion.centres, motion.turns, objects, features.shape[-1], motion.moves)
            mask = shown_objects(sample(masks, owned.sources), owned)
            maps = torch.cat([mask, owned.own[:, 2:] * mask / MOVE, features], 1)
            return Surroundings(maps, owned.owners * mask)

    def choose(self, motion: Motion, objects: Objects, hand: Hand, after: Tensor) -> Tensor:
        """Return the numbers [N,n] of the objects that a step may move, in which the hand gets to `after`."""
        with torch.no_grad(), exact(after):
            points = self._touching(hand, motion.hand, after).flatten(1, 2)
            distances = torch.cdist(motion.centres, points).amin(2) - ROLLING * motion.moves.norm(dim=2)
            distances = distances + (1 - objects.present) * FAR_OFF
            return distances.topk(min(ACTIVE, distances.shape[1]), 1, largest=False).indices

    def move_hand(
        self, motion: Motion, around: Surroundings, hand: Hand, actions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the hand's state after `actions` [N,A], and how far it was kept from where they lead.

        In training the hand's error does not change what is seen of the scene.
        """
        before = motion.hand
        maps = around.maps.detach() if self.training else around.maps
        with exact(before):
            after = hand.next(before, actions)
            points = self._touching(hand, before, after)
            window = _surrounded(maps, _places(points[:, 1].mean(1, keepdim=True)), points)
        met = self.resistance(window)[:, 0]
        slips = self.slips(torch.cat([met, before, after, motion.slips], -1)).float()
        slips = SLIP * torch.tanh(slips / SLIP)
        return torch.cat([after[:, : self.positions] + slips, after[:, self.positions :]], 1), slips

    def see(self, motion: Motion, around: Surroundings, hand: Hand, after: Tensor) -> Tensor:
        """Return what is known of each object [N,K,D] before a step, in which the hand gets to `after`."""
        before = motion.hand
        with exact(before):
            points = self._touching(hand, before, after)
            places = _places(motion.centres)
            each = around.each.flatten(0, 1)[:, None]
            itself = sample(each, places.flatten(0, 1), "zeros").unflatten(0, places.shape[:2])
            window = torch.cat([itself, _surrounded(around.maps, places, points)], 2)
        x = self.window(window)
        count = x.shape[1]
        offsets = (points[:, None] - motion.centres[:, :, None, None]).flatten(2) / 16
        shift = (points[:, 1] - points[:, 0]).mean(1) / 4
        common = torch.cat([shift, before, after], 1)[:, None].expand(-1, count, -1)
        turn = (motion.turns - torch.eye(2, device=x.device)).flatten(2)
        place = (motion.centres - (SIDE - 1) / 2) / (SIDE / 2)
        return torch.cat([x, offsets, common, motion.moves / MOVE, turn, place], -1)

    def _touching(self, hand: Hand, before: Tensor, after: Tensor) -> Tensor:
        """Return the points of the arm [N,2,TOUCHING,2] that may touch objects, in two states of the hand.

        In training errors of motion do not change them: what the arm looks like teaches where they are.
        """
        points = torch.stack([hand.project(state)[:, :TOUCHING] for state in (before, after)], 1)
        return points.detach() if self.training else points

    def prior_of(self, seen: Tensor, motion: Motion) -> Gaussian:
        """Return the prior of the latents [N,K,z_dim] of a step."""
        return _gaussian(self.prior(torch.cat([seen, motion.hidden], -1)))

    def posterior_of(self, seen: Tensor, motion: Motion, look: Tensor) -> Gaussian:
        """Return the posterior, given what `look` [N,EYE_CHANNELS,h,w] shows of the step."""
        axis = torch.tensor([-10.0, 0.0, 10.0], device=look.device)
        with exact(look):
            looked = sample_windows(look, motion.centres[..., None, None] + square(axis)).flatten(2)
        return _gaussian(self.posterior(torch.cat([seen, motion.hidden, looked], -1)))

    def step(
        self,
        motion: Motion,
        seen: Tensor,
        z: Tensor,
        present: Tensor,
        hand: Hand,
        after: Tensor,
        slips: Tensor,
    ) -> Motion:
        """Return the motion after a step with latents `z` [N,K,z_dim], in which the hand gets to `after`.

        It was kept by `slips` from where its action leads. What it pushes goes along with it, more or less.
        """
        with exact(after):
            push = hand.moves(torch.stack([motion.hand, after], 1))[:, 0]
        x = activate(self.embed(torch.cat([seen, z], -1)))
        gates = self.gates(torch.cat([x, motion.hidden.to(x)], -1)).float()
        hidden, cell = lstm_cell(gates.flatten(0, 1), motion.cell.flatten(0, 1))
        hidden = hidden.unflatten(0, present.shape)
        cell = cell.unflatten(0, present.shape)
        move, turn, gate, along = self.output(hidden).float().split([2, 4, 1, 1], -1)
        gate = torch.sigmoid(gate) * present[..., None]
        moves = gate * (MOVE * torch.tanh(move) + ALONG * torch.tanh(along) * push[:, None])
        with exact(moves):
            turns = motion.turns + (TURN * gate * torch.tanh(turn)).unflatten(-1, (2, 2)) @ motion.turns
        return Motion(after, slips, motion.centres + moves, turns, moves, hidden, cell)


class _Window(nn.Module):
    """Convolutions over windows [N,K,C,WINDOW,WINDOW] to features [N,K,outputs], float32."""

    def __init__(self, inputs: int, channels: int, outputs: int):
        super().__init__()
        self.convs = nn.ModuleList(
            [
                leaky_conv(inputs, channels),
                nn.Conv2d(channels, channels, 4, 2, 1),
                nn.Conv2d(channels, channels, 3, 2, 1),
            ]
        )
        self.join = leaky_linear(9 * channels, outputs)

    def forward(self, window: Tensor) -> Tensor:
        x = window.flatten(0, 1)
        for conv in self.convs:
            x = activate(conv(x))
        return activate(self.join(x.flatten(1))).float().unflatten(0, window.shape[:2])


def _places(centres: Tensor) -> Tensor:
    """Return the cells [N,K,2,WINDOW,WINDOW] of the windows about `centres` [N,K,2]."""
    axis = (torch.arange(WINDOW, device=centres.device) - (WINDOW - 1) / 2) * STEP
    return centres[..., None, None] + square(axis)


def _surrounded(maps: Tensor, places: Tensor, points: Tensor) -> Tensor:
    """Return `maps` in windows of `places`, see `_places`, and where those are beside points of the arm.

    `points` [N,2,TOUCHING,2] are those before and after the step.
    """
    offsets = places[:, :, None, None] - points[:, None, ..., None, None]  # [N,K,2,P,2,w,w]
    near = torch.exp(-(offsets**2).sum(4) / 18).flatten(2, 3)
    offsets = torch.tanh(offsets / 3).flatten(2, 4)
    return torch.cat([sample_windows(maps, places), offsets, near], 2)


def _latent_head(inputs: int, z_dim: int) -> nn.Sequential:
    return nn.Sequential(leaky_linear(inputs, HEAD), nn.LeakyReLU(SLOPE), leaky_linear(HEAD, 2 * z_dim, 0.1))


def _gaussian(parameters: Tensor) -> Gaussian:
    mu, logvar = parameters.float().chunk(2, -1)
    return Gaussian(mu, LOGVAR * torch.tanh(logvar / LOGVAR))


def _inverse(turns: Tensor) -> Tensor:
    """Return the inverses of matrices [...,2,2], whose determinants are taken as at least 0.05."""
    a, b, c, d = turns.flatten(-2).unbind(-1)
    determinant = (a * d - b * c).clamp(min=0.05)
    return torch.stack([d, -b, -c, a], -1).unflatten(-1, (2, 2)) / determinant[..., None, None]
