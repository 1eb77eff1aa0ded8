"""Object scores of an evaluation: what each means, its averages with intervals, its tables."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from .intervals import Interval, bootstrap_interval, mean_interval
from .methods import METHODS
from .tables import Table

TRUTH = "truth"
"""The method whose scores are what the judge itself gets wrong."""
PARTS = {
    "arm_edge": "arm, edge",
    "arm_inside": "arm, inside",
    "pushed": "pushed objects",
    "still": "still objects",
    "shadow": "shadow",
    "rest": "rest",
}
"""Parts of a frame by their names in files, with their titles."""
OBJECT_COLUMNS = ("pushed", "area", "seen", "found", "mm", "pixels", "iou")
"""Of each judged object of each frame.

Whether it is pushed (1 or 0), how many of its pixels are truly seen, that number over the one of the last
observed frame, whether it is found (1 or 0), the errors of its place (NaN if it is not found) and the overlap
of its masks.
"""
FRAME_COLUMNS = (
    "objects", "hidden", *(f"{kind}_{part}" for kind in ("error", "area") for part in PARTS), "hand_mm",
)  # fmt: skip
"""Of each frame.

How many objects there are and how many of them are not judged, mean squared errors and areas by `PARTS`, over
all pixels of the frame, and the error of the hand's motion.
"""
LEAST_AREA = 12
"""Pixels of a judged object that are seen at least, in the last observed frame and in the true one."""
HALF_SEEN = 0.5
"""Share of an object's pixels below which it counts as mostly hidden."""


