"""Output to terminals, and commands whose streams are closed, full or read by nobody."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_tools import command
from data_tools.folders import write_sequence
from tests.support.places import ROOT


@pytest.fixture
def data(tmp_path) -> Path:
    """A data set without an index."""
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        frames = generator.integers(0, 256, (5, 64, 64, 3), np.uint8)
        write_sequence(tmp_path / "data" / split / "0", frames, generator.normal(size=(5, 2)), None)
    return tmp_path / "data"


def run(arguments: str, data: Path, **options) -> subprocess.CompletedProcess:
    """Run ``svg-data`` in a shell, with what `arguments` redirect."""
    words = f"{sys.executable} -m data_tools {arguments}"
    options = {"capture_output": True, "text": True} | options
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {words}"], cwd=data.parent, env=environment(), **options
    )


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)} | more


@pytest.mark.parametrize("closed", ["2>&-", "<&-", "<&- 2>&-"])
def test_a_closed_stream_changes_nothing(data, closed):
    done = run(f"index data {closed}", data)
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout == "data/index.csv: 2 sequences (1 train, 1 test; no validate), frames 64x64x3, "
        "2 action and 0 position columns\n"
    )
    assert (data / "index.csv").exists() and json.loads((data / "dataset.json").read_text())[
        "action_dim"
    ] == 2


def test_a_closed_stdout_loses_the_words_alone(data):
    done = run("index data >&-", data)
    assert (done.returncode, done.stderr) == (0, "")
    assert len((data / "index.csv").read_text().splitlines()) == 3


def test_a_reader_that_leaves_early_ends_no_work(data):
    done = run("index data | true", data)
    assert (done.returncode, done.stderr) == (141, "")
    assert len((data / "index.csv").read_text().splitlines()) == 3


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_behind_stdout_is_told_when_the_work_is_done(data):
    done = run("index data > /dev/full", data)
    assert done.returncode == 2
    assert done.stderr == (
        "svg-data: stdout: No space left on device; the text is lost, the work itself is done\n"
    )
    assert len((data / "index.csv").read_text().splitlines()) == 3


def test_help_for_a_reader_that_leaves_early(data):
    done = run("index --help | true", data)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


@pytest.mark.slow
def test_names_from_files_cannot_command_the_terminal(data):
    run("index data", data)
    info = json.loads((data / "dataset.json").read_text()) | {
        "name": "\x1b]0;owned\x07",
        "source": "caf\u00e9 \x9b31m",
    }
    (data / "dataset.json").write_text(json.dumps(info))
    done = run("show data", data)
    assert done.returncode == 0
    assert done.stdout.startswith("\\x1b]0;owned\\x07: café \\x9b31m (data, folders)\n")


@pytest.mark.slow
def test_letters_that_the_terminal_lacks_are_written_out(data):
    run("index data --source café", data)
    done = subprocess.run(
        [sys.executable, "-m", "data_tools", "show", "data"],
        cwd=data.parent, env=environment(PYTHONIOENCODING="ascii"), capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("data: caf\\xe9 (data, folders)\n")


def test_tell_goes_to_the_stream_that_is_asked_for(capsys):
    command.tell("one\ntwo \x1b[2J")
    command.tell("three \udcff", error=True)
    assert capsys.readouterr() == ("one\ntwo \\x1b[2J\n", "three \\udcff\n")
