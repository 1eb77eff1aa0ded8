"""Links, pictures and anchors of all pages lead somewhere, and what the pages name is there."""

import re
import subprocess

import pytest

from tests.support.places import ROOT

from .pages import NAMES, anchors, links, repository_path, slug_of_git_hosts, slug_of_the_site, text


def test_anchors_as_git_hosts_and_the_site_make_them():
    """As GitHub and Python-Markdown document them; where the two differ, no page may use the anchor."""
    assert slug_of_git_hosts("LPIPS, FVD, KVD") == slug_of_the_site("LPIPS, FVD, KVD") == "lpips-fvd-kvd"
    assert slug_of_git_hosts("`svg.load` and [data](data.md)") == "svgload-and-data"
    assert slug_of_git_hosts("A / B") == "a--b" and slug_of_the_site("A / B") == "a-b"


@pytest.mark.parametrize("page", NAMES)
def test_links_lead_somewhere(page):
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            assert link.startswith("https://"), link
            continue
        target, _, anchor = link.partition("#")
        path = repository_path(page, target) if target else ROOT / page
        assert path.exists(), link
        assert path.resolve().is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(path.resolve().relative_to(ROOT).as_posix()), link


def test_files_that_code_and_recipes_name_are_there():
    """Pages and pictures of docs/, in messages, docstrings and comments."""
    files = [
        path
        for package in ("svg", "data_tools", "experiments", "tests")
        for pattern in ("*.py", "*.args")
        for path in (ROOT / package).rglob(pattern)
    ]
    named = {
        name for path in files for name in re.findall(r"\bdocs/[\w.]+\.(?:md|png|gif)\b", path.read_text())
    }
    assert named
    assert not [name for name in named if not (ROOT / name).exists()]


def test_every_page_and_picture_of_docs_is_used():
    """Every page stands in the site's navigation and in docs/index.md, every picture on a page."""
    navigation = set(re.findall(r": ([\w.]+\.md)$", text("mkdocs.yml"), re.MULTILINE))
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert navigation == pages | {"readme.md"}
    assert pages - {"index.md"} <= set(links("docs/index.md"))
    used = {repository_path(page, link).resolve() for page in NAMES for link in links(page)}
    pictures = [path for pattern in ("*.png", "*.gif", "*.svg") for path in (ROOT / "docs").glob(pattern)]
    assert not [path.name for path in pictures if path.resolve() not in used]


def test_readme_is_short():
    assert len(text("README.md").splitlines()) <= 200


def test_the_file_tree_of_readme_is_that_of_the_repository():
    tree = text("README.md").split("## Files")[1].split("```")[1]
    folders = []
    for line in tree.splitlines():
        if match := re.match(r"( *)([a-z_]+)/ ", line):
            folders.append(f"{folders[-1].split('/')[0]}/{match[2]}" if match[1] else match[2])
    assert not [folder for folder in folders if not (ROOT / folder).is_dir()]
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT)
    if tracked.returncode:
        pytest.skip("not a clone of the repository")
    top = {name.split("/")[0] for name in tracked.stdout.splitlines() if "/" in name and name[0] != "."}
    assert top == {folder for folder in folders if "/" not in folder}


def test_commands_of_readme_are_those_that_are_installed():
    scripts = re.findall(r"^(svg-\w+) = ", text("pyproject.toml"), re.MULTILINE)
    table = text("README.md").split("## Commands")[1].split("## Data")[0]
    assert set(re.findall(r"^\| `(svg-\w+)", table, re.MULTILINE)) == set(scripts)
