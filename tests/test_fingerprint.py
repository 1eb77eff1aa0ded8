"""Files of a data set that change while a training is stopped are noticed; times alone are no change."""

import json
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools import pack
from data_tools.errors import InputError
from experiments import evaluate
from svg import fingerprint
from svg.config import Config
from svg.runs import checkpoint
from svg.sequences import SequenceDataset
from svg.training.loop import Training
from tests.support.runs import assert_same_run, changed


@pytest.fixture
def squares(data_root: Path, small_config: Config, tmp_path: Path) -> Config:
    """Return a configuration with its own copy of the data, whose frames are not compressed."""
    root = tmp_path / "data"
    shutil.copytree(data_root, root)
    for path in root.rglob("*.png"):
        with Image.open(path) as image:
            image.save(path, compress_level=0)
    return changed(small_config, data_root=str(root), niter=1, epoch_size=1)


def brighten(path: Path) -> None:
    """Changes one pixel and no size."""
    size = path.stat().st_size
    with Image.open(path) as image:
        pixels = np.array(image)
    pixels[5, 6, 0] ^= 1
    Image.fromarray(pixels).save(path, compress_level=0)
    assert path.stat().st_size == size


def retype(path: Path) -> None:
    """Changes one digit of a table and no size."""
    text = path.read_text()
    digit = next(place for place, letter in enumerate(text) if letter in "123")
    path.write_text(f"{text[:digit]}9{text[digit + 1 :]}")


def flip(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(-1000, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1000, os.SEEK_END)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("train/3/7.png", brighten), ("validate/2/0.png", brighten), ("train/0/actions.csv", retype),
        ("train/11/endeffector_positions.csv", retype), ("train/5/14.png", Path.unlink),
        ("train/5/actions.csv", Path.unlink),
    ],
)  # fmt: skip
def test_a_file_that_is_changed_is_named(squares, name, change):
    run = Training(squares).fit()
    path = Path(squares.data.data_root, name)
    change(path)
    with pytest.raises(
        InputError,
        match=f"^{path}: not as when {run} was begun, .*; restore what was changed, or add --take_over",
    ):
        Training(changed(squares, niter=2), resume=True)


@pytest.mark.parametrize("array", ["frames", "conditions"])
def test_a_packed_store_that_is_changed_is_named(squares, tmp_path, array):
    pack.pack(Path(squares.data.data_root), tmp_path / "packed", workers=1)
    config = changed(squares, data_root=str(tmp_path / "packed"))
    run = Training(config).fit()
    flip(tmp_path / "packed" / "train" / f"{array}.npy")
    with pytest.raises(InputError, match=rf"packed/train/{array}\.npy: not as when {run} was begun"):
        Training(config, resume=True)


def test_poses_that_are_changed_are_named(pose_root, tmp_path):
    shutil.copytree(pose_root, tmp_path / "data")
    files = SequenceDataset(tmp_path / "data", "train", 4).files()
    noted = fingerprint.take(files)
    poses = sorted((tmp_path / "data" / "train" / "train_label" / "2").iterdir())
    with Image.open(poses[9]) as image:
        Image.fromarray(255 - np.asarray(image)).save(poses[9])
    assert fingerprint.changed_files(noted, files)[0] == [str(poses[9])]


def test_knowingly_it_goes_on(squares, capsys):
    """The next resumption compares with this one; scores of other validation data are not compared."""
    run = Training(squares).fit()
    best = checkpoint.find(run, "best").progress.best_psnr
    root = Path(squares.data.data_root)
    brighten(root / "train" / "3" / "7.png")
    retype(root / "train" / "4" / "actions.csv")
    training = Training(changed(squares, niter=2), resume=True, take_over=True)
    told = f"{root}/train/3/7.png and 1 other files of the data set: not as when {run} was begun; "
    told += "the run goes on with the data as they are"
    assert told in capsys.readouterr().out and training.progress.best_psnr == best
    training.fit()
    brighten(root / "validate" / "0" / "3.png")
    with pytest.raises(InputError, match=r"validate/0/3\.png: not as"):
        Training(changed(squares, niter=2), resume=True)
    assert Training(changed(squares, niter=2), resume=True, take_over=True).progress.best_psnr is None


