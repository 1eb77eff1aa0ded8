"""A small table in the forms that people need: terminal, Markdown, LaTeX, HTML; cells may hold any text."""

import html
import re
from dataclasses import dataclass

from data_tools.errors import clean

LATEX = {sign: f"\\{sign}" for sign in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


def one_line(text: str) -> str:
    """Return `text` as one line: line breaks become spaces, what cannot be printed is written out."""
    return clean(" ".join(text.splitlines()))


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column is left-aligned, the others right-aligned."""

    header: list[str]
    rows: list[list[str]]

    @property
    def lines(self) -> list[list[str]]:
        """The header and the rows, each cell in one line."""
        return [[one_line(cell) for cell in row] for row in [self.header, *self.rows]]

    def text(self) -> str:
        """Return aligned columns for a terminal."""
        widths = [max(map(len, column)) for column in zip(*self.lines, strict=True)]
        lines = []
        for row in self.lines:
            cells = [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
            lines.append("  ".join(cells).rstrip())
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
        words = len(self.header) == 2

        def line(row: list[str], kind: str) -> str:
            return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in row) + "</tr>"

        header, *rows = self.lines
        body = "".join(line(row, "td") for row in rows)
        kind = ' class="words"' if words else ""
        return f'<div class="scroll"><table{kind}><thead>{line(header, "th")}</thead><tbody>{body}</tbody></table></div>'

    def latex(self) -> str:
        """Return a tabular environment."""

        def line(row: list[str]) -> str:
            cells = ("".join(LATEX.get(sign, sign) for sign in cell) for cell in row)
            text = " & ".join(re.sub(r"(?<!\w)-(?=\d)", "$-$", cell) for cell in cells)
            return (
                ("{}" if text.startswith(("[", "*")) else "") + text + r" \\" + "\n"
            )  # \\ before it would take them

        header, *rows = map(line, self.lines)
        columns = "l" + "r" * (len(self.header) - 1)
        return f"\\begin{{tabular}}{{{columns}}}\n\\hline\n{header}\\hline\n{''.join(rows)}\\hline\n\\end{{tabular}}\n"


def latex_comment(text: str) -> str:
    """Return comment lines of LaTeX, one for each line of `text`."""
    return "".join(f"% {clean(line)}\n" for line in text.splitlines())
