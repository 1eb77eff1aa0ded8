"""Training clips as another camera would have seen them: frames and poses of a clip are shifted and scaled alike."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.predictor import as_images


def shift_and_scale(frames: Tensor, poses: Tensor, amounts: Tensor) -> tuple[Tensor, Tensor]:
    """Shifts and scales each clip: frames and poses [B,T,C,H,W], uint8 or in [0,1], come back as floats in [0,1].

    `amounts` [B,2,2] are, for each clip and along (x, y), the logarithm of how much smaller everything becomes, and twice the place
    that comes to the middle, in halves of the frame. What lies outside of a frame continues its edge; outside of a pose there is
    empty paper.
    """
    frames, poses = as_images(frames), as_images(poses)
    shrinking, shift = amounts.unbind(1)
    transform = torch.cat([torch.diag_embed(torch.exp(shrinking)), shift[..., None] / 2], 2)  # [B,2,3]
    transform = transform.repeat_interleave(frames.shape[1], 0)

    def move(pictures: Tensor, outside: str) -> Tensor:
        flat = pictures.flatten(0, 1)
        grid = F.affine_grid(transform, list(flat.shape), align_corners=False)
        return F.grid_sample(flat, grid, padding_mode=outside, align_corners=False).unflatten(
            0, pictures.shape[:2]
        )

    return move(frames, "border"), 1 - move(1 - poses, "zeros")
