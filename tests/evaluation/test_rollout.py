"""Long predictions in pieces: the same as in one go, scored and written as they come."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from data_tools import poses
from data_tools.folders import write_sequence
from data_tools.index import build_index
from experiments import compare, evaluate, plot, render, report, rollout, train
from svg.evaluation import rollout as rolling
from svg.evaluation.results import load_evaluation
from svg.evaluation.rollout import Submission, frames_to_come, roll_out
from svg.figures.plotting import plot_rollouts
from svg.models.freezing import freeze
from svg.runs.checkpoint import load_model
from svg.sequences import SequenceDataset
from tests.support.samples import moving_square

POSES = """--model pose_cvae --image_width 32 --g_dim 16 --pose_dim 8 --z_dim 4 --fusion_dim 16 --levels 3
--norm group --anchor --blend --n_past 1 --n_future 4 --n_eval 24 --batch_size 4 --niter 1 --epoch_size 6
--lr 0.003 --tfr 0 --device cpu --precision float32"""
ROBOTS = """--model dcgan --width 0.1 --norm group --g_dim 8 --z_dim 2 --rnn_size 8 --tfr 0
--n_past 2 --n_future 4 --n_eval 15 --batch_size 4 --niter 1 --epoch_size 2 --device cpu
--precision float32"""
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dancer(pose_root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "dancer"
    assert train.main([*POSES.split(), "--data_root", str(pose_root), "--log_dir", str(folder)]) == 0
    return folder


@pytest.fixture(
    scope="module",
    params=[
        "--recurrence spatial --feedback feature --blend", "--recurrence spatial --feedback frame",
        "--recurrence vector --feedback frame --last_frame_skip",
    ],
)  # fmt: skip
def robot(request, data_root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "robot"
    flags = [*ROBOTS.split(), *request.param.split(), "--data_root", str(data_root), "--log_dir", str(folder)]
    assert train.main(flags) == 0
    return folder


def scores_of(run: Path, name: str, method: str) -> np.ndarray:
    return load_evaluation(run, name).array(method, "psnr")


@pytest.mark.parametrize("stretch", [2, 5, 32])
def test_a_rollout_is_the_prediction_that_is_evaluated(dancer, monkeypatch, stretch):
    """With the mean latent it is ``pred``, sampled the first sampled future, in pieces of any length."""
    monkeypatch.setattr(rolling, "STRETCH", stretch)
    assert evaluate.main([str(dancer), "--n_sample", "1"]) == 0
    for latent, method in (("mean", "pred"), ("sampled", "pred_mean")):
        assert rollout.main([str(dancer), "--latent", latent, "--no-gif"]) == 0
        table = pd.read_csv(dancer / "rollout" / "test_psnr.csv")
        found = table["psnr"].to_numpy().reshape(2, 23)
        np.testing.assert_allclose(found, scores_of(dancer, "test_n1", method), atol=2e-3)
        assert table["frame"].tolist() == [*range(1, 24)] * 2
        np.testing.assert_allclose(
            table["held"].to_numpy().reshape(2, 23), scores_of(dancer, "test_n1", "copy"), atol=2e-3
        )


def test_robots_roll_out_as_well(robot):
    """In pieces of 4 frames the LSTMs' state, the skips and the last frame are handed on."""
    rolling_stretch, rolling.STRETCH = rolling.STRETCH, 4
    try:
        assert rollout.main([str(robot), "--latent", "mean", "--no-gif"]) == 0
    finally:
        rolling.STRETCH = rolling_stretch
    assert evaluate.main([str(robot), "--n_sample", "0"]) == 0
    found = pd.read_csv(robot / "rollout" / "test_psnr.csv")["psnr"].to_numpy().reshape(5, -1)
    assert found.shape[1] == 13 == scores_of(robot, "test_n0", "pred").shape[1]  # 2 of 15 are given
    np.testing.assert_allclose(found, scores_of(robot, "test_n0", "pred"), atol=2e-3)


