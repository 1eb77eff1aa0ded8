"""Processes that read data for a training need no shared memory, and signals lose nothing."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from svg.config import Config
from svg.runs import checkpoint
from tests.support.mounts import under
from tests.support.places import ROOT
from tests.support.runs import assert_same_run, changed, make_config
from tests.training.test_distributed import arguments, train

PATIENCE = 300  # seconds that nothing may take, however busy the machine is


@pytest.fixture(scope="module")
def whole(data_root, tmp_path_factory):
    """(configuration, run that never stopped): three epochs of three steps."""
    folder = tmp_path_factory.mktemp("whole")
    config = make_config(data_root, folder, niter=3, norm="batch", tfr=0.5)
    done = ended([sys.executable, "-m", "experiments.train", *arguments(config, folder)])
    assert done.returncode == 0, done.stderr
    return config, folder


ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}"}
ACTING = """
import multiprocessing, os, signal, sys, threading, time
from data_tools import pool
from experiments import train
from svg.training.learner import Learner

plain = Learner.step

def step(self, number, *rest):
    if number == 4:
        act(multiprocessing.active_children())
    return plain(self, number, *rest)

def act(readers):
    {act}

def suspend(readers):
    for reader in readers:
        os.kill(reader.pid, signal.SIGSTOP)

if __name__ == "__main__":
    Learner.step = step
    code = train.main(sys.argv[1:])
    assert not multiprocessing.active_children()
    sys.exit(code)
"""


def acting(act: str, config: Config, run: Path, **changes) -> list[str]:
    """A training that does something in its fifth step."""
    return [sys.executable, "-c", ACTING.format(act=act), *arguments(config, run, **changes)]


def ended(words: list[str]) -> subprocess.CompletedProcess:
    """Run a command in a process group of its own until all processes that it has started are gone, too."""
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True,
        env=ENVIRONMENT,
    ) as process:  # fmt: skip
        try:
            out, errors = process.communicate(timeout=PATIENCE)  # which the others have as well
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(words, process.returncode, out, errors)


@pytest.mark.slow
def test_a_full_dev_shm(whole, tmp_path):
    """As in a container: batches do not pass through it, nor semaphores."""
    config, run = whole[0], tmp_path / "run"
    words = [sys.executable, "-m", "experiments.train", *arguments(config, run, workers=2)]
    done = ended(under(["-t tmpfs -o ro,size=4k tmpfs /dev/shm"], words))
    assert done.returncode == 0, done.stderr
    assert_same_run(run, whole[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_to_all_processes(whole, tmp_path, name):
    """Readers leave it to the training, which saves; the run ends as if it had never stopped."""
    config, run, asked = whole[0], tmp_path / "run", getattr(signal, name)
    done = ended(acting(f"os.killpg(0, signal.{name})", config, run, workers=2))
    assert done.returncode == 128 + asked, done.stderr
    assert (
        f"svg-train: {name}: stopped after step 5, all is saved" in done.stderr
        and "Traceback" not in done.stderr
    )
    assert checkpoint.find(run, "last").step == 5
    done = ended([sys.executable, "-m", "experiments.train", "--log_dir", str(run), "--resume"])
    assert done.returncode == 0, done.stderr
    assert_same_run(run, whole[1])


@pytest.mark.slow
def test_a_terminal_that_is_closed_ends_no_training_under_nohup(whole, tmp_path):
    config, run = whole[0], tmp_path / "run"
    done = ended(["nohup", *acting("os.killpg(0, signal.SIGHUP)", config, run, workers=1)])
    assert done.returncode == 0, done.stderr
    assert_same_run(run, whole[1])


@pytest.mark.slow
def test_a_request_to_stop_does_not_wait_for_suspended_readers(whole, tmp_path):
    """It comes while the training waits for them."""
    act = (
        "suspend(readers); pool.PATIENCE = 10**6; "
        "threading.Timer(3, os.kill, [os.getpid(), signal.SIGTERM]).start()"
    )
    done = ended(acting(act, changed(whole[0], niter=10**6), tmp_path / "run", workers=2))
    assert done.returncode == 143, done.stderr
    step = checkpoint.find(tmp_path / "run", "last").step
    assert step >= 5 and f"SIGTERM: stopped after step {step}, all is saved" in done.stderr


@pytest.mark.slow
def test_suspended_readers_end_no_training(whole, tmp_path):
    done = ended(acting("suspend(readers); pool.PATIENCE = 0.1", whole[0], tmp_path / "run", workers=2))
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "run", whole[1])


@pytest.mark.slow
def test_two_trainings_together_whose_readers_are_suspended(whole, tmp_path):
    """torchrun hands a signal on; whoever waits for a reader takes part in the step after which all stop."""
    config, script = changed(whole[0], workers=1), tmp_path / "acting.py"
    tell_torchrun = "threading.Timer(3, os.kill, [os.getppid(), signal.SIGTERM]).start()"
    script.write_text(ACTING.format(act=f"suspend(readers); pool.PATIENCE = 10**6; {tell_torchrun}"))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    done = ended([*launcher, str(script), *arguments(config, tmp_path / "run", niter=10**6)])
    step = checkpoint.find(tmp_path / "run", "last").step
    assert done.returncode != 0 and step >= 5
    assert done.stderr.count(f"svg-train: SIGTERM: stopped after step {step}, all is saved") == 2, done.stderr


@pytest.mark.slow
def test_a_signal_to_torchrun_and_all_it_started(whole, tmp_path):
    config, runs, script = (
        changed(whole[0], workers=1),
        [tmp_path / "whole", tmp_path / "run"],
        tmp_path / "acting.py",
    )
    assert train(config, runs[0], 2).returncode == 0
    to_torchrun = "os.environ['RANK'] == '0' and os.kill(os.getppid(), signal.SIGTERM)"
    script.write_text(ACTING.format(act=f"os.killpg(0, signal.SIGTERM); {to_torchrun}"))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    done = ended([*launcher, str(script), *arguments(config, runs[1])])
    step = checkpoint.find(runs[1], "last").step
    assert (
        5 <= step < 9
        and done.stderr.count(f"svg-train: SIGTERM: stopped after step {step}, all is saved") == 2
    ), done.stderr
    assert train(config, runs[1], 2, resume=True).returncode == 0
    assert_same_run(*runs)


def limited(files: int) -> dict:
    return {
        "preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files)),
        "timeout": PATIENCE,
    }


@pytest.mark.slow
def test_more_readers_than_files_may_be_open(whole, tmp_path):
    words = [sys.executable, "-m", "experiments.train", *arguments(whole[0], tmp_path / "run", workers=40)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, **limited(64))
    assert done.returncode == 2
    limit = "64 open files by `ulimit -n`"
    told = f"svg-train: --workers: found 40, more than the limit, {limit}, allows; lower --workers"
    assert done.stderr.splitlines()[-1].startswith(told) and "Traceback" not in done.stderr, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("files", [8, 16])
def test_hardly_any_file_may_be_open(whole, tmp_path, files):
    """Whatever is opened first that cannot be: the limit is named."""
    for words in (
        ["data_tools", "check", whole[0].data.data_root, "--workers", "2"],
        ["experiments.train", *arguments(whole[0], tmp_path / "run", workers=1)],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *words],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=ENVIRONMENT,
            **limited(files),
        )
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert f"{files} open files by `ulimit -n`" in done.stderr.splitlines()[-1]
