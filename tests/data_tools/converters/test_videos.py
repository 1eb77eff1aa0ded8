"""Videos and pictures into sequences."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from data_tools import __main__ as svg_data
from data_tools import layout
from data_tools.converters import videos
from data_tools.errors import InputError
from data_tools.tables import read_conditions
from tests.support.recordings import contents, read_sequence, write_pictures, write_video


def test_folders_of_pictures_become_sequences_in_natural_order(tmp_path):
    for shade, name in enumerate(("a", "b", "c/d")):
        write_pictures(tmp_path / "in" / name, 12, shade)
    report = videos.convert(tmp_path / "in", tmp_path / "out", length=5, image_width=8, workers=1)
    assert report.written == 9
    index = layout.read_index(tmp_path / "out")
    assert index["path"].tolist() == [
        f"{name}/{n}" for name in ("train/a", "validate/b", "test/c/d") for n in range(3)
    ]
    assert index["frames"].tolist() == [5, 5, 2] * 3 and (index["action_dim"] == 0).all()
    found = np.concatenate([read_sequence(tmp_path / "out" / f"test/c/d/{n}") for n in range(3)])
    assert found[:, 0, 0].tolist() == [[2, number, 0] for number in range(12)]


def test_one_recording_is_divided_in_time(tmp_path):
    write_pictures(tmp_path / "in", 40)
    videos.convert(
        tmp_path / "in", tmp_path / "out", length=4, every=2, image_width=8, shares=(0.6, 0.2, 0.2), workers=1
    )
    index = layout.read_index(tmp_path / "out")
    assert index["path"].tolist() == ["train/in/0", "train/in/1", "train/in/2", "validate/in/3", "test/in/4"]
    assert read_sequence(tmp_path / "out" / "test/in/4")[:, 0, 0, 1].tolist() == [32, 34, 36, 38]


def test_videos(tmp_path):
    """A GIF and a lossless MP4 give back their frames."""
    clips = np.random.default_rng(0).integers(0, 256, (2, 7, 16, 16, 3), np.uint8) // 64 * 64
    first, *rest = (Image.fromarray(frame).quantize(64) for frame in clips[0])
    (tmp_path / "in").mkdir()
    first.save(tmp_path / "in" / "a.gif", save_all=True, append_images=rest)
    write_video(tmp_path / "in" / "b.mkv", clips[1])
    videos.convert(tmp_path / "in", tmp_path / "out", image_width=16, shares=(1, 0, 0), workers=1)
    for name, video in zip(("a.gif", "b.mkv"), clips, strict=True):
        np.testing.assert_array_equal(read_sequence(tmp_path / "out" / "train" / name / "0"), video)
    cut = (tmp_path / "in" / "b.mkv").read_bytes()[:300]
    (tmp_path / "in" / "b.mkv").write_bytes(cut)
    with pytest.raises(InputError, match=r"b.mkv: unreadable video"):
        videos.convert(tmp_path / "in", tmp_path / "other", image_width=16, workers=1)


def test_recordings_that_do_not_do(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        videos.convert(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="found neither videos nor pictures"):
        videos.convert(tmp_path / "in", tmp_path / "out", workers=1)
    write_pictures(tmp_path / "in" / "a", 1)
    with pytest.raises(InputError, match=r"no recording can be used; .*in/a: found fewer than 2 frames"):
        videos.convert(tmp_path / "in", tmp_path / "out1", workers=1)
    shutil.rmtree(tmp_path / "in" / "a")
    write_pictures(tmp_path / "in" / "a", 2)
    write_pictures(tmp_path / "in" / "a" / "b", 3)
    with pytest.raises(InputError, match=r"in/a: holds pictures and, below them, .*in/a/b; put"):
        videos.convert(tmp_path / "in", tmp_path / "out", workers=1)
    shutil.rmtree(tmp_path / "in" / "a")
    write_pictures(tmp_path / "in" / "b", 3)
    (tmp_path / "in" / "b" / "frame2.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"frame2.png: unreadable picture"):
        videos.convert(tmp_path / "in", tmp_path / "out2", workers=1)
    with pytest.raises(InputError, match="lies within"):
        videos.convert(tmp_path / "in", tmp_path / "in" / "out", workers=1)
    with pytest.raises(InputError, match="--length: found 1"):
        videos.convert(tmp_path / "in", tmp_path / "out", length=1)


def test_tables_beside_the_pictures_come_along(tmp_path):
    """What a robot's own program leaves: JPEGs of any size and name, and a row of actions for each."""
    write_pictures(tmp_path / "in", 7)
    actions = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
    np.savetxt(tmp_path / "in" / "actions.csv", actions, fmt="%.9g", delimiter=",")
    videos.convert(tmp_path / "in", tmp_path / "out", length=4, image_width=8, shares=(1, 0, 0), workers=1)
    for number, rows in enumerate((actions[:4], actions[4:])):
        np.testing.assert_array_equal(
            read_conditions(tmp_path / f"out/train/in/{number}", len(rows))["actions"], rows
        )
    with pytest.raises(InputError, match=r"--every: found 2, but .*in has actions"):
        videos.convert(tmp_path / "in", tmp_path / "other", every=2, workers=1)
    (tmp_path / "in" / "actions.csv").write_text("1,2\n" * 6)
    with pytest.raises(InputError, match="found 6 rows, expected 7, one for each frame; repeat the last row"):
        videos.convert(tmp_path / "in", tmp_path / "third", workers=1)


