"""torch Datasets over an index: frames are read when asked for. And the stateless sampler."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data_tools import layout
from data_tools.layout import InputError

Batch = dict[str, torch.Tensor]


def condition_columns(info: layout.DatasetInfo, conditions: str) -> slice:
    """Which columns of [actions, positions] condition the model. Raises `InputError` if the data have none of them."""
    start = info.action_dim if conditions == "positions" else 0
    stop = {"all": info.condition_dim, "actions": info.action_dim, "positions": info.condition_dim, "none": 0}[conditions]
    if conditions in ("actions", "positions") and start == stop:
        raise InputError(f"--conditions {conditions}: data set {info.name} has no {conditions}; use --conditions none")
    return slice(start, stop)


class SequenceDataset(Dataset):
    """Clips of one split: ``dataset[sequence, start]`` or, from frame 0, ``dataset[sequence]``.

    An item is ``{"frames": uint8 [T,H,W,C], "conditions": float32 [T,D]}``; D counts the columns that `conditions` (all, actions,
    positions, none) selects. Only the clip's own frames are opened. Raises `InputError` naming the file if one cannot be read.
    """

    def __init__(self, root: str | Path, split: str, clip_length: int, conditions: str = "all"):
        self.root, self.split, self.clip_length = Path(root), split, clip_length
        self.info = layout.read_info(self.root)
        self.index = layout.read_index(self.root, split)
        self.columns = condition_columns(self.info, conditions)
        short = self.index[self.index["frames"] < clip_length]
        if len(short):
            raise InputError(
                f"{self.root / short['path'].iloc[0]}: found {short['frames'].iloc[0]} frames, expected at least {clip_length}; "
                "ask for fewer with --n_future (or --n_past, --n_eval)"
            )
        self.frames = self.index["frames"].to_numpy()
        height, width, channels = self.index.loc[0, ["height", "width", "channels"]]
        self.frame_size = (int(height), int(width), int(channels))  # (H,W,C), the same for all

    def __len__(self) -> int:
        return len(self.index)

    @property
    def condition_mean(self) -> list[float]:
        return self.info.mean[self.columns]

    @property
    def condition_std(self) -> list[float]:
        return self.info.std[self.columns]

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, np.ndarray]:
        sequence, start = key if isinstance(key, tuple) else (key, 0)
        folder, total = self.root / self.index["path"].iat[sequence], int(self.frames[sequence])
        paths = _frame_paths(folder, total)[start : start + self.clip_length]
        frames = np.stack([layout.read_frame(path, self.frame_size) for path in paths])
        conditions = self._conditions(folder, total)
        return {"frames": frames, "conditions": conditions[start : start + self.clip_length, self.columns]}

    def _conditions(self, folder: Path, rows: int) -> np.ndarray:
        tables = layout.read_conditions(folder, rows)
        found = tuple(tables[name].shape[1] if name in tables else 0 for name in ("actions", "positions"))
        expected = (self.info.action_dim, self.info.position_dim)
        if found != expected:
            raise InputError(
                f"{folder}: found {found[0]} action and {found[1]} position columns, expected {expected[0]} and {expected[1]}; "
                f"restore its tables or run `svg-data index {self.root}` again"
            )
        return np.concatenate([np.empty((rows, 0), np.float32), *tables.values()], axis=1)


@lru_cache(maxsize=65536)
def _first_number(folder: Path) -> int:
    return 0 if (folder / "0.png").exists() else 1


def _frame_paths(folder: Path, total: int) -> list[Path]:
    first = _first_number(folder)
    return [folder / f"{number}.png" for number in range(first, first + total)]


def collate(items: Sequence[dict[str, np.ndarray]]) -> Batch:
    """Items -> ``{"frames": uint8 [B,T,C,H,W], "conditions": float32 [B,T,D]}``; frames keep channels innermost in memory."""
    frames = torch.from_numpy(np.stack([item["frames"] for item in items])).permute(0, 1, 4, 2, 3)
    return {"frames": frames, "conditions": torch.from_numpy(np.stack([item["conditions"] for item in items]))}


class TrainingBatches(Dataset):
    """``batches[step]``: the batch of any training step, a function of the seed and the step alone.

    Every pass over the data is a new permutation; a clip starts at a random frame or, with ``clip_start="first"``, at 0. An
    unreadable file is returned as its `InputError`, so that it reaches the training process whole from a worker.
    """

    def __init__(self, dataset: SequenceDataset, batch_size: int, seed: int, clip_start: str):
        self.dataset, self.batch_size, self.seed, self.clip_start = dataset, batch_size, seed, clip_start

    def clips(self, step: int) -> list[tuple[int, int]]:
        """(sequence, first frame) of each clip of the step's batch."""
        clips = []
        for number in range(step * self.batch_size, (step + 1) * self.batch_size):
            epoch, place = divmod(number, len(self.dataset))
            sequence = int(_permutation(len(self.dataset), self.seed, epoch)[place])
            start = 0
            if self.clip_start == "random":
                starts = int(self.dataset.frames[sequence]) - self.dataset.clip_length + 1
                start = int(np.random.default_rng((self.seed, number, 1)).integers(starts))
            clips.append((sequence, start))
        return clips

    def __getitem__(self, step: int) -> Batch | InputError:
        try:
            return collate([self.dataset[clip] for clip in self.clips(step)])
        except InputError as error:
            return error

    def iterate(self, steps: range, workers: int, pin_memory: bool) -> Iterator[Batch]:
        """The batches of `steps` in order, read ahead by `workers` processes."""
        loader = DataLoader(self, batch_size=None, sampler=steps, num_workers=workers, pin_memory=pin_memory)
        for batch in loader:
            if isinstance(batch, InputError):
                raise batch
            yield batch


@lru_cache(maxsize=2)
def _permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch, 0)).permutation(length)


def evaluation_batches(dataset: SequenceDataset, batch_size: int, limit: int = 0) -> Iterator[tuple[range, Batch]]:
    """All sequences (or the first `limit`) from their first frame on: (sequence numbers, batch)."""
    total = min(limit, len(dataset)) if limit else len(dataset)
    for start in range(0, total, batch_size):
        numbers = range(start, min(start + batch_size, total))
        yield numbers, collate([dataset[number] for number in numbers])