@dataclass(frozen=True)
class ObjectMetric:
    """A score of objects.

    title   heading of its column
    format  of its numbers
    column  of the objects' table or, for a score of whole frames, of the frames'
    pushed  1: of pushed objects, 0: of still ones, -1: of whole frames
    explain what it says, in one line
    plotted gets a panel of the curves over predicted frames
    """

    title: str
    format: str
    column: str
    pushed: int = -1
    plotted: bool = False

    def values(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the score of each row."""
        if self.column == "vanished":
            return 1.0 - rows["found"].to_numpy(np.float64)
        return rows[self.column].to_numpy(np.float64)


OBJECT_METRICS = {
    f"{kind}_{name}": ObjectMetric(f"{kind}: {title}", form, column, number, kind == "pushed" and plotted)
    for number, kind in ((1, "pushed"), (0, "still"))
    for name, title, form, column, plotted in (
        ("mm", "error mm", ".1f", "mm", True),
        ("pixels", "pixels", ".2f", "pixels", False),
        ("iou", "IoU", ".3f", "iou", True),
        ("vanished", "vanished", ".1%", "vanished", True),
    )
} | {"hand_mm": ObjectMetric("hand mm", ".1f", "hand_mm", plotted=True)}
"""Scores of objects by their names in files, in the order of tables."""
PART_METRICS = {
    f"error_{part}": ObjectMetric(title, "#.3g", f"error_{part}") for part, title in PARTS.items()
}
"""Parts of the mean squared error of a frame, which they add up to."""
ALL_METRICS = OBJECT_METRICS | PART_METRICS
GROUPS = {
    "pushed objects": [*(name for name, metric in OBJECT_METRICS.items() if metric.pushed == 1), "hand_mm"],
    "still objects": [name for name, metric in OBJECT_METRICS.items() if metric.pushed == 0],
    "squared error by parts": list(PART_METRICS),
}
"""Tables of these scores: their titles and metrics."""


@dataclass(frozen=True)
class ObjectScores:
    """Scores of objects and parts of frames.

    objects  a row for each method, sequence, frame (from 1) and judged object: sequence, method, frame,
             object and the `OBJECT_COLUMNS`
    frames   a row for each method, sequence and frame: sequence, method, frame and the `FRAME_COLUMNS`
    """

    objects: pd.DataFrame
    frames: pd.DataFrame

    @property
    def methods(self) -> list[str]:
        """Methods in the order of tables: predictions, then the true frames."""
        found = set(self.frames["method"].unique())
        return [method for method in METHODS if method in found]

    @cached_property
    def sequences(self) -> list[str]:
        """Names of the sequences, in the order of `array`."""
        return list(self.frames["sequence"].unique())

    @cached_property
    def n_future(self) -> int:
        """Number of predicted frames."""
        return int(self.frames["frame"].max())

    @cached_property
    def _sums(self) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
        """Sums and numbers of the values of each sequence and frame, [N,F] each."""
        place = {name: number for number, name in enumerate(self.sequences)}
        sums = {}
        for table in (self.objects, self.frames):
            rows_of = table["sequence"].map(place).to_numpy(), table["frame"].to_numpy() - 1
            of_frames = table is self.frames
            methods = table["method"].to_numpy()
            for name, metric in ALL_METRICS.items():
                if (metric.pushed == -1) != of_frames:
                    continue
                values = metric.values(table)
                counts = ~np.isnan(values)
                if not of_frames:
                    counts &= table["pushed"].to_numpy() == metric.pushed
                for method in self.methods:
                    chosen = np.flatnonzero(counts & (methods == method))
                    key = tuple(rows[chosen] for rows in rows_of)
                    total = np.zeros((len(place), self.n_future))
                    number = np.zeros_like(total)
                    np.add.at(total, key, values[chosen])
                    np.add.at(number, key, 1)
                    sums[method, name] = total, number
        return sums

    def array(self, method: str, metric: str) -> np.ndarray:
        """Return the mean over the objects of each sequence and frame [N,F]; NaN where there is none."""
        return _ratio(*self._sums[method, metric])

    def per_sequence(self, method: str, metric: str) -> np.ndarray:
        """Return the mean over all objects and frames of each sequence [N]; NaN where there is none."""
        return _ratio(*(values.sum(1) for values in self._sums[method, metric]))

    def mean(self, method: str, metric: str) -> Interval:
        """Return the mean over the sequences that have a value, with its interval; NaN if none has."""
        return self._means[method, metric]

    @cached_property
    def _means(self) -> dict[tuple[str, str], Interval]:
        return {key: known_interval(self.per_sequence(*key)) for key in self._sums}

    def curve(self, method: str, metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the mean over sequences at each predicted frame and the bounds of its interval, [F] each.

        Bounds are NaN where so few sequences have a value that some resample has none.
        """
        values = self.array(method, metric)
        known = ~np.isnan(values)
        pairs = np.stack([np.where(known, values, 0), known], -1)

        def mean(pairs: np.ndarray) -> np.ndarray:
            return _ratio(pairs[..., 0], pairs[..., 1])

        low, high = bootstrap_interval(pairs, mean)
        return mean(pairs.mean(0)), low, high

    def tables(self, n_sample: int) -> list[Table]:
        """Return a table for each of `GROUPS`; the last row of that of the error holds the areas."""
        tables = [self._table(title, n_sample) for title in GROUPS]
        rows = self.frames[self.frames["method"] == TRUTH]
        tables[-1].rows.append(
            ["share of the pixels", *(f"{rows[f'area_{part}'].mean():.1%}" for part in PARTS)]
        )
        return tables

    def _table(self, title: str, n_sample: int) -> Table:
        names = GROUPS[title]
        # true frames have no squared error
        methods = [method for method in self.methods if method != TRUTH or names[0] in OBJECT_METRICS]
        rows = [
            [
                METHODS[method].name(n_sample),
                *(self.mean(method, name).text(ALL_METRICS[name].format) for name in names),
            ]
            for method in methods
        ]
        return Table([title, *(ALL_METRICS[name].title.rpartition(": ")[2] for name in names)], rows)

    def in_words(self) -> dict[str, str]:
        """Return what the scores mean and how well the judge sees, a line for each part."""
        return {
            "objects": "found by a judge, a small network that has seen each in the last observed frame",
            "judge": self._judge_in_words(),
            "pushed": "objects whose centre is more than 1 cm from where it was in the last observed frame",
            "at the end": self._medians_in_words(),
            "left out": self._left_out_in_words(),
            "error": "distance on the table of the centre that is found from the true one, of found objects",
            "IoU": "overlap of the mask that is found with the true one, 0 for an object that is not found",
            "vanished": "share of the objects that are not found although they can truly be seen",
            "hand": "distance of the hand's motion, as read from two consecutive frames, from the true one",
            "parts": "of the mean squared error of a frame; the parts add up to it",
        }

    def _judge_in_words(self) -> str:
        rows = self.objects[self.objects["method"] == TRUTH]
        hidden = rows["seen"] < HALF_SEEN
        words = [f"on the true frames {_errors_in_words(rows[~hidden])}"]
        if hidden.any():
            words.append(f"of objects that are mostly hidden {_errors_in_words(rows[hidden])}")
        return "; ".join(words)

    def _medians_in_words(self) -> str:
        """Return median errors and vanished shares of the objects that are pushed in the last frame."""
        last = self.objects[(self.objects["frame"] == self.n_future) & (self.objects["pushed"] == 1)]
        words = []
        for method in self.methods:
            rows = last[last["method"] == method]
            errors = rows["mm"].dropna()
            if len(errors):
                vanished = f"{1 - rows['found'].mean():.1%} vanished"
                words.append(f"{METHODS[method].name(0)} {errors.median():.1f} mm, {vanished}")
        found = "; ".join(words) or "none is pushed"
        return f"median error of pushed objects in frame {self.n_future}: {found}"

    def _left_out_in_words(self) -> str:
        rows = self.frames[self.frames["method"] == TRUTH]
        hidden, total = int(rows["hidden"].sum()), int(rows["objects"].sum())
        share = hidden / total if total else 0.0
        return (
            f"{share:.0%} of the objects ({hidden} of {total} in all frames), those of which fewer than "
            f"{LEAST_AREA} pixels are seen in the last observed frame or in the true one"
        )


def joined(parts: list[ObjectScores]) -> ObjectScores:
    """Return the scores of several batches of sequences as one: by method, and then as they come."""
    return ObjectScores(
        _by_method([part.objects for part in parts]), _by_method([part.frames for part in parts])
    )


def _by_method(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Return all rows by method, and columns from names to values."""
    rows = pd.concat(tables, ignore_index=True)
    names = ["sequence", "method", "frame"]
    rows = rows[[*names, *(column for column in rows if column not in names)]]
    found = set(rows["method"].unique())
    return pd.concat([rows[rows["method"] == name] for name in METHODS if name in found], ignore_index=True)


def read_object_scores(objects: pd.DataFrame, frames: pd.DataFrame) -> ObjectScores:
    """Return scores from tables of files, in which a place that is not known is an empty text."""
    places = {name: pd.to_numeric(objects[name], errors="coerce") for name in ("mm", "pixels")}
    return ObjectScores(objects.assign(**places), frames)


def _errors_in_words(rows: pd.DataFrame) -> str:
    """Return median, tail and misses of the judge on true frames."""
    errors = rows["mm"].dropna()
    if errors.empty:
        return "it finds none"
    missed = 1 - rows["found"].mean()
    tail = f"90 % within {errors.quantile(0.9):.1f} mm, {missed:.1%} missed"
    return f"its median error is {errors.median():.1f} mm ({tail})"


def known_interval(values: np.ndarray) -> Interval:
    """Return the mean of those of the values [N] that are numbers, with its interval."""
    known = values[~np.isnan(values)]
    return mean_interval(known) if len(known) else Interval(np.nan, np.nan, np.nan)


def _ratio(total: np.ndarray, number: np.ndarray) -> np.ndarray:
    return np.where(number > 0, total / np.where(number > 0, number, 1), np.nan)
