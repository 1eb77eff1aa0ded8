"""How objects move: an interaction network (Battaglia et al. 2016) with an LSTM for each object.

An object's motion is a place ``c`` and a turn ``A`` (2x2, with what perspective does to it): what was at p in
the observed frame, where its centre was c0, is at ``c + A (p - c0)`` now. Shape and colours are never drawn
again, so that nothing wears off. What an object looks like becomes a vector once a scene; each step works on
vectors alone: where the hand and the other objects are beside an object, and where they go. All is computed
in float32, but for what the posterior sees.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..runtime import constant
from .grid import SIDE, cell_centres, square
from .hand import Hand
from .layers import SLOPE, grid_sample, leaky_conv, leaky_linear, output_layer
from .recurrent import Gaussian, lstm_cell
from .scene import CODE, DESCRIPTION, FAR_OFF, Layers, Objects, exact

CROP = 24
"""Width of the surroundings of an object that its description is made from, in units of `grid.SIDE`."""
CROP_CHANNELS = 32
TOUCHING = 2
"""Points of the arm, the first ones, that may touch objects."""
FAR, FINE, TOUCH = 8.0, 2.0, 3.0
"""Distances over which offsets tell places apart, and that of a touch."""
NEAR = 10.0
"""Distance over which objects have to do with each other and with the hand."""
EYE_CHANNELS = 16
MOVE, ALONG, TURN = 4.0, 1.5, 0.3
"""Most that an object moves by itself in a step, in units of `grid.SIDE`, along with the hand, as a share of
its move, and in each number of its turn."""
SLIP = 4.0
"""Most that something in its way keeps the hand in a step from where its action leads, in standard deviations
of its position."""
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

    def with_others(self, index: Tensor, others: "Motion") -> "Motion":
        """Return the motion with that of `others` in place of the objects `index` [N,n]."""
        parts = {name: put(getattr(self, name), index, getattr(others, name)) for name in OF_OBJECTS}
        return replace(self, **parts)

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
    """The recurrent model of the objects' motion, step by step."""

    is_exact = True

    def __init__(self, channels: int, hidden: int, z_dim: int, hand_size: int, positions: int):
        super().__init__()
        self.positions = positions
        self.crop = nn.Sequential(
            nn.Conv2d(2 * channels + 3, CROP_CHANNELS, 4, 2, 1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(CROP_CHANNELS, CROP_CHANNELS, 4, 2, 1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(CROP_CHANNELS, CROP_CHANNELS, 3, 2, 1),
            nn.LeakyReLU(SLOPE),
            nn.Flatten(),
            leaky_linear((CROP // 8) ** 2 * CROP_CHANNELS, CODE),
        )
        node, message, head = 3 * hidden // 2, 3 * hidden // 4, hidden // 2
        self.start = leaky_linear(DESCRIPTION, hidden)
        known = DESCRIPTION + 4 + 2 + 2 + 14 * TOUCHING + 4 + 2 * hand_size
        self.obstacle = _layers(known, head, head)
        self.slips = nn.Sequential(
            leaky_linear(head + 2 * hand_size + positions, head),
            nn.LeakyReLU(SLOPE),
            output_layer(leaky_linear(head, positions, 0.1)),
        )
        self.node = _layers(known, node, node)
        self.receiver = leaky_linear(node, message)
        self.sender = nn.Linear(node, message, bias=False)
        self.between = nn.Linear(6, message, bias=False)
        self.message = leaky_linear(message, message)
        seen = node + message
        self.embed = leaky_linear(seen + z_dim, hidden)
        self.gates = nn.Linear(2 * hidden, 4 * hidden)
        self.prior = _latent_head(seen + hidden, head, z_dim)
        self.eye = nn.Sequential(
            nn.Conv2d(2 * channels, 24, 4, 2, 1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(24, 32, 4, 2, 1),
            nn.LeakyReLU(SLOPE),
            leaky_conv(32, EYE_CHANNELS),
        )
        self.posterior = _latent_head(seen + hidden + 9 * EYE_CHANNELS, head, z_dim)
        last = leaky_linear(hidden, 8, 0.05)
        with torch.no_grad():
            last.bias[6] = CLOSED
        self.output = nn.Sequential(*_layers(2 * hidden, hidden, hidden), last)

    def describe(self, objects: Objects, layers: Layers, before: Tensor) -> Objects:
        """Return `objects` described also by their surroundings in the last two observed frames.

        The first of these is `before` [B,C,H,W].
        """
        with torch.no_grad(), exact(before):
            size = layers.last.shape[-1]
            owned = find_owners(objects.centres, unturned(objects), objects, size)
            mask = shown_objects(torch.cat([torch.sigmoid(layers.outline), layers.pointed], 1), owned)
            axis = torch.arange(CROP, device=before.device) - (CROP - 1) / 2
            places = objects.centres[..., None, None] + square(axis)
            each = (owned.owners * mask).flatten(0, 1)[:, None]
            itself = sample(each, places.flatten(0, 1), "zeros")
            maps = torch.cat([mask, torch.sigmoid(layers.arm), layers.last - 0.5, before - layers.last], 1)
            windows = torch.cat([itself, sample_windows(maps, places).flatten(0, 1)], 1)
        code = self.crop(windows.contiguous(memory_format=torch.channels_last)).float()
        code = code.unflatten(0, objects.present.shape)
        return replace(objects, features=torch.cat([objects.features, code], -1))

    def begin(self, objects: Objects, hand: Tensor, slips: Tensor) -> Motion:
        """Return the motion at the observed frame, where all rests, with the hand's state and last slip.

        `objects` are those that `describe` returns.
        """
        with exact(hand):
            hidden = torch.tanh(self.start(objects.features))
        centres = objects.centres
        moves = torch.zeros_like(centres)
        return Motion(hand, slips, centres, unturned(objects), moves, hidden, torch.zeros_like(hidden))

    def look(self, frames: Tensor) -> Tensor:
        """Return what the posterior sees of each frame but the first, [B,T-1,EYE_CHANNELS,H/4,W/4]."""
        pairs = torch.cat([frames[:, :-1], frames[:, 1:]], 2).flatten(0, 1) - 0.5
        return self.eye(pairs).float().unflatten(0, (len(frames), -1))

    def move_hand(
        self, motion: Motion, objects: Objects, hand: Hand, actions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the hand's state after `actions` [N,A], and how far it was kept from where they lead.

        In training the hand's error does not change what is known of the objects.
        """
        with exact(actions):
            after = hand.next(motion.hand, actions)
            points = self._touching(hand, motion.hand, after)
            known = self._known(motion, objects, points, after)
            known = known.detach() if self.training else known
            away = (motion.centres - points.flatten(1, 2).mean(1)[:, None]).square().sum(-1)
            met = _sum_of_near(self.obstacle(known), away.detach(), objects.present)
            slips = self.slips(torch.cat([met, motion.hand, after, motion.slips], -1))
            slips = SLIP * torch.tanh(slips / SLIP)
            return torch.cat([after[:, : self.positions] + slips, after[:, self.positions :]], 1), slips

    def see(
        self, motion: Motion, objects: Objects, hand: Hand, after: Tensor
    ) -> tuple[Tensor, Motion, Tensor]:
        """Return the numbers [N,n] of the objects that a step may move, in which the hand gets to `after`.

        With them come their motion, and what is known of each of them [N,n,D].
        """
        with exact(after):
            points = self._touching(hand, motion.hand, after)
            index = self._choose(motion, objects, points)
            active = motion.of(index)
            nodes = self.node(self._known(motion, objects, points, after))
            chosen = entries(nodes, index)
            offsets = motion.centres[:, None] - active.centres[:, :, None]  # [N,n,K,2]
            relative = (motion.moves[:, None] - active.moves[:, :, None]) / MOVE
            between = self.between(torch.cat([offsets / FAR, torch.tanh(offsets / TOUCH), relative], -1))
            messages = self.receiver(chosen)[:, :, None] + self.sender(nodes)[:, None] + between
            numbers = torch.arange(nodes.shape[1], device=index.device)
            others = objects.present[:, None] * (index[..., None] != numbers)
            heard = _sum_of_near(F.leaky_relu(messages, SLOPE), offsets.detach().square().sum(-1), others)
            return index, active, torch.cat([chosen, F.leaky_relu(self.message(heard), SLOPE)], -1)

    def _known(self, motion: Motion, objects: Objects, points: Tensor, after: Tensor) -> Tensor:
        """Return what is known of each object [N,K,D] by itself, before a step of the hand.

        `points` [N,2,TOUCHING,2] of the arm are those before and after it.
        """
        offsets = points[:, None] - motion.centres[:, :, None, None]  # [N,K,2,P,2]
        near = torch.exp(-offsets.square().sum(-1) / (2 * TOUCH**2)).flatten(2)
        shift = (points[:, 1] - points[:, 0]).mean(1)
        # as the object was turned in the observed frame, which its description is of
        back = _inverse(motion.turns)
        own_offsets = torch.einsum("nkij,nkspj->nkspi", back, offsets)
        own_shift = torch.einsum("nkij,nj->nki", back, shift)
        hands = torch.cat([shift / 4, motion.hand, after], 1)[:, None].expand(-1, near.shape[1], -1)
        turns = (motion.turns - torch.eye(2, device=after.device)).flatten(2)
        places = (motion.centres - (SIDE - 1) / 2) / (SIDE / 2)
        parts = [offsets / FAR, torch.tanh(offsets / FINE), own_offsets / FAR]
        flat = [part.flatten(2) for part in parts]
        numbers = [objects.features, turns, places, motion.moves / MOVE, *flat, near, own_shift / 4, hands]
        return torch.cat(numbers, -1)

    def _choose(self, motion: Motion, objects: Objects, points: Tensor) -> Tensor:
        """Return the numbers [N,n] of the objects nearest to the `points` [N,2,TOUCHING,2], or moving."""
        with torch.no_grad():
            offsets = motion.centres[:, :, None] - points.flatten(1, 2)[:, None]
            distances = offsets.norm(dim=3).amin(2)
            distances = distances - ROLLING * motion.moves.norm(dim=2) + (1 - objects.present) * FAR_OFF
            return distances.topk(min(ACTIVE, distances.shape[1]), 1, largest=False).indices

    def _touching(self, hand: Hand, before: Tensor, after: Tensor) -> Tensor:
        """Return the points of the arm [N,2,TOUCHING,2] that may touch objects, in two states of the hand.

        In training errors of motion do not change them: what the arm looks like teaches where they are.
        """
        points = torch.stack([hand.project(state)[:, :TOUCHING] for state in (before, after)], 1)
        return points.detach() if self.training else points

    def prior_of(self, seen: Tensor, motion: Motion) -> Gaussian:
        """Return the prior of the latents [N,K,z_dim] of a step."""
        with exact(seen):
            return _gaussian(self.prior(torch.cat([seen, motion.hidden], -1)))

    def posterior_of(self, seen: Tensor, motion: Motion, look: Tensor) -> Gaussian:
        """Return the posterior of the first n clips, of which `look` [n,EYE_CHANNELS,h,w] shows the step."""
        count = len(look)
        axis = constant((-10.0, 0.0, 10.0), look.device)
        with exact(look):
            places = motion.centres[:count, ..., None, None] + square(axis)
            looked = sample_windows(look, places).flatten(2)
            return _gaussian(self.posterior(torch.cat([seen[:count], motion.hidden[:count], looked], -1)))

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
            x = F.leaky_relu(self.embed(torch.cat([seen, z], -1)), SLOPE)
            gates = self.gates(torch.cat([x, motion.hidden], -1))
            hidden, cell = lstm_cell(gates.flatten(0, 1), motion.cell.flatten(0, 1))
            hidden = hidden.unflatten(0, present.shape)
            cell = cell.unflatten(0, present.shape)
            move, turn, gate, along = self.output(torch.cat([x, hidden], -1)).split([2, 4, 1, 1], -1)
            gate = torch.sigmoid(gate) * present[..., None]
            moves = gate * (MOVE * torch.tanh(move) + ALONG * torch.tanh(along) * push[:, None])
            turns = motion.turns + (TURN * gate * torch.tanh(turn)).unflatten(-1, (2, 2)) @ motion.turns
        return Motion(after, slips, motion.centres + moves, turns, moves, hidden, cell)


def _layers(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        leaky_linear(inputs, width), nn.LeakyReLU(SLOPE), leaky_linear(width, outputs), nn.LeakyReLU(SLOPE)
    )


def _sum_of_near(values: Tensor, squares: Tensor, present: Tensor) -> Tensor:
    """Return the sum of `values` [...,K,D] of what is `present` [...,K], the more of each the nearer it is.

    `squares` [...,K] are the squared distances.
    """
    weights = torch.exp(-squares / (2 * NEAR**2)) * present
    return (values * weights[..., None]).sum(-2)


def _latent_head(inputs: int, width: int, z_dim: int) -> nn.Sequential:
    return nn.Sequential(
        leaky_linear(inputs, width), nn.LeakyReLU(SLOPE), leaky_linear(width, 2 * z_dim, 0.1)
    )


def _gaussian(parameters: Tensor) -> Gaussian:
    mu, logvar = parameters.float().chunk(2, -1)
    return Gaussian(mu, LOGVAR * torch.tanh(logvar / LOGVAR))


def _inverse(turns: Tensor) -> Tensor:
    """Return the inverses of matrices [...,2,2], whose determinants are taken as at least 0.05."""
    a, b, c, d = turns.flatten(-2).unbind(-1)
    determinant = (a * d - b * c).clamp(min=0.05)
    return torch.stack([d, -b, -c, a], -1).unflatten(-1, (2, 2)) / determinant[..., None, None]
