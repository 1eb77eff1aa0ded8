"""Commands of the pages are accepted as they stand there: flags, choices, recipes."""

import pkgutil
import shlex
import sys
import tomllib

import pytest

from .pages import NAMES, commands, text

SCRIPTS = tomllib.loads(text("pyproject.toml"))["project"]["scripts"]


def parse(line: str):
    name, *words = shlex.split(line, comments=True)
    main = pkgutil.resolve_name(SCRIPTS[name])
    return sys.modules[main.__module__].parse(words)


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
