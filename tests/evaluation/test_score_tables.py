"""Tables whose cells are any text: in Markdown, HTML and LaTeX cells stay cells, comments comments."""

import html
import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.evaluate import compare
from svg.evaluation.tables import Table, latex_comment, write_tables
from tests.evaluation.test_results import made_up
from tests.support.samples import ODD_NAMES

CELLS = st.one_of(
    st.text(max_size=30),
    st.sampled_from([*ODD_NAMES, "[x]", "* y", "a | b", "a\\|b", "\u2028", "a\x85b", "-5", "\\\\"]),
)
WORDS = {
    "protocol": "own\n\\input{/etc/passwd}",
    "data": "a\r\\end{document}\x0b\\x\x0c\\y\x85\\z\u2028\\w\u2029\\v",
}


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=3))
def test_cells_stay_cells(rows):
    table = Table(["", "score"], [list(row) for row in rows])
    assert len(table.text().splitlines()) <= len(rows) + 1  # what is empty at its end is cut
    markdown = table.markdown().split("\n")
    assert len(markdown) == len(rows) + 3 and markdown[-1] == ""
    for line in markdown[:-1]:
        pipes = re.sub(r"\\\\", "", line)
        assert len(re.findall(r"(?<!\\)\|", pipes)) == 3
    assert re.sub(r"<[^<>]*>", "", table.html()).count("<") == 0
    assert len(re.findall("<td>", table.html())) == 2 * len(rows)
    latex = table.latex()
    body = latex.splitlines()[4:-2]
    assert len(body) == len(rows) and latex.count("\n") == len(rows) + 6
    for line in body:
        assert (
            line.endswith(r" \\")
            and len(re.findall(r"(?<!\\)&", line)) == 1
            and not line.startswith(("[", "*"))
        )
        assert not re.search(r"(?<!\\)[%#_]|(?<!\\)\$(?!-\$)(?<!\$-\$)", line)


@given(st.text(max_size=200))
def test_comments_stay_comments(text):
    for line in latex_comment(text).splitlines():
        assert line.startswith("% ")


def test_notes_about_tables(tmp_path, capsys):
    write_tables(tmp_path / "t", [Table(["", "x"], [["$\\frac$", "1"]])], WORDS)
    lines = re.split("[\n\r\x0b\x0c\x85\u2028\u2029]", (tmp_path / "t.tex").read_text())
    assert all(line.startswith("%") for line in lines[: lines.index("\\begin{tabular}{lr}")])
    assert (tmp_path / "t.md").read_text().splitlines()[-2] == "- protocol: own \\input{/etc/passwd}"


def test_runs_of_odd_names_in_a_table(tmp_path, capsys):
    compare(
        {"$\\frac$\n\\evil": made_up(), "[b] & | \x1b[31m": made_up(gain=1.0)}, tmp_path / "comparison_test"
    )
    tex, text = (tmp_path / "comparison_test.tex").read_text(), (tmp_path / "comparison_test.md").read_text()
    assert (
        r"\$\textbackslash{}frac\$ \textbackslash{}evil: pred" in tex
        and "\n{}[b] \\& \\textbar{} \\textbackslash{}x1b[31m" in tex
    )
    assert r"| [b] & \| \\x1b[31m: pred" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_latex_takes_it(tmp_path):
    names = [name for name in ODD_NAMES if name.isascii()] + [
        "[x] y",
        "*",
        "~^<>|&#_{}%$\\",
        "`'\"--",
        "-5 [-0.1, 0.2]",
    ]
    table = Table(["[header", "score"], [[name, name] for name in names])
    text = "".join(latex_comment(line) for line in WORDS.values()) + table.latex()
    (tmp_path / "t.tex").write_text(
        "\\documentclass{article}\\begin{document}\n" + text + "\\end{document}\n"
    )
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]


def test_html_shows_what_a_cell_says():
    assert html.unescape(Table(["a", "b"], [["<b>", "&amp;"]]).html()).count("<b>") == 1
