"""The loop: it learns, is a function of its seed, resumes, and says what is wrong."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from data_tools.errors import InputError
from svg import runtime
from svg.config import Config, TrainConfig
from svg.evaluation.metrics import psnr
from svg.models.layers import learn_faster
from svg.runs import checkpoint, metrics_log
from svg.runs.checkpoint import load_model
from svg.runs.metrics_log import read_metrics
from svg.sequences import SequenceDataset
from svg.training import clock as clock_module
from svg.training.loop import Training
from svg.training.losses import mean_squared_error
from svg.training.optimizers import Muon, make_optimizer, orthogonalise, set_learning_rate
from tests.support.runs import assert_same, assert_same_run, changed, weights
from tests.support.samples import small_model


@pytest.mark.slow
def test_it_learns(small_config):
    config = changed(
        small_config, epoch_size=60, niter=1, feedback="feature", blend=True, tfr=0.0, max_grad_norm=1.0
    )
    run = Training(config).fit()
    model, config = load_model(run)
    dataset = SequenceDataset(config.data.data_root, "validate", 6)
    batch = dataset.batch([(number, 0) for number in range(5)])
    frames = batch["frames"].float() / 255
    with torch.no_grad():
        rec = model.reconstruct(frames, batch["conditions"], 2)[:, 1:]
        zeros = torch.zeros(5, 1, 4, *model.latent_shape)
        pred = model.imagine(
            model.observe(frames[:, :2], batch["conditions"]), batch["conditions"][:, 1:], zeros
        )[0]
    error, of_copying = (mean_squared_error(video, frames[:, 2:]) for video in (pred, frames[:, 1:2]))
    (metrics,) = read_metrics(run)
    assert metrics["val_rec_psnr"] == pytest.approx(psnr(rec, frames[:, 2:]).mean().item(), abs=1e-3)
    assert metrics["val_pred_psnr"] == pytest.approx(psnr(pred, frames[:, 2:]).mean().item(), abs=1e-3)
    assert error < 0.7 * of_copying


def test_a_run_folder(small_config):
    run = Training(changed(small_config, kl_anneal="monotonic", tfr=1.0, tfr_decay_step=0.5)).fit()
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints",
        "config.json",
        "data.json",
        "metrics.jsonl",
        "timing.jsonl",
    ]
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    best = json.loads((run / "checkpoints" / "best.json").read_text())
    steps = [json.loads((run / "checkpoints" / f"step-{step:08d}.json").read_text()) for step in (3, 6)]
    files = [name for values in steps for name in values["files"].values()]
    assert names == sorted(
        ["best.json", best["files"]["weights"], "step-00000003.json", "step-00000006.json", *files]
    )
    assert all(
        re.fullmatch(r"step-0000000[36]-[0-9a-f]{8}(\.optimizer)?\.safetensors", name) for name in files
    )
    lines = read_metrics(run)
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 3), (2, 6)]
    assert [line["tfr"] for line in lines] == [1.0, 0.5]
    assert [line["beta"] for line in lines] == [
        0.0,
        1e-4,
    ]  # one ramp over the first half: epoch 0 and epoch 1
    assert best["progress"]["best_psnr"] == max(line["val_pred_psnr"] for line in lines)
    for line in lines:
        assert line["loss"] == pytest.approx(line["mse"] + line["beta"] * line["kl"], rel=1e-5)
        assert (line["skipped"], line["grad_norm"] > 0) == (0, True)
    times = [json.loads(line) for line in (run / "timing.jsonl").read_text().splitlines()]
    assert [line["step"] for line in times] == [3, 6] and all(line["frames_per_second"] > 0 for line in times)
    model, config = load_model(run, "last")
    assert not model.training and config == checkpoint.load_config(run)
    assert (config.model.channels, config.model.condition_dim) == (3, 4)
    info = SequenceDataset(config.data.data_root, "train", 6).info
    np.testing.assert_allclose(model.condition_mean, info.mean, rtol=1e-6)


def test_new_data_are_indexed_and_no_data_refused(small_config, data_root, tmp_path, capsys):
    """As by svg-train."""
    without = shutil.ignore_patterns("index.csv", "dataset.json")
    root = shutil.copytree(data_root, tmp_path / "data", ignore=without)
    Training(changed(small_config, data_root=str(root)))
    assert f"{root}: has no index yet; " in capsys.readouterr().out
    assert (root / "index.csv").read_bytes() == (data_root / "index.csv").read_bytes()
    with pytest.raises(InputError, match=r"^data_root: not given; expected the root of a data set"):
        Training(changed(small_config, data_root=""))


@pytest.mark.slow
def test_seed_decides_everything(small_config, tmp_path):
    one = Training(changed(small_config, log_dir=str(tmp_path / "one"))).fit()
    again = Training(changed(small_config, log_dir=str(tmp_path / "again"))).fit()
    other = Training(changed(small_config, log_dir=str(tmp_path / "other"), seed=2)).fit()
    assert_same(weights(one), weights(again))
    assert not torch.equal(
        weights(one)["encoder.levels.0.0.0.weight"], weights(other)["encoder.levels.0.0.0.weight"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop", "sgd", "muon"])
def test_resuming_equals_never_stopping(small_config, tmp_path, optimizer):
    small_config = changed(small_config, optimizer=optimizer, tfr=1.0, tfr_decay_step=0.3, niter=3)
    whole = Training(changed(small_config, log_dir=str(tmp_path / "whole"))).fit()
    config = changed(small_config, log_dir=str(tmp_path / "parts"))
    run = Training(changed(config, niter=1)).fit()
    with open(
        run / "metrics.jsonl", "a"
    ) as file:  # killed after the next epoch was logged, and while one was
        file.write('{"epoch": 2, "step": 6, "loss": 123.0}\n{"epoch": 3, "st')
    resumed = Training(config, resume=True).fit()
    assert_same_run(resumed, whole)


@pytest.mark.slow
def test_an_epoch_cut_by_time_goes_on_where_it_was(small_config, tmp_path, monkeypatch, capsys):
    small_config = changed(small_config, epoch_size=4, tfr=1.0, tfr_decay_step=1.0, lr_schedule="cosine")
    whole = Training(changed(small_config, log_dir=str(tmp_path / "whole"))).fit()
    config = changed(small_config, log_dir=str(tmp_path / "parts"))
    for stop in (2, 6):
        training = Training(config, resume=stop > 2)
        monkeypatch.setattr(
            training.clock,
            "is_time_over",
            lambda training=training, stop=stop: training.progress.step >= stop,
        )
        training.fit()
    resumed = Training(config, resume=True).fit()
    assert_same(weights(resumed), weights(whole))
    assert [(line["epoch"], line["step"], line["tfr"]) for line in read_metrics(resumed)] == [
        (1, 2, 1.0), (1, 4, 1.0), (2, 6, 0.0), (2, 8, 0.0),
    ]  # fmt: skip
    Training(config, resume=True).fit()
    assert "nothing left to do after 8 steps" in capsys.readouterr().out
    other = changed(config, epoch_size=1, niter=10)  # other lengths are taken from where it stands
    Training(other, resume=True, take_over=True).fit()
    assert read_metrics(resumed)[-1]["step"] == 10


def test_time_that_scoring_takes_counts(small_config, monkeypatch):
    """Ten minutes; an epoch of three steps takes nine, scoring two more: there is no second epoch."""
    clock = [0.0]
    monkeypatch.setattr(clock_module.time, "monotonic", lambda: clock[0])
    training = Training(changed(small_config, max_minutes=10.0))

    def slower(work, minutes):
        def slow(*args):
            clock[0] += 60 * minutes
            return work(*args)

        return slow

    monkeypatch.setattr(training.learner, "step", slower(training.learner.step, 3))
    monkeypatch.setattr(training, "score", slower(training.score, 2))
    run = training.fit()
    assert json.loads((run / "timing.jsonl").read_text()) == {
        "epoch": 1,
        "step": 3,
        "minutes": 11.0,
        "frames_per_second": 0.1,
    }


@pytest.mark.slow
def test_killed_before_or_between_checkpoints(small_config, tmp_path, monkeypatch):
    whole = Training(changed(small_config, log_dir=str(tmp_path / "whole"))).fit()
    config = changed(small_config, log_dir=str(tmp_path / "parts"))

    class Killed(Exception):
        pass

    def kill(*args):
        raise Killed

    for moment in ("append_epoch", "save_best", "save_last"):
        with monkeypatch.context() as patch:
            patch.setattr(metrics_log if moment == "append_epoch" else checkpoint, moment, kill)
            with pytest.raises(Killed):
                Training(config, resume=True).fit()
    resumed = Training(config, resume=True).fit()
    assert_same_run(resumed, whole)


def test_flags_given_anew_on_resume_count(small_config, capsys):
    run = Training(changed(small_config, optimizer="adamw", niter=1)).fit()
    changes = {"optimizer": "adamw", "weight_decay": 0.5, "beta1": 0.6}
    difference = f"--beta1: found 0.6, expected 0.9, with which {run} was begun"
    expected = f"{difference}: .* add --take_over to go on all the same"
    with pytest.raises(InputError, match=expected):
        Training(changed(small_config, **changes), resume=True)
    training = Training(changed(small_config, **changes), resume=True, take_over=True)
    told = capsys.readouterr().out
    assert "--weight_decay: 0.0 up to step 3, 0.5 from there on" in told and "--beta1: 0.9 up to" in told
    (group,) = training.learner.optimizer.param_groups
    assert group["weight_decay"] == 0.5 and group["betas"] == (0.6, 0.999)
    with pytest.raises(
        InputError, match=f"--optimizer: found sgd, expected adamw, with which {run} was begun"
    ):
        Training(changed(small_config, optimizer="sgd"), resume=True)


def test_bfloat16_stays_close_to_float32():
    for recurrence, backbone in (("vector", "vgg"), ("spatial", "dcgan")):
        model = small_model(recurrence=recurrence, model=backbone)
        frames, conditions = torch.rand(2, 6, 3, 64, 64), torch.randn(2, 6, 4)
        with torch.no_grad():
            full = model.reconstruct(frames, conditions, 2)
            with runtime.autocast(torch.device("cpu"), "bfloat16"):
                half = model.reconstruct(frames, conditions, 2)
        assert half.dtype == torch.float32 and 1e-6 < (full - half).abs().max() < 0.08


def test_planning_by_gradient(small_config):
    """Two steps on the same observation: nothing but the actions takes gradients."""
    run = Training(changed(small_config, niter=1)).fit()
    model, _ = load_model(run)
    dataset = SequenceDataset(small_config.data.data_root, "test", 6)
    batch = dataset.batch([(0, 0)])
    start = model.observe(batch["frames"][:, :2], batch["conditions"])
    actions = batch["conditions"][:, 1:].clone().requires_grad_()
    optimizer = torch.optim.Adam([actions], lr=1.0)
    losses = []
    for _ in range(3):
        loss = model.imagine(start, actions, torch.zeros(1, 1, 4, *model.latent_shape)).double().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_accumulated_batches_equal_a_large_one(small_config, tmp_path):
    """Without sampling noise (KL weight 0, posterior of no variance) four batches of 1 are one batch of 4."""
    runs = []
    for name, batch_size, accumulate in (("large", 4, 1), ("small", 1, 4)):
        config = changed(
            small_config,
            log_dir=str(tmp_path / name),
            batch_size=batch_size,
            accumulate=accumulate,
            niter=1,
            epoch_size=1,
            optimizer="sgd",
            beta1=0.0,
            lr=0.1,
        )
        training = Training(config)
        with torch.no_grad():
            training.learner.model.posterior.output.weight[3:] = 0  # log variance
            training.learner.model.posterior.output.bias[3:] = -60
        training.config = training.learner.config = changed(training.config, beta=0.0)
        runs.append(training.fit())
    large, small = (weights(run) for run in runs)
    for key in large:
        torch.testing.assert_close(large[key], small[key], atol=1e-6, rtol=1e-4)


def test_gradient_norm_is_clipped(small_config):
    config = changed(
        small_config, optimizer="sgd", beta1=0.0, lr=1.0, max_grad_norm=1e-3, niter=1, epoch_size=1
    )
    training = Training(config)
    before = [parameter.detach().clone() for parameter in training.learner.model.parameters()]
    training.fit()
    moved = (
        sum(((a - b) ** 2).sum() for a, b in zip(before, training.learner.model.parameters(), strict=True))
        ** 0.5
    )
    assert moved.item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.slow
def test_time_limit_ends_the_run_and_its_schedule(small_config):
    config = changed(small_config, max_minutes=0.15, niter=10**6, epoch_size=10**6, lr_schedule="linear")
    training = Training(config)
    run = training.fit()
    (line,) = read_metrics(run)
    assert 0.15 <= json.loads((run / "timing.jsonl").read_text())["minutes"] < 1
    assert line["lr"] < 0.2 * config.train.lr
    assert checkpoint.exists(run, "best") and checkpoint.exists(run, "last")


def test_optimizers():
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    kinds = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "rmsprop": torch.optim.RMSprop,
        "sgd": torch.optim.SGD,
    }
    for name, kind in kinds.items():
        config = dataclasses.replace(Config().train, optimizer=name, weight_decay=0.1, beta1=0.7)
        optimizer = make_optimizer(config, parameters)
        assert type(optimizer) is kind and optimizer.defaults["weight_decay"] == 0.1
        assert optimizer.defaults.get("momentum", optimizer.defaults.get("betas", (0,))[0]) == 0.7


@pytest.mark.parametrize("bfloat16", [True, False])
def test_orthogonalise_keeps_singular_vectors(bfloat16, monkeypatch):
    monkeypatch.setattr("svg.training.optimizers.uses_bfloat16", lambda device, precision: bfloat16)
    generator = torch.Generator().manual_seed(0)
    for shape in ((20, 48), (48, 20)):
        u, _, v = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
        matrix = u @ torch.diag(torch.linspace(0.1, 3, 20)) @ v
        values = torch.linalg.svdvals(orthogonalise(matrix))
        assert values.min() > 0.6 and values.max() < 1.3
        product = u.T @ orthogonalise(matrix) @ v.T  # diagonal in the singular vectors of the matrix
        assert (product - torch.diag(product.diag())).abs().max() < 0.1


def test_muon_by_hand():
    """A matrix moves by the orthogonalised gradient times 20 lr, at first; a vector as by PyTorch's Adam."""
    torch.manual_seed(0)
    matrix, vector = torch.nn.Parameter(torch.randn(32, 4, 3, 3)), torch.nn.Parameter(torch.randn(32))
    start, reference = matrix.detach().clone(), torch.nn.Parameter(vector.detach().clone())
    muon = Muon([matrix, vector], lr=0.01, betas=(0.9, 0.999))
    adam = torch.optim.Adam([reference], lr=0.01, betas=(0.9, 0.999))
    for step in range(3):
        matrix.grad, vector.grad = torch.randn_like(matrix), torch.randn_like(vector)
        reference.grad = vector.grad.clone()
        muon.step(), adam.step()
        if step == 0:
            moved = (start - matrix.detach()).flatten(1) / 0.2
            torch.testing.assert_close(moved, orthogonalise(matrix.grad.flatten(1)), atol=1e-2, rtol=0)
    torch.testing.assert_close(vector, reference)


