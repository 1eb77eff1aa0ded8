"""Training by several processes over gloo, as torchrun starts them, is training by one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from svg.checkpoint import load_model
from svg.config import Config, flag_values
from svg.distributed import World
from svg.sequences import SequenceDataset, TrainingBatches

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
    """The two stop after the first epoch and are resumed."""
    lines, states = [], []
    for processes in (1, 2):
        run = tmp_path / f"of_{processes}"
        goes = [{}] if processes == 1 else [{"niter": 1}, {"niter": 2, "resume": True}]
        for go in goes:
            done = train(small_config, run, processes, **changes | go)
            assert done.returncode == 0, done.stderr
        assert done.stdout.count("epoch   2") == 1 and done.stdout.count("evaluate with") == 1
        lines.append([json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()])
        states.append(load_model(run, "last")[0].state_dict())
    for one, two in zip(*lines, strict=True):
        assert {name: two[name] for name in LOSSES} == pytest.approx({name: one[name] for name in LOSSES}, rel=2e-4)
    for name, weight in states[0].items():
        torch.testing.assert_close(states[1][name], weight, rtol=1e-2, atol=2e-3, msg=lambda text, name=name: f"{name}: {text}")


def test_the_failure_of_one_process_ends_all(small_config, data_root, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(data_root, root)
    dataset = SequenceDataset(root, "train", 6)
    share = World(1, 2).share(4)  # the second process finds this in its first batch
    sequence, start, _ = TrainingBatches(dataset, 4, small_config.train.seed, "random", share).clips(0)[0]
    broken = root / dataset.index["path"].iloc[sequence] / f"{start}.png"
    broken.write_bytes(b"x")
    done = train(small_config, tmp_path / "run", 2, data_root=str(root))
    assert done.returncode != 0
    assert f"{broken.name}: not a PNG image (1 bytes)" in done.stderr


def test_a_batch_that_cannot_be_shared(small_config, tmp_path):
    done = train(small_config, tmp_path / "run", 2, batch_size=3)
    assert done.returncode != 0
    assert "--batch_size: found 3, expected a multiple of the 2 processes: it is that of all together" in done.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()
