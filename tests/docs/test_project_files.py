"""CITATION.cff, the changelog and the configuration of tools agree with the package."""

import re

import pytest

import svg

from .pages import text

yaml = pytest.importorskip("yaml")


def test_citation():
    """The keys that Citation File Format 1.2.0 requires, and the paper as reference."""
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert (
        citation["title"]
        and citation["message"]
        and citation["authors"] == [{"name": "svg-push contributors"}]
    )
    assert str(citation["version"]) == svg.__version__ and citation["license"] == "MIT"
    assert citation["references"][0]["authors"][0]["family-names"] == "Denton"


def test_the_newest_entry_of_the_changelog_is_this_version():
    assert re.findall(r"^## (.+)$", text("CHANGELOG.md"), re.MULTILINE)[:2] == [svg.__version__, "0.1.0"]


def test_workflow():
    """Linux and macOS, every version of Python that the package claims; commands that the Makefile has."""
    jobs = yaml.safe_load(text(".github/workflows/tests.yml"))["jobs"]
    matrix = jobs["check"]["strategy"]["matrix"]
    claimed = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text("pyproject.toml"))
    assert matrix["python"] == claimed
    assert {system.split("-")[0] for system in matrix["os"]} == {"ubuntu", "macos"}
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    targets = {words.split()[1] for words in runs if words.startswith("make ")}
    assert targets == {"check", "test"} and all(f"\n{target}:" in text("Makefile") for target in targets)


def test_pre_commit_runs_ruff():
    hooks = [
        hook for repo in yaml.safe_load(text(".pre-commit-config.yaml"))["repos"] for hook in repo["hooks"]
    ]
    assert [hook["entry"].split(" --")[0] for hook in hooks] == ["ruff check", "ruff format"]
