"""Losses that see where pushed objects go."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from data_tools.camera import Camera
from data_tools.errors import InputError
from data_tools.simulators.push import simulate, simulate_sequence
from data_tools.truth import FIRST_OBJECT
from svg.runs.checkpoint import find
from svg.sequences import SequenceDataset
from svg.training.losses import places_error
from svg.training.truth import ClipTruth, is_pushed, observed_before, true_places

STANDING = [1.0, 0.0, 0.0, 0.0]
FLAGS = """
    --recurrence spatial --grid 16 --backbone dcgan --width 0.1 --norm group --blend --warp carried
    --g_dim 8 --z_dim 2 --rnn_size 8 --feedback feature --tfr 0 --batch_size 2 --niter 1 --epoch_size 3
    --n_future 4 --n_eval 6 --device cpu --lr 0.001
"""


def pose(x, y, z, angle) -> list[float]:
    return [x, y, z, np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2)]


def test_a_frame_goes_with_the_last_one_observed_before_it():
    times = torch.arange(6)[None]
    assert observed_before(times, n_past=2).tolist() == [[0, 1, 1, 1, 1]]
    assert observed_before(times, n_past=1).tolist() == [[0, 0, 0, 0, 0]]


def test_places_by_hand():
    """An object of one pixel beside its centre was moved by (4, -6) cm and turned by 90 degrees."""
    observed = pose(0.02, 0.05, 0.03, 0.3)
    now = pose(0.06, -0.01, 0.03, 0.3 + np.pi / 2)
    pixel = np.array([37, 33])
    # The point of the pixel at the height of the centre, as seen from the object: to the front is now what
    # was to the right of it.
    beside = Camera().unproject(pixel, 64, 64, z=0.03) - now[:3]
    before = np.add(observed[:3], [beside[1], -beside[0], 0])
    expected = Camera().project(before, 64, 64) - pixel
    labels = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    labels[0, 0, pixel[1], pixel[0]] = FIRST_OBJECT + 1
    other = pose(0.0, 0.0, 0.03, 0.0)
    now, observed = (torch.tensor([[[other, values]]], dtype=torch.float32) for values in (now, observed))
    places = true_places(labels, now, observed)[0, 0, :, pixel[1], pixel[0]]
    np.testing.assert_allclose(places, expected, atol=1e-3)
    assert is_pushed(labels, now, observed).sum() == 1
    assert not is_pushed(labels, observed, observed).any()


def test_what_rolls_keeps_its_direction():
    rolled = [0.0, 0.0, 0.03, np.cos(0.4), np.sin(0.4), 0.0, 0.0]
    labels = torch.full((1, 1, 64, 64), FIRST_OBJECT, dtype=torch.uint8)
    still = torch.tensor([[[pose(0.0, 0.0, 0.03, 0.5)]]], dtype=torch.float32)
    places = true_places(labels, torch.tensor([[[rolled]]], dtype=torch.float32), still)
    np.testing.assert_allclose(places, 0, atol=1e-3)


def test_centres_of_simulated_objects_come_from_where_they_were():
    """A few pixels about the true centre of each object lead to its centre in the observed frame."""
    compared = 0
    for number in range(10):
        truth = simulate_sequence(5, number, 12, 64, with_truth=True).truth
        poses = torch.from_numpy(truth.poses)[None]
        labels = torch.from_numpy(truth.segmentation)[None]
        observed = observed_before(poses, 2)
        places = true_places(labels[:, 1:], poses[:, 1:], observed)[0]
        pushed = is_pushed(labels[:, 1:], poses[:, 1:], observed)[0]
        now = Camera().project(truth.poses[1:, :, :3], 64, 64)
        before = Camera().project(observed[0, :, :, :3].numpy(), 64, 64)
        for time, item in np.ndindex(now.shape[:2]):
            right, down = np.rint(now[time, item]).astype(int).clip(0, 63)
            shown = labels[0, time + 1, down, right]
            is_inside = (abs(now[time, item] - (right, down)) < 0.6).all()
            if is_inside and pushed[time, down, right] and shown == FIRST_OBJECT + item:
                source = places[time, :, down, right].numpy() + np.array([right, down])
                assert np.abs(source - before[time, item]).max() < 1
                compared += 1
    assert compared > 20


def test_error_by_hand():
    """One coordinate is 1 pixel off (1/4), the other 5 (4): the mean of a pixel is 2.125."""
    places, target = torch.zeros(1, 1, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2)
    target[0, 0, :, 0, 1] = torch.tensor([1.0, -5.0])
    target[0, 0, :, 1, 1] = 100
    mask = torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    assert places_error(places, target, mask) == 0
    mask[0, 0, 0, 1] = True
    assert places_error(places, target, mask) == 2.125
    mask[0, 0, 0, 0] = True
    assert places_error(places, target, mask) == 2.125 / 2


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("truth") / "push"
    simulate(root, 6, splits=(0.5, 0.25, 0.25), frames=8, truth=True, workers=1)
    return root


def test_truth_of_clips(root):
    dataset = SequenceDataset(root, "train", 5)
    batch = ClipTruth(dataset).of([(1, 2, 2), (0, 0, 0)])
    truth = dataset.truth(1)
    np.testing.assert_array_equal(batch["labels"][0], truth.segmentation[2:7])
    count = truth.poses.shape[1]
    np.testing.assert_array_equal(batch["poses"][0, :, :count], truth.poses[2:7])
    assert batch["labels"].shape == (2, 5, 64, 64)
    assert not batch["poses"][0, :, count:].any()


def train(*flags) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "experiments.train", *FLAGS.split(), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_trained_from_disk_or_memory_the_weights_are_the_same_and_the_truth_counts(root, tmp_path):
    weights = {}
    for name, flags in {
        "disk": ("--places_weight", 0.01, "--pushed_weight", 3),
        "cpu": ("--places_weight", 0.01, "--pushed_weight", 3, "--data_device", "cpu"),
        "places": ("--places_weight", 0.01),
        "none": (),
    }.items():
        done = train("--data_root", root, "--log_dir", tmp_path / name, *flags)
        assert done.returncode == 0, done.stderr
        weights[name] = find(tmp_path / name, "last").digests["weights"]
    assert weights["disk"] == weights["cpu"]
    assert len(set(weights.values())) == 3


@pytest.mark.slow
def test_data_without_truth_and_flags_that_do_not_fit_are_refused_in_a_line(root, tmp_path):
    bare = tmp_path / "bare"
    simulate(bare, 4, splits=(0.5, 0.25, 0.25), frames=8, workers=1)
    for flags, expected in {
        ("--data_root", bare, "--places_weight", 0.1): "not found; simulate the data set with --truth",
        (
            "--data_root",
            root,
            "--places_weight",
            0.1,
            "--warp",
            "before",
        ): "--places_weight: expected --warp carried",
    }.items():
        done = train("--log_dir", tmp_path / "run", *flags)
        assert done.returncode == 2 and expected in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_data_set_without_truth_is_noticed_before_training(tmp_path):
    simulate(tmp_path / "bare", 2, splits=(1, 0, 0), frames=6, workers=1)
    with pytest.raises(InputError, match="--truth"):
        ClipTruth(SequenceDataset(tmp_path / "bare", "train", 5))
