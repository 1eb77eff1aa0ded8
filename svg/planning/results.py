"""Results of trials: their files, and what they say together."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_tools.errors import InputError
from data_tools.files import write_text
from data_tools.json_files import read_dataclass

from ..evaluation.intervals import mcnemar_p, mean_interval, wilson_interval
from ..evaluation.tables import Table
from .trial import Trial
from .trials import Outcome

REFERENCE = "through"
"""The baseline that others are compared with in pairs."""
STRICT = 0.02
"""Metres of the stricter success that tables show, too."""
WAYS = ("right", "away", "left", "near")
"""Directions of pushes in the picture, from the angle 0 on in quarters of a turn."""
RUN_AGAIN = "delete it, and run the same command again"


@dataclass(frozen=True)
class Series:
    """The outcomes of one actor.

    Args:
        label: its name in tables.
        weights: what identifies those of a model, or "".
        outcomes: by the numbers of the scenes.
        trial: what all of them have in common; its number says nothing.
    """

    label: str
    weights: str
    outcomes: dict[int, Outcome]
    trial: Trial

    def of(self, value: Callable[[Outcome], Any]) -> np.ndarray:
        """Return a value of each outcome, in the order of the scenes."""
        return np.array([value(self.outcomes[number]) for number in sorted(self.outcomes)])

    @property
    def successes(self) -> np.ndarray:
        """Which trials were successes, bool [N]."""
        return self.solved()

    def solved(self, within: float | None = None) -> np.ndarray:
        """Return which trials were successes, bool [N], if need be `within` so many metres."""
        return self.of(lambda outcome: outcome.is_solved(self.trial.protocol, self.trial.task, within))


class SeriesFile:
    """The file of an actor's outcomes, a line of JSON for each, which grows with every trial."""

    def __init__(self, path: Path, trial: Trial, weights: str):
        self._path = path
        # where the models lie does not matter, but what their weights are
        values = json.loads(json.dumps(asdict(trial))) | {"weights": weights}
        self._settings = {name: value for name, value in values.items() if name not in ("number", "models")}

    def read(self) -> dict[int, Outcome]:
        """Return what is there by number. Raises `InputError` if it is of other settings or damaged.

        A last line that an interrupted command has left unfinished is no outcome, and is removed.
        """
        if not self._path.exists():
            return {}
        text = self._path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        outcomes = {}
        for row, line in enumerate(whole.splitlines(), start=1):
            place = f"{self._path}, line {row}"
            try:
                values = json.loads(line)
                settings = values.pop("settings")
            except (ValueError, KeyError, AttributeError):
                raise InputError(f"{place}: found no outcome of a trial; {RUN_AGAIN}") from None
            self._check(settings, place)
            outcome = read_dataclass(Outcome, values, place, RUN_AGAIN)
            outcomes[outcome.number] = outcome
        if whole != text:
            write_text(self._path, whole)
        return outcomes

    def add(self, outcome: Outcome) -> None:
        """Append an outcome."""
        line = json.dumps(asdict(outcome) | {"settings": self._settings})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _check(self, settings: dict[str, Any], place: str) -> None:
        for name, value in self._settings.items():
            if settings.get(name) != value:
                found = settings.get(name)
                raise InputError(
                    f"{place}: found {name} {found}, expected {value}, as the flags say; choose another --out"
                )


# ----------------------------------------------------------------------------------------------------- tables


