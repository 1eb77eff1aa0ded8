"""Imports run one way, a command's --help loads nothing heavy, and old import paths still work."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import ROOT

HEAVY = ("torch", "torchvision", "skimage", "matplotlib", "mujoco")
WINGS = ("play", "planning", "hub", "figures", "evaluation", "training", "runs", "models")
"""The wings of `svg`, from the top down: none imports one above it."""
BELOW = {
    "play": {"figures", "runs", "models"},
    "planning": {"evaluation", "runs", "models"},
    "hub": {"evaluation", "runs", "models"},
    "figures": {"evaluation"},
    "training": {"figures", "evaluation", "runs", "models"},
    "evaluation": {"models"},
    "runs": {"models"},
    "models": set(),
}
"""The wings that a wing may import."""
SHARED = (
    "camera",
    "conditions",
    "errors",
    "files",
    "index",
    "json_files",
    "layout",
    "store",
    "truth",
    "command",
    "lock",
    "pool",
)
"""The modules of `data_tools` that `svg` may import."""


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Return the modules that a file names in its imports, relative ones made absolute."""
    package = list(path.relative_to(ROOT).parent.parts)
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def test_imports_run_one_way():
    for path in modules("data_tools"):
        assert not [n for n in imported(path) if n.split(".")[0] in ("torch", "svg", "experiments")], path
    for path in modules("svg"):
        assert not [n for n in imported(path) if n.startswith("experiments")], path
        outside = {n.split(".")[1] for n in imported(path) if n.startswith("data_tools.")}
        simulators = {"simulators"} if path.parent.name in ("planning", "play") else set()
        assert outside <= set(SHARED) | simulators, path


@pytest.mark.parametrize("wing", WINGS)
def test_wings_import_only_what_is_below_them(wing):
    for path in modules(f"svg/{wing}"):
        found = {n.split(".")[1] for n in imported(path) if n.startswith("svg.")} & set(WINGS)
        assert found <= BELOW[wing] | {wing}, path


def test_no_module_imports_itself_in_a_circle():
    arrows = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): imported(path)
        for package in ("data_tools", "svg", "experiments")
        for path in modules(package)
        if path.name != "__init__.py"
    }
    while free := [name for name, targets in arrows.items() if not targets & arrows.keys()]:
        arrows = {name: targets for name, targets in arrows.items() if name not in free}
    assert not arrows


def test_there_is_one_printer_and_one_walk():
    """`command.tell` cleans what it shows and survives closed streams; `files.walk` fails loudly."""
    printers = {"command.py", "workloads.py"}  # the latter talks to its parent process
    for path in (path for package in ("data_tools", "svg", "experiments") for path in modules(package)):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = {call.id for call in calls if isinstance(call, ast.Name)}
        methods = {
            (call.value.id, call.attr)
            for call in calls
            if isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name)
        }
        assert "print" not in names or path.name in printers, path
        assert not methods & {("os", "walk"), ("tqdm", "write")}, path


@pytest.mark.slow
@pytest.mark.parametrize(
    "old", ["checkpoint", "inference", "model", "predictor", "pretrained", "protocols", "results"]
)
def test_import_paths_of_version_0_1(old):
    code = f"""
import warnings
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    import svg.{old} as module
print(module.__name__, *(warning.message for warning in told if warning.category is FutureWarning), sep="; ")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    new = done.stdout.split(";")[0]
    assert new.count(".") == 2
    assert done.stdout == f"{new}; svg.{old} is now {new}\n"


@pytest.mark.slow
def test_public_names():
    code = "import svg; print(*sorted(type(getattr(svg, name)).__name__ for name in svg.__all__))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == [
        "Target",
        "function",
        "function",
        "function",
        "function",
        "function",
        "str",
        "type",
        "type",
        "type",
        "type",
    ]


@pytest.mark.parametrize(
    "module",
    [
        "data_tools.__main__",
        *(
            f"experiments.{n}"
            for n in (
                "train",
                "evaluate",
                "render",
                "rollout",
                "plan",
                "plot",
                "report",
                "compare",
                "quickstart",
                "benchmark",
                "import_published",
                "export",
                "play",
            )
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


@pytest.mark.parametrize(("given", "kept"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_that_wait_sleep_unless_told_otherwise(given, kept):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | given
    code = "import svg, sys, os; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True, env=environment
    )
    assert done.stdout == f"{kept} False\n"


def test_another_distribution_that_owns_the_name(tmp_path):
    (tmp_path / "svg").mkdir()
    (tmp_path / "svg" / "__init__.py").write_text("class SVG: ...\n")
    info = tmp_path / "svg.py-1.5.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: svg.py\nVersion: 1.5.0\n")
    (info / "RECORD").write_text("svg/__init__.py,,\n")
    done = subprocess.run(
        [sys.executable, "-m", "experiments.train", "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )
    assert done.returncode == 1
    assert done.stderr == (
        "svg-push: found another package svg of svg.py, expected this project's; "
        "install svg-push into an environment of its own\n"
    )
