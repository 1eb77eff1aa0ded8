"""Tracking: what ``metrics.jsonl`` says of each epoch, and a film of predictions, go to a tracker as well.

A tracker changes nothing in the training and cannot end it.
"""

import contextlib
import dataclasses
import io
import json
import secrets
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import torch

from data_tools.command import tell
from data_tools.files import write_text
from data_tools.json_files import read_dataclass, read_json

from ..config import Config
from ..evaluation.futures import latent_noise
from ..figures.films import write_gif
from ..figures.rendering import to_video
from ..figures.samples_film import samples_film
from ..flags import flag_values
from ..models.freezing import freeze
from ..models.predictor import Predictor, as_images
from ..runs import metrics_log
from ..runs.checkpoint import first_line
from ..sequences import SequenceDataset
from .trackers import TRACKERS, Tracker
from .validation import validation_protocol

FOLDER = "tracking"
"""The folder of a run with the `Mark` of each tracker."""
SEQUENCES = 3
"""Validation sequences that a film shows."""
FPS = 5.0
SCHEDULE = ("epoch", "beta", "tfr", "lr")


@dataclass(frozen=True)
class Mark:
    """A run at a tracker: the name by which it is resumed, and the last step that it was given."""

    identity: str
    step: int = -1


class Tracking:
    """The tracker of a run, if it has one.

    A row is given once: a run that is resumed repeats the epochs after its last checkpoint, and the tracker
    has them already, or drops what it has of them. Rows that it lacks, because another tracker had them,
    it gets when the run is resumed.
    """

    def __init__(self, config: Config, dataset: SequenceDataset | None):
        self._config = config
        self._dataset = dataset
        self._name = config.train.track
        self._run = Path(config.train.log_dir)
        self._tracker: Tracker | None = None

    def begin(self) -> None:
        """Open the tracker, say where it is, and give it the rows of the run's log that it lacks."""
        if self._name not in TRACKERS:
            return
        with self._surviving_errors():
            self._mark = self._read_mark()
            has_rows = (self._run / metrics_log.METRICS_FILE).exists()
            rows = metrics_log.read_metrics(self._run) if has_rows else []
            kept = rows[-1]["step"] if rows else -1
            begin = min(self._mark.step, kept) + 1
            make = TRACKERS[self._name]
            self._tracker = make(self._run, self._mark.identity, flag_values(self._config), begin)
            if self._tracker.can_rewrite:
                self._mark = dataclasses.replace(self._mark, step=begin - 1)
            tell(f"track     {self._name}: {self._tracker.place}")
            for row in rows:
                self._give(row)

    def log(self, row: dict[str, float], model: Predictor) -> None:
        """Give an epoch's row of ``metrics.jsonl`` to the tracker, and a film of what `model` predicts."""
        if self._tracker is None:
            return
        with self._surviving_errors():
            film = b"" if self._dataset is None else validation_film(model, self._dataset, self._config)
            self._give(row, film)

    def close(self) -> None:
        """Let the tracker write what it has left."""
        with self._surviving_errors():
            if self._tracker is not None:
                self._tracker.close()

    def _give(self, row: dict[str, float], film: bytes = b"") -> None:
        """Give a row to the tracker, unless it has it.

        The mark is written first: whatever a kill cuts off, no row is there twice.
        """
        step = int(row["step"])
        if self._tracker is None or step <= self._mark.step:
            return
        self._mark = dataclasses.replace(self._mark, step=step)
        write_text(self._mark_path, json.dumps(dataclasses.asdict(self._mark)) + "\n")
        numbers = {grouped(name): value for name, value in row.items() if name != "step"}
        self._tracker.log(numbers, step, film)

    @property
    def _mark_path(self) -> Path:
        return self._run / FOLDER / f"{self._name}.json"

    def _read_mark(self) -> Mark:
        """Return the mark of the run at this tracker, a new one if there is none."""
        self._mark_path.parent.mkdir(exist_ok=True)
        if not self._mark_path.exists():
            return Mark(secrets.token_hex(4))
        advice = "remove it, and the run begins again at the tracker"
        return read_dataclass(Mark, read_json(self._mark_path, advice), self._mark_path, advice)

    @contextlib.contextmanager
    def _surviving_errors(self) -> Generator[None]:
        """Turn any error into a line; the training goes on without the tracker."""
        try:
            yield
        except Exception as error:
            tell(f"note: --track {self._name}: {first_line(error)}; the training goes on without", error=True)
            self._tracker = None


def grouped(name: str) -> str:
    """Return a name of ``metrics.jsonl`` with the group in which trackers show it.

    ``train/loss``, ``train_schedule/lr``, ``val/pred_psnr``: in this order, which is that of the alphabet.
    """
    if name.startswith("val_"):
        return name.replace("_", "/", 1)
    return f"train_schedule/{name}" if name in SCHEDULE else f"train/{name}"


@torch.no_grad()
def validation_film(model: Predictor, dataset: SequenceDataset, config: Config) -> bytes:
    """Return a GIF of the first validation sequences: the truth, the mean prediction, a sampled one.

    The sample is of the same noise in every epoch.
    """
    frozen = freeze(model, config.train.precision)
    protocol = validation_protocol(config.data)
    n_past = protocol.n_past
    numbers = range(min(SEQUENCES, len(dataset)))
    batch = dataset.batch([(number, 0) for number in numbers])
    frames = as_images(batch["frames"].to(frozen.device))
    conditions = batch["conditions"].to(frozen.device)
    drawn = next(latent_noise(frozen, numbers, 1, protocol.n_future, config.train.seed, 1))
    noise = torch.cat([torch.zeros_like(drawn), drawn], 1).to(frozen.device)
    start = frozen.observe(frames[:, :n_past], conditions)
    pred, sample = frozen.imagine(start, conditions[:, n_past - 1 : -1], noise).float()
    futures = {"truth": frames[:, n_past:], "pred": pred, "sample": sample}
    sequences = [
        {name: to_video(frames[number, :n_past], future[number]) for name, future in futures.items()}
        for number in numbers
    ]
    file = io.BytesIO()
    write_gif(samples_film(sequences, n_past), file, FPS)
    return file.getvalue()
