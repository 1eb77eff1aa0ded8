"""The configuration of a run: frozen dataclasses, whose fields are the command-line flags and the keys of ``config.json``."""

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

from data_tools.errors import InputError
from data_tools.layout import MODEL_WIDTHS

from .flags import add_foreign_flags, names_of

SCHEMA_VERSION = 1
POSITIONS = ("true", "integrated", "held")  # see `svg.positions`
CONDITIONS = ("all", "actions", "positions", "none")
MOST_STEPS, MOST_CHANNELS = 10**9, 65_536
"""Beyond these, or a flag's own `most`, a number is a slip, or in a file that means harm."""


def _flag(default: Any, help: str, choices: tuple[str | int, ...] | None = None, **bounds: float) -> Any:
    """Return a field that is a flag. `bounds` of a number, which is never negative: above, below, most."""
    return field(default=default, metadata={"help": help, "choices": choices, **bounds})


@dataclass(frozen=True)
class DataConfig:
    data_root: str = _flag("", "root of the data set, with index.csv (see svg-data)")
    n_past: int = _flag(2, "observed frames", above=0)
    n_future: int = _flag(10, "frames predicted in training", above=0)
    n_eval: int = _flag(12, "frames of a clip in validation, observed ones included")
    clip_start: str = _flag(
        "random",
        "training clips: one of each sequence in every pass, from a random or its first frame on, or all that there are, "
        "overlapping (sliding) or one after the other (disjoint)",
        ("random", "first", "sliding", "disjoint"),
    )
    far_start: float = _flag(
        0.0,
        "share of the training clips whose given frame is any of the sequence instead of the one before the second frame",
        most=1,
    )
    augment: float = _flag(
        0.0,
        "with poses: how far training clips are shifted and scaled at random, e.g. 0.3; 0: not at all",
        most=1,
    )
    conditions: str = _flag("all", "which columns condition the model", CONDITIONS)
    workers: int = _flag(0, "processes that read data; 0 reads in the training process", most=1024)
    data_device: str = _flag(
        "disk",
        "where the training split lies: on disk, or read once as a whole into this device's memory",
        ("disk", "cpu", "cuda"),
    )


