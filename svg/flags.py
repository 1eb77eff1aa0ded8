"""Read training flags from commands and files, in this project's spelling and in that of other programs."""

import argparse
import dataclasses
import shlex
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from data_tools.command import OneLineParser, suggestion, tell
from data_tools.errors import InputError
from data_tools.files import read_bytes

from .config import SECTIONS, Config, DataConfig, ModelConfig, TrainConfig
from .runs.pretrained import run_folder

MAX_FILES = 100
"""Most flags files of one command."""
MAX_BYTES = 2**20
"""Most bytes of a flags file."""
RECIPES_IN_DOCS = "experiments/recipes"
METAVARS: dict[Any, str] = {int: "N", float: "X", str: "NAME"}
Section = TypeVar("Section", bound=DataConfig | ModelConfig | TrainConfig)

ALIASES = {
    # edenton/svg and courses that build on it
    "num_workers": "workers", "data_threads": "workers", "num_threads": "workers",
    # a course's predictor from poses
    "DR": "data_root", "save_root": "log_dir", "num_epoch": "niter", "optim": "optimizer",
    "val_vi_len": "n_eval", "F_dim": "g_dim", "L_dim": "pose_dim", "N_dim": "z_dim",
    "D_out_dim": "fusion_dim",
    "tfr_sde": "tfr_start_decay_epoch", "tfr_d_step": "tfr_decay_step", "kl_anneal_type": "kl_anneal",
    # common
    "epochs": "niter", "num_epochs": "niter", "n_epochs": "niter", "learning_rate": "lr",
}  # fmt: skip
"""{flag of another program: the flag that means the same here}."""


@dataclass(frozen=True)
class Foreign:
    """A flag of another program that is not simply another name of a flag here.

    Args:
        note: a message to the user who gives it.
        help: its text in --help; the note by default.
        sets: the flags here that stand for a value of it, as {name: value}.
        usual: values that need no message.
        refused: the note is an error.
        switch: it is on or off and has no value.
    """

    note: str = ""
    help: str = ""
    sets: Callable[[Any], dict[str, Any]] = lambda value: {}
    usual: tuple[Any, ...] = ()
    refused: bool = False
    switch: bool = False


