"""Tables of numbers: values, faults with their likely cause, and memory."""

import io
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_tools import __main__ as svg_data
from data_tools import folders, layout
from data_tools.errors import InputError
from data_tools.index import build_index, check_sequence
from data_tools.pack import pack
from data_tools.store import open_store
from data_tools.tables import hold_last, name_hint, read_conditions, read_table
from tests.support.limits import deadline, peak_memory
from tests.support.recordings import shared_case

NUMBERS = np.array([[0.5, -1], [2, 3.25], [4, 5]])


@pytest.fixture
def table(tmp_path) -> Path:
    return tmp_path / "actions.csv"


@pytest.fixture
def root(tmp_path) -> Path:
    """A data set with train/0, three frames of 8x8 with two actions each, and no index yet."""
    frames = np.arange(3, dtype=np.uint8).repeat(8 * 8 * 3).reshape(3, 8, 8, 3)
    folders.write_sequence(tmp_path / "root" / "train" / "0", frames, NUMBERS, None)
    return tmp_path / "root"


def excel() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("xl/workbook.xml", "x" * 100)
    return file.getvalue()


def decimal_commas() -> str:
    return pd.DataFrame(NUMBERS).to_csv(sep=";", decimal=",", header=False, index=False)


CAUSES = {
    "semicolons": (
        "1;2\n3;4\n",
        "row 1: found semicolons between numbers, expected commas; write it again with commas",
    ),
    "decimal commas": (
        decimal_commas(),
        "row 1: found semicolons between numbers and commas in them, expected commas",
    ),
    "tabs": ("1\t2\n", "row 1: found tabs between numbers, expected commas"),
    "savetxt": ("1.0e+00 -2.0e+00\n", "row 1: found blanks between numbers, expected commas"),
    "booleans": (
        "1,True\n",
        "row 1 column 2: found 'True', expected a finite number; write 1 for True and 0 for False",
    ),
    "quotes": ('"1,5","2,5"\n', "row 1 column 1: found '\"1', expected a finite number; remove the quotes"),
    "lists": ("[0.1, 0.2]\n", "row 1 column 1: found '[0.1', expected a finite number; remove the brackets"),
    "header": (
        pd.DataFrame(NUMBERS, columns=["dx", "dy"]).to_csv(index=False),
        "found 'dx', expected a finite number; remove the header",
    ),
    "index of pandas": (
        pd.DataFrame(NUMBERS, columns=["dx", "dy"]).to_csv(),
        "row 1 column 1: found '', expected a finite number; remove the header and the first "
        "column, the index that pandas",
    ),
    "index read back": (
        "Unnamed: 0,dx\n0,1\n",
        "found 'Unnamed: 0', expected a finite number; remove the header and the first column",
    ),
    "trailing commas": (
        "1,2,\n3,4,\n",
        "row 1 column 3: found '', expected a finite number; remove the comma at the end",
    ),
    "a word": ("1,2\n3,left\n", "row 2 column 2: found 'left', expected a finite number; fix this cell"),
    "ragged": ("1,2\n3,4,5\n", "row 2: found 3 columns, expected 2 as in row 1; fix this row"),
    "wide": ("0," * 200_000 + "0\n", "row 1: found more than 262144 letters, expected 4096 columns or fewer"),
    "too wide": ("0," * 5000 + "0\n", "row 1: found 5001 columns, expected 4096 or fewer"),
    "zeros": (bytes(1000), "not a text file, expected comma-separated numbers"),
    "workbook": (
        excel(),
        "found a ZIP archive, as Excel workbooks and .npz files are, expected comma-separated numbers",
    ),
    "utf-16": ("1,2\n".encode("utf-16"), "found a text in UTF-16, expected comma-separated numbers"),
    "pointer": (
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "cannot be read (a Git LFS pointer instead of the file: run `git lfs pull`)",
    ),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_the_likely_cause_is_named(table, cause):
    text, expected = CAUSES[cause]
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with deadline(5), pytest.raises(InputError) as error:
        read_table(table, 1)
    assert str(error.value).startswith(str(table)) and expected in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_rows_far_down_are_named(table):
    table.write_text("1,2\n" * 40_000 + "\n3,x\n")
    with pytest.raises(InputError, match=r"row 40001 column 2: found 'x'"):
        read_table(table, 40_001)
    table.write_text("1,2\n" * 40_000 + "\n3,nan\n")
    with pytest.raises(InputError, match=r"row 40001 column 2: found 'nan'"):
        read_table(table, 40_001)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n"])
@pytest.mark.parametrize("last", [True, False])
def test_rows_end_as_on_any_system(table, end, last):
    """Across the pieces that are read at once, too."""
    rows = [f"{number},{number / 3:.9g}" for number in range(20_000)]
    table.write_text(end.join(rows) + end * last, newline="")
    numbers = np.arange(20_000)
    np.testing.assert_array_equal(
        read_table(table, 20_000), np.stack([numbers, numbers / 3], 1).astype(np.float32)
    )


def test_a_large_table_takes_the_memory_of_its_numbers(table):
    """Rows beyond the frames take none, those that are wanted four bytes a number, whatever the text is."""
    table.write_text("1,1,1,1,1,1,1,1\n" * 40_000)
    assert peak_memory(lambda: read_table(table, 30)) < 5  # of which one piece of text takes most
    assert peak_memory(lambda: read_table(table, 40_000)) < 8
    np.testing.assert_array_equal(read_table(table, 40_000), np.ones((40_000, 8), np.float32))


def test_files_that_are_no_tables_are_not_waited_for(table):
    os.mkfifo(table)
    with deadline(5), pytest.raises(InputError, match="not a regular file"):
        read_table(table, 3)
    table.unlink()
    table.symlink_to("/dev/zero")
    with deadline(5), pytest.raises(InputError, match="not a regular file"):
        read_table(table, 3)
    table.unlink()
    table.write_text("1,2\n")
    os.truncate(table, 1 << 40)
    with deadline(5), pytest.raises(InputError, match="a sparse file: 1099511627776 bytes, of which"):
        read_table(table, 3)


# -------------------------------------------------------------------------------------------- the last action


def test_a_last_action_that_is_not_finite_is_held():
    actions = np.array([[1, 2], [3, 4], [np.nan, 5]])
    assert hold_last(actions).tolist() == [[1, 2], [3, 4], [3, 4]]
    assert np.isnan(actions[2, 0])  # what was given stays
    assert hold_last(actions[2:]).tolist() == [[0, 0]]
    assert hold_last(actions[:2]).tolist() == [[1, 2], [3, 4]]
    assert hold_last(np.array([[1.0], [1e300]])).tolist() == [[1], [1]]  # infinite as float32


@pytest.mark.parametrize("last", ["nan,nan", "NaN,0", ",", "0.5, ", "inf,-inf", "1e39,0"])
def test_the_last_action_may_be_missing_in_a_table(root, last):
    folder = root / "train" / "0"
    (folder / "actions.csv").write_text(f"0.5,-1\n2,3.25\n{last}\n")
    expected = [[0.5, -1], [2, 3.25], [2, 3.25]]
    assert read_conditions(folder, 3)["actions"].tolist() == expected
    assert check_sequence(folder)[1].tolist() == expected
    build_index(root)
    np.testing.assert_allclose(layout.read_info(root).mean, np.mean(expected, 0))
    assert svg_data.main(["check", str(root)]) == 0
    pack(root, root.parent / "packed", workers=1)
    for data in (root, root.parent / "packed"):
        assert open_store(data, "train").read_conditions(0).tolist() == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("actions.csv", "0,1\nnan,1\n2,3\n"),  # another row than the last
        ("actions.csv", "0,1\n1,1\n2,left\n"),  # no number at all
        ("actions.csv", "0,1\n1,1\n2\n"),
        ("endeffector_positions.csv", "0,1\n1,1\n2,nan\n"),  # seen with the last frame
    ],
)
def test_other_numbers_must_be_finite(root, name, text):
    (root / "train" / "0" / name).write_text(text)
    with pytest.raises(InputError, match=f"{name} row"):
        read_conditions(root / "train" / "0", 3)


