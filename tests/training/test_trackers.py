"""Trackers: each library reads back what metrics.jsonl says, once for each step, and films and flags."""

import importlib.util
import io
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_tools.errors import InputError
from svg.config import Config
from svg.flags import flag_values
from svg.runs.metrics_log import read_metrics
from svg.training import trackers
from svg.training.loop import Training
from tests.support.places import ROOT
from tests.support.runs import assert_same_run, changed

GROUPS = {
    "loss": "train/loss",
    "lr": "train_schedule/lr",
    "epoch": "train_schedule/epoch",
    "val_pred_psnr": "val/pred_psnr",
    "val_rec_ssim": "val/rec_ssim",
}
"""The names of some metrics at a tracker."""
CRASH = """
import os, sys, torch
from pathlib import Path
from svg.runs.checkpoint import load_config
from svg.training.loop import Training
torch.set_num_threads(1)
training = Training(load_config(Path(sys.argv[1])), resume=True)
save = training.learner.save
training.learner.save = lambda run, progress: os._exit(9) if progress.step == 9 else save(run, progress)
training.fit()
"""


@dataclass
class Kept:
    """What a library has of a run: numbers and films as (step, value), and its flags."""

    curves: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    films: list[tuple[int, bytes]] = field(default_factory=list)
    flags: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory):
    """No settings or logins of the user; Trackio reads its folder from the environment once."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("WANDB_", "TRACKIO_"))]:
            patch.delenv(name)
        home = tmp_path_factory.mktemp("home")
        patch.setenv("HOME", str(home))
        patch.setenv("TRACKIO_DIR", str(home / "trackio"))
        yield


@pytest.fixture(params=["tensorboard", "trackio", "wandb"])
def track(request) -> str:
    """A tracker whose library is installed."""
    pytest.importorskip(request.param, reason=f"{request.param} is an extra")
    return request.param


def read_tensorboard(run: Path) -> Kept:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = EventAccumulator(str(run / "tensorboard"), {"scalars": 0, "images": 0}).Reload()
    kept = Kept()
    for name in events.Tags()["scalars"]:
        kept.curves[name] = [(event.step, event.value) for event in events.Scalars(name)]
    kept.films = [(event.step, event.encoded_image_string) for event in events.Images("val/sequences")]
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = HParamsPluginData.FromString(content).session_start_info.hparams
    kept.flags = {name: getattr(value, value.WhichOneof("kind")) for name, value in hparams.items()}
    return kept


def read_trackio(run: Path) -> Kept:
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    identity = json.loads((run / "tracking" / "trackio.json").read_text())["identity"]
    (found,) = [own for own in trackio.Api().runs("svg-push") if own.name == f"{run.name}-{identity}"]
    kept = Kept(flags=found.config)
    for row in SQLiteStorage.get_logs("svg-push", found.name):
        for name, value in row.items():
            if isinstance(value, dict):
                path = Path(os.environ["TRACKIO_DIR"], "media", value["file_path"])
                kept.films.append((row["step"], path.read_bytes()))
            elif name not in ("step", "timestamp"):
                kept.curves[name].append((row["step"], value))
    return kept


def read_wandb(run: Path) -> Kept:
    from wandb.proto.wandb_internal_pb2 import Record

    kept = Kept()
    files = sorted((run / "wandb").glob("offline-run-*/run-*.wandb"))
    for file in files:
        wait_for_end(file)
        for record in map(Record.FromString, wandb_records(file.read_bytes())):
            kept.flags |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            for item in record.history.item:
                name = "/".join(item.nested_key) or item.key
                value = json.loads(item.value_json)
                if name == "val/sequences/path":
                    film = (file.parent / "files" / value).read_bytes()
                    kept.films.append((record.history.step.num, film))
                elif not name.startswith("val/sequences/"):
                    kept.curves[name].append((record.history.step.num, value))
    return kept


def wait_for_end(file: Path) -> None:
    """Wait until wandb has written the last record of a run, which its own process does."""
    from wandb.proto.wandb_internal_pb2 import Record

    for _ in range(300):
        records = wandb_records(file.read_bytes())
        if records and Record.FromString(records[-1]).HasField("exit"):
            return
        time.sleep(0.1)
    raise AssertionError(f"{file} has no end")


def wandb_records(log: bytes) -> list[bytes]:
    """Return the records of a file in LevelDB's log format, with a header of 7 bytes as wandb writes it."""
    records, parts, place, block = [], [], 7, 2**15
    while place + 7 <= len(log):
        if block - place % block < 7:  # no header fits into the rest of the block
            place += block - place % block
            continue
        length, kind = int.from_bytes(log[place + 4 : place + 6], "little"), log[place + 6]
        parts.append(log[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            records.append(b"".join(parts))
            parts = []
    return records


def read_back(track: str, run: Path) -> Kept:
    return {"tensorboard": read_tensorboard, "trackio": read_trackio, "wandb": read_wandb}[track](run)


def assert_kept(kept: Kept, config: Config, films: list[int]) -> None:
    """Assert that a library has each row of metrics.jsonl once, films of these steps, and the flags."""
    rows = read_metrics(Path(config.train.log_dir))
    names = {name for row in rows for name in row} - {"step"}
    assert len([name for name in kept.curves if not name.startswith("_")]) == len(names)
    for name, grouped in GROUPS.items():
        assert [step for step, _ in kept.curves[grouped]] == [row["step"] for row in rows]
        values = [value for _, value in kept.curves[grouped]]
        assert values == pytest.approx([row[name] for row in rows], rel=1e-6)
    assert [step for step, _ in kept.films] == films
    for _, film in kept.films:
        picture = Image.open(io.BytesIO(film))
        assert (picture.format, picture.n_frames) == ("GIF", config.data.n_eval)
    flags = flag_values(config)
    assert {name: kept.flags[name] for name in ("lr", "g_dim", "model", "data_root")} == {
        name: flags[name] for name in ("lr", "g_dim", "model", "data_root")
    }


def test_a_resumed_run_is_one_curve(small_config, tmp_path, track):
    """Epoch 1 is not tracked, epoch 2 fails when the tracker has it but no checkpoint."""
    alone = changed(small_config, log_dir=str(tmp_path / "alone"), niter=3)
    Training(alone).fit()
    Training(changed(small_config, niter=1)).fit()
    config = changed(small_config, niter=3, track=track)
    training = Training(config, resume=True)

    def fail(*_) -> None:
        raise KeyboardInterrupt

    training.learner.save = fail
    with pytest.raises(KeyboardInterrupt):
        training.fit()
    run = Training(config, resume=True).fit()
    assert_same_run(run, Path(alone.train.log_dir))
    assert_kept(read_back(track, run), config, [6, 9])


@pytest.mark.slow
def test_a_killed_run_is_one_curve(small_config):
    """The process ends at once between an epoch's row and its checkpoint; the other libraries write later."""
    pytest.importorskip("tensorboard", reason="tensorboard is an extra")
    config = changed(small_config, niter=2, track="tensorboard")
    run = Training(config).fit()
    config = changed(config, niter=3)
    (run / "config.json").write_text(config.to_json())
    done = subprocess.run([sys.executable, "-c", CRASH, run], cwd=ROOT, stderr=subprocess.PIPE)
    assert done.returncode == 9, done.stderr
    assert len(read_metrics(run)) == 3
    Training(config, resume=True).fit()
    assert_kept(read_tensorboard(run), config, [3, 6, 9])


class Broken:
    """A tracker that fails at the second epoch."""

    place = "nowhere"
    can_rewrite = False

    def __init__(self, *_):
        self.rows = 0

    def log(self, *_) -> None:
        self.rows += 1
        if self.rows == 2:
            raise ConnectionError("no route to host\nand more")

    def close(self) -> None:
        raise AssertionError("it is not used again")


def test_a_tracker_that_fails_is_a_line(small_config, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(trackers.TRACKERS, "wandb", Broken)
    monkeypatch.setattr(trackers, "require", lambda name: None)
    alone = Training(changed(small_config, log_dir=str(tmp_path / "alone"), niter=3)).fit()
    capsys.readouterr()
    run = Training(changed(small_config, niter=3, track="wandb")).fit()
    printed = capsys.readouterr()
    assert "track     wandb: nowhere\n" in printed.out
    assert printed.err == "note: --track wandb: no route to host; the training goes on without\n"
    assert_same_run(run, alone)


@pytest.mark.parametrize("name", trackers.TRACKERS)
def test_a_missing_library_is_a_line(small_config, monkeypatch, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"--track {name}: needs .*: pip install '.\[{name}\]' or pip"):
        Training(changed(small_config, track=name))
    assert not Path(small_config.train.log_dir).exists()
