"""Read clips of an indexed data set as tensors, and draw the batches of a training without state."""

import contextlib
import copy
import hashlib
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from data_tools import layout
from data_tools.command import tell
from data_tools.errors import InputError
from data_tools.pool import in_order, read_ahead
from data_tools.store import open_store, read_clips
from data_tools.truth import Truth, read_truth

from . import fingerprint, runtime
from .config import CONDITIONS
from .positions import FuturePositions

Batch = dict[str, torch.Tensor]

STEPS_AHEAD = 100
"""How many steps before it is read a sequence of a remote data set begins to be downloaded."""
GROUP = 16
"""Sequences that are read into memory at a time."""
ORDERS_KEPT = 3
"""How many passes over the data have their order in memory: this one and those that are looked ahead to."""


def condition_columns(info: layout.DatasetInfo, conditions: str) -> slice:
    """Return the columns of [actions, positions] that condition the model.

    Raises `InputError` if the data have none of them.
    """
    if conditions not in CONDITIONS:
        raise InputError(f"found {conditions!r}, expected one of {', '.join(CONDITIONS)}", "conditions")
    columns = {
        "all": slice(0, info.condition_dim),
        "actions": slice(0, info.action_dim),
        "positions": slice(info.action_dim, info.condition_dim),
        "none": slice(0, 0),
    }[conditions]
    if conditions in ("actions", "positions") and columns.start == columns.stop:
        found = f"found {conditions}, but the data set {info.name} has no {conditions}"
        raise InputError(f"{found}; use none", "conditions")
    return columns


def as_tensor(conditions: np.ndarray) -> torch.Tensor:
    """Return conditions [...,T,D] as a tensor, poses [...,T,H,W,C] as one [...,T,C,H,W]."""
    tensor = torch.from_numpy(np.ascontiguousarray(conditions))
    return tensor.movedim(-1, -3) if conditions.dtype == np.uint8 else tensor


