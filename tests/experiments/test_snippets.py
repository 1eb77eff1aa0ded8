"""The Python on all pages runs as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import NAMES, text
from tests.support import hub
from tests.support.places import ROOT

PAGES = [page for page in NAMES if "```python" in text(page)]
GIVEN = "import numpy as np\npast, conditions = np.zeros((2, 2, 3, 64, 64), np.uint8), np.zeros((2, 11, 7))\n"
"""The names that cards take for granted."""


@pytest.fixture(scope="module")
def demo(data_root, push_sim_graphs, tmp_path_factory) -> Path:
    """Return a folder with what pages read: demo/unseen, demo/data, and demo/run with its scores."""
    pytest.importorskip("mujoco")
    from data_tools import __main__ as svg_data
    from experiments import evaluate, train

    folder = tmp_path_factory.mktemp("pages") / "demo"
    flags = "--sequences 1 --frames 12 --seed 1000 --splits 0 0 1 --workers 1"
    assert svg_data.main(["simulate", str(folder / "unseen"), *flags.split()]) == 0
    (folder / "data").symlink_to(data_root)
    sizes = (
        "--model dcgan --width 0.1 --norm group --g_dim 8 --z_dim 2 --rnn_size 8 --batch_size 4 --niter 1 "
        "--epoch_size 2 --device cpu"
    )
    places = ["--data_root", str(folder / "data"), "--log_dir", str(folder / "run")]
    assert train.main([*sizes.split(), *places]) == 0
    assert evaluate.main([str(folder / "run"), "--n_sample", "2", "--device", "cpu"]) == 0
    for path in (folder / "run" / "evaluation").glob("test_n2*"):  # under the name of one with 100 samples
        path.with_name(path.name.replace("test_n2", "test")).write_text(
            path.read_text().replace("test_n2", "test")
        )
    (folder.parent / "runs").mkdir()
    (folder.parent / "runs" / "mine").symlink_to(folder / "run")
    (folder.parent / "push-sim_onnx").symlink_to(push_sim_graphs)
    return folder.parent


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_python_of_the_pages(demo, page, tmp_path):
    """Shapes in comments, such as ``# 64 plans [1,64,10,4]``, are those of what the line assigns.

    The Hub is one on loopback.
    """
    code = "\n".join(re.findall(r"```python\n(.*?)```", text(page), re.DOTALL))
    promised = re.findall(r"^(\w+) = .*#.*(\[\d+(?:,\d+){2,}\])", code, re.MULTILINE)
    checks = [
        f"assert list(getattr({name}, 'shape', {shape})) == {shape}, {name}.shape" for name, shape in promised
    ]
    assert len(checks) >= 7 or page != "docs/python.md"
    command = [sys.executable, "-W", "error::UserWarning", "-c", "\n".join([GIVEN, code, *checks])]
    with hub.hub_server() as server:
        own = hub.environment(server.endpoint, tmp_path) | {
            "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "",
        }
        done = subprocess.run(command, capture_output=True, text=True, cwd=demo, env=os.environ | own)
    assert done.returncode == 0, done.stderr
