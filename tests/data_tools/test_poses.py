"""Data with poses: how they lie on disk, which pose belongs to which frame, and what is refused."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_tools import __main__ as svg_data
from data_tools import layout, png, poses
from data_tools.errors import InputError
from data_tools.index import build_index
from data_tools.store import open_store
from svg.sequences import SequenceDataset
from tests.support.samples import walking_block


def shade(value: int) -> np.ndarray:
    return np.full((4, 8, 3), value, np.uint8)


def put(folder: Path, names: list[str], first: int = 0) -> None:
    """Pictures whose shade counts from `first` on in the order of the names."""
    folder.mkdir(parents=True, exist_ok=True)
    for value, name in enumerate(names, start=first):
        Image.fromarray(shade(value)).save(folder / name)


def course(
    root: Path, names: list[str], split: str = "train", sequence: str = "", labels: list[str] | None = None
) -> None:
    """A sequence as the course has it; frame t has the shade t, its pose 100 + t."""
    put(root / split / f"{split}_img" / sequence, names)
    put(root / split / f"{split}_label" / sequence, names if labels is None else labels, 100)


def test_the_pose_of_the_next_frame_is_the_condition(tmp_path):
    course(tmp_path, [f"{number}.png" for number in range(12)])
    index = build_index(tmp_path)
    assert index[["split", "sequence", "path", "frames", "poses"]].values.tolist() == [
        ["train", "train_img", "train/train_img", 12, 11]
    ]
    clip = SequenceDataset(tmp_path, "train", 4)[0, 7]
    assert clip["frames"][:, 0, 0, 0].tolist() == [7, 8, 9, 10]
    assert clip["conditions"][:, 0, 0, 0].tolist() == [108, 109, 110, 111]
    end = SequenceDataset(tmp_path, "train", 4)[0, 8]
    assert end["conditions"][:, 0, 0, 0].tolist() == [109, 110, 111, 111]  # nothing follows the last frame


@pytest.mark.parametrize("form", ["{}.png", "frame{}.png", "{:04d}.png", "{:012d}.png", "Frame_{}.PNG"])
def test_frames_come_in_the_order_of_their_numbers(tmp_path, form):
    course(tmp_path, [form.format(number) for number in range(3, 15)])
    build_index(tmp_path)
    item = SequenceDataset(tmp_path, "train", 12)[0]
    assert item["frames"][:, 0, 0, 0].tolist() == list(range(12))
    assert item["conditions"][:, 0, 0, 0].tolist() == [*range(101, 112), 111]


def test_a_test_sequence_of_one_frame_and_many_poses(tmp_path):
    course(tmp_path, ["0.png"], "test", "3", [f"{number}.png" for number in range(6)])
    course(tmp_path, [f"{number}.png" for number in range(4)], "val")
    index = build_index(tmp_path)
    assert index[["split", "sequence", "frames", "poses"]].values.tolist() == [
        ["validate", "val_img", 4, 3],
        ["test", "3", 1, 5],
    ]
    dataset = SequenceDataset(tmp_path, "test", 1)
    assert dataset.horizon(0) == 5
    assert dataset.read_conditions(0, 1, 5)[:, 0, 0, 0].tolist() == [102, 103, 104, 105]


def test_the_first_frame_needs_no_pose(tmp_path):
    course(tmp_path, [f"{number}.png" for number in range(5)])
    (tmp_path / "train" / "train_label" / "0.png").unlink()
    build_index(tmp_path)
    assert SequenceDataset(tmp_path, "train", 5)[0]["conditions"][:, 0, 0, 0].tolist() == [
        101,
        102,
        103,
        104,
        104,
    ]


def test_only_what_a_clip_needs_is_read(tmp_path, monkeypatch):
    course(tmp_path, [f"{number}.png" for number in range(9)])
    build_index(tmp_path)
    opened, read = [], png.read_frame
    monkeypatch.setattr(
        png,
        "read_frame",
        lambda path, *rest: opened.append("/".join(Path(path).parts[-2:])) or read(path, *rest),
    )
    dataset = SequenceDataset(tmp_path, "train", 2)
    assert not opened
    dataset[0, 4]
    assert opened == ["train_img/4.png", "train_img/5.png", "train_label/5.png", "train_label/6.png"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: (r / "train_img/2.png").unlink(), "train_img: found no frame number 2, expected 0 to 4"),
        (lambda r: (r / "train_label/3.png").unlink(),
        "train_label: found no pose number 3, expected 1 to 4"),
        (lambda r: (r / "train_label/4.png").unlink(),
        "train_label: found no pose number 4, expected 1 to 4"),
        (lambda r: shutil.rmtree(r / "train_label"), "train_label: cannot be read"),
        (lambda r: (r / "train_img/2.png").rename(r / "train_img/second.png"),
        "second.png: found no frame number"),
        (lambda r: shutil.copy(r / "train_img/2.png", r / "train_img/02.png"), "has the same number as"),
        (lambda r: Image.fromarray(shade(1)[:2]).save(r / "train_label/2.png"),
        "2.png: found 2x8 with 3 channels, expected 4x8"),
        (lambda r: Image.fromarray(shade(1)[..., 0]).save(r / "train_img/2.png"),
        "2.png: found 4x8 with 1 channels, expected 4x8"),
        (lambda r: (r / "train_img/2.png").write_bytes(b"no"), "train_img/2.png: not a PNG image"),
        (lambda r: [file.rename(file.with_suffix(".jpg")) for file in (r / "train_img").iterdir()],
         "found no PNG in it"),
    ],
)  # fmt: skip
def test_faulty_sequences_are_refused_in_a_line(tmp_path, spoil, message):
    course(tmp_path, [f"{number}.png" for number in range(5)])
    spoil(tmp_path / "train")
    with pytest.raises(InputError, match=re.escape(message)) as error:
        build_index(tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / layout.INDEX_FILE).exists()


def test_what_changes_after_indexing_is_missed(pose_root, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(pose_root, root)
    (root / "test" / "test_label" / "1" / "23.png").unlink()
    with pytest.raises(InputError, match="test_label/1: found no pose number 23"):
        SequenceDataset(root, "test", 3)[1]
    (root / "test" / "test_img" / "1" / "23.png").unlink()
    with pytest.raises(InputError, match="found 23 frames and 22 poses after the first, expected 24 and 23"):
        SequenceDataset(root, "test", 3)[1]


def test_written_sequences_come_back(tmp_path):
    frames, skeletons = walking_block(np.random.default_rng(3), 7)
    poses.write_sequence(tmp_path, "validate", "a", frames, skeletons)
    assert sorted(path.name for path in (tmp_path / "val").iterdir()) == ["val_img", "val_label"]
    build_index(tmp_path)
    item = SequenceDataset(tmp_path, "validate", 7)[0]
    np.testing.assert_array_equal(item["frames"], frames)
    np.testing.assert_array_equal(item["conditions"], skeletons[[1, 2, 3, 4, 5, 6, 6]])
    with pytest.raises(InputError, match="val_img/a: is there already"):
        poses.write_sequence(tmp_path, "validate", "a", frames, skeletons)


def test_an_interrupted_writer_leaves_no_frames(tmp_path, monkeypatch):
    """Where there are frames there are poses: the frames are named last."""
    frames, skeletons = walking_block(np.random.default_rng(3), 5)
    encode, calls = png.encode_frames, []

    def stop_at_the_second(pictures):
        calls.append(len(pictures))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode(pictures)

    monkeypatch.setattr(png, "encode_frames", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        poses.write_sequence(tmp_path, "train", "0", frames, skeletons)
    assert [path.name for path in (tmp_path / "train" / "train_label").iterdir()] == ["0"]
    assert list((tmp_path / "train" / "train_img").iterdir()) == []


def test_packed_items_are_the_same(pose_root, tmp_path):
    assert svg_data.main(["pack", str(pose_root), str(tmp_path / "packed"), "--workers", "1"]) == 0
    for split in layout.SPLITS:
        plain, packed = (SequenceDataset(root, split, 5) for root in (pose_root, tmp_path / "packed"))
        assert len(plain) == len(packed)
        for number in range(len(plain)):
            for start in (0, 19):
                for name in ("frames", "conditions"):
                    np.testing.assert_array_equal(plain[number, start][name], packed[number, start][name])
        assert packed.horizon(0) == plain.horizon(0) == 23
        np.testing.assert_array_equal(packed.read_conditions(1, 3, 9), plain.read_conditions(1, 3, 9))


def test_packing_leaves_out_lone_frames_and_says_so(tmp_path, capsys):
    names = [f"{number}.png" for number in range(9)]
    course(tmp_path / "data", names[:5], "train", "0")
    course(tmp_path / "data", names[:1], "test", "0", names[:5])  # the first of its split
    course(tmp_path / "data", names[:4], "test", "1", names)
    build_index(tmp_path / "data")
    assert svg_data.main(["pack", str(tmp_path / "data"), str(tmp_path / "packed"), "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert "test/test_img/0: left out, a packed data set has no place for the 4 poses" in printed
    assert "test/test_img/1: a packed data set has no place for the 5 poses beyond its frames" in printed
    store = open_store(tmp_path / "packed", "test")
    assert store.lengths.tolist() == [4] and store.horizon(0) == 3
    item = SequenceDataset(tmp_path / "packed", "test", 4)[0]
    assert item["frames"][:, 0, 0, 0].tolist() == [0, 1, 2, 3] and item["conditions"][
        :, 0, 0, 0
    ].tolist() == [101, 102, 103, 104]
    assert (
        svg_data.main(
            ["pack", str(tmp_path / "data"), str(tmp_path / "none"), "--frames", "1", "--workers", "1"]
        )
        == 2
    )
    assert "found no sequence with two frames or more" in capsys.readouterr().err


@pytest.mark.slow
def test_check_and_show(pose_root, tmp_path, capsys):
    root = tmp_path / "copy"
    shutil.copytree(pose_root, root)
    assert svg_data.main(["check", str(root), "--workers", "1"]) == 0
    assert svg_data.main(["show", str(root)]) == 0
    printed = capsys.readouterr().out
    assert "no problem in 9 sequences, 216 frames" in printed and "frames 16x32x3, with poses" in printed
    with Image.open(root / "overview.png") as sheet:
        assert sheet.size[1] > sheet.size[0]  # 14 rows, of frames and of poses
    label = root / "train" / "train_label" / "2"
    for number in range(1, 24):
        shutil.copy(label / "0.png", label / f"{number}.png")
    (root / "val" / "val_label" / "0" / "3.png").write_bytes(
        (root / "val" / "val_label" / "0" / "3.png").read_bytes()[:-20]
    )
    shutil.copy(root / "train" / "train_img" / "0" / "5.png", root / "train" / "train_img" / "0" / "x9.txt")
    assert svg_data.main(["check", str(root), "--workers", "1"]) == 1
    printed = capsys.readouterr().out
    assert "train_img/2: the pose never changes" in printed and "val_label/0/3.png: unreadable PNG" in printed
    assert "2 problems" in printed


def test_check_takes_lone_frames_and_short_sequences(tmp_path, capsys):
    names = [f"{number}.png" for number in range(6)]
    course(tmp_path, names, "train")
    course(tmp_path, names[:1], "test", "0", names)
    put(tmp_path / "val" / "val_img", names[:3], 50)
    put(tmp_path / "val" / "val_label", names[:1], 200)
    for name in names[1:3]:
        shutil.copy(tmp_path / "val" / "val_label" / "0.png", tmp_path / "val" / "val_label" / name)
    build_index(tmp_path)
    assert svg_data.main(["check", str(tmp_path), "--workers", "1"]) == 0
    assert "no problem in 3 sequences, 10 frames" in capsys.readouterr().out
    (tmp_path / layout.INDEX_FILE).write_text(
        (tmp_path / layout.INDEX_FILE).read_text().replace(",poses\n", ",skeletons\n")
    )
    assert svg_data.main(["check", str(tmp_path), "--workers", "1"]) == 1
    assert "found poses 5, index.csv says None" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("index.csv", ("train/train_img/0", "train"), "not like train/train_img"),
        ("index.csv", ("train/train_img/0", "train/train_label/0"), "not like train/train_img"),
        ("index.csv", ("train/train_img/0", "train/train_img/../../../0"), "found path"),
        ("index.csv", (",23\n", ",0\n"), "found poses 0, expected 1 to"),
        (
            "index.csv",
            (",23\n", ",999\n"),
            "found 24 frames and 23 poses after the first, expected 24 and 999",
        ),
        ("index.csv", (",poses\n", ",x\n"), "found no column poses"),
        ("dataset.json", ('"pose_channels": 3', '"pose_channels": 9'), "damaged"),
        ("dataset.json", ('"store": "poses"', '"store": "folders"'), "damaged"),
        ("dataset.json", ('"pose_channels": 3', '"pose_channels": 0'), "damaged"),
        ("dataset.json", ('"store": "poses"', '"store": "packed"'), "frames.npy: cannot be read"),
    ],
)
def test_damaged_indexes_are_refused_in_a_line(pose_root, tmp_path, file, change, message):
    root = tmp_path / "copy"
    shutil.copytree(pose_root, root)
    text = (root / file).read_text()
    assert change[0] in text
    (root / file).write_text(text.replace(*change))
    with pytest.raises(InputError, match=re.escape(message)) as error:
        SequenceDataset(root, "train", 4)[0]
    assert "\n" not in str(error.value)


def test_a_packed_index_is_not_believed(pose_root, tmp_path):
    assert svg_data.main(["pack", str(pose_root), str(tmp_path / "packed"), "--workers", "1"]) == 0
    index = tmp_path / "packed" / "index.csv"
    index.write_text(index.read_text().replace(",23\n", ",999\n"))
    with pytest.raises(InputError, match="found more poses than frames; pack the data set again"):
        SequenceDataset(tmp_path / "packed", "train", 4)


def test_conditions_that_there_are_not(pose_root, data_root):
    for root, last in ((pose_root, 24), (data_root, 15)):
        store = open_store(root, "test")
        assert len(store.read_conditions(0, 2, last)) == last - 2
        with pytest.raises(IndexError):
            store.read_conditions(0, 2, last + 1)


def test_who_stands_still_is_not_frozen(tmp_path, capsys):
    frames, skeletons = walking_block(np.random.default_rng(1), 20)
    frames[6:14], skeletons[6:14] = frames[6], skeletons[6]
    poses.write_sequence(tmp_path, "train", "still", frames, skeletons)
    frames, skeletons = walking_block(np.random.default_rng(2), 20)
    frames[6:14] = frames[6]
    skeletons[:, 0, :, 0] = np.arange(20)[:, None]  # the person moves
    poses.write_sequence(tmp_path, "train", "stuck", frames, skeletons)
    build_index(tmp_path)
    assert svg_data.main(["check", str(tmp_path), "--workers", "1"]) == 1
    printed = capsys.readouterr().out
    assert "train_img/stuck: frozen frames" in printed and "train_img/still" not in printed


def test_a_split_without_its_folders_is_named(pose_root, tmp_path, capsys):
    root = tmp_path / "copy"
    shutil.copytree(pose_root, root)
    (root / "val" / "val_img").rename(root / "val" / "images")
    assert svg_data.main(["index", str(root)]) == 0
    (root / "validate").mkdir()
    assert svg_data.main(["index", str(root)]) == 0
    printed = capsys.readouterr().out
    assert "val: not read; expected val_img and val_label in it" in printed
    assert "validate: not read; the splits of data with poses are called train, val, test" in printed


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 9), st.integers(0, 3), st.integers(1, 4))
def test_time_contract_for_any_lengths(tmp_path_factory, frames, more, length):
    root = tmp_path_factory.mktemp("course")
    course(root, [f"{n}.png" for n in range(frames)], labels=[f"{n}.png" for n in range(frames + more)])
    build_index(root)
    dataset = SequenceDataset(root, "train", min(length, frames))
    for start in range(frames - dataset.clip_length + 1):
        item = dataset[0, start]
        expected = np.minimum(item["frames"][:, 0, 0, 0].astype(int) + 1, frames + more - 1) + 100
        assert item["conditions"][:, 0, 0, 0].tolist() == expected.tolist()