class SequenceDataset(Dataset):
    """The clips of one split: ``dataset[sequence, start]`` or, from frame 0, ``dataset[sequence]``.

    An item is ``{"frames": uint8 [T,H,W,C], "conditions": float32 [T,D]}``; D counts the columns that
    `conditions` (all, actions, positions, none) selects. Of data with poses ``conditions`` are those, uint8
    [T,H,W,C]. Only the clip's own frames are read. Sequences shorter than a clip are left out; `left_out`
    counts them. Raises `InputError` if all are, and, naming the file, if one cannot be read.

    With `future_positions` the recorded positions after the observed frames of a clip (or of a sequence, in
    `read_conditions`) are replaced by positions that a planner can know.
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
            found = f"found {conditions}, but the data set {self.info.name} has poses"
            raise InputError(f"{found}; leave it out", "conditions")
        self.columns = condition_columns(self.info, conditions)
        self.is_integrated = False
        """Whether the model that is given these conditions reads no positions of the future."""
        self.conditions = self.store.conditions.select(self.columns)
        self.future_positions = future_positions if self.columns.stop > self.info.action_dim else None
        if self.future_positions is not None:
            self.future_positions.motion(self.info)  # raises for unknown columns before anything is read
        self._numbers = np.flatnonzero(self.store.lengths >= clip_length)  # of sequences of the store
        if not len(self._numbers):
            raise self._too_short()
        self.index = self.store.index  # of a million sequences a copy would take a hundred megabytes
        if self.left_out:
            self.index = self.index.iloc[self._numbers].reset_index(drop=True)
        self.lengths = self.store.lengths[self._numbers]
        self.frame_size = self.store.frame_size  # (H,W,C), the same for all

    def _too_short(self) -> InputError:
        """Return the error for a split whose sequences are all shorter than a clip."""
        index = self.store.index
        longest = index.iloc[int(self.store.lengths.argmax())]
        found = f"found {longest['frames']} frames, expected at least {self.clip_length}"
        advice = "ask for fewer (n_future, n_eval)"
        if self.conditions.is_image and index[layout.POSES_COLUMN].max() + 1 >= self.clip_length:
            advice = "svg-rollout predicts it from its poses, and sequences for scores are in another split"
        return InputError(f"{self.store.root / longest['path']}: {found}; {advice}")

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def root(self) -> Path:
        """Return the data root."""
        return self.store.root

    @property
    def place(self) -> str:
        """Return the data root in words: its address, if it is a remote one, instead of the cache."""
        return self.store.place

    @property
    def left_out(self) -> int:
        """Return the number of sequences that are shorter than a clip."""
        return len(self.store.lengths) - len(self)

    @property
    def condition_dim(self) -> int:
        """Return the number of columns of the conditions, or of channels of a pose."""
        return self.conditions.channels

    @property
    def condition_mean(self) -> list[float]:
        """Return the mean of each column of the conditions over the training split."""
        return self.info.mean[self.columns]

    @property
    def condition_names(self) -> list[str]:
        """Return where each column of the conditions comes from, such as ``actions.csv column 1``."""
        return list(self.conditions.columns)

    @property
    def action_columns(self) -> int:
        """Return how many of the first columns of the conditions are actions; the others are positions."""
        return max(0, min(self.columns.stop, self.info.action_dim) - self.columns.start)

    @property
    def given(self) -> str:
        """Return in words what predictions of these clips are given besides the observed frames."""
        if self.conditions.is_image:
            return "poses of the frames to come"
        actions, positions = self.action_columns, self.condition_dim - self.action_columns
        if not positions:
            return "actions alone" if actions else "none"
        if self.is_integrated:
            return "actions, and positions in the observed frames alone"
        words = "true positions of the future"
        if self.future_positions is not None:
            words = self.future_positions.describe(self.info)
        return f"actions and {words}" if actions else words

    @property
    def condition_std(self) -> list[float]:
        """Return the standard deviation of each column of the conditions over the training split."""
        return self.info.std[self.columns]

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, np.ndarray]:
        number, start = index if isinstance(index, tuple) else (index, 0)
        frames, conditions = self.store.read_clips(
            [(int(self._numbers[number]), start, start)], self.clip_length
        )
        return {"frames": frames[0], "conditions": self._of_clips(conditions)[0]}

    def batch(self, clips: Sequence[tuple[int, ...]]) -> Batch:
        """Return ``{"frames": uint8 [B,T,C,H,W], "conditions": float32 [B,T,D]}`` of clips (sequence, start).

        A third number is the frame of the sequence that stands in the place of the first one.
        Poses are uint8 [B,T,C,H,W]. Pictures keep their channels innermost in memory, as they lie on disk and
        as convolutions like them.
        """
        return self.as_batch(*self.store.read_clips(self.in_store(clips), self.clip_length))

    def in_store(self, clips: Sequence[tuple[int, ...]]) -> list[tuple[int, int, int]]:
        """Return the clips of `batch` as `Store.read_clips` takes them."""
        return [
            (int(self._numbers[number]), start, first[0] if first else start)
            for number, start, *first in clips
        ]

    def as_batch(self, frames: np.ndarray, conditions: np.ndarray) -> Batch:
        """Return frames and conditions that `Store.read_clips` has read in the form of `batch`."""
        videos = torch.from_numpy(frames).permute(0, 1, 4, 2, 3)
        return {"frames": videos, "conditions": as_tensor(self._of_clips(conditions))}

    def truth(self, number: int, start: int = 0, stop: int | None = None) -> Truth:
        """Return segmentation and object poses of the frames `start` to `stop` of a simulated sequence.

        Raises `InputError` if the data set was simulated without ``--truth``, or naming a damaged file.
        """
        path = str(self.index["path"].iat[number])
        stop = int(self.lengths[number]) if stop is None else stop
        return read_truth(self.store.root, path, self.frame_size[:2], start, stop)

    def recorded_positions(self, number: int, start: int, stop: int) -> np.ndarray:
        """Return the recorded positions of the frames `start` to `stop` of a sequence, float32 [T,P].

        They are those of the data, whatever conditions the clips have.
        """
        conditions = self.store.read_conditions(int(self._numbers[number]), start, stop)
        return conditions[:, self.info.action_dim :]

    def subset(self, numbers: Sequence[int] | np.ndarray) -> "SequenceDataset":
        """Return a dataset of some of the sequences, by their numbers in this one."""
        numbers = np.asarray(numbers, int)
        part = copy.copy(self)
        part._numbers = self._numbers[numbers]
        part.index = self.index.iloc[numbers].reset_index(drop=True)
        part.lengths = self.lengths[numbers]
        return part

    def files(self, limit: int = 0) -> dict[str, list[str]]:
        """Return `Store.files` of the first `limit` sequences, or all."""
        return self.store.files(self._numbers[: limit or None].tolist())

    def digest(self) -> str:
        """Return a digest of index and ``dataset.json``; `svg.fingerprint` compares the other files."""
        files = (self.root / name for name in (layout.INDEX_FILE, layout.INFO_FILE))
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]

    def order(self, ends: np.ndarray, seed: int, epoch: int) -> np.ndarray:
        """Return the order of all clips in a pass, int64; `ends` counts them up to each sequence's last."""
        return self.store.order(self._numbers, ends, seed, epoch)

    def full_digest(self, limit: int = 0) -> str:
        """Return `digest` and, after a dash, that of the contents of `files`."""
        contents = "".join(contents for _, contents in fingerprint.take(self.files(limit)).values())
        return f"{self.digest()}-{hashlib.sha256(contents.encode()).hexdigest()[:16]}"

    @property
    def _needed(self) -> slice:
        """Return the columns that a prediction needs from the data: positions may follow from the actions."""
        by_actions = self.future_positions is not None and self.info.action_dim
        return slice(0, self.info.action_dim) if by_actions else self.columns

    def horizon(self, number: int) -> int | None:
        """Return how many frames after a sequence's first one have a condition, and so can be predicted.

        None if there are no conditions, which limit nothing.
        """
        return self.store.horizon(int(self._numbers[number]), self._needed)

    def action_horizon(self, number: int) -> int | None:
        """Return the `horizon` if positions follow from the actions; None without actions."""
        return self.store.horizon(int(self._numbers[number]), slice(0, self.info.action_dim))

    def read_conditions(self, number: int, start: int, stop: int) -> torch.Tensor:
        """Return the conditions [T,...] of the frames of a sequence from `start` to before `stop`."""
        if not self.condition_dim:  # there is no limit to the number of frames
            return torch.empty(stop - start, 0)
        sequence = int(self._numbers[number])
        if self.future_positions is None:
            return as_tensor(self._selected(self.store.read_conditions(sequence, start, stop)))
        recorded = self.store.read_conditions(sequence, 0, stop)
        conditions = self.future_positions.replace(recorded, self.info)
        return as_tensor(self._selected(conditions)[start:])

    def read_frames(self, number: int, start: int, stop: int) -> torch.Tensor:
        """Return the frames uint8 [T,C,H,W] of a sequence from `start` to before `stop`."""
        frames = np.empty((stop - start, *self.frame_size), np.uint8)
        self.store.read_frames(int(self._numbers[number]), start, frames)
        return torch.from_numpy(frames).permute(0, 3, 1, 2)

    def _of_clips(self, conditions: np.ndarray) -> np.ndarray:
        """Return the part of the conditions [B,T,...] of clips that a model is given."""
        if self.future_positions is not None:
            conditions = self.future_positions.replace(conditions, self.info)
        return self._selected(conditions)

    def _selected(self, conditions: np.ndarray) -> np.ndarray:
        """Return the columns that condition the model; poses as they are."""
        return self.store.conditions.pick(conditions, self.columns)


