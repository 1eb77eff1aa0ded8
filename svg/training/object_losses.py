"""What the simulator's truth teaches the model objects: where objects are, what they hide, how they move."""

import torch
from torch import Tensor
from torch.nn import functional as F

from data_tools.truth import ARM, FIRST_OBJECT, SHADOW, STILL

from ..models.grid import SIDE, cell_centres
from ..models.object_predictor import Tracks
from ..runtime import constant
from .truth import has_moved, project, turns_since

VISIBLE = 8.0
"""Least area of a visible object, in units of `SIDE`."""
MATCHED = 4.0
"""Distance within which an object that was found is a true one."""
PEAK = 2.5
"""Standard deviation of the peaks at centres."""
ARM_LENGTH = 0.03
"""Metres from an object's centre to the two further points whose motion is compared."""
SIDES = ((0.02, 0.01), (0.03, 0.12), (0.036, 0.27))
"""(distance to the side, height above the fingertips) of pairs of points of the hand, metres."""
WRIST = 0.33
SHOULDER = (0.0, 0.95, 0.62)
FOREARM = (0.12, 0.35)
"""Where the simulated forearm begins above the fingertips, the shoulder, and points from there on, metres."""
NEAR_OBJECT = 13
"""Width of the surroundings of an object, in pixels, in which shade may be its own."""
ARM_WEIGHT = 5.0
VOTE, TABLE, PUSHED = 0.3, 10.0, 3.0
"""Weights of votes and of the table with its shade, beside outlines and centres; of pushed objects, beside
still ones."""


def tracks_errors(
    tracks: Tracks, frames: Tensor, labels: Tensor, poses: Tensor, n_past: int
) -> tuple[Tensor, Tensor]:
    """Return the errors of the scene in the observed frame, and of the objects' motion in units of `SIDE`.

    `frames` [b,T,C,H,W] in [0,1] are those of the first clips, which were drawn; the former counts in them.
    `labels` [B,T,H,W] and `poses` [B,T,N,7] are those of all.
    """
    points = material_points(poses[:, n_past - 1 :], poses[:, n_past - 1])
    centres = points[:, 0, :, 0]
    observed = labels[:, n_past - 1]
    visible = _areas(observed, poses.shape[2]) * (SIDE / labels.shape[-1]) ** 2 >= VISIBLE
    rows = len(frames)
    scene = _scene_error(tracks, observed[:rows], centres[:rows], visible[:rows])
    scene = scene + TABLE * _table_error(tracks, frames, labels[:rows], n_past)
    moved = has_moved(poses[:, n_past:], poses[:, n_past - 1, None])
    return scene, _motion_error(tracks, points, visible, moved)