def test_rows_beyond_the_frames(table):
    table.write_text("1\n2\n3\n4\nnan\n")
    assert read_table(table, 3).tolist() == [[1], [2], [3]]
    assert read_table(table, 3, beyond=True)[:4].tolist() == [[1], [2], [3], [4]]
    assert read_table(table, 3, beyond=True, last_unused=True).tolist() == [[1], [2], [3], [4]]
    table.write_text("1\n2\nnan\n4\n5\n")  # nothing can be predicted across an action that is not known
    assert read_table(table, 3, beyond=True, last_unused=True).tolist() == [[1], [2], [2]]
    with pytest.raises(InputError, match="found 5 rows, expected 3"):
        read_table(table, 3, exact=True, last_unused=True)


def test_written_sequences_may_lack_the_last_action(tmp_path):
    frames, actions = np.zeros((3, 8, 8, 3), np.uint8), NUMBERS.copy()
    actions[2] = np.nan
    folders.write_sequence(tmp_path / "0", frames, actions, NUMBERS)
    assert (tmp_path / "0" / "actions.csv").read_text() == "0.5,-1\n2,3.25\n2,3.25\n"
    for other in (np.roll(actions, 1, 0), actions.astype(str)):
        with pytest.raises(InputError, match=r"actions\.csv: found"):
            folders.write_sequence(tmp_path / "1", frames, other, None)
    with pytest.raises(
        InputError, match=r"endeffector_positions\.csv: found numbers that are no finite float32; fix them"
    ):
        folders.write_sequence(tmp_path / "1", frames, None, actions)


