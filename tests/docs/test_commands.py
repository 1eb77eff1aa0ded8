"""Commands of the pages are accepted as they stand there: flags, choices, recipes."""

import importlib
import re
import shlex

import pytest

from .pages import NAMES, text

LISTING = re.compile(r"^```(?:bash|sh)?\n(.*?)^```", re.MULTILINE | re.DOTALL)


ABSENT = ("--published", "@flags.args")
"""Flags that need a folder or a file of the reader's own."""


def commands(page: str) -> list[str]:
    """Return the command lines in listings of a page, without those that are shown to fail.

    In listings with prompts (``$``) other lines are output.
    """
    lines = []
    for listing in LISTING.findall(text(page)):
        rows = listing.replace("\\\n", " ").splitlines()
        prompted = any(row.startswith("$ ") for row in rows)
        for row, after in zip(rows, [*rows[1:], ""], strict=True):
            match = re.match(r"(\$ )?(svg-\w+) ", row)
            if match and bool(match[1]) == prompted and not after.startswith(match[2]):
                lines += [part.strip() for part in row.removeprefix("$ ").split(" #")[0].split(";")]
    return [line for line in lines if line.startswith("svg-") and not any(word in line for word in ABSENT)]


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
