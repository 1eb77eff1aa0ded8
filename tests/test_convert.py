"""Recordings of other kinds into sequences: BAIR TFRecords, RLDS episodes, videos and pictures."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tfrecords
from PIL import Image

from data_tools import __main__ as svg_data
from data_tools import bair, frames, layout, rlds
from data_tools.folders import frame_paths, read_conditions
from data_tools.layout import InputError
from data_tools.png import read_frame


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def read_sequence(folder: Path) -> np.ndarray:
    paths = frame_paths(folder)
    with Image.open(paths[0]) as image:
        size = (image.height, image.width, 3)
    return np.stack([read_frame(path, size) for path in paths])


# ------------------------------------------------------------------------------------------------------------- BAIR


def bair_sequence(number: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    generator = np.random.default_rng(number)
    cameras = {name: generator.integers(0, 256, (4, 8, 8, 3), np.uint8) for name in ("image_aux1", "image_main")}
    return cameras, generator.normal(size=(4, 4)).astype(np.float32), generator.normal(size=(4, 3)).astype(np.float32)


@pytest.fixture
def softmotion(tmp_path) -> Path:
    """Three training shards and one test shard of three sequences each; sequence numbers run on."""
    source = tmp_path / "softmotion30_44k"
    for place, name in enumerate(("train/traj_0_to_2", "train/traj_3_to_5", "train/traj_10_to_12", "test/traj_0_to_2")):
        sequences = [tfrecords.bair_features(*bair_sequence(3 * place + n)) for n in range(3)]
        tfrecords.write_shard(source / f"{name}.tfrecords", sequences)
    return source


def test_bair_keeps_every_bit(softmotion, tmp_path):
    report = bair.convert(softmotion, tmp_path / "out", workers=1)
    assert (report.written, report.present, report.left_out) == (12, 0, [])
    index = layout.read_index(tmp_path / "out")
    assert index["path"].tolist() == [
        *(f"train/traj_0_to_2.tfrecords/{n}" for n in range(3)), *(f"train/traj_3_to_5.tfrecords/{n}" for n in range(3)),
        *(f"validate/traj_10_to_12.tfrecords/{n}" for n in range(3)), *(f"test/traj_0_to_2.tfrecords/{n}" for n in range(3)),
    ]  # fmt: skip
    for number, path in enumerate(index["path"]):
        cameras, actions, positions = bair_sequence(number)
        tables = read_conditions(tmp_path / "out" / path, 4)
        np.testing.assert_array_equal(read_sequence(tmp_path / "out" / path), cameras["image_aux1"])
        np.testing.assert_array_equal(tables["actions"], actions)
        np.testing.assert_array_equal(tables["positions"], positions)


def test_bair_cameras_and_validation_shards(softmotion, tmp_path):
    bair.convert(softmotion, tmp_path / "both", camera="both", validate_shards=2, workers=1)
    bair.convert(softmotion.parent, tmp_path / "main", camera="main", validate_shards=2, workers=1)  # the folder above will do
    index = layout.read_index(tmp_path / "both" / "image_aux1")
    assert index["split"].tolist() == ["train"] * 3 + ["validate"] * 6 + ["test"] * 3
    main = {name: data for name, data in contents(tmp_path / "main").items() if not name.endswith(".json")}
    assert main.items() <= contents(tmp_path / "both" / "image_main").items()
    first = read_sequence(tmp_path / "main" / "train/traj_0_to_2.tfrecords/1")
    np.testing.assert_array_equal(first, bair_sequence(1)[0]["image_main"])


def test_bair_does_not_depend_on_workers(softmotion, tmp_path):
    bair.convert(softmotion, tmp_path / "1", workers=1)
    bair.convert(softmotion, tmp_path / "2", workers=2)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_bair_without_positions(tmp_path):
    cameras, actions, _ = bair_sequence(0)
    tfrecords.write_shard(tmp_path / "s/test/a.tfrecords", [tfrecords.bair_features(cameras, actions, None)])
    bair.convert(tmp_path / "s", tmp_path / "out", workers=1)
    assert layout.read_info(tmp_path / "out").position_dim == 0


def damage(softmotion: Path) -> tuple[Path, int]:
    """Flips one bit in the second record of a shard; gives shard and where that record begins."""
    shard = softmotion / "train" / "traj_3_to_5.tfrecords"
    data = bytearray(shard.read_bytes())
    offset = len(data) // 3
    data[offset + 700] ^= 8
    shard.write_bytes(data)
    return shard, offset


def test_a_flipped_bit_names_shard_record_and_byte(softmotion, tmp_path, capsys):
    shard, offset = damage(softmotion)
    with pytest.raises(InputError, match=rf"{shard} record 1 at byte {offset}: checksum of its \d+ bytes .* --skip_damaged"):
        bair.convert(softmotion, tmp_path / "out", workers=1)
    whole = shard.read_bytes()
    flags = ["bair", str(softmotion), str(tmp_path / "out"), "--skip_damaged", "--workers", "1"]
    assert svg_data.main(flags) == 0
    printed = capsys.readouterr().out
    assert f"left out: {shard} record 1 at byte {offset}" in printed and "1 left out as damaged" in printed
    assert f"{shard} record 1 at byte {offset}" in (tmp_path / "out" / "left_out.txt").read_text()
    assert len(layout.read_index(tmp_path / "out")) == 11
    assert not (tmp_path / "out" / "train/traj_3_to_5.tfrecords/1").exists()
    before = contents(tmp_path / "out")
    assert svg_data.main(flags) == 0
    assert contents(tmp_path / "out") == before
    mended = bytearray(whole)
    mended[offset + 700] ^= 8
    shard.write_bytes(mended)
    assert svg_data.main(flags) == 0
    assert len(layout.read_index(tmp_path / "out")) == 12 and not (tmp_path / "out" / "left_out.txt").exists()


def test_a_cut_shard_is_named(softmotion, tmp_path):
    shard = softmotion / "test" / "traj_0_to_2.tfrecords"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"test/traj_0_to_2.tfrecords record 2 at byte \d+: file ends 100 bytes before"):
        bair.convert(softmotion, tmp_path / "out", workers=1)


FOREIGN = {
    "no camera": (lambda f: f.pop("0/image_aux1/encoded"), "no feature 0/image_aux1/encoded"),
    "a gap": (lambda f: f.pop("2/image_aux1/encoded"), "no feature 2/image_aux1/encoded"),
    "no image at all": (lambda f: [f.pop(f"{t}/image_aux1/encoded") for t in range(4)], "no feature 0/image_aux1/encoded"),
    "not square": (lambda f: f.update({"2/image_aux1/encoded": b"123"}), "not raw square RGB"),
    "lost action": (lambda f: f.pop("3/action"), "action is not 4 rows"),
    "another width": (lambda f: f.update({"3/action": np.zeros(3, np.float32)}), "action is not 4 rows"),
    "nan": (lambda f: f.update({"1/endeffector_pos": np.full(3, np.nan, np.float32)}), "endeffector_pos holds numbers"),
    "integers": (lambda f: f.update({"1/action": np.zeros(4, np.int64)}), "action is not 4 rows"),
    "no bytes": (lambda f: f.update({"1/image_aux1/encoded": np.zeros(2, np.float32)}), "not raw square RGB"),
}


@pytest.mark.parametrize("fault", FOREIGN)
def test_a_record_of_another_form_is_named(tmp_path, fault):
    change, message = FOREIGN[fault]
    features = tfrecords.bair_features(*bair_sequence(0))
    change(features)
    tfrecords.write_shard(tmp_path / "s/train/a.tfrecords", [tfrecords.bair_features(*bair_sequence(1)), features])
    with pytest.raises(InputError, match=rf"a.tfrecords record 1 at byte \d+: .*{message}"):
        bair.convert(tmp_path / "s", tmp_path / "out", validate_shards=0, workers=1)
    assert not list((tmp_path / "out").rglob("1"))


def test_bair_flags_and_sources_that_do_not_fit(softmotion, tmp_path):
    with pytest.raises(InputError, match="--validate_shards: found 3, expected 0 to 2"):
        bair.convert(softmotion, tmp_path / "out", validate_shards=3)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        bair.convert(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(InputError, match="found no train"):
        bair.convert(softmotion / "train", tmp_path / "out")
    with pytest.raises(InputError, match="--workers: found 0"):
        bair.convert(softmotion, tmp_path / "out", workers=0)
    bair.convert(softmotion, tmp_path / "out", workers=1)
    before = contents(tmp_path / "out")
    with pytest.raises(InputError, match='found camera "image_aux1", expected "image_main" as now asked for; nothing was changed'):
        bair.convert(softmotion, tmp_path / "out", camera="main", workers=1)
    shutil.copy(softmotion / "train/traj_0_to_2.tfrecords", softmotion / "train/traj_20_to_22.tfrecords")
    with pytest.raises(InputError, match="found shards"):  # more of them: others would validate
        bair.convert(softmotion, tmp_path / "out", workers=1)
    assert contents(tmp_path / "out") == before


# ------------------------------------------------------------------------------------------------------------- RLDS

TENSOR = {"tensor": {"shape": {"dimensions": ["2"]}, "dtype": "float32", "encoding": "none"}}
SCALAR = {"tensor": {"shape": {}, "dtype": "bool", "encoding": "none"}}
PICTURE = {"image": {"shape": {"dimensions": ["10", "16", "3"]}, "dtype": "uint8", "encodingFormat": "png"}}


def features_dict(features: dict) -> dict:
    return {"featuresDict": {"features": features}}


def episode(number: int, steps: int) -> dict:
    generator = np.random.default_rng(number)
    images = []
    for image in generator.integers(0, 256, (steps, 10, 16, 3), np.uint8):
        images.append(io.BytesIO())
        Image.fromarray(image).save(images[-1], "PNG")
    return {
        "steps/observation/camera": [image.getvalue() for image in images],
        "steps/observation/wrist_camera": [image.getvalue() for image in images[::-1]],
        "steps/observation/state": generator.normal(size=2 * steps).astype(np.float32),
        "steps/action/move": generator.normal(size=2 * steps).astype(np.float32),
        "steps/action/close": generator.integers(0, 2, steps),
        "steps/text": [b"push"] * steps,
    }


def write_version(folder: Path, shards: dict[str, list[int]]) -> Path:
    """A TFDS data set: by name of split, the number of steps of each episode, up to three episodes a shard."""
    folder.mkdir(parents=True)
    steps = {
        "observation": features_dict({"wrist_camera": PICTURE, "camera": PICTURE, "state": TENSOR}),
        "action": features_dict({"move": TENSOR, "close": SCALAR}), "text": {"text": {}},
    }  # fmt: skip
    tree = features_dict({"steps": {"sequence": {"feature": features_dict(steps)}}, "episode_metadata": features_dict({})})
    (folder / "features.json").write_text(json.dumps(tree))
    splits, number = [], 0
    for split, lengths in shards.items():
        groups = [lengths[start : start + 3] for start in range(0, len(lengths), 3)]
        splits.append({"name": split, "shardLengths": [str(len(group)) for group in groups]})
        for shard, group in enumerate(groups):
            path = folder / f"pushing-{split}.tfrecord-{shard:05d}-of-{len(groups):05d}"
            tfrecords.write_shard(path, [episode(number + place, length) for place, length in enumerate(group)])
            number += len(group)
    (folder / "dataset_info.json").write_text(json.dumps({"name": "pushing", "fileFormat": "tfrecord", "splits": splits}))
    return folder


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


# ----------------------------------------------------------------------------------------------- videos and pictures


def write_pictures(folder: Path, count: int, shade: int = 0) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (16, 8), (shade, number, 0)).save(folder / f"frame{number + 1}.png")


def test_folders_of_pictures_become_sequences_in_natural_order(tmp_path):
    for shade, name in enumerate(("a", "b", "c/d")):
        write_pictures(tmp_path / "in" / name, 12, shade)
    report = frames.convert(tmp_path / "in", tmp_path / "out", length=5, image_width=8, workers=1)
    assert report.written == 9
    index = layout.read_index(tmp_path / "out")
    assert index["path"].tolist() == [f"{name}/{n}" for name in ("train/a", "validate/b", "test/c/d") for n in range(3)]
    assert index["frames"].tolist() == [5, 5, 2] * 3 and (index["action_dim"] == 0).all()
    found = np.concatenate([read_sequence(tmp_path / "out" / f"test/c/d/{n}") for n in range(3)])
    assert found[:, 0, 0].tolist() == [[2, number, 0] for number in range(12)]


def test_one_recording_is_divided_in_time(tmp_path):
    write_pictures(tmp_path / "in", 40)
    frames.convert(tmp_path / "in", tmp_path / "out", length=4, every=2, image_width=8, shares=(0.6, 0.2, 0.2), workers=1)
    index = layout.read_index(tmp_path / "out")
    assert index["path"].tolist() == ["train/in/0", "train/in/1", "train/in/2", "validate/in/3", "test/in/4"]
    assert read_sequence(tmp_path / "out" / "test/in/4")[:, 0, 0, 1].tolist() == [32, 34, 36, 38]


def test_videos(tmp_path):
    """A GIF and a lossless MP4 give back their frames."""
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    videos = np.random.default_rng(0).integers(0, 256, (2, 7, 16, 16, 3), np.uint8) // 64 * 64
    first, *rest = (Image.fromarray(frame).quantize(64) for frame in videos[0])
    (tmp_path / "in").mkdir()
    first.save(tmp_path / "in" / "a.gif", save_all=True, append_images=rest)
    writer = imageio_ffmpeg.write_frames(
        str(tmp_path / "in" / "b.mkv"), (16, 16), fps=10, codec="ffv1", pix_fmt_out="bgr0", macro_block_size=1
    )
    writer.send(None)
    for frame in videos[1]:
        writer.send(np.ascontiguousarray(frame))
    writer.close()
    frames.convert(tmp_path / "in", tmp_path / "out", image_width=16, shares=(1, 0, 0), workers=1)
    for name, video in zip(("a.gif", "b.mkv"), videos, strict=True):
        np.testing.assert_array_equal(read_sequence(tmp_path / "out" / "train" / name / "0"), video)
    cut = (tmp_path / "in" / "b.mkv").read_bytes()[:300]
    (tmp_path / "in" / "b.mkv").write_bytes(cut)
    with pytest.raises(InputError, match=r"b.mkv: unreadable video"):
        frames.convert(tmp_path / "in", tmp_path / "other", image_width=16, workers=1)


def test_recordings_that_do_not_do(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        frames.convert(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="found neither videos nor pictures"):
        frames.convert(tmp_path / "in", tmp_path / "out", workers=1)
    write_pictures(tmp_path / "in" / "a", 1)
    with pytest.raises(InputError, match=r"no recording can be used; .*in/a: found fewer than 2 frames"):
        frames.convert(tmp_path / "in", tmp_path / "out1", workers=1)
    write_pictures(tmp_path / "in" / "a" / "b", 3)
    with pytest.raises(InputError, match=r"in/a: holds pictures and, below them, .*in/a/b; put"):
        frames.convert(tmp_path / "in", tmp_path / "out", workers=1)
    shutil.rmtree(tmp_path / "in" / "a")
    write_pictures(tmp_path / "in" / "b", 3)
    (tmp_path / "in" / "b" / "frame2.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"frame2.png: unreadable picture"):
        frames.convert(tmp_path / "in", tmp_path / "out2", workers=1)
    with pytest.raises(InputError, match="lies within"):
        frames.convert(tmp_path / "in", tmp_path / "in" / "out", workers=1)
    with pytest.raises(InputError, match="--length: found 1"):
        frames.convert(tmp_path / "in", tmp_path / "out", length=1)


def test_tables_beside_the_pictures_come_along(tmp_path):
    """What a robot's own program leaves: JPEGs of any size and name, and a row of actions for each."""
    write_pictures(tmp_path / "in", 7)
    actions = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
    np.savetxt(tmp_path / "in" / "actions.csv", actions, fmt="%.9g", delimiter=",")
    frames.convert(tmp_path / "in", tmp_path / "out", length=4, image_width=8, shares=(1, 0, 0), workers=1)
    for number, rows in enumerate((actions[:4], actions[4:])):
        np.testing.assert_array_equal(read_conditions(tmp_path / f"out/train/in/{number}", len(rows))["actions"], rows)
    with pytest.raises(InputError, match=r"--every: found 2, but .*in has actions"):
        frames.convert(tmp_path / "in", tmp_path / "other", every=2, workers=1)
    (tmp_path / "in" / "actions.csv").write_text("1,2\n" * 6)
    with pytest.raises(InputError, match="found 6 rows, expected 7, one for each frame; repeat the last row"):
        frames.convert(tmp_path / "in", tmp_path / "third", workers=1)


