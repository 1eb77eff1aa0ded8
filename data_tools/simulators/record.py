"""Record any Gymnasium environment that renders pictures into a data set, index included.

ENV is the name of an environment, like svg_push/Push-v0 or gym_pusht/PushT-v0; module:name imports the module
first, which may be a file in the current folder. Writes ROOT/<split>/<NNNNN>/ with the pictures that render()
gives, the actions that were carried out between them and, with --state_key, numbers of the observation.
Actions are random, or those of --policy module:name, a class or function that is given the environment and
returns what maps an observation to an action. An episode depends on the seed and its number only. Started
again with the same settings, an interrupted recording continues; a larger --episodes adds to what is there.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..command import tell
from ..conversion import (
    WHOLE,
    DataRoot,
    Report,
    WorkShard,
    add_shard_argument,
    add_splits_argument,
    assign_splits,
    check_shares,
    fill_root,
    print_report,
)
from ..converters.images import add_fit_arguments, check_image_width, fit_picture
from ..errors import InputError
from ..folders import write_sequence
from ..pool import add_workers_argument, check_workers

RECIPE_FILE = "recording.json"
MIN_FRAMES = 2
Policy = Callable[[Any], np.ndarray]
"""Maps an observation to an action."""


@dataclass(frozen=True)
class Recording:
    """What is recorded.

    Args:
        env: name of the environment.
        env_args: keyword arguments of the environment, as JSON.
        policy: ``module:name``, or "" for random actions.
        hold: frames for which a random action is kept.
        frames: most frames of an episode; it is shorter where the environment ends it.
        state_key: key of the observation whose numbers are the positions; "." is the observation itself, ""
            none.
        state_columns: which of these numbers, counted from 0; all if empty.
        seed: episode n depends on (seed, n) only.
        image_width, fit: see `images.fit_picture`.
    """

    env: str
    env_args: str = "{}"
    policy: str = ""
    hold: int = 1
    frames: int = 30
    state_key: str = ""
    state_columns: tuple[int, ...] = ()
    seed: int = 0
    image_width: int = 64
    fit: str = "crop"


def record_episode(recording: Recording, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return frames uint8 [T,W,W,3], actions float32 [T,A] and, with a state key, positions float32 [T,P].

    The last action is the one that would have followed. Raises `InputError` for what cannot be recorded,
    whatever the environment or the policy raises among it.
    """
    # Made anew for each episode: some keep things over a reset, as PushT does the last action that it draws.
    env = _environment(recording.env, recording.env_args)
    try:
        return _record(env, recording, number)
    except InputError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise InputError(f"--env: {recording.env}: {kind}: {_one_line(error)} (episode {number})") from error
    finally:
        env.close()


