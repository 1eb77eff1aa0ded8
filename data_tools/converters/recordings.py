"""Find the recordings below a folder: the files, split, episode and camera of each."""

import itertools
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from ..conversion import Shares, assign_splits
from ..errors import InputError
from ..files import natural_key, read_bytes, walk
from ..layout import MAX_INDEX, SPLITS
from ..splits import find_splits, split_of
from ..tables import TABLES, name_hint
from ..unread import among, list_unread
from .cameras import Shot, choose_camera, find_cameras
from .images import PICTURES, count_frames

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ogv")
SAME_KIND = {".jpeg": ".jpg", ".tiff": ".tif", ".apng": ".png"}
MIN_FRAMES = 2  # of a sequence: fewer show no motion


@dataclass(frozen=True)
class Recording:
    """A video, an animation or a folder of pictures.

    Args:
        path: the file or folder.
        place: its path below the source, with slashes.
        name: path of its folder in a data root below that of the split.
        pictures: names of the pictures in the folder, in order; none for a file.
        split: its split; None if its beginning and its end belong to different ones.
        shot: the episode and the camera.
        tables: the files of ``actions`` and ``positions``, as far as it has them.
    """

    path: Path
    place: str
    name: str
    pictures: tuple[str, ...] = ()
    split: str | None = None
    shot: Shot = field(default_factory=lambda: Shot(""))
    tables: dict[str, Path] = field(default_factory=dict)

    @property
    def stem(self) -> str:
        """Return its name without the suffix of a file."""
        return self.name if self.pictures else self.name.removesuffix(self.path.suffix)

    def fingerprint(self) -> list[int]:
        """Fingerprint the recording, to notice that it changed since an interrupted run.

        Returns the number and the bytes of its pictures and the checksums of its tables. Raises `OSError` for
        a table that cannot be read.
        """
        files = [self.path / name for name in self.pictures] or [self.path]
        checksums = (zlib.crc32(read_bytes(table, MAX_INDEX)) for table in self.tables.values())
        return [len(files), sum(file.stat().st_size for file in files), *checksums]


def plan_recordings(
    source: Path, shares: Shares, camera: str | None = None
) -> tuple[list[Recording], list[str]]:
    """Find the recordings at or below `source` that will be converted, each with its split and its tables.

    Args:
        source: a video, or a folder.
        shares: of train, validate and test, for recordings that do not lie in folders of these.
        camera: the camera to take if several filmed an episode, "all" for all of them, None for the usual
            one.

    Returns the recordings in natural order, and lines about choices and about files that are not read. Raises
    `InputError` if there are none, two would become the same sequence, or there is no such camera.
    """
    recordings, are_split = _with_given_splits(find_recordings(source))
    _check_names(recordings)
    cameras = find_cameras(
        [recording.stem for recording in recordings], [recording.split or "" for recording in recordings]
    )
    recordings = [
        replace(recording, shot=shot) for recording, shot in zip(recordings, cameras.shots, strict=True)
    ]
    recordings = _with_tables(source, recordings)
    if not are_split:
        recordings = _assign(recordings, shares)
    chosen = choose_camera(cameras, camera)
    notes = _describe_choice(recordings, cameras.names, chosen, asked=camera is not None)
    notes += _list_unread(source, recordings)
    if chosen is not None:
        recordings = [recording for recording in recordings if recording.shot.camera in ("", chosen)]
    return recordings, notes


# ---------------------------------------------------------------------------------------------------- finding


