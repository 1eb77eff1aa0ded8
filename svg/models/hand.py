"""The robot's hand: where it goes, which follows from the actions, and where that is in the picture.

Its numbers are computed in float32 at every precision: a hundredth of the table's width is a pixel.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

from .grid import SIDE, cell_centres
from .layers import leaky_linear, learn_faster, output_layer
from .sprites import PARTS, Sprites, put_together

EXTRA = 4
"""Numbers of the hand's state beside its position, such as how far the fingers are open."""
POINTS = 2 * PARTS
"""Points of the arm whose places in the picture are learned, two for each part."""
LIGHT = 16
"""Numbers that describe a scene as a whole, such as its light: where a shadow falls depends on them."""
HIDDEN = 64
NEAR, MIDDLE, FAR = 2.5, 8.0, 24.0
"""Distances over which the maps of offsets tell places apart."""
SPREAD = 6.0
"""Standard deviation of the Gaussians about the points."""
UNIT = 100.0
"""Unit of learned places and velocities: a step of the optimiser moves them by as much as they need."""
PACE, SPRITES_PACE = 2.0, 6.0
"""The arm and its shadow look alike in all scenes: their places and pictures are learned at so many times the
learning rate."""
LEAST_DEPTH = 0.2
"""Least depth of a point, as a share of the mean one."""
STIFF = 5.0
"""Distance from a point within which all moves with it rather than with the next one."""
FIT_STEPS = 2000
FIT_FRAMES = 12
FIT_BATCH = 128
FIT_RATE = 0.01
ROBUST = 0.01
"""Error, in standard deviations of a position, from which on its absolute value counts: a hand that is jammed
now and then does not bend the motion of all others."""


class Integrator(nn.Module):
    """The motion of the hand, ``position[t+1] = position[t] + linear(action) + bend(action, position)``.

    All is in standard deviations. It is fitted to the recorded positions once, before the training (`fit`),
    and no optimiser changes it.
    """

    def __init__(self, actions: int, positions: int):
        super().__init__()
        inputs = actions + positions
        self.straight = nn.Parameter(torch.zeros(positions, actions), requires_grad=False)
        self.drift = nn.Parameter(torch.zeros(positions), requires_grad=False)
        self.bend_in = nn.Parameter(torch.randn(HIDDEN, inputs) / inputs**0.5, requires_grad=False)
        self.bend_bias = nn.Parameter(torch.zeros(HIDDEN), requires_grad=False)
        self.bend_out = nn.Parameter(torch.zeros(positions, HIDDEN), requires_grad=False)

    def forward(self, position: Tensor, action: Tensor) -> Tensor:
        """Return the positions [...,P] after `action` [...,A]."""
        hidden = F.leaky_relu(F.linear(torch.cat([action, position], -1), self.bend_in, self.bend_bias), 0.1)
        return position + F.linear(action, self.straight, self.drift) + F.linear(hidden, self.bend_out)

    @torch.enable_grad()
    def fit(self, actions: Tensor, positions: Tensor, generator: torch.Generator) -> None:
        """Fit the motion to recordings, standardised `actions` [N,T,A] and `positions` [N,T,P], T >= 3.

        The linear part is that of least absolute errors, by iterated reweighting of least squares; the rest
        is fitted by Adam to what `FIT_FRAMES` steps in a row add up to.
        """
        moves = positions.diff(dim=1).flatten(0, 1)
        inputs = F.pad(actions[:, :-1], (0, 1), value=1.0).flatten(0, 1)
        weights = torch.ones_like(moves)
        for _ in range(6):
            columns = [_weighted_least_squares(inputs, y, w) for y, w in zip(moves.T, weights.T, strict=True)]
            solution = torch.stack(columns, 1)
            weights = 1 / ((inputs @ solution - moves).abs() + ROBUST / 3)
        self.straight.data.copy_(solution[:-1].T)
        self.drift.data.copy_(solution[-1])
        bend = [self.bend_in, self.bend_bias, self.bend_out]
        for parameter in bend:
            parameter.requires_grad_(True)
        optimizer = torch.optim.Adam(bend, FIT_RATE)
        frames = min(FIT_FRAMES, positions.shape[1])
        for step in range(FIT_STEPS):
            optimizer.param_groups[0]["lr"] = FIT_RATE * min(1, step / 50) * (1 - step / FIT_STEPS)
            number = torch.randint(len(positions), (FIT_BATCH,), generator=generator)
            start = int(torch.randint(positions.shape[1] - frames + 1, (), generator=generator))
            now = slice(start, start + frames)
            loss = self._error(actions[number, now], positions[number, now])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        for parameter in bend:
            parameter.requires_grad_(False)
            parameter.grad = None

    def _error(self, actions: Tensor, positions: Tensor) -> Tensor:
        """Return the error of all steps but the first from the second frame on."""
        place = positions[:, 1]
        places = []
        for action in actions[:, 1:-1].unbind(1):
            place = self(place, action)
            places.append(place)
        return F.smooth_l1_loss(torch.stack(places, 1), positions[:, 2:], beta=ROBUST)


