"""Data packed into chunks: the same items as those of the folders, in an order for object storage."""

import hashlib
import json
import pickle
import sys

import numpy as np
import pytest

from data_tools import __main__ as svg_data
from data_tools import layout, pack_chunks
from data_tools.check import check
from data_tools.chunks import LANES, epoch_order
from data_tools.errors import InputError
from data_tools.folders import write_sequence
from data_tools.index import build_index
from data_tools.pack import pack
from data_tools.store import ChunkStore, open_store
from svg.sequences import SequenceDataset, TrainingBatches

pytest.importorskip("litdata")


@pytest.fixture(scope="module")
def chunked(data_root, tmp_path_factory):
    """Return the data set of moving squares in chunks of some two sequences."""
    root = tmp_path_factory.mktemp("chunked") / "data"
    pack(data_root, root, workers=1, form="litdata", chunk_mb=SMALL)
    return root


SMALL = 0.04


def assert_same_items(root, other, length):
    for split in layout.SPLITS:
        ours, theirs = (SequenceDataset(place, split, length) for place in (root, other))
        assert ours.index.equals(theirs.index)
        assert (ours.condition_mean, ours.condition_std) == (theirs.condition_mean, theirs.condition_std)
        for number in range(len(ours)):
            for start in range(int(ours.lengths[number]) - length + 1):
                for name, array in ours[number, start].items():
                    assert array.dtype == theirs[number, start][name].dtype
                    np.testing.assert_array_equal(array, theirs[number, start][name])


def test_items_are_those_of_the_folders(chunked, data_root):
    assert isinstance(open_store(chunked, "train"), ChunkStore)
    assert len(list((chunked / "train").glob("*.bin"))) > 3
    assert_same_items(chunked, data_root, 4)
    assert_same_items(chunked, data_root, 15)


def test_items_with_poses_are_those_of_the_folders(pose_root, tmp_path):
    pack(pose_root, tmp_path, workers=1, form="litdata", chunk_mb=SMALL)
    pack(pose_root, tmp_path / "npy", workers=1)
    assert_same_items(tmp_path, tmp_path / "npy", 24)
    for split in layout.SPLITS:
        ours, theirs = (open_store(root, split) for root in (tmp_path, pose_root))
        frames, conditions = ours.read_clips([(0, 3, 3)], 20)
        expected = theirs.read_clips([(0, 3, 3)], 20)
        np.testing.assert_array_equal(frames, expected[0])
        np.testing.assert_array_equal(conditions, expected[1])


def test_pictures_are_copied_byte_for_byte_and_litdata_reads_them(chunked, data_root):
    """Other programs can read the chunks without this project."""
    from litdata import StreamingDataset

    dataset = StreamingDataset(str(chunked / "test"))
    assert len(dataset) == 5
    for number in range(5):
        folder = data_root / "test" / str(number)
        item = dataset[number]
        files = [(folder / f"{time}.png").read_bytes() for time in range(15)]
        assert bytes(item["frames"]) == b"".join(files)
        assert item["ends"].tolist() == np.cumsum([len(file) for file in files]).tolist()
        assert item["conditions"].dtype == np.float32
        tables = [
            np.loadtxt(folder / name, delimiter=",", ndmin=2)
            for name in ("actions.csv", "endeffector_positions.csv")
        ]
        np.testing.assert_array_equal(item["conditions"], np.concatenate(tables, 1).astype(np.float32))


def test_grey_frames_without_conditions_and_bounds(tmp_path):
    generator = np.random.default_rng(0)
    for split, length in (("train", 6), ("train", 5), ("test", 4)):
        frames = generator.integers(0, 256, (length, 4, 6, 1), np.uint8)
        write_sequence(tmp_path / "in" / split / str(length), frames, None, None)
    build_index(tmp_path / "in")
    pack(tmp_path / "in", tmp_path / "out", sequences=1, frames=3, workers=1, form="litdata")
    ours, theirs = (SequenceDataset(tmp_path / name, "train", 3, "none") for name in ("out", "in"))
    assert (len(ours), ours.lengths.tolist()) == (1, [3])
    np.testing.assert_array_equal(ours[0]["frames"], theirs[0]["frames"])
    assert ours[0]["conditions"].shape == (3, 0)


def test_chunks_can_be_packed_again(chunked, data_root, tmp_path):
    pack(chunked, tmp_path / "npy", workers=1)
    assert_same_items(tmp_path / "npy", data_root, 15)
    pack(tmp_path / "npy", tmp_path / "chunks", workers=1, form="litdata")
    assert_same_items(tmp_path / "chunks", data_root, 15)


# ---------------------------------------------------------------------------------------------------- packing


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_packing_does_not_depend_on_workers(chunked, data_root, tmp_path):
    pack(data_root, tmp_path, workers=2, form="litdata", chunk_mb=SMALL)
    assert contents(tmp_path) == contents(chunked)


