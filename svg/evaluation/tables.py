"""Text tables and lists for terminal, Markdown, LaTeX and HTML; cells may hold any text."""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_tools.errors import clean
from data_tools.files import write_text

LATEX = {sign: f"\\{sign}" for sign in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


def one_line(text: str) -> str:
    """Return `text` as one line: line breaks become spaces, what cannot be printed is written out."""
    return clean(" ".join(text.splitlines()))


def number(value: float, form: str) -> str:
    """Return `value` in the format `form`, zero without a sign and without a point at the end."""
    text = format(value, form).rstrip(".")
    return text.lstrip("+-") if float(text.rstrip("%")) == 0 else text


def listing(words: dict[str, str]) -> str:
    """Return a line for each part, its name first."""
    width = max(map(len, words))
    return "\n".join(f"{part:{width}s} {line}" for part, line in words.items())


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column is left-aligned, the others right-aligned."""

    header: list[str]
    rows: list[list[str]]

    @property
    def lines(self) -> list[list[str]]:
        """The header and the rows, each cell in one line."""
        return [[one_line(cell) for cell in row] for row in [self.header, *self.rows]]

    def text(self, least_width: int = 0) -> str:
        """Return aligned columns for a terminal, those of numbers at least so many letters wide."""
        widths = [max(map(len, column)) for column in zip(*self.lines, strict=True)]
        widths[1:] = [max(width, least_width) for width in widths[1:]]
        lines = []
        for row in self.lines:
            numbers = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join([row[0].ljust(widths[0]), *numbers]).rstrip())
        return "\n".join(lines)

    def markdown(self) -> str:
        """Return a pipe table."""
        rule = ["---", *["---:"] * (len(self.header) - 1)]
        header, *rows = [
            [cell.replace("\\", r"\\").replace("|", r"\|") for cell in row] for row in self.lines
        ]
        return "".join(f"| {' | '.join(row)} |\n" for row in [header, rule, *rows])

    def html(self) -> str:
        """Return a table element; of two columns the second is text, which wraps."""
        header, *rows = self.lines
        head = _html_row(header, "th")
        body = "".join(_html_row(row, "td") for row in rows)
        kind = ' class="words"' if len(self.header) == 2 else ""
        table = f"<table{kind}><thead>{head}</thead><tbody>{body}</tbody></table>"
        return f'<div class="scroll">{table}</div>'

    def latex(self) -> str:
        """Return a tabular environment."""
        header, *rows = [_latex_row(row) for row in self.lines]
        columns = "l" + "r" * (len(self.header) - 1)
        begin = f"\\begin{{tabular}}{{{columns}}}\n\\hline\n"
        return f"{begin}{header}\\hline\n{''.join(rows)}\\hline\n\\end{{tabular}}\n"


def _html_row(cells: list[str], kind: str) -> str:
    return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in cells) + "</tr>"


def _latex_row(cells: list[str]) -> str:
    escaped = ["".join(LATEX.get(sign, sign) for sign in cell) for cell in cells]
    text = " & ".join(re.sub(r"(?<!\w)-(?=\d)", "$-$", cell) for cell in escaped)
    # the \\ of the row before would take these as its argument
    begin = "{}" if text.startswith(("[", "*")) else ""
    return begin + text + r" \\" + "\n"


def latex_comment(text: str) -> str:
    """Return comment lines of LaTeX, one for each line of `text`."""
    return "".join(f"% {clean(line)}\n" for line in text.splitlines())


def write_tables(stem: Path, tables: Sequence[Table], words: dict[str, str]) -> None:
    """Write tables, with `words` about them, to ``stem.md`` and ``stem.tex``."""
    notes = [f"{part}: {line}" for part, line in words.items()]
    markdown = [table.markdown() for table in tables]
    markdown.append("".join(f"- {one_line(note)}\n" for note in notes))
    write_text(Path(f"{stem}.md"), "\n".join(markdown))
    comments = "".join(latex_comment(note) for note in notes)
    write_text(Path(f"{stem}.tex"), comments + "\n".join(table.latex() for table in tables))
