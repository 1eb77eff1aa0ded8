"""LPIPS against the lpips package, distances of features against closed forms, wrong files of weights."""

import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from data_tools.errors import InputError
from svg.evaluation import perceptual
from svg.evaluation.perceptual import (
    HEADS,
    I3D,
    TRUNKS,
    Lpips,
    WeightsFile,
    find_weights,
    load_video_features,
    video_features,
)
from svg.evaluation.video_distances import frechet_distance, kernel_distance
from tests.support import references


@pytest.fixture(scope="module", params=["alex", "vgg"])
def networks(request):
    """The package's network with random weights, and ours with the same."""
    pytest.importorskip("lpips")
    reference, trunk, heads = references.random_lpips(request.param)
    ours = Lpips(request.param, trunk, heads)
    assert {name.removeprefix("features.") for name in trunk} == ours.features.state_dict().keys()
    return reference, ours


def test_lpips_against_the_package(networks):
    reference, ours = networks
    truth, samples = torch.rand(2, 2, 3, 64, 64), torch.rand(3, 2, 2, 3, 64, 64)
    found = ours(samples, truth)
    assert found.shape == (3, 2, 2)
    with torch.no_grad():
        for place in np.ndindex(3, 2, 2):
            expected = reference(samples[place][None], truth[place[1:]][None], normalize=True).item()
            assert found[place].item() == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert ours(truth, truth).abs().max() == 0


def test_lpips_of_grey_images(networks):
    _, ours = networks
    truth, other = torch.rand(2, 1, 64, 64), torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(
        ours(other, truth), ours(other.expand(-1, 3, -1, -1), truth.expand(-1, 3, -1, -1))
    )


def test_frechet_distance_in_closed_form():
    random = np.random.default_rng(0)
    values = random.normal(size=(400, 3))
    values = (values - values.mean(0)) @ np.linalg.inv(
        np.linalg.cholesky(np.cov(values, rowvar=False))
    ).T  # covariance 1 exactly
    assert frechet_distance(values, values) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(values, values + np.array([3, 0, 4])) == pytest.approx(25)
    # N(0, 1) and N(0, s^2) in each dimension: sum of (1 - s)^2
    assert frechet_distance(values, values * [2, 0.5, 1]) == pytest.approx(1 + 0.25)
    assert frechet_distance(values[:, :1], 3 + 2 * values[:, :1]) == pytest.approx(9 + 1)


def test_frechet_distance_by_matrix_roots():
    random = np.random.default_rng(1)
    mix = random.normal(size=(2, 12, 12))
    a, b = random.normal(size=(300, 12)) @ mix[0], random.normal(0.3, 1, size=(200, 12)) @ mix[1]
    assert frechet_distance(a, b) == pytest.approx(references.frechet(a, b), rel=1e-6)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))


def test_frechet_distance_of_few_vectors():
    a = np.random.default_rng(2).normal(size=(5, 400))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6) and np.isfinite(
        frechet_distance(a, a[:2] + 1)
    )
    with pytest.raises(ValueError, match="at least 2"):
        frechet_distance(a[:1], a)


def test_kernel_distance_by_its_definition():
    random = np.random.default_rng(3)
    a, b = random.normal(size=(12, 5)), random.normal(0.5, 2, size=(9, 5))
    assert kernel_distance(a, b) == pytest.approx(references.kernel(a, b))
    same = [kernel_distance(*random.normal(size=(2, 50, 5))) for _ in range(30)]
    assert abs(np.mean(same)) < 4 * np.std(same) / 30**0.5  # unbiased


def test_known_checksums():
    # torchvision puts the first digits of the SHA-256 into the names
    assert TRUNKS["alex"].checksum == "sha256:7be5be79" and TRUNKS["vgg"].checksum == "sha256:397923af"
    for file in HEADS.values():  # the package carries them
        pytest.importorskip("lpips")
        assert find_weights(file, None).name == file.name


def test_git_checksum(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"what is up, doc?")  # the example of the book Pro Git, 10.2
    assert WeightsFile("x", "git:bd9dbf5aae1a3862dd1526723246b20206e5fc37", "").check(path) == path


def test_missing_and_wrong_weights(tmp_path):
    with pytest.raises(
        InputError,
        match=r"^weights: needs alexnet-owt-7be5be79.pth; get it from https://download.pytorch.org",
    ):
        find_weights(TRUNKS["alex"], None)
    with pytest.raises(InputError, match=r"has no i3d_torchscript.pt; get it from"):
        find_weights(I3D, tmp_path)
    (tmp_path / I3D.name).write_bytes(b"something else")
    for place in (tmp_path, tmp_path / I3D.name):
        with pytest.raises(
            InputError, match=r"i3d_torchscript.pt: found git [0-9a-f]{40}, expected 93daef59"
        ):
            load_video_features(place, torch.device("cpu"))


class VideoNetwork(nn.Module):
    """With the interface of i3d_torchscript.pt."""

    def forward(
        self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> torch.Tensor:
        assert rescale and resize and return_features
        return torch.cat([x.mean([2, 3, 4]), x[:, :, -1].mean([2, 3])], 1)  # [B,6]


def test_video_features(tmp_path, monkeypatch):
    path = tmp_path / I3D.name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(VideoNetwork()).save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(perceptual, "I3D", WeightsFile(path.name, f"sha256:{digest}", ""))
    videos = torch.rand(6, 12, 3, 8, 8)
    features = load_video_features(Path(tmp_path), torch.device("cpu"))(videos)
    torch.testing.assert_close(features[:, :3], 255 * videos.mean((1, 3, 4)))
    torch.testing.assert_close(features[:, 3:], 255 * videos[:, -1].mean((2, 3)))
    grey = video_features(VideoNetwork(), videos[:, :, :1])
    torch.testing.assert_close(grey[:, 0], grey[:, 2])
