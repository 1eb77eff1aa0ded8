"""What readers leave aside is listed, always, in a few lines; tables beside videos are read."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools import __main__ as svg_data
from data_tools import conversion, folders, index, layout, poses
from data_tools.converters import videos
from data_tools.errors import InputError
from data_tools.simulators import push
from data_tools.tables import read_conditions
from data_tools.unread import among, list_unread
from tests.support import tfrecords
from tests.support.recordings import (
    bair_sequence,
    contents,
    read_sequence,
    shades,
    write_animation,
    write_pictures,
    write_table,
    write_version,
    write_video,
)

FRAMES = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def run(command: str, source: Path, *flags: object) -> None:
    assert svg_data.main([command, str(source), *map(str, flags)]) == 0


# --------------------------------------------------------------------------------------------------- the list


def test_the_list_counts_kinds_and_names_the_first_of_each(tmp_path):
    touch(
        *(tmp_path / f"{number}/depth.npy" for number in (2, 10, 9)), tmp_path / "a.PKL", tmp_path / "README"
    )
    touch(tmp_path / "read.txt", tmp_path / ".hidden", tmp_path / ".git" / "x.py")
    assert list_unread(tmp_path, among([tmp_path / "read.txt"])) == (
        [],
        [f"{tmp_path}: not read: 3 .npy (first: 2/depth.npy), 1 .pkl (a.PKL), 1 without a suffix (README)"],
    )
    assert (
        list_unread(tmp_path / "read.txt", among([]))
        == list_unread(tmp_path / "nowhere", among([]))
        == ([], [])
    )


def test_the_list_stays_short(tmp_path):
    touch(
        *(
            tmp_path / f"{n}.{letter}"
            for letter, count in zip("abcdefgh", range(9, 1, -1), strict=True)
            for n in range(count)
        )
    )
    touch(*(tmp_path / f"{name}_{number}.csv" for name, number in itertools.product("abcdefgh", range(100))))
    tables, others = list_unread(tmp_path, lambda folder, files: {"0.a"})
    assert len(tables) == 6 and tables[0].startswith(
        f"{tmp_path / 'a_0.csv'}: not read (and 99 more of that name); "
    )
    assert tables[-1] == f"{tmp_path}: not read: tables of 3 other names"
    first = ", ".join(
        f"{count} .{name} (first: {n}.{name})"
        for name, count, n in zip("abcde", (8, 8, 7, 6, 5), "10000", strict=True)
    )
    assert others == [f"{tmp_path}: not read: {first}, 9 of 3 other kinds"]


def test_what_commands_write_into_a_data_root_is_their_own():
    names = {
        push.RECIPE_FILE,
        conversion.RECIPE_FILE,
        conversion.LEFT_OUT_FILE,
        layout.INDEX_FILE,
        layout.INFO_FILE,
    }
    assert names <= set(index.OWN_FILES)


# ----------------------------------------------------------------------------------------------- every reader


def test_index_and_check_list_what_they_leave(tmp_path, capsys):
    root = tmp_path / "data"
    for number in range(2):
        folders.write_sequence(root / "train" / str(number), FRAMES + number, None, None)
        touch(
            root / "train" / str(number) / "0.jpg",
            root / "train" / str(number) / "end_effector_positions.csv",
        )
    touch(
        root / "train/depth.npy", root / "train/notes/actions.csv", root / "meta.csv", root / "raw" / "x.bin"
    )
    run("index", root)
    printed = capsys.readouterr().out.replace(f"{root}/", "")
    kinds = (
        "2 .csv (first: meta.csv), 2 .jpg (first: train/0/0.jpg), 1 .npy (train/depth.npy), 1 folder (raw)"
    )
    listed = f"note: {root}: not read: {kinds}"
    slip = "train/0/end_effector_positions.csv: not read (and 1 more of that name); "
    slip += "the tables are called actions.csv and "
    advice = "endeffector_positions.csv: rename it to endeffector_positions.csv or move it away"
    assert printed.splitlines()[:2] == [f"note: {slip}{advice}", listed]
    assert svg_data.main(["check", str(root), "--workers", "1"]) == 1  # for the slip, not for the note
    printed = capsys.readouterr().out.replace(f"{root}/", "")
    assert (
        printed.splitlines()[0].startswith(slip)
        and listed in printed
        and "1 problem in 2 sequences" in printed
    )
    for number in range(2):
        (root / "train" / str(number) / "end_effector_positions.csv").unlink()
    assert svg_data.main(["check", str(root), "--workers", "1"]) == 0
    assert listed in capsys.readouterr().out


def test_index_lists_what_it_leaves_beside_poses(tmp_path, capsys):
    poses.write_sequence(tmp_path, "train", "a", FRAMES, FRAMES)
    touch(
        tmp_path / "train/train_img/a/0.jpg",
        tmp_path / "train/train_label/b/0.png",
        tmp_path / "train/train_img/a/actions.csv",
    )
    run("index", tmp_path)
    printed = capsys.readouterr().out.replace(f"{tmp_path}/", "")
    pictures = "1 .jpg (train/train_img/a/0.jpg), 1 .png (train/train_label/b/0.png)"
    listed = f"1 .csv (train/train_img/a/actions.csv), {pictures}"
    assert f"note: {tmp_path}: not read: {listed}" in printed


def test_frames_lists_what_it_leaves(tmp_path, capsys):
    source = tmp_path / "in"
    write_pictures(source / "push_0", 3)
    write_animation(source / "push_1.gif", shades(3))
    for name in (
        "push_0/1.npy",
        "push_0/2.npy",
        "push_0/cover.jpg",
        "labels.parquet",
        "push_1.csv.bak",
        "state/0.pkl",
    ):
        touch(source / name)
    write_table(source / "push_9.csv", 3)
    run("frames", source, tmp_path / "out", "--workers", 1)
    printed = capsys.readouterr().out.replace(f"{source}/", "")
    assert (
        f"note: {source}: not read: 2 .npy (first: push_0/1.npy), 1 .bak (push_1.csv.bak), 1 .jpg "
        f"(push_0/cover.jpg), " in printed
    )
    assert "1 .parquet (labels.parquet), 1 .pkl (state/0.pkl)" in printed
    assert "note: push_9.csv: not read; the tables are called actions.csv and " in printed
    assert "or move it away; beside ep1.mp4 a table may be called ep1_actions.csv" in printed


def test_bair_lists_what_it_leaves(tmp_path, capsys):
    for name in ("train/traj_0_to_0", "train/traj_1_to_1", "traj_2_to_2"):
        tfrecords.write_shard(
            tmp_path / "in" / f"{name}.tfrecords", [tfrecords.bair_features(*bair_sequence(0))]
        )
    touch(tmp_path / "in" / "train" / "extra.h5")
    run("bair", tmp_path / "in", tmp_path / "out", "--workers", 1)
    printed = capsys.readouterr().out
    assert (
        f"note: {tmp_path / 'in'}: not read: 1 .h5 (train/extra.h5), 1 .tfrecords (traj_2_to_2.tfrecords)"
        in printed
    )


def test_rlds_lists_what_it_leaves(tmp_path, capsys):
    version = write_version(tmp_path / "1.0.0", {"train": [4, 4, 4]})
    touch(version / "labels.txt", version / "more" / "x.parquet")
    run("rlds", version, tmp_path / "out", "--workers", 1)
    assert (
        f"note: {version}: not read: 1 .parquet (more/x.parquet), 1 .txt (labels.txt)"
        in capsys.readouterr().out
    )


def test_nothing_is_said_where_everything_is_read(tmp_path, capsys, data_root, pose_root):
    write_pictures(tmp_path / "in" / "a", 3)
    write_table(tmp_path / "in" / "a" / "actions.csv", 3)
    run("frames", tmp_path / "in", tmp_path / "out", "--workers", 1, "--splits", 1, 0, 0)
    for root in (tmp_path / "out", data_root, pose_root):
        for line in itertools.chain(*index.overlooked(root)):
            pytest.fail(line)
    assert "not read" not in capsys.readouterr().out


# ----------------------------------------------------------------------------------------- pictures of a kind


def test_the_most_frequent_kind_of_pictures_is_taken(tmp_path):
    """Previews beside the frames would be every other frame."""
    for number, picture in enumerate(shades(5)):
        (tmp_path / "in").mkdir(exist_ok=True)
        picture.save(tmp_path / "in" / f"{number}.png")
        if number < 4:
            Image.new("RGB", (16, 16)).save(tmp_path / "in" / f"{number}.jpg")
    report = videos.convert(tmp_path / "in", tmp_path / "out", image_width=16, shares=(1, 0, 0), workers=1)
    assert read_sequence(tmp_path / "out" / "train/in/0")[:, 8, 8, 0].tolist() == [10, 20, 30, 40, 50]
    assert report.notes == [f"{tmp_path / 'in'}: not read: 4 .jpg (first: 0.jpg)"]


def test_two_series_of_the_same_numbers_are_no_sequence(tmp_path):
    for name in ("left", "right"):
        for number in range(3):
            (tmp_path / "in").mkdir(exist_ok=True)
            Image.new("RGB", (16, 16)).save(tmp_path / "in" / f"{name}_{number}.png")
    with pytest.raises(
        InputError,
        match=r"in: holds several series of pictures of the same numbers \(left_#.png, right_#.png\)",
    ):
        videos.convert(tmp_path / "in", tmp_path / "out", workers=1)


# --------------------------------------------------------------------------------------- tables beside videos


def check_tables(
    out: Path, episodes: list[str], actions: list[np.ndarray], positions: list[np.ndarray] | None = None
) -> None:
    """Compare the tables of one-piece sequences with those that were written."""
    for number, name in enumerate(episodes):
        (folder,) = out.glob(f"*/{name}/0")
        found = read_conditions(folder, len(actions[number]))
        np.testing.assert_array_equal(found["actions"], actions[number])
        if positions:
            np.testing.assert_array_equal(found["positions"], positions[number])


@pytest.mark.parametrize("name", ["video.mp4", "video.mkv", "video.gif"])
def test_a_video_and_its_tables_in_a_folder_for_each_episode(tmp_path, name):
    for number in range(3):
        folder = tmp_path / "in" / f"episode_{number}"
        if name.endswith("gif"):
            write_animation(folder / name, shades(6))
        else:
            write_video(folder / name, np.stack([np.asarray(picture) for picture in shades(6)]))
    actions = [write_table(tmp_path / "in" / f"episode_{number}" / "actions.csv", 6) for number in range(3)]
    positions = [
        write_table(tmp_path / "in" / f"episode_{number}" / "endeffector_positions.csv", 6, 3)
        for number in range(3)
    ]
    report = videos.convert(tmp_path / "in", tmp_path / "out", image_width=16, workers=1)
    assert report.notes == []
    check_tables(tmp_path / "out", [f"episode_{number}/{name}" for number in range(3)], actions, positions)


@pytest.mark.parametrize("form", ["ep{}.csv", "ep{}_actions.csv", "ep{}-actions.csv", "ep{}.actions.csv"])
def test_tables_called_like_their_videos(tmp_path, form):
    for number in range(3):
        write_animation(tmp_path / "in" / f"ep{number}.gif", shades(5 + number))
    actions = [write_table(tmp_path / "in" / form.format(number), 5 + number) for number in range(3)]
    positions = [
        write_table(tmp_path / "in" / f"ep{number}_endeffector_positions.csv", 5 + number, 3)
        for number in range(3)
    ]
    report = videos.convert(tmp_path / "in", tmp_path / "out", image_width=16, workers=1)
    assert report.notes == []
    check_tables(tmp_path / "out", [f"ep{number}.gif" for number in range(3)], actions, positions)


def test_a_table_beside_several_videos_is_of_none_of_them(tmp_path):
    for number in range(3):
        write_animation(tmp_path / "in" / f"ep{number}.gif", shades(5))
    write_table(tmp_path / "in" / "actions.csv", 5)
    report = videos.convert(tmp_path / "in", tmp_path / "out", image_width=16, workers=1)
    assert (layout.read_index(tmp_path / "out")["action_dim"] == 0).all()
    assert report.notes == [f"{tmp_path / 'in'}: not read: 1 .csv (actions.csv)"]


@pytest.mark.parametrize(
    ("rows", "found"),
    [(5, "repeat the last row"), (3, "complete this file"), (8, "is one of the frames lost")],
)
def test_rows_that_do_not_match_the_frames_of_a_video(tmp_path, rows, found):
    write_animation(tmp_path / "in" / "ep0.gif", shades(6))
    write_table(tmp_path / "in" / "ep0.csv", rows)
    with pytest.raises(
        InputError, match=rf"ep0.csv: found {rows} rows, expected 6, one for each frame; {found}"
    ):
        videos.convert(tmp_path / "in", tmp_path / "out", image_width=16, workers=1)
    assert not list((tmp_path / "out").rglob("*.png"))


def test_rows_are_those_of_frames_that_are_shown_for_longer(tmp_path):
    write_animation(tmp_path / "in" / "a.gif", shades(4), duration=[50, 150, 50, 50])
    actions = write_table(tmp_path / "in" / "a.csv", 6)
    videos.convert(tmp_path / "in", tmp_path / "out", image_width=16, shares=(1, 0, 0), workers=1)
    check_tables(tmp_path / "out", ["a.gif"], [actions])
    assert read_sequence(tmp_path / "out/train/a.gif/0")[:, 8, 8, 0].tolist() == [10, 20, 20, 20, 30, 40]


def test_long_videos_are_cut_with_their_tables_and_every_is_refused(tmp_path):
    write_animation(tmp_path / "in" / "a.gif", shades(10))
    actions = write_table(tmp_path / "in" / "a.csv", 10)
    videos.convert(tmp_path / "in", tmp_path / "out", length=4, image_width=16, shares=(1, 0, 0), workers=1)
    for number, rows in enumerate((actions[:4], actions[4:8], actions[8:])):
        np.testing.assert_array_equal(
            read_conditions(tmp_path / f"out/train/a.gif/{number}", len(rows))["actions"], rows
        )
    with pytest.raises(InputError, match=r"--every: found 2, but .*a.gif has actions"):
        videos.convert(tmp_path / "in", tmp_path / "other", every=2, workers=1)


def test_a_table_beside_a_video_that_changed_is_refused(tmp_path):
    write_animation(tmp_path / "in" / "a.gif", shades(6))
    write_table(tmp_path / "in" / "a.csv", 6)
    videos.convert(tmp_path / "in", tmp_path / "out", image_width=16, workers=1)
    before = contents(tmp_path / "out")
    (tmp_path / "in" / "a.csv").write_text("2\n" * 6)
    with pytest.raises(InputError, match=r"found recordings .* as now asked for"):
        videos.convert(tmp_path / "in", tmp_path / "out", image_width=16, workers=1)
    assert contents(tmp_path / "out") == before


def test_a_single_video_with_the_tables_beside_it(tmp_path):
    write_animation(tmp_path / "ep" / "video.gif", shades(6))
    actions = write_table(tmp_path / "ep" / "actions.csv", 6)
    videos.convert(tmp_path / "ep" / "video.gif", tmp_path / "out", image_width=16, workers=1)
    check_tables(tmp_path / "out", ["video.gif"], [actions])
