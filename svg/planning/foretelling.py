"""Which score foretells control? Scores of models' predictions beside how often they reach their goals."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from ..evaluation.intervals import Interval, mean_interval, wilson_interval
from ..evaluation.metrics import METRICS
from ..evaluation.object_tables import OBJECT_METRICS
from ..evaluation.results import Evaluation
from ..evaluation.tables import Table
from .results import Series

SUCCESS = "success"
END = "end mm, mean"
FORMATS = {SUCCESS: ".0%", END: ".1f"}
OBJECT_SCORES = ("pushed_mm", "pushed_iou", "pushed_vanished")
SPREAD = "spread / error"


@dataclass(frozen=True)
class Foretelling:
    """Outcomes and scores of several models, by their titles and then by the models' labels."""

    outcomes: dict[str, dict[str, Interval]]
    scores: dict[str, dict[str, Interval]]
    formats: dict[str, str]

    @cached_property
    def labels(self) -> list[str]:
        """The models."""
        return list(self.outcomes[SUCCESS])

    def correlation(self, score: str, outcome: str) -> float:
        """Return the rank correlation (Spearman 1904) of a score with an outcome over the models."""
        return rank_correlation(
            [self.scores[score][label].mean for label in self.labels],
            [self.outcomes[outcome][label].mean for label in self.labels],
        )

    def table(self) -> Table:
        """Return a row for each model, and below them the rank correlations of each score."""
        columns = self.outcomes | self.scores
        rows = [
            [label, *(values[label].text(self.formats[title]) for title, values in columns.items())]
            for label in self.labels
        ]
        for outcome in self.outcomes:
            numbers = [f"{self.correlation(score, outcome):+.2f}" for score in self.scores]
            rows.append([f"rank correlation with {outcome}", *[""] * len(self.outcomes), *numbers])
        return Table(["success and scores", *columns], rows)


def foretelling(series: Sequence[Series], evaluations: dict[str, Evaluation]) -> Foretelling:
    """Return outcomes and scores of the models that `evaluations` has by their labels.

    Scores are those of the mean latent that all of them have: of frames, of pushed objects, and the variety
    of samples.
    """
    models = [one for one in series if one.label in evaluations]
    outcomes = {
        SUCCESS: {one.label: wilson_interval(int(one.successes.sum()), len(one.successes)) for one in models},
        END: {one.label: mean_interval(1000 * one.of(lambda outcome: outcome.end)) for one in models},
    }
    formats = dict(FORMATS)
    scores: dict[str, dict[str, Interval]] = {}
    for one in models:
        for title, form, value in _scores(evaluations[one.label]):
            formats[title] = form
            scores.setdefault(title, {})[one.label] = value
    common = {title: values for title, values in scores.items() if len(values) == len(models)}
    return Foretelling(outcomes, common, formats)


def _scores(evaluation: Evaluation) -> list[tuple[str, str, Interval]]:
    """Return title, format and value of each score of the mean latent."""
    found = [
        (METRICS[name].title, METRICS[name].format, evaluation.mean("pred", name))
        for name in evaluation.metrics
        if METRICS[name].plotted
    ]
    if evaluation.objects is not None:
        for name in OBJECT_SCORES:
            metric = OBJECT_METRICS[name]
            found.append((metric.title, metric.format, evaluation.objects.mean("pred", name)))
    if "calibration" in (statistics := evaluation.sample_statistics()):
        found.append((SPREAD, ".2f", statistics["calibration"]))
    return found


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Return Spearman's rank correlation; of equal values the mean rank counts. NaN if all are equal."""
    first, second = (pd.Series(np.asarray(values, float)).rank().to_numpy() for values in (a, b))
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])
