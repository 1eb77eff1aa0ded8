"""A data source from outside the package: the module of ``converters/README.md``, added in one place."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_tools import layout
from data_tools.store import open_store
from tests.support.places import ROOT

README = ROOT / "data_tools" / "converters" / "README.md"
LENGTHS = {"a": 5, "b": 4, "c": 3}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a folder of installed packages with the example, as pip would leave it."""
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    (entry_point,) = re.findall(r"```toml\n(.*?)```", README.read_text(), re.DOTALL)
    group, line = (part.strip() for part in entry_point.strip().splitlines())
    assert group == '[project.entry-points."svg_push.converters"]'
    name, target = (part.strip(' "') for part in line.split("="))
    package, module = target.split(".")
    site = tmp_path / "site"
    (site / package).mkdir(parents=True)
    (site / package / "__init__.py").touch()
    (site / package / f"{module}.py").write_text(code)
    add_distribution(site, package, f"{name} = {target}")
    return site


def add_distribution(site: Path, package: str, entry_point: str) -> None:
    info = site / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[svg_push.converters]\n{entry_point}\n")


@pytest.fixture
def recordings(tmp_path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write archives into ``tmp_path/recorded`` and return their frames and actions."""
    generator = np.random.default_rng(0)
    recorded = {}
    (tmp_path / "recorded").mkdir()
    for name, length in LENGTHS.items():
        frames = generator.integers(0, 256, (length, 16, 16, 3), np.uint8)
        actions = generator.normal(size=(length, 2)).astype(np.float32)
        np.savez(tmp_path / "recorded" / f"{name}.npz", frames=frames, actions=actions)
        recorded[name] = frames, actions
    return recorded


def svg_data(site: Path, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "data_tools", *map(str, arguments)]
    environment = {"PYTHONPATH": f"{ROOT}:{site}", "PATH": ""}
    return subprocess.run(command, capture_output=True, text=True, cwd=site.parent, env=environment)


def test_a_module_of_another_package_is_a_command(site, recordings, tmp_path):
    done = svg_data(site, "npz", "recorded", "data")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "data: 3 sequences written, 0 were there already",
        "data/index.csv: 3 sequences (1 train, 1 validate, 1 test), frames 16x16x3, "
        "2 action and 0 position columns",
    ]
    info = layout.read_info(tmp_path / "data")
    assert (info.name, info.source) == ("recorded", "NumPy archives")
    for split, (frames, actions) in zip(layout.SPLITS, recordings.values(), strict=True):
        store = open_store(tmp_path / "data", split)
        read = np.empty_like(frames)
        store.read_frames(0, 0, read)
        np.testing.assert_array_equal(read, frames)
        np.testing.assert_array_equal(store.read_conditions(0), actions)


def test_it_goes_on_and_refuses_another_source(site, recordings, tmp_path):
    archive = tmp_path / "recorded" / "b.npz"
    whole = archive.read_bytes()
    archive.write_bytes(whole[:100])
    done = svg_data(site, "npz", "recorded", "data")
    assert done.returncode == 2 and done.stderr.startswith("svg-data npz: recorded/b.npz: ")
    assert [path.name for path in (tmp_path / "data").glob("*/*")] == ["a"]
    archive.write_bytes(whole)
    done = svg_data(site, "npz", "recorded", "data")
    assert done.stdout.startswith("data: 2 sequences written, 1 were there already\n")
    archive.unlink()
    done = svg_data(site, "npz", "recorded", "data")
    assert done.returncode == 2 and "conversion.json: found files" in done.stderr


def test_help_lists_it_and_a_broken_package_is_named(site):
    add_distribution(site, "broken", "hdf5 = broken.hdf5")
    add_distribution(site, "same", "bair = same.bair")  # the name of a command of this package
    done = svg_data(site, "--help")
    listed = " ".join(done.stdout.split())
    assert "npz Converts .npz files with the arrays frames and actions, each into one sequence." in listed
    assert "bair convert BAIR TFRecords" in listed and "hdf5" not in listed
    assert done.stderr == (
        "svg-data: note: hdf5 is not available: ModuleNotFoundError(\"No module named 'broken'\")\n"
    )
    assert svg_data(site, "hdf5").returncode == 2
