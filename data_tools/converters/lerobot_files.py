"""What a LeRobot data set says of itself, and its tables and videos: versions 3.0 and 2.1.

``meta/info.json`` names the features and the patterns of file names. In version 3.0 many episodes share a
Parquet file and a video, and ``meta/episodes/`` says where each begins; in version 2.1 each has its own,
listed in ``meta/episodes.jsonl``. No number in these files is believed: all are checked before they are used.
"""

import json
import math
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from ..files import open_regular, read_bytes
from ..json_files import read_json
from ..layout import MAX_COLUMNS, MAX_FRAMES, MAX_PIXELS
from .images import decode_picture

INFO_FILE = "meta/info.json"
EPISODES_FOLDER = "meta/episodes"
EPISODES_FILE = "meta/episodes.jsonl"
VERSIONS = ("v2.0", "v2.1", "v3.0")
ADVICE = "restore it"
NEEDS = "pyarrow and av: not installed, and LeRobot data needs them; run `pip install 'svg-push[lerobot]'`"
CAMERAS = ("image", "video")
_MOST_META = 2**28  # bytes of a file below meta
_MOST_EPISODES = 10_000_000


@dataclass(frozen=True)
class Feature:
    """A column of the data set: its type (``image`` and ``video`` are cameras) and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def is_vector(self) -> bool:
        """Whether it is a number or a row of numbers."""
        return len(self.shape) == 1 and (
            self.dtype.startswith(("float", "int", "uint")) or self.dtype == "bool"
        )


@dataclass(frozen=True)
class Episode:
    """An episode and the files that hold it.

    Args:
        number: its ``episode_index``.
        length: in frames.
        data: path of its Parquet file below the data set.
        videos: by camera, the path of the video and the second at which the episode begins in it.
    """

    number: int
    length: int
    data: str
    videos: dict[str, tuple[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Info:
    """The contents of ``meta/info.json`` as far as they matter here, and the episodes."""

    root: Path
    version: str
    fps: float
    features: dict[str, Feature]
    splits: dict[str, range]
    episodes: list[Episode]

    @property
    def cameras(self) -> list[str]:
        """The features that are pictures or videos."""
        return [name for name, feature in self.features.items() if feature.dtype in CAMERAS]

    @property
    def vectors(self) -> list[str]:
        """The features that are numbers or rows of numbers."""
        return [name for name, feature in self.features.items() if feature.is_vector]


def read_info(root: Path) -> Info:
    """Read what a data set says of itself. Raises `InputError` naming file, value and what was expected."""
    path = root / INFO_FILE
    if not path.exists():
        raise InputError(f"{root}: found no {INFO_FILE}, expected the folder of a LeRobot data set")
    values = read_json(path, ADVICE)
    try:
        version = str(values["codebase_version"])
        if version not in VERSIONS:
            raise InputError(f"{path}: found version {version[:20]!r}, expected one of {', '.join(VERSIONS)}")
        features = {str(name): _feature(feature) for name, feature in values["features"].items()}
        fps = float(values["fps"])
        if not 0 < fps < math.inf:
            raise ValueError(f"fps {fps}")
        splits = {str(name): _range(text) for name, text in values.get("splits", {}).items()}
        episodes = _episodes(root, version, values, [n for n, f in features.items() if f.dtype == "video"])
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise InputError(f"{path}: damaged ({error}); {ADVICE}") from None
    return Info(root, version, fps, features, splits, episodes)


def _feature(values: dict[str, Any]) -> Feature:
    shape = tuple(int(side) for side in values["shape"])
    if len(shape) > 8 or any(not 0 <= side <= MAX_PIXELS for side in shape):
        raise ValueError(f"shape {list(shape)[:8]}")
    if len(shape) == 1 and shape[0] > MAX_COLUMNS:
        raise ValueError(f"{shape[0]} columns, expected at most {MAX_COLUMNS}")
    return Feature(str(values["dtype"]), shape)


def _range(text: str) -> range:
    """Return the episodes that ``"0:40"`` stands for."""
    start, stop = text.split(":")
    return range(int(start), int(stop))


def _episodes(root: Path, version: str, info: dict[str, Any], videos: list[str]) -> list[Episode]:
    rows = _read_parquet_rows(root) if version == "v3.0" else _read_json_lines(root)
    episodes = []
    for row in rows:
        number = _whole(row["episode_index"], _MOST_EPISODES)
        length = _whole(row["length"], MAX_FRAMES)
        if version == "v3.0":
            places = {"data": (row["data/chunk_index"], row["data/file_index"])}
            starts = {}
            for camera in videos:
                key = f"videos/{camera}"
                places[camera] = (row[f"{key}/chunk_index"], row[f"{key}/file_index"])
                starts[camera] = float(row[f"{key}/from_timestamp"])
            values = {name: {"chunk_index": c, "file_index": f} for name, (c, f) in places.items()}
        else:
            chunk = number // _whole(info["chunks_size"], _MOST_EPISODES)
            shared = {"episode_chunk": chunk, "episode_index": number}
            values = dict.fromkeys(["data", *videos], shared)
            starts = dict.fromkeys(videos, 0.0)
        data = _place(info["data_path"], values["data"])
        films = {
            camera: (_place(info["video_path"], values[camera] | {"video_key": camera}), starts[camera])
            for camera in videos
        }
        episodes.append(Episode(number, length, data, films))
    return sorted(episodes, key=lambda episode: episode.number)


def _whole(value: Any, most: int) -> int:
    if isinstance(value, bool) or int(value) != value or not 0 <= value <= most:
        raise ValueError(f"{str(value)[:20]}, expected a whole number up to {most}")
    return int(value)


def _place(pattern: str, values: dict[str, Any]) -> str:
    """Return the path that a pattern such as ``data/chunk-{chunk_index:03d}/...`` names.

    It stays below the data set.
    """
    for _, name, _, conversion in string.Formatter().parse(pattern):
        if name is not None and (name not in values or conversion):  # no attributes, no calls
            raise ValueError(f"{pattern[:80]!r}, which names an unknown {name[:20]}")
    path = pattern.format(**values)
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError(f"{path[:80]!r}, which leads out of the data set")
    return path


def _read_parquet_rows(root: Path) -> list[dict[str, Any]]:
    files = sorted((root / EPISODES_FOLDER).glob("*/*.parquet"))
    if not files:
        raise InputError(f"{root / EPISODES_FOLDER}: found no Parquet file; {ADVICE}")
    rows = []
    for path in files:
        rows += read_table(path, root, None).to_pylist()
    return rows


def _read_json_lines(root: Path) -> list[dict[str, Any]]:
    path = root / EPISODES_FILE
    try:
        return [json.loads(line) for line in read_bytes(path, _MOST_META, root).splitlines() if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {ADVICE}") from None


# ----------------------------------------------------------------------------------------------------- tables


def read_table(path: Path, root: Path, columns: list[str] | None, episode: int | None = None) -> Any:
    """Return columns of a Parquet file as a ``pyarrow.Table``, those of one episode if it is given.

    Statistics that the file's metadata holds let other episodes be passed over unread. All columns but those
    of statistics are read if `columns` is None. Raises `InputError` naming the file.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(NEEDS) from None
    try:
        with open_regular(path, root) as file:
            schema = pq.ParquetFile(file).schema_arrow
            names = [name for name in schema.names if not name.startswith("stats/")]
            missing = set(columns or ()) - set(names)
            if missing:
                raise InputError(f"{path}: found no column {sorted(missing)[0]}; {ADVICE}")
            file.seek(0)
            only = None if episode is None else [("episode_index", "==", episode)]
            return pq.read_table(file, columns=columns or names, filters=only)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0][:200]}); {ADVICE}") from None


