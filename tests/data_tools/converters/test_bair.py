"""BAIR TFRecords into sequences."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from data_tools import __main__ as svg_data
from data_tools import layout
from data_tools.converters import bair
from data_tools.errors import InputError
from data_tools.tables import read_conditions
from tests.support import tfrecords
from tests.support.recordings import bair_sequence, contents, read_sequence, shared_case


@pytest.fixture
def softmotion(tmp_path) -> Path:
    """Three training shards and one test shard of three sequences each; sequence numbers run on."""
    source = tmp_path / "softmotion30_44k"
    for place, name in enumerate(
        ("train/traj_0_to_2", "train/traj_3_to_5", "train/traj_10_to_12", "test/traj_0_to_2")
    ):
        sequences = [tfrecords.bair_features(*bair_sequence(3 * place + n)) for n in range(3)]
        tfrecords.write_shard(source / f"{name}.tfrecords", sequences)
    return source


def test_bair_keeps_every_bit(softmotion, tmp_path):
    report = bair.convert(softmotion, tmp_path / "out", workers=1)
    assert (report.written, report.present, report.left_out) == (12, 0, [])
    index = layout.read_index(tmp_path / "out")
    assert index["path"].tolist() == [
        *(f"train/traj_0_to_2.tfrecords/{n}" for n in range(3)),
        *(f"train/traj_3_to_5.tfrecords/{n}" for n in range(3)),
        *(f"validate/traj_10_to_12.tfrecords/{n}" for n in range(3)),
        *(f"test/traj_0_to_2.tfrecords/{n}" for n in range(3)),
    ]  # fmt: skip
    for number, path in enumerate(index["path"]):
        cameras, actions, positions = bair_sequence(number)
        tables = read_conditions(tmp_path / "out" / path, 4)
        np.testing.assert_array_equal(read_sequence(tmp_path / "out" / path), cameras["image_aux1"])
        np.testing.assert_array_equal(tables["actions"], actions)
        np.testing.assert_array_equal(tables["positions"], positions)


def test_bair_cameras_and_validation_shards(softmotion, tmp_path):
    bair.convert(softmotion, tmp_path / "both", camera="both", validate_shards=2, workers=1)
    bair.convert(
        softmotion.parent, tmp_path / "main", camera="main", validate_shards=2, workers=1
    )  # the folder above will do
    index = layout.read_index(tmp_path / "both" / "image_aux1")
    assert index["split"].tolist() == ["train"] * 3 + ["validate"] * 6 + ["test"] * 3
    main = {name: data for name, data in contents(tmp_path / "main").items() if not name.endswith(".json")}
    assert main.items() <= contents(tmp_path / "both" / "image_main").items()
    first = read_sequence(tmp_path / "main" / "train/traj_0_to_2.tfrecords/1")
    np.testing.assert_array_equal(first, bair_sequence(1)[0]["image_main"])


@pytest.mark.slow
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
    with pytest.raises(
        InputError, match=rf"{shard} record 1 at byte {offset}: checksum of its \d+ bytes .* --skip_damaged"
    ):
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
    with pytest.raises(
        InputError, match=r"test/traj_0_to_2.tfrecords record 2 at byte \d+: file ends 100 bytes before"
    ):
        bair.convert(softmotion, tmp_path / "out", workers=1)


FOREIGN = {
    "no camera": (lambda f: f.pop("0/image_aux1/encoded"), "no feature 0/image_aux1/encoded"),
    "a gap": (lambda f: f.pop("2/image_aux1/encoded"), "no feature 2/image_aux1/encoded"),
    "no image at all": (
        lambda f: [f.pop(f"{t}/image_aux1/encoded") for t in range(4)],
        "no feature 0/image_aux1/encoded",
    ),
    "not square": (lambda f: f.update({"2/image_aux1/encoded": b"123"}), "not raw square RGB"),
    "lost action": (lambda f: f.pop("3/action"), "action is not 4 rows"),
    "another width": (lambda f: f.update({"3/action": np.zeros(3, np.float32)}), "action is not 4 rows"),
    "nan": (
        lambda f: f.update({"1/endeffector_pos": np.full(3, np.nan, np.float32)}),
        "endeffector_pos holds numbers",
    ),
    "integers": (lambda f: f.update({"1/action": np.zeros(4, np.int64)}), "action is not 4 rows"),
    "no bytes": (lambda f: f.update({"1/image_aux1/encoded": np.zeros(2, np.float32)}), "not raw square RGB"),
}


@pytest.mark.parametrize("fault", FOREIGN)
def test_a_record_of_another_form_is_named(tmp_path, fault):
    change, message = FOREIGN[fault]
    features = tfrecords.bair_features(*bair_sequence(0))
    change(features)
    tfrecords.write_shard(
        tmp_path / "s/train/a.tfrecords", [tfrecords.bair_features(*bair_sequence(1)), features]
    )
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
    with pytest.raises(
        InputError,
        match='found camera "image_aux1", expected "image_main" as now asked for; nothing was changed',
    ):
        bair.convert(softmotion, tmp_path / "out", camera="main", workers=1)
    shutil.copy(softmotion / "train/traj_0_to_2.tfrecords", softmotion / "train/traj_20_to_22.tfrecords")
    with pytest.raises(InputError, match="found shards"):  # more of them: others would validate
        bair.convert(softmotion, tmp_path / "out", workers=1)
    assert contents(tmp_path / "out") == before


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
        f"note: {softmotion / 'test' / 'traj_0_to_2.tfrecords'} record 0 at byte 0: the file ends "
        f"here, 3 of 3 records are missing",
        f"{tmp_path / 'out'}: 7 sequences written, 0 were there already",
        f"{tmp_path / 'out' / 'index.csv'}: 7 sequences (4 train, 3 validate; no test), "
        "frames 8x8x3, 4 action and 3 position columns",
    ]


def test_the_last_action_of_bair_may_be_nan(softmotion, tmp_path):
    """It is held; any other number that is not finite is damage."""
    shard = softmotion / "train" / "traj_0_to_2.tfrecords"
    recordings = [bair_sequence(number) for number in range(3)]
    for _, actions, _ in recordings:
        actions[-1] = np.nan
    tfrecords.write_shard(shard, [tfrecords.bair_features(*recording) for recording in recordings])
    bair.convert(softmotion, tmp_path / "out", workers=1)
    for number, (_, actions, positions) in enumerate(recordings):
        tables = read_conditions(tmp_path / "out" / "train" / shard.name / str(number), 4)
        np.testing.assert_array_equal(tables["actions"], actions[[0, 1, 2, 2]])
        np.testing.assert_array_equal(tables["positions"], positions)
    for table, row, name in ((1, 2, "action"), (2, 3, "endeffector_pos")):
        spoilt = bair_sequence(1)
        spoilt[table][row] = np.nan
        tfrecords.write_shard(shard, [tfrecords.bair_features(*spoilt)])
        with pytest.raises(InputError, match=f"record 0 at byte 0: {name} holds numbers that are not finite"):
            bair.convert(softmotion, tmp_path / "none", workers=1)


def test_records_of_another_kind_are_told_by_what_they_hold(softmotion, tmp_path):
    shard = softmotion / "train" / "traj_0_to_2.tfrecords"
    tfrecords.write_shard(
        shard, [{f"steps/{name}": np.ones(3, np.float32) for name in ("action", "reward")}] * 3
    )
    with pytest.raises(
        InputError, match="no feature 0/image_aux1/encoded, found steps/action, steps/reward;"
    ):
        bair.convert(softmotion, tmp_path / "out", workers=1)


def shard_names(root: Path) -> dict[str, set[str]]:
    """Return the shards that the sequences of each split come from."""
    index = layout.read_index(root)
    return {
        split: {path.split("/")[1] for path in index["path"][index["split"] == split]}
        for split in index["split"].unique()
    }


def write_shards(source: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        tfrecords.write_shard(source / f"{name}.tfrecords", [tfrecords.bair_features(*bair_sequence(number))])
    return source


def test_the_case_of_a_validation_split(tmp_path):
    bair.convert(shared_case("bair_with_val"), tmp_path / "out", workers=1)
    assert shard_names(tmp_path / "out") == {
        "train": {"traj_0_to_0.tfrecords", "traj_1_to_1.tfrecords"},
        "validate": {"traj_2_to_2.tfrecords"},
        "test": {"traj_0_to_0.tfrecords"},
    }


@pytest.mark.parametrize("name", ["val", "valid", "validate", "validation", "eval"])
def test_a_validation_split_is_read_and_nothing_is_taken_from_training(tmp_path, capsys, name):
    source = write_shards(tmp_path / "s" / "softmotion30_44k", "train/a", "train/b", f"{name}/c", "test/d")
    assert svg_data.main(["bair", str(tmp_path / "s"), str(tmp_path / "out"), "--workers", "1"]) == 0
    assert "4 sequences (2 train, 1 validate, 1 test)" in capsys.readouterr().out
    assert shard_names(tmp_path / "out") == {
        "train": {"a.tfrecords", "b.tfrecords"}, "validate": {"c.tfrecords"}, "test": {"d.tfrecords"},
    }  # fmt: skip
    np.testing.assert_array_equal(
        read_sequence(tmp_path / "out/validate/c.tfrecords/0"), bair_sequence(2)[0]["image_aux1"]
    )
    with pytest.raises(
        InputError, match=rf"--validate_shards: found 1, but {source / name} is there to validate; expected 0"
    ):
        bair.convert(source, tmp_path / "other", validate_shards=1, workers=1)


def test_a_single_training_shard_trains_and_a_note_says_that_nothing_validates(tmp_path, capsys):
    source = write_shards(tmp_path / "s", "train/a", "test/b")
    assert svg_data.main(["bair", str(source), str(tmp_path / "out"), "--workers", "1"]) == 0
    index = f"{tmp_path / 'out' / 'index.csv'}: 2 sequences (1 train, 1 test; no validate), frames 8x8x3, "
    assert capsys.readouterr().out.splitlines() == [
        f"note: {source}: found one training shard and none to validate with; there is no validation split",
        f"{tmp_path / 'out'}: 2 sequences written, 0 were there already",
        f"{index}4 action and 3 position columns",
    ]
    with pytest.raises(
        InputError, match="--validate_shards: found 1, expected 0 to 0 as there are 1 training shards"
    ):
        bair.convert(source, tmp_path / "other", validate_shards=1, workers=1)


def test_shards_of_one_name_in_a_split_are_refused(tmp_path):
    source = write_shards(tmp_path / "s", "train/a", "train/more/a", "test/a")
    with pytest.raises(
        InputError,
        match=r"train/more/a.tfrecords: has the same name as .*train/a.tfrecords, of the same split",
    ):
        bair.convert(source, tmp_path / "out", workers=1)
