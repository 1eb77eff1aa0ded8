"""The models that ``--model`` chooses from. README.md beside this file shows how to add one.

Nothing in this module imports PyTorch or a model: flags are listed and checked without waiting for them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from data_tools.errors import InputError
from data_tools.layout import MODEL_WIDTHS

BACKBONES = ("vgg", "dcgan")
"""The families of encoder and decoder of the model svg (`backbones`)."""


def accept(config: Any) -> None:
    """Accept every configuration."""


@dataclass(frozen=True)
class ModelEntry:
    """A model that can be chosen, and what it needs of the configuration.

    Args:
        predictor: its class, a `svg.models.predictor.Predictor`, as ``package.module:Class``. It is imported
            when a model is made, and called with the `svg.config.ModelConfig` and the mean and standard
            deviation of the conditions.
        families: the families of flags in `ModelConfig` that it uses. Flags of no family are every model's.
        takes_poses: its conditions are poses, pictures of a person's skeleton, instead of numbers.
        integrates: of positions it reads those of the observed frames alone, and integrates the actions.
        widths: widths of square frames that it takes; empty for frames of any height and width.
        base_recipe: the recipe that ``svg-compare`` varies.
        studies: the studies of ``svg-compare`` by default.
        check: raises `InputError` for a `ModelConfig` that the model cannot have.
        check_run: raises `InputError` for a whole `Config` that the model cannot be trained with.
    """

    predictor: str
    families: tuple[str, ...] = ()
    takes_poses: bool = False
    integrates: bool = False
    widths: tuple[int, ...] = MODEL_WIDTHS
    base_recipe: str = "compare.args"
    studies: tuple[str, ...] = ("kl", "tfr")
    check: Callable[[Any], None] = accept
    check_run: Callable[[Any], None] = accept


def _check_svg(model: Any) -> None:
    """Refuse combinations that the parts of the model svg do not have."""
    default_grid = type(model).grid
    if model.grid != default_grid and not model.spatial:
        advice = f"which is of --recurrence spatial; name that or --grid {default_grid}"
        raise InputError(f"found {model.grid}, {advice}", "grid")
    if model.norm == "group" and not model.spatial and model.g_dim in (1, 4):
        reason = "a group of the vector form's group norm would be one number, and so always 0"
        raise InputError(f"found {model.g_dim}, but {reason}; expected 8 or more", "g_dim")
    if model.last_frame_skip and model.feedback == "feature":
        reason = "needs predicted frames, which --feedback feature does not encode; leave one out"
        raise InputError(reason, "last_frame_skip")
    if model.last_frame_skip and model.skips == "published":
        reason = "is about skips of an observed frame, which --last_frame_skip does without"
        raise InputError(f"{reason}; leave one out", "skips")


def _check_svg_run(config: Any) -> None:
    """Refuse a batch of one clip where batch norm would see a single vector."""
    train, model = config.train, config.model
    free_running = train.tfr < 1 or (train.tfr_decay_step > 0 and train.tfr_lower_bound < 1)
    encodes_own_frames = model.feedback == "frame" and free_running
    if train.batch_size == 1 and model.norm == "batch" and not model.spatial and encodes_own_frames:
        reason = "batch norm cannot train on the single vector of a fed-back frame"
        advice = "use --norm group, --feedback feature or --batch_size 2"
        raise InputError(f"found 1, but {reason}; {advice}", "batch_size")


def _check_objects_run(config: Any) -> None:
    """Refuse conditions without actions or positions, and truth's lessons that would be left out."""
    if config.data.conditions != "all":
        reason = "--model objects integrates the actions from the positions that were observed"
        raise InputError(f"found {config.data.conditions}, expected all: {reason}", "conditions")
    if not config.train.objects_weight and not config.train.init_from:
        reason = "nothing else teaches --model objects what an object is (or begin with --init_from)"
        raise InputError(f"found 0, expected a weight such as 0.02: {reason}", "objects_weight")


def _check_pose_cvae(model: Any) -> None:
    """Refuse masks without `blend`, and frames that cannot be halved as often as `levels` asks."""
    if model.keep_given and not model.blend:
        raise InputError("expected --blend beside it, whose mask it extends", "keep_given")
    halvings = model.levels - 1
    height, width = model.frame_size
    if height % 2**halvings or width % 2**halvings:
        # The height is known once the data are open.
        size = f"frames of {height}x{width} pixels" if model.image_height else f"a width of {width} pixels"
        advice = f"but {size} cannot be halved {halvings} times; use fewer"
        raise InputError(f"found {model.levels}, {advice}", "levels")


def _check_pose_cvae_run(config: Any) -> None:
    """Refuse more than one observed frame."""
    n_past = config.data.n_past
    if n_past != 1:
        reason = "earlier frames tell --model pose_cvae nothing more"
        raise InputError(f"found {n_past}, expected 1: {reason}", "n_past")


MODELS: dict[str, ModelEntry] = {
    "svg": ModelEntry(
        "svg.models.video_predictor:VideoPredictor",
        families=("svg", "svg and objects"),
        studies=("kl", "tfr", "prior", "form"),
        check=_check_svg,
        check_run=_check_svg_run,
    ),
    "objects": ModelEntry(
        "svg.models.object_predictor:ObjectPredictor",
        families=("objects", "svg and objects"),
        integrates=True,
        base_recipe="compare_objects.args",
        studies=("truth", "drawn"),
        check_run=_check_objects_run,
    ),
    "pose_cvae": ModelEntry(
        "svg.models.pose_cvae:PoseCVAE",
        families=("pose_cvae",),
        takes_poses=True,
        widths=(),
        base_recipe="compare_dance.args",
        check=_check_pose_cvae,
        check_run=_check_pose_cvae_run,
    ),
}
"""The models by name. Another package adds its own with ``MODELS["name"] = ModelEntry(...)``."""
