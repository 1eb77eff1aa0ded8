"""``--objects`` of svg-evaluate, svg-report and svg-render, and the training of the judge."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments import evaluate, judge, render, report
from svg.evaluation.object_tables import PARTS


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """Four test scenes of 12 frames with truth, and two to train on."""
    pytest.importorskip("mujoco")
    from data_tools.simulators.push import simulate

    root = tmp_path_factory.mktemp("scenes") / "data"
    simulate(root, 6, seed=9100, splits=(1 / 3, 0, 2 / 3), frames=12, truth=True, workers=1)
    return root


def flags(root: Path, *more: str) -> list[str]:
    return ["--data_root", str(root), "--n_future", "6", "--n_sample", "1", "--device", "cpu", *more]


@pytest.mark.slow
def test_evaluation_and_report(scenes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert evaluate.main(["--pretrained", "push-sim", *flags(scenes, "--objects")]) == 0
    printed = capsys.readouterr().out
    for title in ("pushed objects", "still objects", "squared error by parts", "true frames"):
        assert f"\n{title}" in printed
    folder = tmp_path / "push-sim" / "evaluation"
    (file,) = folder.glob("*.json")
    values = json.loads(file.read_text())["objects"]
    assert set(values["methods"]) == {"copy", "pred", "pred_sample", "truth"}
    still = {method: values["methods"][method]["still_mm"]["mean"] for method in ("pred", "truth")}
    assert still["truth"] < 6 and still["pred"] < 15
    # by two ways: the error of a frame, and the sum of its parts
    names = ["sequence", "method", "frame"]
    texts = {"sequence": str}
    parts = pd.read_csv(f"{file.with_suffix('')}_parts.csv", dtype=texts).set_index(names)
    scores = pd.read_csv(file.with_suffix(".csv"), dtype=texts).set_index(names)
    scores = scores.rename(index={"pred_mean": "pred_sample"}, level="method")  # of a single sample
    total = parts[[f"error_{part}" for part in PARTS]].sum(axis=1).drop("truth", level="method")
    np.testing.assert_allclose(total, scores["mse"][total.index], rtol=1e-4)
    np.testing.assert_allclose(parts[[f"area_{part}" for part in PARTS]].sum(axis=1), 1, rtol=1e-5)

    assert report.main([str(tmp_path / "push-sim"), *flags(scenes, "--objects")]) == 0
    assert "taken as it is" in capsys.readouterr().out
    page = next((tmp_path / "push-sim").glob("report*.html")).read_text()
    assert "objects found in pred" in page and "squared error by parts" in page and "true frames" in page


@pytest.mark.slow
def test_two_runs_are_compared_object_by_object(scenes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert evaluate.main(["--pretrained", "push-sim-large", *flags(scenes, "--limit", "1")]) == 0
    runs = ["push-sim-large", "--pretrained", "push-sim"]
    assert evaluate.main([*runs, *flags(scenes, "--objects"), "--out", "tables"]) == 0
    printed = capsys.readouterr().out
    assert "difference to push-sim-large, pushed objects" in printed
    rows = pd.read_csv(next(Path("tables").glob("comparison_*.csv"))).set_index(["run", "method", "metric"])
    row = rows.loc["push-sim", "pred", "still_mm"]
    large = rows.loc["push-sim-large", "pred", "still_mm"]
    assert row["difference"] == pytest.approx(row["mean"] - large["mean"], abs=1e-3) and 0 < row["p"] <= 1
    assert ("all", "copy", "error_arm_edge") in rows.index


@pytest.mark.slow
def test_pictures_show_what_is_found(scenes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags_of_run = ["--pretrained", "push-sim", "--data_root", str(scenes), "--n_future", "6"]
    name = pd.read_csv(scenes / "index.csv", dtype=str).query("split == 'test'")["sequence"].iloc[0]
    assert render.main([*flags_of_run, "--sequences", name, "--objects", "--out", "pictures"]) == 0
    with Image.open(f"pictures/test_sequence_{name}_found_pred.gif") as film:
        assert film.n_frames == 8
        film.seek(7)
        colours = np.asarray(film.convert("RGB")).reshape(-1, 3).astype(int)
    red = np.abs(colours - (214, 39, 40)).sum(1) < 60  # the first object's colour
    assert red.sum() > 20


@pytest.mark.parametrize("command", [evaluate, render, report])
def test_data_without_truth_are_refused_in_a_line(tmp_path, monkeypatch, capsys, command):
    pytest.importorskip("mujoco")
    from data_tools.simulators.push import simulate

    monkeypatch.chdir(tmp_path)
    simulate(tmp_path / "data", 1, seed=1, splits=(0, 0, 1), frames=8, workers=1)
    assert (
        command.main(["--pretrained", "push-sim", "--data_root", "data", "--n_future", "4", "--objects"]) == 2
    )
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == 1
    assert "--objects: data/truth/test/00000: not found; simulate the data set with --truth" in printed


@pytest.mark.slow
def test_a_judge_is_trained_and_measured(scenes, tmp_path, capsys):
    out = tmp_path / "judge.safetensors"
    few = ["--steps", "3", "--hand_steps", "2", "--batch", "2"]
    assert judge.main([str(scenes), "--out", str(out), *few]) == 0
    printed = capsys.readouterr().out
    assert out.stat().st_size < 400_000 and f"written: {out}" in printed
    for row in ("objects in true frames", "an object", "taken away", "hand: median error"):
        assert row in printed
    first = out.read_bytes()
    assert judge.main([str(scenes), "--out", str(out), *few]) == 0 and out.read_bytes() == first
    assert judge.main([str(scenes), "--out", str(out), "--weights", str(out)]) == 2


def test_impossible_flags_of_the_judge(capsys):
    assert judge.main(["data", "--steps", "0"]) == 2
    assert "--steps: found 0, expected 1 or more" in capsys.readouterr().err
