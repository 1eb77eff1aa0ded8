"""Fixtures of all tests."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from data_tools import poses
from data_tools.folders import write_sequence
from data_tools.index import build_index
from svg.config import Config
from tests.support.runs import make_config
from tests.support.samples import moving_square, walking_block

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)
# A shell has what it runs in the background ignore Ctrl-C, and so would the commands that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 training, 5 validation and 5 test sequences of 15 frames, indexed."""
    root, generator = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    for split, count in (("train", 12), ("validate", 5), ("test", 5)):
        for number in range(count):
            write_sequence(root / split / str(number), *moving_square(generator, 15))
    build_index(root, "squares")
    return root


@pytest.fixture(scope="session")
def push_sim_graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that ``svg-export push-sim`` writes."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from experiments import export

    folder = tmp_path_factory.mktemp("graphs") / "push-sim_onnx"
    assert export.main(["push-sim", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def small_config(data_root: Path, tmp_path: Path) -> Config:
    return make_config(data_root, tmp_path / "run")


@pytest.fixture(scope="session")
def pose_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 training, 2 validation and 2 test sequences of 24 frames with poses, 16x32 pixels, indexed."""
    root, generator = tmp_path_factory.mktemp("blocks"), np.random.default_rng(0)
    for split, count in (("train", 5), ("validate", 2), ("test", 2)):
        for number in range(count):
            poses.write_sequence(root, split, str(number), *walking_block(generator, 24))
    build_index(root, "blocks")
    return root