@pytest.mark.parametrize("after", [0, 2, 5])
def test_an_interrupted_packing_is_no_data_set_and_goes_on(chunked, data_root, tmp_path, monkeypatch, after):
    write_chunk = pack_chunks._write_chunk
    written = []

    def stopping(folder, number, samples):
        if len(written) == after:
            raise KeyboardInterrupt
        written.append(number)
        return write_chunk(folder, number, samples)

    with monkeypatch.context() as patch:
        patch.setattr(pack_chunks, "_write_chunk", stopping)
        with pytest.raises(KeyboardInterrupt):
            pack(data_root, tmp_path, workers=1, form="litdata", chunk_mb=SMALL)
    with pytest.raises(InputError, match=r"dataset\.json: not found"):
        open_store(tmp_path, "train")
    pack(data_root, tmp_path, workers=1, form="litdata", chunk_mb=SMALL)
    assert contents(tmp_path) == contents(chunked)


def test_a_damaged_picture_is_not_copied(data_root, tmp_path):
    import shutil

    shutil.copytree(data_root, tmp_path / "in")
    broken = tmp_path / "in" / "train" / "1" / "3.png"
    data = bytearray(broken.read_bytes())
    data[60] ^= 1
    broken.write_bytes(data)
    with pytest.raises(InputError, match=r"train/1/3\.png: unreadable PNG"):
        pack(tmp_path / "in", tmp_path / "out", workers=1, form="litdata")