@pytest.mark.parametrize("how", ["touched", "copied", "packed"])
def test_other_times_alone_are_no_change(squares, tmp_path, how):
    """A run that goes on with a copy of its data ends as the run that never stopped."""
    if how == "packed":
        pack.pack(Path(squares.data.data_root), tmp_path / "packed", workers=1)
        squares = changed(squares, data_root=str(tmp_path / "packed"))
    squares = changed(squares, niter=2)
    whole = Training(changed(squares, log_dir=str(tmp_path / "whole"))).fit()
    run = Training(changed(squares, niter=1)).fit()
    noted = fingerprint.read(run)
    root = Path(squares.data.data_root)
    if how == "touched":
        for path in root.rglob("*.*"):
            os.utime(path)
    else:
        shutil.copytree(root, tmp_path / "elsewhere", copy_function=shutil.copyfile)
        shutil.rmtree(root)
        squares = changed(squares, data_root=str(tmp_path / "elsewhere"))
    assert_same_run(Training(squares, resume=True).fit(), whole)
    now = fingerprint.read(run)
    assert [contents for _, contents in now.values()] == [contents for _, contents in noted.values()]
    assert all(now[name][0] != noted[name][0] for name in now)


def test_what_has_kept_its_times_is_not_opened(squares, monkeypatch):
    Training(squares).fit()

    def refuse(path):
        raise AssertionError(path)

    monkeypatch.setattr(fingerprint, "_examine", refuse)
    Training(squares, resume=True)


def test_a_run_of_an_earlier_release_has_noted_no_files(squares):
    run = Training(squares).fit()
    (run / "data.json").unlink()
    brighten(Path(squares.data.data_root, "train", "3", "7.png"))
    Training(changed(squares, niter=2), resume=True).fit()
    assert len(fingerprint.read(run)) == 12 + 5  # from here on


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", '{"schema_version": 2}', '{"schema_version": 1}',
         '{"schema_version": 1, "files": {"train/0": ["a"]}}',
        '{"schema_version": 1, "files": {"train/0": [1, 2]}}',
         '{"schema_version": 1, "files": {"train/0": ["12", "3"]}}',
    ],
)  # fmt: skip
def test_damaged_notes_are_one_line(tmp_path, text):
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(
        InputError, match=r"data\.json: (damaged|found schema).*remove it to go on without comparing"
    ):
        fingerprint.read(tmp_path)


def test_checksums_by_hand(tmp_path, monkeypatch):
    table, large, picture = tmp_path / "a.csv", tmp_path / "b.npy", tmp_path / "c.png"
    table.write_bytes(b"1,2\n")
    large.write_bytes(bytes(range(40)))
    picture.write_bytes(bytes(range(100)))
    monkeypatch.setattr(fingerprint, "BLOCK", 8)
    monkeypatch.setattr(fingerprint, "MOST_BYTES", 16)
    monkeypatch.setattr(fingerprint, "TAIL", 20)
    os.mkfifo(tmp_path / "pipe")
    files = {"all": list(map(str, (table, large, picture, tmp_path / "none", tmp_path / "pipe")))}
    expected = [b"41,2\n", b"40" + bytes(range(8)) + bytes(range(16, 24)), b"100" + bytes(range(80, 100))]
    ((_, contents),) = fingerprint.take(files).values()
    assert contents == "".join(f"{zlib.crc32(data):08x}" for data in expected) + 2 * "missing."


@pytest.mark.slow
def test_scores_of_changed_frames_are_taken_anew(squares, capsys):
    """`--reuse` looks at the files, too; what earlier releases noted is compared as it was noted."""
    run = Training(squares).fit()
    flags = [str(run), "--n_sample", "0", "--reuse"]
    capsys.readouterr()
    for expected in ("written:", "taken as it is:"):
        assert evaluate.main(flags) == 0 and capsys.readouterr().out.startswith(expected)
    for path in Path(squares.data.data_root).rglob("*.png"):
        os.utime(path)
    assert evaluate.main(flags) == 0 and capsys.readouterr().out.startswith("taken as it is:")
    brighten(Path(squares.data.data_root, "train", "1", "2.png"))  # of another split
    assert evaluate.main(flags) == 0 and capsys.readouterr().out.startswith("taken as it is:")
    brighten(Path(squares.data.data_root, "test", "1", "2.png"))
    assert evaluate.main(flags) == 0 and capsys.readouterr().out.startswith("written:")
    path = run / "evaluation" / "test_n0.json"
    values = json.loads(path.read_text())
    values["setting"]["data_digest"] = values["setting"]["data_digest"].split("-")[0]
    path.write_text(json.dumps(values))
    assert evaluate.main(flags) == 0 and capsys.readouterr().out.startswith("taken as it is:")