def columns_of(table: Any, names: Sequence[str], info: Info, place: str) -> np.ndarray | None:
    """Return vector features side by side, float32 [T,columns], or None without names.

    Raises `InputError`.
    """
    parts = []
    for name in names:
        width = info.features[name].shape[0]
        rows = table.column(name).to_pylist()
        try:
            values = np.array(rows, np.float32).reshape(len(rows), width)
        except (TypeError, ValueError):
            raise InputError(f"{place}: {name}: expected {width} numbers in every row; {ADVICE}") from None
        parts.append(values)
    return np.concatenate(parts, axis=1) if parts else None


# --------------------------------------------------------------------------------------------------- pictures


def stored_pictures(table: Any, camera: str, place: str) -> Iterator[Image.Image]:
    """Yield the pictures of a column of structs ``{bytes, path}``. Raises `InputError`."""
    for time, cell in enumerate(table.column(camera).to_pylist()):
        data = cell.get("bytes") if isinstance(cell, dict) else None
        if not isinstance(data, bytes):
            raise InputError(f"{place}: {camera}: found no picture in frame {time}; {ADVICE}")
        try:
            yield decode_picture(data, ("PNG", "JPEG"))
        except ValueError as error:
            raise InputError(f"{place}: {camera}: frame {time}: {error}; {ADVICE}") from None


def video_pictures(path: Path, root: Path, start: float, count: int, fps: float) -> Iterator[Image.Image]:
    """Yield `count` pictures of a video, from the one at `start` seconds on.

    The picture of frame t is the one whose time, in frames, rounds to that of ``start + t / fps``: whoever
    compares times with a tolerance loses frames. Raises `InputError` naming the file if one is missing.
    """
    try:
        import av
    except ImportError:
        raise InputError(NEEDS) from None
    first = round(start * fps)
    try:
        with open_regular(path, root) as file, av.open(file) as container:
            number = first
            for found, picture in _decode_from(container, first, fps):
                if number == first + count:
                    return
                if found != number:
                    raise InputError(f"{path}: found frame {found}, expected {number}; {ADVICE}")
                yield picture
                number += 1
        if number < first + count:
            raise InputError(f"{path}: ends at frame {number}, expected {first + count}; {ADVICE}")
    except (OSError, ValueError) as error:  # PyAV's errors are of these kinds
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read ({str(error)[:200]}); {ADVICE}") from None


def _decode_from(container: Any, first: int, fps: float) -> Iterator[tuple[int, Image.Image]]:
    """Yield the numbers and pictures of a video from frame `first` on."""
    if not container.streams.video:
        raise ValueError("no video in it")
    stream = container.streams.video[0]
    if first:
        # A frame early: times of key frames are rounded, too.
        container.seek(int(max(0, first - 1) / fps / stream.time_base), stream=stream)
    for frame in container.decode(stream):
        number = round(frame.time * fps)
        if number >= first:
            yield number, frame.to_image()
