"""Two tables: every metric beside an independent implementation, and predictors whose scores are known.

``python -m tests.hardening.agreement`` prints them; docs/evaluation.md shows them. The tests make the same
comparisons.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from tests.support import references
from tests.support.places import ROOT
from tests.support.reference_models import ConstantModel, CopyModel, TruthModel
from tests.support.samples import moving_square

sys.path.insert(0, str(ROOT))

from data_tools.folders import write_sequence
from data_tools.index import build_index
from svg.evaluation import EvaluationOptions
from svg.evaluation.intervals import bootstrap_interval, sign_flip_p
from svg.evaluation.perceptual import Lpips
from svg.evaluation.protocols import PROTOCOLS
from svg.evaluation.samples import SampledFutures
from svg.evaluation.scoring import Scorer, evaluate
from svg.evaluation.tables import Table
from svg.evaluation.video_distances import frechet_distance, kernel_distance
from svg.sequences import SequenceDataset

IMAGES, SIZE = 60, 64


def images() -> tuple[np.ndarray, np.ndarray]:
    """Return pictures with edges and textures, and worse and worse copies of them, [N,3,H,W] in [0,1]."""
    random = np.random.default_rng(0)
    truth = random.random((IMAGES, 3, SIZE, SIZE)) ** 2
    truth[:, :, :, SIZE // 2 :] = truth[:, :, :, :1] * 0.5 + 0.2 * truth[:, :, :, SIZE // 2 :]
    noise = np.geomspace(1e-3, 0.5, IMAGES)[:, None, None, None] * random.standard_normal(truth.shape)
    return truth.astype(np.float32), np.clip(truth + noise, 0, 1).astype(np.float32)


def frame_metrics() -> list[list[str]]:
    """Return rows that compare PSNR, MSE and SSIM of each protocol."""
    truth, other = images()
    rows = []
    for name, metrics in references.PROTOCOLS.items():
        found = Scorer(PROTOCOLS[name])(torch.tensor(other), torch.tensor(truth))
        for metric, reference in metrics.items():
            expected = np.array(
                [reference(t.astype(float), o.astype(float)) for t, o in zip(truth, other, strict=True)]
            )
            by = {"psnr": "NumPy, scikit-image", "mse": "NumPy", "ssim": "SciPy convolution"}[metric]
            by = "scikit-image" if metric == "ssim" and PROTOCOLS[name].ssim_window == "uniform" else by
            difference = np.abs(found[metric].numpy() - expected).max()
            rows.append(
                [
                    f"{metric.upper()}, {name}",
                    by,
                    f"{expected.min():.4g} to {expected.max():.4g}",
                    f"{difference:.1e}",
                ]
            )
    return rows


def perceptual_metrics() -> list[list[str]]:
    """Return rows that compare LPIPS, Frechet and kernel distances."""
    truth, other = (torch.tensor(frames) for frames in images())
    rows = []
    for net in ("alex", "vgg"):
        reference, trunk, heads = references.random_lpips(net)
        ours = Lpips(net, trunk, heads)
        with torch.no_grad():
            expected = reference(other, truth, normalize=True).flatten()
        difference = (ours(other, truth) - expected).abs().max()
        label = f"LPIPS, {net} (random trunk, published heads)"
        rows.append(
            [label, "lpips 0.1.4", f"{expected.min():.4g} to {expected.max():.4g}", f"{difference:.1e}"]
        )
    random = np.random.default_rng(1)
    a, b = random.normal(size=(300, 40)), random.normal(0.3, 1.5, (250, 40))
    for label, by, ours, expected in (
        ("Frechet distance", "SciPy sqrtm", frechet_distance(a, b), references.frechet(a, b)),
        (
            "Frechet distance, one dimension",
            "closed form",
            frechet_distance(a[:, :1], 2 * a[:, :1] + 3),
            closed_form(a[:, 0]),
        ),
        (
            "kernel distance",
            "pair after pair",
            kernel_distance(a[:60], b[:50]),
            references.kernel(a[:60], b[:50]),
        ),
    ):
        rows.append([label, by, f"{expected:.4g}", f"{abs(ours - expected):.1e}"])
    return rows


def closed_form(x: np.ndarray) -> float:
    """Return the Frechet distance of x and 2 x + 3."""
    return (x.mean() + 3) ** 2 + x.std(ddof=1) ** 2


def sample_statistics() -> list[list[str]]:
    """Return rows that compare statistics of sampled futures, intervals and tests."""
    random = np.random.default_rng(2)
    middle = random.random((2, 3, 3, SIZE, SIZE))
    truth, futures = (
        (middle + random.normal(0, 0.1, (*count, *middle.shape))).astype(np.float32) for count in ((), (10,))
    )  # one more of the same
    protocol = dataclasses.replace(PROTOCOLS["own"], n_sample=10)
    sampled, target = SampledFutures(protocol, torch.tensor(truth)), torch.tensor(truth)
    sampled.add(torch.tensor(futures), Scorer(protocol)(torch.tensor(futures), target))
    found, rows = sampled.statistics(), []
    for name, reference in {
        "pairwise_mse": lambda s, t: references.pairwise_mse(s),
        "rank": references.rank_of_truth,
    }.items():
        places = list(np.ndindex(2, 3))
        expected = np.array(
            [reference(futures[:, b, f].astype(float), truth[b, f].astype(float)) for b, f in places]
        )
        difference = np.abs(np.array([found[name][place].item() for place in places]) - expected).max()
        label = {"pairwise_mse": "mean squared distance of futures", "rank": "rank of the truth"}[name]
        rows.append(
            [label, "pair after pair", f"{expected.min():.4g} to {expected.max():.4g}", f"{difference:.1e}"]
        )
    values = random.gamma(2, size=200)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=9999, method="percentile", rng=0
    ).confidence_interval
    found = bootstrap_interval(values)
    difference = max(abs(found[0] - expected.low), abs(found[1] - expected.high))
    rows.append(
        [
            "bootstrap interval (both random)",
            "SciPy bootstrap",
            f"{expected.low:.4g} to {expected.high:.4g}",
            f"{difference:.1e}",
        ]
    )
    values = random.normal(0.12, 1, 200)
    expected = stats.permutation_test((values,), np.mean, permutation_type="samples", rng=0).pvalue
    rows.append(
        [
            "sign-flip p (both random)",
            "SciPy permutation_test",
            f"{expected:.4f}",
            f"{abs(sign_flip_p(values) - expected):.1e}",
        ]
    )
    return rows


def known_predictors() -> list[list[str]]:
    """Return scores of the true frames, the last frame and a constant grey, evaluated like models."""
    random, rows = np.random.default_rng(0), []
    with tempfile.TemporaryDirectory() as folder:
        for split in ("train", "test"):
            for number in range(5):
                write_sequence(Path(folder) / split / str(number), *moving_square(random, 15))
        build_index(Path(folder), "squares")
        dataset = SequenceDataset(folder, "test", 12)
        clips = (
            torch.stack(
                [torch.from_numpy(dataset[n]["frames"]).permute(0, 3, 1, 2) for n in range(5)]
            ).float()
            / 255
        )
        models = {"true frames": TruthModel(clips, 2), "copy": CopyModel(), "constant grey": ConstantModel()}
        for name in ("own", "srvp", "ivideogpt"):
            protocol = dataclasses.replace(PROTOCOLS[name], n_past=2, n_future=10, n_sample=5)
            for label, model in models.items():
                result = evaluate(model, dataset, protocol, EvaluationOptions(action_tests=True))
                found = result.sample_statistics()
                assert "nan" not in result.report().lower()
                means = [
                    result.mean("pred_best", metric).text(form)
                    for metric, form in (("psnr", ".2f"), ("ssim", ".4f"))
                ]
                rows.append(
                    [
                        f"{name}: {label}",
                        *means,
                        *(f"{found[key].mean:.2f}" for key in ("calibration", "rank")),
                    ]
                )
    return rows


def main() -> None:
    """Print both tables."""
    rows = [*frame_metrics(), *perceptual_metrics(), *sample_statistics()]
    print(Table(["metric", "beside", "values", "largest difference"], rows).markdown())
    print(
        Table(
            ["protocol: predictor", "PSNR, best of 5", "SSIM, best of 5", "distance / error", "rank"],
            known_predictors(),
        ).markdown()
    )


if __name__ == "__main__":
    main()
