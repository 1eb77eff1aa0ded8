"""Writers that are killed, run out of disk or lose their source: nothing half-written, and the same bytes in the end."""

import errno
import fcntl
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
import tfrecords
from recordings import contents, write_pictures, write_version

from data_tools import __main__ as svg_data
from data_tools import folders, layout
from data_tools.folders import write_sequence
from data_tools.index import build_index

ROOT = Path(__file__).parent.parent


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "data_tools", *map(str, words)]


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, list]:
    """For each writer its arguments before OUT and after it: enough work for a second or so."""
    folder = tmp_path_factory.mktemp("sources")
    generator = np.random.default_rng(0)
    shape = (30, 64, 64, 3)
    for shard in range(4):
        one = {"image_aux1": generator.integers(0, 256, shape, np.uint8)}
        record = tfrecords.record(tfrecords.example(tfrecords.bair_features(one, generator.normal(size=(30, 4)), None)))
        path = folder / "bair" / "train" / f"traj_{shard}.tfrecords"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(record * 30)
    write_version(folder / "rlds", {"train": [20] * 100})
    for name in "abcdef":
        write_pictures(folder / "pictures" / name, 300)
    for number in range(120):
        frames = generator.integers(0, 256, (10 + number % 7, 64, 64, 3), np.uint8)
        place = folder / "folders" / ("train", "test")[number % 5 == 0] / str(number)
        write_sequence(place, frames, generator.normal(size=(len(frames), 4)), None)
    build_index(folder / "folders")
    return {
        "bair": [["bair", folder / "bair"], []],
        "rlds": [["rlds", folder / "rlds"], ["--image_width", 64]],
        "frames": [["frames", folder / "pictures"], ["--length", 7, "--image_width", 64]],
        "pack": [["pack", folder / "folders"], []],
        "simulate_dance": [["simulate_dance"], ["--sequences", 16, "--frames", 60, "--image_width", 32]],
        "simulate": [["simulate"], ["--sequences", 60, "--image_width", 16, "--frames", 10]],
    }


WRITERS = ["bair", "rlds", "frames", "pack", "simulate", "simulate_dance"]


def listing(out: Path) -> set[str]:
    """All files; unlike rglob, walking takes no offence at folders that are renamed meanwhile."""
    return {f"{folder}/{file}" for folder, _, files in os.walk(out) for file in files}


def has_begun(out: Path, writer: str) -> bool:
    """Whether something stands under its final name, or, for the packed store, has begun to grow."""
    wanted = "/.frames.npy.part" if writer == "pack" else "/0.png"
    return any(name.endswith(wanted) and (writer == "pack" or "/." not in name) for name in listing(out))


def interrupt(words: list, out: Path, writer: str, after: float, how: signal.Signals) -> int:
    """Starts a writer in a process group of its own and interrupts the group some time after its first output."""
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    )
    before = listing(out)
    while process.poll() is None and (not has_begun(out, writer) or listing(out) == before):
        time.sleep(0.01)
    time.sleep(after)
    if how == signal.SIGKILL:
        process.kill()  # alone: its workers must notice by themselves
    elif process.poll() is None:
        os.killpg(process.pid, how)
    errors = process.communicate()[1]
    handle = os.open(out, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)  # the last worker has ended
    os.close(handle)
    # -2: interrupted after its work, when Python had already taken its signal handlers down
    assert process.returncode in (0, 130, -9, -2) and "Traceback" not in errors, errors
    return process.returncode


def assert_whole(root: Path, whole: Path) -> None:
    """What stands under a final name is what stands there in the end."""
    final = contents(whole)
    for name, data in contents(root).items():
        assert "/." in f"/{name}" or data == final[name], name


@pytest.mark.slow
@pytest.mark.parametrize("writer", WRITERS)
def test_killed_at_random_moments_it_ends_with_the_same_bytes(sources, tmp_path, writer):
    before, after = sources[writer]
    whole, out = tmp_path / "whole" / "data", tmp_path / "killed" / "data"
    subprocess.run(command(*before, whole, *after), check=True, capture_output=True, cwd=ROOT)
    chance, stopped = random.Random(writer), []
    for how in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        stopped.append(interrupt(command(*before, out, *after), out, writer, chance.uniform(0, 0.15), how))
        assert_whole(out, whole)
    assert any(stopped), "it was through each time before it was stopped: give it more to do"
    subprocess.run(command(*before, out, *after), check=True, capture_output=True, cwd=ROOT)
    assert contents(out) == contents(whole)