def arm_error(tracks: Tracks, labels: Tensor) -> Tensor:
    """Return the squared error of what shows the arm and its shadow in drawn frames, `labels` [B,n,H,W].

    A shadow near an object may be the object's, and what hides the table hides the shadow on it: there the
    shadow may be as it likes.
    """
    arm = (tracks.arm[:, :, 0] - (labels == ARM).float()) ** 2
    objects = F.max_pool2d((labels >= FIRST_OBJECT).float(), NEAR_OBJECT, 1, NEAR_OBJECT // 2)
    is_known = (labels != ARM) * (1 - objects)
    shadow = is_known * (tracks.shadow[:, :, 0] - (labels == SHADOW).float()) ** 2
    return ARM_WEIGHT * (arm + shadow).mean()


def points_error(tracks: Tracks, conditions: Tensor) -> Tensor:
    """Return the error of the arm's points, in units of `SIDE`; `conditions` [B,T,D] end with x, y, z."""
    target = project(arm_points(conditions[..., -3:]), SIDE, SIDE)
    return F.smooth_l1_loss(tracks.points, target, beta=2.0)


def hand_error(tracks: Tracks) -> Tensor:
    """Return the error of the hand's places, in units of `SIDE`."""
    return F.smooth_l1_loss(tracks.slips, torch.zeros_like(tracks.slips), beta=2.0)


def arm_points(positions: Tensor) -> Tensor:
    """Return places [...,POINTS,3] on the simulated arm, metres, with the hand at `positions` [...,3].

    Three pairs of points at the sides of fingers, wrist and upper wrist, and two on the forearm, which lies
    on the line to the shoulder (`data_tools.simulators.pusher`).
    """
    sides = tuple((side * x, 0.0, z) for x, z in SIDES for side in (1, -1))
    hand = positions[..., None, :] + constant(sides, positions.device)
    wrist = positions + constant((0.0, 0.0, WRIST), positions.device)
    way = F.normalize(constant(SHOULDER, positions.device) - wrist, dim=-1)
    forearm = torch.stack([wrist + length * way for length in FOREARM], -2)
    return torch.cat([hand, forearm], -2)


def material_points(poses: Tensor, observed: Tensor) -> Tensor:
    """Return where three points of each object appear, [B,F,N,3,2] in units of `SIDE`.

    They are its centre and two that stand off from it at right angles, the same points of the object in every
    frame: it moves and turns about the vertical from `observed` [B,N,7] to `poses` [B,F,N,7]. As long as it
    does not stand upright in both, it is taken as not turned (what rolls shows another side anyway).
    """
    turn = turns_since(poses, observed[:, None])
    cosine, sine = ARM_LENGTH * torch.cos(turn), ARM_LENGTH * torch.sin(turn)
    nothing = torch.zeros_like(turn)
    offsets = [(nothing, nothing), (cosine, sine), (-sine, cosine)]
    places = torch.stack([torch.stack([x, y, nothing], -1) for x, y in offsets], 3) + poses[..., None, :3]
    return project(places, SIDE, SIDE)


def _areas(labels: Tensor, count: int) -> Tensor:
    """Return the visible pixels of each of `count` objects [B,N]."""
    counts = labels.new_zeros(len(labels), 256, dtype=torch.int32)
    ones = torch.ones_like(labels, dtype=torch.int32).flatten(1)
    counts.scatter_add_(1, labels.flatten(1).long(), ones)
    return counts[:, FIRST_OBJECT : FIRST_OBJECT + count]


def _scene_error(tracks: Tracks, labels: Tensor, centres: Tensor, visible: Tensor) -> Tensor:
    """Return the error of outlines, also of the arm, votes and centres in the observed frame."""
    layers = tracks.layers
    is_object = labels >= FIRST_OBJECT
    outline = F.binary_cross_entropy_with_logits(layers.outline[:, 0], is_object.float())
    arm = F.binary_cross_entropy_with_logits(layers.arm[:, 0], (labels == ARM).float())
    objects = (labels.long() - FIRST_OBJECT).clamp(min=0)
    target = centres.gather(1, objects.flatten(1)[..., None].expand(-1, -1, 2))
    target = target.transpose(1, 2).unflatten(2, labels.shape[1:])
    votes = F.smooth_l1_loss(layers.pointed, target, reduction="none").mean(1)
    votes = (votes * is_object).sum() / is_object.sum().clamp(min=1)
    cells = cell_centres(tracks.centre_logits.shape[-1], labels.device)
    distances = ((cells - centres[..., None, None]) ** 2).sum(2)
    peaks = (torch.exp(-distances / (2 * PEAK**2)) * visible[..., None, None]).amax(1)
    heights = F.binary_cross_entropy_with_logits(tracks.centre_logits[:, 0], peaks)
    return outline + arm + VOTE * votes + heights


def _table_error(tracks: Tracks, frames: Tensor, labels: Tensor, n_past: int) -> Tensor:
    """Return the squared errors of the table, where any frame of the clip shows it, and of the shade on it.

    The shade is that of the observed frame: how much darker it is than the table. Below the arm it is to be
    none, since what is carried with the shadow would darken the edges of the arm, and none is an object's far
    from objects.
    """
    is_still = labels == STILL
    count = is_still.sum(1)
    mean = (frames * is_still[:, :, None]).sum(1) / count[:, None].clamp(min=1)
    layers = tracks.layers
    errors = ((layers.table - mean) ** 2).mean(1)
    observed = labels[:, n_past - 1]
    darkness = (frames[:, n_past - 1].mean(1) / mean.mean(1).clamp(min=0.05)).clamp(0, 1)
    darkness = torch.where(observed == ARM, 1.0, darkness)
    shade = (layers.shade * layers.arm_shade)[:, 0]
    errors = errors + (observed < FIRST_OBJECT) * (shade - darkness) ** 2
    objects = F.max_pool2d((observed >= FIRST_OBJECT).float(), NEAR_OBJECT, 1, NEAR_OBJECT // 2)
    errors = errors + (1 - objects) * (layers.shade[:, 0] - 1) ** 2
    return (errors * (count > 0)).mean()


def _motion_error(tracks: Tracks, points: Tensor, visible: Tensor, moved: Tensor) -> Tensor:
    """Return the error of the points' places [B,F+1,N,3,2] of those objects that were found."""
    distances = torch.cdist(tracks.first, points[:, 0, :, 0])
    unlike = ~visible[:, None] | (tracks.present[..., None] == 0)
    nearest, number = torch.where(unlike, torch.inf, distances).min(2)  # [B,K]
    index = number[:, None, :, None, None].expand(-1, points.shape[1], -1, 3, 2)
    matched = points.gather(2, index)
    turned = torch.einsum("bfkij,bkpj->bfkpi", tracks.turns, matched[:, 0] - tracks.first[:, :, None])
    places = tracks.centres[:, :, :, None] + turned
    errors = F.smooth_l1_loss(places, matched[:, 1:], reduction="none", beta=2.0).mean((3, 4))
    is_moved = moved.gather(2, number[:, None].expand(-1, moved.shape[1], -1))
    weights = (nearest < MATCHED)[:, None] * torch.where(is_moved, PUSHED, 1.0)
    return (errors * weights).sum() / weights.sum().clamp(min=1)
