"""Augmentation: frames and poses of a clip are shifted and scaled alike, as another camera would see them."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.predictor import as_images


def shift_and_scale(frames: Tensor, poses: Tensor, amounts: Tensor) -> tuple[Tensor, Tensor]:
    """Return each clip's frames and poses [B,T,C,H,W] shifted and scaled, as floats in [0,1].

    They may be uint8 or in [0,1]. `amounts` [B,2,2] holds for each clip two pairs (x, y): the logarithm of
    the factor by which everything shrinks, and twice the point that moves to the middle, in halves of the
    frame. Beyond a frame its edge is continued; beyond a pose the paper is white.
    """
    frames = as_images(frames)
    poses = as_images(poses)
    shrinking, shift = amounts.unbind(1)
    transform = torch.cat([torch.diag_embed(torch.exp(shrinking)), shift[..., None] / 2], 2)  # [B,2,3]
    transform = transform.repeat_interleave(frames.shape[1], 0)

    def move(pictures: Tensor, outside: str) -> Tensor:
        flat = pictures.flatten(0, 1)
        grid = F.affine_grid(transform, list(flat.shape), align_corners=False)
        moved = F.grid_sample(flat, grid, padding_mode=outside, align_corners=False)
        return moved.unflatten(0, pictures.shape[:2])

    return move(frames, "border"), 1 - move(1 - poses, "zeros")