class Hand(nn.Module):
    """The state of the hand over time [...,state], and where and what the arm is in the picture.

    The state is the position, standardised, and `EXTRA` numbers that the last actions decide.
    """

    is_exact = True

    def __init__(self, actions: int, positions: int, channels: int, image_width: int):
        super().__init__()
        self.positions = positions
        self.size = positions + EXTRA
        self.integrator = Integrator(actions, positions)
        self.first_extra = leaky_linear(actions, EXTRA)
        self.next_extra = leaky_linear(EXTRA + actions, EXTRA)
        self.places = nn.Linear(self.size, 2 * POINTS)
        self.depth = skip_init(nn.Linear, positions, POINTS, bias=False)
        self.bend = nn.Sequential(
            leaky_linear(self.size, 32), nn.Tanh(), output_layer(leaky_linear(32, 2 * POINTS, 1 / UNIT))
        )
        self.shadow_places = nn.Linear(self.size, 2 * PARTS)
        self.shadow_depth = skip_init(nn.Linear, positions, PARTS, bias=False)
        self.shadow_bend = nn.Sequential(
            leaky_linear(self.size + LIGHT, 32),
            nn.Tanh(),
            output_layer(leaky_linear(32, 2 * PARTS, 1 / UNIT)),
        )
        self.arm = Sprites(self.size + LIGHT, channels, image_width)
        self.shadow = Sprites(self.size + LIGHT, 0, image_width)
        self.darkness = nn.Linear(LIGHT, 1)
        self.velocity = nn.Linear(positions, 2, bias=False)
        self._spread_points()
        learn_faster(self, PACE)
        for sprites in (self.arm, self.shadow):
            learn_faster(sprites, SPRITES_PACE)

    @torch.no_grad()
    def _spread_points(self) -> None:
        """Begin with points one above the other that follow the first two positions.

        They are taken as distances to the right and away from the camera; training corrects that.
        """
        right, down = 14 / UNIT, -10 / UNIT  # for a standard deviation of each position
        for places in (self.places, self.shadow_places):
            nn.init.normal_(places.weight, 0, 0.1 / UNIT)
            nn.init.normal_(places.bias, 0, 3 / UNIT)
            places.bias[0::2] += (SIDE - 1) / 2 / UNIT
            places.bias[1::2] += torch.linspace(30, 0, len(places.bias) // 2) / UNIT
            if self.positions >= 2:
                places.weight[0::2, 0] += right
                places.weight[1::2, 1] += down
        for weights in (self.depth.weight, self.shadow_depth.weight, self.velocity.weight):
            nn.init.zeros_(weights)
        if self.positions >= 2:
            self.velocity.weight[0, 0] = right
            self.velocity.weight[1, 1] = down

    def observed(self, actions: Tensor, positions: Tensor) -> Tensor:
        """Return the states [B,n,state] of n observed frames, `positions` [B,n,P].

        `actions` [B,>=n-1,A] are those from the first of these frames on.
        """
        if actions.shape[1]:
            extra = torch.tanh(self.first_extra(actions[:, 0]))
        else:
            extra = positions.new_zeros(len(positions), EXTRA)
        states = [torch.cat([positions[:, 0], extra], -1)]
        for time in range(1, positions.shape[1]):
            extra = self._next(extra, actions[:, time - 1])
            states.append(torch.cat([positions[:, time], extra], -1))
        return torch.stack(states, 1)

    def next(self, state: Tensor, action: Tensor) -> Tensor:
        """Return the state [N,state] after `action` [N,A] in `state`, if nothing is in the way."""
        position, extra = state.split([self.positions, EXTRA], -1)
        return torch.cat([self.integrator(position, action), self._next(extra, action)], -1)

    def _next(self, extra: Tensor, action: Tensor) -> Tensor:
        return torch.tanh(self.next_extra(torch.cat([extra, action], -1)))

    def project(self, states: Tensor) -> Tensor:
        """Return where the points of the arm are in the picture, [...,POINTS,2], to the right and down."""
        return self._in_picture(self.places(states) + self.bend(states), self.depth, states)

    def _in_picture(self, places: Tensor, depth: nn.Linear, states: Tensor) -> Tensor:
        """Return places [...,2*n] in the picture, [...,n,2], by the `depth` of each in `states`.

        What moves with the hand appears in a pinhole camera at a linear function of its position over
        another one (Hartley & Zisserman 2004, eq. 6.2), and so does its shadow on the table.
        """
        depths = (1 + depth(states[..., : self.positions])).clamp(min=LEAST_DEPTH)
        return UNIT * places.unflatten(-1, (-1, 2)) / depths[..., None]

    def draw(self, states: Tensor, light: Tensor, cells: int) -> tuple[Tensor, Tensor]:
        """Return the arm's colours [N,C,cells,cells] and mask [N,1,cells,cells] under `light` [N,LIGHT]."""
        places = self.project(states).unflatten(-2, (PARTS, 2)).mean(2)
        return put_together(*self.arm(places, torch.cat([states, light], 1), cells))

    def shade(self, states: Tensor, light: Tensor, cells: int) -> tuple[Tensor, Tensor]:
        """Return the factor in the arm's shadow and where it falls, both [N,1,cells,cells]."""
        numbers = torch.cat([states, light], 1)
        flat = self.shadow_places(states) + self.shadow_bend(numbers)
        places = self._in_picture(flat, self.shadow_depth, states)
        mask = put_together(*self.shadow(places, numbers, cells))[1]
        return 1 - torch.sigmoid(self.darkness(light))[..., None, None] * mask, mask

    @property
    def reach(self) -> Tensor:
        """Return how far the fingers move in the picture for a standard deviation of each position, [P]."""
        fingers = 2  # points, each right and down
        weight = self.places.weight[: 2 * fingers, : self.positions].detach()
        place = self.places.bias[: 2 * fingers].detach()
        depth = self.depth.weight[:fingers].detach().repeat_interleave(2, 0)
        return UNIT * (weight - place[:, None] * depth).norm(dim=0) / fingers**0.5

    def moves(self, states: Tensor) -> Tensor:
        """Return how far the hand moves in the picture [...,T-1,2] from each of `states` [...,T,state]."""
        return UNIT * self.velocity(states[..., : self.positions].diff(dim=-2))


MAPS = 7 * POINTS
"""Channels of `offset_maps`."""


def offset_maps(points: Tensor, cells: int) -> Tensor:
    """Return what tells each cell where `points` [N,P,2] are, [N,7*P,cells,cells].

    Offsets to the cell through tanh over three distances, and a Gaussian about each point.
    """
    # made with the channels last, as the convolutions want them
    offsets = cell_centres(cells, points.device).movedim(0, -1)[:, :, None] - points[:, None, None]
    near = torch.exp(-(offsets**2).sum(-1, keepdim=True) / (2 * SPREAD**2))
    maps = [torch.tanh(offsets / scale) for scale in (NEAR, MIDDLE, FAR)]
    return torch.cat([*maps, near], -1).flatten(3).movedim(-1, 1)


def carried_from(points: Tensor, origins: Tensor, cells: int) -> Tensor:
    """Return from where each cell has been carried [N,2,cells,cells] by points that moved.

    They were at `origins` [N,P,2] and are at `points` now. A cell moves as the points about it do, the nearer
    the more. This is smooth, and computed at half the resolution.
    """
    x, y = cell_centres(cells // 2, points.device).flatten(1)
    basis = torch.stack([x, y, torch.ones_like(x)])
    # what distances from all points have in common does not change the softmax
    form = torch.cat([2 * points, -(points**2).sum(2, keepdim=True)], 2) / (2 * STIFF**2)
    shares = torch.softmax(form @ basis, 1)
    moves = ((origins - points).transpose(1, 2) @ shares).unflatten(2, (cells // 2, cells // 2))
    moves = F.interpolate(moves, scale_factor=2, mode="bilinear", align_corners=False)
    return cell_centres(cells, points.device) + moves


def _weighted_least_squares(inputs: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return the coefficients [D] of `inputs` [N,D] for `target` [N] with `weights` [N]."""
    root = weights.sqrt()
    # a column that never changes leaves the solution open; the ridge makes it the smallest
    scaled = inputs * root[:, None]
    gram = scaled.T @ scaled
    ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device)
    return torch.linalg.solve(gram + ridge, scaled.T @ (target * root))
