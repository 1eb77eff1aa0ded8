"""Commands of the pages are accepted as they stand there: flags, choices, recipes."""

import importlib
import shlex

import pytest

from .pages import NAMES, commands


def parse(line: str):
    name, *words = shlex.split(line, comments=True)
    module = "data_tools.__main__" if name == "svg-data" else f"experiments.{name.removeprefix('svg-')}"
    return importlib.import_module(module).parse(words)


def test_commands_are_found():
    assert len(commands("docs/assignment.md")) >= 18
    assert (
        "svg-train @compare.args --data_root data/small --niter 12 --epoch_size 10 --log_dir runs/none"
        in commands("docs/assignment.md")
    )
    assert not [line for line in commands("docs/training.md") if "kl_aneal" in line]


@pytest.mark.parametrize("page", [page for page in NAMES if commands(page)])
def test_commands_are_accepted(page):
    for line in commands(page):
        parse(line)
