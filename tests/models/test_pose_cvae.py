"""The predictor of persons: its sizes, what depends on what, and its place in training."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from svg.config import Config, DataConfig, ModelConfig, TrainConfig
from svg.models import pose_cvae
from svg.models.build import make_model
from svg.models.freezing import freeze
from svg.models.layers import fold_norm
from svg.models.pose_cvae import Join, PoseCVAE
from svg.runs.checkpoint import load_config, load_model
from svg.runs.metrics_log import read_metrics
from svg.training.loop import Training
from svg.training.losses import kl_divergence

SIZES = {
    "model": "pose_cvae", "image_width": 32, "image_height": 16, "condition_dim": 3, "g_dim": 16,
    "pose_dim": 8, "z_dim": 3, "fusion_dim": 16, "levels": 3,
}  # fmt: skip


def small(**changes) -> PoseCVAE:
    """Return a small untrained model with weights that are large enough to make differences visible."""
    torch.manual_seed(0)
    model = make_model(ModelConfig(**SIZES | {"norm": "group", "anchor": True, "blend": True} | changes))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, 0, 1.5 / parameter[0].numel() ** 0.5)
    return model.eval()


def clip(frames: int = 6, batch: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randint(0, 256, (batch, frames, 3, 16, 32), dtype=torch.uint8, generator=generator)
        for _ in range(2)
    )


def noise_for(model: PoseCVAE, *shape: int, seed: int = 5) -> torch.Tensor:
    return torch.randn(*shape, *model.latent_shape, generator=torch.Generator().manual_seed(seed))


def test_published_channels():
    """Check the course's sizes: frame encoder 128, pose encoder 32, full-size latent 12, fusion 192."""
    config = ModelConfig(model="pose_cvae", z_dim=12, image_height=32, condition_dim=3)
    Config(DataConfig(n_past=1), config)  # raises for what cannot be
    with torch.device("meta"):
        model = make_model(config)
    assert model.latent_shape == (12, 32, 64)
    assert [stage[-1][0].out_channels for stage in model.frame_encoder.stages] == [16, 32, 64, 128]
    assert model.pose_encoder.stages[-1][-1][0].out_channels == 32
    assert model.gaussian[0][0].in_channels == 128 + 32 and model.gaussian[-1].out_channels == 24
    assert [join.moving.out_channels for join in reversed(model.joins)] == [192, 96, 48, 24]
    assert model.joins[-1].moving.in_channels == 12 + 128 and model.joins[-1].pose.in_channels == 32
    assert model.output.out_channels == 3


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_shapes(levels):
    model = small(levels=levels)
    frames, poses = clip()
    grid = (16 // 2 ** (levels - 1), 32 // 2 ** (levels - 1))
    assert model.latent_shape == (3, *grid)
    rollout = model(frames, poses, 1, noise=noise_for(model, 2, 5))
    assert rollout.frames.shape == (2, 5, 3, 16, 32) and rollout.frames.dtype == torch.float32
    assert rollout.posterior.mu.shape == rollout.prior.logvar.shape == (2, 5, 3, *grid)
    assert (rollout.frames >= 0).all() and (rollout.frames <= 1).all()
    assert not rollout.prior.mu.any() and not rollout.prior.logvar.any()  # N(0, I)
    assert model.predict(frames[:, :1], poses, 5, n_samples=4).shape == (4, 2, 5, 3, 16, 32)


@pytest.mark.parametrize("anchor", [False, True])
def test_a_join_is_one_convolution_over_everything(anchor):
    torch.manual_seed(1)
    join = Join(4, 6, 5, 7, "batch", anchor)
    below, frame, pose, first = (torch.randn(3, channels, 8, 8) for channels in (4, 6, 5, 6))
    parts, weights = [below, frame, pose], [join.moving.weight, join.pose.weight]
    if anchor:
        parts, weights = [*parts, first], [*weights, join.anchor.weight]
    expected = F.conv2d(torch.cat(parts, 1), torch.cat(weights, 1), join.pose.bias, padding=1)
    expected = F.leaky_relu(join.norm.eval()(expected), 0.2)
    term = join.term(pose[:, None], first if anchor else None)[:, 0]
    torch.testing.assert_close(join.eval()(below, frame, term), expected, atol=1e-5, rtol=1e-5)


def test_teacher_forcing_draws_each_frame_from_the_true_one_before():
    model = small()
    frames, poses = clip()
    noise = noise_for(model, 2, 5)
    together = model(frames, poses, 1, teacher_forcing=True, noise=noise)
    for step in range(5):
        # a clip of two frames, with the anchor of the whole clip
        scene = dataclasses.replace(model.observe(frames[:, :1], None), frame=frames[:, step].float() / 255)
        z = together.posterior[:, step : step + 1].sample(noise[:, step : step + 1])[:, None]
        alone, _ = model.advance(scene, poses[:, step : step + 1], z)
        torch.testing.assert_close(together.frames[:, step], alone[0][:, 0], atol=1e-5, rtol=1e-5)


def test_free_running_draws_from_its_own_frames():
    model = small()
    frames, poses = clip()
    rollout = model(frames, poses, 1, noise=None)
    imagined, _ = model.advance(model.observe(frames[:, :1], None), poses, rollout.posterior.mu[:, None])
    torch.testing.assert_close(rollout.frames, imagined[0], atol=1e-5, rtol=1e-5)
    other = frames.clone()
    other[:, 1:] = 255 - other[:, 1:]
    same_latent, _ = model.advance(model.observe(other[:, :1], None), poses, rollout.posterior.mu[:, None])
    torch.testing.assert_close(same_latent, imagined)


def test_several_given_frames():
    """Frames after the last given one are drawn from it, earlier ones from the true frame before each."""
    model = small(anchor=False)
    frames, poses = clip()
    rollout = model(frames, poses, 3)
    later = model(frames[:, 2:], poses[:, 2:], 1)
    torch.testing.assert_close(rollout.frames[:, 2:], later.frames, atol=1e-5, rtol=1e-5)
    forced = model(frames, poses, 1, teacher_forcing=True)
    torch.testing.assert_close(rollout.frames[:, :3], forced.frames[:, :3], atol=1e-5, rtol=1e-5)


def test_each_step_sees_its_own_pose_and_latent_and_no_later_one():
    model = small()
    frames, poses = clip()
    start, noise = model.observe(frames[:, :1], None), noise_for(model, 2, 1, 5)
    before = model.imagine(start, poses, noise)[0]
    for changed_poses, changed_noise in ((True, False), (False, True)):
        other_poses, other_noise = poses.clone(), noise.clone()
        if changed_poses:
            other_poses[:, 3] = 255 - other_poses[:, 3]
        if changed_noise:
            other_noise[:, :, 3] += 1
        after = model.imagine(start, other_poses, other_noise)[0]
        torch.testing.assert_close(after[:, :3], before[:, :3])
        assert (after[:, 3] - before[:, 3]).abs().max() > 1e-3
        assert (after[:, 4] - before[:, 4]).abs().max() > 1e-4  # by what was drawn


def test_the_anchor_reaches_every_frame():
    with_anchor, without = small(), small(anchor=False)
    frames, poses = clip()
    for model, reached in ((with_anchor, True), (without, False)):
        start = model.observe(frames[:, :1], None)
        assert bool(start.anchor) is reached
        other = dataclasses.replace(model.observe(255 - frames[:, :1], None), frame=start.frame)
        noise = torch.zeros(2, 1, 5, *model.latent_shape)
        one, two = (model.imagine(state, poses, noise)[0] for state in (start, other))
        assert bool((one[:, 4] - two[:, 4]).abs().max() > 1e-3) is reached


def test_the_mask_keeps_the_frame_before():
    model = small()
    model.output.weight.data[3:], model.output.bias.data[3:] = 0, -30
    frames, poses = clip()
    video = model.imagine(model.observe(frames[:, :1], None), poses, noise_for(model, 2, 1, 5))[0]
    torch.testing.assert_close(video, (frames[:, :1].float() / 255).expand(-1, 5, -1, -1, -1))


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_masks_keep_what_they_choose(kept):
    """All on what is generated, on the frame before, or on the given frame."""
    model = small(keep_given=True)
    model.output.weight.data[3:], model.output.bias.data[3:] = 0, 0
    model.output.bias.data[3 + kept] = 50
    frames, poses = clip()
    start = dataclasses.replace(model.observe(frames[:, :1], None), frame=frames[:, 1].float() / 255)
    video = model.imagine(start, poses, noise_for(model, 2, 3, 5))
    if kept:
        expected = frames[:, 1 if kept == 1 else 0].float() / 255
        torch.testing.assert_close(video, expected[None, :, None].expand_as(video))
    else:
        assert (video[:, :, 0] - frames[:, 1].float() / 255).abs().mean() > 0.05


@pytest.mark.parametrize("keep_given", [False, True])
@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_pieces_are_the_whole(monkeypatch, chunk, keep_given):
    """However many steps are encoded at a time, and wherever the video is cut in two."""
    model = small(keep_given=keep_given)
    frames, poses = clip(8)
    noise = noise_for(model, 2, 3, 7)
    whole = model.imagine(model.observe(frames[:, :1], None), poses, noise)
    given = {n_past: model(frames, poses, n_past, noise=noise[:, 0]).frames for n_past in (1, 2, 3)}
    forced = model(frames, poses, 1, teacher_forcing=True, noise=noise[:, 0]).frames
    monkeypatch.setattr(pose_cvae, "CHUNK", chunk)
    torch.testing.assert_close(
        model.imagine(model.observe(frames[:, :1], None), poses, noise), whole, atol=1e-5, rtol=1e-5
    )
    for n_past, expected in given.items():
        torch.testing.assert_close(
            model(frames, poses, n_past, noise=noise[:, 0]).frames, expected, atol=1e-5, rtol=1e-5
        )
    again = model(frames, poses, 1, teacher_forcing=True, noise=noise[:, 0]).frames
    torch.testing.assert_close(again, forced, atol=1e-5, rtol=1e-5)
    first, state = model.advance(model.observe(frames[:, :1], None), poses[:, :4], noise[:, :, :4])
    each = (
        poses[:, None, 4:7].expand(-1, 3, -1, -1, -1, -1).flatten(0, 1)
    )  # every future is a clip of its own by now
    second, _ = model.advance(state, each, noise[:, :, 4:].flatten(0, 1)[:, None])
    second = second[0].unflatten(0, (2, 3)).transpose(0, 1)
    torch.testing.assert_close(torch.cat([first, second], 2), whole, atol=1e-5, rtol=1e-5)


def test_poses_of_each_future():
    model = small()
    frames, poses = clip()
    noise = noise_for(model, 2, 2, 5)
    start = model.observe(frames[:, :1], None)
    each = torch.stack([poses, 255 - poses], 1)
    together = model.imagine(start, each, noise)
    for number in range(2):
        alone = model.imagine(start, each[:, number], noise[:, number : number + 1])
        torch.testing.assert_close(together[number : number + 1], alone, atol=1e-5, rtol=1e-5)


def test_a_batch_is_its_clips():
    model = small()
    frames, poses = clip(batch=3)
    noise = noise_for(model, 3, 2, 5)
    together = model.imagine(model.observe(frames[:, :1], None), poses, noise)
    for number in range(3):
        one = slice(number, number + 1)
        alone = model.imagine(model.observe(frames[one, :1], None), poses[one], noise[one])
        torch.testing.assert_close(together[:, one], alone, atol=1e-5, rtol=1e-5)


def test_missing_poses_are_named():
    model = small()
    frames, poses = clip()
    with pytest.raises(
        ValueError, match=r"poses: found \[2, 2, 3, 16, 32\], expected \[B,T,3,H,W\] of at least 5 steps"
    ):
        model(frames, poses[:, :2], 1)
    with pytest.raises(ValueError, match="poses: found none"):
        model.imagine(model.observe(frames[:, :1], None), None, noise_for(model, 2, 1, 5))


@pytest.mark.parametrize("anchor", [False, True])
def test_a_frozen_model_predicts_the_same(anchor):
    model = small(norm="batch", anchor=anchor).train()
    frames, poses = clip()
    for seed in range(3):
        model(*clip(seed=seed), 1)  # moves the running means
    model.eval()
    noise = noise_for(model, 2, 2, 5)
    expected = model.predict(frames[:, :1], poses, 5, 2, torch.Generator().manual_seed(0))
    frozen = freeze(model, "float32")
    assert not [part for part in frozen.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    found = frozen.predict(frames[:, :1], poses, 5, 2, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        frozen.imagine(frozen.observe(frames[:, :1], None), poses, noise),
        model.imagine(model.observe(frames[:, :1], None), poses, noise),
        atol=1e-4,
        rtol=1e-4,
    )


def test_folding_a_norm_by_hand():
    """gamma 2, beta 1, mean 3, variance 4 (eps 0): (x - 3) / 2 * 2 + 1 = x - 2, for x = 5 a + 7 b + 0.5."""
    norm = torch.nn.BatchNorm2d(1, eps=0)
    first, second = torch.nn.Conv2d(1, 1, 1), torch.nn.Conv2d(1, 1, 1, bias=False)
    with torch.no_grad():
        norm.weight.fill_(2), norm.bias.fill_(1), norm.running_mean.fill_(3), norm.running_var.fill_(4)
        first.weight.fill_(5), first.bias.fill_(0.5), second.weight.fill_(7)
        fold_norm(norm, first, second)
        assert (first.weight.item(), second.weight.item(), first.bias.item()) == pytest.approx((5, 7, -1.5))


@pytest.mark.slow
@pytest.mark.parametrize(
    "anneal", [{}, {"kl_anneal": "monotonic"}, {"kl_anneal": "cyclical", "kl_anneal_cycle": 2}]
)
@pytest.mark.parametrize("beta", [1e-6, 1.0])
def test_training_stays_finite_with_and_without_annealing(pose_root, tmp_path, anneal, beta):
    run = tmp_path / "run"
    config = Config(
        DataConfig(
            data_root=str(pose_root), n_past=1, n_future=4, n_eval=12, clip_start="sliding", far_start=0.5
        ),
        ModelConfig(**SIZES | {"image_height": 0, "anchor": True, "blend": True}),
        TrainConfig(
            log_dir=str(run), batch_size=4, niter=4, epoch_size=8, lr=0.003, optimizer="adam", beta=beta,
            max_grad_norm=1, tfr=1, tfr_decay_step=0.4, device="cpu", precision="float32", **anneal,
        ),
    )  # fmt: skip
    Training(config).fit()
    lines = read_metrics(run)
    assert len(lines) == 4 and all(np.isfinite(list(line.values())).all() for line in lines)
    assert lines[-1]["val_pred_psnr"] > lines[0]["val_pred_psnr"] + 1
    assert [round(line["tfr"], 2) for line in lines] == [1, 0.6, 0.2, 0]
    if anneal:
        assert [line["beta"] / beta for line in lines] == pytest.approx(
            [0, 0.5, 1, 1] if anneal["kl_anneal"] == "monotonic" else [0, 1] * 2
        )
    model, config = load_model(run, "last")
    assert isinstance(model, PoseCVAE) and config.model.frame_size == (16, 32) and load_config(run) == config


def test_kl_to_the_standard_normal():
    """Against torch.distributions, summed over a latent of 3x4x8 and averaged over clips and steps."""
    model = small()
    rollout = model(*clip(), 1)
    posterior = torch.distributions.Normal(rollout.posterior.mu, (0.5 * rollout.posterior.logvar).exp())
    expected = (
        torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
        .sum((2, 3, 4))
        .mean()
    )
    torch.testing.assert_close(kl_divergence(rollout.posterior, rollout.prior), expected)
