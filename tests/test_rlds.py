"""RLDS episodes into sequences."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tfrecords
from PIL import Image
from recordings import (
    PICTURE,
    episode,
    read_sequence,
    write_version,
)

from data_tools import layout, rlds
from data_tools.folders import read_conditions
from data_tools.layout import InputError


@pytest.fixture
def version(tmp_path) -> Path:
    """Episodes of 3, 4, ... steps, two training shards of three and two, one validation shard of one."""
    return write_version(tmp_path / "pushing" / "1.0.0", {"train": [3, 4, 5, 6, 7], "val": [8]})


def test_rlds_episodes_keep_their_length_and_numbers(version, tmp_path):
    selection, report = rlds.convert(version.parent, tmp_path / "out", image_width=10, workers=1)
    assert (selection.camera, selection.actions) == ("observation/camera", ("action/close", "action/move"))
    assert report.written == 6
    index = layout.read_index(tmp_path / "out")
    assert index["split"].tolist() == ["train"] * 5 + ["validate"]
    assert index["frames"].tolist() == [3, 4, 5, 6, 7, 8]
    for number, path in enumerate(index["path"]):
        features, steps = episode(number, 3 + number), 3 + number
        tables = read_conditions(tmp_path / "out" / path, steps)
        np.testing.assert_array_equal(tables["positions"], features["steps/observation/state"].reshape(steps, 2))
        expected = np.column_stack([features["steps/action/close"], features["steps/action/move"].reshape(steps, 2)])
        np.testing.assert_array_equal(tables["actions"], expected.astype(np.float32))
        with Image.open(io.BytesIO(features["steps/observation/camera"][2])) as image:
            middle = np.asarray(image)[:, 3:13]  # the square in the middle, unchanged
        np.testing.assert_array_equal(read_sequence(tmp_path / "out" / path)[2], middle)


def test_rlds_choices(version, tmp_path):
    rlds.convert(
        version, tmp_path / "out", "observation/wrist_camera", ["action/close"], ["none"], 8, "stretch", (0.5, 0.25, 0.25), 1
    )
    index = layout.read_index(tmp_path / "out")
    assert index["split"].value_counts().to_dict() == {"train": 3, "validate": 2, "test": 1}
    assert index[["height", "width", "action_dim", "position_dim"]].drop_duplicates().to_numpy().tolist() == [[8, 8, 1, 0]]
    first = episode(0, 3)["steps/observation/wrist_camera"][0]
    with Image.open(io.BytesIO(first)) as image:
        expected = np.asarray(image.resize((8, 8), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(read_sequence(tmp_path / "out" / index["path"][0])[0], expected)


def test_rlds_keys_that_are_not_there_are_listed(version, tmp_path):
    for keys, message in (
        ({"camera": "image"}, "--camera: found image, expected one of observation/camera, observation/wrist_camera"),
        ({"action_keys": ["text"]}, "--action_key: found text, expected none or some of action/close, action/move"),
        ({"state_keys": ["x"]}, "--state_key: found x"),
        ({"image_width": 2}, "--image_width: found 2"),
        ({"shares": (1, 1, 1)}, "--splits: found 1 1 1"),
    ):
        with pytest.raises(InputError, match=message):
            rlds.convert(version, tmp_path / "out", workers=1, **keys)
    assert not (tmp_path / "out").exists()


def test_rlds_damage_is_named_and_missing_episodes_are_missed(version, tmp_path):
    shard = version / "pushing-train.tfrecord-00000-of-00002"
    whole = [episode(number, 3 + number) for number in range(3)]
    broken = whole[1] | {"steps/observation/camera": [b"no picture"] * 4}
    for sequences, message in (
        ([whole[0], broken, whole[2]], "record 1 at byte .*: step 0 of observation/camera: unreadable picture"),
        (
            [whole[0], whole[1] | {"steps/action/move": np.zeros(3, np.float32)}, whole[2]],
            "record 1 .* found 3 values, expected 2 for",
        ),
        (whole[:1], "record 1 at byte .*: the file ends here, 2 of 3 records are missing"),
    ):
        tfrecords.write_shard(shard, sequences)
        with pytest.raises(InputError, match=message):
            rlds.convert(version, tmp_path / "out", workers=1)
    _, report = rlds.convert(version, tmp_path / "out", workers=1, skip_damaged=True)
    assert len(layout.read_index(tmp_path / "out")) == 4 and len(report.left_out) == 1


def test_rlds_descriptions_that_are_damaged(version, tmp_path):
    good = (version / "features.json").read_text()
    for text in ("{", "[]", '{"featuresDict": 3}', good.replace("sequence", "x")):
        (version / "features.json").write_text(text)
        with pytest.raises(InputError, match=r"features.json: "):
            rlds.convert(version, tmp_path / "out", workers=1)
    (version / "features.json").write_text(good)
    for text in ("{", "[]", '{"splits": [{"name": "train", "shardLengths": ["x"]}]}', '{"splits": []}'):
        (version / "dataset_info.json").write_text(text)
        with pytest.raises(InputError, match=r"dataset_info.json"):
            rlds.convert(version, tmp_path / "out", workers=1)
    splits = [{"name": "train", "shardLengths": ["3", "1000000000000"]}, {"name": "val", "shardLengths": ["1"]}]
    (version / "dataset_info.json").write_text(json.dumps({"splits": splits}))
    with pytest.raises(InputError, match=r"00001-of-00002: \d+ bytes cannot hold 1000000000000 episodes"):
        rlds.convert(version, tmp_path / "out", workers=1)


def test_rlds_keeps_a_lone_test_split_and_passes_depth_over(version, tmp_path):
    description = json.loads((version / "features.json").read_text())
    steps = description["featuresDict"]["features"]["steps"]["sequence"]["feature"]["featuresDict"]["features"]
    depth = {"image": {"shape": {"dimensions": ["10", "16", "1"]}, "dtype": "uint16", "encodingFormat": "png"}}
    steps["observation"]["featuresDict"]["features"]["a_depth"] = depth
    steps["observation"]["featuresDict"]["features"]["a_hand_image"] = PICTURE
    (version / "features.json").write_text(json.dumps(description))
    for shard in version.glob("*-train.*"):
        shard.rename(str(shard).replace("-train.", "-test."))
    (version / "pushing-val.tfrecord-00000-of-00001").unlink()
    splits = [{"name": "test", "shardLengths": ["3", "2"]}]
    (version / "dataset_info.json").write_text(json.dumps({"splits": splits}))
    selection, _ = rlds.convert(version, tmp_path / "out", image_width=8, workers=1)
    assert selection.camera == "observation/camera"
    assert layout.read_index(tmp_path / "out")["split"].tolist() == ["test"] * 5


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"splits": [{"name": "train", "shardLengths": [1e999]}]}', "1" * 5001, "\x00", ""]
)
def test_json_that_breaks_parsers_is_one_line(version, tmp_path, text):
    good = (version / "dataset_info.json").read_text()
    for name in ("dataset_info.json", "features.json"):
        (version / "dataset_info.json").write_text(good)
        (version / name).write_text(text)
        with pytest.raises(InputError, match=name) as error:
            rlds.convert(version, tmp_path / "out", workers=1)
        assert len(str(error.value)) < 500


def test_rlds_episodes_that_are_missing_behind_present_ones_are_told(version, tmp_path):
    """The shard is cut below what was converted before: what is lost is what comes after."""
    shard = version / "pushing-train.tfrecord-00000-of-00002"
    whole = shard.read_bytes()
    rlds.convert(version, tmp_path / "out", workers=1)
    for path in (tmp_path / "out/train" / shard.name).glob("[12]"):
        shutil.rmtree(path)
    first = int.from_bytes(whole[:8], "little") + 16
    for length, record in ((0, 0), (first, 1), (first + 50, 1), (first // 2, 0)):
        shard.write_bytes(whole[:length])
        with pytest.raises(
            InputError, match="episodes, as" if not length else rf"record {record} at byte|record {record + 1} at byte"
        ):
            rlds.convert(version, tmp_path / "out", workers=1)
    shard.write_bytes(whole)
    _, report = rlds.convert(version, tmp_path / "out", workers=1)
    assert (report.written, report.present) == (2, 4)


def test_an_rlds_shard_that_was_not_fetched_is_named(version, tmp_path):
    (version / "pushing-train.tfrecord-00001-of-00002").unlink()
    with pytest.raises(InputError, match=r"pushing-train.tfrecord-00001-of-00002: missing shard of split train \(1 in all\)"):
        rlds.convert(version, tmp_path / "out", workers=1)
    _, report = rlds.convert(version, tmp_path / "out", workers=1, skip_damaged=True)
    assert report.written == 4 and "00001-of-00002: missing shard" in report.left_out[0]
