"""The packed store: the same items as the PNG path, bounded, checked on opening."""

import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools import __main__ as svg_data
from data_tools import layout
from data_tools.errors import InputError
from data_tools.folders import write_sequence
from data_tools.index import build_index
from data_tools.pack import pack
from data_tools.store import FolderStore, PackedStore, open_store
from svg.sequences import SequenceDataset, TrainingBatches


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    """Sequences of 3 to 8 frames in three splits, with actions and positions, and the same packed."""
    root, generator = tmp_path_factory.mktemp("varied"), np.random.default_rng(0)
    for split, lengths in (("train", (5, 3, 8, 4)), ("validate", (3, 6)), ("test", (7,))):
        for number, length in enumerate(lengths):
            frames = generator.integers(0, 256, (length, 6, 8, 3), np.uint8)
            actions, positions = generator.normal(size=(2, length, 2)).astype(np.float32)
            write_sequence(root / split / str(number), frames, actions, positions[:, :1])
    build_index(root, "varied", "noise")
    pack(root, root.parent / "packed", workers=1)
    return root, root.parent / "packed"


def test_packed_items_are_those_of_the_folders(varied):
    folders, packed = varied
    for split in layout.SPLITS:
        for length in (1, 3):
            ours, theirs = (SequenceDataset(root, split, length) for root in (packed, folders))
            assert isinstance(ours.store, PackedStore) and isinstance(theirs.store, FolderStore)
            assert ours.condition_mean == theirs.condition_mean and ours.condition_std == theirs.condition_std
            assert ours.index.equals(theirs.index)
            for number in range(len(ours)):
                for start in range(int(ours.lengths[number]) - length + 1):
                    for name, array in ours[number, start].items():
                        other = theirs[number, start][name]
                        assert array.dtype == other.dtype
                        np.testing.assert_array_equal(array, other)


def test_packed_files_can_be_mapped(varied):
    """They are plain NumPy files: all frames and conditions in the order of the index, none padded."""
    folders, packed = varied
    frames, conditions = (
        np.load(packed / "train" / f"{name}.npy", mmap_mode="r") for name in ("frames", "conditions")
    )
    assert frames.shape == (20, 6, 8, 3) and conditions.shape == (20, 3)
    np.testing.assert_array_equal(frames[8:16], SequenceDataset(folders, "train", 8)[0]["frames"])
    info = layout.read_info(packed)
    np.testing.assert_allclose(info.mean, conditions.mean(0, dtype=np.float64), rtol=1e-6)
    assert (info.name, info.source, info.store) == ("varied", "noise", "packed")


def test_bounds(varied, tmp_path):
    folders, packed = varied
    index = pack(
        packed, tmp_path / "small", sequences=2, frames=4, workers=1
    )  # a packed data set can be packed again
    assert index[["split", "frames"]].to_numpy().tolist() == [
        ["train", 4], ["train", 3], ["validate", 3], ["validate", 4], ["test", 4],
    ]  # fmt: skip
    assert (tmp_path / "small" / "train" / "frames.npy").stat().st_size == 128 + 7 * 6 * 8 * 3
    small, whole = (SequenceDataset(root, "test", 4) for root in (tmp_path / "small", folders))
    np.testing.assert_array_equal(small[0]["frames"], whole[0]["frames"])
    rows = np.load(tmp_path / "small" / "train" / "conditions.npy")
    np.testing.assert_allclose(
        layout.read_info(tmp_path / "small").std, rows.std(0, dtype=np.float64), rtol=1e-6
    )


def test_sequences_without_conditions(tmp_path):
    for split in ("train", "test"):
        write_sequence(
            tmp_path / "in" / split / "0", np.arange(96, dtype=np.uint8).reshape(6, 4, 4, 1), None, None
        )
    build_index(tmp_path / "in")
    pack(tmp_path / "in", tmp_path / "out", workers=1)
    item = SequenceDataset(tmp_path / "out", "test", 6, "none")[0]
    assert item["conditions"].shape == (6, 0)
    assert item["frames"].ravel().tolist() == list(range(96))


def test_packing_does_not_depend_on_workers(varied, tmp_path):
    folders, packed = varied
    pack(folders, tmp_path, workers=2)
    for path in packed.rglob("*"):
        assert path.is_dir() or path.read_bytes() == (tmp_path / path.relative_to(packed)).read_bytes()


def test_short_sequences_are_left_out_and_counted(varied):
    dataset = SequenceDataset(varied[0], "train", 5)
    assert (len(dataset), dataset.left_out) == (2, 2)
    assert dataset.index["sequence"].tolist() == ["0", "2"] and dataset.lengths.tolist() == [5, 8]
    np.testing.assert_array_equal(
        dataset[1, 3]["frames"], SequenceDataset(varied[1], "train", 8)[0]["frames"][3:]
    )
    with pytest.raises(InputError, match=r"train/2: found 8 frames, expected at least 9"):
        SequenceDataset(varied[0], "train", 9)


