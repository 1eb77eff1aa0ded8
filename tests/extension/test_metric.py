"""A metric from outside the package is scored, listed, written, compared and drawn."""

import csv
import json

import numpy as np
import pytest
import torch

from experiments import evaluate, plot
from svg.evaluation.metrics import METRICS, FramePair
from svg.evaluation.protocols import get_protocol
from svg.evaluation.results import load_evaluation
from svg.figures.plotting import frame_curves
from svg.runs.checkpoint import load_config
from svg.sequences import SequenceDataset
from tests.extension.runs import tiny_run


@pytest.fixture(scope="module")
def run(data_root, tmp_path_factory):
    known = set(METRICS)
    from tests.extension import error_metrics  # noqa: F401  (registers them)

    yield tiny_run(data_root, tmp_path_factory.mktemp("run") / "run")
    for name in set(METRICS) - known:
        del METRICS[name]


def copied_and_true(run) -> tuple[np.ndarray, np.ndarray]:
    """The held last given frame and the true frames of all test sequences, [N,F,H,W,C] in [0,1]."""
    dataset = SequenceDataset(load_config(run).data.data_root, "test", 6)
    clips = np.stack([dataset[number]["frames"] for number in range(len(dataset))]) / 255.0
    return np.repeat(clips[:, 1:2], 4, axis=1), clips[:, 2:]


def test_by_hand(run):
    """Errors of 0.5 and 0.25 in two of the four pixels of one frame, and none in the other."""
    predicted = torch.tensor([[0.5, 0.25, 0.0, 0.0], [0.0] * 4]).reshape(2, 1, 2, 2)
    pair = FramePair(predicted, torch.zeros(2, 1, 2, 2), get_protocol("own"))
    assert METRICS["mae"].compute(pair).tolist() == [0.1875, 0.0]
    assert METRICS["worst"].compute(pair).item() == 0.5


@pytest.mark.slow
def test_evaluate_plot_and_compare(run, tmp_path, capsys):
    flags = ["--n_sample", "2", "--metrics", "mae", "worst"]
    assert evaluate.main([str(run), *flags]) == 0
    printed = capsys.readouterr().out
    assert "mae        mean absolute error over the values of a frame" in printed
    header = next(line for line in printed.splitlines() if "PSNR dB" in line)
    assert header.split() == ["PSNR", "dB", "SSIM", "MSE", "MAE", "worst", "pixel", "gain", "dB"]
    copied, truth = copied_and_true(run)
    error = np.abs(copied - truth)
    line = next(line for line in printed.splitlines() if line.startswith("copy the last frame"))
    assert f" {error.mean():.4f} [" in line and f" {error.max((1, 2, 3, 4)).mean():.3f} [" in line

    values = json.loads((run / "evaluation" / "test_n2.json").read_text())
    assert values["methods"]["copy"]["mae"]["mean"] == pytest.approx(error.mean(), rel=1e-5)
    assert values["methods"]["copy"]["mae"]["per_frame"] == pytest.approx(error.mean((0, 2, 3, 4)), rel=1e-5)
    rows = list(csv.DictReader((run / "evaluation" / "test_n2.csv").open()))
    scores = [float(row["mae"]) for row in rows if row["method"] == "copy"]
    assert scores == pytest.approx(error.mean((2, 3, 4)).ravel(), rel=1e-5)
    result = load_evaluation(run, "test_n2")
    means = result.array("pred_best", "mae").mean(1), result.array("pred_mean", "mae").mean(1)
    assert (means[0] <= means[1]).all()  # the smaller is the better
    # a video has one score, the same for all its frames
    assert (np.ptp(result.array("pred", "worst"), axis=1) == 0).all()

    other = tiny_run(load_config(run).data.data_root, tmp_path / "other", "--seed", "5")
    assert evaluate.main([str(run), str(other), *flags, "--out", str(tmp_path / "tables")]) == 0
    rows = list(csv.DictReader((tmp_path / "tables" / "comparison_test_n2.csv").open()))
    differences = {row["run"]: row["difference"] for row in rows if row["metric"] == "mae"}
    assert differences["other"] and not differences["run"]
    assert "MAE" in (tmp_path / "tables" / "comparison_test_n2.md").read_text()

    assert (
        plot.main([str(run), "--scores", "test_n2", "--only", "frames", "--out", str(tmp_path / "p.svg")])
        == 0
    )
    from matplotlib.figure import Figure

    figure = Figure()
    frame_curves({"run": result}).draw(figure)
    assert [axes.get_title("left") for axes in figure.axes] == ["PSNR dB", "SSIM", "MAE"]
