"""Training and evaluation on data in chunks, from a folder and from an object storage."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from data_tools import __main__ as svg_data
from data_tools import layout, remote
from data_tools.chunks import Chunks
from data_tools.errors import InputError
from data_tools.folders import write_sequence
from data_tools.index import build_index
from data_tools.pack import pack
from data_tools.store import open_store
from experiments import evaluate
from experiments import train as train_command
from svg.config import Config
from svg.flags import flag_values
from svg.sequences import SequenceDataset, TrainingBatches
from svg.training.loop import Training
from svg.training.signals import Stopped
from tests.support.limits import deadline
from tests.support.places import ROOT
from tests.support.runs import assert_same_run, changed, make_config
from tests.support.storage import BUCKET, chunks_in_cache, storage, upload

pytest.importorskip("litdata")
pytest.importorskip("moto")


@pytest.fixture(scope="module")
def chunked(data_root, tmp_path_factory):
    """Return the data set of moving squares in chunks of two sequences or so."""
    root = tmp_path_factory.mktemp("chunked") / "data"
    pack(data_root, root, workers=1, form="litdata", chunk_mb=0.04)
    return root


@pytest.fixture
def client(tmp_path):
    with storage(tmp_path) as client:
        yield client


@pytest.fixture
def url(client, chunked):
    """Return the address of the uploaded data set."""
    return upload(client, chunked, "pushing/v1")


@pytest.fixture(scope="module")
def whole(chunked, tmp_path_factory):
    """Return (configuration, run that never stopped) on the local chunks: two epochs of three steps."""
    config = make_config(chunked, tmp_path_factory.mktemp("whole"))
    return config, Training(config).fit()


def stop_after(training: Training, step: int) -> Training:
    """Let this process get SIGTERM in a step."""
    do_step = training.learner.step

    def stopping(number, *rest):
        if number == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return do_step(number, *rest)

    training.learner.step = stopping
    return training


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 4])
def test_a_run_that_is_stopped_within_an_epoch_ends_with_the_same_bytes(whole, tmp_path, step):
    config = changed(whole[0], log_dir=str(tmp_path / "run"))
    with pytest.raises(Stopped, match=f"after step {step + 1}"):
        stop_after(Training(config), step).fit()
    assert_same_run(Training(config, resume=True).fit(), whole[1])


def words(config: Config, **changes) -> list[str]:
    flags = []
    for name, value in (flag_values(config) | changes).items():
        if not isinstance(value, bool):
            flags += [f"--{name}", str(value)]
        elif value:
            flags.append(f"--{name}")
    return flags


@pytest.mark.slow
def test_from_object_storage_it_is_the_same_run(whole, url, client, tmp_path, monkeypatch):
    """It is stopped, resumed by the command with a cache that holds one chunk, and evaluated from there."""
    monkeypatch.setenv(remote.CACHE_GB, "0.00006")
    config = changed(whole[0], data_root=url, log_dir=str(tmp_path / "run"))
    with pytest.raises(Stopped, match="after step 4"):
        stop_after(Training(config), 3).fit()
    chunks = chunks_in_cache(tmp_path / "cache")
    assert 0 < sum(chunk.stat().st_size for chunk in chunks) <= 60_000
    assert train_command.main(words(config, resume=True)) == 0
    assert_same_run(tmp_path / "run", whole[1])
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["data_root"] == url
    assert evaluate.main([str(tmp_path / "run"), "--n_sample", "2"]) == 0


@pytest.mark.slow
def test_scores_are_those_on_the_folders(whole, url, data_root):
    scores = {}
    for name, root in (("folders", data_root), ("chunks", whole[0].data.data_root), ("storage", url)):
        assert evaluate.main([str(whole[1]), "--data_root", str(root), "--n_sample", "2"]) == 0
        (file,) = (whole[1] / "evaluation").glob(f"*_on_{os.path.basename(root)}.json")
        result = json.loads(file.read_text())
        scores[name] = {key: result[key] for key in ("methods", "samples", "distances")}
        scores[name]["sequences"] = file.with_suffix(".csv").read_text()
    assert scores["folders"]["sequences"].count("\n") > 5
    assert scores["chunks"] == scores["folders"] and scores["storage"] == scores["folders"]


@pytest.mark.slow
def test_two_processes_train_as_one(whole, url, tmp_path):
    """With readers, which download chunks as well. The first epoch is trained by two, the second by one."""
    config = changed(whole[0], data_root=url, log_dir=str(tmp_path / "run"), workers=1)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "experiments.train", *words(config)],
        capture_output=True, text=True, cwd=ROOT, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [(run / "metrics.jsonl").read_text().splitlines() for run in (tmp_path / "run", whole[1])]
    for two, one in zip(*(map(json.loads, own) for own in lines), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=2e-4)


# -------------------------------------------------------------------------------------------------- the cache


def test_chunks_come_when_they_are_read_and_stay(url, client, tmp_path, monkeypatch):
    dataset = SequenceDataset(url, "train", 4)
    assert chunks_in_cache(tmp_path / "cache") == []
    first = dataset[0, 2]
    (chunk,) = chunks_in_cache(tmp_path / "cache")
    client.delete_object(Bucket=BUCKET, Key="pushing/v1/train/chunk-0-0.bin")
    again = SequenceDataset(url, "train", 4)[0, 2]  # not downloaded again
    assert (again["frames"] == first["frames"]).all()
    chunk.unlink()
    with pytest.raises(InputError, match=r"train/chunk-0-0\.bin: not found"):
        SequenceDataset(url, "train", 4)[0]


def test_the_cache_drops_what_was_not_used_for_longest(url, tmp_path, monkeypatch):
    monkeypatch.setenv(remote.CACHE_GB, "0.00015")  # two chunks
    store = open_store(url, "train")
    starts = store._chunks.starts.tolist()
    assert len(starts) > 3
    for number in (0, 1, 0, 2):
        store.read_clips([(starts[number], 0, 0)], 3)
    assert [chunk.name for chunk in chunks_in_cache(tmp_path / "cache")] == ["chunk-0-0.bin", "chunk-0-2.bin"]


@pytest.mark.parametrize("times, fails", [(1, False), (4, False), (5, True)])
def test_a_chunk_that_others_remove_is_downloaded_again(url, tmp_path, monkeypatch, times, fails):
    dataset = SequenceDataset(url, "train", 4)
    check_size = Chunks._check_size
    left = [times]

    def remove_first(chunks, path, expected):
        if left[0]:
            left[0] -= 1
            path.unlink()
        check_size(chunks, path, expected)

    monkeypatch.setattr(Chunks, "_check_size", remove_first)
    if fails:
        with pytest.raises(InputError, match=r"removed 5 times before it could be read; raise SVG_CACHE_GB"):
            dataset[0]
    else:
        assert dataset[0]["frames"].shape == (4, 64, 64, 3)


def test_chunks_are_downloaded_ahead(url, tmp_path):
    """While one step is computed the chunks of later ones come."""
    store = open_store(url, "train")
    store.expect(range(len(store.index)))
    with deadline(60):
        while len(chunks_in_cache(tmp_path / "cache")) < len(store._chunks.starts):
            time.sleep(0.05)


def test_training_asks_for_the_chunks_of_the_next_steps(url, tmp_path):
    """After one step without readers the chunks of all clips of a pass come by themselves."""
    dataset = SequenceDataset(url, "train", 6)
    batches = TrainingBatches(dataset, 1, 1, "random").iterate(range(2), workers=0, pin_memory=False)
    next(batches)
    with deadline(60):
        while len(chunks_in_cache(tmp_path / "cache")) < len(dataset.store._chunks.starts):
            time.sleep(0.05)
    next(batches)


@pytest.mark.slow
def test_a_large_chunk_comes_in_parts(client, tmp_path):
    """boto3 downloads objects above 8 MB by parallel requests."""
    generator = np.random.default_rng(0)
    for number in range(4):
        frames = generator.integers(0, 256, (60, 128, 128, 3), np.uint8)
        write_sequence(tmp_path / "in" / "train" / str(number), frames, None, None)
    build_index(tmp_path / "in")
    pack(tmp_path / "in", tmp_path / "out", workers=1, form="litdata")
    (chunk,) = (tmp_path / "out" / "train").glob("*.bin")
    assert chunk.stat().st_size > 10e6
    dataset = SequenceDataset(upload(client, tmp_path / "out", "large"), "train", 60, "none")
    frames = SequenceDataset(tmp_path / "in", "train", 60, "none")[3]["frames"]
    np.testing.assert_array_equal(dataset[3]["frames"], frames)


@pytest.mark.slow
def test_a_changed_data_set_at_the_same_address(url, whole, client, data_root, tmp_path):
    """It gets another place in the cache, a run that is resumed says so, and chunks are not mixed."""
    config = changed(whole[0], data_root=url, log_dir=str(tmp_path / "run"))
    with pytest.raises(Stopped):
        stop_after(Training(config), 1).fit()
    before = SequenceDataset(url, "train", 4)
    pack(data_root, tmp_path / "other", sequences=9, workers=1, form="litdata", chunk_mb=0.04)
    upload(client, tmp_path / "other", "pushing/v1")
    assert len(SequenceDataset(url, "train", 4)) == 9
    with pytest.raises(InputError, match="data"):
        Training(config, resume=True).fit()
    for chunk in chunks_in_cache(tmp_path / "cache"):
        chunk.unlink()
    with pytest.raises(InputError, match=r"chunk-0-\d\.bin: the checksum does not match: changed or damaged"):
        for number in range(12):
            before[number]


def test_a_chunk_that_was_damaged_on_its_way_is_not_kept(url, client, tmp_path):
    key = "pushing/v1/train/chunk-0-0.bin"
    data = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    client.put_object(Bucket=BUCKET, Key=key, Body=data[:-1] + bytes([data[-1] ^ 1]))
    dataset = SequenceDataset(url, "train", 4)
    with pytest.raises(InputError, match="the checksum does not match: changed or damaged; upload the data"):
        dataset[0]
    assert chunks_in_cache(tmp_path / "cache") == []
    client.put_object(Bucket=BUCKET, Key=key, Body=data)
    dataset[0]


# --------------------------------------------------------------------------------------------------- mistakes


def answer(capsys, *arguments: str) -> str:
    """Return the one line with which a command answers a mistake."""
    assert svg_data.main([*arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_mistakes_are_one_line(url, client, chunked, capsys, monkeypatch, tmp_path):
    check = ("check", "--workers", "1")
    text = answer(capsys, *check, "s3://nobody/here")
    assert "s3://nobody/here/dataset.json: not found: no such bucket or object; check the address" in text
    text = answer(capsys, *check, f"s3://{BUCKET}/elsewhere")
    assert "not found: no such bucket or object" in text
    assert "found no address of a data set, expected s3://BUCKET/PREFIX" in answer(capsys, *check, "s3://")
    client.delete_object(Bucket=BUCKET, Key="pushing/v1/test/index.json")
    assert "pushing/v1/test/index.json: not found" in answer(capsys, *check, url)
    client.upload_file(str(chunked / "train" / "index.json"), BUCKET, "pushing/v1/test/index.json")
    text = answer(capsys, *check, url)
    assert "found another index.csv or index.json than dataset.json was written with; upload" in text
    assert "--out: not given" in answer(capsys, "show", url)
    pack_to_storage = answer(capsys, "pack", str(chunked), url, "--format", "litdata")
    assert "nothing is packed straight into object storage" in pack_to_storage
    monkeypatch.setenv(remote.CACHE_GB, "much")
    upload(client, chunked, "again")
    with pytest.raises(InputError, match="SVG_CACHE_GB: found 'much', expected a number of gigabytes"):
        SequenceDataset(f"s3://{BUCKET}/again", "train", 4)[0]


def test_a_data_set_of_folders_in_a_bucket(client, data_root, capsys):
    client.upload_file(str(data_root / layout.INFO_FILE), BUCKET, "folders/dataset.json")
    text = answer(capsys, "check", f"s3://{BUCKET}/folders")
    assert (
        "found the store 'folders', expected 'litdata'; write it with `svg-data pack --format litdata`"
        in text
    )


@pytest.mark.slow
def test_without_credentials_or_network(url, monkeypatch, capsys):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    remote._downloader.cache_clear()
    text = answer(capsys, "check", url)
    assert re.search(
        "dataset.json: found no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", text
    )
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(remote, "RETRIES", 1)
    remote._downloader.cache_clear()
    text = answer(capsys, "check", url)
    assert (
        "cannot be downloaded (Could not connect to the endpoint URL" in text and "AWS_ENDPOINT_URL" in text
    )


@pytest.mark.slow
def test_commands_of_svg_data_take_an_address(url, tmp_path, capsys):
    assert svg_data.main(["check", url, "--workers", "1"]) == 1  # a square that stands still
    assert capsys.readouterr().out.endswith("1 problem in 22 sequences, 330 frames\n")
    assert svg_data.main(["show", url, "--out", str(tmp_path / "sheet.png")]) == 0
    assert svg_data.main(["pack", url, str(tmp_path / "npy"), "--workers", "1"]) == 0
    assert open_store(tmp_path / "npy", "train").index.equals(open_store(url, "train").index)
    assert (
        svg_data.main(["resize", url, str(tmp_path / "small"), "--image_width", "64", "--workers", "1"]) == 0
    )
