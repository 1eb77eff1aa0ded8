"""torch Datasets over an index: frames are read when asked for. And the stateless sampler."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from data_tools import layout
from data_tools.errors import InputError
from data_tools.pool import read_ahead
from data_tools.store import open_store, read_clips
from data_tools.truth import Truth, read_truth

from . import fingerprint, runtime
from .config import CONDITIONS
from .positions import FuturePositions

Batch = dict[str, torch.Tensor]


def condition_columns(info: layout.DatasetInfo, conditions: str) -> slice:
    """Which columns of [actions, positions] condition the model. Raises `InputError` if the data have none of them."""
    if conditions not in CONDITIONS:
        raise InputError(f"found {conditions!r}, expected one of {', '.join(CONDITIONS)}", "conditions")
    start = info.action_dim if conditions == "positions" else 0
    stop = {
        "all": info.condition_dim,
        "actions": info.action_dim,
        "positions": info.condition_dim,
        "none": 0,
    }[conditions]
    if conditions in ("actions", "positions") and start == stop:
        raise InputError(
            f"found {conditions}, but the data set {info.name} has no {conditions}; use none", "conditions"
        )
    return slice(start, stop)


def as_tensor(conditions: np.ndarray) -> torch.Tensor:
    """Conditions [...,T,D] as they are, poses [...,T,H,W,C] as [...,T,C,H,W]."""
    tensor = torch.from_numpy(np.ascontiguousarray(conditions))
    return tensor.movedim(-1, -3) if conditions.dtype == np.uint8 else tensor


class SequenceDataset(Dataset):
    """Clips of one split: ``dataset[sequence, start]`` or, from frame 0, ``dataset[sequence]``.

    An item is ``{"frames": uint8 [T,H,W,C], "conditions": float32 [T,D]}``; D counts the columns that `conditions` (all, actions,
    positions, none) selects. Of data with poses ``conditions`` are those, uint8 [T,H,W,C]. Only the clip's own frames are read.
    Sequences shorter than a clip are left out; `left_out` counts them. Raises `InputError` if all are, and, naming the file, if one
    cannot be read.

    With `future_positions` the conditions hold, after the observed frames of a clip (or of a sequence, in
    `read_conditions`), positions that a planner can know instead of the recorded ones.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        clip_length: int,
        conditions: str = "all",
        future_positions: FuturePositions | None = None,
    ):
        self.store = open_store(root, split)
        self.split, self.info, self.clip_length = split, self.store.info, clip_length
        if self.store.conditions.is_image and conditions != "all":
            raise InputError(
                f"found {conditions}, but the data set {self.info.name} has poses; leave it out", "conditions"
            )
        self.columns = condition_columns(self.info, conditions)
        self.conditions = self.store.conditions.select(self.columns)
        self.future_positions = future_positions if self.columns.stop > self.info.action_dim else None
        if self.future_positions is not None:
            self.future_positions.motion(self.info)  # columns that there are not, before anything is read
        self._numbers = np.flatnonzero(self.store.lengths >= clip_length)  # of the store's sequences
        if not len(self._numbers):
            index = self.store.index
            longest = index.iloc[int(self.store.lengths.argmax())]
            raise InputError(
                f"{self.store.root / longest['path']}: found {longest['frames']} frames, expected at least {clip_length}; "
                + (
                    "svg-rollout predicts it from its poses, and what is to be scored is in another split"
                    if self.conditions.is_image and index[layout.POSES_COLUMN].max() + 1 >= clip_length
                    else "ask for fewer (n_future, n_eval)"
                )
            )
        self.index = self.store.index.iloc[self._numbers].reset_index(drop=True)
        self.lengths = self.store.lengths[self._numbers]
        self.frame_size = self.store.frame_size  # (H,W,C), the same for all

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def root(self) -> Path:
        return self.store.root

    @property
    def left_out(self) -> int:
        return len(self.store.lengths) - len(self)

    @property
    def condition_dim(self) -> int:
        """Columns of the conditions, or channels of a pose."""
        return self.conditions.channels

    @property
    def condition_mean(self) -> list[float]:
        return self.info.mean[self.columns]

    @property
    def condition_names(self) -> list[str]:
        """Where each of the conditions' columns comes from, such as ``actions.csv column 1``."""
        return list(self.conditions.columns)

    @property
    def action_columns(self) -> int:
        """How many of the conditions' columns, the first ones, are actions; the others are positions."""
        return max(0, min(self.columns.stop, self.info.action_dim) - self.columns.start)

    @property
    def given(self) -> str:
        """What predictions of these clips are given besides the observed frames, in words."""
        if self.conditions.is_image:
            return "poses of the frames to come"
        actions, positions = self.action_columns, self.condition_dim - self.action_columns
        if not positions:
            return "actions alone" if actions else "none"
        told = (
            "true positions of the future"
            if self.future_positions is None
            else self.future_positions.describe(self.info)
        )
        return f"actions and {told}" if actions else told

    @property
    def condition_std(self) -> list[float]:
        return self.info.std[self.columns]

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, np.ndarray]:
        number, start = key if isinstance(key, tuple) else (key, 0)
        frames, conditions = self.store.read_clips(
            [(int(self._numbers[number]), start, start)], self.clip_length
        )
        return {"frames": frames[0], "conditions": self._of_clips(conditions)[0]}

    def batch(self, clips: Sequence[tuple[int, ...]]) -> Batch:
        """Return ``{"frames": uint8 [B,T,C,H,W], "conditions": float32 [B,T,D]}`` of clips (sequence, start).

        A third number is the frame of the sequence that stands in the place of the first one.
        Poses are uint8 [B,T,C,H,W]. Pictures keep their channels innermost in memory, as they lie on disk and as convolutions like
        them.
        """
        return self.as_batch(*self.store.read_clips(self.in_store(clips), self.clip_length))

    def in_store(self, clips: Sequence[tuple[int, ...]]) -> list[tuple[int, int, int]]:
        """Return the clips of `batch` as `Store.read_clips` takes them."""
        return [(int(self._numbers[number]), start, *(first or [start])) for number, start, *first in clips]

    def as_batch(self, frames: np.ndarray, conditions: np.ndarray) -> Batch:
        """Return what `Store.read_clips` has read as `batch` does."""
        frames = torch.from_numpy(frames).permute(0, 1, 4, 2, 3)
        return {"frames": frames, "conditions": as_tensor(self._of_clips(conditions))}

    def truth(self, number: int, start: int = 0, stop: int | None = None) -> Truth:
        """Read what a simulator wrote of the frames `start` to `stop` of a sequence: segmentation and object poses.

        Raises `InputError` if the data set was simulated without ``--truth``, or naming a damaged file.
        """
        path = str(self.index["path"].iat[number])
        stop = int(self.lengths[number]) if stop is None else stop
        return read_truth(self.store.root, path, self.frame_size[:2], start, stop)

    def files(self, limit: int = 0) -> dict[str, list[str]]:
        """Return the paths of the files that are read for the first `limit` sequences, or all, in groups: `Store.files`."""
        return self.store.files(self._numbers[: limit or None].tolist())

    def digest(self) -> str:
        """Return what tells data sets apart that lie at the same place one after the other.

        It covers the index and the statistics beside it; `svg.fingerprint` looks at the files.
        """
        files = (self.root / name for name in (layout.INDEX_FILE, layout.INFO_FILE))
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]

    def full_digest(self, limit: int = 0) -> str:
        """Return `digest` and, after a dash, that of the contents of `files`."""
        contents = "".join(contents for _, contents in fingerprint.take(self.files(limit)).values())
        return f"{self.digest()}-{hashlib.sha256(contents.encode()).hexdigest()[:16]}"

    @property
    def _needed(self) -> slice:
        """The columns without which a frame cannot be predicted: positions may follow from the actions."""
        by_actions = self.future_positions is not None and self.info.action_dim
        return slice(0, self.info.action_dim) if by_actions else self.columns

    def horizon(self, number: int) -> int | None:
        """Return how many frames after a sequence's first one have a condition, and so can be predicted.

        None without conditions: as many as one likes.
        """
        return self.store.horizon(int(self._numbers[number]), self._needed)

    def action_horizon(self, number: int) -> int | None:
        """Return the `horizon` that there would be if positions followed from the actions; None without actions."""
        return self.store.horizon(int(self._numbers[number]), slice(0, self.info.action_dim))

    def read_conditions(self, number: int, start: int, stop: int) -> torch.Tensor:
        """The conditions [T,...] of a sequence's frames from `start` to before `stop`, without the frames."""
        if not self.condition_dim:  # of any number of frames
            return torch.empty(stop - start, 0)
        sequence, given = int(self._numbers[number]), self.future_positions
        if given is None:
            return as_tensor(self._selected(self.store.read_conditions(sequence, start, stop)))
        return as_tensor(
            self._selected(given.replace(self.store.read_conditions(sequence, 0, stop), self.info))[start:]
        )

    def read_frames(self, number: int, start: int, stop: int) -> torch.Tensor:
        """The frames uint8 [T,C,H,W] of a sequence from `start` to before `stop`, without their conditions."""
        frames = np.empty((stop - start, *self.frame_size), np.uint8)
        self.store.read_frames(int(self._numbers[number]), start, frames)
        return torch.from_numpy(frames).permute(0, 3, 1, 2)

    def _of_clips(self, conditions: np.ndarray) -> np.ndarray:
        """Return what a model is given of the conditions [B,T,...] of clips."""
        if self.future_positions is not None:
            conditions = self.future_positions.replace(conditions, self.info)
        return self._selected(conditions)

    def _selected(self, conditions: np.ndarray) -> np.ndarray:
        """Those columns that condition the model; poses as they are."""
        return self.store.conditions.pick(conditions, self.columns)


