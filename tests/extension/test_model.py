"""A model is added in two places: its module and an entry in the registry. All commands then take it."""

import json

import pytest
import torch

import svg
from experiments import evaluate, render, train
from svg.models import registry
from tests.extension import tiny_model
from tests.support.places import ROOT

README = ROOT / "svg" / "models" / "README.md"


@pytest.fixture
def run(monkeypatch, tmp_path, data_root):
    """Train a run of the model for two steps with ``svg-train``."""
    monkeypatch.setitem(registry.MODELS, "tiny", tiny_model.ENTRY)
    sizes = (
        "--z_dim 3 --n_past 2 --n_future 4 --n_eval 6 --batch_size 4 --niter 1 --epoch_size 2 --device cpu"
    )
    flags = ["--model", "tiny", "--data_root", str(data_root), "--log_dir", str(tmp_path / "run")]
    assert train.main([*flags, *sizes.split()]) == 0
    return tmp_path / "run"


def test_commands_take_it(run):
    assert json.loads((run / "config.json").read_text())["model"]["model"] == "tiny"
    assert evaluate.main([str(run), "--n_sample", "2", "--device", "cpu"]) == 0
    assert render.main([str(run), "--device", "cpu"]) == 0
    assert list((run / "figures").iterdir()) and list(run.glob("*.json"))


def test_python_takes_it(run):
    model = svg.load(run, device="cpu", precision="float32")
    assert isinstance(model, tiny_model.TinyModel)
    past = torch.rand(2, 2, 3, 64, 64)
    conditions = torch.randn(2, 5, 4)
    frames = model.predict(past, conditions, n_future=4, n_samples=3, seed=1)
    assert frames.shape == (3, 2, 4, 3, 64, 64)
    state = model.observe(past, conditions)
    first, state = model.advance(state, conditions[:, 1:3], model.zero_noise(conditions[:, 1:3]))
    second, _ = model.advance(state, conditions[:, 3:], model.zero_noise(conditions[:, 3:]))
    whole = model.predict(past, conditions, n_future=4, latent="mean")
    torch.testing.assert_close(torch.cat([first, second], 2), whole)


def test_flags_of_other_models_are_refused(monkeypatch, tmp_path, data_root, capsys):
    monkeypatch.setitem(registry.MODELS, "tiny", tiny_model.ENTRY)
    flags = ["--model", "tiny", "--rnn_size", "9", "--data_root", str(data_root), "--log_dir", str(tmp_path)]
    assert train.main(flags) == 2
    assert (
        "--rnn_size: is a flag of svg and objects; --model tiny has no such part" in capsys.readouterr().err
    )


def test_the_page_on_adding_a_model_shows_this_one():
    source = (ROOT / "tests" / "extension" / "tiny_model.py").read_text()
    assert source in README.read_text()
