"""Comparison of evaluations of the same sequences, with the significance of their paired differences."""

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_tools.errors import InputError
from data_tools.files import write_text

from .intervals import Interval, holm, mean_interval, paired_differences, sign_flip_p
from .methods import METHODS, method_names
from .metrics import METRICS, Metric
from .object_tables import ALL_METRICS, GROUPS, ObjectMetric, known_interval
from .protocols import Protocol
from .results import Evaluation
from .tables import Table, listing, write_tables
from .wording import describe_protocol

ALL = "all"
"""In place of a run: copying the last frame is the same for all."""
TESTED = (
    "sign-flip test of the differences of the same sequences, corrected after Holm for the number of runs"
)


def describe_difference(protocol: Protocol, expected: Protocol) -> str:
    """Return the first line in which two protocols differ, and how to make them the same."""
    lines = describe_protocol(protocol, METRICS)
    expected_lines = describe_protocol(expected, METRICS)
    name = next(name for name in lines if lines[name] != expected_lines[name])
    advice = "name the same --protocol, --n_future and --n_sample for all"
    if protocol.n_past != expected.n_past:
        advice = "name a --protocol that says how many frames are given, such as srvp"
    return f"found {name} {lines[name]}, expected {expected_lines[name]}; {advice}"


@dataclass(frozen=True)
class Comparison:
    """Evaluations by the labels of their runs; the others are compared with the first.

    Raises `InputError` if they were not taken under the same protocol of the same sequences, which the scores
    of copying show.
    """

    evaluations: dict[str, Evaluation]

    def __post_init__(self):
        for label, evaluation in self._others.items():
            pair = f"{label} and {self.base}"
            if evaluation.protocol != self.first.protocol:
                difference = describe_difference(evaluation.protocol, self.first.protocol)
                raise InputError(f"{pair}: {difference}")
            if not self._has_same_sequences(evaluation):
                raise InputError(
                    f"{pair} were not scored on the same sequences; use the same --data_root for all"
                )

    def _has_same_sequences(self, evaluation: Evaluation) -> bool:
        first = self.first
        if evaluation.sequences != first.sequences or evaluation.setting.split != first.setting.split:
            return False
        return np.allclose(evaluation.array("copy", "ssim"), first.array("copy", "ssim"), atol=1e-4)

    @property
    def base(self) -> str:
        """Label of the run that the others are compared with."""
        return next(iter(self.evaluations))

    @property
    def first(self) -> Evaluation:
        """Evaluation of `base`."""
        return self.evaluations[self.base]

    @property
    def _others(self) -> dict[str, Evaluation]:
        return {label: value for label, value in self.evaluations.items() if label != self.base}

    @property
    def metrics(self) -> list[str]:
        """Metrics that all have."""
        evaluations = self.evaluations.values()
        return [
            metric
            for metric in self.first.metrics
            if all(metric in evaluation.metrics for evaluation in evaluations)
        ]

    @property
    def object_metrics(self) -> list[str]:
        """Scores of objects and of parts of the error, if all have them."""
        has_all = all(evaluation.objects for evaluation in self.evaluations.values())
        return list(ALL_METRICS) if has_all else []

    @property
    def methods(self) -> list[str]:
        """Compared methods that all have; the mean over samples only where no best is chosen."""
        shared = [
            key
            for key, method in METHODS.items()
            if method.compared and all(key in evaluation.methods for evaluation in self.evaluations.values())
        ]
        return [key for key in shared if key != "pred_mean" or "pred_best" not in shared]

    def in_words(self) -> dict[str, str]:
        """Return `Evaluation.in_words` of the first run, with the conditions of each run if they differ."""
        words = {label: evaluation.in_words(self.metrics) for label, evaluation in self.evaluations.items()}
        conditions = {label: lines["conditions"] for label, lines in words.items()}
        lines = words[self.base]
        if len(set(conditions.values())) > 1:
            lines["conditions"] = "; ".join(f"{label}: {given}" for label, given in conditions.items())
        return lines

    @property
    def _all_metrics(self) -> list[str]:
        return [*self.metrics, *self.object_metrics]

    def _has_objects(self, method: str) -> bool:
        scores = (evaluation.objects for evaluation in self.evaluations.values())
        return all(objects is not None and method in objects.methods for objects in scores)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """A row for each run, method and metric.

        run, method, metric, mean, low, high; difference to the first run with its interval (difference_low,
        difference_high) and the p-value of a sign-flip test, corrected after Holm for the number of other
        runs. The mean of a difference is that over sequences of their means over frames.
        """
        rows = [_row(ALL, "copy", metric, _mean(self.first, "copy", metric)) for metric in self._all_metrics]
        for method, metric in product(self.methods, self._all_metrics):
            if metric in ALL_METRICS and not self._has_objects(method):
                continue
            differences = self._differences(method, metric)
            for label, evaluation in self.evaluations.items():
                row = _row(label, method, metric, _mean(evaluation, method, metric))
                rows.append(row | differences.get(label, {}))
        protocol = self.first.protocol
        setting = self.first.setting
        given = {label: evaluation.setting.conditions for label, evaluation in self.evaluations.items()}
        table = pd.DataFrame(rows).assign(
            protocol=protocol.name,
            n_past=protocol.n_past,
            n_future=protocol.n_future,
            n_sample=protocol.n_sample,
            data=setting.data,
            split=setting.split,
            sequences=setting.sequences,
        )
        return table.assign(conditions=table["run"].map(given).fillna(""))

    def _differences(self, method: str, metric: str) -> dict[str, dict[str, float]]:
        """Return the columns about the difference to the first run, for each of the others."""
        reference = _per_sequence(self.first, method, metric)
        columns = {}
        p_values = []
        for label, evaluation in self._others.items():
            differences = paired_differences(_per_sequence(evaluation, method, metric), reference)
            if metric in ALL_METRICS:  # sequences without such an object in either
                differences = differences[~np.isnan(differences)]
            mean = known_interval(differences) if metric in ALL_METRICS else mean_interval(differences)
            columns[label] = {
                "difference": mean.mean,
                "difference_low": mean.low,
                "difference_high": mean.high,
            }
            p_values.append(sign_flip_p(differences))
        for label, p in zip(columns, holm(p_values), strict=True):
            columns[label]["p"] = p
        return columns

    def tables(self) -> tuple[Table, ...]:
        """Return the means, and the differences to the first run with p-values, all with intervals.

        Of object scores there are two more tables for each of `svg.evaluation.object_tables.GROUPS`.
        """
        tables = list(self._tables(self.metrics, ""))
        for title, metrics in GROUPS.items():
            if self.object_metrics:
                tables += self._tables(metrics, title)
        return tuple(tables)

    def _tables(self, metrics: list[str], title: str) -> tuple[Table, Table]:
        """Return the means of some metrics and their differences to the first run, under a title."""
        names = method_names(self.first.protocol.n_sample)
        means = []
        differences = []
        chosen = self.rows[self.rows["metric"].isin(metrics)]
        for _, group in chosen.groupby(["run", "method"], sort=False):
            rows = group.to_dict("records")  # one for each metric
            run = rows[0]["run"]
            method = names[rows[0]["method"]]
            label = method if run == ALL else f"{run}: {method}"
            means.append([label, *(_mean_text(row) for row in rows)])
            if run not in (ALL, self.base):
                differences.append([label, *(_difference_text(row) for row in rows)])
        titles = [_metric(metric).title.rpartition(": ")[2] for metric in metrics]
        below = f", {title}" if title else ""
        return Table([title, *titles], means), Table(
            [f"difference to {self.base}{below}", *titles], differences
        )

    def report(self) -> str:
        """Return protocol and tables as text."""
        tables = "\n\n".join(table.text() for table in self.tables())
        return f"{listing(self.notes())}\n\n{tables}\n"

    def notes(self) -> dict[str, str]:
        """Return how scores and p-values were taken, and of which data."""
        notes = self.in_words() | {"data": self.first.setting.scored, "p": TESTED}
        return notes | (self.first.object_words() if self.object_metrics else {})

    def save(self, stem: Path) -> None:
        """Write the rows to ``stem.csv`` and the tables to ``stem.md`` and ``stem.tex``."""
        write_text(Path(f"{stem}.csv"), self.rows.to_csv(index=False, float_format="%.7g"))
        write_tables(stem, self.tables(), self.notes())