@dataclass(frozen=True)
class ModelConfig:
    model: str = _flag(
        "vgg",
        "encoder and decoder of the robot's predictor, or the predictor of a person from poses",
        ("vgg", "dcgan", "pose_cvae"),
    )
    recurrence: str = _flag(
        "vector", "fully connected LSTMs or convolutional ones on a grid", ("vector", "spatial")
    )
    grid: int = _flag(8, "height and width of the grid of the spatial form's features and latents", (8, 16))
    image_width: int = _flag(
        64,
        "width of the frames in pixels: 64 or 128, and as high; with pose_cvae any width and height",
        above=0,
    )
    width: float = _flag(
        1.0, "multiplier of the backbone's channels; 1 is the published size", above=0, most=64
    )
    norm: str = _flag("batch", "normalisation in encoder and decoder", ("batch", "group"))
    g_dim: int = _flag(
        128,
        "features of encoder output and decoder input (channels in the spatial form and in pose_cvae)",
        above=0,
    )
    z_dim: int = _flag(64, "latent size (channels in the spatial form)", above=0)
    rnn_size: int = _flag(256, "hidden size of the frame predictor (channels in the spatial form)", above=0)
    latent_rnn_size: int = _flag(0, "hidden size of posterior and prior; 0: as rnn_size")
    predictor_rnn_layers: int = _flag(2, "LSTM layers of the frame predictor", above=0, most=64)
    posterior_rnn_layers: int = _flag(1, "LSTM layers of the posterior", above=0, most=64)
    prior_rnn_layers: int = _flag(1, "LSTM layers of the learned prior", above=0, most=64)
    prior: str = _flag("learned", "learned prior (SVG-LP) or N(0,I) (SVG-FP)", ("learned", "fixed"))
    last_frame_skip: bool = _flag(False, "skips from the previous frame instead of the last observed one")
    feedback: str = _flag(
        "frame",
        "what free running feeds back: the predicted frame, encoded again (as published), or the predicted features",
        ("frame", "feature"),
    )
    blend: bool = _flag(
        False, "the decoder also draws a mask that mixes its pixels with those of the last observed frame"
    )
    warp: str = _flag(
        "none",
        "with --blend: the decoder also draws from where each pixel comes, for what is moved along: in the last observed frame, or "
        "in the frame before the drawn one, seen or predicted",
        ("none", "observed", "before"),
    )
    pose_dim: int = _flag(32, "pose_cvae: channels of the pose encoder's output", above=0)
    fusion_dim: int = _flag(192, "pose_cvae: channels of the decoder fusion's output", above=0)
    levels: int = _flag(
        1,
        "pose_cvae: resolutions, each half of the one before; 1: all at the frames' own, as published",
        above=0,
    )
    anchor: bool = _flag(
        False,
        "pose_cvae: every frame is also drawn with the features of the last given one, so that nothing drifts",
    )
    keep_given: bool = _flag(
        False,
        "pose_cvae: with --blend, the mask can also keep the given frame, so that the background never fades",
    )
    # From the data, not from flags:
    channels: int = 3
    condition_dim: int = 0  # columns, or channels of a pose
    image_height: int = 0  # 0: as the width

    @property
    def spatial(self) -> bool:
        return self.recurrence == "spatial"

    @property
    def feature_grid(self) -> int:
        """Height and width of the features of the spatial form; 0: those of the vector form are one vector."""
        return self.grid if self.spatial else 0

    @property
    def with_poses(self) -> bool:
        """Whether conditions are poses."""
        return self.model == "pose_cvae"

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) of the frames in pixels."""
        return self.image_height or self.image_width, self.image_width


@dataclass(frozen=True)
class TrainConfig:
    log_dir: str = _flag("runs/latest", "run folder: config.json, metrics.jsonl, checkpoints, figures")
    init_from: str = _flag(
        "",
        "begin with the best weights of this run or released model; flags of the model are then as there, unless given",
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
    lr_schedule: str = _flag("constant", "course of the learning rate", ("constant", "cosine", "linear"))
    warmup: float = _flag(0.0, "share of the training over which the learning rate rises from 0", below=1)
    max_grad_norm: float = _flag(0.0, "gradient norm is clipped to this; 0: no clipping")
    max_skipped: int = _flag(
        10,
        "end the run after so many steps in a row that were skipped, their loss or gradients not finite",
        above=0,
    )
    beta: float = _flag(1e-4, "weight of the KL divergence")
    kl_anneal: str = _flag("none", "annealing of beta over epochs", ("none", "monotonic", "cyclical"))
    kl_anneal_cycle: int = _flag(10, "cycles of cyclical annealing over niter epochs", above=0)
    kl_anneal_ratio: float = _flag(2.0, "the ramp takes 1/ratio of a cycle")
    tfr: float = _flag(1.0, "probability that a batch is teacher-forced, at the start", most=1)
    tfr_start_decay_epoch: int = _flag(0, "the last epoch, counted from 0, with the full probability")
    tfr_decay_step: float = _flag(0.0, "how much the probability falls each epoch from then on")
    tfr_lower_bound: float = _flag(0.0, "the probability falls no further", most=1)
    keep_checkpoints: int = _flag(
        2, "checkpoints kept to go on from, the newest ones, besides the best", above=0
    )
    save_minutes: float = _flag(
        10.0, "a checkpoint also within an epoch, after so many minutes without one; 0: at its end only"
    )
    validate_sequences: int = _flag(64, "sequences of the validation split scored after each epoch; 0: all")
    seed: int = _flag(1, "seed of all randomness", most=2**63 - 1)
    device: str = _flag("auto", "auto, cpu, cuda or cuda:N")
    precision: str = _flag(
        "auto", "bfloat16 autocast where the hardware has it, or as told", ("auto", "bfloat16", "float32")
    )
    compile: bool = _flag(
        False, "torch.compile the model (with CUDA graphs on a GPU); the first steps take minutes"
    )


@dataclass(frozen=True)
class Config:
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def to_json(self) -> str:
        return json.dumps({"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}, indent=2) + "\n"

    @staticmethod
    def from_values(values: dict[str, Any], origin: str) -> "Config":
        """From the contents of a ``config.json`` of this or an earlier release, which any hand may have written.

        Raises `InputError`; `origin` is the file that it names.
        """
        version = values.get("schema_version")
        if version != SCHEMA_VERSION:
            raise InputError(
                f"{origin}: found schema version {version!r}, expected {SCHEMA_VERSION}; use a matching release"
            )
        sections = {}
        for name, kind in SECTIONS.items():
            found, types = values.get(name), get_type_hints(kind)
            if not isinstance(found, dict):
                raise InputError(f"{origin}: found no section {name}; restore this file")
            for key, value in found.items():
                if key not in types:
                    raise InputError(
                        f"{origin}: found {key!r} in {name}, which this release does not know; use a newer one"
                    )
                accepted = (int, float) if types[key] is float else types[key]
                if not isinstance(value, accepted) or (isinstance(value, bool) and types[key] is not bool):
                    raise InputError(
                        f"{origin}: {key} is {repr(value)[:40]}, expected {types[key].__name__}; restore this file"
                    )
            sections[name] = kind(**found)
        config = Config(**sections)
        try:
            validate(config)
        except InputError as error:
            names = re.sub(r"(?<!\S)--(?=\w)", "", str(error))  # as they stand in the file
            raise InputError(f"{origin}: {names}") from None
        return config


OF_ROBOTS = (
    "recurrence", "grid", "width", "rnn_size", "latent_rnn_size", "predictor_rnn_layers", "posterior_rnn_layers",
    "prior_rnn_layers", "prior", "last_frame_skip", "feedback", "warp",
)  # fmt: skip
OF_POSES = ("pose_dim", "fusion_dim", "levels", "anchor", "keep_given")
"""Flags that one kind of model has and the other has not."""


SECTIONS = {"data": DataConfig, "model": ModelConfig, "train": TrainConfig}


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds one flag for each field that is a flag, and those of other programs that are known."""
    for section in SECTIONS.values():
        group = parser.add_argument_group(section.__name__.removesuffix("Config").lower())
        for item in fields(section):
            if "help" not in item.metadata:
                continue
            options: dict[str, Any] = {"default": item.default, "help": item.metadata["help"]}
            if item.type is bool:
                options["action"] = argparse.BooleanOptionalAction
            elif item.metadata["choices"]:
                kind = str.lower if item.type is str else item.type
                options |= {"type": kind, "choices": item.metadata["choices"]}
            else:
                options |= {"type": item.type, "metavar": {int: "N", float: "X", str: "NAME"}[item.type]}
            group.add_argument(*names_of(item.name), **options)
    add_foreign_flags(parser)


