"""Shifted and scaled clips: by whole pixels against slices, by any amount against where things are."""

import dataclasses

import numpy as np
import pytest
import torch

from svg.config import Config, DataConfig, ModelConfig, TrainConfig
from svg.training.augmentation import shift_and_scale
from svg.training.loop import Training
from tests.support.samples import walking_block


def clip(frames: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    pictures = walking_block(np.random.default_rng(0), frames)
    return tuple(torch.from_numpy(some).permute(0, 3, 1, 2)[None] for some in pictures)


def test_nothing_changes_without_an_amount():
    frames, poses = clip()
    moved = shift_and_scale(frames, poses, torch.zeros(1, 2, 2))
    torch.testing.assert_close(moved[0], frames.float() / 255, atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[1], poses.float() / 255, atol=1e-5, rtol=0)


def test_a_shift_by_whole_pixels():
    """The point that moves to the middle lies 5 of 32 columns to the right and 2 of 16 rows below."""
    frames, poses = clip()
    amounts = torch.tensor([[[0.0, 0.0], [2 * 10 / 32, 2 * 4 / 16]]])
    moved, skeleton = shift_and_scale(frames, poses, amounts)
    true, pose = frames.float() / 255, poses.float() / 255
    torch.testing.assert_close(moved[..., :14, :27], true[..., 2:, 5:], atol=1e-4, rtol=0)
    torch.testing.assert_close(skeleton[..., :14, :27], pose[..., 2:, 5:], atol=1e-4, rtol=0)
    torch.testing.assert_close(
        moved[..., :14, 28:], true[..., 2:, 31:].expand(-1, -1, -1, -1, 4), atol=1e-4, rtol=0
    )  # the edge
    assert (skeleton[..., :, 28:] > 0.999).all()  # empty paper


@pytest.mark.parametrize("seed", range(5))
def test_poses_stay_with_their_frames(seed):
    frames, poses = clip()
    amounts = 0.3 * (2 * torch.rand(1, 2, 2, generator=torch.Generator().manual_seed(seed)) - 1)
    moved, skeleton = shift_and_scale(frames, poses, amounts)
    place = torch.arange(32.0)
    for time in range(3):
        block = (frames[0, time, 0].max() / 255 - moved[0, time, 0]).clamp(min=0).sum(0)
        line = (1 - skeleton[0, time, 1]).sum(0)
        centre = [float((weights * place).sum() / weights.sum()) for weights in (block, line)]
        assert (
            abs(centre[0] + 0.5 * np.exp(-float(amounts[0, 0, 0])) - centre[1]) < 0.6
        )  # the line is right of the middle


def test_each_clip_has_its_own_amount_and_keeps_it():
    frames, poses = (torch.cat([some, some]) for some in clip())
    amounts = torch.zeros(2, 2, 2)
    amounts[1] = 0.2
    moved, _ = shift_and_scale(frames, poses, amounts)
    torch.testing.assert_close(moved[0], frames[0].float() / 255, atol=1e-5, rtol=0)
    still = frames[:, :1].expand_as(frames)
    again, _ = shift_and_scale(still, poses, amounts)
    assert torch.equal(again[1, 0], again[1, 2]) and not torch.allclose(again[1, 0], again[0, 0])


def test_training_augments_and_is_repeatable(pose_root, tmp_path):
    """Of two runs with the same seed the losses agree; without augmentation they differ."""
    config = Config(
        DataConfig(data_root=str(pose_root), n_past=1, n_future=3, n_eval=6, augment=0.3),
        ModelConfig(
            model="pose_cvae",
            image_width=32,
            levels=3,
            g_dim=16,
            pose_dim=8,
            z_dim=3,
            fusion_dim=16,
            norm="group",
        ),
        TrainConfig(batch_size=2, niter=1, epoch_size=3, precision="float32", device="cpu"),
    )
    losses = []
    for name, strength in (("a", 0.3), ("b", 0.3), ("c", 0.0)):
        run = dataclasses.replace(config.train, log_dir=str(tmp_path / name))
        training = Training(
            dataclasses.replace(config, data=dataclasses.replace(config.data, augment=strength), train=run)
        )
        batch = training.batches.from_disk[0]
        losses.append(training.learner.step(0, [batch], 0.001, 1e-4, 1.0).losses)
    assert losses[0] == losses[1] != losses[2]