def _metric(name: str) -> Metric | ObjectMetric:
    return METRICS[name] if name in METRICS else ALL_METRICS[name]


def _mean(evaluation: Evaluation, method: str, metric: str) -> Interval:
    """Return the mean of a metric of any kind."""
    if metric in ALL_METRICS and evaluation.objects:
        return evaluation.objects.mean(method, metric)
    return evaluation.mean(method, metric)


def _per_sequence(evaluation: Evaluation, method: str, metric: str) -> np.ndarray:
    """Return the values of a metric of any kind [N]; those of objects are NaN where there are none."""
    if metric in ALL_METRICS and evaluation.objects:
        return evaluation.objects.per_sequence(method, metric)
    return evaluation.per_sequence(method, metric)


def _row(run: str, method: str, metric: str, mean: Interval) -> dict[str, str | float]:
    return {
        "run": run,
        "method": method,
        "metric": metric,
        "mean": mean.mean,
        "low": mean.low,
        "high": mean.high,
    }


def _mean_text(row: dict[Any, Any]) -> str:
    return Interval(row["mean"], row["low"], row["high"]).text(_metric(row["metric"]).format)


def _difference_text(row: dict[Any, Any]) -> str:
    """Return ``+1.00 [+0.90, +1.10], p 0.0625``."""
    interval = Interval(row["difference"], row["difference_low"], row["difference_high"])
    p = row["p"]
    if np.isnan(p):
        shown = "p undefined"
    else:
        shown = f"p {p:.4f}" if p >= 0.0001 else "p < 0.0001"
    return f"{interval.text('+' + _metric(row['metric']).format)}, {shown}"