class TrainingBatches:
    """``batches[step]``: the batch of any training step, a function of the seed and the step alone.

    Every pass over the data is a new permutation of its clips: one of each sequence, from a random frame or, with
    ``clip_start="first"``, from 0 on; or all of each, ``sliding`` by one frame or ``disjoint``. Of the share `far` of the clips the
    first frame is not the one before the second but any of the sequence. `share` is the part of each batch that this process takes.
    """

    def __init__(
        self,
        dataset: SequenceDataset,
        batch_size: int,
        seed: int,
        clip_start: str,
        share: slice = slice(None),
        far: float = 0.0,
    ):
        self.dataset, self.batch_size, self.seed, self.clip_start, self.share = (
            dataset,
            batch_size,
            seed,
            clip_start,
            share,
        )
        self.far = far
        length, lengths = dataset.clip_length, dataset.lengths.astype(np.int64)
        clips = {"sliding": lengths - length + 1, "disjoint": lengths // length}.get(
            clip_start, np.ones_like(lengths)
        )
        self._ends = np.cumsum(clips)  # of a pass's clips, after each sequence

    def clips(self, step: int) -> list[tuple[int, int, int]]:
        """(sequence, where the clip starts, first frame) of each clip of the step's batch."""
        clips = []
        for number in range(step * self.batch_size, (step + 1) * self.batch_size)[self.share]:
            epoch, place = divmod(number, int(self._ends[-1]))
            clip = int(_permutation(int(self._ends[-1]), self.seed, epoch)[place])
            sequence = int(np.searchsorted(self._ends, clip, side="right"))
            of_sequence = clip - (int(self._ends[sequence - 1]) if sequence else 0)
            start = self._start(number, sequence, of_sequence)
            clips.append((sequence, start, self._first_frame(number, sequence, start)))
        return clips

    def _first_frame(self, number: int, sequence: int, start: int) -> int:
        if not self.far:
            return start
        random = np.random.default_rng((self.seed, number, 3))
        return int(random.integers(self.dataset.lengths[sequence])) if random.random() < self.far else start

    def _start(self, number: int, sequence: int, clip: int) -> int:
        """The first frame of a sequence's clip, the `number`-th of all that are drawn."""
        if self.clip_start == "random":
            starts = int(self.dataset.lengths[sequence]) - self.dataset.clip_length + 1
            return int(np.random.default_rng((self.seed, number, 1)).integers(starts))
        return clip * self.dataset.clip_length if self.clip_start == "disjoint" else clip

    def __getitem__(self, step: int) -> Batch:
        return self.dataset.batch(self.clips(step))

    def iterate(
        self, steps: range, workers: int, pin_memory: bool, hurried: Callable[[], bool] = lambda: False
    ) -> Iterator[Batch]:
        """Yield the batches of `steps` in order, read ahead by `workers` processes.

        While `hurried` says so none of these is waited for. Raises `InputError` naming a file that cannot be read, and
        `data_tools.pool.WorkerEnded`.
        """
        with contextlib.closing(self._read(steps, workers, hurried)) as batches:
            for frames, conditions in batches:
                batch = self.dataset.as_batch(frames, conditions)
                yield {name: values.pin_memory() for name, values in batch.items()} if pin_memory else batch

    def _read(
        self, steps: range, workers: int, hurried: Callable[[], bool]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        store, length = self.dataset.store, self.dataset.clip_length
        jobs = (self.dataset.in_store(self.clips(step)) for step in steps)
        here = partial(store.read_clips, length=length)
        if workers:  # without this module, whose import takes them seconds
            yield from read_ahead(
                partial(read_clips, store.root, store.split, length), jobs, workers, here, hurried
            )
        else:
            yield from map(here, jobs)


class ResidentBatches:
    """The batches of `TrainingBatches` from memory: the whole split lies on `device`, and a batch is gathered there."""

    def __init__(self, batches: TrainingBatches, device: torch.device):
        """Raises `InputError` if the split does not fit."""
        self.batches, dataset = batches, batches.dataset
        total, (height, width, channels) = int(dataset.lengths.sum()), dataset.frame_size
        frame_bytes = height * width * channels + dataset.conditions.nbytes
        free, needed = runtime.free_memory(device), total * frame_bytes
        if needed > 0.9 * free:
            raise InputError(
                f"--data_device {device.type}: found {free / 1e9:.1f} GB free, expected {needed / 1e9:.1f} GB and a tenth more for "
                f"the {dataset.split} split of {dataset.root}; leave the flag out"
            )
        self.frames = torch.empty(total, height, width, channels, dtype=torch.uint8, device=device)
        outline = as_tensor(dataset.conditions.empty(0))
        self.conditions = torch.empty(total, *outline.shape[1:], dtype=outline.dtype, device=device)
        self.first = torch.from_numpy(np.cumsum(dataset.lengths) - dataset.lengths)
        for number, first in enumerate(self.first.tolist()):
            length = int(dataset.lengths[number])
            self.frames[first : first + length] = dataset.read_frames(number, 0, length).permute(0, 2, 3, 1)
            self.conditions[first : first + length] = dataset.read_conditions(number, 0, length)

    def __getitem__(self, step: int) -> Batch:
        sequences, starts, firsts = torch.tensor(self.batches.clips(step)).T
        rows = (self.first[sequences] + starts)[:, None] + torch.arange(
            self.batches.dataset.clip_length
        )  # [B,T]
        of_frames = rows.clone()
        of_frames[:, 0] = self.first[sequences] + firsts
        rows, of_frames = (places.to(self.frames.device, non_blocking=True) for places in (rows, of_frames))
        return {"frames": self.frames[of_frames].permute(0, 1, 4, 2, 3), "conditions": self.conditions[rows]}

    def iterate(self, steps: range, pin_memory: bool) -> Iterator[Batch]:
        """The batches of `steps` in order."""
        for step in steps:
            batch = self[step]
            pin = pin_memory and not self.frames.is_cuda
            yield {name: values.pin_memory() for name, values in batch.items()} if pin else batch


@lru_cache(maxsize=2)
def _permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch, 0)).permutation(length)


def evaluated(dataset: SequenceDataset, limit: int) -> int:
    """How many sequences are scored: the first `limit` or, with 0, all."""
    return min(limit, len(dataset)) if limit else len(dataset)


def evaluation_batches(
    dataset: SequenceDataset, batch_size: int, limit: int = 0
) -> Iterator[tuple[range, Batch]]:
    """All sequences (or the first `limit`) from their first frame on: (sequence numbers, batch)."""
    total = evaluated(dataset, limit)
    for start in range(0, total, batch_size):
        numbers = range(start, min(start + batch_size, total))
        yield numbers, dataset.batch([(number, 0) for number in numbers])
