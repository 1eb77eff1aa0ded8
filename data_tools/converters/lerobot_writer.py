"""Write LeRobot data sets, version 3.0: frames, videos, statistics, and what ``meta`` says of them."""

import json
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..png import encode_frames
from ..store import Store

VERSION = "v3.0"
CAMERA, ACTION, STATE = "observation.images.camera", "action", "observation.state"
CODECS = {"h264": "libx264", "av1": "libsvtav1"}
EPISODES_A_CHUNK, DATA_MB, VIDEO_MB = 1000, 100, 200
"""The usual limits of the format; files are closed when they reach them."""
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
STATISTICS_FRAMES = 100  # of an episode, from which the statistics of its pixels are taken
COUNTERS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
NEEDS = "pyarrow and av: not installed, and the export needs them; run `pip install 'svg-push[lerobot]'`"


@dataclass(frozen=True)
class Episode:
    """A sequence on its way out: frames uint8 [T,H,W,C], and the columns of its features, [T,...]."""

    number: int
    frames: np.ndarray
    columns: dict[str, np.ndarray]


def import_arrow() -> tuple[Any, Any]:
    """Return ``pyarrow`` and its Parquet module. Raise `InputError` if they or PyAV are not installed."""
    try:
        import av  # noqa: F401
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(NEEDS) from None
    return pa, pq


# ------------------------------------------------------------------------------------------------- statistics


def _statistics(values: np.ndarray) -> dict[str, np.ndarray]:
    """Return what the format wants to know of each column of values [N,C]; ``count`` is N."""
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    return {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": values.std(0),
        "count": np.array([len(values)]),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


def _episode_statistics(episode: Episode) -> dict[str, dict[str, np.ndarray]]:
    picks = np.linspace(0, len(episode.frames) - 1, min(len(episode.frames), STATISTICS_FRAMES)).round()
    pixels = episode.frames[picks.astype(int)].reshape(-1, episode.frames.shape[-1]) / 255
    of_pixels = _statistics(pixels)
    of_pixels = {
        name: value if name == "count" else value.reshape(-1, 1, 1) for name, value in of_pixels.items()
    }
    of_pixels["count"] = np.array([len(picks)])
    numbers = {
        name: _statistics(values.reshape(len(values), -1).astype(np.float64))
        for name, values in episode.columns.items()
    }
    return numbers | {CAMERA: of_pixels}


@dataclass
class _Totals:
    """Statistics of all episodes.

    Quantiles are means of those of the episodes, as LeRobot itself takes them.
    """

    count: int = 0
    values: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, new: dict[str, np.ndarray]) -> None:
        count = int(new["count"][0])
        if not self.count:
            self.count = count
            self.values = {
                name: np.asarray(value, np.float64) for name, value in new.items() if name != "count"
            }
            return
        old = self.values
        share = count / (self.count + count)
        mean = old["mean"] + share * (new["mean"] - old["mean"])
        squares = (1 - share) * (old["std"] ** 2 + old["mean"] ** 2) + share * (
            new["std"] ** 2 + new["mean"] ** 2
        )
        self.values = {name: (1 - share) * old[name] + share * new[name] for name in QUANTILES}
        self.values["min"] = np.minimum(old["min"], new["min"])
        self.values["max"] = np.maximum(old["max"], new["max"])
        self.values["mean"] = mean
        self.values["std"] = np.sqrt(np.maximum(squares - mean**2, 0))
        self.count += count

    def as_json(self) -> dict[str, list]:
        return {name: value.tolist() for name, value in self.values.items()} | {"count": [self.count]}


# ---------------------------------------------------------------------------------------------------- writing


class Writer:
    """Write episodes one by one into files of the sizes that the format asks for."""

    def __init__(self, folder: Path, fps: float, task: str, video: str, store: Store):
        self._folder, self._fps, self._task, self._video = folder, fps, task, video
        self._rows: list[dict[str, Any]] = []
        self._totals: dict[str, _Totals] = {}
        self._data = _DataFiles(folder, store, bool(video))
        self._films = _VideoFiles(folder, fps, CODECS[video]) if video else None
        self._frame_size = store.frame_size
        self._widths = {ACTION: store.info.action_dim, STATE: store.info.position_dim}
        self._frames = 0

    def add(self, episode: Episode) -> None:
        length = len(episode.frames)
        row: dict[str, Any] = {"episode_index": episode.number, "tasks": [self._task], "length": length}
        chunk, file = self._data.add(episode)
        row |= {"data/chunk_index": chunk, "data/file_index": file}
        row |= {"dataset_from_index": self._frames, "dataset_to_index": self._frames + length}
        if self._films:
            row |= self._films.add(episode.frames)
        for name, statistics in _episode_statistics(episode).items():
            row |= {f"stats/{name}/{key}": value.tolist() for key, value in statistics.items()}
            self._totals.setdefault(name, _Totals()).add(statistics)
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        self._rows.append(row)
        self._frames += length

    def finish(self, source: str, lengths: dict[str, int]) -> None:
        """Close the files and write those below ``meta``."""
        pa, pq = import_arrow()
        self._data.close()
        if self._films:
            self._films.close()
        meta = self._folder / "meta"
        (meta / "episodes" / "chunk-000").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self._rows), meta / "episodes" / "chunk-000" / "file-000.parquet")
        import pandas as pd

        pd.DataFrame({"task_index": [0]}, index=[self._task]).to_parquet(meta / "tasks.parquet")
        statistics = {name: totals.as_json() for name, totals in self._totals.items()}
        (meta / "stats.json").write_text(json.dumps(statistics, indent=4))
        ends = np.cumsum(list(lengths.values())).tolist()
        splits = {split: f"{end - lengths[split]}:{end}" for split, end in zip(lengths, ends, strict=True)}
        (meta / "info.json").write_text(json.dumps(self._info(source, splits), indent=4))

    def _info(self, source: str, splits: dict[str, str]) -> dict[str, Any]:
        names = {"dtype": "video" if self._video else "image", "shape": list(self._frame_size)}
        features: dict[str, Any] = {CAMERA: names | {"names": ["height", "width", "channels"]}}
        if self._video:
            height, width, channels = self._frame_size
            features[CAMERA]["info"] = {
                "video.height": height,
                "video.width": width,
                "video.codec": self._video,
                "video.pix_fmt": "yuv420p",
                "video.is_depth_map": False,
                "video.fps": self._fps,
                "video.channels": channels,
                "has_audio": False,
            }
        for name, width in self._widths.items():
            if width:
                numbers = [f"{name.rpartition('.')[2]}_{column}" for column in range(width)]
                features[name] = {"dtype": "float32", "shape": [width], "names": numbers}
        for name in COUNTERS:
            dtype = "float32" if name == "timestamp" else "int64"
            features[name] = {"dtype": dtype, "shape": [1], "names": None}
        chunks = "chunk-{chunk_index:03d}/file-{file_index:03d}"
        return {
            "codebase_version": VERSION,
            "robot_type": source or None,
            "total_episodes": len(self._rows),
            "total_frames": self._frames,
            "total_tasks": 1,
            "chunks_size": EPISODES_A_CHUNK,
            "data_files_size_in_mb": DATA_MB,
            "video_files_size_in_mb": VIDEO_MB,
            "fps": int(self._fps) if self._fps == int(self._fps) else self._fps,
            "splits": splits,
            "data_path": f"data/{chunks}.parquet",
            "video_path": f"videos/{{video_key}}/{chunks}.mp4" if self._video else None,
            "features": features,
        }


