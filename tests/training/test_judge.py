"""The judge of objects: changes of known amount, its training, and how well the released one sees."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data_tools.truth import ARM, FIRST_OBJECT
from svg.evaluation.judge import load_judge
from svg.sequences import SequenceDataset
from svg.training.judge import (
    Changes,
    background_of,
    blurred,
    change_object,
    moved,
    read_scenes,
    soft_masks,
    train_judge,
)
from svg.training.judge_check import CHANGES, read_changed, score_true_frames


def change(strength: float, shift: tuple[float, float], blur: float) -> Changes:
    return Changes(torch.tensor([strength]), torch.tensor([shift]), torch.full((1, 2), blur))


@pytest.fixture
def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A bright square of 4x4 on a dark ground: frame, ground and its mask."""
    ground = torch.full((1, 3, 32, 32), 0.25)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 10:14, 8:12] = 1
    return ground + 0.5 * mask, ground, mask


def test_an_object_is_moved_by_whole_pixels(scene):
    frame, ground, mask = scene
    changed, cover = change_object(frame, ground, mask, change(1.0, (5.0, -3.0), 0.0))
    expected = ground.clone()
    expected[..., 7:11, 13:17] = 0.75
    np.testing.assert_allclose(changed, expected, atol=1e-5)
    np.testing.assert_allclose(cover[0, 0] > 0.5, expected[0, 0] > 0.5)


def test_an_object_is_taken_away_or_faded(scene):
    frame, ground, mask = scene
    for strength in (0.0, 0.5, 1.0):
        changed, _ = change_object(frame, ground, mask, change(strength, (0.0, 0.0), 0.0))
        np.testing.assert_allclose(changed, ground + strength * 0.5 * mask, atol=1e-6)


def test_blur_keeps_the_centre_and_the_brightness(scene):
    frame, ground, mask = scene
    changed, _ = change_object(frame, ground, mask, change(1.0, (2.5, 0.0), 1.5))
    extra = (changed - ground)[0, 0]
    assert extra.sum() == pytest.approx(0.5 * 16, rel=1e-3)
    across = (extra.sum(0) * torch.arange(32)).sum() / extra.sum()
    down = (extra.sum(1) * torch.arange(32)).sum() / extra.sum()
    assert (float(across), float(down)) == pytest.approx((9.5 + 2.5, 11.5), abs=0.01)
    spread = (extra.sum(1) * (torch.arange(32) - 11.5) ** 2).sum() / extra.sum()
    assert float(spread) == pytest.approx(1.25 + 1.5**2, rel=0.02)  # of four pixels, and of the blur


def test_each_picture_has_its_own_shift_and_blur():
    random = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    shifted = moved(random, torch.tensor([[0.0, 0.0], [1.0, 2.0]]))
    np.testing.assert_allclose(shifted[0], random[0], atol=1e-5)
    np.testing.assert_allclose(shifted[1, :, 2:, 1:], random[1, :, :-2, :-1], atol=1e-5)
    assert float(shifted[1, :, :2].abs().max()) < 1e-5
    smooth = blurred(random, torch.tensor([[0.0, 0.0], [2.0, 2.0]]))
    np.testing.assert_allclose(smooth[0], random[0], atol=1e-6)
    assert smooth[1].std() < 0.5 * random[1].std()


def test_background_is_the_mean_of_what_shows_it():
    labels = torch.zeros(3, 12, 12, dtype=torch.uint8)
    labels[0, :, :4] = ARM
    labels[:, 5:7, 8:10] = FIRST_OBJECT  # in all frames
    frames = torch.full((3, 3, 12, 12), 100, dtype=torch.uint8)
    frames[2] = 110
    frames[labels[:, None].expand(-1, 3, -1, -1) > 0] = 7
    background = background_of(frames, labels)
    assert (background[:, :, 5:7] == 103).all()  # (100 + 100 + 110) / 3
    assert (background[:, :, :4] == 105).all()  # of two frames
    assert (background[:, 5:7, 8:10] == 103).all()  # filled in from around


def test_the_rim_of_an_object_is_its_own_where_the_table_is():
    labels = torch.zeros(1, 6, 6, dtype=torch.uint8)
    labels[0, 2:4, 2:4] = FIRST_OBJECT
    labels[0, :, 4:] = ARM
    soft = soft_masks((labels == FIRST_OBJECT)[:, None], labels)[0, 0]
    expected = torch.zeros(6, 6)
    expected[1:5, 1:4] = 1
    assert torch.equal(soft, expected)


# ------------------------------------------------------------------------------- the released judge


@pytest.fixture(scope="module")
def true_root(tmp_path_factory) -> Path:
    """60 scenes that no judge was trained on."""
    pytest.importorskip("mujoco")
    from data_tools.simulators.push import simulate

    root = tmp_path_factory.mktemp("scenes")
    simulate(root, 60, seed=9001, splits=(0, 0, 1), frames=16, truth=True, workers=2)
    return root


@pytest.fixture(scope="module")
def readings(true_root):
    """What the released judge says of objects after each of the `CHANGES`."""
    scenes = read_scenes(SequenceDataset(true_root, "test", 16, "none"))
    return {name: read_changed(load_judge(), scenes, changes) for name, changes in CHANGES.items()}


@pytest.mark.slow
def test_it_sees_where_objects_are_in_fresh_true_frames(true_root):
    scores = score_true_frames(load_judge(), SequenceDataset(true_root, "test", 16, "none"))
    rows = scores.objects
    assert len(rows) > 3000 and rows["mm"].median() <= 3
    pushed = rows[rows["pushed"] == 1]
    assert len(pushed) > 300 and pushed["mm"].median() <= 9  # they have turned, and the hand hides a part
    assert rows["found"].mean() > 0.97 and rows["iou"].mean() > 0.7
    assert scores.frames["hand_mm"].median() <= 6


@pytest.mark.slow
def test_it_reads_known_shifts_of_sharp_and_of_blurred_objects(readings):
    """Nothing else in the picture moves, not even the shadow: the judge must look at the object itself."""
    for name, limit in (
        ("moved by 5.8 pixels", 6),
        ("blurred, 2 pixels", 6),
        ("moved by 5.8 pixels and blurred, 2 pixels", 7),
    ):
        found = readings[name]
        assert len(found.errors) > 50 and np.median(found.errors[found.is_found]) <= limit, name
        assert found.is_found.mean() > 0.9, name


@pytest.mark.slow
def test_it_says_what_has_vanished(readings):
    found = {name: reading.is_found.mean() for name, reading in readings.items()}
    assert found["as it is"] > 0.95 and found["faded to 80 %"] > 0.9
    assert found["taken away"] < 0.15 and found["faded to 20 %"] < 0.15
    order = [found[f"faded to {percent} %"] for percent in (80, 60, 40, 20)]
    assert order == sorted(order, reverse=True)


@pytest.mark.slow
def test_training_is_a_function_of_the_seed(true_root):
    scenes = read_scenes(SequenceDataset(true_root, "test", 16, "none").subset(range(6)))
    losses = {}

    def train(seed: int) -> dict[str, torch.Tensor]:
        report = losses.setdefault(seed, [])
        judge = train_judge(scenes, 30, 40, 2, 0.002, seed, lambda step, loss: report.append(loss))
        return judge.state_dict()

    first = train(1)
    again = train(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["eye.fine.0.0.weight"], train(2)["eye.fine.0.0.weight"])
    finding, hand = losses[1][:30], losses[1][30:70]
    assert np.mean(finding[-5:]) < 0.8 * np.mean(finding[:5]) and np.mean(hand[-10:]) < np.mean(hand[:10])
