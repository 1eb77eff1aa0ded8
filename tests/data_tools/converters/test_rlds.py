"""RLDS episodes into sequences."""

import io
import json
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools import __main__ as svg_data
from data_tools import layout
from data_tools.converters import rlds
from data_tools.converters.tfrecord import parse_example, read_records
from data_tools.errors import InputError
from data_tools.tables import read_conditions
from tests.support import tfrecords
from tests.support.recordings import (
    PICTURE,
    episode,
    features_dict,
    read_sequence,
    sequence,
    shared_case,
    tensor,
    write_version,
)


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
        np.testing.assert_array_equal(
            tables["positions"], features["steps/observation/state"].reshape(steps, 2)
        )
        expected = np.column_stack(
            [features["steps/action/close"], features["steps/action/move"].reshape(steps, 2)]
        )
        np.testing.assert_array_equal(tables["actions"], expected.astype(np.float32))
        with Image.open(io.BytesIO(features["steps/observation/camera"][2])) as image:
            middle = np.asarray(image)[:, 3:13]  # the square in the middle, unchanged
        np.testing.assert_array_equal(read_sequence(tmp_path / "out" / path)[2], middle)


def test_rlds_choices(version, tmp_path):
    rlds.convert(
        version,
        tmp_path / "out",
        "observation/wrist_camera",
        ["action/close"],
        ["none"],
        8,
        "stretch",
        (0.5, 0.25, 0.25),
        1,
    )
    index = layout.read_index(tmp_path / "out")
    assert index["split"].value_counts().to_dict() == {"train": 3, "validate": 2, "test": 1}
    assert index[["height", "width", "action_dim", "position_dim"]].drop_duplicates().to_numpy().tolist() == [
        [8, 8, 1, 0]
    ]
    first = episode(0, 3)["steps/observation/wrist_camera"][0]
    with Image.open(io.BytesIO(first)) as image:
        expected = np.asarray(image.resize((8, 8), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(read_sequence(tmp_path / "out" / index["path"][0])[0], expected)


def test_rlds_keys_that_are_not_there_are_listed(version, tmp_path):
    for keys, message in (
        (
            {"camera": "image"},
            "--camera: found image, expected one of observation/camera, observation/wrist_camera",
        ),
        (
            {"action_keys": ["text"]},
            "--action_key: found text, expected none or some of action/close, action/move",
        ),
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
        (
            [whole[0], broken, whole[2]],
            "record 1 at byte .*: step 0 of observation/camera: unreadable picture",
        ),
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
    splits = [
        {"name": "train", "shardLengths": ["3", "1000000000000"]},
        {"name": "val", "shardLengths": ["1"]},
    ]
    (version / "dataset_info.json").write_text(json.dumps({"splits": splits}))
    with pytest.raises(InputError, match=r"00001-of-00002: \d+ bytes cannot hold 1000000000000 episodes"):
        rlds.convert(version, tmp_path / "out", workers=1)


def test_rlds_keeps_a_lone_test_split_and_passes_depth_over(version, tmp_path):
    description = json.loads((version / "features.json").read_text())
    steps = description["featuresDict"]["features"]["steps"]["sequence"]["feature"]["featuresDict"][
        "features"
    ]
    depth = {
        "image": {"shape": {"dimensions": ["10", "16", "1"]}, "dtype": "uint16", "encodingFormat": "png"}
    }
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
    "text",
    ["[" * 100_000, '{"splits": [{"name": "train", "shardLengths": [1e999]}]}', "1" * 5001, "\x00", ""],
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
            InputError,
            match="episodes, as" if not length else rf"record {record} at byte|record {record + 1} at byte",
        ):
            rlds.convert(version, tmp_path / "out", workers=1)
    shard.write_bytes(whole)
    _, report = rlds.convert(version, tmp_path / "out", workers=1)
    assert (report.written, report.present) == (2, 4)


def test_an_rlds_shard_that_was_not_fetched_is_named(version, tmp_path):
    (version / "pushing-train.tfrecord-00001-of-00002").unlink()
    with pytest.raises(
        InputError, match=r"pushing-train.tfrecord-00001-of-00002: missing shard of split train \(1 in all\)"
    ):
        rlds.convert(version, tmp_path / "out", workers=1)
    _, report = rlds.convert(version, tmp_path / "out", workers=1, skip_damaged=True)
    assert report.written == 4 and "00001-of-00002: missing shard" in report.left_out[0]


# ------------------------------------------------------------------------------------------------------ forms


def write_data_set(folder: Path, tree: dict, examples: list[dict]) -> Path:
    """A TFDS data set of one training shard with these features."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "features.json").write_text(json.dumps(tree))
    splits = [{"name": "train", "shardLengths": [str(len(examples))]}]
    (folder / "dataset_info.json").write_text(
        json.dumps({"name": "forms", "fileFormat": "tfrecord", "splits": splits})
    )
    tfrecords.write_shard(folder / "forms-train.tfrecord-00000-of-00001", examples)
    return folder


def png_file(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


COLOUR = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
ACTIONS = np.random.default_rng(1).normal(size=(5, 2)).astype(np.float32)
STATES = np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32)
GREY, ALPHA = COLOUR[..., 0], np.concatenate([COLOUR, COLOUR[..., :1]], axis=3)


def image(channels: int) -> dict:
    return {"image": {"shape": {"dimensions": ["16", "16", str(channels)]}, "dtype": "uint8"}}


IMAGES = {
    "picture": (image(3), [png_file(frame) for frame in COLOUR], COLOUR),
    "grey picture": (image(1), [png_file(frame) for frame in GREY], GREY[..., None].repeat(3, 3)),
    "transparent picture": (image(4), [png_file(frame) for frame in ALPHA], COLOUR),
    "numbers": (tensor("uint8", 16, 16, 3), COLOUR.astype(np.int64).ravel(), COLOUR),
    "bytes": (tensor("uint8", 16, 16, 3, encoding="bytes"), [frame.tobytes() for frame in COLOUR], COLOUR),
    "zlib": (
        tensor("uint8", 16, 16, 3, encoding="zlib"),
        [zlib.compress(frame.tobytes()) for frame in COLOUR],
        COLOUR,
    ),
    "grey numbers": (tensor("uint8", 16, 16), GREY.astype(np.int64).ravel(), GREY[..., None].repeat(3, 3)),
    "grey bytes": (
        tensor("uint8", 16, 16, 1, encoding="bytes"),
        [f.tobytes() for f in GREY],
        GREY[..., None].repeat(3, 3),
    ),
    "transparent numbers": (tensor("uint8", 16, 16, 4), ALPHA.astype(np.int64).ravel(), COLOUR),
}


def assert_converted(
    version: Path, out: Path, frames: np.ndarray, actions: np.ndarray, states: np.ndarray | None
) -> None:
    rlds.convert(version, out, image_width=16, workers=1)
    folder = out / layout.read_index(out)["path"][0]
    np.testing.assert_array_equal(read_sequence(folder), frames)
    tables = read_conditions(folder, len(frames))
    np.testing.assert_array_equal(tables["actions"], actions)
    if states is None:
        assert "positions" not in tables
    else:
        np.testing.assert_array_equal(tables["positions"], states)


@pytest.mark.parametrize("kind", IMAGES)
def test_images_of_every_kind_become_their_pixels(tmp_path, kind):
    feature, values, expected = IMAGES[kind]
    steps = features_dict({"observation": features_dict({"camera": feature}), "action": tensor("float32", 2)})
    examples = [{"steps/observation/camera": values, "steps/action": ACTIONS.ravel()}]
    version = write_data_set(tmp_path / "in", features_dict({"steps": sequence(steps)}), examples)
    assert_converted(version, tmp_path / "out", expected, ACTIONS, None)


def test_numbers_stored_as_texts_come_back(tmp_path):
    steps = features_dict(
        {
            "image": image(3),
            "action": tensor("float64", 2, encoding="zlib"),
            "state": tensor("float32", 3, encoding="bytes"),
        }
    )
    examples = [
        {
            "steps/image": [png_file(frame) for frame in COLOUR],
            "steps/action": [zlib.compress(row.astype("<f8").tobytes()) for row in ACTIONS],
            "steps/state": [row.tobytes() for row in STATES],
        }
    ]
    version = write_data_set(tmp_path / "in", features_dict({"steps": sequence(steps)}), examples)
    assert_converted(version, tmp_path / "out", COLOUR, ACTIONS, STATES)


FORMS = {
    "one sequence": sequence(
        features_dict(
            {"image_main": image(3), "image_aux1": image(3), "action": tensor("float32", 2),
             "endeffector_pos": tensor("float32", 3)}
        )
    ),
    "sequences": features_dict(
        {"image_main": sequence(image(3)), "image_aux1": sequence(image(3)),
        "action": sequence(tensor("float32", 2)),
         "endeffector_pos": sequence(tensor("float32", 3)), "name": {"text": {}}}
    ),
    "tensors over time": features_dict(
        {"image_aux1": {"video": {"shape": {"dimensions": ["5", "16", "16", "3"]}, "dtype": "uint8"}},
         "goal": tensor("float32", 3),
         "action": tensor("float32", 5, 2), "endeffector_pos": tensor("float32", -1, 3)}
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_data_sets_that_are_sequences_without_steps(tmp_path, form):
    pictures = [png_file(frame) for frame in COLOUR]
    example = {
        "image_aux1": pictures,
        "image_main": pictures[::-1],
        "action": ACTIONS.ravel(),
        "endeffector_pos": STATES.ravel(),
    }
    version = write_data_set(tmp_path / "in", FORMS[form], [example])
    assert_converted(version, tmp_path / "out", COLOUR, ACTIONS, STATES)


def test_the_last_action_may_be_nan(tmp_path):
    steps = features_dict(
        {
            "image": image(3),
            "action": tensor("float32", 2),
            "observation": features_dict({"state": tensor("float32", 3)}),
        }
    )
    tree = features_dict({"steps": sequence(steps)})

    def example(actions: np.ndarray, states: np.ndarray) -> dict:
        pictures = [png_file(frame) for frame in COLOUR]
        return {
            "steps/image": pictures,
            "steps/action": actions.ravel(),
            "steps/observation/state": states.ravel(),
        }

    unknown, held = ACTIONS.copy(), ACTIONS.copy()
    unknown[-1], held[-1] = np.nan, ACTIONS[-2]
    version = write_data_set(tmp_path / "in", tree, [example(unknown, STATES)])
    assert_converted(version, tmp_path / "out", COLOUR, held, STATES)
    early, lost = ACTIONS.copy(), STATES.copy()
    early[-2, 0], lost[-1, 0] = np.nan, np.nan
    for actions, states, key in ((early, STATES, "action"), (ACTIONS, lost, "observation/state")):
        write_data_set(tmp_path / "in", tree, [example(actions, states)])
        with pytest.raises(InputError, match=f"record 0 at byte 0: {key}: numbers that are not finite"):
            rlds.convert(version, tmp_path / "none", workers=1)


SPOILT = {
    "cut numbers": ("numbers", lambda values: values[:-1], "expected 768 for each"),
    "no pixels": (
        "numbers",
        lambda values: values + 200,
        "found values other than 0 to 255, which are no pixels",
    ),
    "negative": ("numbers", lambda values: values - 1, "found values other than 0 to 255"),
    "floats": ("numbers", lambda values: values.astype(np.float32), "found values other than 0 to 255"),
    "texts": ("numbers", lambda values: [b"x"], "of another type than features.json says"),
    "short text": (
        "bytes",
        lambda values: [values[0][:-1], *values[1:]],
        "found 767 bytes, expected 768 for each step",
    ),
    "bomb": (
        "zlib",
        lambda values: [zlib.compress(bytes(10**8))],
        "found 769 bytes, expected 768 for each step",
    ),
    "no zlib": ("zlib", lambda values: [b"x" * 40], "Error -3"),
    "no pictures": ("picture", lambda values: np.arange(5), "no images steps/camera, found steps/camera"),
    "none": ("picture", lambda values: [], "no images steps/camera, found steps/camera"),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_images_that_are_none_are_named(tmp_path, fault):
    kind, spoil, message = SPOILT[fault]
    feature, values, _ = IMAGES[kind]
    tree = features_dict({"steps": sequence(features_dict({"camera": feature}))})
    version = write_data_set(tmp_path / "in", tree, [{"steps/camera": spoil(values)}])
    with pytest.raises(InputError, match=re.escape(message)) as error:
        rlds.convert(version, tmp_path / "out", workers=1)
    assert "record 0 at byte 0" in str(error.value)


def test_records_of_another_data_set_are_told_by_what_they_hold(version, tmp_path):
    shard = version / "pushing-train.tfrecord-00000-of-00002"
    tfrecords.write_shard(
        shard, [{"image/encoded": [b"x"], "image/height": np.array([3]), "label": np.array([1])}] * 3
    )
    with pytest.raises(
        InputError, match="no images steps/observation/camera, found image/encoded, image/height, label;"
    ):
        rlds.convert(version, tmp_path / "out", workers=1)


# ------------------------------------------------------------------------------------------------------ cases


def test_shared_case_of_a_logged_data_set(tmp_path):
    source = shared_case("rlds/logged_push")
    rlds.convert(source, tmp_path / "out", image_width=16, workers=1)
    index = layout.read_index(tmp_path / "out")
    assert (
        index["frames"].sum() == 4 + 5 + 6 + 7
        and index["action_dim"].unique() == 4
        and index["position_dim"].unique() == 5
    )
    assert layout.read_info(tmp_path / "out").name == "logged_push"
    assert {path.split("/")[1] for path in index["path"]} == {
        "logged_push-train.tfrecord-00000",
        "logged_push-train.tfrecord-00001",
    }


def test_shared_case_of_bair_as_tfds_has_it(tmp_path):
    """Against the records themselves, read by the reader of Examples and by Pillow."""
    source = shared_case("rlds/bair_robot_pushing_small")
    selection, _ = rlds.convert(source, tmp_path / "out", image_width=16, workers=1)
    assert (selection.camera, selection.actions, selection.states) == (
        "image_aux1",
        ("action",),
        ("endeffector_pos",),
    )
    index = layout.read_index(tmp_path / "out")
    assert index["split"].tolist() == ["train"] * 6 + ["test"] * 3 and set(index["frames"]) == {30}
    shard = source / "2.0.0" / "bair_robot_pushing_small-test.tfrecord-00000-of-00001"
    for record, path in zip(read_records(shard), index["path"][6:], strict=True):
        features = parse_example(record.data)
        frames = np.stack([np.asarray(Image.open(io.BytesIO(picture))) for picture in features["image_aux1"]])
        np.testing.assert_array_equal(read_sequence(tmp_path / "out" / path), frames)
        tables = read_conditions(tmp_path / "out" / path, 30)
        np.testing.assert_array_equal(tables["actions"], features["action"].reshape(30, 4))
        np.testing.assert_array_equal(tables["positions"], features["endeffector_pos"].reshape(30, 3))


@pytest.mark.parametrize("command", ["bair", "rlds"])
def test_shared_case_of_pointers_instead_of_shards(tmp_path, capsys, command):
    source = shared_case(f"lfs_pointers/{command}")
    assert svg_data.main([command, str(source), str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err.strip()
    assert "a Git LFS pointer instead of the file: run `git lfs pull`" in line and "\n" not in line
