"""Imports run one way, and a command's --help loads nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "torchvision", "skimage", "matplotlib", "mujoco")


def imported(path: Path) -> set[str]:
    """The modules that a file names in its imports, relative ones made absolute."""
    package, names = path.parent.name, set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(part for part in (package if node.level else "", node.module or "") if part)
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def test_imports_run_one_way():
    for path in (ROOT / "data_tools").glob("*.py"):
        assert not [n for n in imported(path) if n.split(".")[0] in ("torch", "svg", "experiments")], path
    for path in (ROOT / "svg").glob("*.py"):
        assert not [n for n in imported(path) if n.startswith("experiments")], path
        outside = {n for n in imported(path) if n.startswith("data_tools.")}
        allowed = tuple(f"data_tools.{name}" for name in ("errors", "files", "layout", "store", "command", "lock", "pool"))
        assert all(n.startswith(allowed) for n in outside), path
    for name in ("predictor", "model", "pose_cvae", "models", "backbones", "layers", "recurrent", "losses", "metrics"):
        assert not [n for n in imported(ROOT / "svg" / f"{name}.py") if "training" in n or "evaluation" in n], name


def test_there_is_one_printer_and_one_walk():
    """`command.tell` cleans what it shows and survives closed streams; `files.walk` fails loudly."""
    printers = {"command.py", "workloads.py"}  # the latter talks to its parent process
    for path in (path for package in ("data_tools", "svg", "experiments") for path in (ROOT / package).glob("*.py")):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = {call.id for call in calls if isinstance(call, ast.Name)}
        methods = {
            (call.value.id, call.attr) for call in calls if isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name)
        }
        assert "print" not in names or path.name in printers, path
        assert not methods & {"os.walk", "tqdm.write"}, path


@pytest.mark.parametrize(
    "module",
    [
        "data_tools.__main__",
        *(
            f"experiments.{n}"
            for n in ("train", "evaluate", "render", "rollout", "plot", "report", "compare", "quickstart", "benchmark")
        ),
    ],
)
def test_help_loads_nothing_heavy(module):
    code = f"""
import sys, {module} as command
try:
    command.main(["--help"])
except SystemExit as end:
    assert end.code == 0
print("LOADED", [name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.startswith("usage: svg-")
    assert done.stdout.splitlines()[-1] == "LOADED []"
