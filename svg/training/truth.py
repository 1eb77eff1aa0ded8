"""The simulator's truth about the clips of a batch, for losses that see where pushed objects go.

Labels and poses are those of ``svg-data simulate --truth``: `data_tools.truth`.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from data_tools.camera import Camera
from data_tools.truth import FIRST_OBJECT

from ..runtime import constant
from ..sequences import Batch, SequenceDataset

MOVED = 0.005
"""Metres from its place in the observed frame beyond which an object counts as pushed."""
UPRIGHT = 0.95
"""Least cosine between an object's axis and the vertical with which its turn is one about the vertical."""


class ClipTruth:
    """Labels and poses of clips, read from disk. Raises `InputError` for a data set without truth."""

    def __init__(self, dataset: SequenceDataset):
        self._dataset = dataset
        dataset.truth(0, 0, 1)

    def of(self, clips: Sequence[tuple[int, ...]]) -> Batch:
        """Return ``{"labels": uint8 [B,T,H,W], "poses": float32 [B,T,N,7]}`` of clips (sequence, start)."""
        length = self._dataset.clip_length
        truths = [self._dataset.truth(number, start, start + length) for number, start, *_ in clips]
        labels = np.stack([truth.segmentation for truth in truths])
        poses = np.stack([truth.padded_poses() for truth in truths])
        return {"labels": torch.from_numpy(labels), "poses": torch.from_numpy(poses)}


def observed_before(values: Tensor, n_past: int) -> Tensor:
    """Return for each frame after the first the values of the last frame observed before it, [B,T,...]."""
    last = values[:, n_past - 1 : n_past]
    return torch.cat([values[:, : n_past - 1], last.expand(-1, values.shape[1] - n_past, *last.shape[2:])], 1)


def is_pushed(labels: Tensor, poses: Tensor, observed: Tensor) -> Tensor:
    """Return which pixels [B,K,H,W] show an object that is not where it was in the observed frame.

    `labels` [B,K,H,W] and `poses` [B,K,N,7] are those of the frames, `observed` the poses before.
    """
    return (labels >= FIRST_OBJECT) & _at_pixels(has_moved(poses, observed), labels)


def has_moved(poses: Tensor, observed: Tensor) -> Tensor:
    """Return which objects [...] with `poses` [...,7] are not where they were in the observed frame."""
    return (poses[..., :2] - observed[..., :2]).norm(dim=-1) > MOVED


def turns_since(poses: Tensor, observed: Tensor) -> Tensor:
    """Return by how much objects have turned about the vertical since the observed frame, radians [...].

    0 for one that does not stand upright in both: what rolls shows another side anyway.
    """
    turn = _headings(poses) - _headings(observed)
    return torch.where(_is_upright(poses) & _is_upright(observed), turn, 0.0)


def project(places: Tensor, height: int, width: int) -> Tensor:
    """Return where `places` [...,3], metres, appear in simulated pictures of this size, pixels [...,2]."""
    numbers = tuple(map(tuple, Camera().matrix(height, width).tolist()))
    matrix = constant(numbers, places.device, places.dtype)
    projected = places @ matrix[:, :3].T + matrix[:, 3]
    return projected[..., :2] / projected[..., 2:]


def true_places(labels: Tensor, poses: Tensor, observed: Tensor) -> Tensor:
    """Return from where in the observed frame each pixel of an object comes, [B,K,2,H,W].

    Offsets to the right and down in pixels; those of other pixels mean nothing. Arguments as of `is_pushed`.
    An object is taken as flat at the height of its centre: it moves with it, and turns with it as long as it
    stays upright. (What rolls shows another side anyway.)
    """
    height, width = labels.shape[-2:]
    centre = [_at_pixels(poses[..., axis], labels) for axis in range(3)]
    origin = torch.stack([_at_pixels(observed[..., axis], labels) for axis in range(3)], -1)
    angle = -_at_pixels(turns_since(poses, observed), labels)
    camera = constant(tuple(Camera().position), poses.device, poses.dtype)
    rays = _rays(height, width, poses.device, poses.dtype)
    points = camera + ((centre[2] - camera[2]) / rays[..., 2])[..., None] * rays  # [B,K,H,W,3]
    right, away = points[..., 0] - centre[0], points[..., 1] - centre[1]
    cosine, sine = torch.cos(angle), torch.sin(angle)
    turned = torch.stack([cosine * right - sine * away, sine * right + cosine * away, 0 * right], -1)
    pixels = project(origin + turned, height, width)
    axes = (torch.arange(count, device=poses.device, dtype=poses.dtype) for count in (width, height))
    own = torch.stack(torch.meshgrid(*axes, indexing="xy"), -1)
    return (pixels - own).movedim(-1, 2)


def _at_pixels(values: Tensor, labels: Tensor) -> Tensor:
    """Return the value of the object at each pixel, [B,K,N] -> [B,K,H,W]; of other pixels that of any one."""
    objects = (labels.long() - FIRST_OBJECT).clamp(min=0)
    return values.gather(2, objects.flatten(2)).view(labels.shape)


def _headings(poses: Tensor) -> Tensor:
    """Return the angles about the vertical [...] of poses [...,7], radians."""
    w, x, y, z = poses[..., 3:].unbind(-1)
    return torch.atan2(2 * (w * z + x * y), 1 - 2 * (y**2 + z**2))


def _is_upright(poses: Tensor) -> Tensor:
    """Return whether objects stand on what they began to stand on, or upside down."""
    x, y = poses[..., 4], poses[..., 5]
    return (1 - 2 * (x**2 + y**2)).abs() > UPRIGHT


@lru_cache(maxsize=4)
def _rays(height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the direction from the camera through each pixel, [H,W,3]."""
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
    rays = Camera().unproject(pixels, height, width) - np.array(Camera().position)
    with torch.inference_mode(False):
        return torch.from_numpy(rays).to(device, dtype)
