"""The configuration of a run: frozen dataclasses.

Their fields are the command-line flags and the keys of ``config.json``. A field says all that there is to a
flag (`_flag`): default, help text, choices, bounds and family. Every dataclass checks itself when it is made,
so that no invalid configuration exists.
"""

import dataclasses
import json
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from typing import Any

from data_tools.errors import InputError
from data_tools.json_files import read_dataclass

from .models.registry import BACKBONES, MODELS, ModelEntry

SCHEMA_VERSION = 1
POSITIONS = ("true", "integrated", "held")  # see `svg.positions`
CONDITIONS = ("all", "actions", "positions", "none")
TRACKERS = ("none", "tensorboard", "trackio", "wandb")  # see `svg.training.trackers`
MAX_NUMBER, MAX_CHANNELS = 10**9, 65_536
"""Largest integers of flags without a `most` of their own: one beyond them is a slip, or malice in a file."""
OLD_MODELS = {backbone: {"model": "svg", "backbone": backbone} for backbone in BACKBONES}
"""Old spellings of ``--model``, which named the backbone: {value: the flags that it means}."""


def _flag(
    default: Any,
    help: str,
    choices: Collection[str | int] | None = None,
    family: str = "",
    old: dict[str, dict[str, str]] | None = None,
    **bounds: float,
) -> Any:
    """Return a dataclass field that is a flag.

    `family` names the models that use it (`ModelEntry.families`), "" for all. `old` are old spellings of its
    values. `bounds` are those of a number, which is never negative: above, below, most.
    """
    metadata = {"help": help, "choices": choices, "family": family, "old": old or {}, **bounds}
    return field(default=default, metadata=metadata)


def _check_fields(section: Any, most: int = MAX_NUMBER) -> None:
    """Raise `InputError` for a value out of its choices or bounds; `most` holds for integers without one."""
    for item in fields(section):
        value = getattr(section, item.name)
        choices = item.metadata.get("choices")
        if choices and value not in choices:
            raise InputError(f"found {value!r}, expected one of {', '.join(map(str, choices))}", item.name)
        if type(value) in (int, float):
            _check_number(item, value, most)


def _check_number(item: dataclasses.Field, value: float, most: int) -> None:
    """Raise `InputError` unless a number is within the bounds of its field."""
    above, below = item.metadata.get("above"), item.metadata.get("below")
    most = item.metadata.get("most", most if type(value) is int else sys.float_info.max)
    if above is not None and not value > above:
        expected = f"a number above {above}"
    elif not value >= 0:  # nor nan
        expected = "a number of at least 0"
    elif below is not None and not value < below:
        expected = f"a number below {below}"
    elif value > most:
        expected = f"at most {most:g}" if type(value) is float else f"at most {most}"
    else:
        return
    raise InputError(f"found {value}, expected {expected}", item.name)


@dataclass(frozen=True)
class DataConfig:
    """The data, and the clips that are taken of them."""

    data_root: str = _flag("", "root of the data set, with index.csv (see svg-data)")
    n_past: int = _flag(2, "observed frames", above=0)
    n_future: int = _flag(10, "frames predicted in training", above=0)
    n_eval: int = _flag(12, "frames of a clip in validation, observed ones included")
    clip_start: str = _flag(
        "random",
        "training clips: one of each sequence in every pass, from a random or its first frame on, or all "
        "that there are, overlapping (sliding) or one after the other (disjoint)",
        ("random", "first", "sliding", "disjoint"),
    )
    far_start: float = _flag(
        0.0,
        "share of the training clips whose given frame is any of the sequence instead of the one before the "
        "second frame",
        most=1,
    )
    augment: float = _flag(
        0.0,
        "with poses: range of the random shifts and scales of training clips, e.g. 0.3; 0: none",
        most=1,
    )
    conditions: str = _flag("all", "columns that condition the model", CONDITIONS)
    workers: int = _flag(0, "processes that read data; 0 reads in the training process", most=1024)
    data_device: str = _flag(
        "disk",
        "place of the training split: on disk, or read once as a whole into the memory of this device",
        ("disk", "cpu", "cuda"),
    )

    def __post_init__(self):
        _check_fields(self)
        if self.n_eval <= self.n_past:
            advice = f"expected more than --n_past {self.n_past}: nothing would be predicted"
            raise InputError(f"found {self.n_eval}, {advice}", "n_eval")