FROM_THE_DATA = Foreign("not used: it is read from the data in --data_root")
RUN_NAME = Foreign(help="the run's folder is of this name, in --log_dir", sets=lambda name: {"name": name})
LAYERS = ("predictor_rnn_layers", "posterior_rnn_layers", "prior_rnn_layers")
BEGIN_WITH = Foreign(
    "here `--log_dir RUN --resume` goes on with a run as if it had not stopped, and `--init_from RUN` begins "
    "another one with its weights; model.pth and .ckpt files of other programs are not read",
    usual=("",), refused=True,
)  # fmt: skip
FOREIGN = {
    # edenton/svg and courses that build on it
    "kl_anneal_cyclical": Foreign(
        help="as --kl_anneal cyclical; False: as --kl_anneal monotonic",
        sets=lambda on: {"kl_anneal": "cyclical" if on else "monotonic"}, switch=True,
    ),
    "cuda": Foreign(
        "trains on the CPU; a certain GPU is --device cuda:N",
        help="on the GPU, or on the CPU where there is none; False: as --device cpu",
        sets=lambda on: {"device": "auto" if on else "cpu", "cuda": on}, usual=(True,), switch=True,
    ),
    "model_dir": BEGIN_WITH,
    "name": RUN_NAME,
    "exp_name": RUN_NAME,
    "rnn_layers": Foreign(
        help="as all of --predictor_rnn_layers, --posterior_rnn_layers and --prior_rnn_layers",
        sets=lambda layers: dict.fromkeys(LAYERS, int(layers)),
    ),
    "save_model_name": Foreign(
        "not used: the best weights are always kept as checkpoints/best", usual=("best",)
    ),
    "dataset": Foreign("not used: the data are what lies in --data_root; svg-data simulates and converts"),
    "num_digits": Foreign("not used: it is of moving MNIST, which is not made here"),
    "channels": FROM_THE_DATA,
    "cond_dim": FROM_THE_DATA,
    # a course's predictor from poses
    "frame_H": FROM_THE_DATA,
    "frame_W": FROM_THE_DATA,
    "train_vi_len": Foreign(
        help="as --n_past 1 --n_future X-1", sets=lambda frames: {"n_past": 1, "n_future": int(frames) - 1}
    ),
    "ckpt_path": BEGIN_WITH,
    "per_save": Foreign("not used: a checkpoint is kept after every epoch and every --save_minutes"),
    "gpu": Foreign("not used: --device cuda:N chooses a GPU, torchrun takes several"),
    "store_visualization": Foreign(
        "not used: svg-render and svg-rollout draw a run, whenever asked", usual=(False,), switch=True
    ),
    "test": Foreign("svg-evaluate and svg-rollout test a run", usual=(False,), refused=True, switch=True),
    "partial": Foreign(
        "all sequences of the index are trained on; leave it out", usual=("1", "1.0"), refused=True
    ),
    "fast_train": Foreign(
        "all sequences are trained on from the start; leave it out", usual=(False,), refused=True, switch=True
    ),
    "fast_partial": Foreign("not used: it is of --fast_train"),
    "fast_train_epoch": Foreign("not used: it is of --fast_train"),
}  # fmt: skip


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one flag for each field that is a flag, and the flags of other programs that are known."""
    for section in SECTIONS.values():
        group = parser.add_argument_group(section.__name__.removesuffix("Config").lower())
        for item in fields(section):
            if "help" in item.metadata:
                group.add_argument(*names_of(item.name), **_argument_options(item))
    add_foreign_flags(parser)


def _argument_options(item: dataclasses.Field) -> dict[str, Any]:
    """Return the options with which argparse takes the flag of a field."""
    options: dict[str, Any] = {"default": item.default, "help": item.metadata["help"]}
    if item.type is bool:
        return options | {"action": argparse.BooleanOptionalAction}
    if not item.metadata["choices"]:
        metavar = METAVARS[item.type]
        return options | {"type": item.type, "metavar": metavar}
    options |= {"type": str.lower if item.type is str else item.type, "choices": item.metadata["choices"]}
    if item.metadata["old"]:
        options |= {"action": OldSpellings, "old": item.metadata["old"]}
    return options


def flag_values(config: Config, names: Iterable[str] = SECTIONS) -> dict[str, Any]:
    """Return the configuration, or the sections `names` of it, as flags: {flag: value}."""
    sections = (getattr(config, name) for name in names)
    return {
        item.name: getattr(section, item.name)
        for section in sections
        for item in fields(section)
        if "help" in item.metadata
    }


def stored_flags(config: Config) -> dict[str, Any]:
    """Return the flags as files of a run have them (`ModelConfig.stored`): {flag: value}."""
    flags = flag_values(config)
    del flags["backbone"]
    return flags | {"model": config.model.stored()["model"]}


def flags_of_origin(args: argparse.Namespace) -> dict[str, Any]:
    """Return the flags of the model that ``--init_from`` names; none without one. Raises `InputError`."""
    if not args.init_from:
        return {}
    from .runs.checkpoint import load_config  # imported here: --help needs no PyTorch

    try:
        return flag_values(load_config(run_folder(args.init_from)), ["model"])
    except InputError as error:
        raise InputError(str(error), "init_from") from None


def parse_flags(
    parser: argparse.ArgumentParser,
    words: list[str] | None,
    flags_before: Callable[[argparse.Namespace], dict[str, Any]] = flags_of_origin,
) -> argparse.Namespace:
    """Return the flags of a training: as given, else those of a run or model before it, else the defaults.

    `flags_before` returns the flags of that run or model for what is given. ``name`` has become a part of
    ``log_dir``. Raises `InputError`.
    """
    given = parser.parse_args(words)
    if given.name:
        given.log_dir = str(Path(given.log_dir, given.name))
    parser.set_defaults(**flags_before(given))
    args = parser.parse_args(words)
    args.log_dir = given.log_dir
    return args


def config_from_arguments(args: argparse.Namespace) -> Config:
    """Return the configuration of parsed flags. Raises `InputError` naming a flag."""
    values = vars(args)
    return Config(_pick(DataConfig, values), _pick(ModelConfig, values), _pick(TrainConfig, values))


def _pick(section: type[Section], values: dict[str, Any]) -> Section:
    """Return a section with those of the values that are fields of it."""
    return section(**{item.name: values[item.name] for item in fields(section) if item.name in values})


def names_of(flag: str) -> list[str]:
    """Return the option strings of a flag: its own first, then those of other programs."""
    return [f"--{name}" for name in (flag, *(other for other, own in ALIASES.items() if own == flag))]


def add_foreign_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of other programs.

    Parsed arguments then also have ``name`` and ``cuda``, as given, and ``notes``, {flag: message to the
    user}.
    """
    parser.set_defaults(notes={}, name="", cuda=False)
    group = parser.add_argument_group("flags of other programs")
    for name, foreign in FOREIGN.items():
        opposite = [f"--no-{name}"] if foreign.switch else []
        group.add_argument(
            f"--{name}", *opposite, action=ForeignFlag, foreign=foreign, dest=argparse.SUPPRESS,
            default=argparse.SUPPRESS, metavar=None if foreign.switch else "X",
        )  # fmt: skip


class ForeignFlag(argparse.Action):
    """An option that sets the flags which a foreign one stands for, and notes or refuses the rest."""

    def __init__(self, option_strings: list[str], dest: str, foreign: Foreign, **options: Any):
        values = 0 if foreign.switch else None
        super().__init__(option_strings, dest, values, help=foreign.help or foreign.note, **options)
        self.foreign = foreign

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        foreign = self.foreign
        flag = self.option_strings[0]
        value = not str(option_string).startswith("--no-") if foreign.switch else values
        try:
            flags = foreign.sets(value)
        except ValueError:
            parser.error(f"argument {flag}: invalid int value: {value!r}")
        if value not in foreign.usual and foreign.refused:
            parser.error(f"argument {flag} {value}: {foreign.note}")
        for name, translated in flags.items():
            setattr(namespace, name, translated)
        if foreign.note and value not in foreign.usual:
            namespace.notes = namespace.notes | {flag: f"{flag} {value}: {foreign.note}"}


