"""Training by several processes over gloo, as torchrun starts them, is training by one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from svg.checkpoint import load_model
from svg.config import Config, flag_values

ROOT = Path(__file__).parent.parent
LOSSES = ("loss", "mse", "kl", "val_rec_psnr", "val_pred_psnr")


def arguments(config: Config, run: Path, **changes) -> list[str]:
    words = []
    for name, value in (flag_values(config) | {"log_dir": str(run)} | changes).items():
        words += [f"--{name}", str(value)] if not isinstance(value, bool) else [f"--{name}"] if value else []
    return words


def train(config: Config, run: Path, processes: int, **changes) -> subprocess.CompletedProcess:
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)] if processes > 1 else []
    return subprocess.run(
        [sys.executable, *launcher, "-m", "experiments.train", *arguments(config, run, **changes)],
        capture_output=True, text=True, cwd=ROOT, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "group", "tfr": 0.5, "accumulate": 2, "max_grad_norm": 1.0},
        # SGD: Adam's first steps turn the rounding in gradients that are zero, of biases before batch norm, into whole steps
        {
            "norm": "batch",
            "recurrence": "vector",
            "model": "vgg",
            "width": 0.05,
            "tfr": 1.0,
            "data_device": "cpu",
            "optimizer": "sgd",
        },
    ],
)
def test_two_processes_train_as_one(small_config, tmp_path, changes):
    lines, states = [], []
    for processes in (1, 2):
        run = tmp_path / f"of_{processes}"
        done = train(small_config, run, processes, **changes)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("epoch   1") == 1
        lines.append([json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()])
        states.append(load_model(run, "last")[0].state_dict())
    for one, two in zip(*lines, strict=True):
        assert {name: two[name] for name in LOSSES} == pytest.approx({name: one[name] for name in LOSSES}, rel=2e-4)
    for name, weight in states[0].items():
        torch.testing.assert_close(states[1][name], weight, rtol=1e-2, atol=2e-3, msg=lambda text, name=name: f"{name}: {text}")


def test_a_batch_that_cannot_be_shared(small_config, tmp_path):
    done = train(small_config, tmp_path / "run", 2, batch_size=3)
    assert done.returncode != 0
    assert "--batch_size: found 3, expected a multiple of the 2 processes: it is that of all together" in done.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()