@dataclass(frozen=True)
class ModelConfig:
    """The model: which one it is, and the sizes of its parts.

    One class holds the flags of all models, since ``config.json`` and ``--help`` list them side by side. A
    flag with a `family` is refused for models that do not use it.
    """

    model: str = _flag(
        "svg",
        "predictor: svg, of robots from actions and positions; objects, of robots from actions alone, whose "
        "objects keep their shape; or pose_cvae, of a person from poses; vgg and dcgan mean svg with that "
        "--backbone",
        MODELS,
        old=OLD_MODELS,
    )
    backbone: str = _flag("vgg", "encoder and decoder of svg", BACKBONES, "svg")
    recurrence: str = _flag(
        "vector", "fully connected LSTMs or convolutional ones on a grid", ("vector", "spatial"), "svg"
    )
    grid: int = _flag(
        8, "height and width of the grid of the spatial form's features and latents", (8, 16), "svg"
    )
    image_width: int = _flag(
        64,
        "width of the frames in pixels: 64 or 128, and as high; with pose_cvae any width and height",
        above=0,
    )
    width: float = _flag(
        1.0,
        "multiplier of the backbone's channels; 1 is the published size",
        family="svg",
        above=0,
        most=64,
    )
    norm: str = _flag("batch", "normalisation in encoder and decoder", ("batch", "group"))
    g_dim: int = _flag(
        128,
        "features of encoder output and decoder input (channels in the spatial form, in objects and in "
        "pose_cvae)",
        above=0,
    )
    z_dim: int = _flag(64, "latent size (channels in the spatial form)", above=0)
    rnn_size: int = _flag(
        256,
        "hidden size of the frame predictor (channels in the spatial form)",
        family="svg and objects",
        above=0,
    )
    latent_rnn_size: int = _flag(0, "hidden size of posterior and prior; 0: as rnn_size", family="svg")
    predictor_rnn_layers: int = _flag(2, "LSTM layers of the frame predictor", family="svg", above=0, most=64)
    posterior_rnn_layers: int = _flag(1, "LSTM layers of the posterior", family="svg", above=0, most=64)
    prior_rnn_layers: int = _flag(1, "LSTM layers of the learned prior", family="svg", above=0, most=64)
    prior: str = _flag("learned", "learned prior (SVG-LP) or N(0,I) (SVG-FP)", ("learned", "fixed"), "svg")
    last_frame_skip: bool = _flag(
        False, "skips from the previous frame instead of the last observed one", family="svg"
    )
    skips: str = _flag(
        "observed",
        "skips of the frames to come: from the last observed frame, or from the one before it, as in the "
        "published code",
        ("observed", "published"),
        "svg",
    )
    feedback: str = _flag(
        "frame",
        "fed back in free running: the predicted frame, encoded again (as published), or the predicted "
        "features",
        ("frame", "feature"),
        "svg",
    )
    blend: bool = _flag(
        False, "the decoder also draws a mask that mixes its pixels with those of the last observed frame"
    )
    warp: str = _flag(
        "none",
        "with --blend: the decoder also draws from where each pixel comes, for what is moved along: in the "
        "last observed frame, or in the frame before the drawn one, seen or predicted; carried: in both, in "
        "the observed frame by what the flows from frame to frame add up to",
        ("none", "observed", "before", "carried"),
        "svg",
    )
    slots: int = _flag(
        10, "objects: most objects that are told apart in a scene", family="objects", above=0, most=64
    )
    drawn_frames: int = _flag(
        0,
        "objects: frames of each clip that are drawn in a training step, chosen at random; 0: all. "
        "Neighbours are much alike, and drawing is most of the work",
        family="objects",
    )
    drawn_clips: int = _flag(
        0,
        "objects: clips of each batch that are drawn; 0: all. In the others only where the hand and objects "
        "go is predicted, which takes a tenth of the time and is what takes longest to learn",
        family="objects",
    )
    pose_dim: int = _flag(32, "pose_cvae: channels of the pose encoder's output", family="pose_cvae", above=0)
    fusion_dim: int = _flag(
        192, "pose_cvae: channels of the decoder fusion's output", family="pose_cvae", above=0
    )
    levels: int = _flag(
        1,
        "pose_cvae: resolutions, each half of the one before; 1: all at the frames' own, as published",
        family="pose_cvae",
        above=0,
        most=4,
    )
    anchor: bool = _flag(
        False,
        "pose_cvae: draw every frame also with the features of the last given one, so that nothing drifts",
        family="pose_cvae",
    )
    keep_given: bool = _flag(
        False,
        "pose_cvae: with --blend, the mask can also keep the given frame, so that the background never fades",
        family="pose_cvae",
    )
    # From the data, not from flags:
    channels: int = 3
    condition_dim: int = 0  # columns, or channels of a pose
    action_dim: int = 0  # of the columns, the first ones; noted for models that tell actions from positions
    image_height: int = 0  # 0: as the width

    def __post_init__(self):
        for name, value in OLD_MODELS.get(self.model, {}).items():
            object.__setattr__(self, name, value)
        _check_fields(self, MAX_CHANNELS)
        self._check_families()
        if self.channels not in (1, 3):
            raise InputError(f"found {self.channels}, expected 1 or 3", "channels")
        if self.warp != "none" and not self.blend:
            reason = "which mixes what it moves with what the decoder draws"
            raise InputError(f"expected --blend beside it, {reason}", "warp")
        widths = self.entry.widths
        if widths and self.image_width not in widths:
            expected = " or ".join(map(str, widths))
            raise InputError(f"found {self.image_width}, expected {expected}", "image_width")
        self.entry.check(self)

    def _check_families(self) -> None:
        """Raise `InputError` for a flag that the model does not use."""
        for item in fields(self):
            family = item.metadata.get("family")
            unused = family and family not in self.entry.families
            if unused and getattr(self, item.name) != item.default:
                reason = f"--model {self.model} has no such part, leave it out"
                raise InputError(f"is a flag of {family}; {reason}", item.name)

    @property
    def entry(self) -> ModelEntry:
        """The model's entry in the registry."""
        return MODELS[self.model]

    @property
    def spatial(self) -> bool:
        """Convolutional LSTMs on a grid of features instead of fully connected ones."""
        return self.recurrence == "spatial"

    @property
    def feature_grid(self) -> int:
        """Height and width of the features of the spatial form; 0 for the vector form."""
        return self.grid if self.spatial else 0

    @property
    def takes_poses(self) -> bool:
        """The model's conditions are poses instead of numbers."""
        return self.entry.takes_poses

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) of the frames in pixels."""
        return self.image_height or self.image_width, self.image_width

    def stored(self) -> dict[str, Any]:
        """Return the values as ``config.json`` has them.

        Version 0.1 reads them, too: the backbone has the name ``model`` there.
        """
        values = dataclasses.asdict(self)
        backbone = values.pop("backbone")
        if self.model == "svg":
            values["model"] = backbone
        return values


@dataclass(frozen=True)
class TrainConfig:
    """The training: its length, optimiser, schedules, files and device."""

    log_dir: str = _flag("runs/latest", "run folder: config.json, metrics.jsonl, checkpoints, figures")
    init_from: str = _flag(
        "",
        "begin with the best weights of this run or released model; flags of the model that are not given "
        "are then as there",
    )
    batch_size: int = _flag(20, "clips a step", above=0, most=10**6)
    accumulate: int = _flag(
        1, "batches whose gradients are added up for one optimiser step", above=0, most=10**6
    )
    niter: int = _flag(300, "epochs", above=0)
    epoch_size: int = _flag(600, "optimiser steps an epoch", above=0)
    max_minutes: float = _flag(
        0.0, "end after this time, the learning-rate schedule included; 0: after niter epochs"
    )
    optimizer: str = _flag("adam", "optimiser", ("adam", "adamw", "rmsprop", "sgd", "muon"))
    lr: float = _flag(0.002, "learning rate", above=0)
    beta1: float = _flag(0.9, "first-moment decay of Adam; momentum of RMSprop and SGD", below=1)
    weight_decay: float = _flag(0.0, "weight decay")
    lr_schedule: str = _flag("constant", "schedule of the learning rate", ("constant", "cosine", "linear"))
    warmup: float = _flag(0.0, "share of the training over which the learning rate rises from 0", below=1)
    max_grad_norm: float = _flag(0.0, "gradient norm is clipped to this; 0: no clipping")
    max_skipped: int = _flag(
        10,
        "end the run after this many skipped steps in a row, whose loss or gradients were not finite",
        above=0,
    )
    beta: float = _flag(1e-4, "weight of the KL divergence")
    pushed_weight: float = _flag(
        1.0,
        "weight of the squared error of pixels that show a pushed object; other than 1 it needs simulated "
        "data with their truth (svg-data simulate --truth)",
        above=0,
    )
    places_weight: float = _flag(
        0.0,
        "with --warp carried and --model objects: weight of the error, in pixels, of the places that pushed "
        "objects come from, or are at; needs simulated data with their truth",
    )
    objects_weight: float = _flag(
        0.0,
        "with --model objects: weight of what the simulator's truth teaches about the observed frame, "
        "outlines and centres of the objects and the table without them",
    )
    kl_anneal: str = _flag("none", "annealing of beta over epochs", ("none", "monotonic", "cyclical"))
    kl_anneal_cycle: int = _flag(10, "cycles of cyclical annealing over niter epochs", above=0)
    kl_anneal_ratio: float = _flag(2.0, "the ramp takes 1/ratio of a cycle")
    tfr: float = _flag(1.0, "probability that a batch is teacher-forced, at the start", most=1)
    tfr_start_decay_epoch: int = _flag(0, "the last epoch, counted from 0, with the full probability")
    tfr_decay_step: float = _flag(0.0, "fall of the probability each epoch from then on")
    tfr_lower_bound: float = _flag(0.0, "the probability falls no further", most=1)
    keep_checkpoints: int = _flag(
        2, "newest checkpoints that are kept to resume from, besides the best", above=0
    )
    save_minutes: float = _flag(
        10.0, "minutes after which a checkpoint is saved within an epoch, too; 0: at its end only"
    )
    validate_sequences: int = _flag(64, "sequences of the validation split scored after each epoch; 0: all")
    seed: int = _flag(1, "seed of all randomness", most=2**63 - 1)
    device: str = _flag("auto", "auto, cpu, cuda or cuda:N")
    precision: str = _flag(
        "auto", "auto: bfloat16 autocast where the hardware has it", ("auto", "bfloat16", "float32")
    )
    compile: bool = _flag(
        False, "torch.compile the model (with CUDA graphs on a GPU); the first steps take minutes"
    )
    cuda_graph: bool = _flag(
        False, "on a GPU: record forward and backward pass once and start them as one; for small models"
    )
    track: str = _flag(
        "none",
        "also log metrics, flags and films of predictions with this library, which is an extra",
        TRACKERS,
    )

    @property
    def needs_truth(self) -> bool:
        """The loss needs the simulator's truth about the clips."""
        return self.pushed_weight != 1 or self.places_weight > 0 or self.objects_weight > 0

    def __post_init__(self):
        _check_fields(self)
        if not 1 <= self.kl_anneal_ratio < float("inf"):
            ratio, advice = self.kl_anneal_ratio, ""
            if 0 < ratio < 1:
                advice = f"; where it is the ramp's share of a cycle, use {1 / ratio:g} here"
            expected = f"at least 1: the ramp takes 1/ratio of a cycle{advice}"
            raise InputError(f"found {ratio}, expected {expected}", "kl_anneal_ratio")
        if self.kl_anneal == "cyclical" and self.kl_anneal_cycle > self.niter:
            expected = f"at most --niter {self.niter}"
            raise InputError(f"found {self.kl_anneal_cycle}, expected {expected}", "kl_anneal_cycle")
        if self.cuda_graph and (self.compile or self.accumulate > 1):
            other = "--compile" if self.compile else f"--accumulate {self.accumulate}"
            raise InputError(f"does not go with {other}; leave one out", "cuda_graph")
        if self.tfr_lower_bound > self.tfr:
            expected = f"at most --tfr {self.tfr}"
            raise InputError(f"found {self.tfr_lower_bound}, expected {expected}", "tfr_lower_bound")


