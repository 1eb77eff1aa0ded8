"""The command line of the assignment, as typed, in a folder with the course's data and nothing else."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_tools import __main__ as svg_data
from data_tools.folders import write_sequence
from experiments import compare, train
from svg.config import Config
from svg.flags import config_from_arguments
from tests.docs.pages import commands
from tests.support.places import ROOT

ASSIGNMENT = """--batch_size=12 --beta=0.0001 --beta1=0.9 --epoch_size=600 --g_dim=128 --kl_anneal_cycle=4
--kl_anneal_cyclical=True --kl_anneal_ratio=2 --last_frame_skip=False --log_dir=./logs/fp --lr=0.002
--n_eval=10 --n_future=10 --n_past=2 --niter=300 --num_workers=10 --optimizer=adam --posterior_rnn_layers=1
--predictor_rnn_layers=2 --rnn_size=256 --seed=1 --tfr=1.0 --tfr_decay_step=0.01 --tfr_start_decay_epoch=150
--tfr_lower_bound=0.0 --data_root=./processed_data --cuda=True --model_dir= --save_model_name=best"""
TINY = """--recurrence spatial --model dcgan --width 0.1 --norm group --g_dim 8 --z_dim 2 --rnn_size 8
--feedback feature --tfr 0 --n_past 2 --n_future 4 --n_eval 6 --batch_size 4 --niter 1
--epoch_size 2 --device cpu"""


def write_processed_data(root: Path, width: int = 64) -> None:
    """Write sequences as the course lays them out: 30 frames, 4 action and 3 position columns, no index."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("validate", 1), ("test", 1)):
        for number in range(count):
            frames = generator.integers(0, 256, (30, width, width, 3), np.uint8)
            folder = root / split / "traj_0_to_255.tfrecords" / str(number)
            write_sequence(folder, frames, generator.normal(size=(30, 4)), generator.normal(size=(30, 3)))


def test_the_page_about_the_assignment_has_its_command_line():
    line = next(line for line in commands("docs/assignment.md") if "--save_model_name" in line)
    assert sorted(line.split()[1:]) == sorted(ASSIGNMENT.split())


@pytest.mark.slow
def test_the_command_line_of_the_assignment_trains_as_typed(tmp_path):
    """In a folder with the course's data alone; stopped in its first step, which takes a while on a CPU."""
    write_processed_data(tmp_path / "processed_data")
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.train", *ASSIGNMENT.split()],
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
    )
    written = tmp_path / "logs" / "fp" / "config.json"
    while not written.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 143, errors
    assert errors.splitlines()[-1].startswith("svg-train: SIGTERM: stopped after step 1, all is saved")
    assert (tmp_path / "logs" / "fp" / "checkpoints" / "step-00000001.json").exists()

    config = json.loads(written.read_text())
    expected = {
        "data": {"data_root": "./processed_data", "n_past": 2, "n_future": 10, "n_eval": 10, "workers": 10},
        "model": {
            "model": "vgg",
            "recurrence": "vector",
            "width": 1.0,
            "image_width": 64,
            "g_dim": 128,
            "z_dim": 64,
            "rnn_size": 256,
            "predictor_rnn_layers": 2,
            "posterior_rnn_layers": 1,
            "last_frame_skip": False,
            "channels": 3,
            "condition_dim": 7,
        },
        "train": {
            "log_dir": "./logs/fp",
            "init_from": "",
            "batch_size": 12,
            "niter": 300,
            "epoch_size": 600,
            "optimizer": "adam",
            "lr": 0.002,
            "beta1": 0.9,
            "beta": 0.0001,
            "kl_anneal": "cyclical",
            "kl_anneal_cycle": 4,
            "kl_anneal_ratio": 2.0,
            "tfr": 1.0,
            "tfr_start_decay_epoch": 150,
            "tfr_decay_step": 0.01,
            "tfr_lower_bound": 0.0,
            "seed": 1,
            "device": "auto",
        },
    }
    for section, values in expected.items():
        assert {name: config[section][name] for name in values} == values
    assert config.keys() == {"schema_version", *expected}

    assert "processed_data: has no index yet; `svg-data index processed_data` does it now, once\n" in out
    assert "processed_data/index.csv: 14 sequences (12 train, 1 validate, 1 test)" in out
    assert "note: --cuda: found no GPU, so the training runs on the CPU\n" in errors
    assert "save_model_name" not in errors + out and "UserWarning" not in errors


