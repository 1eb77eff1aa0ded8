"""What the simulator's truth teaches the model objects."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from data_tools.camera import Camera
from data_tools.simulators.push import simulate, simulate_sequence
from data_tools.truth import ARM, FIRST_OBJECT, SHADOW
from svg.evaluation.results import FOLDER, load_evaluation
from svg.models.hand import LIGHT, POINTS
from svg.models.object_motion import sample
from svg.models.object_predictor import Tracks
from svg.models.scene import FEATURES, Layers
from svg.runs.checkpoint import find
from svg.training.object_losses import (
    SHOULDER,
    WRIST,
    arm_error,
    arm_points,
    hand_error,
    material_points,
    points_error,
    tracks_errors,
)
from svg.training.truth import true_places

FLAGS = """
    --model objects --g_dim 8 --z_dim 2 --rnn_size 16 --slots 4 --drawn_frames 2 --objects_weight 0.02
    --places_weight 0.02 --pushed_weight 3 --tfr 0 --batch_size 4 --drawn_clips 2 --epoch_size 2
    --n_future 4 --n_eval 6 --device cpu --optimizer muon --lr 0.001
"""


def pose(x, y, z, angle) -> list[float]:
    return [x, y, z, np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2)]


def poses(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def test_points_of_a_turned_object_by_hand():
    observed = poses([pose(0.02, 0.05, 0.03, 0.3)])
    now = poses([[pose(0.06, -0.01, 0.03, 0.3 + np.pi / 2)]])
    points = material_points(now, observed)[0, 0, 0]
    places = [(0.06, -0.01, 0.03), (0.06, 0.02, 0.03), (0.03, -0.01, 0.03)]
    np.testing.assert_allclose(points, Camera().project(np.array(places), 64, 64), atol=1e-3)


def test_what_rolls_is_not_turned():
    rolled = [0.0, 0.0, 0.03, np.cos(0.4), np.sin(0.4), 0.0, 0.0]
    points = material_points(poses([rolled]), poses(pose(0.0, 0.0, 0.03, 0.5)))
    still = material_points(poses([pose(0.0, 0.0, 0.03, 0.5)]), poses(pose(0.0, 0.0, 0.03, 0.5)))
    np.testing.assert_allclose(points, still, atol=1e-4)


def test_points_and_places_of_simulated_objects_agree():
    """The points of an object go back to those of the observed frame, as the places of its pixels do."""
    truth = simulate_sequence(5, 0, 12, 64, with_truth=True).truth
    every = torch.from_numpy(truth.poses)[None]
    observed = every[:, :1].expand(-1, 12, -1, -1)
    points = material_points(every, every[:, 0])[0]
    compared = 0
    for number in range(every.shape[2]):
        labels = torch.full((1, 12, 64, 64), FIRST_OBJECT + number, dtype=torch.uint8)
        places = true_places(labels, every, observed)[0]
        for time, point in np.ndindex(12, 3):
            place = points[time, number, point]
            if not (place.min() > 0 and place.max() < 63):
                continue
            source = place + sample(places[time, None], place.view(1, 2, 1, 1)).flatten()
            assert (source - points[0, number, point]).abs().max() < 0.02
            compared += 1
    assert compared > 100


def perfect_tracks(points, labels, table, shade) -> Tracks:
    """Tracks of all objects that are right, by the points [F+1,N,3,2] of simulated ones."""
    votes = torch.zeros(1, 2, 64, 64)
    cells = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="xy"))
    for number in range(points.shape[1]):
        inside = labels == FIRST_OBJECT + number
        votes[0][:, inside] = (points[0, number, 0, :, None, None] - cells)[:, inside]
    outline = torch.where(labels >= FIRST_OBJECT, 20.0, -20.0)[None, None]
    # A of two vectors: the columns of now times the inverse of those of before
    now = (points[:, :, 1:] - points[:, :, :1]).transpose(-1, -2)
    turns = now[1:] @ torch.linalg.inv(now[:1])
    arm = torch.where(labels == ARM, 20.0, -20.0)[None, None]
    still = torch.zeros(1, 7), torch.zeros(1, FEATURES, 32, 32), torch.zeros(1, LIGHT)
    layers = Layers(table, table, outline, votes, torch.ones_like(shade), arm, shade, table, *still)
    centres = points[None, :, :, 0]
    present = torch.ones(1, points.shape[1])
    first = centres[:, 0]
    logits, slips = torch.zeros(1, 1, 32, 32), torch.zeros(1, len(points) - 1, 3)
    motion = centres[:, 1:], turns[None], slips
    return Tracks(layers, logits, present, first, *motion, layers.arm, layers.arm, first)


def test_right_tracks_have_no_error_and_a_shift_is_counted():
    simulation = simulate_sequence(5, 3, 10, 64, with_truth=True)
    frames = torch.from_numpy(simulation.frames).permute(0, 3, 1, 2)[None].float() / 255
    labels = torch.from_numpy(simulation.truth.segmentation)[None]
    every = torch.from_numpy(simulation.truth.poses)[None]
    points = material_points(every[:, 1:], every[:, 1])[0]
    still = labels == 0
    table = (frames * still[:, :, None]).sum(1) / still.sum(1)[:, None].clamp(min=1)
    darkness = (frames[:, 1].mean(1) / table.mean(1).clamp(min=0.05)).clamp(0, 1)[:, None]
    darkness[labels[:, 1:2] == ARM] = 1
    right = perfect_tracks(points, labels[0, 1], table, darkness)
    scene, motion = tracks_errors(right, frames, labels, every, 2)
    assert motion < 1e-6
    # what is left of the scene's error is that of the centres' heat map, a constant of 0.5 everywhere
    assert scene.item() == pytest.approx(np.log(2), abs=1e-3)
    shifted = replace(right, centres=right.centres + 1.0)
    # smooth L1 with beta 2 of 1 is 1/4
    assert tracks_errors(shifted, frames, labels, every, 2)[1].item() == pytest.approx(0.25, abs=1e-4)
    dark = replace(right, layers=replace(right.layers, table=table - 0.1))
    share = still.any(1).float().mean()
    difference = tracks_errors(dark, frames, labels, every, 2)[0] - scene
    assert difference.item() == pytest.approx(10 * 0.01 * share.item(), rel=1e-3)
    brighter = replace(right, layers=replace(right.layers, arm_shade=darkness + 0.1))
    share = (still.any(1) & (labels[:, 1] < FIRST_OBJECT)).float().mean()
    difference = tracks_errors(brighter, frames, labels, every, 2)[0] - scene
    assert difference.item() == pytest.approx(10 * 0.01 * share.item(), rel=1e-3)


def test_points_of_the_arm_are_those_of_the_simulator():
    pytest.importorskip("mujoco")
    from data_tools.simulators import pusher

    assert (WRIST, list(SHOULDER)) == (pusher._WRIST, pusher._SHOULDER.tolist())
    points = arm_points(torch.tensor([0.1, -0.05, 0.012]))
    assert points.shape == (POINTS, 3)
    assert points[1].tolist() == pytest.approx([0.08, -0.05, 0.022])
    scene = pusher.Pusher(np.random.default_rng(0))
    scene.place_hand(np.array([0.1, -0.05]))
    forearm = scene.data.body("forearm")
    for point, length in zip(points[6:], (0.12, 0.35), strict=True):
        expected = forearm.xpos + length * forearm.xmat.reshape(3, 3)[:, 2]
        np.testing.assert_allclose(point, expected, atol=1e-4)


def test_error_of_points_by_hand():
    position = torch.tensor([[[0.1, -0.05, 0.012]]])
    places = Camera().project(arm_points(position).double().numpy(), 64, 64)
    right = perfect_tracks(*no_objects())
    tracks = replace(right, points=torch.from_numpy(places).float() + torch.tensor([1.0, 0.0]))
    # smooth L1 with beta 2 of 1 is 1/4, in one of two coordinates
    assert points_error(tracks, position).item() == pytest.approx(0.125, abs=1e-4)


def test_error_of_the_hand_by_hand():
    right = perfect_tracks(*no_objects())
    assert hand_error(right) == 0
    off = replace(right, slips=right.slips + torch.tensor([1.0, 0.0, -3.0]))
    # smooth L1 with beta 2: 1 / 4 and 3 - 1
    assert hand_error(off).item() == pytest.approx(2.25 / 3)


def no_objects():
    return torch.eye(3, 2).expand(2, 1, 3, 2).flip(2), *[torch.zeros(64, 64)] * 2, torch.ones(1, 1, 64, 64)


def test_error_of_the_arm_and_its_shadow_by_hand():
    labels = torch.zeros(1, 1, 4, 20, dtype=torch.uint8)
    labels[..., 0, :] = ARM
    labels[..., 1, :4] = SHADOW
    right = perfect_tracks(*no_objects())
    tenth = torch.full((1, 1, 1, 4, 20), 0.1)
    nothing = torch.zeros_like(tenth)
    arm = replace(right, arm=tenth, shadow=(labels == SHADOW).float()[:, :, None])
    # 20 of 80 pixels are 0.9 off, the others 0.1; five times the mean
    assert arm_error(arm, labels).item() == pytest.approx(5 * (20 * 0.81 + 60 * 0.01) / 80)
    shadow = replace(right, arm=(labels == ARM).float()[:, :, None], shadow=nothing)
    assert arm_error(shadow, labels).item() == pytest.approx(5 * 4 / 80)
    labels[..., 2, 8] = FIRST_OBJECT  # whose shadow it may be, within 6 pixels of it: not that in two of four
    assert arm_error(shadow, labels).item() == pytest.approx(5 * 2 / 80)


def test_objects_that_were_not_found_or_are_hidden_teach_nothing_about_motion():
    simulation = simulate_sequence(5, 3, 10, 64, with_truth=True)
    frames = torch.from_numpy(simulation.frames).permute(0, 3, 1, 2)[None].float() / 255
    labels = torch.from_numpy(simulation.truth.segmentation)[None]
    every = torch.from_numpy(simulation.truth.poses)[None]
    points = material_points(every[:, 1:], every[:, 1])[0]
    right = perfect_tracks(points, labels[0, 1], frames[:, 0], torch.ones(1, 1, 64, 64))
    wrong = replace(right, centres=right.centres + 9)
    absent = replace(wrong, present=0 * wrong.present)
    assert tracks_errors(wrong, frames, labels, every, 2)[1] > 1
    assert tracks_errors(absent, frames, labels, every, 2)[1] == 0
    far = replace(wrong, first=wrong.first + 400)
    assert tracks_errors(far, frames, labels, every, 2)[1] == 0
    hidden = torch.where(labels >= FIRST_OBJECT, torch.zeros_like(labels), labels)
    assert tracks_errors(wrong, frames, hidden, every, 2)[1] == 0


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("objects") / "push"
    simulate(root, 8, splits=(0.5, 0.25, 0.25), frames=8, truth=True, workers=1)
    return root


def train(*flags) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "experiments.train", *FLAGS.split(), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_trained_stopped_resumed_and_evaluated(root, tmp_path):
    """A resumed run ends with the same bytes, and positions of the future change no score."""
    whole, half = tmp_path / "whole", tmp_path / "half"
    assert train("--data_root", root, "--log_dir", whole, "--niter", 2).returncode == 0
    assert train("--data_root", root, "--log_dir", half, "--niter", 1).returncode == 0
    resumed = train("--data_root", root, "--log_dir", half, "--niter", 2, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert find(half, "last").digests["weights"] == find(whole, "last").digests["weights"]
    for flags in ((), ("--positions", "held")):
        command = [sys.executable, "-m", "experiments.evaluate", whole, "--n_sample", 2, *flags]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        noted = "is given no positions of the future; --positions held changes nothing"
        assert (noted in done.stderr) == bool(flags)
    results = [load_evaluation(whole, path.stem) for path in (whole / FOLDER).glob("*.json")]
    scores = [result.per_sequence("pred", "psnr") for result in results if result is not None]
    np.testing.assert_array_equal(*scores)


@pytest.mark.slow
def test_what_cannot_work_is_refused_in_a_line(root, tmp_path):
    for flags, expected in {
        ("--objects_weight", 0): "--objects_weight: found 0, expected a weight such as 0.02",
        ("--conditions", "actions"): "--conditions: found actions, expected all",
        ("--drawn_clips", 3): "--drawn_clips: found 3, expected a divisor of --batch_size 4",
        ("--grid", 16): "--grid: is a flag of svg; --model objects has no such part",
    }.items():
        done = train("--data_root", root, "--log_dir", tmp_path / "run", "--niter", 1, *flags)
        assert done.returncode == 2 and expected in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1
    done = subprocess.run(
        [sys.executable, "-m", "experiments.train", "--data_root", root, "--objects_weight", "0.1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "--objects_weight: expected --model objects beside it" in done.stderr