def test_files_of_a_rollout(dancer, tmp_path, capsys):
    pytest.importorskip("imageio_ffmpeg")
    out = tmp_path / "out"
    assert rollout.main([str(dancer), "--out", str(out), "--submission", "--mp4", "--latent", "mean"]) == 0
    printed = capsys.readouterr().out
    assert "0: PSNR" in printed and "23 frames" in printed and "mean over 2 sequences" in printed
    assert {path.name for path in out.iterdir()} == {
        "submission.csv", "test_0.gif", "test_0.mp4", "test_1.gif", "test_1.mp4",
        "test_psnr.csv", "test_psnr.png"
    }  # fmt: skip
    with Image.open(out / "test_0.gif") as film:
        assert film.n_frames == 24 and film.size == (
            3 * (192 + 8) + 4 * 8,
            26 + 24 + 96 + 8 + 18 + 24,
        )  # truth, prediction, pose
    rows = list(csv.reader((out / "submission.csv").open()))
    assert rows[0] == ["id", *map(str, range(3 * 16 * 32))]
    table = np.array(rows[1:], np.int64)
    assert table[:, 0].tolist() == list(range(48))
    dataset = SequenceDataset(dancer_root(dancer), "test", 1)
    model, _ = load_model(dancer)
    for number in range(2):
        given = dataset.read_frames(number, 0, 1).numpy().ravel()  # channel by channel
        np.testing.assert_array_equal(table[24 * number, 1:], given)
        stretches = list(roll_out(freeze(model, "float32"), dataset, number, 1, 23))
        video = torch.cat([stretch.predicted for stretch in stretches])
        np.testing.assert_array_equal(
            table[24 * number + 1 : 24 * (number + 1), 1:], np.rint(video.flatten(1).numpy() * 255)
        )


def dancer_root(run: Path) -> str:
    from svg.runs.checkpoint import load_config

    return load_config(run).data.data_root


def test_a_sequence_of_one_frame_is_predicted_without_a_truth(dancer, pose_root, tmp_path, capsys):
    """As in the course's test split: poses go on where the frames end."""
    root = tmp_path / "data"
    shutil.copytree(pose_root, root)
    for number in range(1, 24):
        (root / "test" / "test_img" / "0" / f"{number}.png").unlink()
    for number in range(9, 24):
        (root / "test" / "test_img" / "1" / f"{number}.png").unlink()
    build_index(root)
    flags = [
        str(dancer),
        "--data_root",
        str(root),
        "--out",
        str(tmp_path / "out"),
        "--submission",
        "--latent",
        "mean",
    ]
    assert rollout.main(flags) == 0
    printed = capsys.readouterr().out
    assert (
        "0: 23 frames" in printed
        and "no true frames" in printed
        and "over the 8 frames with a truth" in printed
    )
    table = pd.read_csv(tmp_path / "out" / "test_psnr.csv")
    assert table["sequence"].tolist() == [1] * 8 and table["frame"].tolist() == list(range(1, 9))
    assert len(pd.read_csv(tmp_path / "out" / "submission.csv")) == 48
    with Image.open(tmp_path / "out" / "test_0.gif") as film:
        assert film.size[0] == 2 * (192 + 8) + 3 * 8  # no truth
    assert (
        rollout.main(
            [str(dancer), "--out", str(tmp_path / "whole"), "--submission", "--latent", "mean", "--no-gif"]
        )
        == 0
    )
    lines = [(tmp_path / name / "submission.csv").read_text() for name in ("out", "whole")]
    assert lines[0] == lines[1]  # frames that are not given change nothing


def test_conditions_are_read_a_stretch_at_a_time(dancer, pose_root, monkeypatch):
    """What bounds the memory: neither poses nor frames of more than a stretch are ever held."""
    dataset = SequenceDataset(pose_root, "test", 1)
    model, _ = load_model(dancer)
    monkeypatch.setattr(rolling, "STRETCH", 3)
    spans, store = [], dataset.store
    for name in ("_read_frames", "_read_conditions"):
        read = getattr(store, name)
        monkeypatch.setattr(
            store, name, lambda n, start, out, read=read: spans.append(len(out)) or read(n, start, out)
        )
    lengths = [len(stretch.predicted) for stretch in roll_out(model, dataset, 0, 1, 23, seed=1)]
    assert lengths == [3] * 7 + [2] and max(spans) == 3


def test_how_far_conditions_go(pose_root, data_root):
    assert frames_to_come(SequenceDataset(pose_root, "test", 1), 0, 1) == 23
    assert frames_to_come(SequenceDataset(data_root, "test", 2), 0, 2) == 13


