"""Prediction beyond the recorded frames, with and without actions, and data sets with such sequences."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools import __main__ as svg_data
from data_tools.errors import InputError
from data_tools.folders import write_sequence
from data_tools.index import build_index
from data_tools.store import open_store
from experiments import evaluate, rollout, train
from svg.models.freezing import freeze
from svg.positions import FuturePositions, integrate_positions
from svg.runs.checkpoint import load_model
from svg.sequences import SequenceDataset
from tests.support.recordings import shared_case
from tests.support.samples import moving_square

FLAGS = """--model dcgan --width 0.1 --norm group --g_dim 8 --z_dim 2 --rnn_size 8 --n_past 2
--n_future 4 --n_eval 8 --batch_size 2 --niter 1 --epoch_size 2 --device cpu --precision float32"""


def write_table(path: Path, values: np.ndarray) -> None:
    np.savetxt(path, values, delimiter=",", fmt="%.9g")


@pytest.fixture(scope="module")
def squares(tmp_path_factory) -> Path:
    """Three training sequences of 8 frames; test ones of 2 to 6 with 9 rows of actions, some of positions."""
    root, generator = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    for number in range(3):
        write_sequence(root / "train" / str(number), *moving_square(generator, 8))
    for name, frames, positions in (("plan", 2, 2), ("longer", 6, 6), ("measured", 2, 5)):
        folder = root / "test" / name
        video, actions, places = moving_square(generator, 9)
        write_sequence(folder, video[:frames], actions[:frames], places[:frames])
        write_table(folder / "actions.csv", actions)
        write_table(folder / "endeffector_positions.csv", places[:positions])
    assert svg_data.main(["index", str(root)]) == 0
    return root


def trained(root: Path, folder: Path, *flags: str) -> Path:
    assert train.main([*FLAGS.split(), *flags, "--data_root", str(root), "--log_dir", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def runs(squares, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {
        kind: trained(squares, folder / kind, "--conditions", kind) for kind in ("all", "actions", "none")
    }


def rolled(run: Path, out: Path, *flags: str) -> int:
    return rollout.main([str(run), "--latent", "mean", "--out", str(out), *flags])


def pictures(path: Path) -> int:
    with Image.open(path) as film:
        return film.n_frames


def submitted(out: Path) -> np.ndarray:
    return np.loadtxt(out / "submission.csv", delimiter=",", skiprows=1)[:, 1:]


def test_the_case_that_failed(tmp_path, capsys):
    """Two frames and eight actions: the seven frames after the given ones."""
    root = tmp_path / "data"
    shutil.copytree(shared_case("plan_beyond_frames"), root)
    assert svg_data.main(["index", str(root)]) == 0
    run = trained(root, tmp_path / "run", "--conditions", "actions")
    assert svg_data.main(["check", str(root)]) == 0
    capsys.readouterr()
    assert rolled(run, tmp_path / "out", "--submission") == 0
    printed = capsys.readouterr().out
    assert (
        "conditions: actions alone" in printed and "push: 7 frames" in printed and "no true frames" in printed
    )
    assert pictures(tmp_path / "out" / "test_push.gif") == 9 == len(submitted(tmp_path / "out"))
    free = trained(root, tmp_path / "free", "--conditions", "none")
    assert rolled(free, tmp_path / "out", "--n_future", "40") == 0
    assert "push: 40 frames" in capsys.readouterr().out and pictures(tmp_path / "out" / "test_push.gif") == 42


def test_as_far_as_actions_go(squares, runs, tmp_path, capsys):
    """What is predicted there is what `predict` makes of those rows; truth that nobody knows is grey."""
    assert rolled(runs["actions"], tmp_path, "--submission") == 0
    printed = capsys.readouterr().out
    assert (
        "plan: 8 frames" in printed
        and "longer: PSNR" in printed
        and "over the 4 frames with a truth" in printed
    )
    assert [pictures(tmp_path / f"test_{name}.gif") for name in ("plan", "longer")] == [10, 10]
    model = freeze(load_model(runs["actions"])[0], "float32")
    table = submitted(tmp_path).reshape(3, 10, 3, 64, 64)
    names = list(SequenceDataset(squares, "test", 2).index["sequence"])
    for name in ("plan", "longer", "measured"):
        number = names.index(name)
        actions = np.loadtxt(squares / "test" / name / "actions.csv", delimiter=",")
        given = table[number, :2]
        found = model.predict(given.astype(np.uint8), actions, 8, latent="mean")
        np.testing.assert_allclose(table[number, 2:], found[0] * 255, atol=0.51)
    with Image.open(tmp_path / "test_longer.gif") as film:
        for frame, known in ((5, True), (6, False)):
            film.seek(frame)
            truth = np.asarray(film.convert("RGB"))[60:-60, 20:190]
            assert (len(np.unique(truth.reshape(-1, 3), axis=0)) > 1) == known
    assert rolled(runs["actions"], tmp_path, "--n_future", "5", "--no-gif") == 0
    assert "plan: 5 frames" in capsys.readouterr().out
    assert rolled(runs["actions"], tmp_path, "--n_future", "50", "--no-gif") == 0
    assert (
        "note: plan: --n_future asks for 50 frames, its conditions are enough for 8\n"
        in capsys.readouterr().out
    )


def test_without_conditions_as_far_as_asked(runs, tmp_path, capsys):
    assert rolled(runs["none"], tmp_path, "--n_future", "45", "--no-gif") == 0
    printed = capsys.readouterr().out
    assert (
        "conditions: none" in printed
        and "plan: 45 frames" in printed
        and "over the 4 frames with a truth" in printed
    )
    assert rolled(runs["none"], tmp_path, "--sequences", "longer") == 0
    assert (
        "; 4 frames" in capsys.readouterr().out and pictures(tmp_path / "test_longer.gif") == 6
    )  # to the end of the recording
    assert rolled(runs["none"], tmp_path) == 2
    assert (
        "sequence measured has no frames beyond its 2 given frames; say how far with --n_future"
        in capsys.readouterr().err
    )


def test_positions_end_before_actions(squares, runs, tmp_path, capsys):
    assert rolled(runs["all"], tmp_path, "--sequences", "plan") == 2
    printed = capsys.readouterr().err
    assert "plan has no conditions beyond its 2 given frames; its positions end before its actions" in printed
    assert "--positions integrated goes on for 8 frames" in printed
    assert rolled(runs["all"], tmp_path, "--sequences", "measured", "--n_future", "8", "--no-gif") == 0
    printed = capsys.readouterr().out  # five rows of positions predict frames 2 to 5
    assert (
        "measured: 4 frames" in printed
        and "its conditions are enough for 4; its positions end before its actions" in printed
    )
    for how in ("integrated", "held"):
        assert rolled(runs["all"], tmp_path, "--positions", how, "--submission", "--no-gif") == 0
        printed = capsys.readouterr().out
        assert (
            all(f"{name}: 8 frames" in printed for name in ("plan", "measured"))
            and f"positions {how}" in printed
        )
    table = submitted(tmp_path).reshape(3, 10, 3, 64, 64)  # held
    model = freeze(load_model(runs["all"])[0], "float32")
    number = list(SequenceDataset(squares, "test", 2).index["sequence"]).index("measured")
    actions, places = (
        np.loadtxt(squares / "test" / "measured" / f"{name}.csv", delimiter=",")
        for name in ("actions", "endeffector_positions")
    )
    held = np.concatenate([places[:1], np.repeat(places[1:2], 8, 0)])
    found = model.predict(
        table[number, :2].astype(np.uint8), np.concatenate([actions, held], 1), 8, latent="mean"
    )
    np.testing.assert_allclose(table[number, 2:], found[0] * 255, atol=0.51)


def test_conditions_of_a_store_go_on(squares):
    store = open_store(squares, "test")
    numbers = {path: number for number, path in enumerate(store.index["path"])}
    plan, measured = numbers["test/plan"], numbers["test/measured"]
    both, actions, positions = slice(None), slice(0, 2), slice(2, 4)
    assert [store.horizon(plan, columns) for columns in (both, actions, positions)] == [1, 9, 1]
    assert [store.horizon(measured, columns) for columns in (both, actions, positions)] == [5, 9, 5]
    assert store.horizon(plan, slice(0, 0)) is None and store.count_conditions(plan) == 9
    assert open_store(squares, "train").horizon(0) == 7  # what follows the last frame is in no table
    found = store.read_conditions(measured, 3, 9)
    table = np.loadtxt(squares / "test" / "measured" / "actions.csv", delimiter=",", dtype=np.float32)
    np.testing.assert_allclose(found[:, :2], table[3:9])
    assert np.isfinite(found[:2]).all() and np.isnan(found[2:, 2:]).all()
    with pytest.raises(IndexError, match="conditions 0 to 9 of 9"):
        store.read_conditions(measured, 0, 10)
    dataset = SequenceDataset(squares, "test", 2, future_positions=FuturePositions("integrated", 2))
    expected = integrate_positions(dataset[measured]["conditions"][1, 2:], table[1:])
    np.testing.assert_allclose(dataset.read_conditions(measured, 1, 9)[:, 2:], expected, rtol=1e-6)
    assert dataset.horizon(measured) == 9 and torch.isfinite(dataset.read_conditions(measured, 0, 9)).all()


def test_rows_beyond_the_frames_that_are_no_numbers(squares, runs, tmp_path, capsys):
    """They harm nobody who does not predict from them."""
    root = tmp_path / "data"
    shutil.copytree(squares, root)
    path = root / "test" / "longer" / "actions.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:7], "nan,1", *lines[8:]]) + "\n")
    build_index(root)
    assert (
        evaluate.main([str(runs["actions"]), "--data_root", str(root), "--n_future", "4", "--n_sample", "0"])
        == 0
    )
    flags = ["--data_root", str(root), "--sequences", "longer", "--no-gif"]
    assert rolled(runs["actions"], tmp_path, *flags, "--n_future", "6") == 0
    assert rolled(runs["actions"], tmp_path, *flags) == 2
    printed = capsys.readouterr().err
    assert "test/longer: found no finite numbers in rows" in printed and "beyond the last frame" in printed
    with pytest.raises(InputError, match="no finite numbers"):
        open_store(root, "test").read_conditions(
            list(open_store(root, "test").index["sequence"]).index("longer"), 0, 9
        )


def test_packing_says_what_it_loses(squares, runs, tmp_path, capsys):
    assert svg_data.main(["pack", str(squares), str(tmp_path / "packed"), "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    for name, rows in (("plan", 7), ("longer", 3), ("measured", 7)):
        assert (
            f"note: {squares / 'test' / name}: a packed data set has no place for the {rows} rows "
            "of tables beyond its" in printed
        )
    assert "train" not in printed.split("packed: ")[0]
    assert open_store(tmp_path / "packed", "test").horizon(0) in (1, 5)
    assert (
        svg_data.main(["pack", str(squares), str(tmp_path / "short"), "--frames", "2", "--workers", "1"]) == 0
    )
    assert "no place" not in capsys.readouterr().out  # --frames asks for less
    flags = ["--data_root", str(tmp_path / "packed"), "--sequences", "longer", "--no-gif"]
    assert rolled(runs["actions"], tmp_path, *flags) == 0
    assert "longer: PSNR" in capsys.readouterr().out
