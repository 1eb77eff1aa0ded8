"""Trainings that are stopped, run out of memory or disk, or read damaged files: one line says what to do."""

import errno
import hashlib
import json
import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from data_tools.errors import InputError
from svg.runs import checkpoint
from svg.runs.checkpoint import load_model
from svg.runs.metrics_log import read_metrics
from svg.training import faults, losses
from svg.training.loop import Training
from svg.training.optimizers import state_tensors
from svg.training.signals import Stopped
from tests.support.places import ROOT
from tests.support.runs import assert_same, assert_same_run, changed, interrupt_scoring, make_config, weights
from tests.training.test_distributed import arguments


def at_step(training: Training, number: int, act) -> Training:
    """Let `act` happen in the step."""
    step = training.learner.step

    def with_act(given, *rest):
        if given == number:
            act()
        return step(given, *rest)

    training.learner.step = with_act
    return training


def flip(path: Path, place: int = 500) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


# --------------------------------------------------------------------------------------------------- stopping


@pytest.fixture(scope="module")
def whole(data_root, tmp_path_factory):
    """Return (configuration, run that never stopped): two epochs of three steps, some free running."""
    config = make_config(data_root, tmp_path_factory.mktemp("whole"), norm="batch", tfr=0.5)
    return config, Training(config).fit()


