"""Losses, metrics and schedules against independent libraries and values worked out by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch.distributions import Normal
from torch.distributions import kl_divergence as reference_kl

from svg.config import TrainConfig
from svg.evaluation.metrics import psnr, squared_errors
from svg.evaluation.ssim import ssim
from svg.models.recurrent import Gaussian
from svg.training.losses import kl_divergence, mean_squared_error
from svg.training.schedules import kl_annealing, learning_rate, teacher_forcing_ratio


@given(st.integers(0, 2**32 - 1), st.sampled_from([(2, 3, 4), (1, 2, 3, 8, 8)]))
@settings(max_examples=30, deadline=None)
def test_kl_against_torch_distributions(seed, shape):
    generator = torch.Generator().manual_seed(seed)
    mu_q, logvar_q, mu_p, logvar_p = torch.randn(4, *shape, generator=generator, dtype=torch.float64).unbind()
    expected = reference_kl(Normal(mu_q, (logvar_q / 2).exp()), Normal(mu_p, (logvar_p / 2).exp()))
    found = kl_divergence(Gaussian(mu_q, logvar_q), Gaussian(mu_p, logvar_p))
    torch.testing.assert_close(found, expected.flatten(2).sum(2).mean())


def test_kl_by_hand():
    one, zero = torch.ones(1, 1, 1), torch.zeros(1, 1, 1)
    # KL(N(1,1) || N(0,1)) = 1/2;  KL(N(0,4) || N(0,1)) = (4 - 1 - ln 4) / 2
    assert kl_divergence(Gaussian(one, zero), Gaussian(zero, zero)).item() == pytest.approx(0.5)
    four = Gaussian(zero, one * math.log(4))
    assert kl_divergence(four, Gaussian(zero, zero)).item() == pytest.approx((3 - math.log(4)) / 2)
    assert kl_divergence(four, four).item() == 0


def test_mean_squared_error():
    assert mean_squared_error(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.0])).item() == pytest.approx(
        0.625
    )


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3]), st.floats(0.001, 1))
@settings(max_examples=25, deadline=None)
def test_metrics_against_scikit_image(seed, channels, noise):
    generator = np.random.default_rng(seed)
    truth = generator.random((2, 3, channels, 20, 24), np.float32) ** 2
    other = np.clip(truth + noise * generator.standard_normal(truth.shape, np.float32), 0, 1)
    found_psnr, found_ssim = (
        psnr(torch.tensor(other), torch.tensor(truth)),
        ssim(torch.tensor(other), torch.tensor(truth)),
    )
    assert found_psnr.shape == found_ssim.shape == (2, 3)
    for place in np.ndindex(2, 3):
        a, b = truth[place], other[place]
        assert found_psnr[place].item() == pytest.approx(
            peak_signal_noise_ratio(a, b, data_range=1), abs=1e-4
        )
        expected = structural_similarity(a, b, channel_axis=0, data_range=1)
        assert found_ssim[place].item() == pytest.approx(expected, abs=1e-5)
        gaussian = ssim(torch.tensor(b), torch.tensor(a), "gaussian").item()
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        assert gaussian == pytest.approx(
            structural_similarity(a, b, channel_axis=0, data_range=1, **options), abs=1e-5
        )


def test_metrics_broadcast_over_samples():
    truth, samples = torch.rand(2, 3, 3, 16, 16), torch.rand(4, 2, 3, 3, 16, 16)
    assert psnr(samples, truth).shape == ssim(samples, truth).shape == (4, 2, 3)
    assert ssim(samples, truth)[1, 0, 2].item() == pytest.approx(
        ssim(samples[1, 0, 2], truth[0, 2]).item(), abs=1e-6
    )


def test_metrics_do_not_depend_on_autocast():
    truth, other = torch.rand(2, 3, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        inside = [ssim(other, truth), ssim(other, truth, "gaussian"), psnr(other, truth)]
    for found, expected in zip(
        inside, [ssim(other, truth), ssim(other, truth, "gaussian"), psnr(other, truth)], strict=True
    ):
        assert torch.equal(found, expected)


def test_metrics_by_hand():
    black, grey = torch.zeros(1, 8, 8), torch.full((1, 8, 8), 0.1)
    assert psnr(grey, black).item() == pytest.approx(20)  # MSE 0.01
    assert psnr(black, black).item() == math.inf
    assert psnr(black, black, epsilon=1e-8).item() == pytest.approx(80)
    # channels with MSE 0.01 and 0.0001: 20 and 40 dB apart, MSE 0.00505 together
    two = torch.stack([grey[0], grey[0] / 10])
    assert psnr(two, torch.zeros(2, 8, 8), "apart").item() == pytest.approx(30)
    assert psnr(two, torch.zeros(2, 8, 8)).item() == pytest.approx(-10 * math.log10(0.00505))
    assert squared_errors(two, torch.zeros(2, 8, 8)).tolist() == pytest.approx([0.01, 0.0001])
    assert ssim(grey, grey).item() == pytest.approx(1)
    assert ssim(grey, black).item() == pytest.approx(
        1e-4 / (0.01 + 1e-4), abs=1e-6
    )  # constant images: c1 / (mu^2 + c1)


def test_teacher_forcing_ratio():
    config = TrainConfig(tfr=1.0, tfr_start_decay_epoch=10, tfr_decay_step=0.1, tfr_lower_bound=0.25)
    expected = {0: 1.0, 10: 1.0, 11: 0.9, 12: 0.8, 17: 0.3, 18: 0.25, 300: 0.25}
    assert {epoch: round(teacher_forcing_ratio(config, epoch), 6) for epoch in expected} == expected
    assert teacher_forcing_ratio(TrainConfig(), 299) == 1.0


def test_kl_annealing():
    # niter 100, 4 cycles: period 25; ratio 2: a ramp of 12.5 epochs, then 1.
    cyclical = TrainConfig(niter=100, kl_anneal="cyclical", kl_anneal_cycle=4, kl_anneal_ratio=2)
    expected = {0: 0, 5: 0.4, 12: 0.96, 13: 1, 24: 1, 25: 0, 30: 0.4, 99: 1}
    assert {epoch: pytest.approx(kl_annealing(cyclical, epoch)) for epoch in expected} == expected
    monotonic = TrainConfig(niter=100, kl_anneal="monotonic", kl_anneal_cycle=4, kl_anneal_ratio=2)
    expected = {0: 0, 10: 0.2, 25: 0.5, 50: 1, 99: 1}
    assert {epoch: pytest.approx(kl_annealing(monotonic, epoch)) for epoch in expected} == expected
    assert kl_annealing(TrainConfig(), 0) == 1


def test_learning_rate():
    rates = {
        "constant": {0: 0.2, 0.5: 0.2, 1: 0.2},
        "linear": {0: 0.2, 0.25: 0.15, 1: 0.0},
        "cosine": {0: 0.2, 1 / 3: 0.15, 0.5: 0.1, 1: 0.0},
    }
    for schedule, expected in rates.items():
        config = TrainConfig(lr=0.2, lr_schedule=schedule)
        assert {
            progress: pytest.approx(learning_rate(config, progress), abs=1e-9) for progress in expected
        } == expected
    warm = TrainConfig(lr=0.2, lr_schedule="linear", warmup=0.2)
    assert [round(learning_rate(warm, progress), 6) for progress in (0, 0.1, 0.2, 0.6, 1)] == [
        0,
        0.1,
        0.2,
        0.1,
        0,
    ]
