"""Sequences on disk, the index, and one clear line for each thing that can be wrong with them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from data_tools import __main__ as svg_data
from data_tools import folders, layout, png, tables
from data_tools.errors import InputError
from data_tools.files import open_regular, write_text
from data_tools.index import build_index, check_sequence, find_sequences
from data_tools.pack import pack
from data_tools.store import open_store
from tests.support.places import ROOT


@pytest.fixture
def sequence(tmp_path) -> Path:
    """train/0: 12 frames of 8x8, whose pixels tell their number, with 2 actions and 1 position a row."""
    folder = tmp_path / "train" / "0"
    frames = np.arange(12, dtype=np.uint8).repeat(8 * 8 * 3).reshape(12, 8, 8, 3)
    folders.write_sequence(folder, frames, np.arange(24.0).reshape(12, 2), np.arange(12.0).reshape(12, 1) / 7)
    return folder


def test_frames_are_in_numeric_order(sequence):
    assert [path.name for path in folders.frame_paths(sequence)] == [f"{n}.png" for n in range(12)]
    assert [png.read_frame(path, (8, 8, 3))[0, 0, 0] for path in folders.frame_paths(sequence)] == list(
        range(12)
    )
    (sequence / "0.png").unlink()
    assert [path.name for path in folders.frame_paths(sequence)] == [f"{n}.png" for n in range(1, 12)]


@given(arrays(np.float32, (5, 3), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
@settings(max_examples=50, deadline=None)
def test_tables_give_back_every_float32(tmp_path_factory, table):
    folder = tmp_path_factory.mktemp("table") / "0"
    folders.write_sequence(folder, np.zeros((5, 4, 4, 1), np.uint8), table, None)
    np.testing.assert_array_equal(tables.read_conditions(folder, 5)["actions"], table)


@given(arrays(np.uint8, st.sampled_from([(3, 4, 5, 3), (2, 6, 4, 1)])))
@settings(max_examples=20, deadline=None)
def test_frames_give_back_every_pixel(tmp_path_factory, frames):
    folder = tmp_path_factory.mktemp("frames") / "0"
    folders.write_sequence(folder, frames, None, None)
    for path, frame in zip(folders.frame_paths(folder), frames, strict=True):
        assert png.read_image_size(path) == frame.shape
        np.testing.assert_array_equal(png.read_frame(path, frame.shape), frame)


def test_index_and_statistics(tmp_path):
    generator = np.random.default_rng(0)
    tables = {}
    for place in ("train/shard_a.tfrecords/2", "train/shard_a.tfrecords/10", "validate/0", "test/0"):
        tables[place] = generator.normal(3, 2, (6, 3)).astype(np.float32)
        folders.write_sequence(
            tmp_path / place, np.zeros((6, 8, 8, 3), np.uint8), tables[place][:, :2], tables[place][:, 2:]
        )
    (tmp_path / "train" / ".3.123.svg-part").mkdir()
    shutil.copy(
        tmp_path / "test/0/0.png", tmp_path / "train" / ".3.123.svg-part"
    )  # an interrupted writer's leftovers
    index = build_index(tmp_path, "name", "source")
    assert index["path"].tolist() == list(tables)
    assert index["sequence"].tolist() == ["shard_a.tfrecords/2", "shard_a.tfrecords/10", "0", "0"]
    read = layout.read_index(tmp_path)
    pd.testing.assert_frame_equal(read.astype(str), index[list(layout.INDEX_TYPES)].astype(str))
    assert layout.read_index(tmp_path, "train").iloc[1].to_dict() == {
        "split": "train", "sequence": "shard_a.tfrecords/10", "path": "train/shard_a.tfrecords/10",
         "frames": 6,
        "height": 8, "width": 8, "channels": 3, "action_dim": 2, "position_dim": 1,
    }  # fmt: skip
    info = layout.read_info(tmp_path)
    rows = np.concatenate([tables["train/shard_a.tfrecords/2"], tables["train/shard_a.tfrecords/10"]])
    np.testing.assert_allclose(info.mean, rows.mean(0), rtol=1e-6)
    np.testing.assert_allclose(info.std, rows.std(0), rtol=1e-6)
    assert (info.name, info.source, info.condition_dim) == ("name", "source", 3)


def test_sequences_without_tables(tmp_path):
    folders.write_sequence(tmp_path / "test" / "a", np.zeros((3, 8, 8, 1), np.uint8), None, None)
    index = build_index(tmp_path)
    assert index[["channels", "action_dim", "position_dim"]].to_numpy().tolist() == [[1, 0, 0]]
    assert layout.read_info(tmp_path).condition_dim == 0
    assert tables.read_conditions(tmp_path / "test" / "a", 3) == {}


def rewrite_row(path: Path, row: int, text: str) -> None:
    lines = path.read_text().splitlines()
    lines[row - 1] = text
    path.write_text("\n".join(lines) + "\n")


FAULTS = {
    "missing frame": (lambda s: (s / "5.png").unlink(), "5.png: missing frame"),
    "missing first frames": (lambda s: [(s / f"{n}.png").unlink() for n in (0, 1)], "0.png: missing frame"),
    "foreign file": (lambda s: shutil.copy(s / "5.png", s / "photo.png"), "photo.png: frames are named"),
    "leading zero": (lambda s: shutil.copy(s / "5.png", s / "05.png"), "05.png: frames are named"),
    "not a PNG": (lambda s: (s / "5.png").write_bytes(b"JFIF" * 20), "5.png: not a PNG image"),
    "cut PNG": (
        lambda s: (s / "5.png").write_bytes((s / "5.png").read_bytes()[:20]),
        "5.png: not a PNG image",
    ),
    "empty PNG": (lambda s: (s / "5.png").write_bytes(b""), "5.png: not a PNG image (0 bytes)"),
    "wrong size": (
        lambda s: Image.new("RGB", (9, 8)).save(s / "5.png"),
        "5.png: found 8x9 with 3 channels, expected 8x8",
    ),
    "grey frame": (
        lambda s: Image.new("L", (8, 8)).save(s / "5.png"),
        "5.png: found 8x8 with 1 channels, expected 8x8 with 3",
    ),
    "16 bits": (lambda s: Image.new("I;16", (8, 8)).save(s / "5.png"), "5.png: found a PNG of 16 bits"),
    "short CSV": (
        lambda s: (s / "actions.csv").write_text("1,2\n" * 11),
        "actions.csv: found 11 rows, expected 12",
    ),
    "empty CSV": (lambda s: (s / "actions.csv").write_text(""), "actions.csv: found 0 rows, expected 12"),
    "words": (
        lambda s: rewrite_row(s / "actions.csv", 7, "1,left"),
        "actions.csv row 7 column 2: found 'left', expected a finite",
    ),
    "nan": (
        lambda s: rewrite_row(s / "actions.csv", 7, "nan,0"),
        "actions.csv row 7 column 1: found 'nan', expected a finite",
    ),
    "infinity": (
        lambda s: rewrite_row(s / "actions.csv", 7, "0,1e999"),
        "actions.csv row 7 column 2: found '1e999'",
    ),
    "beyond float32": (
        lambda s: rewrite_row(s / "actions.csv", 7, "0,1e39"),
        "actions.csv row 7 column 2: found '1e39'",
    ),
    "empty cell": (lambda s: rewrite_row(s / "actions.csv", 7, "0,"), "actions.csv row 7 column 2: found ''"),
    "ragged": (
        lambda s: rewrite_row(s / "actions.csv", 7, "1,2,3"),
        "actions.csv row 7: found 3 columns, expected 2",
    ),
    "header": (
        lambda s: rewrite_row(s / "actions.csv", 1, "dx,dy"),
        "actions.csv row 1 column 1: found 'dx'",
    ),
    "binary CSV": (
        lambda s: (s / "actions.csv").write_bytes(b"\xff\x00\xfe" * 40),
        "actions.csv: not a text file",
    ),
    "positions too": (
        lambda s: rewrite_row(s / "endeffector_positions.csv", 3, "x"),
        "endeffector_positions.csv row 3 column 1: found 'x'",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_index_names_what_is_wrong(tmp_path, sequence, fault):
    damage, expected = FAULTS[fault]
    damage(sequence)
    with pytest.raises(InputError) as error:
        build_index(tmp_path)
    message = str(error.value)
    assert str(sequence) in message and expected in message and "\n" not in message
    assert not (tmp_path / "index.csv").exists() and not (tmp_path / "dataset.json").exists()


def test_sequences_of_one_data_set_agree(tmp_path, sequence):
    folders.write_sequence(
        tmp_path / "test" / "1", np.zeros((12, 8, 8, 3), np.uint8), np.zeros((12, 3)), np.zeros((12, 1))
    )
    with pytest.raises(InputError, match=r"test/1: found action_dim 3, expected 2 as in .*train/0"):
        build_index(tmp_path)


def test_a_longer_table_than_frames_is_cut(sequence):
    with open(sequence / "actions.csv", "a") as file:
        file.write("9,9\n")
    row, conditions = check_sequence(sequence)
    assert row["frames"] == 12 and conditions.shape == (12, 3)


def test_damage_seen_only_when_read(tmp_path, sequence):
    path = sequence / "5.png"
    data = bytearray(path.read_bytes())
    data[-20:] = bytes(20)
    path.write_bytes(data)
    build_index(tmp_path)  # the header is whole
    with pytest.raises(InputError, match=r"5\.png: unreadable PNG"):
        png.read_frame(path, (8, 8, 3))
    path.unlink()
    with pytest.raises(InputError, match=r"5\.png: missing frame"):
        png.read_frame(path, (8, 8, 3))
    Image.new("RGB", (4000, 4000)).save(path)
    with pytest.raises(InputError, match=r"5\.png: found 4000x4000, expected 8x8"):
        png.read_frame(path, (8, 8, 3))


def test_natural_order_at_any_depth(tmp_path):
    for name in ("b/10", "b/9", "a/1/2", "a/1/11"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "0.png").touch()
    found = [path.relative_to(tmp_path / "train").as_posix() for path in find_sequences(tmp_path, "train")]
    assert found == ["a/1/2", "a/1/11", "b/9", "b/10"]


def test_no_sequences(tmp_path):
    with pytest.raises(InputError, match="found no sequences in train, validate, test"):
        build_index(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "not found; run `svg-data index"),
        ("", "damaged"),
        ("split,path\ntrain,0\n", "found no column sequence, frames"),
        (
            "split,sequence,path,frames,height,width,channels,action_dim,position_dim\ntrain,0,train/0,x,8,8,3,2,1\n",
            "damaged",
        ),
    ],
)
def test_bad_index(tmp_path, text, expected):
    if text is not None:
        (tmp_path / "index.csv").write_text(text)
    with pytest.raises(InputError, match=expected):
        layout.read_index(tmp_path)


def test_unknown_split(tmp_path, sequence):
    build_index(tmp_path)
    with pytest.raises(InputError, match="found no sequence of split 'test'; splits here: train"):
        layout.read_index(tmp_path, "test")


HEADER = "split,sequence,path,frames,height,width,channels,action_dim,position_dim\n"


def write_rows(root: Path, rows: str) -> None:
    """Write an index of sequences "split,name,path", with spaces between them."""
    (root / "index.csv").write_text(HEADER + "".join(f"{row},5,8,8,3,0,0\n" for row in rows.split()))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("train,a,train/a test,b,test/b test,c,train/a", "rows 2 and 4: found the path 'train/a' twice"),
        ("train,a,train/a test,c,train//a", "rows 2 and 3: found the path 'train//a' twice"),
        ("train,a,train/a test,c,./train/a/", "rows 2 and 3: found the path './train/a/' twice"),
        ("train,b,x train,a,train/a train,a,train/c", "rows 3 and 4: found the sequence 'a' of train twice"),
    ],
)
def test_rows_that_stand_in_an_index_twice_are_refused(tmp_path, rows, message):
    write_rows(tmp_path, rows)
    with pytest.raises(InputError, match=rf"index.csv {message}; remove one, or write it again"):
        layout.read_index(tmp_path)


def test_rows_that_only_look_alike_are_taken(tmp_path):
    write_rows(
        tmp_path, "train,a,train/a test,a,test/a train,A,train/A train,a_b,train/a_b train,a/b,train/a/b"
    )
    assert len(layout.read_index(tmp_path)) == 5


def test_sequences_of_one_name_are_not_indexed(tmp_path):
    """Of poses: pictures in train_img itself are called as its folder."""
    for folder in ("train_img", "train_label", "train_img/train_img", "train_label/train_img"):
        (tmp_path / "train" / folder).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 8)).save(tmp_path / "train" / folder / f"{number}.png")
    with pytest.raises(
        InputError,
        match=r"train_img/train_img: is called train_img in the split train, as is .*train/train_img; rename",
    ):
        build_index(tmp_path)
    assert not (tmp_path / "index.csv").exists()


NO_MEANS = '{"schema_version": 1, "name": "x", "source": "", "action_dim": 4, "position_dim": 3}'


@pytest.mark.parametrize(
    "text", [None, "{", "[]", '{"schema_version": 99}', '{"schema_version": 1, "colour": 2}', NO_MEANS]
)
def test_bad_dataset_json(tmp_path, text):
    if text is not None:
        (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=r"dataset\.json: (not found|damaged|found schema version 99)"):
        layout.read_info(tmp_path)


def test_writers_leave_nothing_half_written(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)  # of the tables, after the frames
    with pytest.raises(OSError, match="No space"):
        folders.write_sequence(tmp_path / "0", np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 1)), None)
    assert not (tmp_path / "0").exists()
    monkeypatch.undo()
    folders.write_sequence(tmp_path / "0", np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 1)), None)
    assert [path.name for path in tmp_path.iterdir()] == ["0"]  # the leftovers of the same process are gone
    write_text(tmp_path / "x.json", json.dumps({"a": 1}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "x.json"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_opening_a_large_index_is_light(tmp_path):
    """43,520 rows as in BAIR, whose images do not exist, take under 200 MB above the bare interpreter."""
    sequences = [f"traj_{n // 256}_to_{n // 256 + 255}.tfrecords/{n}" for n in range(43520)]
    index = pd.DataFrame({"split": "train", "sequence": sequences, "path": [f"train/{s}" for s in sequences]})
    index = index.assign(frames=30, height=64, width=64, channels=3, action_dim=4, position_dim=3)
    layout.write_index(tmp_path, index, layout.DatasetInfo("bair", "", 4, 3, [0.0] * 7, [1.0] * 7))
    code = f"""