def test_an_unfinished_submission_has_no_name(tmp_path):
    path = tmp_path / "submission.csv"
    with pytest.raises(KeyboardInterrupt), Submission(path) as submission:
        submission.add(torch.zeros(1, 3, 1, 1))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with Submission(path) as submission:
        submission.add(torch.tensor([0.0, 0.501, 1.0]).view(1, 3, 1, 1))
        assert not path.exists()
    assert path.read_text() == "id,0,1,2\n0,0,128,255\n"


def test_a_sequence_that_breaks_leaves_nothing_unfinished(dancer, pose_root, tmp_path, capsys):
    pytest.importorskip("imageio_ffmpeg")
    root, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(pose_root, root)
    (root / "test" / "test_label" / "1" / "20.png").write_bytes(b"broken")
    assert (
        rollout.main([str(dancer), "--data_root", str(root), "--out", str(out), "--submission", "--mp4"]) == 2
    )
    printed = capsys.readouterr()
    assert "test_label/1/20.png: not a PNG image" in printed.err and len(printed.err.splitlines()) == 1
    assert {path.name for path in out.iterdir()} == {"test_0.gif", "test_0.mp4"}  # what was whole by then


def test_names_with_dots_and_more_than_there_is(robot, data_root, tmp_path, capsys):
    """Films of shard.tfrecords/0 and shard.tfrecords/1 are two; impossible requests fail at once."""
    root, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(data_root / "test", root / "test" / "shard.tfrecords")
    build_index(root)
    flags = [str(robot), "--data_root", str(root), "--out", str(out)]
    assert (
        rollout.main([*flags, "--n_future", "20", "--sequences", "shard.tfrecords/0", "shard.tfrecords/1"])
        == 0
    )
    printed = capsys.readouterr().out
    assert (
        "note: shard.tfrecords/0: --n_future asks for 20 frames, its conditions are enough for 13" in printed
    )
    assert {path.name for path in out.glob("*.gif")} == {
        "test_shard.tfrecords_0.gif",
        "test_shard.tfrecords_1.gif",
    }
    assert rollout.main([*flags, "--n_future", "3", "--no-gif"]) == 0  # all five
    frames, actions, positions = moving_square(np.random.default_rng(0), 2)
    write_sequence(root / "test" / "short", frames, actions, positions)
    build_index(root)
    assert rollout.main([*flags, "--out", str(tmp_path / "none")]) == 2
    assert (
        "sequence short has no conditions beyond its 2 given frames; choose others with --sequences"
        in capsys.readouterr().err
    )


def test_the_diagram_of_few_and_of_many_sequences(tmp_path):
    curve = (np.linspace(30, 25, 40), np.linspace(30, 15, 40))
    for count in (1, 3, 40):
        curves = {
            f"_odd$name{number}": tuple(line[: 40 - number % 3] for line in curve) for number in range(count)
        }
        plot_rollouts(curves, 1, tmp_path / f"{count}.png")
        with Image.open(tmp_path / f"{count}.png") as picture:
            assert picture.size == (1430, 598)


