"""Files and functions of the code that pages name are there."""

import ast
import re

import pytest

from tests.support.places import ROOT

from .pages import NAMES, text

NAME = re.compile(r"`((?:svg|data_tools|experiments|tests)/[\w/]+\.py)(?::([\w.]+))?`")


def definitions(path: str) -> set[str]:
    """Return the functions and classes of a file and the methods of its classes, as ``Class.method``."""
    names = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}.{method.name}" for method in node.body if isinstance(method, ast.FunctionDef)
            }
    return names


@pytest.mark.parametrize("page", NAMES)
def test_code_that_pages_name_is_there(page):
    for path, name in NAME.findall(text(page)):
        assert (ROOT / path).exists(), path
        assert not name or name in definitions(path), f"{path}:{name}"


def test_the_walks_name_much():
    assert len(NAME.findall(text("docs/architecture.md"))) >= 30
