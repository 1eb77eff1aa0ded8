"""Find the cameras that filmed the same episodes by the paths of their recordings.

So all recordings of an episode come into one split, and one camera can be chosen.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import InputError

ON_THE_ROBOT = ("wrist", "hand", "gripper")  # in names of cameras that move along
CAMERA_WORDS = {
    "cam", "cams", "camera", "cameras", "image", "images", "view", "rgb", "depth", "webcam", "kinect",
    "realsense",
}  # fmt: skip
PLACE_WORDS = {
    "top", "bottom", "front", "back", "rear", "side", "left", "right", "up", "down", "high", "low",
    "overhead", "head", "wrist", "hand", "gripper", "arm", "main", "aux", "ext", "exterior", "external",
    "primary", "secondary", "third", "person", "ego", "exo", "scene", "static", "shoulder", "over",
    "base", "color", "colour",
}  # fmt: skip
_CAMERA, _PLACE = (
    f"(?:{'|'.join(sorted(words, key=len, reverse=True))})" for words in (CAMERA_WORDS, PLACE_WORDS)
)
_PLACES = f"{_PLACE}(?:[_-]{_PLACE})*"


@dataclass(frozen=True)
class Shot:
    """The episode that a recording shows, and the camera, or "" if it is not known to be one of several."""

    episode: str
    camera: str = ""


@dataclass(frozen=True)
class Cameras:
    """The shots of all recordings in their order; certain if names say that these are cameras."""

    shots: list[Shot]
    certain: bool = False

    @property
    def names(self) -> list[str]:
        """Return the names of the cameras, sorted; none if no episode was filmed by several."""
        return sorted({shot.camera for shot in self.shots if shot.camera})


def camera_order(name: str) -> tuple[bool, str]:
    """Return a key that sorts cameras by name; those that move with the robot or measure depth come last."""
    return any(word in name.lower() for word in (*ON_THE_ROBOT, "depth")), name


def find_cameras(names: Sequence[str], groups: Sequence[str]) -> Cameras:
    """Find recordings that show the same episode.

    Folders and files that are named like cameras (``observation.images.top/episode_0``, ``episode_0/wrist``,
    ``ep0_cam1``) are cameras if an episode has several. If no name is like that there may still be cameras:
    folders of any names that hold the same episodes, or files like ``0_left`` and ``0_right`` for each
    number. These are found as well, but are not certain.

    Args:
        names: relative paths, with slashes and without a suffix.
        groups: the split of each; an episode lies in one split only. A name is in a group once.
    """
    paths = [[group, *name.split("/")] for group, name in zip(groups, names, strict=True)]
    levels = range(1, max(map(len, paths), default=0))
    named = [
        [_read(path, level, take) for path in paths] for take in (_whole, _end, _start) for level in levels
    ]
    best = max(named, key=_count_filmed_twice, default=[])
    if best and _count_filmed_twice(best):
        return Cameras(best, certain=True)
    others = (_word, _end_place, _start_place)
    placed = [[_read(path, level, take) for path in paths] for take in others for level in levels]
    placed = [shots for shots in placed if _is_complete(shots)]
    # Numbers of devices, such as episode_0/12, episode_0/34; not of episodes, which are more.
    numbered = [_read(path, len(path) - 1, lambda name: ("", name)) for path in paths]
    if _is_complete(numbered) and _camera_count(numbered) ** 2 < len(numbered):
        placed.append(numbered)
    if placed:
        return Cameras(min(placed, key=_camera_count))
    return Cameras([Shot("/".join(path)) for path in paths])


def choose_camera(cameras: Cameras, asked: str | None) -> str | None:
    """Return the camera to take, or None for all. It may be asked for by a part that no other name has.

    Raises `InputError` that lists the cameras if there is none of this name.
    """
    if asked == "all" or (asked is None and not cameras.certain):
        return None
    if asked is None:
        return min(cameras.names, key=camera_order)
    matching = [name for name in cameras.names if asked in name]
    if asked in cameras.names:
        matching = [asked]
    if len(matching) != 1:
        names = ", ".join((*cameras.names, "all"))
        expected = f"one of {names}" if cameras.names else "no camera, as no episode has several"
        raise InputError(f"--camera: found {asked}, expected {expected}")
    return matching[0]


# ------------------------------------------------------------------------------------------ reading the paths


def _read(path: list[str], level: int, take: Callable[[str], tuple[str, str] | None]) -> Shot:
    """Return the shot, with its camera if it is named on this level of the path.

    `take` divides a name there into (rest, camera), or returns None.
    """
    taken = take(path[level]) if level < len(path) else None
    if taken is None:
        return Shot("/".join(path))
    rest, camera = taken
    return Shot("/".join((*path[:level], rest, *path[level + 1 :])), camera)


def _whole(name: str) -> tuple[str, str] | None:
    words = set(re.findall("[a-z]+", name.lower()))
    return ("", name) if words & CAMERA_WORDS or (words and words <= PLACE_WORDS) else None


def _word(name: str) -> tuple[str, str] | None:
    return None if re.search("[0-9]", name) else ("", name)  # numbered ones are rather episodes


def _pattern(pattern: str) -> Callable[[str], tuple[str, str] | None]:
    compiled = re.compile(pattern, re.IGNORECASE)

    def take(name: str) -> tuple[str, str] | None:
        match = compiled.fullmatch(name)
        return (match["episode"], match["camera"]) if match else None

    return take


_end = _pattern(rf"(?P<episode>.*?[^a-z])(?P<camera>{_CAMERA}(?![a-z]).*)")  # episode_0_cam_high
_start = _pattern(rf"(?P<camera>(?:.*[^a-z])?{_CAMERA}[_-]?[0-9]*)(?P<episode>[^a-z0-9].*)")  # cam1_episode_0
_end_place = _pattern(rf"(?P<episode>.*[0-9])[_.-](?P<camera>{_PLACES})")  # episode_0_top
_start_place = _pattern(rf"(?P<camera>{_PLACES})[_.-](?P<episode>.*[0-9].*)")  # top_0


# --------------------------------------------------------------------------------------- judging the readings


def _cameras_of_episodes(shots: list[Shot]) -> list[set[str]]:
    episodes: dict[str, set[str]] = {}
    for shot in shots:
        episodes.setdefault(shot.episode, set()).add(shot.camera)
    return list(episodes.values())


def _count_filmed_twice(shots: list[Shot]) -> int:
    """Return the number of episodes that have several cameras."""
    episodes = _cameras_of_episodes(shots)
    # Cameras of a single episode whose names differ only in a number may as well be parts of it.
    if len(episodes) == 1 and len({re.sub("[0-9]+", "", camera) for camera in episodes[0]}) < len(
        episodes[0]
    ):
        return 0
    return sum(len(cameras) > 1 for cameras in episodes)


def _is_complete(shots: list[Shot]) -> bool:
    """Return whether there are several episodes that all have the same cameras, two or more."""
    episodes = _cameras_of_episodes(shots)
    return len(episodes) > 1 and len(episodes[0]) > 1 and all(cameras == episodes[0] for cameras in episodes)


def _camera_count(shots: list[Shot]) -> int:
    return len({shot.camera for shot in shots})