@dataclass(frozen=True)
class Config:
    """All of a run's configuration. Raises `InputError` for values and combinations that cannot work."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self):
        data, model = self.data, self.model
        if data.data_device == "cuda" and self.train.device == "cpu":
            advice = "use --data_device cpu"
            raise InputError(
                f"found cuda, but the training runs on the CPU (--device cpu); {advice}", "data_device"
            )
        for name in ("far_start", "augment"):
            if getattr(data, name) and not model.takes_poses:
                advice = "leave it out, it is for --model pose_cvae"
                raise InputError(f"actions belong to their frames as they are; {advice}", name)
        drawn = model.drawn_clips
        if drawn and self.train.batch_size % drawn:
            raise InputError(
                f"found {drawn}, expected a divisor of --batch_size {self.train.batch_size}", "drawn_clips"
            )
        if self.train.places_weight and model.warp != "carried" and model.model != "objects":
            reason = "or --model objects beside it, whose places it is about"
            raise InputError(f"expected --warp carried {reason}", "places_weight")
        if self.train.objects_weight and model.model != "objects":
            raise InputError(
                "expected --model objects beside it, whose objects it is about", "objects_weight"
            )
        if self.train.places_weight and model.last_frame_skip:
            reason = "is about places in the last observed frame, which --last_frame_skip does without"
            raise InputError(f"{reason}; leave one out", "places_weight")
        if model.takes_poses and data.conditions != "all":
            reason = f"--model {model.model} needs the poses; leave the flag out"
            raise InputError(f"found {data.conditions}, but {reason}", "conditions")
        model.entry.check_run(self)

    def to_json(self) -> str:
        """Return the text of ``config.json``."""
        values = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}
        return json.dumps(values | {"model": self.model.stored()}, indent=2) + "\n"

    @staticmethod
    def from_values(values: dict[str, Any], origin: str) -> "Config":
        """Return the configuration of a ``config.json`` of this or an earlier release.

        Anybody may have written the file: every value is checked. Raises `InputError` that names `origin`.
        """
        version = values.get("schema_version")
        if version != SCHEMA_VERSION:
            expected = f"expected {SCHEMA_VERSION}; use a matching release"
            raise InputError(f"{origin}: found schema version {version!r}, {expected}")
        sections = {name: values.get(name) for name in SECTIONS}
        model = sections["model"]
        if isinstance(model, dict):
            sections["model"] = model | OLD_MODELS.get(str(model.get("model")), {})
        try:
            return read_dataclass(Config, sections, origin, "restore this file or use a newer release")
        except InputError as error:
            names = re.sub(r"(?<!\S)--(?=\w)", "", str(error))  # as they stand in the file
            raise InputError(names) from None


SECTIONS = {"data": DataConfig, "model": ModelConfig, "train": TrainConfig}
