"""Integrated positions: by hand, beside the simulator, and in evaluation and rollouts."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import svg
from data_tools import layout
from data_tools.errors import InputError
from data_tools.folders import write_sequence
from data_tools.index import build_index
from data_tools.pack import pack
from experiments import evaluate
from svg.evaluation.results import load_evaluation
from svg.positions import FuturePositions, Target
from svg.sequences import SequenceDataset
from svg.training.loop import Training
from tests.support.samples import moving_square

PLACE = [0.1, -0.2, 0.012]
ACTIONS = [[0.01, 0.02, 3, 0], [0.03, -0.01, 3, 1], [0.0, 0.01, 0, 1], [0.5, 0.5, 1, 0]]
X, Y = [0.1, 0.11, 0.14, 0.14], [-0.2, -0.18, -0.19, -0.18]
HEIGHT = [0.012, 0.057, 0.102, 0.057]
"""At most 0.045 m a frame: up twice on the way to 0.102, then down on the way to 0.012."""


def test_by_hand():
    """The last action leads to a place that no action begins at."""
    found = svg.integrate_positions(np.array(PLACE), np.array(ACTIONS))
    np.testing.assert_allclose(found, np.stack([X, Y, [0.012] * 4], 1))
    found = svg.integrate_positions(np.array(PLACE), np.array(ACTIONS), targets=[svg.SIMULATED_HEIGHT])
    np.testing.assert_allclose(found, np.stack([X, Y, HEIGHT], 1))
    found = svg.integrate_positions(PLACE, ACTIONS, columns=[(1, 2)], targets=[Target(action=3, position=0)])
    np.testing.assert_allclose(
        found, np.stack([[0.1, 0, 1, 1], [-0.2] * 4, [0.012, 0.032, 0.022, 0.032]], 1), rtol=1e-5
    )


def test_kinds_and_shapes():
    """Two clips with three plans each; arrays and tensors; gradients flow to both."""
    position, actions = torch.tensor(PLACE).repeat(2, 1, 1), torch.tensor(ACTIONS).repeat(2, 3, 1, 1)
    actions[1] *= 2
    position.requires_grad_()
    actions.requires_grad_()
    found = svg.integrate_positions(position, actions, targets=[svg.SIMULATED_HEIGHT])
    assert found.shape == (2, 3, 4, 3) and found.dtype == torch.float32
    torch.testing.assert_close(found[0, 2], torch.tensor([X, Y, HEIGHT]).T)
    torch.testing.assert_close(found[1, 0, 2, :2], torch.tensor([0.1 + 2 * 0.04, -0.2 + 2 * 0.01]))
    found[..., -1, :2].sum().backward()
    assert actions.grad[0, 0, :, :2].tolist() == [[1, 1]] * 3 + [[0, 0]] and position.grad[0, 0].tolist() == [
        3,
        3,
        0,
    ]

    arrays = [values.detach().numpy() for values in (position, actions)]
    again = svg.integrate_positions(*arrays, targets=[svg.SIMULATED_HEIGHT])
    assert isinstance(again, np.ndarray) and again.dtype == np.float32
    np.testing.assert_array_equal(again, found.detach().numpy())
    assert svg.integrate_positions(arrays[0].astype(np.float64), arrays[1]).dtype == np.float64
    assert isinstance(svg.integrate_positions(arrays[0], actions), torch.Tensor)
    whole = svg.integrate_positions([1, 2], [[1, 1], [1, 1]])
    assert whole.dtype == np.float32 and whole.tolist() == [[1, 2], [2, 3]]
    assert svg.integrate_positions(np.zeros(3), np.zeros((0, 4)), targets=[svg.SIMULATED_HEIGHT]).shape == (
        0,
        3,
    )


def test_what_cannot_be_integrated():
    for arguments, expected in (
        (
            (PLACE, ACTIONS[0]),
            r"found a position \[3\] and actions \[4\], expected \[\.\.\.,P\] and \[\.\.\.,T,A\]",
        ),
        ((np.zeros((2, 3)), np.zeros((5, 4, 4))), "their leading dimensions do not fit"),
        (
            (PLACE, ACTIONS, [(0, 0), (4, 1)]),
            "columns: found action 4 for position 1, expected actions from 0 to 3 and positions",
        ),
        (
            (PLACE, ACTIONS, [(0, 0), (1, 0)]),
            r"columns: found \[0, 0\] as positions, expected each at most once",
        ),
        ((PLACE, ACTIONS, [(0, 2)], [svg.SIMULATED_HEIGHT]), r"columns: found \[2, 2\] as positions"),
        (("abc", ACTIONS), "position: found <U3, expected numbers"),
    ):
        with pytest.raises(InputError, match=expected):
            svg.integrate_positions(*arguments)


def test_beside_the_simulator():
    """To some millimetres where nothing is jammed in the way, and with the simulator's own numbers."""
    pytest.importorskip("mujoco")
    from data_tools.simulators import pusher
    from data_tools.simulators.push import simulate_sequence

    expected = (pusher.LOW, pusher.LIFT_STEP, pusher.LIFT_SPEED)
    assert dataclasses.astuple(svg.SIMULATED_HEIGHT) == (2, 2, *expected)
    errors, moves = [], []
    for number in range(4):
        sequence = simulate_sequence(1000, number, 16, 16)
        actions, positions = sequence.actions, sequence.positions
        found = svg.integrate_positions(positions[0], actions, targets=[svg.SIMULATED_HEIGHT])
        errors.append(np.abs(found - positions))
        moves.append(np.abs(positions[0] - positions))
    assert (
        np.median(np.concatenate(errors), 0).max() < 0.01 < np.quantile(np.concatenate(moves), 0.9, 0).min()
    )  # metres