def test_recordings_that_are_split_already_stay_in_their_split(tmp_path):
    for name in ("train/a", "train/b", "test/c"):
        write_pictures(tmp_path / "in" / name, 3)
    videos.convert(tmp_path / "in", tmp_path / "out", image_width=8, workers=1)
    assert layout.read_index(tmp_path / "out")["path"].tolist() == ["train/a/0", "train/b/0", "test/c/0"]
    with pytest.raises(InputError, match="is a data set already, with an index"):
        videos.convert(tmp_path / "out", tmp_path / "again", workers=1)


def test_recordings_that_have_grown_or_share_a_name_are_refused(tmp_path):
    write_pictures(tmp_path / "in", 12)
    videos.convert(tmp_path / "in", tmp_path / "out", length=4, image_width=8, workers=1)
    before = contents(tmp_path / "out")
    Image.new("RGB", (16, 8)).save(tmp_path / "in" / "frame13.png")
    with pytest.raises(
        InputError,
        match=r"found recordings {.in.: \[12, \d+\]}, expected {.in.: \[13, \d+\]} as now asked for",
    ):
        videos.convert(tmp_path / "in", tmp_path / "out", length=4, image_width=8, workers=1)
    assert contents(tmp_path / "out") == before
    write_pictures(tmp_path / "in" / "in", 3)
    with pytest.raises(InputError, match="in/in: has the same name as the recording"):
        videos.convert(tmp_path / "in", tmp_path / "other", workers=1)
    for name in ("a", "a-b", "a/0"):
        write_pictures(tmp_path / "nested" / name, 3)
    with pytest.raises(InputError, match=r"nested/a: holds pictures and, below them, .*a/0"):
        videos.convert(tmp_path / "nested", tmp_path / "other", workers=1)


@pytest.mark.parametrize("total", range(5, 13))
def test_the_end_of_a_divided_recording_is_never_lost(tmp_path, total):
    """Three pieces or more give a test split, and no frame but a single last one is missing."""
    write_pictures(tmp_path / "in", total)
    videos.convert(
        tmp_path / "in", tmp_path / "out", length=2, image_width=8, shares=(0.4, 0.3, 0.3), workers=1
    )
    index = layout.read_index(tmp_path / "out")
    assert index["frames"].sum() == total // 2 * 2
    assert set(index["split"]) == ({"train", "validate", "test"} if total >= 6 else {"train", "validate"})


