"""The clock of a training: its time limit, and when to save within an epoch."""

import time

from ..config import TrainConfig
from ..processes import World
from ..runs.progress import Progress


class Clock:
    """Minutes of training, those before the run was resumed included, written to `progress`."""

    def __init__(self, train: TrainConfig, progress: Progress, world: World):
        self._train = train
        self._progress = progress
        self._world = world
        self.start()

    def start(self) -> None:
        """Let the time run from now on."""
        self._start = time.monotonic() - 60 * self._progress.minutes
        self._saved = time.monotonic()

    def update_minutes(self) -> None:
        """Read the time; with a time limit, on which learning rates may depend, the main process's in all."""
        minutes = (time.monotonic() - self._start) / 60
        self._progress.minutes = self._world.broadcast(minutes) if self._train.max_minutes else minutes

    def is_time_over(self) -> bool:
        """Return whether ``--max_minutes`` had passed at the last `update_minutes`."""
        return 0 < self._train.max_minutes <= self._progress.minutes

    def is_save_due(self) -> bool:
        """Return whether ``--save_minutes`` have passed without a checkpoint."""
        return 0 < self._train.save_minutes <= (time.monotonic() - self._saved) / 60

    def note_save(self) -> None:
        """Count the minutes to the next checkpoint from now on."""
        self._saved = time.monotonic()