def flag_values(config: Config, names: Iterable[str] = SECTIONS) -> dict[str, Any]:
    """The configuration, or the sections `names` of it, as flags: {flag: value}."""
    sections = (getattr(config, name) for name in names)
    return {
        item.name: getattr(section, item.name)
        for section in sections
        for item in fields(section)
        if "help" in item.metadata
    }


def config_from_arguments(args: argparse.Namespace) -> Config:
    """The configuration that the parsed flags stand for; `validate` has passed it."""
    values = vars(args)
    config = Config(
        **{
            name: section(**{item.name: values[item.name] for item in fields(section) if item.name in values})
            for name, section in SECTIONS.items()
        }
    )
    validate(config)
    return config


def validate(config: Config) -> None:
    """Raises `InputError` naming the flags for values and combinations that cannot work; touches neither data nor device."""
    data, model, train = config.data, config.model, config.train
    for section, most in ((data, MOST_STEPS), (model, MOST_CHANNELS), (train, MOST_STEPS)):
        for item in fields(section):
            value, choices = getattr(section, item.name), item.metadata.get("choices")
            if choices and value not in choices:
                listed = ", ".join(map(str, choices))
                raise InputError(f"found {value!r}, expected one of {listed}", item.name)
            if type(value) in (int, float):
                _check_number(item.name, value, most, item.metadata)
    if model.channels not in (1, 3):
        raise InputError(f"channels: found {model.channels}, expected 1 or 3")
    if data.data_device == "cuda" and train.device == "cpu":
        raise InputError(
            "--data_device cuda: the training runs on the CPU (--device cpu); use --data_device cpu"
        )
    if not 1 <= train.kl_anneal_ratio < float("inf"):
        ratio, advice = train.kl_anneal_ratio, ""
        if 0 < ratio < 1:
            advice = f"; where it is the ramp's share of a cycle, use {1 / ratio:g} here"
        expected = "at least 1: the ramp takes 1/ratio of a cycle"
        raise InputError(f"--kl_anneal_ratio: found {ratio}, expected {expected}{advice}")
    if train.kl_anneal == "cyclical" and train.kl_anneal_cycle > train.niter:
        raise InputError(
            f"--kl_anneal_cycle: found {train.kl_anneal_cycle}, expected at most --niter {train.niter}"
        )
    if train.tfr_lower_bound > train.tfr:
        raise InputError(
            f"--tfr_lower_bound: found {train.tfr_lower_bound}, expected at most --tfr {train.tfr}"
        )
    _validate_model(model)
    if data.n_eval <= data.n_past:
        raise InputError(
            f"--n_eval: found {data.n_eval}, expected more than --n_past {data.n_past}: nothing would be predicted"
        )
    for name in ("far_start", "augment"):
        if getattr(data, name) and not model.with_poses:
            raise InputError(
                f"--{name}: actions belong to their frames as they are; leave it out, it is for --model pose_cvae"
            )
    if model.with_poses and data.conditions != "all":
        raise InputError(
            f"--conditions: found {data.conditions}, but --model pose_cvae needs the poses; leave the flag out"
        )
    if model.with_poses and data.n_past != 1:
        raise InputError(
            f"--n_past: found {data.n_past}, expected 1: earlier frames tell --model pose_cvae nothing more"
        )
    free_running = train.tfr < 1 or (train.tfr_decay_step > 0 and train.tfr_lower_bound < 1)
    if (
        train.batch_size == 1
        and model.norm == "batch"
        and not model.with_poses
        and not model.spatial
        and model.feedback == "frame"
        and free_running
    ):
        raise InputError(
            "--batch_size: found 1, but batch norm cannot train on the single vector of a fed-back frame; use --norm group, "
            "--feedback feature or --batch_size 2"
        )


