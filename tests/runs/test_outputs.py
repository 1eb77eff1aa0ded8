"""Results that cannot be written or printed: said before hours of work, and what was found is not lost."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data_tools import __main__ as svg_data
from data_tools import files, index, pack, show
from experiments import benchmark, command, compare, evaluate, render, report, rollout, train
from experiments.benchmarks import model
from svg.evaluation import results, scoring
from svg.runs import checkpoint, pretrained
from svg.training.loop import Training
from tests.support.mounts import under
from tests.support.places import ROOT
from tests.support.recordings import contents
from tests.support.runs import assert_same_run, changed

PATIENCE = 300  # seconds that nothing may take, however busy the machine is
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}"}


@pytest.fixture(scope="module")
def finished(data_root, tmp_path_factory) -> Path:
    """Train a run of one epoch."""
    run = tmp_path_factory.mktemp("finished") / "run"
    flags = "--model dcgan --recurrence spatial --width 0.1 --g_dim 16 --z_dim 3 --rnn_size 16"
    flags += " --n_past 2 --n_future 4 --n_eval 6 --batch_size 4 --niter 1 --epoch_size 3 --device cpu"
    assert train.main([*flags.split(), "--data_root", str(data_root), "--log_dir", str(run)]) == 0
    return run


@pytest.fixture
def trained(finished, tmp_path) -> Path:
    """Copy it."""
    return shutil.copytree(finished, tmp_path / "run")


def python(*words: object) -> list[str]:
    return [sys.executable, "-m", *map(str, words)]


def ended(words: list, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        words,
        **{"capture_output": True, "text": True, "cwd": ROOT, "timeout": PATIENCE, "env": ENVIRONMENT}
        | options,
    )


def the_line(errors: str) -> str:
    """Return the only line of stderr."""
    (line,) = errors.splitlines()
    return line


# -------------------------------------------------------------------------------------------- before the work


def fail(*_: object, **__: object) -> None:
    raise AssertionError("hours of work have begun")


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("evaluate", (scoring, "evaluate")),
        ("render", (render, "choose_sequences")),
        ("report", (report, "evaluate_run")),
        ("rollout", (rollout, "roll_out_sequence")),
        ("show", (show, "sample_split")),
        ("pack", (pack, "read_tables")),
        ("benchmark", (model, "measure")),
        ("compare", (compare, "train_run")),
    ],
)
def test_what_cannot_be_written_is_said_before_hours_of_work(
    trained, data_root, tmp_path, monkeypatch, capsys, name, first
):
    monkeypatch.setattr(*first, fail)
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / "below"
    small = ["--data_root", data_root, "--device", "cpu", "--n_eval", "6", "--n_future", "4"]
    main, words = {
        "evaluate": (evaluate.main, [trained, "--out", out]),
        "render": (render.main, [trained, "--out", out]),
        "report": (report.main, [trained, "--out", out / "page.html"]),
        "rollout": (rollout.main, [trained, "--out", out]),
        "show": (svg_data.main, ["show", data_root, "--out", out / "sheet.png"]),
        "pack": (svg_data.main, ["pack", data_root, out]),
        "benchmark": (benchmark.main, ["--json", out / "rows.json", "--device", "cpu"]),
        "compare": (compare.main, [out, *small]),
    }[name]
    assert main([str(word) for word in words]) == 2
    assert f"{out}: no file can be written there (Not a directory); make it writable" in the_line(
        capsys.readouterr().err
    )
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["evaluate", "index"])
def test_a_folder_that_cannot_be_written(trained, data_root, tmp_path, monkeypatch, capsys, name):
    def refuse(path: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(files, "create", refuse)
    monkeypatch.setattr(scoring, "evaluate", fail)
    monkeypatch.setattr(index, "Moments", fail)
    main, words, place = {
        "evaluate": (evaluate.main, [str(trained)], trained / "evaluation"),
        "index": (svg_data.main, ["index", str(data_root)], data_root),
    }[name]
    assert main(words) == 2
    assert f"{place}: no file can be written there (Read-only file system)" in the_line(
        capsys.readouterr().err
    )


@pytest.mark.parametrize("name", ["report", "show"])
def test_a_folder_in_the_place_of_a_file(trained, data_root, tmp_path, monkeypatch, capsys, name):
    monkeypatch.setattr(report, "evaluate_run", fail)
    monkeypatch.setattr(show, "sample_split", fail)
    out = tmp_path / "folder.png"
    out.mkdir()
    main, words = {
        "report": (report.main, [str(trained)]),
        "show": (svg_data.main, ["show", str(data_root)]),
    }[name]
    assert main([*words, "--out", str(out)]) == 2
    assert f"{out}: is a folder, expected the name of a file" in the_line(capsys.readouterr().err)


@pytest.mark.slow
def test_a_run_that_cannot_be_written(trained, tmp_path):
    words = python("experiments.evaluate", trained, "--n_sample", "0")
    done = ended(under([f"--bind {trained} {trained}", f"-o remount,ro,bind {trained}"], words))
    assert done.returncode == 2
    reason = "no file can be written there (Read-only file system); make it writable, or copy"
    assert the_line(done.stderr).startswith(f"svg-evaluate: {trained}/evaluation: {reason}")


@pytest.mark.slow
def test_a_log_dir_that_cannot_be_written(trained, data_root, tmp_path):
    words = python(
        "experiments.train", "--data_root", data_root, "--log_dir", trained / "new", "--device", "cpu"
    )
    done = ended(under([f"--bind {trained} {trained}", f"-o remount,ro,bind {trained}"], words))
    assert done.returncode == 2
    assert the_line(done.stderr).startswith(f"svg-train: {trained}/new: ")
    assert "Read-only file system" in done.stderr


@pytest.mark.slow
def test_data_that_cannot_be_written_are_trained_and_scored_on(trained, data_root):
    before = contents(data_root)
    go_on = python(
        "experiments.train", "--log_dir", trained, "--resume", "--niter", "2", "--workers", "1", "--take_over"
    )
    score = python("experiments.evaluate", trained, "--n_sample", "0")
    words = ["sh", "-c", f"{' '.join(go_on)} && {' '.join(score)}"]
    done = ended(under([f"--bind {data_root} {data_root}", f"-o remount,ro,bind {data_root}"], words))
    assert done.returncode == 0, done.stderr
    assert "epoch   2" in done.stdout and (trained / "evaluation" / "test_n0.json").exists()
    assert contents(data_root) == before


# --------------------------------------------------------------------------------------------- after the work


def test_scores_that_cannot_be_written_are_printed(trained, monkeypatch, capsys):
    def full(texts: dict) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(next(iter(texts))))

    monkeypatch.setattr(results, "write_texts", full)
    assert evaluate.main([str(trained), "--n_sample", "2"]) == 2
    printed = capsys.readouterr()
    assert "pred (mean latent)" in printed.out and "PSNR dB" in printed.out
    assert the_line(printed.err).endswith("No space left on device; make room")


@pytest.mark.slow
def test_scores_are_written_though_nobody_reads_them(trained, tmp_path):
    """As with ``svg-evaluate RUN | head -1``."""
    words = python("experiments.evaluate", trained, "--n_sample", "0", "--out", tmp_path / "tables")
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=ENVIRONMENT
    ) as process:
        assert process.stdout.readline().startswith("written: ")
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (141, "")
    assert results.load_evaluation(trained, "test_n0").sequences == [str(number) for number in range(5)]
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == ["test_n0.md", "test_n0.tex"]


# -------------------------------------------------------------------------------------------- released models


def test_two_commands_that_take_a_released_model_at_once(tmp_path, monkeypatch, capsys):
    """The second one finds the copy of the first in its way after it has copied all."""
    monkeypatch.chdir(tmp_path)
    copy = command._copy_released

    def both(source: Path, run: Path) -> None:
        copy(source, run)
        copy(source, run)

    monkeypatch.setattr(command, "_copy_released", both)
    run = command.take_released("push-sim")
    assert checkpoint.read_identity(run, "best") == checkpoint.read_identity(
        pretrained.named_folder("push-sim"), "best"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["push-sim"]


@pytest.mark.slow
def test_several_processes_take_a_released_model_at_once(tmp_path):
    code = "from experiments.command import take_released; take_released('push-sim')"
    others = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    assert [process.communicate(timeout=PATIENCE)[1] for process in others] == [""] * 3
    assert [process.returncode for process in others] == [0] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["push-sim"]
    assert contents(tmp_path / "push-sim").keys() == contents(pretrained.named_folder("push-sim")).keys()


def test_no_room_for_a_released_model(tmp_path):
    """The message names the copy, and nothing is left of it."""
    inside = (
        f"cd {tmp_path} && {sys.executable} -m experiments.evaluate --pretrained push-sim; echo $? && ls -A"
    )
    done = ended(under([f"-t tmpfs -o size=1m tmpfs {tmp_path}"], ["sh", "-c", inside]))
    assert done.stdout == "2\n"
    assert the_line(done.stderr) == "svg-evaluate: push-sim: No space left on device; make room"


# -------------------------------------------------------------------------------------------------- leftovers


@pytest.fixture
def busy(monkeypatch):
    """Whatever is called so cannot be removed."""
    remove = files.remove

    def refuse(path: Path) -> None:
        if "busy" in path.name:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
        remove(path)

    monkeypatch.setattr(files, "remove", refuse)


def leave_things(folder: Path, elsewhere: Path) -> Path:
    """Write leftovers of a killed writer, and links of such names; return the one that cannot be removed."""
    (folder / f".file.1{files.TEMPORARY}").write_text("part")
    (folder / f".folder.1{files.TEMPORARY}" / "deep").mkdir(parents=True)
    (folder / f".link.1{files.TEMPORARY}").symlink_to(elsewhere)
    (folder / f".nowhere.1{files.TEMPORARY}").symlink_to("nowhere")
    kept = folder / f".busy.1{files.TEMPORARY}"
    kept.mkdir()
    return kept


def test_leftovers_block_no_training(small_config, tmp_path, busy, capsys):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").touch()
    whole = Training(changed(small_config, log_dir=str(tmp_path / "whole"))).fit()
    run = Training(changed(small_config, niter=1)).fit()
    kept = [leave_things(folder, elsewhere) for folder in (run, run / "checkpoints")]
    for name in ("step-00000009.json", "step-00000001-0123abcd.safetensors"):  # folders are not of ours
        (run / "checkpoints" / name).mkdir()
    capsys.readouterr()
    assert_same_run(Training(small_config, resume=True).fit(), whole)
    errors = capsys.readouterr().err
    for path in kept:
        assert (
            f"note: {path}: left by a writer that was stopped, cannot be removed (Device or resource busy)"
            in errors
        )
    assert len(errors.splitlines()) == 2 and (elsewhere / "mine").exists()
    assert [
        path.name for path in [*run.iterdir(), *(run / "checkpoints").iterdir()] if path.name.startswith(".")
    ] == [path.name for path in kept]


def test_leftovers_block_no_data_set(data_root, tmp_path, busy, capsys):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").touch()
    packing = ["pack", str(data_root), str(out), "--workers", "1"]
    assert svg_data.main(packing) == 0
    whole = contents(out)
    for name in ("index.csv", "train/frames.npy"):
        (out / name).unlink()
    kept = [leave_things(folder, elsewhere) for folder in (out, out / "train")]
    capsys.readouterr()
    assert svg_data.main(packing) == 0
    errors = capsys.readouterr().err
    assert all(
        f"note: {path}: left by a writer that was stopped, cannot be removed" in errors for path in kept
    )
    assert contents(out) == whole
    assert (elsewhere / "mine").exists()
