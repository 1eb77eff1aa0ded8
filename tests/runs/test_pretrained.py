"""Models that come with the package, and training that begins with the weights of another model."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import svg
from data_tools import folders, index, layout, png
from data_tools.errors import InputError
from data_tools.tables import read_conditions
from experiments import evaluate, plot, render, report, train
from svg.evaluation.metrics import psnr
from svg.models.build import make_model
from svg.runs import checkpoint, metrics_log, pretrained
from svg.runs.metrics_log import read_metrics
from svg.training.loop import Training
from svg.training.losses import video_loss
from svg.training.signals import Stopped
from tests.support.places import ROOT
from tests.support.runs import assert_same, assert_same_run, changed, interrupt_scoring, weights
from tests.support.samples import small_model


def test_each_released_model_is_whole_and_light_and_has_a_card():
    most = {"push-objects": 8e6, "push-objects-large": 24e6, "push-sim": 8e6, "push-sim-large": 15e6}
    assert pretrained.names() == list(most)
    for name in pretrained.names():
        folder = pretrained.named_folder(name)
        assert sum(path.stat().st_size for path in folder.rglob("*")) < most[name]
        config, found = checkpoint.load_config(folder), checkpoint.find(folder, "best")
        checkpoint.read_weights(found, config.model)
        assert not Path(config.data.data_root).is_absolute() and not Path(config.train.log_dir).is_absolute()
        card = (folder / "README.md").read_text()
        head = yaml.safe_load(card.split("---\n")[1])
        (described,) = head["model-index"]
        scores = {metric["type"]: metric["value"] for metric in described["results"][0]["metrics"]}
        assert head["license"] == "mit" and described["name"] == name
        assert f"{scores['psnr']:.2f}" in card and f"{scores['ssim']:.4f}" in card
        assert all(
            heading in card
            for heading in ("## Data", "## Training", "## Scores", "## Limitations", "## Licence")
        )
        assert found.digests["weights"] in card


@pytest.fixture(scope="module")
def pushing() -> tuple[torch.Tensor, torch.Tensor]:
    """Simulate the first test sequences: frames uint8 [4,30,3,64,64] and conditions [4,30,7]."""
    pytest.importorskip("mujoco")
    from data_tools.simulators.push import simulate_sequence

    sequences = [simulate_sequence(1000, number, 30, 64) for number in range(4)]
    frames = np.stack([sequence.frames for sequence in sequences])
    conditions = np.stack([np.concatenate([s.actions, s.positions], 1) for s in sequences])
    return torch.from_numpy(frames).movedim(-1, 2), torch.from_numpy(conditions)


@pytest.mark.parametrize("name", pretrained.names())
def test_released_models_predict_pushing_and_follow_actions(pushing, name):
    frames, conditions = pushing
    model = svg.load(name, device="cpu")
    truth = frames.float() / 255

    def score(predicted: torch.Tensor) -> float:
        return float(psnr(predicted, truth[:, 2 : 2 + predicted.shape[1]]).mean())

    def predict(conditions: torch.Tensor, n_future: int) -> torch.Tensor:
        futures = model.predict(
            frames[:, :2], conditions, n_future, generator=torch.Generator().manual_seed(0)
        )
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
    names = "push-objects, push-objects-large, push-sim, push-sim-large"
    expected = f"found 'push_sim', expected a run folder or the name of a released model: {names}, or user"
    with pytest.raises(InputError, match=expected):
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
    assert (
        "data/push: not found from here; push-sim was trained on it: name its place with --data_root"
        in capsys.readouterr().err
    )
    assert render.main(["--pretrained", "push-sim", "--data_root", str(data_root)]) == 2
    assert "condition columns (4), expected" in capsys.readouterr().err
    assert (tmp_path / "push-sim" / "README.md").exists()
    for flags, expected in (
        (
            ["--pretrained", "push"],
            "--pretrained: found 'push', expected the name of a released model: push-objects",
        ),
        (["push-sim", "--pretrained", "push-sim"], "--pretrained push-sim: found the run push-sim beside it"),
        ([], "expected a run folder that svg-train has written, or --pretrained push-objects"),
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
    command = [
        sys.executable,
        "-m",
        "experiments.quickstart",
        "--pretrained",
        "--sequences",
        "3",
        "--n_sample",
        "2",
    ]
    for _ in range(2):  # the second time with the copy and the sequences of the first
        done = subprocess.run([*command, "--out", tmp_path], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        assert (
            "3 sequences" in done.stdout
            and f"the pictures are in {tmp_path / 'push-sim' / 'figures'}, all" in done.stdout
        )
        assert (tmp_path / "push-sim" / "figures" / "test_best.gif").exists()
        assert (tmp_path / "push-sim" / "report.html").exists()


# -------------------------------------------------------------------------------------------------- trainable


def test_trainable_weights_are_those_of_the_checkpoint_and_learn():
    model = svg.load("push-sim", device="cpu", trainable=True)
    folder = pretrained.named_folder("push-sim")
    stored = checkpoint.read_weights(checkpoint.find(folder, "best"), checkpoint.load_config(folder).model)
    assert_same(model.state_dict(), stored)
    assert not model.training
    frames = torch.randint(0, 256, (1, 4, 3, 64, 64), dtype=torch.uint8)
    rollout = model(frames, torch.randn(1, 4, 7), n_past=2, teacher_forcing=True)
    loss, mse, kl = video_loss(rollout, frames[:, 1:], beta=0.5)
    expected = ((rollout.frames - frames[:, 1:].float() / 255) ** 2).mean()
    torch.testing.assert_close(mse, expected)
    torch.testing.assert_close(loss, expected + 0.5 * kl)
    loss.backward()
    without = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert not without


def test_what_is_fitted_once_stays_fixed_in_a_trainable_model():
    """The motion of the hand in push-objects, which no training changes."""
    model = svg.load("push-objects", device="cpu", trainable=True)
    fixed = {name.split(".")[-1] for name, weight in model.named_parameters() if not weight.requires_grad}
    assert fixed == {"straight", "drift", "bend_in", "bend_bias", "bend_out"}


def test_a_trainable_model_is_float32():
    with pytest.raises(InputError, match="precision: found bfloat16 beside trainable=True"):
        svg.load("push-sim", device="cpu", precision="bfloat16", trainable=True)


# ------------------------------------------------------------------------------------------------ --init_from


@pytest.fixture
def trained(small_config) -> Path:
    return Training(changed(small_config, niter=1)).fit()


def begun(config, trained: Path, **values) -> dict[str, torch.Tensor]:
    """Return the weights with which a training that begins from `trained` would begin."""
    config = changed(config, init_from=str(trained), log_dir=f"{trained}-2", **values)
    return Training(config).learner.model.state_dict()


def test_same_data_same_weights(small_config, trained, capsys):
    expected, found = weights(trained, "best"), begun(small_config, trained)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=0, rtol=0)
    assert f"begins with 100.0% of its weights from {trained}; new: none" in capsys.readouterr().out


@pytest.mark.parametrize("recurrence", ["spatial", "vector"])
def test_conditions_of_another_width_leave_the_rest(small_config, tmp_path, capsys, recurrence):
    config = changed(
        small_config, recurrence=recurrence, niter=1, epoch_size=1, log_dir=str(tmp_path / "first")
    )
    trained = Training(config).fit()
    expected, found = weights(trained, "best"), begun(config, trained, conditions="actions")
    names = {
        f"{part}.core.embed.weight": 16 + 3 * (part == "predictor")
        for part in ("predictor", "posterior", "prior")
    }
    printed = capsys.readouterr().out
    assert f"new: {', '.join(f'{name} (conditions)' for name in names)}\n" in printed
    for name in found.keys() - names.keys() - {"condition_mean", "condition_std"}:
        torch.testing.assert_close(found[name], expected[name], atol=0, rtol=0)
    for name, before in names.items():
        torch.testing.assert_close(found[name][:, :before], expected[name][:, :before], atol=0, rtol=0)
        assert (found[name][:, before : before + 2] != expected[name][:, before : before + 2]).any()
        torch.testing.assert_close(
            found[name][:, before + 2 :], expected[name][:, before + 4 :], atol=0, rtol=0
        )
    assert found["condition_mean"].shape == (2,)


@pytest.mark.parametrize("recurrence", ["spatial", "vector"])
def test_a_model_taken_over_predicts_what_the_origin_predicts(recurrence):
    """The same raw actions and positions give the same frames, whatever the new data's statistics."""
    config = dataclasses.replace(small_model().config, recurrence=recurrence)
    origin, other = (
        make_model(config, [mean] * 4, [std] * 4).eval() for mean, std in ((0.3, 0.2), (-1.0, 5.0))
    )
    generator = torch.Generator().manual_seed(0)
    for value in origin.state_dict().values():
        if value.dtype == torch.float32 and value.dim() > 1:
            value.normal_(
                0, 1.5 / value[0].numel() ** 0.5, generator=generator
            )  # so large that conditions matter
    past, conditions = (
        torch.rand(2, 2, 3, 64, 64, generator=generator),
        torch.randn(2, 5, 4, generator=generator),
    )
    predictions = [origin.predict(past, conditions, 4, generator=torch.Generator().manual_seed(1))]
    assert other.adopt(origin.state_dict(), config) == (1.0, [])
    predictions.append(other.predict(past, conditions, 4, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(*predictions)
    other.condition_std.fill_(5.0)
    assert (
        other.predict(past, conditions, 4, generator=torch.Generator().manual_seed(1)) - predictions[0]
    ).abs().max() > 1e-3


def test_statistics_stay_where_no_columns_are_taken_over():
    """With another hidden size no layer for conditions fits, and new layers see standardised data."""
    config = small_model().config
    origin = make_model(config, [0.3] * 4, [0.2] * 4)
    for changes, kept in (
        ({"rnn_size": 20}, [5.0] * 4),
        ({"latent_rnn_size": 20}, [0.2] * 4),
        ({"condition_dim": 3}, [5.0] * 3),
    ):
        width = changes.get("condition_dim", 4)
        model = make_model(dataclasses.replace(config, **changes), [-1.0] * width, [5.0] * width)
        model.adopt(origin.state_dict(), config)
        assert model.condition_std.tolist() == pytest.approx(kept), changes


def test_columns_of_other_units_are_named(small_config, data_root, trained, tmp_path, capsys):
    """The same squares with the first action in micrometres and the second position five rooms away."""
    for folder in (path for split in layout.SPLITS for path in sorted((data_root / split).iterdir())):
        frames = np.stack([png.read_frame(folder / f"{number}.png", (64, 64, 3)) for number in range(15)])
        tables = read_conditions(folder, 15)
        tables["actions"][:, 0] *= 1e4
        tables["positions"][:, 1] += 300
        folders.write_sequence(
            tmp_path / "other" / folder.relative_to(data_root), frames, tables["actions"], tables["positions"]
        )
    index.build_index(tmp_path / "other")
    found = begun(small_config, trained, data_root=str(tmp_path / "other"))
    torch.testing.assert_close(
        found["condition_std"], weights(trained, "best")["condition_std"], atol=0, rtol=0
    )
    (note,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note")]
    assert f"{tmp_path / 'other'} differs from the data of {trained} in actions.csv column 1 (" in note
    assert ", endeffector_positions.csv column 2 (" in note and "are the units the same?" in note
    assert "actions.csv column 2" not in note and "positions.csv column 1" not in note
    begun(small_config, trained)
    assert "note" not in capsys.readouterr().out


def test_what_does_not_fit_is_named(small_config, trained, capsys):
    found, expected = begun(small_config, trained, z_dim=5, prior="fixed"), weights(trained, "best")
    assert found.keys() < expected.keys()
    told = "new: predictor.core.embed.weight (latent), posterior.output.weight, posterior.output.bias\n"
    assert told in capsys.readouterr().out


def test_flags_of_the_model_are_as_there_and_a_resumed_run_stays_its_own(
    data_root, trained, tmp_path, capsys
):
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


def tuning(config, trained: Path, **values):
    """Return the configuration of a training that begins from `trained`."""
    return changed(config, init_from=str(trained), **{"log_dir": f"{trained}-2"} | values)


def test_the_start_is_scored_and_is_the_best_until_an_epoch_beats_it(
    small_config, trained, monkeypatch, capsys
):
    """Epoch 0 has the origin's scores; epochs that are 2 and 1 dB worse follow, and a verdict at the end."""
    capsys.readouterr()
    training = Training(tuning(small_config, trained))
    score = training.score

    def worse() -> dict[str, float]:
        loss = {0: 0.0, 3: 2.0, 6: 1.0}[training.progress.step]
        return score() if loss == 0 else dict.fromkeys(names, first - loss)

    own = read_metrics(trained)[-1]
    names, first = [name for name in own if name.startswith("val_")], own["val_pred_psnr"]
    monkeypatch.setattr(training, "score", worse)
    run = training.fit()
    start, *lines = read_metrics(run)
    assert start == {"epoch": 0, "step": 0} | {name: own[name] for name in names} and len(names) == 4
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 3), (2, 6)]
    printed = capsys.readouterr().out.splitlines()
    expected = rf"epoch   0 step      0 .* min  rec {start['val_rec_psnr']:.2f} pred {first:.2f} \*"
    epochs = [line for line in printed if line.startswith("epoch")]
    assert (
        re.fullmatch(expected, epochs[0])
        and len(epochs) == 3
        and not any(line.endswith("*") for line in epochs[1:])
    )
    best = checkpoint.find(run, "best")
    assert best.step == 0 and best.progress.best_psnr == first
    assert_same(weights(run, "best"), weights(trained, "best"))
    verdict = f"the best epoch, 2, has pred {first - 1:.2f} dB, the start {first:.2f} dB"
    assert f"did not improve on the start: {verdict}" in printed[-1]
    assert "stays the best checkpoint; try a lower --lr (found 0.002)" in printed[-1]


@pytest.mark.slow
def test_a_training_that_improves_says_nothing_of_its_start(small_config, trained, capsys):
    run = Training(tuning(small_config, trained, feedback="feature", tfr=0.0, epoch_size=20)).fit()
    start, *lines = read_metrics(run)
    assert max(line["val_pred_psnr"] for line in lines) > start["val_pred_psnr"]
    assert checkpoint.find(run, "best").step > 0 and "did not improve" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_killed_after_its_start_goes_on_without_the_origin(
    small_config, trained, tmp_path, monkeypatch
):
    """Byte for byte as one that was never killed, wherever the scoring of the start was cut off."""
    whole = Training(tuning(small_config, trained, log_dir=str(tmp_path / "whole"))).fit()
    config = tuning(small_config, trained, log_dir=str(tmp_path / "parts"))

    class Killed(Exception):
        pass

    def kill(*args):
        raise Killed

    for moment, module in (
        ("append_epoch", metrics_log),
        ("save_best", checkpoint),
        ("save_last", checkpoint),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, moment, kill)
            with pytest.raises(Killed):
                Training(config, resume=True).fit()
    training = Training(config, resume=True)
    monkeypatch.setattr(training, "_train_epoch", kill)
    with pytest.raises(Killed):
        training.fit()
    assert checkpoint.find(training.run, "last").step == checkpoint.find(training.run, "best").step == 0
    trained.rename(tmp_path / "moved")
    assert_same_run(Training(config, resume=True).fit(), whole)


def test_stopped_while_the_start_is_scored(small_config, trained, tmp_path):
    whole = Training(tuning(small_config, trained, log_dir=str(tmp_path / "whole"))).fit()
    config = tuning(small_config, trained, log_dir=str(tmp_path / "parts"))
    training = Training(config)
    interrupt_scoring(training)
    with pytest.raises(
        Stopped, match=r"SIGTERM: stopped before the first step; `svg-train .* --resume` begins again"
    ):
        training.fit()
    assert_same_run(Training(config, resume=True).fit(), whole)


@pytest.mark.slow
def test_a_run_of_its_start_alone_is_drawn_and_reported(
    small_config, trained, data_root, tmp_path, monkeypatch
):
    training = Training(tuning(small_config, trained))
    monkeypatch.setattr(training, "_train_epoch", lambda batches: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped):
        training.fit()
    assert [line["epoch"] for line in read_metrics(training.run)] == [0]
    assert (
        plot.main([str(training.run), str(trained), "--out", str(tmp_path)]) == 0
        and (tmp_path / "training.png").exists()
    )
    assert report.main([str(training.run), "--n_sample", "1"]) == 0
    assert "<svg" in (training.run / "report_test_n1.html").read_text()


def test_without_a_validation_split_there_is_no_start_to_score(small_config, data_root, trained, tmp_path):
    shutil.copytree(data_root / "train", tmp_path / "data" / "train")
    index.build_index(tmp_path / "data")
    run = Training(tuning(small_config, trained, data_root=str(tmp_path / "data"))).fit()
    assert [line["epoch"] for line in read_metrics(run)] == [1, 2] and checkpoint.find(run, "best").step == 6


@pytest.mark.slow
def test_fine_tuning_a_released_model_begins_at_its_score_and_stays_there(tmp_path, monkeypatch):
    """Whole commands: six steps on new sequences of the same simulator lose at most 0.3 dB."""
    pytest.importorskip("mujoco")
    from data_tools.simulators.push import simulate

    monkeypatch.chdir(tmp_path)
    simulate(tmp_path / "data", sequences=16, seed=7, splits=(0.75, 0.25, 0), frames=6, workers=1)
    index.build_index(tmp_path / "data")
    recipe = Path(train.__file__).parent / "recipes" / "fine_tune.args"
    flags = "--init_from push-sim --data_root data --log_dir tuned --device cpu --n_future 4 --n_eval 6"
    flags += " --niter 2 --epoch_size 3"
    assert train.main([f"@{recipe}", *flags.split()]) == 0
    start, *epochs = read_metrics(tmp_path / "tuned")
    assert min(line["val_pred_psnr"] for line in epochs) > start["val_pred_psnr"] - 0.3
    flags = [
        "--pretrained",
        "push-sim",
        "--data_root",
        "data",
        "--split",
        "validate",
        "--n_future",
        "4",
        "--n_sample",
        "0",
    ]
    assert evaluate.main([*flags, "--device", "cpu"]) == 0
    (result,) = (tmp_path / "push-sim" / "evaluation").glob("validate*.json")
    scores = json.loads(result.read_text())["methods"]
    for method in ("rec", "pred"):
        assert start[f"val_{method}_psnr"] == pytest.approx(scores[method]["psnr"]["mean"], abs=1e-4)


def test_weights_alone_are_nothing_to_resume_from(small_config, trained):
    """As in a released model: its best weights would be lost to a training that begins anew."""
    for path in (trained / "checkpoints").glob("step-*"):
        path.unlink()
    config = changed(small_config, epoch_size=2)
    with pytest.raises(
        InputError,
        match=r"--resume: .*run has its best weights, of step 3, but nothing to go on from; .*--init_from",
    ):
        Training(config, resume=True)
    Training(changed(config, epoch_size=3), resume=True)  # killed at the end of its first epoch
    with pytest.raises(InputError, match=r"--log_dir: .*run holds a run already"):
        Training(config)


def test_what_shares_nothing_is_refused(small_config, trained):
    config = changed(
        small_config,
        init_from=str(trained),
        log_dir=f"{trained}-2",
        width=0.2,
        g_dim=12,
        z_dim=5,
        rnn_size=12,
    )
    with pytest.raises(InputError, match=r"--init_from: .*run: found next to no weights that fit this model"):
        Training(config)


def test_a_run_in_the_place_of_a_released_model_is_left_alone(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "push-sim")
    assert evaluate.main(["--pretrained", "push-sim"]) == 2
    assert (
        "push-sim: found a run with other weights than the model push-sim; move it away"
        in capsys.readouterr().err
    )
