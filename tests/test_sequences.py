"""Clips, their order and their place in time; the stateless sampler."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data_tools import folders, png
from data_tools.errors import InputError
from data_tools.index import build_index
from data_tools.tables import read_conditions
from svg import runtime, sequences
from svg.processes import World
from svg.sequences import ResidentBatches, SequenceDataset, TrainingBatches, evaluated, evaluation_batches

CPU = torch.device("cpu")


def test_an_item_is_the_clip_on_disk(data_root):
    dataset = SequenceDataset(data_root, "train", 6)
    folder = data_root / dataset.index["path"].iloc[3]
    item = dataset[3, 7]
    frames = [png.read_frame(folder / f"{number}.png", (64, 64, 3)) for number in range(7, 13)]
    np.testing.assert_array_equal(item["frames"], frames)
    read = read_conditions(folder, 15)
    np.testing.assert_array_equal(item["conditions"], np.hstack([read["actions"], read["positions"]])[7:13])
    assert dataset.conditions.columns == tuple(dataset.condition_names) and dataset.conditions.shape == (4,)


def test_time_contract(data_root):
    """conditions[t] = [actions[t], positions[t]]: the position in frame t, and the step to frame t+1."""
    item = SequenceDataset(data_root, "test", 15)[0]
    centres = np.array([np.argwhere(frame[..., 0] > 100).mean(0)[::-1] + 0.5 for frame in item["frames"]])
    actions, positions = item["conditions"][:, :2], item["conditions"][:, 2:]
    np.testing.assert_allclose(centres, positions, atol=1e-3)
    np.testing.assert_allclose(centres[1:], (positions + actions)[:-1], atol=1e-3)


@pytest.mark.parametrize(
    ("choice", "columns"), [("all", [0, 1, 2, 3]), ("actions", [0, 1]), ("positions", [2, 3]), ("none", [])]
)
def test_condition_columns(data_root, choice, columns):
    dataset = SequenceDataset(data_root, "test", 15, choice)
    everything = SequenceDataset(data_root, "test", 15)
    np.testing.assert_array_equal(dataset[0]["conditions"], everything[0]["conditions"][:, columns])
    assert dataset.condition_mean == [everything.info.mean[column] for column in columns]


def test_conditions_that_are_not_there(tmp_path):
    folders.write_sequence(
        tmp_path / "train" / "1", np.zeros((4, 64, 64, 3), np.uint8), np.zeros((4, 2)), None
    )
    build_index(tmp_path)
    with pytest.raises(
        InputError, match=r"^conditions: found positions, but the data set .* has no positions; use none"
    ):
        SequenceDataset(tmp_path, "train", 4, "positions")
    with pytest.raises(InputError, match="train/1: found 4 frames, expected at least 12; ask for fewer"):
        SequenceDataset(tmp_path, "train", 12)


def test_a_table_lost_after_indexing_is_missed(tmp_path):
    folders.write_sequence(
        tmp_path / "train" / "1", np.zeros((4, 64, 64, 3), np.uint8), np.zeros((4, 2)), np.ones((4, 3))
    )
    build_index(tmp_path)
    (tmp_path / "train" / "1" / "actions.csv").unlink()
    with pytest.raises(
        InputError, match="train/1: found 0 action and 3 position columns, expected 2 and 3; restore"
    ):
        SequenceDataset(tmp_path, "train", 4, "actions")[0]


def test_frames_numbered_from_one(tmp_path):
    frames = np.arange(4, dtype=np.uint8).repeat(64 * 64 * 3).reshape(4, 64, 64, 3)
    folders.write_sequence(tmp_path / "train" / "a", frames, None, None)
    for number in (3, 2, 1, 0):
        (tmp_path / "train" / "a" / f"{number}.png").rename(tmp_path / "train" / "a" / f"{number + 1}.png")
    build_index(tmp_path)
    assert SequenceDataset(tmp_path, "train", 2)[0, 1]["frames"][:, 0, 0, 0].tolist() == [1, 2]


def test_reading_is_lazy(data_root, monkeypatch):
    opened = []
    read = png.read_frame
    monkeypatch.setattr(
        png, "read_frame", lambda path, *rest: opened.append(Path(path).name) or read(path, *rest)
    )
    dataset = SequenceDataset(data_root, "train", 3)
    assert len(dataset) == 12 and not opened
    dataset[0, 5]
    assert opened == ["5.png", "6.png", "7.png"]


def test_a_batch_keeps_channels_innermost(data_root):
    dataset = SequenceDataset(data_root, "test", 3)
    batch = dataset.batch([(0, 0), (1, 0)])
    assert batch["frames"].shape == (2, 3, 3, 64, 64) and batch["frames"].dtype == torch.uint8
    assert batch["frames"].flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert batch["frames"][1, 2, 0, 5, 6] == dataset[1]["frames"][2, 5, 6, 0]
    assert batch["conditions"].shape == (2, 3, 4) and batch["conditions"].dtype == torch.float32


def test_sampler_is_a_function_of_seed_and_step(data_root):
    dataset = SequenceDataset(data_root, "train", 6)
    one, other = (TrainingBatches(dataset, 5, seed, "random") for seed in (1, 2))
    clips = [one.clips(step) for step in range(24)]
    assert (
        clips == [TrainingBatches(dataset, 5, 1, "random").clips(step) for step in reversed(range(24))][::-1]
    )
    assert clips != [other.clips(step) for step in range(24)]
    flat = [clip for batch in clips for clip in batch]
    for start in range(0, 120, 12):  # every pass over the data takes each sequence once, in another order
        assert sorted(sequence for sequence, *_ in flat[start : start + 12]) == list(range(12))
    assert len({tuple(s for s, *_ in flat[start : start + 12]) for start in range(0, 120, 12)}) == 10
    assert {start for _, start, _ in flat} == set(range(10))  # 15 frames, clips of 6: all starts occur
    first = TrainingBatches(dataset, 5, 1, "first")
    assert {start for step in range(5) for _, start, _ in first.clips(step)} == {0}


@pytest.mark.parametrize("kind", ["sliding", "disjoint"])
def test_every_clip_once_in_a_pass(data_root, kind):
    dataset = SequenceDataset(data_root, "train", 6)
    wanted = {
        (sequence, start) for sequence in range(12) for start in (range(10) if kind == "sliding" else (0, 6))
    }
    batches = TrainingBatches(dataset, 8, 3, kind)
    clips = [clip for step in range(len(wanted) // 8 * 2) for clip in batches.clips(step)]
    passes = clips[: len(wanted)], clips[len(wanted) :]
    for clips in passes:
        assert {(sequence, start) for sequence, start, _ in clips} == wanted and len(clips) == len(wanted)
    assert passes[0] != passes[1]
    assert all(start == first for clips in passes for _, start, first in clips)


def test_far_first_frames(data_root):
    """A share of the clips begins with any frame of its own sequence; from disk and from memory alike."""
    dataset = SequenceDataset(data_root, "train", 6)
    near, far = (TrainingBatches(dataset, 4, 1, "random", far=share) for share in (0.0, 0.5))
    clips = [clip for step in range(250) for clip in far.clips(step)]
    assert [clip[:2] for step in range(250) for clip in near.clips(step)] == [clip[:2] for clip in clips]
    moved = [(first, start) for _, start, first in clips if first != start]
    assert abs(len(moved) / 1000 - 0.5 * 14 / 15) < 0.05  # one of 15 is where it was
    assert {first for first, _ in moved} == set(range(15))
    for step, in_memory in enumerate(ResidentBatches(far, CPU).iterate(range(5), False)):
        batch, plain = far[step], near[step]
        for place, (sequence, _, first) in enumerate(far.clips(step)):
            expected = dataset.read_frames(sequence, first, first + 1)[0]
            assert torch.equal(batch["frames"][place, 0], expected)
        assert torch.equal(batch["frames"][:, 1:], plain["frames"][:, 1:])
        assert torch.equal(batch["conditions"], plain["conditions"])
        assert all(torch.equal(batch[name], in_memory[name]) for name in batch)


def test_batches_do_not_depend_on_workers(data_root):
    batches = TrainingBatches(SequenceDataset(data_root, "train", 6), 4, 1, "random")
    alone = list(batches.iterate(range(3, 6), workers=0, pin_memory=False))
    helped = list(batches.iterate(range(3, 6), workers=2, pin_memory=False))
    assert len(alone) == 3
    for a, b in zip(alone, helped, strict=True):
        assert torch.equal(a["frames"], b["frames"]) and torch.equal(a["conditions"], b["conditions"])


def test_poses_from_memory_are_those_from_disk(pose_root):
    batches = TrainingBatches(SequenceDataset(pose_root, "train", 4), 3, 1, "sliding")
    for a, b in zip(
        batches.iterate(range(5), 0, False),
        ResidentBatches(batches, CPU).iterate(range(5), False),
        strict=True,
    ):
        assert a["conditions"].shape == (3, 4, 3, 16, 32) and a["conditions"].dtype == torch.uint8
        assert torch.equal(a["frames"], b["frames"]) and torch.equal(a["conditions"], b["conditions"])
        assert (a["conditions"][0].float().mean() > 200).all()  # red lines on white


@pytest.mark.parametrize(("share", "workers"), [(slice(None), 0), (slice(2, 4), 2)])
def test_batches_from_memory_are_those_from_disk(data_root, share, workers, monkeypatch):
    monkeypatch.setattr(sequences, "GROUP", 2)
    batches = TrainingBatches(SequenceDataset(data_root, "train", 6, "actions"), 4, 1, "random", share)
    for a, b in zip(
        batches.iterate(range(7), 0, False),
        ResidentBatches(batches, CPU, workers=workers).iterate(range(7), False),
        strict=True,
    ):
        assert torch.equal(a["frames"], b["frames"]) and torch.equal(a["conditions"], b["conditions"])
        assert a["frames"].stride() == b["frames"].stride()


def test_shares_make_up_the_batch(data_root):
    dataset = SequenceDataset(data_root, "train", 6)
    whole = TrainingBatches(dataset, 6, 1, "random").clips(3)
    parts = [TrainingBatches(dataset, 6, 1, "random", World(rank, 3).shard(6)).clips(3) for rank in range(3)]
    assert [clip for part in parts for clip in part] == whole and {len(part) for part in parts} == {2}


def test_a_split_that_does_not_fit_into_memory(data_root, monkeypatch):
    monkeypatch.setattr(runtime, "free_memory", lambda device: 2_000_000)
    batches = TrainingBatches(SequenceDataset(data_root, "train", 6), 4, 1, "random")
    with pytest.raises(
        InputError,
        match=r"--data_device cpu: found 0\.0 GB free, expected 0\.0 GB .* train split of .*leave the flag",
    ):
        ResidentBatches(batches, CPU)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_frame_is_named(tmp_path, workers):
    folders.write_sequence(tmp_path / "train" / "1", np.zeros((4, 64, 64, 3), np.uint8), None, None)
    build_index(tmp_path)
    (tmp_path / "train" / "1" / "2.png").write_bytes(b"x")
    batches = TrainingBatches(SequenceDataset(tmp_path, "train", 4), 1, 1, "random")
    with pytest.raises(InputError, match=r"2\.png: not a PNG image \(1 bytes\)") as error:
        list(batches.iterate(range(1), workers, pin_memory=False))
    assert "\n" not in str(error.value)


def test_evaluation_batches_cover_the_split_once(data_root):
    dataset = SequenceDataset(data_root, "test", 6)
    batches = evaluation_batches(evaluated(dataset, 0), 2)
    assert [list(numbers) for numbers in batches] == [[0, 1], [2, 3], [4]]
    assert [list(numbers) for numbers in evaluation_batches(evaluated(dataset, 3), 2)] == [[0, 1], [2]]