@pytest.mark.slow
def test_the_command(data_root, tmp_path, capsys):
    words = ["pack", str(data_root), str(tmp_path / "out"), "--format", "litdata", "--workers", "1"]
    assert svg_data.main(words) == 0
    assert f"{tmp_path / 'out'}: 22 sequences, 330 frames, 0.6 MB" in capsys.readouterr().out
    assert svg_data.main(["check", str(data_root), "--workers", "1"]) == 1  # a square that stands still
    expected = capsys.readouterr().out
    assert svg_data.main(["check", str(tmp_path / "out"), "--workers", "1"]) == 1
    assert capsys.readouterr().out == expected.replace(str(data_root), str(tmp_path / "out"))
    assert svg_data.main(["show", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "overview.png").exists()
    assert svg_data.main([*words[:3], "--format", "litdata", "--chunk_mb", "0"]) == 2
    assert "--chunk_mb: found 0, expected more than 0 and at most 4000" in capsys.readouterr().err


def test_without_the_extra(data_root, chunked, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "litdata"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "litdata", None)
    with pytest.raises(InputError, match=r"--format litdata: needs the package litdata; run `pip install"):
        pack(data_root, tmp_path, workers=1, form="litdata")
    dataset = SequenceDataset(chunked, "train", 4)
    with pytest.raises(InputError, match=r"chunked.*/data: reading it needs the package litdata"):
        dataset[0]


# ------------------------------------------------------------------------------------------------------ order


@pytest.mark.parametrize("clip_start", ["random", "sliding", "disjoint"])
def test_a_pass_holds_each_clip_once_and_reads_few_chunks_at_a_time(chunked, clip_start):
    dataset = SequenceDataset(chunked, "train", 6)
    batches = TrainingBatches(dataset, 4, 1, clip_start)
    total = {"random": 12, "sliding": 12 * 10, "disjoint": 12 * 2}[clip_start]
    passes = []
    for epoch in range(2):
        steps = range(epoch * total // 4, (epoch + 1) * total // 4)
        clips = [(sequence, start) for step in steps for sequence, start, _ in batches.clips(step)]
        assert len(set(clips)) == total
        assert np.bincount([sequence for sequence, _ in clips]).tolist() == [total // 12] * 12
        passes.append(clips)
    assert passes[0] != passes[1]


def test_the_order_is_litdatas_cut_into_lanes():
    from litdata.streaming.elastic import canonical_item_stream

    bounds = np.arange(0, 1001, 50)
    order = epoch_order(bounds, seed=3, epoch=2)
    intervals = [(start, start, start + 50, start + 50) for start in range(0, 1000, 50)]
    stream = canonical_item_stream(intervals, seed=3, epoch=2, shuffle=True)
    assert sorted(order.tolist()) == list(range(1000))
    assert order[0::LANES].tolist() == [item for _, item in stream[:125]]
    assert order[7::LANES].tolist() == [item for _, item in stream[875:]]
    for place in range(0, 1000, 200):  # 200 clips come from at most so many of the 20 chunks
        assert len(set(order[place : place + 200] // 50)) <= 2 * LANES
    assert (epoch_order(bounds, 3, 2) == order).all()
    assert (epoch_order(bounds, 3, 3) != order).any() and (epoch_order(bounds, 4, 2) != order).any()


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_processes_take_parts_of_the_same_batches_from_different_chunks(tmp_path, processes):
    generator = np.random.default_rng(0)
    for number in range(64):
        frames = generator.integers(0, 256, (2, 4, 4, 1), np.uint8)
        write_sequence(tmp_path / "in" / "train" / str(number), frames, None, None)
    build_index(tmp_path / "in")
    pack(tmp_path / "in", tmp_path / "out", workers=1, form="litdata", chunk_mb=1e-6)
    dataset = SequenceDataset(tmp_path / "out", "train", 2, "none")
    whole = TrainingBatches(dataset, 16, 5, "random")
    size = 16 // processes
    shares = [slice(rank * size, (rank + 1) * size) for rank in range(processes)]
    parts = [TrainingBatches(dataset, 16, 5, "random", share) for share in shares]
    read = [set() for _ in parts]
    for step in range(4):  # a pass
        clips = [part.clips(step) for part in parts]
        assert [clip for own in clips for clip in own] == whole.clips(step)
        for chunks, own in zip(read, clips, strict=True):
            chunks |= {sequence for sequence, _, _ in own}  # one sequence is one chunk here
    assert sum(map(len, read)) == len(set.union(*read)) == 64


@pytest.mark.slow
def test_worker_processes_read_the_same(chunked):
    dataset = pickle.loads(pickle.dumps(SequenceDataset(chunked, "train", 3)))
    batches = TrainingBatches(dataset, 4, 1, "random")
    alone = list(batches.iterate(range(4), workers=0, pin_memory=False))
    helped = list(batches.iterate(range(4), workers=2, pin_memory=False))
    for one, other in zip(alone, helped, strict=True):
        assert (one["frames"] == other["frames"]).all() and (one["conditions"] == other["conditions"]).all()


# ----------------------------------------------------------------------------------------------------- damage


def edit_list(change):
    def edit(root):
        path = root / "train" / "index.json"
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return edit


def cut(root):
    path = root / "train" / "chunk-0-0.bin"
    path.write_bytes(path.read_bytes()[:-5])


DAMAGE = {
    "cut": (cut, r"chunk-0-0\.bin: found \d+ bytes, expected \d+; pack the data set again"),
    "gone": (lambda root: (root / "train" / "chunk-0-0.bin").unlink(), r"chunk-0-0\.bin: missing chunk"),
    "zeros": (
        lambda root: (root / "train" / "chunk-0-0.bin").write_bytes(
            bytes((root / "train" / "chunk-0-0.bin").stat().st_size)
        ),
        r"chunk-0-0\.bin: damaged \(.*header item count",
    ),
    "no list": (lambda root: (root / "train" / "index.json").unlink(), r"index\.json: cannot be read"),
    "pickled": (
        edit_list(lambda values: values["config"].update(data_format=["bytes", "pickle", "numpy"])),
        r"index\.json: found data_format \['bytes', 'pickle', 'numpy'\]",
    ),
    "elsewhere": (
        edit_list(lambda values: values["chunks"][0].update(filename="../chunk-0-0.bin")),
        r"index\.json: damaged \(found the file name '\.\./chunk-0-0\.bin'",
    ),
    "fewer": (edit_list(lambda values: values["chunks"].pop()), r"found \d+ samples, expected 12"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_one_line(chunked, tmp_path, damage):
    import shutil

    root = tmp_path / "data"
    shutil.copytree(chunked, root)
    change, message = DAMAGE[damage]
    change(root)
    with pytest.raises(InputError, match=message):
        SequenceDataset(root, "train", 4)[0]


def test_check_compares_checksums(chunked, tmp_path):
    import shutil

    root = tmp_path / "data"
    shutil.copytree(chunked, root)
    before = check(root, workers=1).problems
    path = root / "test" / "chunk-0-0.bin"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # the last number of the conditions, which has no checksum of its own
    path.write_bytes(data)
    problems = check(root, workers=1).problems
    assert problems[0] == f"{path}: the checksum does not match: changed or damaged; pack the data set again"
    assert problems[1 : 1 + len(before)] == before


def test_a_chunk_ends_when_it_is_full_and_before_it_is_too_large():
    samples = [{"frames": bytes(size - pack_chunks.OVERHEAD)} for size in (100, 100, 900, 100, 300, 100)]
    batches = list(pack_chunks._batches(samples, chunk_bytes=300, most=1000))
    sizes = [[pack_chunks._bytes_of(sample) for sample in batch] for batch in batches]
    assert sizes == [[100, 100], [900], [100, 300], [100]]


def test_the_list_has_the_digests(chunked):
    values = json.loads((chunked / "train" / "index.json").read_text())
    for chunk in values["chunks"]:
        data = (chunked / "train" / chunk["filename"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (chunk["chunk_bytes"], chunk["sha256"])
