"""Result of an evaluation: scores of every frame, averages with intervals, in tables and on disk."""

import contextlib
import hashlib
import json
from collections.abc import Generator, Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_tools.errors import InputError
from data_tools.files import folder_in, read_bytes, write_texts
from data_tools.json_files import read_dataclass, read_json
from data_tools.layout import parse_csv

from .intervals import Interval, bootstrap_interval, mean_interval, paired_differences
from .methods import METHODS
from .metrics import FRAME, METRICS, VIDEO, of_scope
from .object_tables import ALL_METRICS, ObjectScores, read_object_scores
from .protocols import Protocol
from .score_tables import SAMPLE_COLUMNS, check_distances, check_object_scores, check_samples, check_scores
from .tables import Table, listing, number
from .wording import CHANGES, describe_action_test, describe_protocol, describe_samples

FOLDER = "evaluation"
MOST_BYTES = 2**30
"""Size of the largest table of scores that is read."""
SCHEMA_VERSION = 2
ADVICE = "run svg-evaluate again"
SCORES = "scores"
EXTRA_TABLES = ("samples", "objects", "parts")
"""Tables beside that of the scores, by the ends of their names."""
UNRECORDED = "not recorded by an earlier release; positions, if any, were the true ones of the future"


@dataclass(frozen=True)
class Setting:
    """Data, model and machine of an evaluation.

    data         root of the data set
    sequences    number of scored sequences
    seed         of the sampled futures
    precision    numbers and device that computed
    weights      origin of the model, which ends with its identity
    data_digest  fingerprint of the files of the sequences
    conditions   what predictions were given besides the observed frames; empty in files of earlier releases
    """

    data: str
    split: str
    sequences: int = field(metadata={"least": 0})
    seed: int = field(metadata={"least": 0})
    precision: str
    weights: str = ""
    machine: dict[str, str] = field(default_factory=dict)
    data_digest: str = ""
    conditions: str = ""

    @property
    def scored(self) -> str:
        """The scored sequences, in words."""
        return f"{self.sequences} sequences of {self.data}/{self.split}"

    def is_of(self, identity: str) -> bool:
        """Return whether the scores are of the weights of this identity (`runs.checkpoint`)."""
        return self.weights.endswith(identity)


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model.

    scores      a row for each sequence, method and predicted frame: sequence, method, frame (from 1) and a
                column for each metric of frames and videos
    samples     a row for each sequence and predicted frame, None without samples: `SAMPLE_COLUMNS`, namely
                the mean squared distance of two futures, that of a future and the truth, and the share of
                futures nearer to the rest than the truth
    distances   metrics of sets of videos by method, None where none was taken
    objects     scores of objects and of parts of frames, None where they were not asked for
    """

    protocol: Protocol
    setting: Setting
    scores: pd.DataFrame
    samples: pd.DataFrame | None = None
    distances: pd.DataFrame | None = None
    objects: ObjectScores | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics of frames and videos."""
        return of_scope(self.scores.columns, FRAME, VIDEO)

    @property
    def set_metrics(self) -> tuple[str, ...]:
        """Metrics of sets of videos."""
        return tuple(name for name in _columns(self.distances) if name in METRICS)

    @property
    def measured(self) -> tuple[str, ...]:
        """All metrics."""
        return (*self.metrics, *self.set_metrics)

    @property
    def methods(self) -> list[str]:
        """Methods that were scored frame by frame."""
        return list(self.scores["method"].unique())

    @property
    def sequences(self) -> list[str]:
        """Names of the sequences, in the order of `array`."""
        return list(self.scores["sequence"].unique())

    @cached_property
    def _arrays(self) -> dict[tuple[str, str], np.ndarray]:
        return {
            (str(method), metric): rows[metric].to_numpy(np.float64).reshape(-1, self.protocol.n_future)
            for method, rows in self.scores.groupby("method", sort=False)
            for metric in self.metrics
        }

    def array(self, method: str, metric: str) -> np.ndarray:
        """Return the scores [N,F] of all sequences and frames."""
        return self._arrays[method, metric]

    def per_sequence(self, method: str, metric: str) -> np.ndarray:
        """Return the mean over frames of each sequence [N]."""
        return self.array(method, metric).mean(1)

    @cached_property
    def _means(self) -> dict[tuple[str, str], Interval]:
        values = np.stack([array.mean(1) for array in self._arrays.values()], 1)
        low, high = bootstrap_interval(values)
        rows = zip(values.mean(0).tolist(), low.tolist(), high.tolist(), strict=True)
        return {key: Interval(*row) for key, row in zip(self._arrays, rows, strict=True)}

    def mean(self, method: str, metric: str) -> Interval:
        """Return the mean over sequences and frames with its interval."""
        return self._means[method, metric]

    def curve(self, method: str, metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the mean over sequences at each predicted frame and the bounds of its interval, [F] each."""
        values = self.array(method, metric)
        low, high = bootstrap_interval(values)
        return values.mean(0), low, high

    def sample_statistics(self) -> dict[str, Interval]:
        """Return diversity and calibration of the sampled futures; empty without them.

        spread       root of the mean squared distance of two futures of a sequence, of values in [0,1]
        calibration  that mean squared distance over the mean squared distance of a future and the truth: 1 if
                     the truth could be one more future, 0 if all are alike
        rank         share of futures nearer to the middle of all than the truth: 0.5 if the truth could be
                     one of them
        outermost    share of frames in which the truth lies farther out than every future: 1 / (N + 1) if it
                     could be one
        """
        if self.samples is None or self.protocol.n_sample < 2:
            return {}
        pairwise, error, rank = (
            self.samples[name].to_numpy(np.float64).reshape(-1, self.protocol.n_future)
            for name in SAMPLE_COLUMNS
        )
        squares = np.stack([pairwise.mean(1), error.mean(1)], 1)
        spread = mean_interval(squares[:, 0])
        low, high = bootstrap_interval(squares, statistic=_ratio)
        return {
            "spread": Interval(spread.mean**0.5, _root(spread.low), _root(spread.high)),
            "calibration": Interval(float(_ratio(squares.mean(0))), float(low), float(high)),
            "rank": mean_interval(rank.mean(1)),
            "outermost": mean_interval((rank > 1 - 1e-9).mean(1)),
        }

    def table(self) -> Table:
        """Return a row for each method: means with intervals, and the gain in PSNR over copying."""
        has_gain = "copy" in self.methods
        titles = [METRICS[name].title for name in self.measured]
        rows = [
            [method.name(self.protocol.n_sample), *self._cells(key), *([self._gain(key)] if has_gain else [])]
            for key, method in METHODS.items()
            if key in self.methods or key in _rows(self.distances)
        ]
        return Table(["", *titles, *(["gain dB"] if has_gain else [])], rows)

    def _cells(self, method: str) -> list[str]:
        """Return the texts of a method's scores, empty where a metric was not taken of it."""
        cells = []
        for metric in self.metrics:
            form = METRICS[metric].format
            cells.append(self.mean(method, metric).text(form) if method in self.methods else "")
        distances = {} if self.distances is None else self.distances.to_dict("index")
        for metric in self.set_metrics:
            form = METRICS[metric].format
            cells.append(number(distances[method][metric], form) if method in distances else "")
        return cells

    def _gain(self, method: str) -> str:
        """Return the gain in PSNR over copying as text; empty for copying itself and for infinite values."""
        if method == "copy" or method not in self.methods:
            return ""
        gain = self.mean(method, "psnr").mean - self.mean("copy", "psnr").mean
        return f"{gain:+.2f}" if np.isfinite(gain) else ""

    def findings(self) -> list[str]:
        """Return in words what the samples and the action tests show, a line each."""
        lines = describe_samples(self.sample_statistics(), self.protocol.n_sample)
        for method in CHANGES:
            if method in self.methods:
                predicted = self.per_sequence("pred", "psnr")
                changed = self.per_sequence(method, "psnr")
                loss = mean_interval(paired_differences(predicted, changed))
                lines.append(describe_action_test(method, loss))
        return lines

    def in_words(self, metrics: Iterable[str] | None = None) -> dict[str, str]:
        """Return how the scores were taken: a line for each part and for each of `metrics` (default: all)."""
        words = describe_protocol(self.protocol, self.measured if metrics is None else metrics)
        first = {name: words.pop(name) for name in ("protocol", "frames")}
        given = {"conditions": self.setting.conditions or UNRECORDED}
        return first | given | words | {"intervals": "95 % bootstrap over sequences"}

    def report(self) -> str:
        """Return protocol, tables and findings as text."""
        parts = [listing(self.in_words()), self.table().text()]
        if findings := self.findings():
            parts.append("\n".join(findings))
        if self.objects:
            parts.append(listing(self.object_words()))
            parts += [table.text() for table in self.object_tables()]
        return "\n\n".join(parts)

    def object_words(self) -> dict[str, str]:
        """Return `ObjectScores.in_words`, nothing where objects were not scored."""
        return self.objects.in_words() if self.objects else {}

    def object_tables(self) -> list[Table]:
        """Return the tables of `ObjectScores.tables`, none where objects were not scored."""
        return self.objects.tables(self.protocol.n_sample) if self.objects else []

    def save(self, run: Path, name: str) -> Path:
        """Write ``evaluation/<name>.json``, ``.csv`` and the tables that there are of `EXTRA_TABLES`.

        The JSON holds protocol and means, the first table all scores. Returns the JSON's path. Infinity is
        written as "inf". Raises `InputError` for scores that are no numbers.
        """
        self._check_numbers(run)
        tables = {f"{name}.csv": self.scores}
        if self.samples is not None:
            tables[f"{name}_samples.csv"] = self.samples
        if self.objects is not None:
            tables[f"{name}_objects.csv"] = self.objects.objects
            tables[f"{name}_parts.csv"] = self.objects.frames
        texts = {file: table.to_csv(index=False, float_format="%.7g") for file, table in tables.items()}
        values = {
            "schema_version": SCHEMA_VERSION,
            "protocol": asdict(self.protocol),
            "in_words": self.in_words(),
            "setting": asdict(self.setting),
            "methods": {method: self._method_values(method) for method in self.methods},
            "samples": {key: asdict(value) for key, value in self.sample_statistics().items()},
            "distances": {} if self.distances is None else self.distances.to_dict("index"),
            "objects": self._object_values(),
            "files": {file: _digest(text.encode()) for file, text in texts.items()},
        }
        folder = folder_in(Path(run), FOLDER)
        path = folder / f"{name}.json"
        texts[path.name] = json.dumps(_as_json(values), indent=2, allow_nan=False) + "\n"
        write_texts({folder / file: text for file, text in texts.items()})
        for extra in EXTRA_TABLES:
            if f"{name}_{extra}.csv" not in texts:
                (folder / f"{name}_{extra}.csv").unlink(missing_ok=True)
        return path

    def _object_values(self) -> dict[str, dict[str, Any]]:
        """Return what the object scores are in words, and by method their means, as they are written."""
        if self.objects is None:
            return {}
        means = {
            method: {
                metric: _without_nan(asdict(self.objects.mean(method, metric))) for metric in ALL_METRICS
            }
            for method in self.objects.methods
        }
        return {"in_words": self.objects.in_words(), "methods": means}

    def _check_numbers(self, run: Path) -> None:
        broken = self.scores[self.scores[list(self.metrics)].isna().any(axis=1)]
        if len(broken):
            row = broken.iloc[0]
            raise InputError(
                f"{run}: the scores of sequence {row['sequence']} ({row['method']}) are no numbers; "
                "the model has diverged"
            )

    def _method_values(self, method: str) -> dict[str, dict[str, Any]]:
        """Return the means and the curve of each metric of a method, as they are written."""
        values = {}
        for metric in self.metrics:
            mean, low, high = self.curve(method, metric)
            curve = {"per_frame": mean, "per_frame_low": low, "per_frame_high": high}
            values[metric] = asdict(self.mean(method, metric)) | {k: v.tolist() for k, v in curve.items()}
        return values


def _without_nan(values: dict[str, float]) -> dict[str, float | None]:
    """Return `values` with None for NaN, as of a mean over no objects."""
    return {name: None if np.isnan(value) else value for name, value in values.items()}


def _columns(table: pd.DataFrame | None) -> list[str]:
    return [] if table is None else list(table.columns)


def _rows(table: pd.DataFrame | None) -> list[str]:
    return [] if table is None else list(table.index)


def _ratio(means: np.ndarray) -> np.ndarray:
    """Return spread over error of pairs [...,2]; 1 without any error: the futures are then the truth."""
    spread = means[..., 0]
    error = means[..., 1]
    return np.where(error > 0, spread / np.where(error > 0, error, 1), 1.0)


def _root(bound: float) -> float:
    """Return the square root of a bound, which may be minus infinity."""
    return bound**0.5 if bound > 0 else bound


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _as_json(value: Any) -> Any:
    """Return `value` with infinities as text, since JSON has no number for them."""
    if isinstance(value, dict):
        return {name: _as_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    return str(value) if isinstance(value, float) and np.isinf(value) else value


def load_evaluation(run: Path, name: str) -> Evaluation | None:
    """Return what `Evaluation.save` wrote, or None. Raises `InputError` that names a damaged file."""
    folder = Path(run) / FOLDER
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    values = read_json(path, ADVICE)
    version = values.get("schema_version")
    if version != SCHEMA_VERSION:
        raise InputError(f"{path}: found schema version {version}, expected {SCHEMA_VERSION}; {ADVICE}")
    protocol = read_dataclass(Protocol, values.get("protocol"), path, ADVICE)
    setting = read_dataclass(Setting, values.get("setting"), path, ADVICE)
    with _damage_in(path):
        distances = _read_distances(values["distances"])
        digests = dict(values["files"])
    tables: dict[str, pd.DataFrame] = {}
    for file, digest in digests.items():
        with _damage_in(folder / Path(file).name) as table_path:
            kind = Path(file).stem.rpartition("_")[2] if tables else SCORES
            tables[kind] = _read_table(table_path, digest, path.name)
            _check_table(kind, tables[kind], setting.sequences, protocol.n_future)
    with _damage_in(path):
        objects = read_object_scores(tables["objects"], tables["parts"]) if "objects" in tables else None
        evaluation = Evaluation(protocol, setting, tables[SCORES], tables.get("samples"), distances, objects)
        evaluation.report()
    return evaluation


def _check_table(kind: str, table: pd.DataFrame, sequences: int, n_future: int) -> None:
    """Raise `ValueError` for a table of an evaluation that cannot be what `Evaluation.save` has written."""
    if kind == SCORES:
        check_scores(table, sequences, n_future)
    elif kind == "samples":
        check_samples(table)
    elif kind in EXTRA_TABLES:
        check_object_scores(table, kind, n_future)
    else:
        raise ValueError(f"found a table of {kind}, expected {', '.join(EXTRA_TABLES)}")


@contextlib.contextmanager
def _damage_in(path: Path) -> Generator[Path]:
    """Turn what damaged contents of a file lead to into an `InputError` that names it."""
    try:
        yield path
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OSError) as error:
        raise InputError(f"{path}: damaged ({str(error)[:200]}); {ADVICE}") from None


def _read_distances(values: Any) -> pd.DataFrame | None:
    if not values:
        return None
    distances = pd.DataFrame.from_dict(dict(values), orient="index")
    check_distances(distances)
    return distances


def _read_table(path: Path, digest: str, owner: str) -> pd.DataFrame:
    """Return a table of scores that belongs to the JSON file `owner`, which has its digest."""
    data = read_bytes(path, MOST_BYTES)
    if _digest(data) != digest:
        raise ValueError(f"it is not the one that {owner} belongs to")
    return parse_csv(data, {"sequence": str, "method": str})  # texts, also where they look like numbers
