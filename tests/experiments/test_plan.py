"""``svg-plan`` as a user runs it."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import spearmanr

from experiments import evaluate, plan
from svg.planning.foretelling import rank_correlation
from svg.planning.results import SeriesFile
from svg.planning.trials import Outcome
from svg.runs import checkpoint
from svg.training.loop import Training
from tests.support.runs import make_config

FEW = ["--scenes", "2", "--tuning", "--samples", "6", "4", "--workers", "1", "--films", "0"]


def run(out, *flags) -> int:
    return plan.main([*FEW, "--out", str(out), *flags])


def test_baselines_and_a_model(tmp_path, capsys):
    models = ["--pretrained", "push-objects", "--replan", "12"]
    assert run(tmp_path, "--baselines", "nothing", "through", *models) == 0
    printed = capsys.readouterr().out
    assert "nothing: 0 of 2 solved" in printed and "push-objects" in printed and "tuning scenes" in printed
    saved = json.loads((tmp_path / "plan.json").read_text())
    assert list(saved["results"]) == ["nothing", "through", "push-objects"]
    assert saved["results"]["nothing"]["success"] == 0 and saved["settings"]["task"] == "push"
    assert "sha256" in saved["results"]["push-objects"]["weights"]
    table = pd.read_csv(tmp_path / "plan.csv")
    assert len(table) == 6 and (table[table.actor == "nothing"].end_mm - table.start_mm[:2]).abs().max() < 1
    assert "| nothing |" in (tmp_path / "plan.md").read_text()

    # started again with more scenes, it goes on: what is there stays as it is
    lines = (tmp_path / "through.jsonl").read_text().splitlines()
    (tmp_path / "nothing.jsonl").write_text((tmp_path / "nothing.jsonl").read_text() + '{"number": 2, "dist')
    assert run(tmp_path, "--baselines", "nothing", "through", "--scenes", "3", "--replan", "12") == 0
    again = (tmp_path / "through.jsonl").read_text().splitlines()
    assert again[:2] == lines and len(again) == 3
    assert len((tmp_path / "nothing.jsonl").read_text().splitlines()) == 3

    # other settings belong into another folder
    capsys.readouterr()
    assert run(tmp_path, "--baselines", "through", "--hold", "3") == 2
    error = capsys.readouterr().err
    assert (
        "through.jsonl, line 1: found replan 12, expected 2" in error or "found hold 2, expected 3" in error
    )
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--samples", "1"], "--samples: found 1, expected at least 2"),
        (["--replan", "20"], "--replan: found 20, expected at most decisions * hold, 12"),
        (["--informed", "2"], "--informed: found 2, expected a share from 0 to 1"),
        (["--baselines"], "expected a run folder, --pretrained NAME or --baselines"),
        (["--pretrained", "pusher"], "--pretrained: found 'pusher', expected the name of a released model"),
        (["--together", "--pretrained", "push-sim"], "--together: found 1 models, expected at least 2"),
        (["nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_is_one_line(flags, words, tmp_path, capsys):
    assert run(tmp_path, *flags) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1


@pytest.fixture(scope="module")
def scored(data_root, tmp_path_factory):
    """Train two runs for a step, and score them."""
    runs = [tmp_path_factory.mktemp("scored") / name for name in ("low", "high")]
    for number, folder in enumerate(runs):
        Training(make_config(data_root, folder, niter=1, epoch_size=1, seed=number)).fit()
    assert evaluate.main([*map(str, runs), "--n_sample", "0", "--device", "cpu"]) == 0
    return runs


def write_outcomes(out, run_folder, ends: list[float]) -> None:
    """Write trials that end so many metres from their goals, as if they had been carried out."""
    args = plan.parse([*FEW, "--out", str(out), str(run_folder)])
    label = run_folder.name
    file = SeriesFile(
        out / f"{label}.jsonl", plan.trial_of(args, label), checkpoint.read_identity(run_folder, "best")
    )
    for number, end in enumerate(ends):
        file.add(Outcome(number, [0.08, end], ["box"], 0.0))


def test_scores_beside_successes(scored, tmp_path, capsys):
    low, high = scored
    (path,) = (low / "evaluation").glob("*.json")
    write_outcomes(tmp_path, low, [0.05, 0.03])
    write_outcomes(tmp_path, high, [0.01, 0.02])
    runs = [str(low), str(high)]
    assert run(tmp_path, *runs, "--baselines", "--scores", path.stem) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    table = rows[rows.index(next(row for row in rows if row[:3] == ["success", "and", "scores"])) :]
    means = [
        json.loads((folder / "evaluation" / path.name).read_text())["methods"]["pred"] for folder in scored
    ]
    for row, label, success, end, scores in zip(
        table[1:], ("low", "high"), ("50%", "100%"), ("40.0", "15.0"), means, strict=False
    ):
        assert row[0] == label and row[1] == success
        assert (
            end in row and f"{scores['psnr']['mean']:.2f}" in row and f"{scores['ssim']['mean']:.4f}" in row
        )
    sign = "+1.00" if means[1]["psnr"]["mean"] > means[0]["psnr"]["mean"] else "-1.00"
    assert table[3][:4] == ["rank", "correlation", "with", "success"] and table[3][4] == sign
    assert table[4][:4] == ["rank", "correlation", "with", "end"]
    assert Image.open(tmp_path / "plan_scores.png").width > 500
    assert "rank correlation with success" in (tmp_path / "plan.md").read_text()


def test_scores_that_are_not_there(scored, tmp_path, capsys):
    low, high = scored
    (path,) = (low / "evaluation").glob("*.json")
    assert run(tmp_path, str(low), "--scores", path.stem) == 2
    assert "--scores: found 1 models, expected at least 2" in capsys.readouterr().err
    other = shutil.copytree(high, tmp_path / "other")
    assert run(tmp_path, str(low), str(other), "--scores", "test_n9") == 2
    assert "--scores: found no scores of predictions in" in capsys.readouterr().err
    shutil.rmtree(other / "checkpoints")
    shutil.copytree(low / "checkpoints", other / "checkpoints")
    assert run(tmp_path, str(low), str(other), "--scores", path.stem) == 2
    assert f"{path.name} is of other weights; run svg-evaluate again" in capsys.readouterr().err


@pytest.mark.parametrize("values", [([1, 2, 3, 4], [1, 3, 2, 9]), ([1, 1, 2, 5, 5], [3, 2, 2, 0, 1])])
def test_rank_correlation_is_scipys(values):
    assert rank_correlation(*values) == pytest.approx(spearmanr(*values).statistic)
    assert np.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))


def test_a_damaged_file_is_named(tmp_path, capsys):
    (tmp_path / "nothing.jsonl").write_text('{"number": 0}\n')
    assert run(tmp_path, "--baselines", "nothing") == 2
    assert "nothing.jsonl, line 1: found no outcome of a trial; delete it" in capsys.readouterr().err


def test_directions_of_pushes():
    from svg.planning.results import WAYS, quarter

    angles = np.radians([0, 44, 46, 90, 180, -180, -90, -46, -44, 359])
    expected = ["right", "right", "away", "away", "left", "left", "near", "near", "right", "right"]
    assert [WAYS[quarter(angle)] for angle in angles] == expected