# --------------------------------------------------------------------------------- in evaluation and rollouts


@pytest.fixture(scope="module")
def sideways(tmp_path_factory):
    """Write squares whose actions have swapped columns and a third one, and whose positions are noisy."""
    root, generator = tmp_path_factory.mktemp("sideways"), np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 4)):
        for number in range(count):
            video, actions, positions = moving_square(generator, 8)
            positions[1:] += generator.normal(0, 0.5, (7, 2)).astype(np.float32)
            write_sequence(
                root / split / str(number),
                video,
                np.concatenate([actions[:, ::-1], actions[:, :1]], 1),
                positions,
            )
    build_index(root, "sideways")
    return root


def test_clips_with_positions_that_a_planner_knows(sideways):
    true = SequenceDataset(sideways, "test", 6)
    assert true.given == "actions and true positions of the future"
    recorded = true.batch([(0, 0), (1, 2)])["conditions"].numpy()
    held = SequenceDataset(sideways, "test", 6, future_positions=FuturePositions("held", 2))
    expected = recorded.copy()
    expected[:, 2:, 3:] = expected[:, 1:2, 3:]
    np.testing.assert_array_equal(held.batch([(0, 0), (1, 2)])["conditions"], expected)
    assert held.given == "actions and positions held where they were last observed"

    pairs = ((1, 0), (0, 1))
    integrated = SequenceDataset(
        sideways, "test", 6, future_positions=FuturePositions("integrated", 2, pairs)
    )
    for time in range(2, 6):
        expected[:, time, 3:] = expected[:, time - 1, 3:] + expected[:, time - 1, [1, 0]]
    np.testing.assert_allclose(integrated.batch([(0, 0), (1, 2)])["conditions"], expected, rtol=1e-6)
    assert (
        "integrated from them (displacements action:position 1:0 0:1, other columns held)" in integrated.given
    )
    np.testing.assert_allclose(integrated.read_conditions(0, 3, 6), expected[0, 3:], rtol=1e-6)
    np.testing.assert_array_equal(integrated.read_conditions(0, 0, 1), recorded[0, :1])
    np.testing.assert_array_equal(integrated[0]["frames"], true[0]["frames"])

    usual = SequenceDataset(sideways, "test", 6, "positions", FuturePositions("integrated", 2))
    found = usual[0]["conditions"]
    np.testing.assert_allclose(found[3], recorded[0, 1, 3:] + recorded[0, 1:3, :2].sum(0), rtol=1e-6)
    assert usual.given.startswith("positions integrated from them")
    alone = SequenceDataset(sideways, "test", 6, "actions", FuturePositions("integrated", 2))
    assert alone.given == "actions alone" and alone.future_positions is None
    assert SequenceDataset(sideways, "test", 6, "none").given == "none"


def test_refusals(sideways, tmp_path):
    with pytest.raises(
        InputError, match="columns: found action 3 for position 0, expected actions from 0 to 2"
    ):
        SequenceDataset(sideways, "test", 6, future_positions=FuturePositions("integrated", 2, ((3, 0),)))
    write_sequence(tmp_path / "test" / "0", np.zeros((4, 64, 64, 3), np.uint8), None, np.zeros((4, 2)))
    build_index(tmp_path)
    with pytest.raises(InputError, match=r"^positions: found integrated, but the data set .* has no actions"):
        SequenceDataset(tmp_path, "test", 4, future_positions=FuturePositions("integrated", 2))
    assert SequenceDataset(tmp_path, "test", 4, future_positions=FuturePositions("held", 2)).given.startswith(
        "positions held"
    )