@pytest.mark.slow
def test_a_dancer_resumes_and_compares(pose_root, dancer, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(dancer, run)
    assert train.main(["--log_dir", str(run), "--resume", "--niter", "2"]) == 0
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    flags = "--image_width 32 --levels 3 --g_dim 16 --pose_dim 8 --fusion_dim 16 --niter 4 --epoch_size 2 "
    flags += "--n_eval 9 --device cpu"
    out = tmp_path / "compared"
    command = [
        str(out),
        "--data_root",
        str(pose_root),
        "--model",
        "pose_cvae",
        *flags.split(),
        "--n_sample",
        "0",
    ]
    assert compare.main(command) == 0
    assert {path.name for path in (out / "figures").iterdir()} == {
        f"{a}_{b}.png" for a in ("kl", "tfr") for b in ("training", "frames")
    }
    assert compare.main([*command, "--studies", "prior"]) == 2
    assert "--prior: is a flag of svg; --model pose_cvae has no such part" in capsys.readouterr().err


@pytest.mark.slow
def test_the_other_commands_serve_the_dancer_unchanged(dancer, capsys):
    assert evaluate.main([str(dancer), "--n_sample", "3"]) == 0
    printed = capsys.readouterr().out
    assert (
        "1 given, 23 predicted" in printed
        and "pred, another's conditions" in printed
        and "another's actions" not in printed
    )
    assert render.main([str(dancer), "--n_sample", "1"]) == 0
    assert plot.main([str(dancer), "--scores", "test_n3"]) == 0
    assert report.main([str(dancer), "--n_sample", "3"]) == 0
    figures = {path.name for path in (dancer / "figures").iterdir()}
    assert {
        "test_best.gif",
        "test_best_pose.gif",
        "test_best.png",
        "training.png",
        "test_n3_frames.png",
    } <= figures
    page = (dancer / "report_test_n3.html").read_text()
    assert '"label": "pose"' in page and '"height": 16' in page
    with Image.open(dancer / "figures" / "test_best.gif") as film:
        assert film.n_frames == 24


def test_data_and_model_that_do_not_fit(dancer, pose_root, data_root, tmp_path, capsys):
    flags = ["--log_dir", str(tmp_path / "x"), "--device", "cpu", "--n_future", "4"]
    for more, message in (
        (["--model", "vgg", "--data_root", str(pose_root)], "has poses, which --model pose_cvae takes"),
        (
            ["--model", "pose_cvae", "--n_past", "1", "--data_root", str(pose_root)],
            "--image_width: found 64, but the frames of",
        ),
        (
            ["--model", "pose_cvae", "--n_past", "1", "--data_root", str(data_root)],
            "has no poses, which --model svg or objects takes",
        ),
        (
            ["--model", "pose_cvae", "--rnn_size", "9", "--data_root", str(pose_root)],
            "--rnn_size: is a flag of svg",
        ),
        (["--model", "vgg", "--anchor", "--data_root", str(data_root)], "--anchor: is a flag of pose_cvae"),
        (
            ["--model", "vgg", "--augment", "0.1", "--data_root", str(data_root)],
            "--augment: actions belong to their frames",
        ),
        (
            ["--model", "vgg", "--far_start", "0.1", "--data_root", str(data_root)],
            "--far_start: actions belong to their frames",
        ),
        (
            ["--model", "pose_cvae", "--image_width", "30", "--levels", "3", "--data_root", str(pose_root)],
            "cannot be halved 2 times",
        ),
        (
            ["--model", "pose_cvae", "--image_width", "32", "--data_root", str(pose_root)],
            "--n_past: found 2, expected 1",
        ),
        (
            ["--model", "pose_cvae", "--n_past", "1", "--levels", "5", "--data_root", str(pose_root)],
            "--levels: found 5, expected at most 4",
        ),
        (
            [
                "--model",
                "pose_cvae",
                "--n_past",
                "1",
                "--image_width",
                "32",
                "--conditions",
                "none",
                "--data_root",
                str(pose_root),
            ],
            "--conditions: found none, but --model pose_cvae needs the poses",
        ),
        (["--model", "vgg", "--conditions", "none", "--data_root", str(pose_root)], "has poses"),
    ):
        assert train.main([*more, *flags]) == 2
        printed = capsys.readouterr().err
        assert message in printed and len(printed.splitlines()) == 1
    assert rollout.main([str(dancer), "--data_root", str(data_root)]) == 2
    assert (
        "found frames 64x64x3 and condition columns (4), expected 16x32x3 and poses (3)"
        in capsys.readouterr().err
    )
    assert rollout.main([str(dancer), "--sequences", "nobody"]) == 2
    assert "found no sequence 'nobody'" in capsys.readouterr().err


def test_a_course_split_without_later_frames_cannot_be_scored(dancer, pose_root, tmp_path, capsys):
    root = tmp_path / "data"
    poses.write_sequence(root, "test", "0", *(np.zeros((1, 16, 32, 3), np.uint8),) * 2)
    for number in range(1, 5):
        shutil.copy(root / "test/test_label/0/0.png", root / f"test/test_label/0/{number}.png")
    build_index(root)
    assert evaluate.main([str(dancer), "--data_root", str(root), "--n_sample", "0"]) == 2
    printed = capsys.readouterr().err
    assert (
        "found 1 frames, expected at least 24" in printed and "svg-rollout" not in printed
    )  # 4 poses are not enough either
    for number in range(5, 24):
        shutil.copy(root / "test/test_label/0/0.png", root / f"test/test_label/0/{number}.png")
    build_index(root)
    assert evaluate.main([str(dancer), "--data_root", str(root), "--n_sample", "0"]) == 2
    assert (
        "svg-rollout predicts it from its poses, and sequences for scores are in another split"
        in capsys.readouterr().err
    )
    assert rollout.main([str(dancer), "--submission", "--n_future", "3"]) == 2
    assert "--submission: is of all sequences as far as they go" in capsys.readouterr().err