# ------------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("action.csv", "actions.csv"), ("Actions.CSV", "actions.csv"),
        ("end_effector_positions.csv", "endeffector_positions.csv"),
        ("endeffector_pos.csv", "endeffector_positions.csv"), ("position.csv", "endeffector_positions.csv"),
        ("rewards.csv", None), ("captions.csv", None),
    ],
)  # fmt: skip
def test_misspelt_tables_are_recognised(name, meant):
    assert (f"rename it to {meant} or" if meant else "rename it or move it away") in name_hint(name)


def test_misspelt_tables_and_row_numbers_are_noted(root, capsys):
    folder = root / "train" / "0"
    pd.DataFrame(NUMBERS).to_csv(folder / "actions.csv", header=False)
    shutil.copy(folder / "actions.csv", folder / "end_effector_positions.csv")
    assert svg_data.main(["index", str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(
        "end_effector_positions.csv: not read" in line and "rename it to endeffector_positions.csv" in line
        for line in lines
    )
    counted = [
        line
        for line in lines
        if "actions.csv: the first column counts 0, 1, 2, ...; if that is the index of pandas" in line
    ]
    assert len(counted) == 1
    assert (
        svg_data.main(["check", str(root)]) == 1
        and counted[0].removeprefix("note: ") in capsys.readouterr().out
    )


# ------------------------------------------------------------------------------------------------------ cases


@pytest.mark.parametrize(("name", "code"), [("csv_semicolon", 2), ("csv_nan_last", 0)])
def test_shared_cases(tmp_path, capsys, name, code):
    shutil.copytree(shared_case(name), tmp_path / "data", copy_function=shutil.copyfile)
    for folder, _, _ in os.walk(tmp_path / "data"):
        os.chmod(folder, 0o755)
    assert svg_data.main(["index", str(tmp_path / "data")]) == code
    output = capsys.readouterr()
    if code:
        assert "actions.csv row 1: found semicolons between numbers, expected commas" in output.err
        assert len(output.err.splitlines()) == 1
    else:
        actions = open_store(tmp_path / "data", "train").read_conditions(0)
        np.testing.assert_array_equal(actions, np.float32([[0.1, 0.2], [0.1, 0.3], [0.1, 0.3]]))