def _check_number(name: str, value: float, most: int, bounds: Mapping[str, Any]) -> None:
    """Raise `InputError` unless a flag's number is within its `bounds`; `most` is for integers without their own."""
    above, below = bounds.get("above"), bounds.get("below")
    most = bounds.get("most", most if type(value) is int else sys.float_info.max)
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
    raise InputError(f"--{name}: found {value}, expected {expected}")


def _validate_model(model: ModelConfig) -> None:
    """Refuses sizes that the model cannot have and flags that it has not."""
    defaults = ModelConfig()
    for name in OF_ROBOTS if model.with_poses else OF_POSES:
        if getattr(model, name) != getattr(defaults, name):
            other = "vgg and dcgan" if model.with_poses else "pose_cvae"
            raise InputError(
                f"--{name}: is a flag of {other}; --model {model.model} has no such part, leave it out"
            )
    if model.warp != "none" and not model.blend:
        raise InputError(
            "--warp: expected --blend beside it, which mixes what it moves with what the decoder draws"
        )
    if not model.with_poses:
        if model.image_width not in MODEL_WIDTHS:
            raise InputError(
                f"--image_width: found {model.image_width}, expected {' or '.join(map(str, MODEL_WIDTHS))}"
            )
        if model.grid != defaults.grid and not model.spatial:
            raise InputError(
                f"--grid: found {model.grid}, which is of --recurrence spatial; name that or --grid {defaults.grid}"
            )
        if model.norm == "group" and not model.spatial and model.g_dim in (1, 4):
            raise InputError(
                f"--g_dim: found {model.g_dim}, but a group of the vector form's group norm would be one number, and so always 0; "
                "expected 8 or more"
            )
        if model.last_frame_skip and model.feedback == "feature":
            raise InputError(
                "--last_frame_skip needs predicted frames, which --feedback feature does not encode; leave one out"
            )
        return
    if model.keep_given and not model.blend:
        raise InputError("--keep_given: expected --blend beside it, whose mask it extends")
    if model.levels > 4:
        raise InputError(f"--levels: found {model.levels}, expected at most 4")
    shrunk = 2 ** (model.levels - 1)
    height, width = model.frame_size
    if (model.image_height and height % shrunk) or width % shrunk:
        size = f"frames of {height}x{width} pixels" if model.image_height else f"a width of {width} pixels"
        raise InputError(
            f"--levels: found {model.levels}, but {size} cannot be halved {model.levels - 1} times; use fewer"
        )