@pytest.mark.parametrize("asking", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", range(6))
def test_stopped_at_any_step_it_ends_as_if_it_never_had(whole, tmp_path, step, asking, capfd):
    handler = signal.getsignal(signal.SIGINT)
    config = changed(whole[0], log_dir=str(tmp_path / "run"))
    with pytest.raises(
        Stopped, match=rf"{asking.name}: stopped after step {step + 1}, all is saved; `svg-train .* --resume`"
    ) as stop:
        at_step(Training(config), step, lambda: os.kill(os.getpid(), asking)).fit()
    assert stop.value.exit_code == 128 + asking
    assert f"{asking.name}: finishing the current step" in capfd.readouterr().err
    assert checkpoint.find(tmp_path / "run", "last").step == step + 1
    assert_same_run(Training(config, resume=True).fit(), whole[1])
    assert signal.getsignal(signal.SIGINT) is handler


def test_stopped_while_it_scores(whole, tmp_path):
    """The epoch's steps are saved, and the scores are taken when it is resumed."""
    config = changed(whole[0], log_dir=str(tmp_path / "run"))
    training = Training(config)
    interrupt_scoring(training)
    with pytest.raises(Stopped, match="after step 3"):
        training.fit()
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert_same_run(Training(config, resume=True).fit(), whole[1])


def test_saved_within_an_epoch(whole, tmp_path):
    """Killed at any step, a run that saves after each goes on from the step before."""
    config = changed(whole[0], log_dir=str(tmp_path / "run"), save_minutes=1e-9, keep_checkpoints=1)

    class Killed(Exception):
        pass

    def kill():
        raise Killed

    for step in (2, 4):
        with pytest.raises(Killed):
            at_step(Training(config, resume=True), step, kill).fit()
        assert checkpoint.find(tmp_path / "run", "last").step == step
        assert len(list((tmp_path / "run" / "checkpoints").glob("step-*.json"))) == 1
    assert_same_run(Training(config, resume=True).fit(), whole[1])


BUSY = """
import hashlib, sys
from svg.training.signals import StopRequest
with StopRequest().listening():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes within one operation
"""


def test_a_second_interrupt_leaves_at_once():
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline().startswith(
        "SIGINT: finishing the current step, then saving; press Ctrl-C again to exit at once"
    )
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130


@pytest.mark.slow
def test_the_command_line(whole, tmp_path):
    """SIGTERM and a code of its own; with --resume a run begins where there is none."""
    config, run = changed(whole[0], niter=10**6), tmp_path / "run"
    words = [sys.executable, "-m", "experiments.train", *arguments(config, run, resume=True, workers=2)]
    process = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert any(line.startswith("epoch   1") for line in process.stdout)
    os.killpg(process.pid, signal.SIGTERM)  # the readers, too, as a terminal would
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 143, errors
    last = errors.strip().splitlines()[-1]
    assert last.startswith("svg-train: SIGTERM: stopped after step ") and last.endswith(
        f"`svg-train --log_dir {run} --resume` goes on from there"
    )
    step = checkpoint.find(run, "last").step
    assert f"after step {step}," in last
    done = subprocess.run(
        [sys.executable, "-m", "experiments.train", "--log_dir", str(run), "--resume", "--niter", "1"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and f"nothing left to do after {step} steps" in done.stdout
    assert checkpoint.load_config(run).train.niter == 10**6  # as it was trained


# ---------------------------------------------------------------------------------------- damaged checkpoints


@pytest.mark.slow
def test_the_checkpoint_before_a_damaged_one(whole, tmp_path, capsys):
    config, run = changed(whole[0], log_dir=str(tmp_path / "run")), tmp_path / "run"
    Training(config).fit()
    for part in ("weights", "optimizer", "json"):
        last = checkpoint.find(run, "last")
        damaged = last.files.get(part, last.path)
        flip(damaged, 30)
        again = Training(config, resume=True)
        assert again.progress.step == 3
        assert f"{damaged.name}: damaged (its checksum does not match" in capsys.readouterr().err
        if part == "weights":
            model, _ = load_model(run, "last")
            assert f"{damaged.name}: damaged" in capsys.readouterr().err
            assert_same(model.state_dict(), weights(again.run))
        assert_same_run(again.fit(), whole[1])
    checkpoint.find(run, "last").files["weights"].unlink()
    assert Training(config, resume=True).progress.step == 3
    for path in (run / "checkpoints").glob("*.json"):
        path.write_text("{}")
    with pytest.raises(InputError, match=r"step-00000006\.json: damaged .*; restore it"):
        Training(config, resume=True)
    with pytest.raises(
        InputError, match=r"best\.json: damaged .*; restore it; the checkpoint last may be whole"
    ):
        load_model(run)


def test_what_is_not_the_runs_own_stays(small_config):
    """Copies that a user has put beside the checkpoints, whatever they are called."""
    config = changed(small_config, niter=1)
    run = Training(config).fit()
    mine = [
        run / "checkpoints" / name
        for name in ("step-keep.json", "best-copy.safetensors", "step-00000600.backup", "best-old/x")
    ]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    Training(changed(config, niter=4, keep_checkpoints=1), resume=True).fit()
    assert all(path.read_text() == "mine" for path in mine)
    steps = [path.name for path in (run / "checkpoints").glob("step-0*") if path not in mine]
    assert len(steps) == 3 and all(name.startswith("step-00000012") for name in steps)


def test_the_best_of_a_later_step_is_the_score_to_beat(whole, tmp_path):
    """A run that goes on from before its best one does not put a worse one in its place."""
    config, run = changed(whole[0], log_dir=str(tmp_path / "run")), tmp_path / "run"
    Training(config).fit()
    best = checkpoint.find(run, "best")
    checkpoint.find(run, "last").path.write_text("{}")
    again = Training(changed(config, lr=1e-9), resume=True, take_over=True)
    assert again.progress.best_psnr == best.progress.best_psnr
    again.fit()
    found = checkpoint.find(run, "best")
    assert found.step == 3 or found.progress.best_psnr >= best.progress.best_psnr


class Payload:
    """What a pickle does that means harm: it would leave a file."""

    def __init__(self, witness: Path):
        self.witness = witness

    def __reduce__(self):
        return os.system, (f"touch {self.witness}",)


@pytest.mark.parametrize("place", ["weights", "optimizer", "1"])
@pytest.mark.parametrize("how", ["pickle", "torch", "torch_without_zip", "zip"])
def test_a_pickle_in_a_checkpoint_is_not_run(small_config, tmp_path, place, how):
    """Wherever it stands, and with checksums that match, as a stranger's would."""
    run, witness = Training(changed(small_config, niter=1)).fit(), tmp_path / "witness"
    folder = run / "checkpoints"
    path = checkpoint.find(run, "last").files["optimizer" if place == "1" else place]
    if how == "pickle":
        path.write_bytes(pickle.dumps(Payload(witness)))
    elif how == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Payload(witness)))
            archive.writestr("archive/data/0", bytes(10**7))
    else:
        torch.save(
            {"state": Payload(witness), "param_groups": []},
            path,
            _use_new_zipfile_serialization=how == "torch",
        )
    values = json.loads((folder / "step-00000003.json").read_text())
    if place == "1":  # as an earlier release wrote it
        progress = {name: values["progress"][name] for name in ("step", "minutes", "best_psnr")}
        values = {"schema_version": 1, "files": values["files"], **progress}
    else:
        del values["checksum"]
        values["sha256"] = {
            part: hashlib.sha256((folder / name).read_bytes()).hexdigest()
            for part, name in values["files"].items()
        }
        values["checksum"] = checkpoint.checksum(values)
    (folder / "step-00000003.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=rf"{path.name}: damaged"):
        Training(small_config, resume=True)
    if place == "weights":
        with pytest.raises(InputError, match=rf"{path.name}: damaged"):
            load_model(run, "last")
    assert not witness.exists()
    if how == "pickle":  # it does act where it is believed
        pickle.loads(path.read_bytes())
        assert witness.exists()


def test_names_of_files_stay_in_their_folder(small_config, tmp_path):
    run = Training(changed(small_config, niter=1)).fit()
    path = run / "checkpoints" / "best.json"
    values = json.loads(path.read_text())
    (run / "checkpoints" / values["files"]["weights"]).rename(tmp_path / "elsewhere.safetensors")
    del values["checksum"]
    values["files"]["weights"] = "../../elsewhere.safetensors"
    path.write_text(json.dumps(values | {"checksum": checkpoint.checksum(values)}))
    with pytest.raises(
        InputError, match=r"checkpoints/elsewhere\.safetensors: cannot be read, though best\.json names it"
    ):
        load_model(run)


def test_sizes_in_a_configuration_are_not_believed(small_config):
    """A model of a terabyte is refused before memory is taken for it."""
    run = Training(changed(small_config, niter=1)).fit()
    values = json.loads((run / "config.json").read_text())
    values["model"]["rnn_size"] = 65_536
    (run / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"of another model: found .*16.* expected .*65536"):
        load_model(run)


# ---------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop", "sgd", "muon"])
@pytest.mark.parametrize("of", ["loss", "gradients"])
def test_a_step_that_is_not_finite_is_skipped(small_config, monkeypatch, optimizer, of):
    """Weights, statistics of batch norm and the optimiser's state stay; the next step is as usual."""
    training = Training(changed(small_config, optimizer=optimizer, norm="batch", niter=1, epoch_size=4))
    learner, kept = training.learner, {}
    parameter = learner.model.posterior.output.weight

    def state() -> dict[str, torch.Tensor]:
        tensors = {name: value.clone() for name, value in learner.model.state_dict().items()}
        return tensors | state_tensors(learner.model, learner.optimizer)

    true_error, step, calls = losses.mean_squared_error, learner.step, []
    handles = []

    def spoiled(number, *rest):
        if number == 2:
            kept["before"] = state()
            if of == "loss":
                monkeypatch.setattr(
                    losses, "mean_squared_error", lambda *frames: true_error(*frames) * float("nan")
                )
            else:
                handles.append(parameter.register_hook(lambda gradient: gradient * float("inf")))
        report = step(number, *rest)
        calls.append(report)
        report.read()
        if number == 2:
            kept["after"] = state()
            monkeypatch.setattr(losses, "mean_squared_error", true_error)
            for handle in handles:
                handle.remove()
        return report

    learner.step = spoiled
    (line,) = read_metrics(training.fit())
    assert_same(kept["after"], kept["before"])
    assert [report.is_skipped for report in calls] == [False, False, True, False]
    assert line["skipped"] == 1 and line["loss"] == pytest.approx(
        np.mean([calls[number].losses["loss"] for number in (0, 1, 3)])
    )
    assert not all(
        torch.equal(value, kept["after"][name]) for name, value in learner.model.state_dict().items()
    )


def test_many_in_a_row_end_the_run_and_leave_what_led_to_it(small_config, capsys):
    run = Training(changed(small_config, niter=1)).fit()
    training = Training(changed(small_config, niter=5, max_skipped=3), resume=True, take_over=True)
    with torch.no_grad():
        training.learner.model.posterior.output.bias.fill_(float("nan"))
    with pytest.raises(
        InputError,
        match=r"3 steps in a row were skipped up to step 5 \(loss nan.*lower --lr .*fault; .* keeps its last",
    ):
        training.fit()
    assert all(value.isfinite().all() for value in weights(run).values())
    lines = [json.loads(line) for line in (run / faults.FOLDER / "skipped.jsonl").read_text().splitlines()]
    assert [(line["step"], line["kl"]) for line in lines] == [(3, "nan"), (4, "nan"), (5, "nan")]
    assert lines[0]["clips"] == [[f"train/{path.split('/')[1]}", start] for path, start in lines[0]["clips"]]
    found = checkpoint.read_tensors(run / faults.FOLDER / "weights.safetensors")
    assert found["posterior.output.bias"].isnan().all()


def test_the_likely_cure():
    from svg.config import TrainConfig

    nan = float("nan")
    losses = {"loss": 1.0, "mse": 1.0, "kl": 1.0, "grad_norm": nan}
    assert (
        faults.likely_cure(TrainConfig(lr=0.1), losses) == "set --max_grad_norm 1 or lower --lr (found 0.1)"
    )
    assert faults.likely_cure(TrainConfig(lr=0.1, max_grad_norm=1), losses) == "lower --lr (found 0.1)"
    assert faults.likely_cure(TrainConfig(), losses | {"loss": nan, "kl": nan}).startswith(
        "use --kl_anneal monotonic or lower --lr"
    )
    assert faults.likely_cure(TrainConfig(), losses | {"loss": nan, "mse": nan}).endswith(
        "or set --max_grad_norm 1"
    )


# -------------------------------------------------------------------------------------------- means that fail


@pytest.mark.parametrize("fault", ["memory", "numbers", "disk", "ours"])
def test_faults_while_others_read(small_config, monkeypatch, fault):
    """Processes that read ahead keep no fault from being told: they are ended with the epoch."""
    training = Training(changed(small_config, workers=2, niter=9, max_skipped=1, save_minutes=1e-9))

    def fail(*_: object) -> None:
        raise {
            "memory": torch.OutOfMemoryError("CUDA out of memory"),
            "disk": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x"),
        }.get(fault, RuntimeError("a mistake"))

    if fault == "numbers":
        nan = lambda *frames: (frames[0] * float("nan")).mean()  # noqa: E731
        at_step(training, 1, lambda: monkeypatch.setattr(losses, "mean_squared_error", nan))
    elif fault == "disk":
        monkeypatch.setattr(training.learner, "save", fail)
    else:
        at_step(training, 1, fail)
    expected = {
        "memory": "out of memory on the GPU",
        "numbers": "1 steps in a row were skipped",
        "disk": "No space left on device; make room",
    }
    with pytest.raises(
        InputError if fault in expected else RuntimeError, match=expected.get(fault, "a mistake")
    ):
        training.fit()
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_reader_that_is_killed(small_config):
    run = Training(changed(small_config, niter=1)).fit()
    training = Training(changed(small_config, workers=2, epoch_size=3, niter=100), resume=True)
    at_step(
        training,
        4,
        lambda: [os.kill(child.pid, signal.SIGKILL) for child in multiprocessing.active_children()],
    )
    began = time.monotonic()
    with pytest.raises(
        InputError,
        match=r"a process that reads data ended, with -9 \(Killed\).*lower --workers.* keeps its last check",
    ):
        training.fit()
    step = checkpoint.find(run, "last").step  # of what was read before there are some steps more
    assert time.monotonic() - began < 60 and 3 <= step < 30 and step % 3 == 0


def test_out_of_memory(small_config):
    def full():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.raises(
        InputError, match=r"out of memory on the GPU in training; lower --batch_size \(and raise --accumulate"
    ):
        at_step(Training(small_config), 1, full).fit()


@pytest.mark.slow
def test_no_room_for_a_checkpoint(small_config):
    """The one before stays, and there is nothing half-written."""
    run = Training(changed(small_config, niter=1)).fit()
    before = weights(run)
    size = checkpoint.find(run, "last").files["optimizer"].stat().st_size
    done = subprocess.run(
        [sys.executable, "-m", "experiments.train", "--log_dir", str(run), "--resume", "--niter", "2"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": f"{torch.get_num_threads()}"},
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr, done.stderr
    assert f"svg-train: {run}/checkpoints/step-00000006" in done.stderr
    assert "File too large; make room" in done.stderr and "keeps its last checkpoint" in done.stderr
    assert checkpoint.find(run, "last").step == 3
    assert_same(weights(run), before)
    assert not [path for path in (run / "checkpoints").iterdir() if path.name.startswith(".")]


def test_two_trainings_do_not_share_a_folder(small_config, monkeypatch):
    from data_tools import lock

    monkeypatch.setattr(lock, "PATIENCE", 0.1)
    first, second = Training(small_config), Training(small_config)

    def both() -> None:
        with pytest.raises(InputError, match="another process is writing there"):
            second.fit()

    at_step(first, 1, both).fit()
    with pytest.raises(InputError, match="another process has trained there since"):
        second.fit()