def test_stores_travel_to_worker_processes(varied):
    dataset = pickle.loads(pickle.dumps(SequenceDataset(varied[1], "train", 3)))
    alone = list(TrainingBatches(dataset, 4, 1, "random").iterate(range(4), workers=0, pin_memory=False))
    helped = list(TrainingBatches(dataset, 4, 1, "random").iterate(range(4), workers=2, pin_memory=False))
    assert all(
        (a["frames"] == b["frames"]).all() and (a["conditions"] == b["conditions"]).all()
        for a, b in zip(alone, helped, strict=True)
    )


DAMAGE = {
    "cut": (lambda p: p.write_bytes(p.read_bytes()[:-5]), r"frames.npy: found 3003 bytes, expected 3008"),
    "longer": (lambda p: p.write_bytes(p.read_bytes() + b"x"), r"found 3009 bytes, expected 3008"),
    "another shape": (
        lambda p: np.save(p, np.zeros((20, 8, 6, 3), np.uint8)),
        r"found no array of uint8 \[20, 6, 8, 3\]",
    ),
    "another type": (lambda p: np.save(p, np.zeros((20, 6, 8, 3), np.int8)), "found no array of uint8"),
    "pickled": (lambda p: np.save(p, np.array([{}] * 20), allow_pickle=True), "found no array of uint8"),
    "empty": (lambda p: p.write_bytes(b""), "found no array of uint8"),
    "gone": (lambda p: p.unlink(), "cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_on_opening(varied, tmp_path, damage):
    pack(varied[0], tmp_path, workers=1)
    change, message = DAMAGE[damage]
    change(tmp_path / "train" / "frames.npy")
    with pytest.raises(InputError, match=message):
        open_store(tmp_path, "train")


def test_a_file_that_shrinks_while_it_is_read_is_one_line(varied, tmp_path):
    pack(varied[0], tmp_path, workers=1)
    dataset = SequenceDataset(tmp_path, "train", 3)
    with open(tmp_path / "train" / "frames.npy", "r+b") as file:
        file.truncate(500)
    with pytest.raises(InputError, match=r"frames.npy: ends \d+ bytes early; pack the data set again"):
        dataset[3]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_index_or_dataset_json_is_one_line_or_harmless(varied, data):
    """Bytes overwritten anywhere in index.csv or dataset.json: an error of one line, or proper items."""
    _, packed = varied
    path = packed / data.draw(st.sampled_from([layout.INDEX_FILE, layout.INFO_FILE]))
    good = path.read_bytes()
    start = data.draw(st.integers(0, len(good) - 1))
    try:
        path.write_bytes(
            good[:start] + data.draw(st.binary(max_size=8)) + good[start + data.draw(st.integers(0, 8)) :]
        )
        dataset = SequenceDataset(packed, "train", 3)
        for number in range(len(dataset)):
            item = dataset[number]
            assert item["frames"].shape == (3, 6, 8, 3) and np.isfinite(item["conditions"]).all()
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
    finally:
        path.write_bytes(good)


@pytest.mark.parametrize(
    "path", ["/etc", "../other/0", "train/../../other", "C:\\data", "train\\..\\..\\x", ""]
)
def test_paths_that_leave_the_root_are_refused(varied, tmp_path, path):
    index = layout.read_index(varied[0])
    index.loc[1, "path"] = path
    layout.write_index(tmp_path, index, layout.read_info(varied[0]))
    with pytest.raises(
        InputError, match=rf"index.csv row 3: found path {re.escape(repr(path))}, expected one inside"
    ):
        layout.read_index(tmp_path)


@pytest.mark.parametrize(
    ("column", "value"),
    [("frames", 0), ("frames", 2**31 - 1), ("height", -1), ("width", 10**6), ("channels", 7)],
)
def test_sizes_that_no_frame_has_are_refused(varied, tmp_path, column, value):
    index = layout.read_index(varied[0])
    index.loc[2, column] = value
    layout.write_index(tmp_path, index, layout.read_info(varied[0]))
    with pytest.raises(InputError, match=rf"index.csv row 4: found {column} {value}, expected"):
        layout.read_index(tmp_path)


def test_flags_and_targets(varied, tmp_path, capsys):
    folders, _ = varied
    assert (
        svg_data.main(["pack", str(folders), str(tmp_path / "out"), "--sequences", "1", "--workers", "1"])
        == 0
    )
    assert f"{tmp_path / 'out'}: 3 sequences, 15 frames, 0.0 MB" in capsys.readouterr().out
    for flags, message in (
        ([str(folders), str(folders)], "lies within the data set that is packed"),
        ([str(folders), str(tmp_path / "x"), "--frames", "0"], "--frames: found 0"),
        (
            [str(folders), str(tmp_path / "out")],
            "found sequences 1, expected null as now asked for; nothing was changed",
        ),
        ([str(tmp_path / "no"), str(tmp_path / "x")], "no: no such folder"),
    ):
        assert svg_data.main(["pack", *flags]) == 2
        printed = capsys.readouterr().err
        assert message in printed and len(printed.splitlines()) == 1


def test_packing_stops_at_a_damaged_frame_and_goes_on_when_it_is_mended(varied, tmp_path):
    for split in ("train", "test"):
        for number in range(3):
            write_sequence(
                tmp_path / "in" / split / str(number), np.full((4, 4, 4, 3), number, np.uint8), None, None
            )
    build_index(tmp_path / "in")
    pack(tmp_path / "in", tmp_path / "whole", workers=1)
    frame = tmp_path / "in" / "test" / "1" / "2.png"
    good = frame.read_bytes()
    frame.write_bytes(good[:40])
    with pytest.raises(InputError, match=r"test/1/2.png: unreadable PNG"):
        pack(tmp_path / "in", tmp_path / "out", workers=1)
    assert (tmp_path / "out" / "train" / "frames.npy").exists() and not (
        tmp_path / "out" / "test" / "frames.npy"
    ).exists()
    assert not (tmp_path / "out" / layout.INDEX_FILE).exists()
    frame.write_bytes(good)
    pack(tmp_path / "in", tmp_path / "out", workers=1)
    for path in (tmp_path / "whole").rglob("*"):
        assert (
            path.is_dir()
            or path.read_bytes() == (tmp_path / "out" / path.relative_to(tmp_path / "whole")).read_bytes()
        )


def two_sequences(root, sign: int = 1) -> None:
    """train/0 and train/1 of 4 frames, whose actions are sign * (1, 2, 3, 4)."""
    for number in range(2):
        actions = sign * np.arange(1, 5, dtype=np.float32)[:, None]
        write_sequence(
            root / "train" / str(number), np.full((4, 4, 4, 3), number + 1, np.uint8), actions, None
        )
    build_index(root)


@pytest.mark.parametrize("name", ["frames", "conditions"])
def test_packing_again_mends_what_was_damaged(tmp_path, name):
    two_sequences(tmp_path / "in")
    pack(tmp_path / "in", tmp_path / "out", workers=1)
    path = tmp_path / "out" / "train" / f"{name}.npy"
    whole = path.read_bytes()
    for damaged in (whole[:-3], whole[:60], b"", whole + b"x"):
        path.write_bytes(damaged)
        pack(tmp_path / "in", tmp_path / "out", workers=1)
        assert path.read_bytes() == whole
    assert len(list((tmp_path / "out" / "train").iterdir())) == 2


@pytest.mark.parametrize("split", ["train", "test"])
def test_packing_again_after_the_source_changed_is_refused(tmp_path, split):
    two_sequences(tmp_path / "in")
    write_sequence(tmp_path / "in" / "test" / "0", np.zeros((4, 4, 4, 3), np.uint8), np.ones((4, 1)), None)
    build_index(tmp_path / "in")
    pack(tmp_path / "in", tmp_path / "out", workers=1)
    (tmp_path / "in" / split / "0" / "actions.csv").write_text(
        "-1\n-2\n-3\n-4\n"
    )  # as `svg-data check` may have advised
    build_index(tmp_path / "in")
    with pytest.raises(
        InputError,
        match=r'found data set "in, 3 sequences, .*", expected "in, 3 sequences, .*" as now asked for',
    ):
        pack(tmp_path / "in", tmp_path / "out", workers=1)


def test_packing_sees_what_was_indexed_since(tmp_path):
    """In one process: a sequence that is indexed in front of the others shifts them all."""
    two_sequences(tmp_path / "in")
    pack(tmp_path / "in", tmp_path / "one", workers=1)
    (tmp_path / "in" / "train" / "0").rename(tmp_path / "in" / "train" / "7")
    write_sequence(tmp_path / "in" / "train" / "0", np.full((4, 4, 4, 3), 9, np.uint8), np.ones((4, 1)), None)
    build_index(tmp_path / "in")
    pack(tmp_path / "in", tmp_path / "two", workers=1)
    dataset = SequenceDataset(tmp_path / "two", "train", 1)
    assert [int(dataset[number]["frames"][0, 0, 0, 0]) for number in range(3)] == [9, 2, 1]


def test_frames_out_of_a_sequence_are_refused(varied):
    for root in varied:
        dataset = SequenceDataset(root, "train", 3)
        for start in (-1, 3, 100):
            with pytest.raises(IndexError, match=f"frames {start} to {start + 2} of a sequence of 5"):
                dataset[0, start]


def test_a_lost_first_frame_does_not_shift_the_others(tmp_path):
    two_sequences(tmp_path)
    (tmp_path / "train" / "1" / "0.png").unlink()
    with pytest.raises(InputError, match=r"train/1/0.png: missing frame"):
        SequenceDataset(tmp_path, "train", 3)[1]
