"""The pages of the documentation and what is in them."""

import re
import unicodedata
from pathlib import Path

from tests.support.places import ROOT

PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *(
            path
            for package in ("svg", "data_tools", "experiments")
            for path in (ROOT / package).rglob("README.md")
        ),
    ]
)
"""README and its neighbours, docs, cards of the released models, guides in the folders of the code."""
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
LINK = re.compile(r"\]\(([^()\s]+)\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
LISTING = re.compile(r"^```(?:bash|sh)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
ABSENT = ("--published", "@flags.args")
"""Flags that need a folder or a file of the reader's own."""


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose(page: str) -> str:
    """Return the text of a page without its listings."""
    return FENCE.sub("", text(page))


def links(page: str) -> list[str]:
    """Return the targets of all links and pictures of a page."""
    return LINK.findall(re.sub(r"`[^`\n]*`", "`code`", prose(page)))


def anchors(page: str) -> set[str]:
    """Return the anchors of a page that both a git host and the site give its headings."""
    headings = re.findall(r"^#+ +(.+?) *#*$", prose(page), re.MULTILINE)
    return {slug_of_git_hosts(heading) for heading in headings} & {
        slug_of_the_site(heading) for heading in headings
    }


def slug_of_git_hosts(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", plain(heading).lower()).replace(" ", "-")


def slug_of_the_site(heading: str) -> str:
    """Return what Python-Markdown's `slugify` gives."""
    ascii_only = unicodedata.normalize("NFKD", plain(heading)).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", ascii_only).strip().lower())


def plain(heading: str) -> str:
    """Return a heading without marks of code and emphasis and without the targets of its links."""
    return re.sub(r"[`*]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading))


def repository_path(page: str, target: str) -> Path:
    """Return the file that a relative link of a page leads to."""
    return (ROOT / page).parent / target


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