def test_the_simulators_height_is_known_by_its_data(tmp_path):
    generator = np.random.default_rng(0)
    actions = np.array(ACTIONS, np.float32)
    positions = np.array([PLACE] * 4, np.float32)
    write_sequence(
        tmp_path / "a" / "test" / "0",
        generator.integers(0, 255, (4, 64, 64, 3), np.uint8),
        actions,
        positions,
    )
    for source, height in ((layout.SIMULATED_PUSHING, HEIGHT), ("a robot", [0.012] * 4)):
        build_index(tmp_path / "a", "pushing", source)
        pack(tmp_path / "a", tmp_path / source, workers=1)
        for root in (tmp_path / "a", tmp_path / source):
            dataset = SequenceDataset(root, "test", 4, future_positions=FuturePositions("integrated", 1))
            np.testing.assert_allclose(
                dataset[0]["conditions"][:, 4:], np.stack([X, Y, height], 1), rtol=1e-5
            )
            assert ("as svg-data simulate's hand moves" in dataset.given) == (height is HEIGHT)


@pytest.fixture(scope="module")
def run(sideways, tmp_path_factory):
    from svg.config import Config, DataConfig, ModelConfig, TrainConfig

    folder = tmp_path_factory.mktemp("runs") / "run"
    return Training(
        Config(
            DataConfig(data_root=str(sideways), n_past=2, n_future=4, n_eval=6),
            ModelConfig(
                recurrence="spatial", model="dcgan", width=0.1, norm="group", g_dim=8, z_dim=2, rnn_size=8
            ),
            TrainConfig(
                log_dir=str(folder), batch_size=4, niter=1, epoch_size=4, precision="float32", device="cpu"
            ),
        )
    ).fit()


@pytest.mark.slow
def test_scores_say_what_predictions_were_given(run, capsys, tmp_path):
    scores = {}
    for flags, name, words in (
        ([], "test_n0", "actions and true positions of the future"),
        (
            ["--positions", "held"],
            "test_n0_positions_held",
            "actions and positions held where they were last observed",
        ),
        (
            ["--positions", "integrated", "--displacements", "1:0", "0:1"],
            "test_n0_positions_integrated_1-0_0-1",
            "actions and positions integrated from them (displacements action:position 1:0 0:1, "
            "other columns held)",
        ),
    ):
        assert evaluate.main([str(run), "--n_sample", "0", "--out", str(tmp_path), *flags]) == 0
        assert f"\nconditions {words}\n" in capsys.readouterr().out
        assert f"- conditions: {words}\n" in (tmp_path / f"{name}.md").read_text()
        assert f"% conditions: {words}\n" in (tmp_path / f"{name}.tex").read_text()
        found = load_evaluation(run, name)
        assert found.setting.conditions == words
        scores[name] = found.per_sequence("pred", "mse")
        np.testing.assert_array_equal(
            found.per_sequence("copy", "mse"), load_evaluation(run, "test_n0").per_sequence("copy", "mse")
        )
    true, held, integrated = scores.values()
    assert (true != held).any() and (held != integrated).any() and (true != integrated).any()


def test_an_evaluation_of_an_earlier_release_is_read_and_taken_again(run, capsys):
    flags = [str(run), "--n_sample", "0"]
    assert evaluate.main(flags) == 0
    path = run / "evaluation" / "test_n0.json"
    values = json.loads(path.read_text())
    del values["setting"]["conditions"]
    path.write_text(json.dumps(values))
    assert "positions, if any, were the true ones" in load_evaluation(run, "test_n0").in_words()["conditions"]
    capsys.readouterr()
    assert evaluate.main([*flags, "--reuse"]) == 0
    printed = capsys.readouterr().out
    assert "taken as it is" in printed and "conditions actions and true positions of the future" in printed


def test_flags_that_mean_nothing(run, capsys):
    for flags, expected in (
        (["--positions", "guessed"], "argument --positions: invalid choice: 'guessed'"),
        (["--displacements", "0:0"], "--displacements: goes with --positions integrated, found true"),
        (
            ["--positions", "integrated", "--displacements", "0-0"],
            "--displacements: found '0-0', expected ACTION:POSITION",
        ),
        (["--positions", "integrated", "--displacements", "7:0"], "columns: found action 7 for position 0"),
    ):
        try:
            assert evaluate.main([str(run), *flags]) == 2
        except SystemExit as end:
            assert end.code == 2
        printed = capsys.readouterr().err
        assert expected in printed and len(printed.splitlines()) == 1
