"""Scores of predictors against scikit-image, independence of batches, predictors with known scores."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from svg.evaluation import EvaluationOptions
from svg.evaluation.futures import changed_conditions, latent_noise, predict_sequence
from svg.evaluation.protocols import PROTOCOLS, Protocol
from svg.evaluation.scoring import evaluate
from svg.evaluation.video_distances import frechet_distance, kernel_distance
from svg.models.video_predictor import VideoPredictor
from svg.sequences import SequenceDataset
from tests.support import references
from tests.support.reference_models import ConstantModel, CopyModel, TruthModel
from tests.support.samples import small_model


def protocol(name: str = "own", n_sample: int = 7, n_future: int = 4) -> Protocol:
    return dataclasses.replace(PROTOCOLS[name], n_past=2, n_future=n_future, n_sample=n_sample)


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
def clips(dataset) -> np.ndarray:
    """All sequences [N,T,C,H,W] in [0,1]."""
    return (
        np.stack([dataset[number]["frames"] for number in range(len(dataset))]).transpose(0, 1, 4, 2, 3)
        / 255.0
    )


@pytest.fixture(scope="module")
def result(model, dataset):
    memory = 6.5e-9 * model.future_bytes(4)
    return evaluate(model, dataset, protocol(), EvaluationOptions(3, memory=memory, action_tests=True))


def test_copying_the_last_frame(result, clips):
    for metric, reference in references.PROTOCOLS["own"].items():
        expected = [[reference(clip[2 + f], clip[1]) for f in range(4)] for clip in clips]
        np.testing.assert_allclose(result.array("copy", metric), expected, rtol=1e-4)


@pytest.mark.parametrize("recurrence", ["spatial", "vector"])
def test_noise_comes_in_groups_that_make_up_the_whole(recurrence):
    """For latents of any size; and a sequence has its own wherever it stands."""
    model = small_model(recurrence=recurrence, model="dcgan")
    whole = torch.cat(list(latent_noise(model, range(2, 5), 7, 5, seed=1, group=7)), 1)
    assert whole.shape == (3, 7, 5, *model.latent_shape) and abs(whole.std() - 1) < 0.1
    for group in (1, 2, 4):
        parts = list(latent_noise(model, range(2, 5), 7, 5, seed=1, group=group))
        assert max(part.shape[1] for part in parts) == group
        assert torch.equal(torch.cat(parts, 1), whole)
    assert torch.equal(next(latent_noise(model, range(3, 4), 7, 5, seed=1, group=7))[0], whole[1])


def test_predictions(result, model, dataset, clips):
    frames = torch.from_numpy(clips[4:]).float()
    conditions = torch.from_numpy(dataset[4]["conditions"])[None]
    noise = torch.cat(list(latent_noise(model, range(4, 5), 7, 4, seed=1, group=7)), 1)
    start = model.observe(frames[:, :2], conditions)
    changed = conditions[:, 1:].clone()
    changed[..., :2], changed[..., 2:] = 0, conditions[:, 1:2, 2:]  # zero actions, held positions
    other = torch.from_numpy(dataset[0]["conditions"])[None, 1:]  # after the last sequence comes the first
    mixed = torch.cat([other[..., :2], conditions[:, 1:, 2:]], 2)
    with torch.no_grad():
        futures = model.imagine(start, conditions[:, 1:], noise)[:, 0].double().numpy()
        zero = model.imagine(start, changed, torch.zeros_like(noise[:, :1]))[0, 0].double().numpy()
        swapped = model.imagine(start, mixed, torch.zeros_like(noise[:, :1]))[0, 0].double().numpy()
        another = model.imagine(start, other, torch.zeros_like(noise[:, :1]))[0, 0].double().numpy()
    truth = clips[4, 2:]
    scores = {
        name: np.array([[metric(t, f) for t, f in zip(truth, future, strict=True)] for future in futures])
        for name, metric in references.PROTOCOLS["own"].items()
    }
    for name, values in scores.items():
        means = values.mean(1)
        best = values[means.argmin() if name == "mse" else means.argmax()]
        np.testing.assert_allclose(result.array("pred_best", name)[4], best, rtol=1e-4)
        np.testing.assert_allclose(result.array("pred_mean", name)[4], values.mean(0), rtol=1e-4)
        assert values.mean(1).std() > 1e-4 * abs(
            values.mean()
        )  # the samples differ by more than the tolerance
    for method, video in {"pred_zero": zero, "pred_other": another, "pred_swap": swapped}.items():
        expected = [references.skimage_ssim(t, f) for t, f in zip(truth, video, strict=True)]
        np.testing.assert_allclose(result.array(method, "ssim")[4], expected, rtol=1e-4)
    rows = result.samples[result.samples["sequence"] == result.sequences[4]]
    assert rows["pairwise_mse"].iloc[2] == pytest.approx(references.pairwise_mse(futures[:, 2]), rel=1e-3)
    assert rows["rank"].iloc[2] == pytest.approx(references.rank_of_truth(futures[:, 2], truth[2]))


def test_no_dependence_on_batches_and_chunks(result, model, dataset):
    other = evaluate(model, dataset, protocol(), EvaluationOptions(batch_size=5, action_tests=True))
    pd.testing.assert_frame_equal(
        result.scores.sort_values(["sequence", "method", "frame"], ignore_index=True),
        other.scores.sort_values(["sequence", "method", "frame"], ignore_index=True),
        rtol=1e-4,
    )
    pd.testing.assert_frame_equal(result.samples, other.samples, rtol=2e-3)


def test_sequence_futures_are_those_that_were_scored(result, model, dataset, clips):
    found = predict_sequence(model, dataset, result.protocol, 3, 7, seed=1)
    assert len(found.samples) == 7 and found.past.shape == (2, 3, 64, 64)
    for method, video in {"rec": found.rec, "pred": found.pred}.items():
        expected = [references.psnr(t, f.double().numpy()) for t, f in zip(clips[3, 2:], video, strict=True)]
        np.testing.assert_allclose(result.array(method, "psnr")[3], expected, rtol=1e-4)
    best = max(
        np.mean([references.psnr(t, f.double().numpy()) for t, f in zip(clips[3, 2:], v, strict=True)])
        for v in found.samples
    )
    assert result.per_sequence("pred_best", "psnr")[3] == pytest.approx(best, rel=1e-4)


def test_distances_of_videos(model, dataset, clips):
    """With features that are worked out here again: mean colours of the first and of the last frame."""

    def features(videos):
        return torch.cat([videos[:, 0].mean((2, 3)), videos[:, -1].mean((2, 3))], 1)

    options = EvaluationOptions(action_tests=True, metrics=("fvd", "kvd"))
    result = evaluate(model, dataset, protocol(), options, {"i3d": features})
    assert list(result.distances.index) == ["copy", "rec", "pred", "pred_sample"]
    truth = np.concatenate([clips[:, 0].mean((2, 3)), clips[:, -1].mean((2, 3))], 1)
    copied = np.concatenate([clips[:, 0].mean((2, 3)), clips[:, 1].mean((2, 3))], 1)
    assert result.distances.loc["copy", "fvd"] == pytest.approx(
        frechet_distance(copied, truth), rel=1e-3, abs=1e-9
    )
    samples = [
        predict_sequence(model, dataset, result.protocol, n, 7, seed=1).samples[0][-1] for n in range(5)
    ]
    sampled = np.concatenate([clips[:, 0].mean((2, 3)), torch.stack(samples).mean((2, 3)).numpy()], 1)
    assert result.distances.loc["pred_sample", "kvd"] == pytest.approx(
        kernel_distance(sampled, truth), rel=1e-3
    )
    assert "FVD" in result.report() and "Frechet distance of I3D" in result.report()


def test_methods_of_a_protocol(model, dataset):
    def methods(name, **options):
        return evaluate(model, dataset, protocol(name, **options), EvaluationOptions(limit=2)).methods

    assert methods("own") == ["copy", "rec", "pred", "pred_best", "pred_mean"]
    assert methods("own", n_sample=0) == ["copy", "rec", "pred"]
    assert methods("lab", n_sample=1) == ["copy", "rec", "pred", "pred_mean"]


@pytest.mark.parametrize(
    ("conditions", "actions", "methods"),
    [
        ("all", 2, ["pred_other", "pred_swap", "pred_zero"]),
        ("actions", 2, ["pred_other", "pred_zero"]),
        ("positions", 0, ["pred_other"]),
    ],
)
def test_changed_conditions(data_root, conditions, actions, methods):
    dataset = SequenceDataset(data_root, "test", 6, conditions)
    future = dataset.batch([(1, 0)])["conditions"][:, 1:-1]
    other = dataset[2]["conditions"][1:-1]
    found = changed_conditions(dataset, range(1, 2), 5, future)
    assert list(found) == methods and future.any()
    np.testing.assert_array_equal(found["pred_other"][0], other)
    if "pred_swap" in methods:
        np.testing.assert_array_equal(
            found["pred_swap"][0], np.concatenate([other[:, :2], future[0, :, 2:]], 1)
        )
    if "pred_zero" in methods:
        assert not found["pred_zero"][..., :actions].any()
        np.testing.assert_array_equal(
            found["pred_zero"][0, :, actions:], np.tile(future[0, 0, actions:], (4, 1))
        )
    assert changed_conditions(dataset, range(1), 1, future) == {}  # a single sequence has no other


def test_protocols_and_clips_must_agree(model, dataset):
    for name in ("own", "srvp"):  # one leaves its frames open, the other has more
        with pytest.raises(ValueError, match=rf"protocol {name} with .* clips, 6; see Protocol.for_run"):
            evaluate(model, dataset, PROTOCOLS[name])


def test_without_conditions(data_root):
    model = small_model(model="dcgan", condition_dim=0)
    dataset = SequenceDataset(data_root, "test", 6, "none")
    result = evaluate(model, dataset, protocol(n_sample=2), EvaluationOptions(action_tests=True))
    assert result.methods == ["copy", "rec", "pred", "pred_best", "pred_mean"]
    assert np.isfinite(result.scores[["psnr", "ssim"]].to_numpy()).all()


def texts_of(result) -> str:
    """All that is shown and written of a result."""
    return result.report() + result.table().markdown() + result.table().latex() + result.table().html()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_true_frames(name, dataset, clips):
    model = TruthModel(torch.from_numpy(clips).float(), 2)
    result = evaluate(model, dataset, protocol(name, n_sample=3), EvaluationOptions(action_tests=True))
    perfect = {"own": 100, "ivideogpt": 80}.get(name, np.inf)
    for method in ("rec", "pred", "pred_mean"):
        assert result.mean(method, "psnr").mean == pytest.approx(perfect) == result.mean(method, "psnr").low
        assert (
            result.mean(method, "ssim").mean == pytest.approx(1, abs=1e-5)
            and result.mean(method, "mse").mean == 0
        )
    found = result.sample_statistics()
    assert (
        found["spread"].mean == 0
        and found["calibration"].mean == 1
        and found["rank"].mean == 0.5
        and found["outermost"].mean == 0
    )
    assert "nan" not in texts_of(result).lower()


@pytest.mark.parametrize("name", ["own", "srvp"])
def test_copying_and_constant_predictors(name, dataset, clips, tmp_path):
    copying = evaluate(CopyModel(), dataset, protocol(name, n_sample=3), EvaluationOptions(action_tests=True))
    for metric in copying.metrics:
        np.testing.assert_array_equal(copying.array("pred", metric), copying.array("copy", metric))
        np.testing.assert_array_equal(copying.array("pred_best", metric), copying.array("pred_other", metric))
    assert copying.sample_statistics()["calibration"].mean == pytest.approx(0, abs=1e-4)
    constant = evaluate(
        ConstantModel(), dataset, protocol(name, n_sample=3), EvaluationOptions(action_tests=True)
    )
    expected = [[references.psnr_apart(f, np.full_like(f, 0.5)) for f in clip[2:]] for clip in clips]
    if name == "srvp":
        np.testing.assert_allclose(constant.array("pred", "psnr"), expected, rtol=1e-4)
    for result in (copying, constant):
        assert (
            "another sequence's conditions PSNR falls by 0.00" in result.report()
            and "another sequence's actions alone PSNR falls by 0.00" in result.report()
            and "nan" not in texts_of(result).lower()
        )
        assert "NaN" not in result.save(tmp_path, "test").read_text()
