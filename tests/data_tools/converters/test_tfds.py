"""Descriptions of TensorFlow Datasets: how shards are called, and sizes that are not to be believed."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data_tools import __main__ as svg_data
from data_tools import layout
from data_tools.converters import rlds
from data_tools.errors import InputError
from tests.support import tfrecords
from tests.support.limits import deadline
from tests.support.recordings import sequence, tensor, write_version


@pytest.fixture
def version(tmp_path) -> Path:
    """Episodes of 3, 4, ... steps, two training shards of three and two, one validation shard of one."""
    return write_version(tmp_path / "pushing" / "1.0.0", {"train": [3, 4, 5, 6, 7], "val": [8]})


# -------------------------------------------------------------------------------------------- names of shards


def rename_shards(version: Path, name: Callable[[str, int, int], str], template: str | None) -> None:
    """Give the shards of a data set, and its description, other names."""
    info = json.loads((version / "dataset_info.json").read_text())
    for split in info["splits"]:
        split |= {"filepathTemplate": template} if template else {}
        total = len(split["shardLengths"])
        for number in range(total):
            shard = version / f"pushing-{split['name']}.tfrecord-{number:05d}-of-{total:05d}"
            target = version / name(split["name"], number, total)
            target.parent.mkdir(exist_ok=True)
            shard.rename(target)
    (version / "dataset_info.json").write_text(json.dumps(info))


NAMES = {
    "index": (
        lambda split, n, of: f"pushing-{split}.tfrecord-{n:05d}",
        "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}",
    ),
    "index, undeclared": (lambda split, n, of: f"pushing-{split}.tfrecord-{n:05d}", None),
    "folders": (
        lambda split, n, of: f"{split}/data.tfrecord-{n:05d}-{of:05d}",
        "{SPLIT}/data.{FILEFORMAT}-{SHARD_INDEX}-{NUM_SHARDS}",
    ),
    "usual": (
        lambda split, n, of: f"pushing-{split}.tfrecord-{n:05d}-of-{of:05d}",
        "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    ),
    "renamed": (lambda split, n, of: f"my-own-{split}.tfrecord-{n:05d}-of-{of:05d}", None),
}


@pytest.mark.parametrize("names", NAMES)
def test_shards_are_called_as_the_data_set_says(version, tmp_path, names):
    rename_shards(version, *NAMES[names])
    _, report = rlds.convert(version, tmp_path / "out", workers=1)
    assert (report.written, report.notes, report.left_out) == (6, [], [])
    index = layout.read_index(tmp_path / "out")
    assert index["frames"].tolist() == [3, 4, 5, 6, 7, 8] and index["split"].tolist() == ["train"] * 5 + [
        "validate"
    ]
    assert layout.read_info(tmp_path / "out").name == ("my-own" if names == "renamed" else "pushing")


def test_a_split_may_be_one_file(tmp_path):
    version = write_version(tmp_path / "1.0.0", {"train": [3], "val": [4]})
    rename_shards(version, lambda split, *_: f"{split}.tfrecord", "{SPLIT}.{FILEFORMAT}")
    rlds.convert(version, tmp_path / "out", workers=1)
    assert layout.read_index(tmp_path / "out")["path"].tolist() == [
        "train/train.tfrecord/0",
        "validate/val.tfrecord/0",
    ]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("../{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}", "found shards in '..', expected them in"),
        ("/tmp/{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}", "found shards in '/tmp', expected them in"),
        ("{DATASET.__class__}-{SPLIT}", "found the template"),
        ("{SPLIT}-{YEAR}", "found the template '{SPLIT}-{YEAR}', expected one like {DATASET}-{SPLIT}"),
        ("{SPLIT}.{FILEFORMAT}", "dataset_info.json lists 2 shards of split train, not this one"),
        (7, "no shard lengths of the splits"),
        ("x" * 2000, "no shard lengths of the splits"),
    ],
)
def test_templates_that_are_none(version, tmp_path, template, message):
    rename_shards(
        version, lambda split, number, total: f"{split}.tfrecord" if number == 0 else f"{split}{number}", None
    )
    info = json.loads((version / "dataset_info.json").read_text())
    for split in info["splits"]:
        split["filepathTemplate"] = template
    (version / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match=re.escape(message)):
        rlds.convert(version, tmp_path / "out", workers=1)


def test_shards_that_are_twice_or_not_listed_or_absent_are_told(version, tmp_path, capsys):
    shard = version / "pushing-train.tfrecord-00001-of-00002"
    shutil.copy(shard, version / "pushing-extra.tfrecord-00000-of-00001")
    (version / "pushing-val.tfrecord-00000-of-00001").unlink()
    assert svg_data.main(["rlds", str(version), str(tmp_path / "out"), "--workers", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"note: {version}: split val is not read; none of its 1 shards is here" in lines
    assert (
        f"note: {version / 'pushing-extra.tfrecord-00000-of-00001'}: not read; dataset_info.json "
        f"lists no such shard" in lines
    )
    shutil.copy(shard, version / "old-train.tfrecord-00001-of-00002")
    with pytest.raises(
        InputError, match=r"is shard 1 of split train, and so is old-train.tfrecord-00001-of-00002; move one"
    ):
        rlds.convert(version, tmp_path / "out", workers=1)
    shard.rename(version / "pushing-train.tfrecord-00001-of-00003")
    with pytest.raises(
        InputError, match=r"00001-of-00003: dataset_info.json lists 2 shards of split train, not this one"
    ):
        rlds.convert(version, tmp_path / "other", workers=1)


def test_another_file_format_is_named(version, tmp_path):
    info = json.loads((version / "dataset_info.json").read_text()) | {"fileFormat": "array_record"}
    (version / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match="found the file format 'array_record', expected tfrecord"):
        rlds.convert(version, tmp_path / "out", workers=1)


# ----------------------------------------------------------------------------------------- lying descriptions


def nested(depth: int) -> dict:
    tree = tensor("float32", 2)
    for _ in range(depth):
        tree = sequence(tree)
    return tree


HUGE = {
    "dimensions": tensor("float32", *[10**17] * 50_000),
    "ones": tensor("uint8", *[1] * 50_000),
    "a large product": tensor("float32", 4096, 4096, 4096),
    "too many columns": tensor("float32", 4097),
    "sequences of sequences": nested(200),
}


@pytest.mark.parametrize("feature", HUGE)
def test_sizes_in_features_are_not_believed(version, tmp_path, feature):
    """They are no actions, and cost neither time nor memory."""
    description = json.loads((version / "features.json").read_text())
    steps = description["featuresDict"]["features"]["steps"]["sequence"]["feature"]["featuresDict"][
        "features"
    ]
    steps["action"] = HUGE[feature]
    (version / "features.json").write_text(json.dumps(description))
    with deadline(10):
        selection, _ = rlds.convert(version, tmp_path / "out", workers=1)
        assert selection.actions == ()


@pytest.mark.parametrize(
    "shards",
    [
        ["1"] * 200_000,
        [10**17] * 100,
        "1" * 100_000,
    ],
)
def test_numbers_of_shards_are_not_believed(version, tmp_path, shards):
    splits = [{"name": "train", "shardLengths": shards}]
    (version / "dataset_info.json").write_text(json.dumps({"splits": splits}))
    with deadline(5), pytest.raises(InputError, match=r"dataset_info\.json"):
        rlds.convert(version, tmp_path / "out", workers=1)


def test_descriptions_beyond_all_size_and_nesting_are_refused(version, tmp_path):
    good = (version / "features.json").read_text()
    deep = '{"featuresDict": {"features": {"' + "x" * 100 + '": '
    many = [{"name": f"{number}", "shardLengths": ["1"]} for number in range(2000)]
    for name, text in (
        ("features.json", " " * 5_000_000 + good),
        ("features.json", deep * 200 + "{}" + "}}}" * 200),
        ("dataset_info.json", json.dumps({"splits": many})),
    ):
        whole = (version / name).read_text()
        (version / name).write_text(text)
        with deadline(5), pytest.raises(InputError, match=name):
            rlds.convert(version, tmp_path / "out", workers=1)
        (version / name).write_text(whole)


def test_a_shard_of_many_small_records_is_not_read_once_for_each_few(version, tmp_path):
    records = 60_000
    (version / "pushing-train.tfrecord-00000-of-00002").write_bytes(tfrecords.record(b"") * records)
    splits = [{"name": "train", "shardLengths": [str(records), "2"]}, {"name": "val", "shardLengths": ["1"]}]
    (version / "dataset_info.json").write_text(json.dumps({"splits": splits}))
    assert (
        len(rlds._divided(records)) == rlds.JOBS_A_SHARD
        and len(rlds._divided(100)) == 4
        and rlds._divided(0) == []
    )
    assert [number for part in rlds._divided(1000) for number in part] == list(range(1000))
    with pytest.raises(InputError, match="record 0 at byte 0: no images"):
        rlds.convert(version, tmp_path / "out", workers=1)


def test_pipes_are_not_waited_for(version, tmp_path):
    for name in ("features.json", "dataset_info.json", "pushing-train.tfrecord-00001-of-00002"):
        path = version / name
        whole = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        with deadline(5), pytest.raises(InputError, match=f"{name}: cannot be read .not a regular file"):
            rlds.convert(version, tmp_path / "out", workers=1)
        path.unlink()
        path.write_bytes(whole)