class OldSpellings(argparse.Action):
    """An option that sets its flag, or the flags that an `old` spelling of its value means."""

    def __init__(
        self,
        option_strings: list[str],
        dest: str,
        choices: Iterable[str],
        old: dict[str, dict[str, str]],
        **options: Any,
    ):
        super().__init__(
            option_strings, dest, choices=[*choices, *old], metavar=f"{{{','.join(choices)}}}", **options
        )
        self.old = old

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        for name, meant in self.old.get(values, {self.dest: values}).items():
            setattr(namespace, name, meant)


class FlagHelp(argparse.HelpFormatter):
    """A formatter of --help that shows the default of a flag that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is False or action.default in (None, "", argparse.SUPPRESS):
            return action.help
        return f"{action.help} (default: %(default)s)"


class FlagParser(OneLineParser):
    """A parser that takes ``@file`` arguments: flags as in a shell, over several lines, with # comments.

    A missing file is looked for among the `recipes`, a folder of such files that are known by name:
    ``@quickstart.args``, ``@quickstart`` and ``@experiments/recipes/quickstart.args`` are the same one.
    """

    def __init__(self, *args: Any, recipes: Traversable | None = None, **kwargs: Any):
        super().__init__(*args, formatter_class=FlagHelp, **kwargs)
        self.recipes = recipes

    def expand(self, words: list[str]) -> list[str]:
        """Return the words with each flags file replaced by its contents."""
        expanded = []
        files = 0
        rest = deque(words)
        while rest:
            word = rest.popleft()
            if not word.startswith("@"):
                expanded.append(word)
                continue
            files += 1
            if files > MAX_FILES:
                self.error(
                    f"flags file: found more than {MAX_FILES}, up to {word[1:]}; does one name itself?"
                )
            rest.extendleft(reversed(self._read(self._find(word[1:]))))
        return expanded

    def _find(self, name: str) -> Path | Traversable:
        """Return the flags file of a name: a path, or else a recipe."""
        for path in (Path(name), Path(f"{name}.args")):
            if path.is_file():
                return path
        if self.recipes is None:
            self.error(f"flags file: found no file {name}")
        folder, _, file = name.rpartition("/")
        if folder in ("", RECIPES_IN_DOCS):
            for recipe in (self.recipes / file, self.recipes / f"{file}.args"):
                if recipe.is_file():
                    return recipe
        known = sorted(recipe.name for recipe in self.recipes.iterdir() if recipe.name.endswith(".args"))
        meant = suggestion([file.removesuffix(".args")], [recipe.removesuffix(".args") for recipe in known])
        listed = f"the recipes are {', '.join(known)}"
        self.error(f"flags file: found no file {name}, and no recipe of that name; {listed}{meant}")

    def _read(self, path: Path | Traversable) -> list[str]:
        """Return the words of a flags file."""
        try:
            content = read_bytes(path, MAX_BYTES) if isinstance(path, Path) else path.read_bytes()
            text = content.decode("utf-8-sig")
        except OSError as error:
            self.error(f"flags file: {path} cannot be read ({error.strerror})")
        except UnicodeDecodeError:
            self.error(f"flags file: {path} is not text")
        words = []
        for line in text.splitlines():
            try:
                words += shlex.split(line, comments=True)
            except ValueError as error:
                self.error(f"flags file: {error} in {line.strip()!r}")
        return words

    def _get_option_tuples(self, option_string: str) -> list[tuple]:
        """Let an abbreviation stand for a flag of this project alone."""
        others = ALIASES.keys() | FOREIGN.keys()
        matches = super()._get_option_tuples(option_string)
        return [match for match in matches if match[1].removeprefix("--").removeprefix("no-") not in others]


class KeywordParser(FlagParser):
    """A parser of flags that are given in Python: a mistake is an `InputError`."""

    def error(self, message: str) -> NoReturn:
        """Raise `InputError`."""
        raise InputError(message)


def configure(file: str | Path = "", /, **flags: Any) -> Config:
    """Return the configuration that ``svg-train`` makes of the same flags, for `svg.Training`.

    ``configure(lr=2e-4, blend=True)`` is ``svg-train --lr 2e-4 --blend``: a flag that is not given, or None,
    is as in ``svg-train --help``, or with ``init_from`` one of the model as there. Flags of other programs
    that the command knows are known here, too.

    ``--resume`` and ``--take_over`` are arguments of `svg.Training`.

    `file` is a flags file. The recipes are in `experiments.RECIPES`: ``RECIPES / "fine_tune.args"``. Flags
    beside it take precedence.

    Raises `InputError` for an unknown flag, with the nearest name, and for values that cannot work.
    """
    parser = KeywordParser(add_help=False, allow_abbrev=False)
    add_config_arguments(parser)
    words = [f"@{file}"] if file else []
    words += [f"--{name}={value}" for name, value in flags.items() if value is not None]
    args = parse_flags(parser, words)
    for note in args.notes.values():
        tell(f"note: {note}", error=True)
    return config_from_arguments(args)
