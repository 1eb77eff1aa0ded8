"""What an evaluation found: scores of every frame with their protocol, their averages with intervals, on disk and in tables."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pandas as pd

from data_tools.errors import InputError
from data_tools.files import folder_in, read_bytes, write_texts
from data_tools.layout import parse_csv, read_json

from .intervals import bootstrap_interval, paired_differences
from .protocols import FRAME_METRICS, Protocol
from .tables import Table

FOLDER = "evaluation"
MOST_BYTES = 2**30  # of a table of scores
LARGEST = 1e9
"""No score is larger, infinite ones excepted: sums and squares of larger ones would overflow."""
SCHEMA_VERSION = 2
TITLES = {"psnr": "PSNR dB", "ssim": "SSIM", "mse": "MSE", "lpips": "LPIPS", "fvd": "FVD", "kvd": "KVD"}
FORMATS = {"psnr": ".2f", "ssim": ".4f", "mse": "#.3g", "lpips": ".4f", "fvd": ".1f", "kvd": "#.3g"}
REQUIRED = ("psnr", "ssim", "mse")
SAMPLE_COLUMNS = ("pairwise_mse", "error_mse", "rank")


UNRECORDED = "not recorded by an earlier release; positions, if any, were the true ones of the future"

METHODS = (
    "copy",
    "rec",
    "pred",
    "pred_best",
    "pred_mean",
    "pred_sample",
    "pred_other",
    "pred_swap",
    "pred_zero",
)
"""In the order of tables; ``svg.evaluation.evaluate`` says what they are, ``pred_sample`` is the first future alone (FVD and KVD)."""


def method_names(n_sample: int) -> dict[str, str]:
    """The methods as they are written in tables and legends."""
    return {
        "copy": "copy the last frame",
        "rec": "rec (posterior)",
        "pred": "pred (mean latent)",
        "pred_best": f"pred (best of {n_sample})",
        "pred_mean": f"pred (mean over {n_sample})" if n_sample != 1 else "pred (one sample)",
        "pred_sample": "pred (one sample)",
        "pred_other": "pred, another's conditions",
        "pred_swap": "pred, another's actions alone",
        "pred_zero": "pred, zero actions",
    }


@dataclass(frozen=True)
class Setting:
    """What was scored, and on what.

    conditions  what the predictions were given besides the observed frames; empty in files of earlier releases
    """

    data: str
    split: str
    sequences: int
    seed: int
    precision: str
    weights: str = ""
    machine: dict[str, str] = field(default_factory=dict)
    data_digest: str = ""
    conditions: str = ""

    @property
    def scored(self) -> str:
        """The sequences, in words."""
        return f"{self.sequences} sequences of {self.data}/{self.split}"


@dataclass(frozen=True)
class Interval:
    """A mean over sequences and the bounds of its 95 % bootstrap interval; of a single sequence they are infinite."""

    mean: float
    low: float
    high: float

    def text(self, form: str) -> str:
        """``26.51 [25.98, 27.03]``; the mean alone where the bounds say nothing; "undefined", as infinity less infinity is."""
        if np.isnan(self.mean):
            return "undefined"
        if self.low == -np.inf:
            return number(self.mean, form)
        return f"{number(self.mean, form)} [{number(self.low, form)}, {number(self.high, form)}]"


def number(value: float, form: str) -> str:
    """`value` as text, without a sign before nothing and without a point after everything."""
    text = format(value, form).rstrip(".")
    return text.lstrip("+-") if float(text.rstrip("%")) == 0 else text


def listing(words: dict[str, str]) -> str:
    """A line for each part, its name first."""
    width = max(map(len, words))
    return "\n".join(f"{part:{width}s} {line}" for part, line in words.items())


def interval(values: np.ndarray) -> Interval:
    """Of the values of single sequences [N]."""
    with np.errstate(invalid="ignore"):  # infinity less infinity
        mean = float(values.mean())
    return Interval(mean, *map(float, bootstrap_interval(values)))


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model.

    scores      a row for each sequence, method and predicted frame: sequence, method, frame (from 1) and a column for each metric
    samples     a row for each sequence and predicted frame, None without samples: `SAMPLE_COLUMNS`, namely the mean squared
                distance of two futures, that of a future and the truth, and the share of futures nearer to the rest than the truth
    distances   FVD and KVD by method, where they were taken
    """

    protocol: Protocol
    setting: Setting
    scores: pd.DataFrame
    samples: pd.DataFrame | None = None
    distances: pd.DataFrame | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(name for name in FRAME_METRICS if name in self.scores)

    @property
    def measured(self) -> tuple[str, ...]:
        """All metrics, FVD and KVD among them where they were taken."""
        return (*self.metrics, *(self.distances.columns if self.distances is not None else ()))

    @property
    def methods(self) -> list[str]:
        return list(self.scores["method"].unique())

    @property
    def sequences(self) -> list[str]:
        """Names of the sequences, in the order of `array`."""
        return list(self.scores["sequence"].unique())

    @cached_property
    def _arrays(self) -> dict[tuple[str, str], np.ndarray]:
        return {
            (method, metric): rows[metric].to_numpy(np.float64).reshape(-1, self.protocol.n_future)
            for method, rows in self.scores.groupby("method", sort=False)
            for metric in self.metrics
        }

    def array(self, method: str, metric: str) -> np.ndarray:
        """Scores [N,F] of all sequences and frames."""
        return self._arrays[method, metric]

    def per_sequence(self, method: str, metric: str) -> np.ndarray:
        """Mean over frames of each sequence [N]."""
        return self.array(method, metric).mean(1)

    @cached_property
    def _means(self) -> dict[tuple[str, str], Interval]:
        values = np.stack([array.mean(1) for array in self._arrays.values()], 1)
        bounds = zip(
            values.mean(0).tolist(), *(bound.tolist() for bound in bootstrap_interval(values)), strict=True
        )
        return {key: Interval(*found) for key, found in zip(self._arrays, bounds, strict=True)}

    def mean(self, method: str, metric: str) -> Interval:
        """Mean over sequences and frames."""
        return self._means[method, metric]

    def curve(self, method: str, metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean over sequences at each predicted frame and the bounds of its interval, [F] each."""
        values = self.array(method, metric)
        return values.mean(0), *bootstrap_interval(values)

    def sample_statistics(self) -> dict[str, Interval]:
        """Diversity and calibration of the sampled futures; empty without them.

        spread       root of the mean squared distance of two futures of a sequence, of values in [0,1]
        calibration  that mean squared distance over the mean squared distance of a future and the truth: 1 if the truth could be
                     one more future, 0 if all are alike
        rank         share of futures nearer to the middle of all than the truth: 0.5 if the truth could be one of them
        outermost    share of frames in which the truth lies farther out than every future: 1 / (N + 1) if it could be one
        """
        if self.samples is None or self.protocol.n_sample < 2:
            return {}
        pairwise, error, rank = (
            self.samples[name].to_numpy(np.float64).reshape(-1, self.protocol.n_future)
            for name in SAMPLE_COLUMNS
        )
        squares = np.stack([pairwise.mean(1), error.mean(1)], 1)

        def ratio(means: np.ndarray) -> np.ndarray:
            spread, miss = means[..., 0], means[..., 1]
            return np.where(
                miss > 0, spread / np.where(miss > 0, miss, 1), 1.0
            )  # without any error the futures are the truth

        spread = interval(squares[:, 0])
        low, high = bootstrap_interval(squares, statistic=ratio)
        return {
            "spread": Interval(
                spread.mean**0.5, *(b**0.5 if b > 0 else b for b in (spread.low, spread.high))
            ),
            "calibration": Interval(float(ratio(squares.mean(0))), float(low), float(high)),
            "rank": interval(rank.mean(1)),
            "outermost": interval((rank > 1 - 1e-9).mean(1)),
        }

    def table(self) -> Table:
        """A row for each method: its means with intervals, and the gain over copying the last frame."""
        names = method_names(self.protocol.n_sample)
        distances = list(self.distances.columns) if self.distances is not None else []
        gain = "copy" in self.methods
        rows = []
        for method in METHODS:
            scored, compared = method in self.methods, bool(distances) and method in self.distances.index
            if not scored and not compared:
                continue
            cells = [
                self.mean(method, metric).text(FORMATS[metric]) if scored else "" for metric in self.metrics
            ]
            cells += [
                number(self.distances.loc[method, n], FORMATS[n]) if compared else "" for n in distances
            ]
            if gain and not scored:
                cells.append("")
            elif gain:
                difference = (
                    self.mean(method, "psnr").mean - self.mean("copy", "psnr").mean
                    if method != "copy"
                    else np.nan
                )
                cells.append(f"{difference:+.2f}" if np.isfinite(difference) else "")
            rows.append([names[method], *cells])
        return Table(
            ["", *(TITLES[name] for name in [*self.metrics, *distances]), *(["gain dB"] if gain else [])],
            rows,
        )

    def findings(self) -> list[str]:
        """What the samples and the actions show, a line each."""
        lines, found = [], self.sample_statistics()
        if found:
            by_chance = 1 / (self.protocol.n_sample + 1)
            lines = [
                f"futures differ by {found['spread'].text('.4f')} (root mean square, of values in [0,1])",
                f"squared distance of futures / their error {found['calibration'].text('.2f')} (1: the truth could be one more; "
                "0: all are alike)",
                f"rank of the truth among the futures {found['rank'].text('.2f')} (0.5: it could be one more; 1: always outermost)",
                f"the truth is outermost in {found['outermost'].text('.0%')} of the frames ({by_chance:.0%}: it could be one more)",
            ]
        for method, changed in {"pred_other": "conditions", "pred_swap": "actions alone"}.items():
            if method in self.methods:
                lost = interval(
                    paired_differences(self.per_sequence("pred", "psnr"), self.per_sequence(method, "psnr"))
                )
                lines.append(f"another sequence's {changed} cost {lost.text('.2f')} dB (0: they are ignored)")
        return lines

    def in_words(self, metrics: Sequence[str] | None = None) -> dict[str, str]:
        """How the scores were taken, a line for each part and of `metrics`, or all of them."""
        words = self.protocol.describe(tuple(self.measured if metrics is None else metrics))
        first = {name: words.pop(name) for name in ("protocol", "frames")}
        given = {"conditions": self.setting.conditions or UNRECORDED}
        return first | given | words | {"intervals": "95 % bootstrap over sequences"}

    def report(self) -> str:
        """Protocol, table and findings, as text."""
        findings = self.findings()
        return "\n".join(
            [listing(self.in_words()), "", self.table().text(), *([""] if findings else []), *findings]
        )

    def save(self, run: Path, name: str) -> Path:
        """Writes ``evaluation/<name>.json`` (protocol and means), ``.csv`` (all scores) and, of samples, ``_samples.csv``.

        Returns the JSON's path. Infinity is written as "inf". Raises `InputError` for scores that are no numbers.
        """
        broken = self.scores[self.scores[list(self.metrics)].isna().any(axis=1)]
        if len(broken):
            row = broken.iloc[0]
            raise InputError(
                f"{run}: the scores of sequence {row['sequence']} ({row['method']}) are no numbers; the model has diverged"
            )
        methods = {}
        for method in self.methods:
            methods[method] = {}
            for metric in self.metrics:
                curve = dict(
                    zip(
                        ("per_frame", "per_frame_low", "per_frame_high"),
                        self.curve(method, metric),
                        strict=True,
                    )
                )
                methods[method][metric] = asdict(self.mean(method, metric)) | {
                    k: v.tolist() for k, v in curve.items()
                }
        tables = {f"{name}.csv": self.scores} | (
            {} if self.samples is None else {f"{name}_samples.csv": self.samples}
        )
        texts = {file: table.to_csv(index=False, float_format="%.7g") for file, table in tables.items()}
        values = {
            "schema_version": SCHEMA_VERSION,
            "protocol": asdict(self.protocol),
            "in_words": self.in_words(),
            "setting": asdict(self.setting),
            "methods": methods,
            "samples": {name: asdict(found) for name, found in self.sample_statistics().items()},
            "distances": {} if self.distances is None else self.distances.to_dict("index"),
            "files": {file: _digest(text) for file, text in texts.items()},
        }
        folder = folder_in(Path(run), FOLDER)
        path = folder / f"{name}.json"
        texts[path.name] = json.dumps(_plain(values), indent=2, allow_nan=False) + "\n"
        write_texts({folder / file: text for file, text in texts.items()})
        if self.samples is None:
            (folder / f"{name}_samples.csv").unlink(missing_ok=True)
        return path


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """With infinities as text, which JSON has no number for."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and np.isinf(value) else value


def _of_types(kind: type, values: dict[str, Any]) -> Any:
    """`kind` with these values. Raises `KeyError` or `TypeError` for one that is missing or not of its field's type."""
    defaults = {item.name: item.default for item in fields(kind) if item.default is not MISSING}
    for name, expected in get_type_hints(kind).items():
        value = values[name] if name in values or name not in defaults else defaults[name]
        if expected is float:
            fits = type(value) in (int, float) and math.isfinite(value)
        elif expected in (int, str):
            fits = type(value) is expected and (expected is str or 0 <= value < 2**63)
        else:  # of texts
            fits = isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
        if not fits:
            raise TypeError(f"{name} is {str(value)[:40]!r}")
    return kind(**values)


def load_evaluation(run: Path, name: str) -> Evaluation | None:
    """What `Evaluation.save` wrote, or None if there is none. Raises `InputError` naming a damaged file."""
    folder = Path(run) / FOLDER
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    again = "run svg-evaluate again"
    values = read_json(path, again)
    if values.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"{path}: found schema version {values.get('schema_version')}, expected {SCHEMA_VERSION}; {again}"
        )
    try:
        protocol, setting = _of_types(Protocol, values["protocol"]), _of_types(Setting, values["setting"])
        tables = []
        for number, (file, digest) in enumerate(values["files"].items()):
            path = folder / Path(file).name
            data = read_bytes(path, MOST_BYTES)
            if hashlib.sha256(data).hexdigest() != digest:
                raise ValueError(f"it is not the one that {name}.json belongs to")
            names = ("sequence", "method")  # texts, whatever they say
            tables.append(parse_csv(data, dict.fromkeys(names, str)))
            if number == 0:
                _check_scores(tables[0], setting.sequences, protocol.n_future)
            else:
                _check_values(tables[number], SAMPLE_COLUMNS)
        path = folder / f"{name}.json"
        distances = (
            pd.DataFrame.from_dict(dict(values["distances"]), orient="index") if values["distances"] else None
        )
        if distances is not None:
            _check_methods(distances.index)
            _check_values(distances, [*distances.columns])
        evaluation = Evaluation(
            protocol, setting, tables[0], tables[1] if len(tables) > 1 else None, distances
        )
        evaluation.report()
        return evaluation
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OSError) as error:
        raise InputError(f"{path}: damaged ({str(error)[:200]}); {again}") from None