def test_recordings_that_are_split_already_stay_in_their_split(tmp_path):
    for name in ("train/a", "train/b", "test/c"):
        write_pictures(tmp_path / "in" / name, 3)
    frames.convert(tmp_path / "in", tmp_path / "out", image_width=8, workers=1)
    assert layout.read_index(tmp_path / "out")["path"].tolist() == ["train/a/0", "train/b/0", "test/c/0"]
    with pytest.raises(InputError, match="is a data set already, with an index"):
        frames.convert(tmp_path / "out", tmp_path / "again", workers=1)


def test_recordings_that_have_grown_or_share_a_name_are_refused(tmp_path):
    write_pictures(tmp_path / "in", 12)
    frames.convert(tmp_path / "in", tmp_path / "out", length=4, image_width=8, workers=1)
    before = contents(tmp_path / "out")
    Image.new("RGB", (16, 8)).save(tmp_path / "in" / "frame13.png")
    with pytest.raises(InputError, match=r"found recordings {.in.: \[12, \d+\]}, expected {.in.: \[13, \d+\]} as now asked for"):
        frames.convert(tmp_path / "in", tmp_path / "out", length=4, image_width=8, workers=1)
    assert contents(tmp_path / "out") == before
    write_pictures(tmp_path / "in" / "in", 3)
    with pytest.raises(InputError, match="in/in: has the same name as the recording"):
        frames.convert(tmp_path / "in", tmp_path / "other", workers=1)
    for name in ("a", "a-b", "a/0"):
        write_pictures(tmp_path / "nested" / name, 3)
    with pytest.raises(InputError, match=r"nested/a: holds pictures and, below them, .*a/0"):
        frames.convert(tmp_path / "nested", tmp_path / "other", workers=1)


