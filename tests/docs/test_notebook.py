"""The notebooks in examples/ run from their first to their last cell."""

import json
import re
import sys

import pytest

from tests.support.places import ROOT

nbformat = pytest.importorskip("nbformat")


def read_notebook(name):
    notebook = nbformat.read(ROOT / "examples" / name, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def printed(notebook):
    return "".join(output.get("text", "") for output in outputs(notebook))


def pictures(notebook):
    return [output for output in outputs(notebook) if "image/png" in output.get("data", {})]


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Return a function that executes a notebook of examples/ with this Python, in an empty folder."""
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("mujoco")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    kernel = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "",
        "language": "python",
    }
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    (tmp_path / "kernels" / "this").mkdir(parents=True)
    (tmp_path / "kernels" / "this" / "kernel.json").write_text(json.dumps(kernel))
    resources = {"metadata": {"path": str(tmp_path)}}

    def run(name):
        notebook = read_notebook(name)
        nbclient.NotebookClient(notebook, timeout=300, kernel_name="this", resources=resources).execute()
        return notebook

    return run


@pytest.mark.parametrize("name", ["push.ipynb", "fine_tune.ipynb"])
def test_notebooks_without_outputs(name):
    cells = code_cells(read_notebook(name))
    assert len(cells) >= 5
    assert not [cell for cell in cells if cell.outputs or cell.execution_count]


def test_environment_has_outputs_of_one_run_and_is_small():
    """A page of a git host shows it as it is stored."""
    notebook = read_notebook("environment.ipynb")
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert len(pictures(notebook)) == 5
    assert (ROOT / "examples" / "environment.ipynb").stat().st_size < 400_000


@pytest.mark.slow
def test_push_runs(execute):
    """Planning comes nearer to its goal: the error of the best plan falls to less than half."""
    notebook = execute("push.ipynb")
    errors = [float(number) for number in re.findall(r"last frame (\d\.\d+)", printed(notebook))]
    assert len(errors) == 5 and errors[-1] < errors[0] / 2
    assert len(pictures(notebook)) == 2


@pytest.mark.slow
def test_fine_tune_runs(execute):
    """A test scene is predicted better than before, by decibels, and the loss of the own loop falls."""
    pytest.importorskip("pyarrow")
    pytest.importorskip("av")
    notebook = execute("fine_tune.ipynb")
    text = printed(notebook)
    before, after = re.findall(r"(?:before|after): (\d+\.\d+) dB on 2 test sequences", text)
    assert float(after) > float(before) + 2
    losses = [float(number) for number in re.findall(r"step \d: loss (\d\.\d+)", text)]
    assert len(losses) == 6 and losses[-1] < 0.7 * losses[0]
    assert re.findall(r"^epoch +(\d) ", text, re.MULTILINE) == ["0", "1", "2", "3"]
    assert len(pictures(notebook)) == 2
    assert "%|" not in text  # no progress bars, which a notebook shows as a line for each step


@pytest.mark.slow
def test_environment_runs(execute):
    """It prints what is stored but for the numbers, and the model beats a copy of the last frame by far."""
    notebook = execute("environment.ipynb")
    text = printed(notebook)
    assert re.sub(r"[+-]?\d+", "0", text) == re.sub(
        r"[+-]?\d+", "0", printed(read_notebook("environment.ipynb"))
    )
    assert "solved: True" in text and "the same pictures: True" in text
    scores = re.findall(r": (\d+\.\d) dB, the last given frame copied: (\d+\.\d) dB", text)
    assert len(scores) == 2
    assert all(float(predicted) > float(copied) + 5 for predicted, copied in scores)
    assert len(pictures(notebook)) == 5
