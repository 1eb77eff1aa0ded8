"""Scores against scikit-image, and what they must not depend on."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import small_model
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from svg.evaluation import evaluate, latent_noise, read_per_frame
from svg.model import VideoPredictor
from svg.sequences import SequenceDataset

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> VideoPredictor:
    model = small_model(model="dcgan", recurrence="spatial")
    with torch.no_grad():
        model.prior.output.bias[3:] = 8  # log variance: futures that differ visibly
    return model


@pytest.fixture(scope="module")
def dataset(data_root) -> SequenceDataset:
    return SequenceDataset(data_root, "test", 6)


@pytest.fixture(scope="module")
def result(model, dataset):
    return evaluate(model, dataset, 2, 7, CPU, "float32", batch_size=3, memory=6.5e-9 * model.future_bytes(4))


def test_copying_the_last_frame_by_scikit_image(result, dataset):
    rows = result.scores[result.scores["method"] == "copy"].set_index(["sequence", "frame"])
    assert len(rows) == 5 * 4
    for number, sequence in enumerate(dataset.index["sequence"]):
        frames = dataset[number]["frames"] / 255.0
        for time in range(1, 5):
            a, b = frames[1], frames[1 + time]
            found = rows.loc[(sequence, time)]
            expected = peak_signal_noise_ratio(b, a, data_range=1) if (a != b).any() else 100  # the cap
            assert found["psnr"] == pytest.approx(expected, abs=1e-3)
            assert found["ssim"] == pytest.approx(structural_similarity(a, b, channel_axis=2, data_range=1), abs=1e-5)


def test_predictions_by_scikit_image(result, model, dataset):
    item = dataset[4]
    frames = torch.from_numpy(item["frames"]).permute(0, 3, 1, 2)[None].float() / 255
    conditions = torch.from_numpy(item["conditions"])[None]
    noise = latent_noise(model, range(4, 5), 7, 4, seed=1)
    with torch.no_grad():
        futures = model.imagine(model.observe(frames[:, :2], conditions), conditions[:, 1:], noise)[:, 0]
    truth = frames[0, 2:].numpy()
    reference = {
        "psnr": lambda a, b: peak_signal_noise_ratio(a, b, data_range=1),
        "ssim": lambda a, b: structural_similarity(a, b, channel_axis=0, data_range=1),
    }
    scores = {
        name: np.array([[metric(t, f) for t, f in zip(truth, future, strict=True)] for future in futures.numpy()])
        for name, metric in reference.items()
    }
    rows = result.scores[result.scores["sequence"] == dataset.index["sequence"].iloc[4]]
    for name, values in scores.items():
        best = values[values.mean(1).argmax()]
        np.testing.assert_allclose(rows[rows["method"] == "pred_best"][name], best, rtol=1e-4)
        np.testing.assert_allclose(rows[rows["method"] == "pred_mean"][name], values.mean(0), rtol=1e-4)
    assert scores["psnr"].mean(1).std() > 5e-3  # the samples differ by more than the tolerance


def test_no_dependence_on_batches_and_chunks(result, model, dataset):
    other = evaluate(model, dataset, 2, 7, CPU, "float32", batch_size=5).scores
    pd.testing.assert_frame_equal(
        result.scores.sort_values(["sequence", "method", "frame"], ignore_index=True),
        other.sort_values(["sequence", "method", "frame"], ignore_index=True),
        rtol=1e-4,
    )


def test_gaussian_window(model, dataset):
    result = evaluate(model, dataset, 2, 0, CPU, "float32", ssim_window="gaussian", limit=1)
    frames = dataset[0]["frames"] / 255.0
    options = {"gaussian_weights": True, "use_sample_covariance": False, "data_range": 1, "channel_axis": 2}
    expected = [structural_similarity(frames[1], frame, **options) for frame in frames[2:]]
    np.testing.assert_allclose(result.per_frame().loc["copy"]["ssim"], expected, atol=1e-5)
    assert "11x11 Gaussian" in result.protocol.ssim


def test_averages(result):
    means = result.means()
    assert list(means.index) == ["copy", "rec", "pred", "pred_best", "pred_mean"]
    by_frame = result.per_frame()
    assert by_frame.loc["rec"]["psnr"].mean() == pytest.approx(means.psnr["rec"], rel=1e-5)
    assert result.per_sequence("rec")["ssim"].mean() == pytest.approx(means.ssim["rec"], rel=1e-5)


def test_written_results(result, data_root, tmp_path):
    path = result.save(tmp_path, "test")
    written = json.loads(path.read_text())
    assert (written["protocol"]["data"], written["protocol"]["precision"]) == (str(data_root), "float32 on cpu")
    assert (written["protocol"]["n_past"], written["protocol"]["n_future"], written["protocol"]["n_sample"]) == (2, 4, 7)
    assert written["methods"]["rec"]["psnr"]["mean"] == pytest.approx(result.means().psnr["rec"])
    assert len(written["methods"]["rec"]["ssim"]["per_frame"]) == 4
    pd.testing.assert_frame_equal(read_per_frame(tmp_path, "test"), result.per_frame(), rtol=1e-4, check_dtype=False)
    assert read_per_frame(tmp_path, "train") is None
    for name in ("copy the last frame", "pred (best of 7)"):
        assert name in result.table()


def test_without_samples(model, dataset):
    result = evaluate(model, dataset, 2, 0, CPU, "float32", limit=2)
    assert list(result.means().index) == ["copy", "rec", "pred"] and result.protocol.sequences == 2


def test_without_conditions(data_root):
    model = small_model(model="dcgan", condition_dim=0)
    result = evaluate(model, SequenceDataset(data_root, "test", 6, "none"), 2, 2, CPU, "float32")
    assert np.isfinite(result.means().to_numpy()).all()