@pytest.mark.slow
def test_ctrl_c_during_a_video_leaves_no_short_sequence(tmp_path):
    """The terminal interrupts ffmpeg as well, which then ends without a word."""
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    (tmp_path / "in").mkdir()
    for name in "abc":
        noise = ["-f", "lavfi", "-i", "testsrc2=size=640x480:rate=30", "-frames:v", "900", "-preset", "ultrafast"]
        video = str(tmp_path / "in" / f"{name}.mp4")
        subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *noise, video], check=True)
    whole, out = tmp_path / "whole" / "data", tmp_path / "cut" / "data"
    subprocess.run(command("frames", tmp_path / "in", whole), check=True, capture_output=True, cwd=ROOT)
    assert interrupt(command("frames", tmp_path / "in", out), out, "frames", 0.1, signal.SIGINT) == 130
    assert_whole(out, whole)
    subprocess.run(command("frames", tmp_path / "in", out), check=True, capture_output=True, cwd=ROOT)
    assert contents(out) == contents(whole)


def run_limited(words: list, size: int) -> subprocess.CompletedProcess:
    """Runs svg-data where no file may grow beyond `size` bytes."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))  # noqa: E731
    return subprocess.run(words, preexec_fn=limit, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("writer", "size"), [("bair", 4000), ("rlds", 1500), ("frames", 1500), ("pack", 400_000), ("simulate", 150)]
)
def test_no_room_on_the_disk_is_one_line_and_loses_nothing(sources, tmp_path, writer, size):
    before, after = sources[writer]
    done = run_limited(command(*before, tmp_path / "out", *after, "--workers", 1), size)
    assert done.returncode == 2 and done.stderr.startswith(f"svg-data {writer}: {tmp_path / 'out'}"), done.stderr
    assert len(done.stderr.splitlines()) == 1 and "File too large" in done.stderr
    left = [path for path in (tmp_path / "out").rglob("*.*") if path.is_file() and not path.name.startswith(".")]
    assert all(path.parent == tmp_path / "out" for path in left)


def test_a_full_disk_while_a_sequence_is_written(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(folders, "open", full, raising=False)
        with pytest.raises(OSError, match=r"No space left on device: '.*out/0'"):
            write_sequence(tmp_path / "out" / "0", np.zeros((2, 4, 4, 3), np.uint8), None, None)
    assert list((tmp_path / "out").iterdir()) == []


def test_targets_that_cannot_be_written(sources, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for target, message in (
        (tmp_path / "file", "is a file, expected a folder"),
        (tmp_path / "file" / "x", "Not a directory"),
        (Path("/proc/x"), "/proc"),
    ):
        assert svg_data.main([*map(str, sources["bair"][0]), str(target), "--workers", "1"]) == 2
        printed = capsys.readouterr().err
        assert message in printed and len(printed.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_source_that_disappears(sources, tmp_path, capsys):
    shutil.copytree(sources["bair"][0][1], tmp_path / "in")
    shard = tmp_path / "in" / "train" / "traj_1.tfrecords"
    shard.unlink()
    shard.symlink_to(tmp_path / "gone")
    assert svg_data.main(["bair", str(tmp_path / "in"), str(tmp_path / "out"), "--workers", "1"]) == 2
    assert f"{shard}: cannot be read (No such file or directory)" in capsys.readouterr().err
    assert (
        len(list((tmp_path / "out/train/traj_0.tfrecords").iterdir())) == 30 and not (tmp_path / "out" / layout.INDEX_FILE).exists()
    )


def test_two_writers_do_not_share_a_root(sources, tmp_path):
    before, after = sources["simulate"]
    words = command(*before, tmp_path / "out", "--sequences", 4000, *after[2:])
    first = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    try:
        while not list((tmp_path / "out").glob("train/0*")) and first.poll() is None:
            time.sleep(0.02)
        second = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
        assert second.returncode == 2 and "another process is writing there" in second.stderr
    finally:
        first.kill()
        first.wait()