def _check_scores(scores: pd.DataFrame, sequences: int, n_future: int) -> None:
    """Raise `ValueError` unless each method has a number for each of the sequences, in one order, and each frame from 1 on."""
    _check_methods(scores["method"].unique())
    _check_values(
        scores, [*REQUIRED, *(name for name in FRAME_METRICS if name in scores and name not in REQUIRED)]
    )
    methods = dict(list(scores.groupby("method", sort=False)))
    if missing := [method for method in ("copy", "pred") if method not in methods]:
        raise ValueError(f"found no scores of {missing[0]}")
    names = methods["copy"]["sequence"].to_numpy()[::n_future]
    for method, rows in methods.items():
        expected = sequences * n_future
        if len(rows) != expected:
            raise ValueError(
                f"found {len(rows)} scores of {method}, expected {expected}: {n_future} of each of {sequences} sequences"
            )
        is_sorted = (rows["sequence"] == np.repeat(names, n_future)) & (
            rows["frame"] == np.tile(np.arange(n_future) + 1, sequences)
        )
        if not is_sorted.all():
            raise ValueError(
                f"row {rows.index[~is_sorted][0] + 2}: not the sequence and frame that {method} has there"
            )


def _check_methods(found: Sequence[str]) -> None:
    for method in found:
        if method not in METHODS:
            raise ValueError(f"found the method {method!r}, expected some of {', '.join(METHODS)}")


def _check_values(table: pd.DataFrame, columns: Sequence[str]) -> None:
    for name in columns:
        if name not in table:
            raise ValueError(f"found no column {name}")
        values = pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64)
        is_wrong = np.isnan(values) | ((np.abs(values) > LARGEST) & np.isfinite(values))
        if is_wrong.any():
            place = int(np.argmax(is_wrong))
            row = f"row {place + 2}" if "sequence" in table else table.index[place]
            raise ValueError(
                f"{row}: found {name} {table[name].iloc[place]}, expected a number up to {LARGEST:g} or inf"
            )
