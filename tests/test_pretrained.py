"""Models that come with the package, and training that begins with the weights of another model."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import changed, weights

import svg
from data_tools.layout import InputError
from experiments import evaluate, render, train
from svg import checkpoint, pretrained
from svg.metrics import psnr
from svg.training import Training


def test_each_released_model_is_whole_and_light_and_has_a_card():
    assert pretrained.names() == ["push-sim", "push-sim-large"]
    for name in pretrained.names():
        folder = pretrained.released_folder(name)
        assert sum(path.stat().st_size for path in folder.rglob("*")) < (8e6 if name == "push-sim" else 15e6)
        config, found = checkpoint.load_config(folder), checkpoint.find(folder, "best")
        checkpoint.check_model(found, config.model)
        assert not Path(config.data.data_root).is_absolute() and not Path(config.train.log_dir).is_absolute()
        card = (folder / "README.md").read_text()
        assert all(heading in card for heading in ("## Data", "## Training", "## Scores", "## What it is bad at", "## Licence"))
        assert found.digests["weights"] in card


@pytest.fixture(scope="module")
def pushing() -> tuple[torch.Tensor, torch.Tensor]:
    """Frames uint8 [4,30,3,64,64] and conditions [4,30,7] of the first sequences that released models are tested on."""
    pytest.importorskip("mujoco")
    from data_tools.simulate import simulate_sequence

    found = [simulate_sequence(1000, number, 30, 64) for number in range(4)]
    conditions = [np.concatenate([actions, positions], 1) for _, actions, positions, _ in found]
    return torch.from_numpy(np.stack([frames for frames, *_ in found])).movedim(-1, 2), torch.from_numpy(np.stack(conditions))


@pytest.mark.parametrize("name", ["push-sim", "push-sim-large"])
def test_released_models_predict_pushing_and_follow_actions(pushing, name):
    frames, conditions = pushing
    model = svg.load(name, device="cpu")
    truth = frames.float() / 255

    def score(predicted: torch.Tensor) -> float:
        return float(psnr(predicted, truth[:, 2 : 2 + predicted.shape[1]]).mean())

    def predict(conditions: torch.Tensor, n_future: int) -> torch.Tensor:
        futures = model.predict(frames[:, :2], conditions, n_future, generator=torch.Generator().manual_seed(0))
        assert futures.shape == (1, 4, n_future, 3, 64, 64)
        return futures[0].float()

    copied = truth[:, 1:2]
    assert score(predict(conditions, 10)) > score(copied.expand(-1, 10, -1, -1, -1)) + 9
    assert score(predict(conditions, 28)) > score(copied.expand(-1, 28, -1, -1, -1)) + 8
    assert score(predict(conditions.roll(1, 0), 10)) < score(predict(conditions, 10)) - 5


def test_gradients_of_a_loaded_model_flow_to_actions(pushing):
    frames, conditions = pushing
    model = svg.load("push-sim", device="cpu", precision="float32")
    start = model.observe(frames[:1, :2], conditions[:1])
    plan = conditions[:1, 1:4].clone().requires_grad_()
    model.imagine(start, plan, torch.zeros(1, 1, 3, *model.latent_shape)).sum().backward()
    assert plan.grad.isfinite().all() and plan.grad[..., :2].abs().min() > 0


def test_a_name_that_is_neither_is_one_line():
    with pytest.raises(InputError, match="found 'push_sim', expected a run folder or the name of a released model: push-sim"):
        svg.load("push_sim")
    with pytest.raises(InputError, match="precision: found 'fp16', expected one of auto, bfloat16, float32"):
        svg.load("push-sim", precision="fp16")


def test_a_path_is_never_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="found 'push-sim', expected a run folder"):
        svg.load(Path("push-sim"))


def test_pretrained_becomes_a_run_folder_here(data_root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert evaluate.main(["--pretrained", "push-sim"]) == 2
    assert "data/push: not found from here; push-sim was trained on it: name its place with --data_root" in capsys.readouterr().err
    assert render.main(["--pretrained", "push-sim", "--data_root", str(data_root)]) == 2
    assert "condition columns (4), expected" in capsys.readouterr().err
    assert (tmp_path / "push-sim" / "README.md").exists()
    for flags, expected in (
        (["--pretrained", "push"], "--pretrained: found 'push', expected a released model: push-sim"),
        (["push-sim", "--pretrained", "push-sim"], "--pretrained push-sim: found the run push-sim beside it"),
        ([], "expected a run folder that svg-train has written, or --pretrained push-sim"),
    ):
        assert render.main(flags) == 2
        assert expected in capsys.readouterr().err
    best = tmp_path / "push-sim" / "checkpoints" / "best.json"
    best.write_text(best.read_text().replace('"step": ', '"step": 1'))
    assert render.main(["--pretrained", "push-sim"]) == 2
    assert "best.json: damaged" in capsys.readouterr().err


@pytest.mark.slow
def test_quickstart_with_a_released_model(tmp_path):
    pytest.importorskip("mujoco")
    command = [sys.executable, "-m", "experiments.quickstart", "--pretrained", "--sequences", "3", "--n_sample", "2"]
    for _ in range(2):  # the second time with the copy and the sequences of the first
        done = subprocess.run([*command, "--out", tmp_path], capture_output=True, text=True, cwd=Path(__file__).parent.parent)
        assert done.returncode == 0, done.stderr
        assert "3 sequences" in done.stdout and f"the pictures are in {tmp_path / 'push-sim' / 'figures'}, all" in done.stdout
        assert (tmp_path / "push-sim" / "figures" / "test_best.gif").exists()
        assert (tmp_path / "push-sim" / "report.html").exists()


# ------------------------------------------------------------------------------------------------------- --init_from


@pytest.fixture
def trained(small_config) -> Path:
    return Training(changed(small_config, niter=1)).fit()


def begun(config, trained: Path, **values) -> dict[str, torch.Tensor]:
    """The weights with which a training that begins from `trained` would begin."""
    config = changed(config, init_from=str(trained), log_dir=f"{trained}-2", **values)
    return Training(config).learner.model.state_dict()


def test_same_data_same_weights(small_config, trained, capsys):
    expected, found = weights(trained, "best"), begun(small_config, trained)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=0, rtol=0)
    assert f"begins with 100.0% of its weights from {trained}; afresh: none" in capsys.readouterr().out


@pytest.mark.parametrize("recurrence", ["spatial", "vector"])
def test_conditions_of_another_width_leave_the_rest(small_config, tmp_path, capsys, recurrence):
    config = changed(small_config, recurrence=recurrence, niter=1, epoch_size=1, log_dir=str(tmp_path / "first"))
    trained = Training(config).fit()
    expected, found = weights(trained, "best"), begun(config, trained, conditions="actions")
    names = {f"{part}.core.embed.weight": 16 + 3 * (part == "predictor") for part in ("predictor", "posterior", "prior")}
    printed = capsys.readouterr().out
    assert f"afresh: {', '.join(f'{name} (conditions)' for name in names)}\n" in printed
    for name in found.keys() - names.keys() - {"condition_mean", "condition_std"}:
        torch.testing.assert_close(found[name], expected[name], atol=0, rtol=0)
    for name, before in names.items():
        torch.testing.assert_close(found[name][:, :before], expected[name][:, :before], atol=0, rtol=0)
        assert (found[name][:, before : before + 2] != expected[name][:, before : before + 2]).any()
        torch.testing.assert_close(found[name][:, before + 2 :], expected[name][:, before + 4 :], atol=0, rtol=0)
    assert found["condition_mean"].shape == (2,)


def test_what_does_not_fit_is_named(small_config, trained, capsys):
    found, expected = begun(small_config, trained, z_dim=5, prior="fixed"), weights(trained, "best")
    assert found.keys() < expected.keys()
    told = "afresh: predictor.core.embed.weight (latent), posterior.output.weight, posterior.output.bias\n"
    assert told in capsys.readouterr().out


def test_flags_of_the_model_are_as_there_and_a_resumed_run_stays_its_own(data_root, trained, tmp_path, capsys):
    flags = ["--log_dir", str(tmp_path / "tuned"), "--niter", "1", "--epoch_size", "2", "--device", "cpu"]
    shape = ["--data_root", str(data_root), "--n_future", "4", "--n_eval", "6", "--batch_size", "4"]
    assert train.main([*flags, *shape, "--init_from", str(trained), "--beta", "0.01"]) == 0
    config = json.loads((tmp_path / "tuned" / "config.json").read_text())
    assert config["model"] == json.loads((trained / "config.json").read_text())["model"]
    assert config["train"]["init_from"] == str(trained) and config["train"]["beta"] == 0.01
    assert train.main(["--log_dir", str(tmp_path / "tuned"), "--resume", "--niter", "2"]) == 0
    assert capsys.readouterr().out.count("begins with") == 1
    assert train.main([*flags, *shape, "--init_from", str(tmp_path / "none")]) == 2
    assert "none', expected a run folder or the name of a released model" in capsys.readouterr().err


def test_weights_alone_are_nothing_to_resume_from(small_config, trained):
    """As in a released model: its best weights would be lost to a training that begins anew."""
    for path in (trained / "checkpoints").glob("step-*"):
        path.unlink()
    config = changed(small_config, epoch_size=2)
    with pytest.raises(
        InputError, match=r"--resume: .*run has its best weights, of step 3, but nothing to go on from; .*--init_from"
    ):
        Training(config, resume=True)
    Training(changed(config, epoch_size=3), resume=True)  # killed at the end of its first epoch
    with pytest.raises(InputError, match=r"--log_dir: .*run holds a run already"):
        Training(config)


def test_what_shares_nothing_is_refused(small_config, trained):
    config = changed(small_config, init_from=str(trained), log_dir=f"{trained}-2", width=0.2, g_dim=12, z_dim=5, rnn_size=12)
    with pytest.raises(InputError, match=r"--init_from: .*run: found next to no weights that fit this model"):
        Training(config)


def test_a_run_in_the_place_of_a_released_model_is_left_alone(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "push-sim")
    assert evaluate.main(["--pretrained", "push-sim"]) == 2
    assert "push-sim: found a run with other weights than the released ones; move it away" in capsys.readouterr().err
