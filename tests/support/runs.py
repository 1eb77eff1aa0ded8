"""What tests of runs share: other flags, a run's weights, and whether two runs came to the same."""

import dataclasses
from pathlib import Path

import torch

from svg.config import Config
from svg.runs import checkpoint
from svg.runs.checkpoint import load_model


def changed(config: Config, **values) -> Config:
    """The configuration with some fields changed, whichever section they are in."""
    for name in ("data", "model", "train"):
        section = getattr(config, name)
        mine = {key: value for key, value in values.items() if hasattr(section, key)}
        config = dataclasses.replace(config, **{name: dataclasses.replace(section, **mine)})
    return config


def weights(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return load_model(run, name)[0].state_dict()


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


def assert_same_run(run: Path, other: Path) -> None:
    """Byte for byte: metrics, weights, the optimiser's state and how far they are."""
    assert (run / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    for name in ("last", "best"):
        found, expected = checkpoint.find(run, name), checkpoint.find(other, name)
        assert found.digests == expected.digests
        own = {"minutes": 0, "flags": {}}  # --niter may have been another one until then
        assert dataclasses.replace(found.progress, **own) == dataclasses.replace(expected.progress, **own)
