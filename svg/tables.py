"""A small table in the forms that people need: terminal, Markdown, LaTeX."""

import html
import re
from dataclasses import dataclass

LATEX = {sign: f"\\{sign}" for sign in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column is left-aligned, the others right-aligned."""

    header: list[str]
    rows: list[list[str]]

    def text(self) -> str:
        """Aligned columns for a terminal."""
        widths = [max(len(row[column]) for row in [self.header, *self.rows]) for column in range(len(self.header))]
        lines = []
        for row in [self.header, *self.rows]:
            cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)

    def markdown(self) -> str:
        """A pipe table."""
        rule = ["---", *["---:"] * (len(self.header) - 1)]
        rows = [[cell.replace("|", r"\|") for cell in row] for row in [self.header, *self.rows]]
        return "".join(f"| {' | '.join(row)} |\n" for row in [rows[0], rule, *rows[1:]])

    def html(self) -> str:
        """A table element; of two columns the second is text, which wraps."""
        words = len(self.header) == 2

        def line(row: list[str], kind: str) -> str:
            return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in row) + "</tr>"

        body = "".join(line(row, "td") for row in self.rows)
        kind = ' class="words"' if words else ""
        return f'<div class="scroll"><table{kind}><thead>{line(self.header, "th")}</thead><tbody>{body}</tbody></table></div>'

    def latex(self) -> str:
        """A tabular environment."""

        def line(row: list[str]) -> str:
            cells = ("".join(LATEX.get(sign, sign) for sign in cell) for cell in row)
            return " & ".join(re.sub(r"(?<!\w)-(?=\d)", "$-$", cell) for cell in cells) + r" \\" + "\n"

        body = "".join(line(row) for row in self.rows)
        columns = "l" + "r" * (len(self.header) - 1)
        return f"\\begin{{tabular}}{{{columns}}}\n\\hline\n{line(self.header)}\\hline\n{body}\\hline\n\\end{{tabular}}\n"
