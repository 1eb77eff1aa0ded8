"""Writers that are killed, run out of disk or lose their source leave nothing half-written."""

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_tools import __main__ as svg_data
from data_tools import folders, layout
from data_tools.folders import write_sequence
from tests.hardening import drill
from tests.support.places import ROOT
from tests.support.recordings import contents


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "data_tools", *map(str, words)]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory) -> dict[str, drill.Job]:
    return drill.make_jobs(tmp_path_factory.mktemp("sources"))


@pytest.mark.slow
@pytest.mark.parametrize("name", drill.JOBS)
def test_stopped_at_random_moments_it_ends_with_the_same_bytes(jobs, tmp_path, name):
    """Twice each; ``python -m tests.hardening.drill`` does so more than a hundred times."""
    if name == "evaluate":
        drill.run_whole(jobs["train"], tmp_path / "training")
        (tmp_path / "training" / "out").rename(jobs[name].before)
    tally = drill.drill(name, jobs[name], tmp_path / "drill", 2, random.Random(name))
    assert not tally.wrong
    assert (tally.stopped, tally.rounds) >= (2, 1)


def interrupt(words: list, out: Path, after: float) -> int:
    """Start a converter in its own process group, and interrupt the group after its first sequence."""
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    )
    while process.poll() is None and not any(
        "/." not in name and name.endswith("/0.png") for name in listing(out)
    ):
        time.sleep(0.01)
    time.sleep(after)
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate()[1]
    assert "Traceback" not in errors, errors
    return process.returncode


def listing(out: Path) -> list[str]:
    """All files; unlike rglob, walking takes no offence at folders that are renamed meanwhile."""
    return [f"{folder}/{file}" for folder, _, files in os.walk(out) for file in files]


def assert_whole(root: Path, whole: Path) -> None:
    """What stands under a final name is what stands there in the end."""
    final = contents(whole)
    for name, data in contents(root).items():
        assert "/." in f"/{name}" or data == final[name], name


@pytest.mark.slow
def test_ctrl_c_during_a_video_leaves_no_short_sequence(tmp_path):
    """The terminal interrupts ffmpeg as well, which then ends without a word."""
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    (tmp_path / "in").mkdir()
    for name in "abc":
        noise = [
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=640x480:rate=30",
            "-frames:v",
            "900",
            "-preset",
            "ultrafast",
        ]
        video = str(tmp_path / "in" / f"{name}.mp4")
        subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *noise, video], check=True)
    whole, out = tmp_path / "whole" / "data", tmp_path / "cut" / "data"
    subprocess.run(command("frames", tmp_path / "in", whole), check=True, capture_output=True, cwd=ROOT)
    assert interrupt(command("frames", tmp_path / "in", out), out, 0.1) == 130
    assert_whole(out, whole)
    subprocess.run(command("frames", tmp_path / "in", out), check=True, capture_output=True, cwd=ROOT)
    assert contents(out) == contents(whole)


@pytest.mark.parametrize(
    ("writer", "size"),
    [("bair", 4000), ("rlds", 1500), ("frames", 1500), ("pack", 400_000), ("simulate", 150)],
)
def test_no_room_on_the_disk_is_one_line_and_loses_nothing(jobs, tmp_path, writer, size):
    """No file may grow beyond `size` bytes."""
    done = subprocess.run(
        [*jobs[writer].words, "--workers", "1"], preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE,
         (size, size)),
        capture_output=True, text=True, cwd=tmp_path, env=drill.environment(),
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.startswith(f"svg-data {writer}: out"), done.stderr
    assert len(done.stderr.splitlines()) == 1 and "File too large" in done.stderr
    left = [
        path for path in (tmp_path / "out").rglob("*.*") if path.is_file() and not path.name.startswith(".")
    ]
    assert all(path.parent == tmp_path / "out" for path in left)


def test_a_full_disk_while_a_sequence_is_written(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(folders, "open", full, raising=False)
        with pytest.raises(OSError, match=r"No space left on device: '.*out/0'"):
            write_sequence(tmp_path / "out" / "0", np.zeros((2, 4, 4, 3), np.uint8), None, None)
    assert list((tmp_path / "out").iterdir()) == []


def source_of(job: drill.Job) -> Path:
    return Path(job.words[4])


def test_targets_that_cannot_be_written(jobs, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for target, message in (
        (tmp_path / "file", "is a file, expected a folder"),
        (tmp_path / "file" / "x", "Not a directory"),
        (Path("/proc/x"), "/proc"),
    ):
        assert svg_data.main(["bair", str(source_of(jobs["bair"])), str(target), "--workers", "1"]) == 2
        printed = capsys.readouterr().err
        assert message in printed and len(printed.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_source_that_disappears(jobs, tmp_path, capsys):
    shutil.copytree(source_of(jobs["bair"]), tmp_path / "in")
    shard = tmp_path / "in" / "train" / "traj_1.tfrecords"
    shard.unlink()
    shard.symlink_to(shard.parent / "gone")
    assert svg_data.main(["bair", str(tmp_path / "in"), str(tmp_path / "out"), "--workers", "1"]) == 2
    assert f"{shard}: cannot be read (No such file or directory)" in capsys.readouterr().err
    assert (
        len(list((tmp_path / "out/train/traj_0.tfrecords").iterdir())) == 30
        and not (tmp_path / "out" / layout.INDEX_FILE).exists()
    )


@pytest.mark.slow
def test_two_writers_do_not_share_a_root(tmp_path):
    words = command("simulate", tmp_path / "out", "--sequences", 4000, "--image_width", 16, "--frames", 10)
    first = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    try:
        while not list((tmp_path / "out").glob("train/0*")) and first.poll() is None:
            time.sleep(0.02)
        second = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
        assert second.returncode == 2 and "another process is writing there" in second.stderr
    finally:
        first.kill()
        first.wait()