def _record(env: Any, recording: Recording, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    seed = int(np.random.SeedSequence([recording.seed, number]).generate_state(1)[0])
    # Some ignore the seed of a reset, as Meta-World does, and draw from this generator all the same.
    env.unwrapped.np_random = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    env.action_space.seed(seed)
    policy = _policy(recording, env)
    images, actions, states = [], [], []
    ended = False
    while True:
        images.append(_picture(env, recording))
        actions.append(np.array(policy(observation), np.float32).ravel())
        if recording.state_key:
            states.append(_state(observation, recording))
        if ended or len(images) == recording.frames:
            break
        observation, _, terminated, truncated, _ = env.step(actions[-1].reshape(env.action_space.shape))
        ended = terminated or truncated
    return np.stack(images), np.stack(actions), np.stack(states) if states else None


def _environment(name: str, arguments: str) -> Any:
    """Make an environment. Raises `InputError`."""
    try:
        import gymnasium
    except ImportError:
        raise InputError(
            "gymnasium: not installed, and recording needs it; run `pip install 'svg-push[sim]'`"
        ) from None
    from . import registration  # noqa: F401 our own environment

    module, _, rest = name.rpartition(":")
    namespace = rest.partition("/")[0] if "/" in rest else ""
    try:
        if module or (rest not in gymnasium.registry and namespace):
            importlib.import_module(module or namespace)
    except ImportError as error:
        if module:
            raise InputError(f"--env: {module}: cannot be imported ({error})") from None
    try:
        env = gymnasium.make(rest, render_mode="rgb_array", **json.loads(arguments))
    except Exception as error:  # whatever an environment raises when it is made
        raise InputError(f"--env: {name}: cannot be made ({_one_line(error)})") from None
    if not isinstance(env.action_space, gymnasium.spaces.Box):
        raise InputError(f"--env: {name}: found actions {env.action_space}, expected a Box of numbers")
    return env


def _policy(recording: Recording, env: Any) -> Policy:
    if not recording.policy:
        return _HeldRandom(env, recording.hold)
    module, _, name = recording.policy.partition(":")
    try:
        return getattr(importlib.import_module(module), name)(env.unwrapped)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise InputError(f"--policy: {recording.policy}: cannot be used ({_one_line(error)})") from None


class _HeldRandom:
    """Random actions, each kept for some frames."""

    def __init__(self, env: Any, hold: int):
        self._space, self._hold = env.action_space, hold
        self._age = 0
        self._action = np.zeros(0)

    def __call__(self, observation: Any) -> np.ndarray:
        if self._age % self._hold == 0:
            self._action = self._space.sample()
        self._age += 1
        return self._action


def _picture(env: Any, recording: Recording) -> np.ndarray:
    picture = env.render()
    if not (isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.shape[2:] == (3,)):
        found = getattr(picture, "shape", type(picture).__name__)
        raise InputError(f"--env: {recording.env}: render() gave {found}, expected uint8 [H,W,3]")
    return fit_picture(Image.fromarray(picture), recording.image_width, recording.fit)


def _state(observation: Any, recording: Recording) -> np.ndarray:
    key, columns = recording.state_key, recording.state_columns
    try:
        values = np.array(observation if key == "." else observation[key], np.float32).ravel()
    except (KeyError, IndexError, TypeError, ValueError):
        names = ", ".join(observation) if isinstance(observation, dict) else "an array: give `.`"
        raise InputError(f"--state_key: found {key}, expected one of the observation's: {names}") from None
    beyond = [column for column in columns if not 0 <= column < len(values)]
    if beyond:
        raise InputError(f"--state_columns: found {beyond[0]}, expected 0 to {len(values) - 1}")
    return values[list(columns)] if columns else values


def _one_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def record(
    root: Path,
    recording: Recording,
    episodes: int,
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    workers: int | None = None,
    shard: WorkShard = WHOLE,
) -> Report:
    """Record those of `episodes` episodes that `root` does not have yet, index included.

    Raises `InputError` for values that cannot be, or if `root` holds something else.
    """
    workers = check_workers(workers)
    check_image_width(recording.image_width)
    check_shares(shares)
    for flag, value, least in (
        ("--episodes", episodes, 1),
        ("--frames", recording.frames, MIN_FRAMES),
        ("--hold", recording.hold, 1),
        ("--seed", recording.seed, 0),
    ):
        if value < least:
            raise InputError(f"{flag}: found {value}, expected {least} or more")
    if recording.state_columns and not recording.state_key:
        raise InputError("--state_columns: expected --state_key beside it, the numbers to choose from")
    _environment(recording.env, recording.env_args).close()  # complains before anything is written
    recipe = {"converter": "record", "version": 1, "splits": shares, **asdict(recording)}
    jobs = [
        (number, Path(root) / split / f"{number:05d}")
        for number, split in enumerate(assign_splits(episodes, shares))
    ]
    name = recording.env.rpartition(":")[2]
    data_root = DataRoot(Path(root), recipe, name, f"Gymnasium, {name}", RECIPE_FILE)
    work = partial(_record_to, recording=recording)
    return fill_root(data_root, jobs, work, workers, target=lambda job: job[1], shard=shard)


def _record_to(job: tuple[int, Path], recording: Recording) -> Report:
    number, folder = job
    frames, actions, states = record_episode(recording, number)
    if len(frames) < MIN_FRAMES:
        return Report(notes=[f"episode {number}: ended at its first frame: not used"])
    write_sequence(folder, frames, actions, states)
    return Report(written=1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``svg-data record``."""
    parser.add_argument("root", type=Path, help="folder of the data set, made if it does not exist")
    parser.add_argument("--env", required=True, help="name of the environment")
    parser.add_argument(
        "--env_args",
        default="{}",
        metavar="JSON",
        help='its arguments, like {"task": "reach"} (default: none)',
    )
    parser.add_argument("--policy", default="", metavar="MODULE:NAME", help="(default: random actions)")
    parser.add_argument(
        "--hold", type=int, default=1, help="frames for which a random action is kept (default: %(default)s)"
    )
    parser.add_argument(
        "--state_key",
        default="",
        help="of the observation, to store as positions; `.` is all of it (default: none)",
    )
    parser.add_argument(
        "--state_columns",
        type=int,
        nargs="+",
        default=[],
        metavar="N",
        help="which of these numbers, counted from 0 (default: all)",
    )
    parser.add_argument("--episodes", type=int, default=200, help="how many in all (default: %(default)s)")
    parser.add_argument(
        "--frames", type=int, default=30, help="most frames of an episode (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed, other episodes (default: %(default)s)"
    )
    add_fit_arguments(parser)
    add_splits_argument(parser)
    add_workers_argument(parser)
    add_shard_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Record episodes and print what was done."""
    try:
        json.loads(args.env_args).items()
    except (ValueError, AttributeError):
        raise InputError(
            f'--env_args: found {args.env_args}, expected JSON like {{"task": "reach"}}'
        ) from None
    sys.path.append(str(Path.cwd()))  # modules of --env and --policy may be files there; for workers, too
    recording = Recording(
        args.env,
        args.env_args,
        args.policy,
        args.hold,
        args.frames,
        args.state_key,
        tuple(args.state_columns),
        args.seed,
        args.image_width,
        args.fit,
    )
    report = record(args.root, recording, args.episodes, tuple(args.splits), args.workers, shard=args.shard)
    tell(f"{args.env}: {args.policy or 'random actions'}")
    print_report(args.root, [args.root], report)