def test_pictures_of_more_than_8_bits_are_refused(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(3):
        Image.fromarray(np.full((8, 8), 1000 * number, np.uint16)).save(tmp_path / "in" / f"{number}.png")
    with pytest.raises(InputError, match=r"0.png: a picture of more than 8 bits a channel"):
        videos.convert(tmp_path / "in", tmp_path / "out", workers=1)


def test_damaged_recordings_can_be_left_out(tmp_path):
    for name in "abc":
        write_pictures(tmp_path / "in" / name, 6)
    (tmp_path / "in" / "b" / "frame5.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"frame5.png: .*or leave such recordings out with --skip_damaged"):
        videos.convert(tmp_path / "in", tmp_path / "out", length=3, image_width=8, workers=1)
    report = videos.convert(
        tmp_path / "in", tmp_path / "out", length=3, image_width=8, workers=1, skip_damaged=True
    )
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
        list(videos.read_recording(tmp_path / "in.mp4", 8, "crop", 1))


def test_tables_that_do_not_fit_the_pictures(tmp_path, capsys):
    """A picture is lost: whatever comes after it would get the rows of others."""
    write_pictures(tmp_path / "in", 7)
    (tmp_path / "in" / "actions.csv").write_text("1\n" * 7)
    (tmp_path / "in" / "frame4.png").unlink()
    with pytest.raises(
        InputError,
        match=r"actions.csv: found 7 rows, expected 6, one for each frame; is one of the frames lost",
    ):
        videos.convert(tmp_path / "in", tmp_path / "out", workers=1)
    (tmp_path / "in" / "actions.csv").rename(tmp_path / "in" / "Actions.csv")
    assert (
        svg_data.main(
            [
                "frames",
                str(tmp_path / "in"),
                str(tmp_path / "out"),
                "--workers",
                "1",
                "--splits",
                "1",
                "0",
                "0",
            ]
        )
        == 0
    )
    assert (
        f"note: {tmp_path / 'in' / 'Actions.csv'}: not read; the tables are called" in capsys.readouterr().out
    )


def test_a_table_that_changed_between_runs_is_refused(tmp_path):
    write_pictures(tmp_path / "in", 6)
    (tmp_path / "in" / "actions.csv").write_text("1\n" * 6)
    videos.convert(tmp_path / "in", tmp_path / "out", workers=1)
    (tmp_path / "in" / "actions.csv").write_text("2\n" * 6)
    with pytest.raises(InputError, match=r"found recordings .* as now asked for"):
        videos.convert(tmp_path / "in", tmp_path / "out", workers=1)


def test_recordings_beside_those_that_are_split_are_refused(tmp_path):
    for name in ("train/a", "test/b", "cover"):
        write_pictures(tmp_path / "in" / name, 3)
    with pytest.raises(
        InputError, match=r"cover: lies outside of train, validate, test, where others lie \(test/b\)"
    ):
        videos.convert(tmp_path / "in", tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


def test_recordings_behind_links_are_taken_within_the_source_alone(tmp_path):
    write_pictures(tmp_path / "in" / ".pool" / "first", 3)
    (tmp_path / "in" / "a").symlink_to(tmp_path / "in" / ".pool" / "first")
    (tmp_path / "in" / ".pool" / "first" / "round").symlink_to(tmp_path / "in")  # in circles
    videos.convert(tmp_path / "in", tmp_path / "out", image_width=8, shares=(1, 0, 0), workers=1)
    assert layout.read_index(tmp_path / "out")["path"].tolist() == ["train/a/0"]
    write_pictures(tmp_path / "elsewhere", 3)
    (tmp_path / "in" / "b").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"in/b: a link out of .*in, to .*elsewhere; copy what it points to"):
        videos.convert(tmp_path / "in", tmp_path / "other", image_width=8, shares=(1, 0, 0), workers=1)


def test_names_in_no_encoding_are_refused_at_once(tmp_path):
    try:
        write_pictures(tmp_path / "in" / "caf\udce9", 3)
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(InputError, match="a name with characters that cannot be written"):
        videos.convert(tmp_path / "in", tmp_path / "out", workers=1)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.png", "a.webp"])
def test_a_pipe_in_the_place_of_a_recording_is_refused_without_waiting(tmp_path, name):
    if name.endswith("mp4"):
        pytest.importorskip("imageio_ffmpeg")
    (tmp_path / "in").mkdir()
    os.mkfifo(tmp_path / "in" / name)
    with pytest.raises(InputError, match=rf"in/{name}: .*not a regular file.*; restore or remove it"):
        videos.convert(tmp_path / "in", tmp_path / "out", workers=1)