class TrainingBatches:
    """The batch of any training step, ``batches[step]``, as a function of the seed and the step alone.

    Every pass over the data is a new permutation of its clips: one of each sequence, from a random frame or,
    with ``clip_start="first"``, from 0 on; or all of each, ``sliding`` by one frame or ``disjoint``. The
    store draws it: that of data for object storage reads few files at a time, and the clips of a batch are
    sorted so that processes, which take parts of it, read different files.

    Of the share `far` of the clips the first frame is not the one before the second but any of the sequence.
    `share` is the part of each batch that this process takes.
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
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.clip_start = clip_start
        self.share = share
        self.far = far
        length = dataset.clip_length
        lengths = dataset.lengths.astype(np.int64)
        clips = np.ones_like(lengths)  # of each sequence in a pass
        if clip_start == "sliding":
            clips = lengths - length + 1
        elif clip_start == "disjoint":
            clips = lengths // length
        self._ends = np.cumsum(clips)  # number of clips of a pass, up to and including each sequence
        self._orders: dict[int, np.ndarray] = {}  # of the passes that were used last

    def clips(self, step: int) -> list[tuple[int, int, int]]:
        """Return (sequence, start, first frame) of each clip in the batch of a step."""
        clips = []
        total = int(self._ends[-1])
        for number in self._numbers(step):
            epoch, place = divmod(number, total)
            clip = int(self._order(epoch)[place])
            sequence = int(np.searchsorted(self._ends, clip, side="right"))
            of_sequence = clip - (int(self._ends[sequence - 1]) if sequence else 0)
            start = self._start(number, sequence, of_sequence)
            clips.append((sequence, start, self._first_frame(number, sequence, start)))
        return clips

    def _numbers(self, step: int) -> list[int]:
        """Return which of all clips that are drawn are this process's part of a batch."""
        total, lanes = int(self._ends[-1]), self.dataset.store.lanes
        numbers = range(step * self.batch_size, (step + 1) * self.batch_size)
        return sorted(numbers, key=lambda number: number % total % lanes)[self.share]

    def _order(self, epoch: int) -> np.ndarray:
        """Return the order of the clips of a pass."""
        if epoch not in self._orders:
            if len(self._orders) == ORDERS_KEPT:
                del self._orders[next(iter(self._orders))]
            self._orders[epoch] = self.dataset.order(self._ends, self.seed, epoch)
        return self._orders[epoch]

    def _first_frame(self, number: int, sequence: int, start: int) -> int:
        """Return the first frame of the `number`-th clip that is drawn."""
        if not self.far:
            return start
        random = np.random.default_rng((self.seed, number, 3))
        return int(random.integers(self.dataset.lengths[sequence])) if random.random() < self.far else start

    def _start(self, number: int, sequence: int, clip: int) -> int:
        """Return where a clip of a sequence starts; it is the `number`-th of all that are drawn."""
        if self.clip_start == "random":
            starts = int(self.dataset.lengths[sequence]) - self.dataset.clip_length + 1
            return int(np.random.default_rng((self.seed, number, 1)).integers(starts))
        return clip * self.dataset.clip_length if self.clip_start == "disjoint" else clip

    def __getitem__(self, step: int) -> Batch:
        return self.dataset.batch(self.clips(step))

    def iterate(
        self, steps: range, workers: int, pin_memory: bool, hurried: Callable[[], bool] = lambda: False
    ) -> Generator[Batch]:
        """Yield the batches of `steps` in order, read ahead by `workers` processes.

        While `hurried` returns True no process is waited for. Raises `InputError` naming a file that cannot
        be read, and `data_tools.pool.WorkerEnded`.
        """
        with contextlib.closing(self._read(steps, workers, hurried)) as batches:
            for frames, conditions in batches:
                batch = self.dataset.as_batch(frames, conditions)
                yield {name: values.pin_memory() for name, values in batch.items()} if pin_memory else batch

    def _read(
        self, steps: range, workers: int, hurried: Callable[[], bool]
    ) -> Generator[tuple[np.ndarray, np.ndarray]]:
        """Yield frames and conditions of the batches of `steps` as `Store.read_clips` returns them."""
        store = self.dataset.store
        length = self.dataset.clip_length
        jobs = self._jobs(steps)
        here = partial(store.read_clips, length=length)
        if workers:  # they do not import this module, which takes seconds
            work = partial(read_clips, store.root, store.split, length)
            yield from read_ahead(work, jobs, workers, here, hurried)
        else:
            yield from map(here, jobs)

    def _jobs(self, steps: range) -> Iterator[list[tuple[int, int, int]]]:
        """Yield the clips of the batches of `steps`, and let the store know of later ones."""
        store = self.dataset.store
        ahead = STEPS_AHEAD if store.is_remote else 0
        expected = steps.start
        for step in steps:
            while expected < step + ahead:
                later = self.dataset.in_store(self.clips(expected))
                store.expect(sequence for sequence, _, _ in later)
                expected += 1
            yield self.dataset.in_store(self.clips(step))


