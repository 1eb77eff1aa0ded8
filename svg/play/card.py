"""A model's card, a README in Markdown, as HTML: headings, paragraphs, lists, tables and code."""

import re
from collections.abc import Iterator

from markupsafe import Markup, escape

SHOWN = ("Limitations", "Scores", "Data", "Training", "Licence")
"""The sections that a page shows, in this order, below the first paragraph."""
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
BLOCK = re.compile(r"```.*?```|(?:(?!```)[^\n]+\n?)+", re.DOTALL)
"""A block of code, or lines without an empty one between them."""


def card_html(text: str) -> Markup:
    """Return the first paragraph of a card and the sections that are `SHOWN`; links become their words."""
    sections = _sections(FRONT_MATTER.sub("", text))
    parts = list(_blocks(sections[""]))[:1]  # how to call it follows, which is for readers of the card
    for name in SHOWN:
        if name in sections:
            parts += [Markup("<h3>{}</h3>").format(name), *_blocks(sections[name])]
    return Markup("\n").join(parts)


def _sections(text: str) -> dict[str, str]:
    """Return the text below each heading of the second level, by its words."""
    first, *others = re.split(r"^## ", re.sub(r"\A\s*# .*\n", "", text), flags=re.MULTILINE)
    named = (part.partition("\n") for part in others)
    return {"": first} | {name.strip(): body for name, _, body in named}


def _blocks(text: str) -> Iterator[Markup]:
    for match in BLOCK.finditer(text):
        block = match[0].strip()
        if block.startswith("```"):
            yield Markup("<pre>{}</pre>").format("\n".join(block.split("\n")[1:-1]))
        elif block.startswith("|"):
            yield _table(block.split("\n"))
        elif block.startswith("- "):
            items = re.split(r"\n- ", block[2:])
            yield Markup("<ul>{}</ul>").format(Markup("").join(_element("li", item) for item in items))
        elif block:
            yield _element("p", block)


def _table(lines: list[str]) -> Markup:
    """Return a pipe table; its second line is a rule."""
    rows = [line.strip().strip("|").split("|") for line in lines]
    header = Markup("").join(_element("th", cell) for cell in rows[0])
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(Markup("").join(_element("td", cell) for cell in row))
        for row in rows[2:]
    )
    return Markup('<div class="scroll"><table><tr>{}</tr>{}</table></div>').format(header, body)


def _element(tag: str, text: str) -> Markup:
    """Return a line of text with its bold words and code marked."""
    line = str(escape(" ".join(text.split())))
    line = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line)
    line = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", line)
    line = re.sub(r"`([^`]*)`", r"<code>\1</code>", line)
    return Markup(f"<{tag}>{line}</{tag}>")