def find_recordings(source: Path) -> list[Recording]:
    """Return the videos, animations and folders of pictures at or below `source`, in natural order.

    Hidden ones are left out, and a single picture is no recording. Raises `InputError` if there are none.
    """
    if source.is_file():
        return [Recording(source, source.name, source.name)]
    recordings: list[Recording] = []
    single: list[Path] = []  # folders with one picture
    for folder, files in walk(source):
        path = Path(folder)
        moving = [name for name in files if not name.startswith(".") and _is_moving(path / name)]
        pictures = list_pictures(path, set(files) - set(moving))
        if len(pictures) == 1:
            if count_frames(path / pictures[0]):
                single.append(path)
            else:  # damaged: reading it will give the reason
                moving += pictures
        recordings += [_recording(source, path / name) for name in moving]
        if len(pictures) >= MIN_FRAMES:
            recordings.append(_recording(source, path, pictures))
    if not recordings and single:
        few = f"{single[0]}: found fewer than {MIN_FRAMES} frames"
        raise InputError(f"{source}: no recording can be used; {few}")
    if not recordings:
        kinds = " ".join(VIDEOS + PICTURES)
        missing = f"found neither videos nor pictures ({kinds})"
        raise InputError(f"{source}: {missing}; name a video or a folder of them")
    return sorted(
        recordings, key=lambda recording: natural_key(recording.path.relative_to(source).as_posix())
    )


def _recording(source: Path, path: Path, pictures: Sequence[str] = ()) -> Recording:
    place = path.relative_to(source).as_posix() if path != source else source.resolve().name
    return Recording(path, place, place, tuple(pictures))


