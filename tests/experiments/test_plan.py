"""``svg-plan`` as a user runs it."""

import json

import numpy as np
import pandas as pd
import pytest

from experiments import plan

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


def test_a_damaged_file_is_named(tmp_path, capsys):
    (tmp_path / "nothing.jsonl").write_text('{"number": 0}\n')
    assert run(tmp_path, "--baselines", "nothing") == 2
    assert "nothing.jsonl, line 1: found no outcome of a trial; delete it" in capsys.readouterr().err


def test_directions_of_pushes():
    from svg.planning.results import WAYS, quarter

    angles = np.radians([0, 44, 46, 90, 180, -180, -90, -46, -44, 359])
    expected = ["right", "right", "away", "away", "left", "left", "near", "near", "right", "right"]
    assert [WAYS[quarter(angle)] for angle in angles] == expected
