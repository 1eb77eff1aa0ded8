"""Published protocols against their definitions written out with scikit-image and SciPy."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.errors import InputError
from svg.evaluation.protocols import PROTOCOLS, get_protocol
from svg.evaluation.samples import SampledFutures
from svg.evaluation.scoring import Scorer
from svg.evaluation.wording import describe_protocol
from tests.support import references

CLOSE = {"psnr": 2e-4, "ssim": 2e-5, "mse": 1e-6}


def frames(seed: int, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Two similar sets of images, exact in float32."""
    random = np.random.default_rng(seed)
    truth = random.random((*shape, 3, 16, 20), np.float32) ** 2
    return truth, np.clip(truth + 0.1 * random.standard_normal(truth.shape, np.float32), 0, 1)


@pytest.mark.parametrize("name", PROTOCOLS)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=8, deadline=None)
def test_frames(name, seed):
    truth, other = frames(seed, 3)
    found = Scorer(PROTOCOLS[name])(torch.tensor(other), torch.tensor(truth))
    assert found.keys() == references.PROTOCOLS[name].keys()
    for metric, reference in references.PROTOCOLS[name].items():
        expected = [
            reference(t.astype(np.float64), o.astype(np.float64)) for t, o in zip(truth, other, strict=True)
        ]
        np.testing.assert_allclose(found[metric], expected, atol=CLOSE[metric], rtol=1e-5)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_scikit_image_agrees(name):
    """As a second opinion on PSNR and SSIM, of samples with one truth, too; the other metrics stay."""
    truth, other = (torch.tensor(images) for images in frames(3, 2))
    samples = torch.stack([other, truth.flip(0)])
    expected = Scorer(PROTOCOLS[name])(samples, truth)
    scores = Scorer(PROTOCOLS[name], scorer="skimage")(samples, truth)
    assert scores.keys() == expected.keys()
    for metric, values in scores.items():
        assert values.shape == (2, 2)
        torch.testing.assert_close(values, expected[metric], atol=CLOSE[metric], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "psnr"), [("own", 100), ("ivideogpt", 80), ("svg", np.inf), ("srvp", np.inf), ("savp", np.inf)]
)
def test_identical_frames(name, psnr):
    truth = torch.tensor(frames(0, 2)[0])
    found = Scorer(PROTOCOLS[name])(truth, truth)
    assert found["psnr"].tolist() == pytest.approx([psnr, psnr])
    assert found["ssim"].tolist() == pytest.approx([1, 1]) and found["mse"].tolist() == [0, 0]


def sampled(protocol) -> tuple[SampledFutures, dict[str, np.ndarray]]:
    """6 futures of 2 sequences of 3 frames, added in two parts; and the reference's scores [S,B,F]."""
    random = np.random.default_rng(1)
    truth = 0.8 * frames(1, 2, 3)[0]
    noise = random.uniform(0.15, 0.2, (6, 2, 1, 1, 1, 1)) * random.standard_normal((6, *truth.shape))
    futures = np.clip(truth + noise, 0, 1).astype(np.float32)
    futures[4, 1] = truth[1] + 0.16  # a shift: bad for the squared error, harmless to the structure
    collected, score, target = (
        SampledFutures(protocol, torch.tensor(truth)),
        Scorer(protocol),
        torch.tensor(truth),
    )
    for part in torch.tensor(futures).split(4):
        collected.add(part, score(part, target))
    shape = futures.shape[:3]
    expected = {}
    for metric, reference in references.PROTOCOLS[protocol.name].items():
        values = [
            reference(truth[p[1:]].astype(np.float64), futures[p].astype(np.float64))
            for p in np.ndindex(shape)
        ]
        expected[metric] = np.reshape(values, shape)
    return collected, expected


@pytest.mark.parametrize("name", ["own", "svg", "srvp", "lab", "openstl"])
def test_best_and_mean(name):
    protocol = dataclasses.replace(PROTOCOLS[name], n_sample=6)
    collected, expected = sampled(protocol)
    found = collected.by_method()
    for metric, values in expected.items():
        np.testing.assert_allclose(found["pred_mean"][metric], values.mean(0), rtol=1e-4)
    assert ("pred_best" in found) == (protocol.best != "none")
    for sequence in range(2) if protocol.best != "none" else ():
        chosen = {}
        for metric, values in expected.items():
            means = values[:, sequence].mean(1)
            chosen[metric] = means.argmin() if metric == "mse" else means.argmax()
        assert (
            sequence == 0 or name not in ("own", "srvp") or chosen["ssim"] != chosen["mse"]
        )  # the choice matters
        for metric, values in expected.items():
            best = values[chosen["ssim" if protocol.best == "ssim" else metric], sequence]
            np.testing.assert_allclose(found["pred_best"][metric][sequence], best, rtol=1e-4)


@pytest.mark.parametrize("name", ["own", "openstl"])
def test_diversity_and_rank(name):
    random = np.random.default_rng(2)
    truth = random.random((2, 3, 3, 16, 16), np.float32)
    futures = (truth + random.normal(0, 0.1, (5, *truth.shape))).astype(np.float32)
    futures[:2, 0, 0] = futures[2, 0, 0]  # some are alike
    futures[4, 1, 1] = truth[1, 1]  # a tie
    protocol = dataclasses.replace(PROTOCOLS[name], n_sample=5)
    collected, target = SampledFutures(protocol, torch.tensor(truth)), torch.tensor(truth)
    for part in torch.tensor(futures).split(2):
        collected.add(part, Scorer(protocol)(part, target))
    found = collected.statistics()
    for b, f in np.ndindex(2, 3):
        samples, true = futures[:, b, f].astype(np.float64), truth[b, f].astype(np.float64)
        assert found["pairwise_mse"][b, f].item() == pytest.approx(references.pairwise_mse(samples), rel=1e-3)
        assert found["error_mse"][b, f].item() == pytest.approx(np.mean((samples - true) ** 2), rel=1e-4)
        assert found["rank"][b, f].item() == pytest.approx(references.rank_of_truth(samples, true))


def test_changes_show_in_the_name():
    protocol = get_protocol("srvp")
    assert protocol.changed(n_sample=100, ssim_window=None) == protocol
    changed = protocol.changed(n_sample=10, n_future=5)
    assert changed.name == "srvp, changed: n_sample 10, n_future 5" and (
        changed.n_sample,
        changed.n_future,
    ) == (10, 5)
    assert (
        get_protocol("openstl").changed(n_future=5).name == "openstl"
    )  # it leaves the number of frames to the data
    assert get_protocol("own").changed(n_sample=3, ssim_window="gaussian").name == "own"
    assert protocol.for_run(4, 6) == protocol and get_protocol("own").for_run(4, 6).n_past == 4


def test_descriptions_tell_protocols_apart():
    words = {name: describe_protocol(protocol.for_run(2, 10)) for name, protocol in PROTOCOLS.items()}
    assert len({tuple(lines.values()) for lines in words.values()}) == len(words)
    assert (
        "data range 2" in words["svg"]["ssim"]
        and "11x11" in words["lab"]["ssim"]
        and "1 given, 15" in words["ivideogpt"]["frames"]
    )
    assert (
        "lpips" not in words["own"]
        and "version 0.1, vgg" in describe_protocol(PROTOCOLS["ivideogpt"], ["lpips"])["lpips"]
    )


def test_unknown_protocol():
    with pytest.raises(InputError, match=r"^protocol: found 'x', expected one of own, svg"):
        get_protocol("x")