class _Numbering:
    """The chunk and number of the file that is written."""

    def __init__(self) -> None:
        self.chunk = self.file = 0

    def advance(self) -> None:
        self.file += 1
        if self.file == EPISODES_A_CHUNK:
            self.chunk, self.file = self.chunk + 1, 0

    @property
    def path(self) -> str:
        return f"chunk-{self.chunk:03d}/file-{self.file:03d}"


class _DataFiles:
    """The Parquet files of frames: one row group an episode, so that an episode can be read alone."""

    def __init__(self, folder: Path, store: Store, video: bool):
        pa, _ = import_arrow()
        self._folder, self._video = folder, video
        columns: list[tuple[str, Any]] = []
        if not video:
            columns.append((CAMERA, pa.struct([("bytes", pa.binary()), ("path", pa.string())])))
        for name, width in ((ACTION, store.info.action_dim), (STATE, store.info.position_dim)):
            if width:
                columns.append((name, pa.list_(pa.float32(), width)))
        columns += [(name, pa.float32() if name == "timestamp" else pa.int64()) for name in COUNTERS]
        self._schema = pa.schema(columns)
        self._numbering = _Numbering()
        self._file: Any = None
        self._bytes = 0

    def add(self, episode: Episode) -> tuple[int, int]:
        """Write an episode; return the chunk and the number of its file."""
        pa, pq = import_arrow()
        values: dict[str, list] = {name: column.tolist() for name, column in episode.columns.items()}
        if not self._video:
            pictures = encode_frames(episode.frames)
            values[CAMERA] = [
                {"bytes": data, "path": f"frame-{time:06d}.png"} for time, data in enumerate(pictures)
            ]
        table = pa.Table.from_pydict(values, self._schema)
        if self._file is not None and self._bytes + table.nbytes > DATA_MB * 2**20:
            self.close()
            self._numbering.advance()
        if self._file is None:
            path = self._folder / "data" / f"{self._numbering.path}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file, self._bytes = pq.ParquetWriter(path, self._schema), 0
        self._file.write_table(table)
        self._bytes += table.nbytes
        return self._numbering.chunk, self._numbering.file

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class _VideoFiles:
    """The videos, each of many episodes one after the other."""

    def __init__(self, folder: Path, fps: float, codec: str):
        self._folder, self._fps, self._codec = folder, fps, codec
        self._numbering = _Numbering()
        self._file: Any = None
        self._stream: Any = None
        self._frames = self._bytes = 0

    def add(self, frames: np.ndarray) -> dict[str, Any]:
        """Write the frames of an episode; return what the row of the episode says of them."""
        import av

        if self._file is not None and self._bytes > VIDEO_MB * 2**20:
            self.close()
            self._numbering.advance()
        if self._file is None:
            self._open(frames.shape[1:3])
        start = self._frames
        for image in frames:
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            picture.pts = self._frames
            self._write(self._stream.encode(picture))
            self._frames += 1
        key = f"videos/{CAMERA}"
        return {
            f"{key}/chunk_index": self._numbering.chunk,
            f"{key}/file_index": self._numbering.file,
            f"{key}/from_timestamp": start / self._fps,
            f"{key}/to_timestamp": self._frames / self._fps,
        }

    def _open(self, size: tuple[int, ...]) -> None:
        import av

        path = self._folder / "videos" / CAMERA / f"{self._numbering.path}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        rate = Fraction(self._fps).limit_denominator(1001)
        self._file = av.open(str(path), "w")
        stream: Any = self._file.add_stream(self._codec, rate=rate, options={"crf": "30", "g": "2"})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.time_base = 1 / rate
        self._stream = stream
        self._frames = self._bytes = 0

    def _write(self, packets: list[Any]) -> None:
        for packet in packets:
            self._bytes += packet.size
            self._file.mux(packet)

    def close(self) -> None:
        if self._file is not None:
            self._write(self._stream.encode(None))
            self._file.close()
            self._file = None
