"""Training by several processes over gloo, as torchrun starts them, is training by one."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from svg.config import Config
from svg.flags import flag_values
from svg.processes import World
from svg.runs import checkpoint
from svg.runs.checkpoint import load_model
from svg.runs.metrics_log import read_metrics
from svg.sequences import SequenceDataset, TrainingBatches
from svg.training.loop import Training
from tests.support.processes import free_port, launch
from tests.support.processes import start as start_process
from tests.support.runs import assert_same_run, changed

LOSSES = ("loss", "mse", "kl", "val_rec_psnr", "val_pred_psnr")


def arguments(config: Config, run: Path, **changes) -> list[str]:
    words = []
    for name, value in (flag_values(config) | {"log_dir": str(run)} | changes).items():
        words += [f"--{name}", str(value)] if not isinstance(value, bool) else [f"--{name}"] if value else []
    return words


def train(config: Config, run: Path, count: int, **changes) -> subprocess.CompletedProcess:
    return launch("experiments.train", arguments(config, run, **changes), count)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "group", "tfr": 0.5, "accumulate": 2, "max_grad_norm": 1.0},
        # SGD: biases before batch norm have zero gradients, whose rounding Adam's first steps would blow up
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
        assert {name: two[name] for name in LOSSES} == pytest.approx(
            {name: one[name] for name in LOSSES}, rel=2e-4
        )
    for name, weight in states[0].items():
        torch.testing.assert_close(
            states[1][name], weight, rtol=1e-2, atol=2e-3, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.slow
def test_the_failure_of_one_process_ends_all(small_config, data_root, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(data_root, root)
    dataset = SequenceDataset(root, "train", 6)
    share = World(1, 2).shard(4)  # the second process finds this in its first batch
    sequence, start, _ = TrainingBatches(dataset, 4, small_config.train.seed, "random", share).clips(0)[0]
    broken = root / dataset.index["path"].iloc[sequence] / f"{start}.png"
    broken.write_bytes(b"x")
    done = train(small_config, tmp_path / "run", 2, data_root=str(root))
    assert done.returncode != 0
    assert f"{broken.name}: not a PNG image (1 bytes)" in done.stderr


def start(config: Config, run: Path, rank: int, port: int, prelude: str = "", **changes) -> subprocess.Popen:
    """Start one of two processes, without a launcher that would end the other."""
    code = f"import sys\n{prelude}\nfrom experiments.train import main\nsys.exit(main(sys.argv[1:]))"
    return start_process(code, arguments(config, run, **changes), rank, port)


def wait_for_step(run: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while not (checkpoint.exists(run, "last") and checkpoint.find(run, "last").step >= step):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("killed", "workers"), [(0, 1), (1, 0)])
def test_one_of_two_is_killed_and_both_are_resumed(small_config, tmp_path, killed, workers):
    """The other ends within a minute, and the run ends with the bytes of one that was never killed."""
    config = changed(
        small_config, niter=4, norm="batch", batch_size=4, tfr=0.5, save_minutes=1e-9, workers=workers
    )
    whole, run, port = tmp_path / "whole", tmp_path / "run", free_port()
    assert train(config, whole, 2).returncode == 0
    processes = [start(config, run, rank, port) for rank in range(2)]
    wait_for_step(run, 4)
    processes[killed].kill()
    began = time.monotonic()
    errors = processes[1 - killed].communicate(timeout=60)[1]
    assert processes[1 - killed].returncode == 2 and time.monotonic() - began < 60
    assert len(errors.strip().splitlines()) == 1, errors
    assert "svg-train: the connection to the other processes is lost" in errors
    processes[killed].communicate()
    step = checkpoint.find(run, "last").step
    assert 4 <= step < 12
    port = free_port()
    processes = [start(config, run, rank, port, resume=True) for rank in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0], processes[0].stderr.read()
    assert_same_run(run, whole)


@pytest.mark.slow
@pytest.mark.parametrize("hung", [0, 1])
def test_one_that_hangs_is_noticed(small_config, tmp_path, hung):
    """It neither ends nor closes its connections; with a timeout of seconds instead of minutes."""
    config, run, port = changed(small_config, niter=10**6, save_minutes=1e-9), tmp_path / "run", free_port()
    prelude = (
        "import datetime, svg.processes as processes\nprocesses.TIMEOUT = datetime.timedelta(seconds=15)"
    )
    processes = [start(config, run, rank, port, prelude) for rank in range(2)]
    try:
        wait_for_step(run, 2)
        processes[hung].send_signal(signal.SIGSTOP)
        errors = processes[1 - hung].communicate(timeout=60)[1]
        assert processes[1 - hung].returncode == 2
        assert "svg-train: the connection to the other processes is lost" in errors
        assert "keeps its last checkpoint" in errors
    finally:
        processes[hung].kill()
        processes[hung].communicate()


@pytest.mark.slow
def test_a_signal_to_one_stops_both_after_the_same_step(small_config, tmp_path):
    config, run, port = changed(small_config, niter=10**6), tmp_path / "run", free_port()
    processes = [start(config, run, rank, port) for rank in range(2)]
    wait_for_step(run, 3)
    processes[1].send_signal(signal.SIGTERM)
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [143, 143], errors
    step = checkpoint.find(run, "last").step
    assert all(f"svg-train: SIGTERM: stopped after step {step}, all is saved" in text for text in errors)


@pytest.mark.slow
def test_two_processes_begin_with_one_scored_start(small_config, tmp_path):
    """Epoch 0 has the origin's scores, and the first process alone says so."""
    origin = Training(changed(small_config, log_dir=str(tmp_path / "origin"), niter=1)).fit()
    done = train(small_config, tmp_path / "run", 2, init_from=str(origin), niter=1)
    assert done.returncode == 0, done.stderr
    words = [line.split()[0] for line in done.stdout.splitlines()[1:-1]]
    assert words == ["data", "model", "training", "schedule", "scores", "epoch", "epoch"]
    assert ", 2 processes\n" in done.stdout
    (own,), (start, line) = read_metrics(origin), read_metrics(tmp_path / "run")
    expected = {"epoch": 0, "step": 0} | {name: own[name] for name in own if name.startswith("val_")}
    assert start == pytest.approx(expected, rel=1e-5)  # two processes compute on fewer threads each
    assert (line["epoch"], line["step"]) == (1, 3)


@pytest.mark.slow
def test_another_number_of_processes_is_taken_over_knowingly(small_config, tmp_path):
    run = Training(changed(small_config, log_dir=str(tmp_path / "run"), niter=1)).fit()
    done = train(small_config, run, 2, resume=True)
    assert done.returncode != 0
    assert (
        f"processes: found 2, expected 1, with which {run} was begun" in done.stderr
        and "--take_over" in done.stderr
    )
    assert all(path.name != "fault" for path in run.iterdir())
    done = train(small_config, run, 2, resume=True, take_over=True)
    assert done.returncode == 0 and "processes: 1 up to step 3, 2 from there on" in done.stdout, done.stderr


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared(small_config, tmp_path):
    done = train(small_config, tmp_path / "run", 2, batch_size=3)
    assert done.returncode != 0
    assert (
        "--batch_size: found 3, expected a multiple of the 2 processes: it is that of all together"
        in done.stderr
    )
    assert not (tmp_path / "run" / "checkpoints").exists()
