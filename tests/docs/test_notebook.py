"""The notebook in examples/ runs from its first to its last cell."""

import json
import re
import sys

import pytest

from tests.support.places import ROOT

NOTEBOOK = ROOT / "examples" / "push.ipynb"
nbformat = pytest.importorskip("nbformat")


def read_notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_notebook_is_valid_and_without_outputs():
    notebook = read_notebook()
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) >= 5
    assert not [cell for cell in cells if cell.outputs or cell.execution_count]


@pytest.mark.slow
def test_notebook_runs(tmp_path, monkeypatch):
    """Planning comes nearer to its goal: the error of the best plan falls to less than half."""
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("mujoco")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    notebook = read_notebook()
    kernel = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "",
        "language": "python",
    }
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    (tmp_path / "kernels" / "this").mkdir(parents=True)
    (tmp_path / "kernels" / "this" / "kernel.json").write_text(json.dumps(kernel))
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="this", resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") for output in outputs)
    errors = [float(number) for number in re.findall(r"last frame (\d\.\d+)", printed)]
    assert len(errors) == 5 and errors[-1] < errors[0] / 2
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
