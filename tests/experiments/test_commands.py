"""Whole commands as a user runs them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools import folders, layout
from data_tools.index import build_index
from experiments import compare, evaluate, plot, quickstart, render, report, train
from tests.support.places import ROOT

TINY = """--recurrence spatial --model dcgan --width 0.1 --norm group --g_dim 8 --z_dim 2 --rnn_size 8
--feedback feature --tfr 0 --n_past 2 --n_future 4 --n_eval 6 --batch_size 4 --niter 1 --epoch_size 2
--device cpu"""


@pytest.fixture(scope="module")
def run(data_root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "tiny.args").write_text(TINY)
    flags = [f"@{folder / 'tiny.args'}", "--data_root", str(data_root), "--log_dir", str(folder / "run")]
    assert train.main(flags) == 0
    return folder / "run"


def test_a_misspelt_flag_is_one_line(capsys):
    for command, flags in ((train, ["--kl_aneal", "cyclical"]), (evaluate, ["x", "--recurrence", "vector"])):
        with pytest.raises(SystemExit, match="2"):
            command.main(flags)
        printed = capsys.readouterr().err
        assert len(printed.splitlines()) == 1 and f"unrecognized arguments: {flags[-2]}" in printed


@pytest.mark.slow
def test_train_prints_an_epoch_a_line(data_root, tmp_path):
    command = [
        sys.executable,
        "-m",
        "experiments.train",
        *TINY.split(),
        "--data_root",
        data_root,
        "--log_dir",
        tmp_path / "r",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    *start, line, end = done.stdout.splitlines()
    assert [text.split()[0] for text in start] == ["data", "model", "training", "schedule", "scores"]
    assert line.startswith("epoch   1 step      2") and "beta 1.0e-04" in line and "pred" in line
    assert f"svg-evaluate {tmp_path / 'r'}" in end
    assert done.stderr == ""  # no progress bar where there is no terminal


def test_resume_takes_its_own_flags_and_new_ones(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    assert train.main(["--log_dir", str(copy), "--resume", "--niter", "2"]) == 0
    assert len((copy / "metrics.jsonl").read_text().splitlines()) == 2
    again = json.loads((copy / "config.json").read_text())
    assert (
        again["train"]["niter"] == 2
        and again["train"]["log_dir"] == str(copy)
        and again["model"]["g_dim"] == 8
    )


def test_evaluate(run, capsys):
    assert evaluate.main([str(run), "--n_sample", "3"]) == 0
    printed = capsys.readouterr().out
    assert (
        "test: 5 sequences\n" in printed
        and "frames     2 given, 4 predicted" in printed
        and "pred (best of 3)" in printed
    )
    assert (
        "another sequence's conditions PSNR falls by" in printed
        and "another sequence's actions alone PSNR falls by" in printed
    )
    assert json.loads((run / "evaluation" / "test_n3.json").read_text())["protocol"]["n_sample"] == 3
    assert (
        evaluate.main(
            [str(run), "--split", "validate", "--n_future", "9", "--n_sample", "0", "--checkpoint", "last"]
        )
        == 0
    )
    assert (
        len(
            json.loads((run / "evaluation" / "validate_9_n0_last.json").read_text())["methods"]["pred"][
                "psnr"
            ]["per_frame"]
        )
        == 9
    )


def test_evaluate_under_a_published_protocol(run, capsys):
    assert evaluate.main([str(run), "--protocol", "lab", "--n_future", "4"]) == 0
    assert "protocol   lab, changed: n_future 4 (finn_eval_seq" in capsys.readouterr().out
    assert (
        json.loads((run / "evaluation" / "test_lab_4.json").read_text())["protocol"]["ssim_window"]
        == "gaussian"
    )


@pytest.mark.slow
def test_evaluate_several_runs(run, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    assert train.main(["--log_dir", str(other), "--resume", "--niter", "2"]) == 0
    flags = [str(run), str(other), "--n_sample", "2", "--out", str(tmp_path / "tables"), "--reuse"]
    assert evaluate.main(flags) == 0
    printed = capsys.readouterr().out
    assert "difference to run" in printed and "other: pred (best of 2)" in printed
    written = {path.suffix: path.read_text() for path in (tmp_path / "tables").iterdir()}
    assert written.keys() == {".csv", ".md", ".tex"} and all(
        "own (this project's" in written[kind] for kind in (".md", ".tex")
    )
    before = (other / "evaluation" / "test_n2.csv").stat().st_mtime_ns
    assert evaluate.main(flags) == 0  # again: what is there is taken, and the same comes out
    assert (other / "evaluation" / "test_n2.csv").stat().st_mtime_ns == before
    again = capsys.readouterr().out
    shown = again.index("protocol")
    assert again.startswith("taken as it is") and printed.endswith(again[shown:])
    assert (
        evaluate.main([os.path.relpath(flag) if flag == str(other) else flag for flag in flags]) == 0
    )  # by another path
    assert (other / "evaluation" / "test_n2.csv").stat().st_mtime_ns == before
    assert train.main(["--log_dir", str(other), "--resume", "--niter", "3"]) == 0
    assert evaluate.main(flags) == 0  # other weights
    assert (other / "evaluation" / "test_n2.csv").stat().st_mtime_ns != before


@pytest.mark.slow
def test_compare(data_root, tmp_path, capsys):
    flags = [
        str(tmp_path),
        "--data_root",
        str(data_root),
        "--studies",
        "kl",
        "form",
        "--n_sample",
        "2",
        *TINY.split(),
    ]
    flags = [word for word in flags if word not in ("--recurrence", "spatial")]  # the base is the vector form
    flags[flags.index("--niter") + 1] = "4"
    assert compare.main(flags) == 0
    printed = capsys.readouterr().out
    assert "4/4  spatial: --recurrence spatial --g_dim 32" in printed and "difference to base" in printed
    figures = {f"{study}_{kind}.png" for study in ("kl", "form") for kind in ("training", "frames")}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == figures
    for name, beta in {"base": 1e-4, "kl_cyclical": 0.0}.items():
        assert json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0])["beta"] == beta
    assert compare.main(flags) == 0 and "epoch" not in capsys.readouterr().out
    assert compare.main([*flags, "--lr", "0.5"]) == 2
    assert "--lr: found 0.5, but" in capsys.readouterr().err


def test_studies_of_another_base():
    """What equals the base is no run of its own; clips of other lengths get the steps of as many frames."""
    recipe = Path(compare.__file__).parent / "recipes" / "compare_push.args"
    args = compare.parse(["out", f"@{recipe}", "--studies", "tfr", "clip", "blend"])
    runs = {name: compare.changed_runs(args, runs) for name, runs in compare.studies(args).items()}
    assert tuple(runs) == compare.STUDIES
    assert list(runs["tfr"]) == ["tfr_1", "tfr_falling"] and list(runs["kl"]) == [
        "kl_monotonic",
        "kl_cyclical",
    ]
    assert runs["clip"] == {
        "clip_5": {"n_future": 5, "epoch_size": 137},
        "clip_16": {"n_future": 16, "epoch_size": 53},
    }
    written = {name: compare.as_flags(changes) for name, changes in runs["blend"].items()}
    assert written == {
        "no_blend": "--no-blend --warp none",
        "warp_observed": "--blend --warp observed",
        "warp_before": "--blend --warp before",
    }
    written = {name: compare.as_flags(changes) for name, changes in runs["objects"].items()}
    assert written == {
        "warp_before": "--blend --warp before",
        "carried": "--blend --warp carried",
        "places": "--blend --warp carried --places_weight 0.002",
        "pushed": "--blend --warp carried --places_weight 0.002 --pushed_weight 3.0",
    }
    assert runs["grid"] == {"grid_16": {"grid": 16}}
    assert list(compare.changed_runs(compare.parse(["out"]), compare.studies(args)["tfr"])) == [
        "tfr_falling",
        "tfr_0",
    ]


def duration(path: Path) -> float:
    """Milliseconds that a GIF takes; frames that do not differ are stored as one that lasts longer."""
    with Image.open(path) as image:
        return sum(image.seek(number) or image.info["duration"] for number in range(image.n_frames))


def test_render(run, tmp_path, capsys):
    assert render.main([str(run), "--out", str(tmp_path), "--n_sample", "1"]) == 0
    assert capsys.readouterr().out.count("sequence ") == 3
    for name in ("best", "random", "worst"):
        for part in ("", "_ref", "_rec", "_pred", "_sample_1"):
            assert (
                duration(tmp_path / f"test_{name}{part}.gif") == 6 * 200 + 3 * 200
            )  # 5 a second, the last one longer
        assert (tmp_path / f"test_{name}.png").exists()
    assert render.main([str(run), "--out", str(tmp_path), "--sequences", "3"]) == 0
    assert (tmp_path / "test_sequence_3.gif").exists()


@pytest.mark.slow
def test_plot_overlays_runs(run, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    shutil.rmtree(other / "evaluation", ignore_errors=True)
    assert evaluate.main([str(run), "--n_sample", "1"]) == 0
    flags = [str(run), str(other), "--scores", "test_n1", "--out", str(tmp_path / "figures")]
    assert plot.main(flags) == 0
    assert f"{other}: found no evaluation/test_n1.json (--scores); there: nothing" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"training.png", "test_n1_frames.png"}
    assert evaluate.main([str(other), "--n_sample", "2"]) == 0
    for suffix in (".json", ".csv", "_samples.csv"):
        (other / "evaluation" / f"test_n2{suffix}").rename(other / "evaluation" / f"test_n1{suffix}")
    text = (other / "evaluation" / "test_n1.json").read_text().replace("test_n2", "test_n1")
    (other / "evaluation" / "test_n1.json").write_text(text)
    assert plot.main(flags) == 2
    assert "found samples 2 futures a sequence, expected 1 futures" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "flags", "expected"),
    [
        (
            train,
            "--data_root /nowhere --log_dir {tmp}/r",
            "/nowhere: no such folder, expected the root of a data set",
        ),
        (
            train,
            "--data_root {data} --log_dir {tmp}/r --batch_size 0",
            "--batch_size: found 0, expected a number above 0",
        ),
        (train, "--log_dir {tmp}/r", "--data_root: not given"),
        (train, "--data_root {data} --log_dir {data}/index.csv", "index.csv"),
        (evaluate, "{data}/index.csv", "index.csv"),
        (evaluate, "{run} --device meta", "--device: found 'meta', expected auto, cpu, cuda or cuda:N"),
        (train, "--log_dir {tmp}/r --resume", "--data_root: not given"),
        (train, "--data_root {data} --take_over", "--take_over: expected --resume beside it"),
        (
            train,
            "--data_root {data} --data_device cuda --device cpu",
            "--data_device: found cuda, but the training runs on the CPU",
        ),
        (train, "--data_root {data} --norm group --g_dim 4", "--g_dim: found 4, but a group"),
        (
            train,
            "--data_root {data} --log_dir {tmp}/r --n_future 99 --device cuda:9",
            "found 15 frames, expected at least 101",
        ),
        (evaluate, "/nowhere", "/nowhere/config.json: not found"),
        (evaluate, "{run} --n_future 30", "found 15 frames, expected at least 32"),
        (render, "{run} --n_sample 50", "--n_sample: found 50, expected 0 to 12"),
        (
            compare,
            "{tmp} --data_root {data} --studies form --recurrence spatial --g_dim 32 --z_dim 4 --rnn_size 32",
            "form has nothing but",
        ),
        (evaluate, "{run} --n_sample -1", "--n_sample: found -1, expected a number of at least 0"),
        (evaluate, "{run} --batch_size 0", "--batch_size: found 0, expected at least 1"),
        (evaluate, "{run} --limit -2", "--limit: found -2, expected a number of at least 0"),
        (evaluate, "{run} --protocol x", "--protocol: found 'x', expected one of own, svg, lab"),
        (evaluate, "{run} --protocol srvp", "found 15 frames, expected at least 30"),
        (evaluate, "{run} --metrics lpips", "--metrics lpips: expected --weights with"),
        (
            evaluate,
            "{run} --metrics lpips --weights {tmp}",
            "has no alexnet-owt-7be5be79.pth; get it from https://",
        ),
        (evaluate, "{run} --lpips vgg", "--lpips: chooses the network of --metrics lpips"),
        (
            evaluate,
            "{run} --metrics fvd --weights {tmp}",
            "--metrics fvd, kvd: found 5 clips of 6 frames, expected at least 2 of at least 10",
        ),
        (
            evaluate,
            "{run} --metrics kvd --n_future 10 --weights {tmp}",
            "has no i3d_torchscript.pt; get it from",
        ),
        (evaluate, "{run} /nowhere", "/nowhere/config.json: not found"),
        (report, "{run} --sequences 99", "--sequences: found no sequence '99' in split test"),
        (report, "{run} --fps 0", "--fps: expected a number"),
        (compare, "{tmp} --data_root /nowhere", "/nowhere: no such folder"),
        (compare, "{tmp} --data_root {data} --niter 0", "--niter"),
        (
            compare,
            "{tmp} --data_root {data} --n_sample -1",
            "--n_sample: found -1, expected a number of at least 0",
        ),
        (compare, "{tmp} --data_root {data} --batch_size 1", "--batch_size: found 1, but batch norm"),
        (compare, "{tmp}", "--data_root: not given"),
        (evaluate, "{run} {run}", "expected each run once"),
        (render, "{run} --sequences 99", "--sequences: found no sequence '99' in split test"),
        (render, "{run} --fps 0", "--fps: found 0, expected a number"),
        (plot, "/nowhere --out {tmp}", "/nowhere/metrics.jsonl: not found"),
        (plot, "/nowhere", "/nowhere/metrics.jsonl: not found"),
        (quickstart, "--minutes 0 --out {tmp}", "--minutes: expected a number above 0"),
        (quickstart, "--sequences 2 --out {tmp}", "--sequences: found 2, expected at least 3"),
        (quickstart, "--pretrained --minutes 1 --out {tmp}", "--minutes: --pretrained trains nothing"),
        (
            quickstart,
            "--pretrained --seed 1 --out {tmp}",
            "--seed: found 1, whose sequences push-sim was trained on",
        ),
        (
            quickstart,
            "--pretrained push --out {tmp}",
            "--pretrained: found 'push', expected the name of a released model: push-objects",
        ),
        (
            train,
            "--data_root {data} --log_dir {tmp}/r --init_from push",
            "--init_from: found 'push', expected a run folder or",
        ),
        (
            train,
            "--data_root {data} --log_dir {run} --resume --init_from push-sim",
            "has begun already; leave it out",
        ),
        (train, "--data_root {data} --log_dir {tmp}/r --warp before", "--warp: expected --blend beside it"),
        (
            compare,
            "{tmp} --data_root {data} --studies grid",
            "--grid: found 16, which is of --recurrence spatial",
        ),
        (
            compare,
            "{tmp} --data_root {data} --init_from push-sim",
            "--init_from: all compared runs begin with new weights",
        ),
    ],
)
def test_mistakes_are_one_line(command, flags, expected, run, data_root, tmp_path, capsys):
    assert command.main(flags.format(tmp=tmp_path, data=data_root, run=run).split()) == 2
    printed = capsys.readouterr()
    assert expected in printed.err and len(printed.err.splitlines()) == 1 and not printed.out


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("checkpoints/best.json", b"[1]"),
        ("checkpoints/best.json", b'{"files": "x"}'),
        ("checkpoints/best.json", b"\xff\xfe"),
        ("config.json", b"\xff\xfe"),
        ("config.json", b"[]"),
        ("metrics.jsonl", b"3\n"),
        ("metrics.jsonl", b"\xff\xfe\n"),
    ],
)
def test_damaged_run_folders(run, tmp_path, capsys, name, content):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / name).write_bytes(content)
    commands = {
        "metrics.jsonl": (plot, [str(copy)]),
    }
    command, flags = commands.get(name, (evaluate, [str(copy)]))
    assert command.main(flags) == 2
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == 1 and str(copy / name) in printed


@pytest.mark.parametrize("content", [b"--g_dim '16", b"\xff\xfe", b"@flags", b"@/nowhere/flags"])
def test_bad_flags_files(tmp_path, capsys, content, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flags").write_bytes(content)
    with pytest.raises(SystemExit, match="2"):
        train.main(["@flags"])
    printed = capsys.readouterr().err
    assert "flags file" in printed and "Errno" not in printed and len(printed.splitlines()) == 1


def test_an_unknown_split_is_refused_before_anything_is_opened(capsys):
    with pytest.raises(SystemExit, match="2"):
        evaluate.main(["/nowhere", "--split", "dev"])
    assert "--split: invalid choice: 'dev' (choose from" in capsys.readouterr().err


def test_grey_frames_of_128_pixels(tmp_path, capsys):
    frames = np.random.default_rng(0).integers(0, 255, (7, 128, 128, 1), np.uint8)
    for split in layout.SPLITS:
        folders.write_sequence(tmp_path / "data" / split / "0", frames, None, np.zeros((7, 3)))
    build_index(tmp_path / "data")
    flags = [
        *TINY.split(),
        "--image_width",
        "128",
        "--data_root",
        str(tmp_path / "data"),
        "--log_dir",
        str(tmp_path / "run"),
    ]
    assert train.main(flags) == 0
    assert evaluate.main([str(tmp_path / "run"), "--n_sample", "1"]) == 0
    assert render.main([str(tmp_path / "run")]) == 0


@pytest.mark.slow
def test_quickstart(tmp_path):
    pytest.importorskip("mujoco")
    for name in ("run", "run-2"):
        command = [
            sys.executable,
            "-m",
            "experiments.quickstart",
            "--minutes",
            "0.1",
            "--sequences",
            "12",
            "--n_sample",
            "2",
        ]
        done = subprocess.run([*command, "--out", tmp_path], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        assert (
            "copy the last frame" in done.stdout
            and f"the pictures are in {tmp_path / name / 'figures'}, all" in done.stdout
        )
        assert (tmp_path / name / "figures" / "test_best.gif").exists()
        assert (tmp_path / name / "figures" / "training.png").exists() and (
            tmp_path / name / "report.html"
        ).exists()
