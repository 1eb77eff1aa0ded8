"""Several evaluations of the same sequences side by side, with the significance of their paired differences."""

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import pandas as pd

from data_tools.errors import InputError

from .intervals import holm, paired_differences, sign_flip_p
from .protocols import HIGHER_IS_BETTER, Protocol
from .results import FORMATS, TITLES, Evaluation, Interval, interval, method_names
from .tables import Table

COMPARED = ("rec", "pred", "pred_best", "pred_mean")
"""Methods that are compared between runs, where all have them; the mean over samples only where no best is chosen."""

ALL = "all"
"""In place of a run: copying the last frame is the same for all."""


def what_differs(found: Protocol, expected: Protocol) -> str:
    """What two protocols differ in."""
    lines, others = (protocol.describe(tuple(HIGHER_IS_BETTER)) for protocol in (found, expected))
    name = next(name for name in lines if lines[name] != others[name])
    advice = "name the same --protocol, --n_future and --n_sample for all"
    if found.n_past != expected.n_past:
        advice = "name a --protocol that says how many frames are given, such as srvp"
    return f"found {name} {lines[name]}, expected {others[name]}; {advice}"


@dataclass(frozen=True)
class Comparison:
    """Evaluations by the labels of their runs; the first is what the others are compared with.

    Raises `InputError` if they were not taken under the same protocol of the same sequences, which the scores of copying show.
    """

    evaluations: dict[str, Evaluation]

    def __post_init__(self):
        (label, first), *others = self.evaluations.items()
        for other_label, other in others:
            if other.protocol != first.protocol:
                raise InputError(f"{other_label} and {label}: {what_differs(other.protocol, first.protocol)}")
            same = other.sequences == first.sequences and other.setting.split == first.setting.split
            if not same or not np.allclose(
                other.array("copy", "ssim"), first.array("copy", "ssim"), atol=1e-4
            ):
                raise InputError(
                    f"{other_label} and {label} were not scored on the same sequences; use the same --data_root for all"
                )

    @property
    def first(self) -> Evaluation:
        return next(iter(self.evaluations.values()))

    @property
    def metrics(self) -> list[str]:
        """Those that all have."""
        return [
            metric
            for metric in self.first.metrics
            if all(metric in some.metrics for some in self.evaluations.values())
        ]

    @property
    def methods(self) -> list[str]:
        shared = [
            method for method in COMPARED if all(method in some.methods for some in self.evaluations.values())
        ]
        return [method for method in shared if method != "pred_mean" or "pred_best" not in shared]

    def in_words(self) -> dict[str, str]:
        """Return how the scores were taken, as `Evaluation.in_words`, with what each run is given if that differs."""
        words = {label: some.in_words(self.metrics) for label, some in self.evaluations.items()}
        given = {label: found["conditions"] for label, found in words.items()}
        first = next(iter(words.values()))
        if len(set(given.values())) > 1:
            first["conditions"] = "; ".join(f"{label}: {told}" for label, told in given.items())
        return first

    @cached_property
    def rows(self) -> pd.DataFrame:
        """A row for each run, method and metric.

        run, method, metric, mean, low, high; difference to the first run with its interval (difference_low, difference_high) and
        the p-value of a sign-flip test, corrected after Holm for the number of other runs. The mean of a difference is that over
        sequences of their means over frames.
        """
        rows = [_row(ALL, "copy", metric, self.first.mean("copy", metric)) for metric in self.metrics]
        for method, metric in product(self.methods, self.metrics):
            reference = self.first.per_sequence(method, metric)
            found = {}
            for label, evaluation in list(self.evaluations.items())[1:]:
                differences = paired_differences(evaluation.per_sequence(method, metric), reference)
                found[label] = interval(differences), sign_flip_p(differences)
            corrected = dict(zip(found, holm([p for _, p in found.values()]), strict=True))
            for label, evaluation in self.evaluations.items():
                row = _row(label, method, metric, evaluation.mean(method, metric))
                if label in found:
                    difference = found[label][0]
                    row |= {
                        "difference": difference.mean,
                        "difference_low": difference.low,
                        "difference_high": difference.high,
                    }
                    row |= {"p": corrected[label]}
                rows.append(row)
        protocol, setting = self.first.protocol, self.first.setting
        about = {
            "protocol": protocol.name,
            "n_past": protocol.n_past,
            "n_future": protocol.n_future,
            "n_sample": protocol.n_sample,
        }
        given = {label: evaluation.setting.conditions for label, evaluation in self.evaluations.items()}
        table = pd.DataFrame(rows).assign(
            **about, data=setting.data, split=setting.split, sequences=setting.sequences
        )
        return table.assign(conditions=table["run"].map(given).fillna(""))

    def tables(self) -> tuple[Table, Table]:
        """Means with intervals; and differences to the first run with intervals and p-values."""
        rows, metrics = self.rows, self.metrics
        names = method_names(self.first.protocol.n_sample)
        base, means, differences = next(iter(self.evaluations)), [], []
        for (run, method), cells in rows.groupby(["run", "method"], sort=False):
            cells = cells.set_index("metric")
            label = names[method] if run == ALL else f"{run}: {names[method]}"
            means.append([label, *(_interval(cells.loc[metric]).text(FORMATS[metric]) for metric in metrics)])
            if run not in (ALL, base):
                texts = []
                for metric in metrics:
                    p = cells.loc[metric, "p"]
                    shown = "p undefined" if np.isnan(p) else f"p {p:.4f}" if p >= 0.0001 else "p < 0.0001"
                    texts.append(
                        f"{_interval(cells.loc[metric], 'difference').text('+' + FORMATS[metric])}, {shown}"
                    )
                differences.append([label, *texts])
        titles = [TITLES[metric] for metric in metrics]
        return Table(["", *titles], means), Table([f"difference to {base}", *titles], differences)


def _row(run: str, method: str, metric: str, mean: Interval) -> dict:
    return {
        "run": run,
        "method": method,
        "metric": metric,
        "mean": mean.mean,
        "low": mean.low,
        "high": mean.high,
    }


def _interval(row: pd.Series, name: str = "") -> Interval:
    columns = ("mean", "low", "high") if not name else (name, f"{name}_low", f"{name}_high")
    return Interval(*(float(row[column]) for column in columns))