class ResidentBatches:
    """The batches of `TrainingBatches` from memory: the split is on `device`, where batches are gathered.

    With `has_truth` a batch also has ``"labels"`` uint8 [B,T,H,W] and ``"poses"`` float32 [B,T,N,7], see
    `data_tools.truth`. The split is read by so many processes; 0 reads it in this one. Raises `InputError` if
    it does not fit, and for a data set without truth that is asked for.
    """

    def __init__(
        self, batches: TrainingBatches, device: torch.device, has_truth: bool = False, workers: int = 0
    ):
        self.batches = batches
        dataset = batches.dataset
        total = int(dataset.lengths.sum())
        of_frame = _read_sequences(dataset, has_truth, range(1))
        frame_bytes = sum(values[0].nbytes for values in of_frame.values())
        free = runtime.free_memory(device)
        needed = total * frame_bytes
        if needed > 0.9 * free:
            found = f"found {free / 1e9:.1f} GB free"
            expected = f"expected {needed / 1e9:.1f} GB and a tenth more"
            purpose = f"for the {dataset.split} split of {dataset.place}"
            raise InputError(
                f"--data_device {device.type}: {found}, {expected} {purpose}; leave the flag out"
            )
        self.device = device
        self.values = {
            name: torch.empty(total, *values.shape[1:], dtype=torch.from_numpy(values).dtype, device=device)
            for name, values in of_frame.items()
        }
        self.first = torch.from_numpy(np.cumsum(dataset.lengths) - dataset.lengths)
        groups = [range(start, min(start + GROUP, len(dataset))) for start in range(0, len(dataset), GROUP)]
        row = 0
        for group in in_order(partial(_read_sequences, dataset, has_truth), groups, workers):
            count = len(group["frames"])
            for name, values in group.items():
                self.values[name][row : row + count] = torch.from_numpy(values)
            row += count

    def _rows(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return where all of the frames of a batch are [B,T], and where those that are shown are."""
        sequences, starts, firsts = torch.tensor(self.batches.clips(step)).T
        times = torch.arange(self.batches.dataset.clip_length)
        rows = (self.first[sequences] + starts)[:, None] + times
        shown = rows.clone()
        shown[:, 0] = self.first[sequences] + firsts
        return rows, shown

    def iterate(self, steps: range, pin_memory: bool) -> Generator[Batch]:
        """Yield the batches of `steps` in order. Which clips the next one has is drawn meanwhile."""
        with ThreadPoolExecutor(1) as ahead:
            upcoming = ahead.submit(self._rows, steps.start)
            for step in steps:
                rows, shown = (places.to(self.device, non_blocking=True) for places in upcoming.result())
                upcoming = ahead.submit(self._rows, step + steps.step)
                batch = {name: values[rows] for name, values in self.values.items() if name != "frames"}
                batch["frames"] = self.values["frames"][shown].permute(0, 1, 4, 2, 3)
                pin = pin_memory and self.device.type != "cuda"
                yield {name: values.pin_memory() for name, values in batch.items()} if pin else batch


def _read_sequences(dataset: SequenceDataset, has_truth: bool, numbers: range) -> dict[str, np.ndarray]:
    """Return all frames of some sequences, one after the other, with conditions and truth by name."""
    groups: dict[str, list[np.ndarray]] = defaultdict(list)
    for number in numbers:
        length = int(dataset.lengths[number])
        groups["frames"].append(dataset.read_frames(number, 0, length).permute(0, 2, 3, 1).numpy())
        groups["conditions"].append(dataset.read_conditions(number, 0, length).numpy())
        if has_truth:
            truth = dataset.truth(number)
            groups["labels"].append(truth.segmentation)
            groups["poses"].append(truth.padded_poses())
    return {name: np.concatenate(values) for name, values in groups.items()}


def evaluated(dataset: SequenceDataset, limit: int) -> int:
    """Return the number of sequences that are scored: the first `limit` or, with 0, all."""
    return min(limit, len(dataset)) if limit else len(dataset)


def report_left_out(dataset: SequenceDataset) -> None:
    """Print to stderr how many sequences of a split are too short to be used."""
    if dataset.left_out:
        split = f"{dataset.place}/{dataset.split}"
        total = dataset.left_out + len(dataset)
        reason = f"are shorter than {dataset.clip_length} frames and left out"
        tell(f"{split}: {dataset.left_out} of {total} sequences {reason}", error=True)


def evaluation_batches(total: int, batch_size: int) -> list[range]:
    """Return the numbers of the sequences of each batch in which `total` sequences are scored."""
    return [range(start, min(start + batch_size, total)) for start in range(0, total, batch_size)]