@pytest.mark.parametrize("total", range(5, 13))
def test_the_end_of_a_divided_recording_is_never_lost(tmp_path, total):
    """Whatever is left over: three pieces or more give a test split, and no frame but a lone last one is missing."""
    write_pictures(tmp_path / "in", total)
    frames.convert(tmp_path / "in", tmp_path / "out", length=2, image_width=8, shares=(0.4, 0.3, 0.3), workers=1)
    index = layout.read_index(tmp_path / "out")
    assert index["frames"].sum() == total // 2 * 2
    assert set(index["split"]) == ({"train", "validate", "test"} if total >= 6 else {"train", "validate"})


def test_pictures_of_more_than_8_bits_are_refused(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(3):
        Image.fromarray(np.full((8, 8), 1000 * number, np.uint16)).save(tmp_path / "in" / f"{number}.png")
    with pytest.raises(InputError, match=r"0.png: a picture of more than 8 bits a channel"):
        frames.convert(tmp_path / "in", tmp_path / "out", workers=1)


def test_damaged_recordings_can_be_left_out(tmp_path):
    for name in "abc":
        write_pictures(tmp_path / "in" / name, 6)
    (tmp_path / "in" / "b" / "frame5.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"frame5.png: .*or leave such recordings out with --skip_damaged"):
        frames.convert(tmp_path / "in", tmp_path / "out", length=3, image_width=8, workers=1)
    report = frames.convert(tmp_path / "in", tmp_path / "out", length=3, image_width=8, workers=1, skip_damaged=True)
    assert (report.written + report.present, len(report.left_out)) == (5, 1)
    assert "in/b/frame5.png" in (tmp_path / "out" / "left_out.txt").read_text()


@pytest.mark.parametrize("end", ["kill -9 $$", "exit 255", "exit 1"])
def test_an_ffmpeg_that_ends_early_is_not_taken_for_the_end_of_the_video(tmp_path, monkeypatch, end):
    """Interrupted between two frames it ends without a word: only its exit code tells."""
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    script = tmp_path / "ffmpeg"
    script.write_text(f"#!/bin/sh\nhead -c {5 * 8 * 8 * 3} /dev/zero\n{end}\n")
    script.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(script))
    (tmp_path / "in.mp4").write_bytes(b"x")
    with pytest.raises(InputError, match=r"in.mp4: unreadable video \(ended early\)"):
        list(frames.read_recording(tmp_path / "in.mp4", 8, "crop", 1))


def test_a_bair_shard_with_fewer_records_than_its_name_says_is_noted(softmotion, tmp_path, capsys):
    """Cut at the border of two records, or empty: nothing but the name tells."""
    shard = softmotion / "train" / "traj_3_to_5.tfrecords"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 3])
    (softmotion / "test" / "traj_0_to_2.tfrecords").write_bytes(b"")
    (softmotion / "train" / "._traj_0_to_2.tfrecords").write_bytes(b"of a Macintosh")
    assert svg_data.main(["bair", str(softmotion), str(tmp_path / "out"), "--workers", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    size = shard.stat().st_size
    assert lines == [
        f"note: {shard} record 1 at byte {size}: the file ends here, 2 of 3 records are missing",
        f"note: {softmotion / 'test' / 'traj_0_to_2.tfrecords'} record 0 at byte 0: the file ends here, 3 of 3 records are missing",
        f"{tmp_path / 'out'}: 7 sequences written, 0 were there already",
        f"{tmp_path / 'out' / 'index.csv'}: 7 sequences (4 train, 3 validate; no test), "
        "frames 8x8x3, 4 action and 3 position columns",
    ]


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


def test_tables_that_do_not_fit_the_pictures(tmp_path, capsys):
    """A picture is lost: whatever comes after it would get the rows of others."""
    write_pictures(tmp_path / "in", 7)
    (tmp_path / "in" / "actions.csv").write_text("1\n" * 7)
    (tmp_path / "in" / "frame4.png").unlink()
    with pytest.raises(InputError, match=r"actions.csv: found 7 rows, expected 6, one for each frame; is one of the frames lost"):
        frames.convert(tmp_path / "in", tmp_path / "out", workers=1)
    (tmp_path / "in" / "actions.csv").rename(tmp_path / "in" / "Actions.csv")
    assert svg_data.main(["frames", str(tmp_path / "in"), str(tmp_path / "out"), "--workers", "1", "--splits", "1", "0", "0"]) == 0
    assert f"note: {tmp_path / 'in' / 'Actions.csv'}: not read; the tables are called" in capsys.readouterr().out


def test_a_table_that_changed_between_runs_is_refused(tmp_path):
    write_pictures(tmp_path / "in", 6)
    (tmp_path / "in" / "actions.csv").write_text("1\n" * 6)
    frames.convert(tmp_path / "in", tmp_path / "out", workers=1)
    (tmp_path / "in" / "actions.csv").write_text("2\n" * 6)
    with pytest.raises(InputError, match=r"found recordings .* as now asked for"):
        frames.convert(tmp_path / "in", tmp_path / "out", workers=1)


@pytest.mark.parametrize("odd", ["val/x", "cover", "Test/x"])
def test_recordings_beside_those_that_are_split_are_refused(tmp_path, odd):
    for name in ("train/a", "test/b", odd):
        write_pictures(tmp_path / "in" / name, 3)
    with pytest.raises(InputError, match=f"{odd}: lies outside of train, validate, test"):
        frames.convert(tmp_path / "in", tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


def test_recordings_behind_links_are_taken(tmp_path):
    write_pictures(tmp_path / "elsewhere", 3)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "elsewhere")  # in circles
    frames.convert(tmp_path / "in", tmp_path / "out", image_width=8, shares=(1, 0, 0), workers=1)
    assert layout.read_index(tmp_path / "out")["path"].tolist() == ["train/a/0"]


def test_names_in_no_encoding_are_refused_at_once(tmp_path):
    try:
        write_pictures(tmp_path / "in" / "caf\udce9", 3)
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(InputError, match="a name with characters that cannot be written"):
        frames.convert(tmp_path / "in", tmp_path / "out", workers=1)


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
