"""The data of a training: splits that fit the flags, the device, and the batches."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator
from pathlib import Path

import torch

from data_tools import layout
from data_tools.errors import InputError
from data_tools.index import index_if_new

from .. import runtime
from ..config import Config
from ..models.registry import MODELS
from ..processes import processes
from ..sequences import Batch, ResidentBatches, SequenceDataset, TrainingBatches
from .truth import ClipTruth


def complete_config(config: Config, dataset: SequenceDataset) -> Config:
    """Return the configuration with channels, height and width of the conditions as in the data.

    Raises `InputError` if flags and data do not fit each other.
    """
    model = config.model
    height, width, channels = dataset.frame_size
    has_poses = bool(dataset.info.pose_channels)
    if has_poses != model.takes_poses:
        has = "poses" if has_poses else "no poses"
        takes = " or ".join(name for name, entry in MODELS.items() if entry.takes_poses == has_poses)
        data = f"the data set {dataset.place} has {has}"
        raise InputError(f"--model {model.model}: {data}, which --model {takes} takes")
    size = model.image_width
    widths = model.entry.widths
    if width != size or (height != size and widths):
        if not widths or (height == width and width in widths):
            advice = f"give --image_width {width}"
        else:
            advice = f"make a copy that fits with `svg-data resize {dataset.place} OUT --image_width {size}`"
        frames = f"the frames of {dataset.place} are {height}x{width}"
        raise InputError(f"--image_width: found {size}, but {frames}; {advice}")
    model = dataclasses.replace(
        model,
        channels=channels,
        condition_dim=dataset.condition_dim,
        action_dim=dataset.action_columns if model.entry.integrates else 0,
        image_height=0 if widths else height,
    )
    return dataclasses.replace(config, model=model)


def prepare_root(root: str) -> None:
    """Index a data root that has no index yet. Raises `InputError` if it cannot be indexed or is not given.

    Several processes do not: all but one would have to wait.
    """
    if not root:
        expected = "expected the root of a data set (svg-data simulate makes one)"
        raise InputError(f"not given; {expected}", "data_root")
    if processes() == 1:
        index_if_new(Path(root))


def open_data(config: Config) -> tuple[Config, SequenceDataset, SequenceDataset | None]:
    """Return the completed configuration, the training split and the validation split, if there is one.

    Reads the index, which it writes if there is none yet, but no frame. Raises `InputError`.
    """
    data = config.data
    prepare_root(data.data_root)
    training = SequenceDataset(data.data_root, "train", data.n_past + data.n_future, data.conditions)
    config = complete_config(config, training)
    training.is_integrated = config.model.entry.integrates
    validation = None
    if (layout.read_index(training.root)["split"] == "validate").any():
        validation = SequenceDataset(data.data_root, "validate", data.n_eval, data.conditions)
        validation.is_integrated = config.model.entry.integrates
    return config, training, validation


def prepare_device(config: Config) -> torch.device:
    """Return the device to train on, after settings of the process for it. Raises `InputError`."""
    device = runtime.choose_device(config.train.device)
    if config.data.data_device == "cuda" and device.type != "cuda":
        raise InputError(f"--data_device cuda: the training runs on the {device.type}; use --data_device cpu")
    if config.train.cuda_graph and (device.type != "cuda" or processes() > 1):
        place = f"in {processes()} processes" if processes() > 1 else f"on the {device.type}"
        raise InputError(f"--cuda_graph: the training runs {place}, expected one on a GPU; leave it out")
    runtime.prepare(device)
    return device


class Batches:
    """The batches of a training, read from disk or from memory."""

    def __init__(self, config: Config, dataset: SequenceDataset, shard: slice, device: torch.device):
        """Prepare the batches, of which this process takes the `shard`.

        Raises `InputError` if a split that is to be kept in memory does not fit.
        """
        data = config.data
        self._workers = data.workers
        self._pin_memory = device.type == "cuda"
        self._accumulate = config.train.accumulate
        self._dataset = dataset
        self.from_disk = TrainingBatches(
            dataset, config.train.batch_size, config.train.seed, data.clip_start, shard, data.far_start
        )
        self._from_memory = None
        self._truth = None
        has_truth = config.train.needs_truth
        if data.data_device != "disk":
            place = device if data.data_device == "cuda" else torch.device("cpu")
            self._from_memory = ResidentBatches(self.from_disk, place, has_truth, data.workers)
        elif has_truth:
            self._truth = ClipTruth(dataset)

    def iterate(self, numbers: range, is_hurried: Callable[[], bool] = lambda: False) -> Generator[Batch]:
        """Yield the batches with these numbers in order, without waiting for readers once `is_hurried`."""
        if self._from_memory is not None:
            batches = self._from_memory.iterate(numbers, self._pin_memory)
        else:
            batches = self.from_disk.iterate(numbers, self._workers, self._pin_memory, is_hurried)
        with contextlib.closing(batches):
            for number, batch in zip(numbers, batches, strict=False):
                truth = {} if self._truth is None else self._truth.of(self.from_disk.clips(number))
                yield batch | truth

    def clips_of(self, step: int) -> list[tuple[str, int]]:
        """Return (path of the sequence, first frame) of this process's clips in an optimiser step."""
        paths = self._dataset.index["path"]
        clips = []
        for number in range(step * self._accumulate, (step + 1) * self._accumulate):
            for sequence, start, _ in self.from_disk.clips(number):
                clips.append((paths.iloc[sequence], start))
        return clips