def main_table(series: Sequence[Series]) -> Table:
    """Return success, final distance and costs of each actor."""
    reference = {one.label: one for one in series}.get(REFERENCE)
    header = ["", "success", f"within {1000 * STRICT:g} mm", "end mm, median", "end mm, mean"]
    header += ["s a plan", "frames imagined/s", f"p against {REFERENCE}"]
    rows = []
    for one in series:
        end = 1000 * one.of(lambda outcome: outcome.end)
        seconds = np.concatenate([one.outcomes[number].seconds for number in sorted(one.outcomes)] or [[]])
        imagined = one.of(lambda outcome: outcome.imagined).sum()
        paired = ""
        if reference is not None and one is not reference and len(reference.outcomes) == len(one.outcomes):
            paired = f"{mcnemar_p(one.successes, reference.successes):.2g}"
        rows.append(
            [
                one.label,
                share_text(one.successes),
                share_text(one.solved(STRICT)),
                f"{np.median(end):.1f}",
                mean_interval(end).text(".1f"),
                f"{np.median(seconds):.2f}" if len(seconds) else "",
                f"{imagined / seconds.sum():,.0f}" if imagined else "",
                paired,
            ]
        )
    return Table(header, rows)


def share_text(successes: np.ndarray) -> str:
    """Return ``75% [65%, 83%]``, the share of successes with its interval."""
    return wilson_interval(int(successes.sum()), len(successes)).text(".0%")


def group_table(series: Sequence[Series]) -> Table:
    """Return the successes of each actor by the shape of what was pushed and by its direction."""
    groups: dict[str, Callable[[Outcome], bool]] = {}
    shapes = sorted(
        {shape for one in series for outcome in one.outcomes.values() for shape in outcome.shapes}
    )
    for shape in shapes:
        groups[shape] = lambda outcome, shape=shape: shape in outcome.shapes
    for number, way in enumerate(WAYS):
        groups[f"to the {way}" if way in ("right", "left") else way] = lambda outcome, number=number: (
            quarter(outcome.direction) == number
        )
    rows = []
    for one in series:
        cells = []
        for belongs in groups.values():
            chosen = one.of(belongs).astype(bool)
            cells.append(f"{one.successes[chosen].sum()} of {chosen.sum()}")
        rows.append([one.label, *cells])
    return Table(["successes", *groups], rows)


def quarter(angle: float) -> int:
    """Return which of `WAYS` an angle, radians from the x axis, belongs to."""
    return int(np.floor((angle + np.pi / 4) / (np.pi / 2))) % 4


def outcome_frame(series: Iterable[Series]) -> pd.DataFrame:
    """Return one row for each trial."""
    rows = []
    for one in series:
        for number in sorted(one.outcomes):
            outcome = one.outcomes[number]
            rows.append(
                {
                    "actor": one.label,
                    "scene": number,
                    "success": outcome.is_solved(one.trial.protocol, one.trial.task),
                    "start_mm": 1000 * outcome.distances[0],
                    "end_mm": 1000 * outcome.end,
                    "best_mm": 1000 * outcome.best,
                    "shapes": " ".join(outcome.shapes),
                    "direction_deg": np.degrees(outcome.direction),
                    "seconds_a_plan": np.median(outcome.seconds) if outcome.seconds else np.nan,
                    "plans": len(outcome.seconds),
                    "frames_imagined": outcome.imagined,
                    "perception_error_mm": 1000 * np.mean(outcome.perception_error)
                    if outcome.perception_error
                    else np.nan,
                }
            )
    return pd.DataFrame(rows)


def summary(series: Sequence[Series]) -> dict[str, Any]:
    """Return the numbers of `main_table` for a JSON file."""
    kept = asdict(series[0].trial)
    for name in ("actor", "number", "models"):
        del kept[name]
    results = {}
    for one in series:
        successes = one.successes
        share = wilson_interval(int(successes.sum()), len(successes))
        end = mean_interval(1000 * one.of(lambda outcome: outcome.end))
        results[one.label] = {
            "weights": one.weights,
            "trials": len(successes),
            "success": share.mean,
            "success_interval": [share.low, share.high],
            "end_mm": end.mean,
            "end_mm_interval": [end.low, end.high],
            "end_mm_median": float(np.median(1000 * one.of(lambda outcome: outcome.end))),
        }
    return {"settings": kept, "results": results}