def test_the_command_line_of_the_assignment_in_fields():
    """The settings that it stands for, and notes on those of its flags that do less than they say."""
    args = train.parse(ASSIGNMENT.split())
    assert args.notes == {} and args.cuda
    default = Config()
    changed = {
        (name, key): value
        for name in ("data", "model", "train")
        for key, value in vars(getattr(config_from_arguments(args), name)).items()
        if value != getattr(getattr(default, name), key)
    }
    assert changed == {
        ("data", "data_root"): "./processed_data",
        ("data", "n_eval"): 10,
        ("data", "workers"): 10,
        ("train", "log_dir"): "./logs/fp",
        ("train", "batch_size"): 12,
        ("train", "kl_anneal"): "cyclical",
        ("train", "kl_anneal_cycle"): 4,
        ("train", "tfr_start_decay_epoch"): 150,
        ("train", "tfr_decay_step"): 0.01,
    }


def test_data_without_an_index_are_indexed(tmp_path, capsys):
    root = tmp_path / "processed_data"
    write_processed_data(root)
    flags = [*TINY.split(), "--data_root", str(root), "--log_dir", str(tmp_path / "run")]
    assert train.main(flags) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(
        f"{root}: has no index yet; `svg-data index {root}` does it now, once\n{root / 'index.csv'}: 14 seq"
    )
    assert train.main(["--log_dir", str(tmp_path / "run"), "--resume", "--niter", "2"]) == 0
    printed = capsys.readouterr().out
    assert "has no index yet" not in printed and "\nepoch   2" in printed


@pytest.mark.parametrize("left", ["index.csv", "dataset.json"])
def test_half_an_index_is_not_replaced(left, tmp_path, capsys):
    write_processed_data(tmp_path / "data")
    assert svg_data.main(["index", str(tmp_path / "data")]) == 0
    (tmp_path / "data" / ({"index.csv", "dataset.json"} - {left}).pop()).unlink()
    capsys.readouterr()
    flags = [*TINY.split(), "--data_root", str(tmp_path / "data"), "--log_dir", str(tmp_path / "run")]
    assert train.main(flags) == 2
    assert "not found; run `svg-data index" in capsys.readouterr().err


def test_data_that_cannot_be_indexed_in_place(tmp_path, capsys, monkeypatch):
    """Without the right to write, by one of several processes, and without sequences."""
    write_processed_data(tmp_path / "data")
    (tmp_path / "empty").mkdir()
    flags = [*TINY.split(), "--log_dir", str(tmp_path / "run"), "--data_root"]
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: False)  # for root everything can be written
        assert train.main([*flags, str(tmp_path / "data")]) == 2
    assert (
        "has no index, and none can be written there; change its rights or index a copy"
        in capsys.readouterr().err
    )
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        assert train.main([*flags, str(tmp_path / "data")]) == 2
    assert train.main([*flags, str(tmp_path / "empty")]) == 2
    for line in capsys.readouterr().err.splitlines():
        assert ": not found; run `svg-data index" in line


def test_a_fault_in_data_without_an_index_is_named(tmp_path, capsys):
    write_processed_data(tmp_path / "data")
    (tmp_path / "data" / "train" / "traj_0_to_255.tfrecords" / "3" / "7.png").unlink()
    assert (
        train.main([*TINY.split(), "--data_root", str(tmp_path / "data"), "--log_dir", str(tmp_path / "run")])
        == 2
    )
    assert "7.png: missing frame; found 29 frames up to 29.png" in capsys.readouterr().err
    assert not (tmp_path / "data" / "index.csv").exists() and not (tmp_path / "run").exists()


def test_svg_compare_indexes_them_too(tmp_path, capsys):
    write_processed_data(tmp_path / "data")
    flags = ["--data_root", str(tmp_path / "data"), "--n_eval", "40", "--dataset", "bair"]
    assert compare.main([str(tmp_path / "out"), *flags]) == 2
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{tmp_path / 'data'}: has no index yet; ")
    note, error = printed.err.splitlines()
    assert (
        note.startswith("note: --dataset bair: not used") and "found 30 frames, expected at least 40" in error
    )