def test_muon_treats_matrices_of_one_shape_as_it_treats_each():
    torch.manual_seed(0)
    shapes = ((32, 16), (16, 32), (32, 16), (16, 2, 4, 4), (20,), (20,))
    together = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    alone = [torch.nn.Parameter(parameter.detach().clone()) for parameter in together]
    optimizers = [Muon(together, 0.01, (0.9, 0.999), 0.1)]
    optimizers += [Muon([parameter], 0.01, (0.9, 0.999), 0.1) for parameter in alone]
    for _ in range(3):
        for ours, theirs in zip(together, alone, strict=True):
            ours.grad = torch.randn_like(ours)
            theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for ours, theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=0)  # bfloat16


@pytest.mark.parametrize("name", ["muon", "adam", "sgd"])
def test_what_learns_faster_moves_so_many_times_as_far(name):
    torch.manual_seed(0)
    usual, fast = (torch.nn.Linear(20, 20) for _ in range(2))
    fast.load_state_dict(usual.state_dict())
    start = [parameter.detach().clone() for parameter in usual.parameters()]
    learn_faster(fast, 3.0)
    optimizer = make_optimizer(TrainConfig(optimizer=name), [*usual.parameters(), *fast.parameters()])
    set_learning_rate(optimizer, 1e-3)
    for ours, theirs in zip(usual.parameters(), fast.parameters(), strict=True):
        ours.grad = torch.randn_like(ours)
        theirs.grad = ours.grad.clone()
    optimizer.step()
    for before, ours, theirs in zip(start, usual.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(theirs - before, 3 * (ours - before), atol=1e-5, rtol=1e-3)


def test_muons_weight_decay_is_relative_to_the_rates_of_matrices_and_vectors():
    matrix, vector = torch.nn.Parameter(torch.ones(32, 32)), torch.nn.Parameter(torch.ones(32))
    matrix.grad, vector.grad = torch.zeros_like(matrix), torch.zeros_like(vector)
    Muon([matrix, vector], lr=0.01, betas=(0.9, 0.999), weight_decay=0.5).step()
    torch.testing.assert_close(matrix.detach(), torch.full_like(matrix, 1 - 20 * 0.01 * 0.5))
    torch.testing.assert_close(vector.detach(), torch.full_like(vector, 1 - 0.01 * 0.5))


def test_refusals(small_config, tmp_path):
    for values, expected in (
        ({"image_width": 128}, "--image_width: found 128, but the frames of .* are 64x64"),
        ({"n_future": 40}, "found 15 frames, expected at least 42"),
        ({"data_root": str(tmp_path)}, r"dataset\.json: not found"),
        ({"device": "gpu"}, "^device: found 'gpu'"),
        ({"device": "cuda:77"}, "^device: cuda:77 is not there"),
        ({"cuda_graph": True, "accumulate": 2}, "^cuda_graph: does not go with --accumulate 2"),
        ({"cuda_graph": True, "compile": True}, "^cuda_graph: does not go with --compile"),
        (
            {"cuda_graph": True, "device": "cpu"},
            "^--cuda_graph: the training runs on the cpu, expected one on",
        ),
    ):
        with pytest.raises(InputError, match=expected):
            Training(changed(small_config, **values))
    assert not Path(small_config.train.log_dir).exists()
    run = Training(changed(small_config, niter=1)).fit()
    with pytest.raises(InputError, match="holds a run already; add --resume"):
        Training(small_config)
    with pytest.raises(InputError, match=f"--g_dim: found 20, expected 16, with which {run} was begun"):
        Training(changed(small_config, g_dim=20), resume=True)
    checkpoint.find(run, "last").files["weights"].write_bytes(b"\xff" * 100)
    with pytest.raises(InputError, match=r"step-00000003-\w+\.safetensors: damaged \(its checksum"):
        Training(small_config, resume=True)
    with pytest.raises(InputError, match=r"config\.json: not found; expected a run folder"):
        load_model(tmp_path)


def test_weights_ruined_by_the_last_step_are_not_saved(small_config):
    config = changed(small_config, niter=1, epoch_size=1, optimizer="sgd", lr=1e38)
    with pytest.raises(InputError, match=r"(weights|scores) are not finite after step 0; lower --lr"):
        Training(config).fit()
    assert not checkpoint.exists(Path(config.train.log_dir), "best")
    run = Training(changed(config, lr=1e-3)).fit()  # nothing was saved: the folder is free for another try
    assert len(read_metrics(run)) == 1
