"""Hooks of MkDocs (`make docs`): pages from files outside ``docs/``, links to them, and the API pages."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("svg", "data_tools", "experiments")
FILES = ("CITATION.cff", *(f"examples/{name}.ipynb" for name in ("environment", "fine_tune", "push")))
"""Files that pages link to and that are copied as they are."""
LINK = re.compile(r"\[([^\[\]]*)\]\(([^()#\s]+)(#[^()\s]*)?\)")
"""A Markdown link or picture: its text, its target and the anchor there."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of files outside ``docs/`` and of the API, and put them into the navigation."""
    sections: dict[str, list] = {"Cards and guides": [], "Change": [], "API": []}
    for path in outside_pages():
        page = File.generated(config, site_path(path), content=(ROOT / path).read_text(encoding="utf-8"))
        files.append(page)
        folder = posixpath.dirname(path)
        if folder:
            sections["Cards and guides"].append({folder.removeprefix("svg/released/"): page.src_uri})
        elif path != "README.md":
            sections["Change"].append(page.src_uri)
    recipes = File.generated(config, "recipes.md", content=recipes_page())
    files.append(recipes)
    sections["Cards and guides"].append({"Recipes": recipes.src_uri})
    for package, modules in api_modules().items():
        page = File.generated(config, f"api/{package}.md", content=api_page(package, modules))
        files.append(page)
        sections["API"].append({package: page.src_uri})
    for path in FILES:
        files.append(File.generated(config, path, content=(ROOT / path).read_bytes()))
    for title, pages in sections.items():
        entry = next((entry for entry in config.nav if title in entry), None)
        if entry is None:
            config.nav.append({title: pages})
        else:
            entry[title] += pages
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links to files outside ``docs/`` into links to their pages."""
    source = repository_path(page.file.src_uri)
    if source is None:
        return markdown

    def rewrite(match: re.Match) -> str:
        words, target, anchor = match[1], match[2], match[3] or ""
        if re.match(r"\w+:", target):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        place, _, heading = site_path(path).partition("#")
        if place.endswith(".py"):  # without an API page
            return words
        anchor = f"#{heading}" if heading else anchor
        return f"[{words}]({posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or '.')}{anchor})"

    return LINK.sub(rewrite, markdown)


def outside_pages() -> list[str]:
    """Return the pages outside ``docs/``, as paths in the repository."""
    guides = [path for package in PACKAGES for path in (ROOT / package).rglob("README.md")]
    names = [path.relative_to(ROOT).as_posix() for path in guides]
    return [*sorted(names), "README.md", "CONTRIBUTING.md", "CHANGELOG.md"]


def site_path(path: str) -> str:
    """Return where a file of the repository is on the site."""
    if path == "README.md":
        return "readme.md"  # README.md would be taken for the start page
    if path.startswith("experiments/recipes/"):
        return "recipes.md#" + posixpath.basename(path).replace(".", "").lower()
    if path == "docs" or path.startswith("docs/"):
        return posixpath.relpath(path, "docs")
    module = path.removesuffix(".py").replace("/", ".")
    package = module.rpartition(".")[0]
    if module in api_modules().get(package, []):
        return f"api/{package}.md#{module}"
    if (ROOT / path).is_dir():
        return (
            posixpath.join(path, "README.md")
            if (ROOT / path / "README.md").exists()
            else f"api/{path.replace('/', '.')}.md"
        )
    return path


def repository_path(uri: str) -> str | None:
    """Return the file in the repository of a page of the site, None for pages that are made here."""
    if uri == "recipes.md" or uri.startswith("api/"):
        return None
    if uri == "readme.md":
        return "README.md"
    return uri if uri in outside_pages() else f"docs/{uri}"


def recipes_page() -> str:
    """Return the page with all recipes."""
    paths = sorted((ROOT / "experiments" / "recipes").glob("*.args"))
    parts = [f"## {path.name}\n\n```\n{path.read_text(encoding='utf-8')}```\n" for path in paths]
    return "\n".join(
        ["# Recipes\n\nFiles of flags for `svg-train @NAME` ([Training](training.md#recipes)).\n", *parts]
    )


def api_modules() -> dict[str, list[str]]:
    """Return the modules of each package that are documented, by the package's name."""
    packages: dict[str, list[str]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            *folders, name = path.relative_to(ROOT).with_suffix("").parts
            if name != "__main__":
                modules = packages.setdefault(".".join(folders), [])
                if name != "__init__":
                    modules.append(".".join([*folders, name]))
    return {name: modules for name, modules in packages.items() if modules}


def api_page(package: str, modules: list[str]) -> str:
    """Return the API page of a package: an entry for each of its modules."""
    return "\n\n".join([f"# {package}", *(f"::: {module}" for module in modules)]) + "\n"
