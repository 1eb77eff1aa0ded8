"""Helpers for tests of runs: configurations, weights, interruptions, and comparing two runs."""

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import torch

from svg.config import Config, DataConfig, ModelConfig, TrainConfig
from svg.runs import checkpoint
from svg.runs.checkpoint import load_model
from svg.training.loop import Training


def make_config(data_root: Path, run: Path, **changes: Any) -> Config:
    """Return the configuration of a small training: two epochs of three steps."""
    config = Config(
        DataConfig(data_root=str(data_root), n_past=2, n_future=4, n_eval=6),
        ModelConfig(
            recurrence="spatial", model="dcgan", width=0.1, norm="group", g_dim=16, z_dim=3, rnn_size=16
        ),
        TrainConfig(
            log_dir=str(run),
            batch_size=4,
            niter=2,
            epoch_size=3,
            lr=0.002,
            precision="float32",
            device="cpu",
        ),
    )
    return changed(config, **changes)


def changed(config: Config, **values: Any) -> Config:
    """Return the configuration with some fields changed, whichever section they are in."""
    for name in ("data", "model", "train"):
        section = getattr(config, name)
        own = {key: value for key, value in values.items() if hasattr(section, key)}
        config = dataclasses.replace(config, **{name: dataclasses.replace(section, **own)})
    return config


def interrupt_scoring(training: Training) -> None:
    """Let this process get SIGTERM when the training begins to score."""
    score = training.score

    def interrupted() -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return score()

    training.score = interrupted


def weights(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    """Return the weights of a run."""
    return load_model(run, name)[0].state_dict()


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    """Assert that two sets of tensors are equal, bit for bit."""
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


def assert_same_run(run: Path, other: Path) -> None:
    """Assert that two runs are equal byte for byte: metrics, weights, the optimiser's state and progress."""
    assert (run / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    for name in ("last", "best"):
        one = checkpoint.find(run, name)
        two = checkpoint.find(other, name)
        assert one.digests == two.digests
        own = {"minutes": 0, "flags": {}}  # --niter may have been another one until then
        assert dataclasses.replace(one.progress, **own) == dataclasses.replace(two.progress, **own)
