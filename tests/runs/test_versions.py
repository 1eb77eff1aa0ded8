"""Files that earlier versions of this project wrote can be read: ``versions/<schema>/``."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from data_tools import layout
from data_tools.errors import InputError
from svg import config as config_module
from svg.runs import checkpoint
from svg.runs.checkpoint import load_config, load_model
from svg.runs.metrics_log import read_metrics
from svg.sequences import SequenceDataset
from svg.training.loop import Training
from tests.support.places import VERSIONS
from tests.support.runs import changed


def test_every_version_has_its_files():
    """A new version needs files of the one before, and a test of them here."""
    kept = {int(folder.name) for folder in VERSIONS.iterdir()}
    assert kept == set(range(1, checkpoint.SCHEMA_VERSION))
    assert (layout.SCHEMA_VERSION, config_module.SCHEMA_VERSION) == (1, 1)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(VERSIONS / "1" / "run", tmp_path / "run"))


def test_version_1_predicts_as_it_did(run):
    """Its model scores what the release that wrote it has noted."""
    config = load_config(run)
    data = dataclasses.replace(config.data, data_root=str(VERSIONS / "1" / "data"))
    training = Training(
        dataclasses.replace(config, data=data, train=dataclasses.replace(config.train, log_dir=str(run))),
        resume=True,
    )
    noted = read_metrics(run)[-1]
    scores = training.score()
    assert len(scores) == 4 and scores == pytest.approx({name: noted[name] for name in scores}, rel=1e-4)
    for name in ("best", "last"):
        model, _ = load_model(run, name)
        written = load_file(next((run / "checkpoints").glob(f"{name}-*.safetensors")))
        assert all(torch.equal(value, written[key]) for key, value in model.state_dict().items())
        assert checkpoint.read_identity(run, name).startswith("step 2, sha256 ")


def test_version_1_is_resumed(run):
    """Adam goes on counting; the checkpoint of then is the one before until there are two."""
    config = changed(load_config(run), log_dir=str(run), data_root=str(VERSIONS / "1" / "data"), niter=3)
    Training(config, resume=True).fit()
    state = checkpoint.read_tensors(checkpoint.find(run, "last").files["optimizer"])
    assert {value.item() for name, value in state.items() if name.endswith("/step")} == {3.0}
    assert checkpoint.find(run, "last").version == 2
    checkpoint.find(run, "last").files["weights"].write_bytes(b"")
    assert checkpoint.find(run, "last").version == 1
    Training(changed(config, niter=4), resume=True).fit()
    assert [line["step"] for line in read_metrics(run)] == [1, 2, 3, 4]
    assert not list((run / "checkpoints").glob("last*"))


def test_index_of_version_1():
    datasets = [SequenceDataset(VERSIONS / "1" / name, "train", 4) for name in ("data", "packed")]
    for dataset in datasets:
        assert (len(dataset), dataset.frame_size, dataset.condition_dim) == (2, (64, 64, 3), 3)
    for one, other in zip(*datasets, strict=True):
        assert (one["frames"] == other["frames"]).all() and (one["conditions"] == other["conditions"]).all()
        assert (one["frames"][:, 20:40, 20:40] == 9).all() and one["conditions"].shape == (4, 3)
    np.testing.assert_allclose(
        datasets[0].condition_mean, np.concatenate([item["conditions"] for item in datasets[0]]).mean(0)
    )


def test_a_version_to_come(run):
    for name, text in (("best", '{"schema_version": 3}'), ("last", '{"schema_version": 99}')):
        (run / "checkpoints" / f"{name}.json").write_text(text)
        with pytest.raises(
            InputError,
            match=rf"{name}\.json: found schema version \d+, expected at most 2; use a newer release",
        ):
            load_model(run, name)
