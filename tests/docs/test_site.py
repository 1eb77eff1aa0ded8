"""The documentation builds as a site without a warning."""

import os
import re
import subprocess
import sys

import pytest

from tests.support.places import ROOT

from .pages import NAMES

pytest.importorskip("material")
pytest.importorskip("mkdocstrings_handlers.python")


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    """All pages are there, none loads anything from elsewhere, and the API pages have functions."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = {
        path.relative_to(tmp_path / "site").as_posix(): path for path in (tmp_path / "site").rglob("*.html")
    }
    for name in NAMES:
        page = name.removeprefix("docs/").replace("/README.md", "/index.html").replace(".md", ".html")
        assert page.replace("README", "readme") in pages, name
    for path in pages.values():
        loaded = re.findall(
            r'<(?:script|img|iframe)[^>]* src="(\w+:[^"]*)|<link[^>]* rel="stylesheet"[^>]*href="(\w+:[^"]*)',
            path.read_text(),
        )
        assert not loaded, (path, loaded)
    assert 'id="svg.runs.pretrained.load"' in pages["api/svg.runs.html"].read_text()