def _is_moving(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in VIDEOS or (suffix in PICTURES and count_frames(path) > 1)


def list_pictures(folder: Path, files: Sequence[str] | set[str]) -> list[str]:
    """Return the pictures among the files of a folder, of the most frequent kind, in natural order.

    Raises `InputError` if they are two series with the same numbers, as of two cameras.
    """
    kinds: dict[str, list[str]] = {}
    for name in files:
        suffix = Path(name).suffix.lower()
        if suffix in PICTURES and not name.startswith("."):
            kinds.setdefault(SAME_KIND.get(suffix, suffix), []).append(name)
    if not kinds:
        return []
    usual = max(kinds, key=lambda kind: (len(kinds[kind]), -PICTURES.index(kind)))
    pictures = sorted(kinds[usual], key=natural_key)
    series: dict[str, list[str]] = {}
    for name in pictures:
        series.setdefault(re.sub("[0-9]+", "#", name), []).append(name)
    long_series = [names for names in series.values() if len(names) > 1]
    numbers = Counter(tuple(re.sub("[^0-9]+", " ", name) for name in names) for names in long_series)
    if any(count > 1 for count in numbers.values()):
        found = ", ".join(sorted(series)[:5])
        several = f"holds several series of pictures of the same numbers ({found})"
        raise InputError(f"{folder}: {several}; put each into its own folder")
    return pictures


def _with_given_splits(recordings: list[Recording]) -> tuple[list[Recording], bool]:
    """Return the recordings with the splits of their folders, and whether there are such folders.

    Files called ``train.mp4``, ``val.mp4`` and so on are of these splits. Raises `InputError` if only some
    lie in one.
    """
    places = find_splits([recording.place for recording in recordings])
    inside = [recording for recording, place in zip(recordings, places, strict=True) if place]
    if not inside:
        stems = [split_of(PurePosixPath(recording.stem).name) for recording in recordings]
        if None in stems or len(set(stems)) < 2:
            return recordings, False
        named = [replace(recording, split=split) for recording, split in zip(recordings, stems, strict=True)]
        return named, True
    placed = []
    for recording, place in zip(recordings, places, strict=True):
        if place is None:
            outside = f"lies outside of {', '.join(SPLITS)}, where others lie ({inside[0].place})"
            raise InputError(f"{recording.place}: {outside}; move it into one of them or away")
        split, name = place
        placed.append(replace(recording, split=split, name=name))
    return placed, True


def _check_names(recordings: list[Recording]) -> None:
    """Raise `InputError` if two recordings would share a folder or nest, or a name cannot be written."""
    by_name: dict[tuple[str | None, str], Path] = {}
    for recording in recordings:
        if not recording.place.isprintable():
            odd = "a name with characters that cannot be written"
            raise InputError(f"{str(recording.path)!r}: {odd}; rename it")
        other = by_name.setdefault((recording.split, recording.name), recording.path)
        if other != recording.path:
            raise InputError(f"{recording.path}: has the same name as the recording {other}; rename it")
    for recording in recordings:
        for above in PurePosixPath(recording.name).parents:
            holder = by_name.get((recording.split, str(above)))
            if holder:
                advice = "put them into a folder of their own"
                raise InputError(f"{holder}: holds pictures and, below them, {recording.path}; {advice}")


# ----------------------------------------------------------------------------------------------------- tables


def _with_tables(source: Path, recordings: list[Recording]) -> list[Recording]:
    """Return the recordings with their tables, which may lie beside them in a folder of one episode."""
    episodes: dict[Path, set[str]] = {}
    for recording in recordings:
        episodes.setdefault(recording.path.parent, set()).add(recording.shot.episode)
    complete = []
    for recording in recordings:
        is_source = recording.path == source and bool(recording.pictures)
        tables = _find_tables(
            recording, is_alone=len(episodes[recording.path.parent]) == 1, beside=not is_source
        )
        complete.append(replace(recording, tables=tables))
    return complete


def _find_tables(recording: Recording, is_alone: bool, beside: bool) -> dict[str, Path]:
    """Return the tables of a recording; with `beside`, also from the folder that it lies in."""
    path = recording.path
    tables: dict[str, Path] = {}
    stem = path.name if recording.pictures else path.stem
    for key, name in TABLES.items():
        places = [path / name] if recording.pictures else []
        if beside:
            places += [path.with_name(f"{stem}{mark}{name}") for mark in "_-."]
            places += [path.with_name(f"{stem}.csv")] if key == "actions" else []
            places += [path.parent / name] if is_alone else []
        table = next((place for place in places if place.exists()), None)
        if table:
            tables[key] = table
    return tables


def _list_unread(source: Path, recordings: list[Recording]) -> list[str]:
    files = [table for recording in recordings for table in recording.tables.values()]
    for recording in recordings:
        files += [recording.path / name for name in recording.pictures] or [recording.path]
    return list(itertools.chain(*list_unread(source, among(files), table_hint=_table_hint)))


def _table_hint(name: str) -> str:
    return f"{name_hint(name)}; beside ep1.mp4 a table may be called ep1_{TABLES['actions']}"


# ----------------------------------------------------------------------------------------- splits and cameras


def _assign(recordings: list[Recording], shares: Shares) -> list[Recording]:
    """Return the recordings with a split for each episode; unchanged if there are fewer than three."""
    episodes = list(dict.fromkeys(recording.shot.episode for recording in recordings))
    if len(episodes) < len(SPLITS):
        return recordings
    split = dict(zip(episodes, assign_splits(len(episodes), shares), strict=True))
    return [replace(recording, split=split[recording.shot.episode]) for recording in recordings]


def _describe_choice(
    recordings: list[Recording], cameras: list[str], chosen: str | None, asked: bool
) -> list[str]:
    """Return lines about the cameras if there are several: the chosen one, the others, missing recordings."""
    if not cameras or (asked and chosen is None):
        return []
    if chosen is None:
        names = f"{', '.join(cameras[:5])}{' ...' if len(cameras) > 5 else ''}"
        advice = "if these are cameras, choose with --camera"
        return [f"recordings of the same names under {names} stay in one split; {advice}"]
    lines = []
    if not asked:
        others = ", ".join(camera for camera in cameras if camera != chosen)
        advice = "choose with --camera NAME, or take --camera all"
        lines.append(f"camera {chosen} is taken, not {others}; {advice}")
    filmed = {recording.shot.episode for recording in recordings if recording.shot.camera in ("", chosen)}
    lacking = [recording for recording in recordings if recording.shot.episode not in filmed]
    if lacking:
        count = len({recording.shot.episode for recording in lacking})
        unused = f"{count} episodes, which are not used (first: {lacking[0].place})"
        lines.append(f"camera {chosen} has no recording of {unused}")
    return lines