import time
peak = lambda: int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
bare, start = peak(), time.perf_counter()
from data_tools import folders, layout, png, tables
imported = time.perf_counter()
rows = len(layout.read_index({str(tmp_path)!r}, "train"))
print(rows, peak() - bare, imported - start, time.perf_counter() - imported)
"""
    root = ROOT
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    rows, megabytes, *seconds = map(float, done.stdout.split())
    print(f"{rows:.0f} rows: {megabytes:.0f} MB, import {seconds[0]:.2f} s, opening {seconds[1]:.3f} s")
    assert rows == 43520 and 1 < megabytes < 200


@pytest.mark.parametrize("frames", [12, 30])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("tables", [True, False])
def test_course_and_svg_folders_are_indexed_in_place(tmp_path, frames, first, tables):
    """train/<shard>.tfrecords/<n>/<t>.png with CSVs or without, numbered from 0 or from 1."""
    for split, shard in (
        ("train", "traj_0_to_255.tfrecords"),
        ("validate", "traj_256_to_511.tfrecords"),
        ("test", "traj_0_to_255"),
    ):
        for number in range(first, first + 2):
            folder = tmp_path / split / shard / str(number)
            folder.mkdir(parents=True)
            for time in range(frames):
                Image.fromarray(np.full((8, 8, 3), 10 * number + time, np.uint8)).save(
                    folder / f"{first + time}.png"
                )
            if tables:
                np.savetxt(folder / "actions.csv", np.full((30, 4), number), delimiter=",")
                np.savetxt(folder / "endeffector_positions.csv", np.arange(90).reshape(30, 3), delimiter=",")
    before = set(tmp_path.rglob("*"))
    index = build_index(tmp_path)
    assert {path.name for path in set(tmp_path.rglob("*")) - before} == {"index.csv", "dataset.json"}
    assert index["frames"].tolist() == [frames] * 6 and index["action_dim"].tolist() == [4 * tables] * 6
    store = open_store(tmp_path, "test")
    images, conditions = np.empty((3, 8, 8, 3), np.uint8), np.empty((3, 7 * tables), np.float32)
    store.read(1, 5, images, conditions)
    assert images[:, 0, 0, 0].tolist() == [10 * (first + 1) + time for time in (5, 6, 7)]
    if tables:
        assert conditions.tolist() == [
            [first + 1] * 4 + [3 * time, 3 * time + 1, 3 * time + 2] for time in (5, 6, 7)
        ]


@given(
    st.one_of(st.binary(max_size=60), st.text("0123456789.,-+eE \n_naif\u0663", max_size=60).map(str.encode)),
    st.integers(1, 4),
)
@settings(max_examples=400, deadline=None)
def test_any_table_is_finite_numbers_or_one_line(tmp_path_factory, data, rows):
    path = tmp_path_factory.mktemp("csv") / "actions.csv"
    path.write_bytes(data)
    try:
        table = tables.read_table(path, rows)
    except InputError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
    else:
        assert table.shape[0] == rows and table.dtype == np.float32 and np.isfinite(table).all()
        cells = [
            [float(cell) for cell in line.split(",")] for line in data.decode().splitlines() if line.strip()
        ]
        np.testing.assert_array_equal(table, np.array(cells[:rows]).astype(np.float32))


FRAMES = np.zeros((3, 8, 8, 3), np.uint8)
UNFIT = {
    "floats": (FRAMES / 255, None, r"found frames float64 \[3, 8, 8, 3\], expected uint8"),
    "channels first": (FRAMES.transpose(0, 3, 1, 2), None, r"found frames uint8 \[3, 3, 8, 8\]"),
    "RGBA": (np.zeros((3, 8, 8, 4), np.uint8), None, "found frames uint8"),
    "no channels": (FRAMES[..., 0], None, "found frames uint8"),
    "no frames": (FRAMES[:0], None, "found frames uint8"),
    "list": ([[1]], None, "found frames int64"),
    "short table": (
        FRAMES,
        np.zeros((2, 4)),
        r"actions.csv: found float64 \[2, 4\], expected numbers \[3,columns\]",
    ),
    "flat table": (FRAMES, np.zeros(3), "found float64"),
    "words": (FRAMES, np.array([["a"]] * 3), "actions.csv: found <U1"),
    "nan": (FRAMES, np.full((3, 2), np.nan), "no finite float32"),
    "too large": (FRAMES, np.full((3, 2), 1e300), "no finite float32"),
}


@pytest.mark.parametrize("fault", UNFIT)
def test_write_sequence_refuses_what_is_no_sequence(tmp_path, fault):
    frames, actions, message = UNFIT[fault]
    with pytest.raises(InputError, match=message):
        folders.write_sequence(tmp_path / "train" / "0", frames, actions, None)
    assert not list(tmp_path.iterdir())


def test_write_sequence_overwrites_nothing(sequence):
    before = {path.name: path.read_bytes() for path in sequence.iterdir()}
    with pytest.raises(InputError, match="train/0: is there already"):
        folders.write_sequence(str(sequence), FRAMES, None, None)
    assert {path.name: path.read_bytes() for path in sequence.iterdir()} == before


def test_things_of_another_name_are_noted(sequence, capsys):
    root = sequence.parent.parent
    (root / "Test").write_text("")
    (sequence / "actions.csv").rename(sequence / "action.csv")
    (root / "notes.txt").write_text("")
    assert svg_data.main(["index", str(root)]) == 0
    lines = capsys.readouterr().out.replace(f"{root}/", "").splitlines()
    assert lines[:-1] == [
        "note: Test: is a file, expected a folder of sequences; remove it",
        "note: train/0/action.csv: not read; the tables are called actions.csv and "
        "endeffector_positions.csv: rename it to "
        "actions.csv or move it away",
        f"note: {root}: not read: 1 .txt (notes.txt)",
        f"note: {root}: the frames are 8x8, the models take 64x64 and 128x128; `svg-data resize "
        f"{root} OUT` makes a copy that fits",
    ]
    assert lines[-1].startswith(
        "index.csv: 1 sequences (1 train; no validate, no test), frames 8x8x3, 0 action and 1 position"
    )


def test_indexing_again_keeps_name_and_source(sequence):
    root = sequence.parent.parent
    build_index(root, "mine", "from here")
    build_index(root)
    assert (layout.read_info(root).name, layout.read_info(root).source) == ("mine", "from here")


def test_indexing_again_replaces_a_damaged_dataset_json(sequence):
    root = sequence.parent.parent
    build_index(root)
    whole = (root / "dataset.json").read_text()
    (root / "dataset.json").write_text(whole[:20])
    build_index(root)
    assert (root / "dataset.json").read_text() == whole


def test_folders_that_are_no_data_set(sequence, tmp_path):
    root = tmp_path / "above" / "root"
    shutil.copytree(sequence, root / "train" / "0")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        build_index(tmp_path / "nowhere")
    with pytest.raises(InputError, match=f"is a split itself; name the folder above, {root}"):
        build_index(root / "train")
    build_index(root)
    with pytest.raises(InputError, match=f"name the data root, {root}"):
        layout.read_info(root / "train")
    with pytest.raises(InputError, match=f"name one of the data roots {root}"):
        layout.read_index(root.parent)


def test_sequences_behind_links_are_indexed(sequence, tmp_path):
    shutil.copytree(sequence, tmp_path / "elsewhere" / "0")
    (sequence.parent / "link").symlink_to(tmp_path / "elsewhere")
    (sequence.parent / "circle").symlink_to(sequence.parent)
    assert build_index(sequence.parent.parent)["path"].tolist() == ["train/0", "train/link/0"]


def test_names_and_widths_that_an_index_cannot_hold(sequence):
    root = sequence.parent.parent
    odd = Path(f"{sequence}\udce9")
    try:
        sequence.rename(odd)
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(InputError, match="a name with characters that cannot be written; rename it"):
        build_index(root)
    odd.rename(sequence)
    (sequence / "actions.csv").write_text(("0," * 5000 + "0\n") * 12)
    with pytest.raises(InputError, match=r"actions\.csv row 1: found 5001 columns, expected 4096 or fewer"):
        build_index(root)


@pytest.mark.parametrize("mean", ["1" * 401, "1" * 5001, "[" * 50_000, "1e999", '"x"', "null"])
def test_dataset_json_that_breaks_parsers_is_one_line(tmp_path, mean):
    head = '{"schema_version": 1, "name": "x", "source": "", "action_dim": 1, "position_dim": 0'
    text = f'{head}, "mean": [{mean}], "std": [1]}}'
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=r"dataset\.json: damaged") as error:
        layout.read_info(tmp_path)
    assert len(str(error.value)) < 500


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"


def test_pointers_of_git_lfs_are_named_wherever_a_file_is_expected(sequence, tmp_path_factory):
    root = sequence.parent.parent
    build_index(root)
    packed = tmp_path_factory.mktemp("packed")
    pack(root, packed, workers=1)
    readers = {
        sequence / "5.png": lambda: build_index(root),
        sequence / "6.png": lambda: png.read_frame(sequence / "6.png", (8, 8, 3)),
        sequence / "endeffector_positions.csv": lambda: open_store(root, "train").read_conditions(0),
        root / "index.csv": lambda: layout.read_index(root),
        root / "dataset.json": lambda: layout.read_info(root),
        packed / "train/frames.npy": lambda: open_store(packed, "train"),
    }
    for path, read in readers.items():
        whole = path.read_bytes()
        path.write_text(POINTER)
        with pytest.raises(
            InputError, match=r"a Git LFS pointer instead of the file: run `git lfs pull`"
        ) as error:
            read()
        assert str(error.value).startswith(f"{path}: ")
        path.write_bytes(whole)
        read()


def test_sparse_files_are_not_read(tmp_path):
    """Of a terabyte of zeros nothing is stored; a file with a hole in it is read."""
    for size, sound in ((1 << 40, False), (100 << 20, False), (1 << 20, True)):
        path = tmp_path / str(size)
        path.write_bytes(b"x" * 5000)
        os.truncate(path, size)
        if sound:
            with open_regular(path) as file:
                assert file.read(5001) == b"x" * 5000 + b"\0"
        else:
            with pytest.raises(OSError, match=f"a sparse file: {size} bytes, of which"):
                open_regular(path)


def test_pictures_of_another_kind_are_named(sequence):
    Image.new("RGB", (8, 8)).save(sequence / "5.png", "JPEG")
    with pytest.raises(
        InputError, match=r"5\.png: not a PNG image \(a JPEG picture\); convert or restore this frame"
    ):
        check_sequence(sequence)


def test_marks_and_headers_of_spreadsheets(sequence):
    (sequence / "actions.csv").write_text("\ufeff" + "1,2\n" * 12, encoding="utf-8")
    assert tables.read_conditions(sequence, 12)["actions"].tolist() == [[1, 2]] * 12
    (sequence / "actions.csv").write_text("dx,dy\n" + "1,2\n" * 12)
    with pytest.raises(
        InputError, match="row 1 column 1: found 'dx', expected a finite number; remove the header"
    ):
        tables.read_conditions(sequence, 12)
