"""Splits: their usual names, found at any depth, by frames and by index."""

import shutil
from pathlib import Path

import pytest

from data_tools import __main__ as svg_data
from data_tools import layout
from data_tools.check import check
from data_tools.converters import videos
from data_tools.errors import InputError
from data_tools.index import build_index
from data_tools.splits import find_splits, split_of
from svg.sequences import SequenceDataset
from tests.support.recordings import shades, shared_case, write_animation, write_pictures


def paths_by_split(root: Path) -> dict[str, list[str]]:
    index = layout.read_index(root)
    return {split: index["path"][index["split"] == split].tolist() for split in index["split"].unique()}


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (("train", "Training", "TRAIN"), "train"),
        (("val", "valid", "validate", "validation", "eval", "evaluation", "Val"), "validate"),
        (("test", "testing", "Test"), "test"),
        (("trains", "tests", "test_0", "retest", ""), None),
    ],
)
def test_usual_names(names, split):
    assert {split_of(name) for name in names} == {split}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b/c"], [None, None]),
        (["data/train/0", "data/val/0"], [("train", "data/0"), ("validate", "data/0")]),
        # the outermost folder that tells them apart
        (["test/train/0", "test/val/0"], [("train", "test/0"), ("validate", "test/0")]),
        (["train/a/test/0", "test/a/train/0"], [("train", "a/test/0"), ("test", "a/train/0")]),
        # all in one split
        (["data/train/0", "data/train/1"], [("train", "data/0"), ("train", "data/1")]),
        (["train", "test"], [("train", "train"), ("test", "test")]),  # pictures right in the split's folder
        (["data/test/0", "data/cover"], [("test", "data/0"), None]),
    ],
)
def test_find_splits(names, expected):
    assert find_splits(names) == expected


def check_one_level_down(source: Path, out: Path) -> None:
    videos.convert(source, out, workers=1)
    found = paths_by_split(out)
    assert found == {
        split: [f"{split}/processed_data/{number}/0" for number in range(4)] for split in ("train", "test")
    }


def test_the_case_of_splits_one_level_down(tmp_path):
    check_one_level_down(shared_case("splits_one_level_down"), tmp_path / "out")


def test_splits_one_level_down_stay_as_they_are(tmp_path):
    for split in ("train", "test"):
        for number in range(4):
            write_pictures(tmp_path / "in" / "processed_data" / split / str(number), 3)
    check_one_level_down(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("name", ["val", "valid", "validate", "validation", "eval", "Val"])
def test_frames_takes_the_validation_split_under_its_usual_names(tmp_path, name):
    for folder in ("Training/a", f"{name}/b", "testing/c"):
        write_pictures(tmp_path / "in" / folder, 3)
    videos.convert(tmp_path / "in", tmp_path / "out", image_width=8, workers=1)
    assert paths_by_split(tmp_path / "out") == {
        "train": ["train/a/0"],
        "validate": ["validate/b/0"],
        "test": ["test/c/0"],
    }


def test_videos_called_like_splits(tmp_path):
    for name in ("train", "val", "test"):
        write_animation(tmp_path / "in" / f"{name}.gif", shades(3))
    videos.convert(tmp_path / "in", tmp_path / "out", image_width=8, workers=1)
    assert paths_by_split(tmp_path / "out") == {
        "train": ["train/train.gif/0"], "validate": ["validate/val.gif/0"], "test": ["test/test.gif/0"],
    }  # fmt: skip


def test_recordings_of_two_folders_that_would_become_one_are_refused(tmp_path):
    for name in ("train/a", "val/b", "validation/b"):
        write_pictures(tmp_path / "in" / name, 3)
    with pytest.raises(
        InputError, match=r"in/validation/b: has the same name as the recording .*in/val/b; rename it"
    ):
        videos.convert(tmp_path / "in", tmp_path / "out", workers=1)


@pytest.fixture
def root(data_root, tmp_path) -> Path:
    """A data root whose validation split is called val, without an index."""
    shutil.copytree(data_root, tmp_path / "data")
    (tmp_path / "data" / "validate").rename(tmp_path / "data" / "val")
    for name in (layout.INDEX_FILE, layout.INFO_FILE):
        (tmp_path / "data" / name).unlink()
    return tmp_path / "data"


def test_index_takes_splits_under_their_usual_names(root, data_root, capsys):
    assert svg_data.main(["index", str(root)]) == 0
    assert "22 sequences (12 train, 5 validate, 5 test)" in capsys.readouterr().out
    assert paths_by_split(root)["validate"] == [f"val/{number}" for number in range(5)]
    found, expected = (SequenceDataset(folder, "validate", 15)[2] for folder in (root, data_root))
    assert all((found[key] == expected[key]).all() for key in ("frames", "conditions"))
    assert not [line for line in check(root, workers=1).problems if "/val" in line]
    with pytest.raises(InputError, match=f"{root}/val: is a split itself; name the folder above, {root}"):
        build_index(root / "val")


def test_two_folders_of_one_split_are_refused(root):
    shutil.copytree(root / "val", root / "Validation")
    with pytest.raises(
        InputError, match="val: found a second folder of the split validate beside Validation; join them"
    ):
        build_index(root)


def test_index_names_the_folder_that_holds_the_splits(root):
    with pytest.raises(
        InputError,
        match=f"found no sequences in train, validate, test; name the folder with the splits, {root}",
    ):
        build_index(root.parent)


def test_a_root_with_foreign_splits_of_any_name_is_not_written_to(root, tmp_path):
    for folder in ("train", "test"):
        shutil.rmtree(root / folder)
    write_pictures(tmp_path / "in" / "a", 3)
    with pytest.raises(InputError, match="holds sequences of another origin"):
        videos.convert(tmp_path / "in", root, workers=1)
