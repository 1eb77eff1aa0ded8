"""The training loop: load everything; then for each epoch: steps, scores, a line of metrics, checkpoints."""

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
from tqdm import tqdm

from data_tools.command import tell
from data_tools.errors import InputError
from data_tools.lock import locked

from .. import fingerprint, processes
from ..config import Config
from ..models.predictor import Predictor
from ..runs import checkpoint, metrics_log
from ..runs.progress import EpochSums, Progress
from ..sequences import Batch
from . import console, distributed, faults, resumption, schedules, trackers
from .clock import Clock
from .data import Batches, open_data, prepare_device
from .learner import Learner, StepReport
from .schedules import EpochSettings
from .signals import Stopped, StopRequest
from .tracking import Tracking
from .validation import Validation

OnEpoch = Callable[[dict[str, float], Predictor], bool | None]
"""A function of an epoch's metrics and of the model, which may end a training; see `Training.fit`."""


class Training:
    """A run in progress: data, model, optimiser and how far they are. `svg.configure` makes its `config`.

    All randomness of a step comes from (seed, step); with `max_minutes` the learning rate also depends on the
    time. Under torchrun each process takes its shard of every batch, and the main one writes. `progress` is
    all that there is besides weights and the optimiser's state: a run that is stopped anywhere and resumed
    ends as one that never stopped.
    """

    def __init__(self, config: Config, resume: bool = False, take_over: bool = False):
        """Open data, model and, to `resume`, the last checkpoint; write nothing but the index of new data.

        With `take_over` a run goes on under flags and circumstances that change its results. Raises
        `InputError`.
        """
        distributed.check_shares(config)
        trackers.require(config.train.track)
        self.run = Path(config.train.log_dir)
        self.config, self.training_data, self.validation_data = open_data(config)
        train = self.config.train
        self.device = prepare_device(self.config)
        self.world = processes.join(self.device)
        self.circumstances = resumption.circumstances(
            self.config, self.training_data, self.device, self.world
        )
        last = resumption.find_last(self.config, resume, self.world)
        changes = self._accept_changes(last, take_over)
        shard = self.world.shard(train.batch_size)
        self.batches = Batches(self.config, self.training_data, shard, self.device)
        self.validation = None
        if self.validation_data is not None:
            self.validation = Validation(self.validation_data, self.config, self.world)
        mean, std = self.training_data.condition_mean, self.training_data.condition_std
        self.learner = Learner(self.config, mean, std, self.device, self.world, shard)
        self.progress = self._restore(last, changes)
        self._last_saved_step = None if last is None else last.step
        self._pending: deque[StepReport] = deque()
        self.recorder = faults.StepRecorder(self.learner, self.progress, self.batches.clips_of)
        self.clock = Clock(train, self.progress, self.world)
        self.stop = StopRequest()
        self.tracking = Tracking(self.config, self.validation_data)

    def _accept_changes(self, last: checkpoint.Checkpoint | None, take_over: bool) -> resumption.Changes:
        """Return what changed since the last checkpoint was written. Raises `InputError`."""
        changes: resumption.Changes = {}
        is_main = self.world.is_main
        if last is not None:
            changes |= resumption.accept_changes(last, self.config, self.circumstances, take_over, is_main)
        if is_main:  # before any file of the data set is read
            file_changes, self._fingerprints = resumption.accept_files(
                self.config, self.training_data, self.validation_data, last is not None, take_over
            )
            changes |= file_changes
        return changes

    def _restore(self, last: checkpoint.Checkpoint | None, changes: resumption.Changes) -> Progress:
        """Load the last checkpoint, or the weights to begin with, and return how far the run is."""
        progress = Progress()
        if last is not None:
            self.learner.load(last)
            progress = last.progress
            progress.best_psnr = resumption.score_to_beat(self.run, changes)
        else:
            if self.config.train.init_from:
                resumption.start_from(self.config.train.init_from, self.learner, self.training_data, self.run)
            self.learner.fit_conditions(self.training_data)
        progress.circumstances = self.circumstances
        progress.flags = resumption.flags_with_effect(self.config)
        return progress

    def fit(self, on_epoch: OnEpoch | None = None) -> Path:
        """Train to the end and return the run folder.

        The step is the only counter: an epoch that was cut short goes on where it was.

        After each epoch, when it is logged and saved, the main process calls ``on_epoch(metrics, model)``
        with the epoch's line of ``metrics.jsonl`` and the model itself, in evaluation mode meanwhile. Epoch 0
        of ``init_from``, the start, is one of them. If it returns True, the training ends there. What it
        raises ends it, too, and comes out of here as it is. After either, a `Training` with ``resume=True``
        goes on.

        Ctrl-C, SIGTERM and a terminal that is closed end the training after the current step, all saved, with
        `Stopped`, which is a `KeyboardInterrupt`; a second Ctrl-C ends the process at once, and with it the
        kernel of a notebook. Raises `InputError` for faults; the last checkpoint stays.
        """
        self._is_told_to_end = False
        with contextlib.ExitStack() as stack:
            if self.world.is_main:
                self.run.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self.run))
                self._check_still_last()
                stack.callback(self.tracking.close)
            stack.enter_context(self.stop.listening())
            batches = stack.enter_context(contextlib.closing(self._batches_ahead()))
            for metrics in self._train(batches):
                if on_epoch is not None and self.world.is_main:
                    answer = on_epoch(metrics, self.learner.model.eval())
                    # nothing else that is true: functions that draw return what they have drawn
                    self._is_told_to_end = isinstance(answer, bool | np.bool_) and bool(answer)
        return self.run

    def _check_still_last(self) -> None:
        last = checkpoint.find_any(self.run, "last")
        if (last.step if last else None) != self._last_saved_step:
            raise InputError(
                f"{self.run}: another process has trained there since; begin again with --resume"
            )

    def _batches_ahead(self) -> Generator[Batch]:
        train = self.config.train
        first = self.progress.step * train.accumulate
        return self.batches.iterate(range(first, self._total_steps * train.accumulate), self.stop.is_made)

    @property
    def _total_steps(self) -> int:
        return self.config.train.niter * self.config.train.epoch_size

    def _train(self, batches: Iterator[Batch]) -> Generator[dict[str, float]]:
        """Train, and yield the metrics of each epoch. Raises `InputError` for faults of its own alone."""
        try:
            yield from self._epochs(batches)
        except (RuntimeError, OSError) as error:
            explanation = faults.explain(error, self.world.size)
            if explanation is None:
                raise
            raise InputError(f"{explanation}{faults.kept(self.run)}") from error

    def _epochs(self, batches: Iterator[Batch]) -> Generator[dict[str, float]]:
        self.clock.start()
        if not self._is_work_left():
            if self.world.is_main:
                tell(console.nothing_left(self.run, self.progress))
            return
        self._begin()
        if self._last_saved_step is None and self.config.train.init_from and self.validation is not None:
            yield self._finish_epoch(None, self._score_or_stop())  # "epoch 0", which the others have to beat
        while self._is_work_left():
            settings = self._train_epoch(batches)
            scores = self._score_or_stop()
            self.clock.update_minutes()
            yield self._finish_epoch(settings, scores)
        if self.world.is_main:
            metrics = metrics_log.read_metrics(self.run)
            if verdict := console.worse_than_start(self.run, metrics, self.config.train.lr):
                tell(verdict)
        self.world.barrier()

    def _is_work_left(self) -> bool:
        """Return whether there are steps left, or an epoch that was stopped before its scores were taken.

        All processes ask together.
        """
        step = self.progress.step
        is_unfinished = self.progress.sums.steps > 0 and step <= self._total_steps
        is_over = self.world.any(self._is_told_to_end) or self.clock.is_time_over()
        return is_unfinished or (step < self._total_steps and not is_over)

    def _begin(self) -> None:
        """Bring the run folder to the state of the last checkpoint, and print what is trained."""
        if self.world.is_main:
            metrics_log.truncate(self.run, -1 if self._last_saved_step is None else self._last_saved_step)
            checkpoint.remove_after(self.run, self.progress.step)
            checkpoint.save_config(self.run, self.config)
            fingerprint.write(self.run, self._fingerprints)
            console.tell_start(
                self.config, self.training_data, self.validation_data, self.learner, self.progress
            )
            self.tracking.begin()
        self._forecast = console.Forecast(self._total_steps, self.config.train.max_minutes)
        self.clock.update_minutes()

    def _train_epoch(self, batches: Iterator[Batch]) -> EpochSettings:
        """Take the epoch's steps that are left, up to the end of the time or a request to stop."""
        train = self.config.train
        progress = self.progress
        first = progress.step
        # With sums left over, this epoch was stopped: even after its last step, when only its scores were
        # missing.
        epoch = (first - 1 if progress.sums.steps else first) // train.epoch_size
        end = (epoch + 1) * train.epoch_size
        settings = schedules.settings_of(train, epoch, self._learning_rate(max(first - 1, 0)))
        self.learner.model.train()
        began = time.monotonic()
        frames_per_step = train.batch_size * train.accumulate * self.training_data.clip_length
        quiet = None if self.world.is_main else True  # None: where there is no terminal
        bar = tqdm(range(first, end), desc=f"epoch {epoch + 1}", unit="step", disable=quiet, leave=False)
        for step in bar:
            settings.lr = self._learning_rate(step)
            self._take_step(step, [next(batches) for _ in range(train.accumulate)], settings)
            settings.frames_per_second = (step + 1 - first) * frames_per_step / (time.monotonic() - began)
            bar.set_postfix(console.postfix(progress.sums.means(), settings))
            self.clock.update_minutes()
            if self.world.is_main:
                console.tell_all(self._forecast.after_step(step + 1, progress.minutes))
            if self.stop.agreed or self.clock.is_time_over():
                break
            if self.clock.is_save_due() and step + 1 < end:
                self._record(0)
                self._save()
        self._record(0)
        return settings

    def _learning_rate(self, step: int) -> float:
        return schedules.learning_rate_of_step(self.config.train, step, self.progress.minutes)

    def _take_step(self, step: int, batches: list[Batch], settings: EpochSettings) -> None:
        is_asked = self.stop.is_made()
        report = self.learner.step(step, batches, settings.lr, settings.beta, settings.tfr, is_asked)
        self._pending.append(report)
        # A GPU computes the next step while this report is on its way. After a skipped step it is waited for:
        # the weights are those that led to it.
        self._record(1 if self.device.type == "cuda" and not self.recorder.has_skipped else 0)
        self.progress.step = step + 1
        if self.world.size == 1:
            self.stop.agreed |= self.stop.is_made()

    def _record(self, left: int) -> None:
        """Record the pending reports but the newest `left`."""
        while len(self._pending) > left:
            report = self._pending.popleft()
            self.stop.agreed |= report.is_stop_requested
            self.recorder.record(report)

    def score(self) -> dict[str, float]:
        """Return the scores of the validation split, taken by all processes; empty without one.

        Raises `Stopped` in all processes if any is asked to stop meanwhile.
        """
        shard = None
        with contextlib.suppress(Stopped), self.stop.interruptible():
            if self.validation is not None:
                shard = self.validation.score_shard(self.learner.model)
        if self.world.any(self.stop.is_made()):
            raise Stopped(self.stop.signal)
        return {} if shard is None or self.validation is None else self.validation.average(shard)

    def _score_or_stop(self) -> dict[str, float]:
        """Return the scores. Raises `Stopped`, all saved, if a signal asked to stop."""
        if not self.stop.agreed:
            with contextlib.suppress(Stopped):
                return self.score()
        self._save_and_stop()

    def _save_and_stop(self) -> NoReturn:
        step = self.progress.step
        if step:  # else there is nothing yet but what --init_from names
            self._save()
        self.world.barrier()
        raise Stopped(self.stop.signal, console.stopped(self.run, step))

    def _finish_epoch(self, settings: EpochSettings | None, scores: dict[str, float]) -> dict[str, float]:
        """Log and save an epoch, and return its metrics as they are logged.

        Without `settings` it is the start of a run that took over weights.
        """
        progress = self.progress
        faults.check_weights(self.learner, progress.step)
        metrics = dict(scores)
        timing = {"minutes": round(progress.minutes, 3)}
        if settings is not None:
            schedule = {"beta": settings.beta, "tfr": settings.tfr, "lr": settings.lr}
            metrics = progress.sums.means() | {"skipped": progress.sums.skipped} | schedule | scores
            timing["frames_per_second"] = round(settings.frames_per_second, 1)
        if not np.isfinite(list(metrics.values())).all():
            fault = f"scores are not finite after step {progress.step - 1}"
            raise InputError(f"{fault}; lower --lr or set --max_grad_norm 1{faults.kept(self.run)}")
        progress.sums = EpochSums()
        epoch = math.ceil(progress.step / self.config.train.epoch_size)
        numbers = {"epoch": epoch, "step": progress.step}
        if self.world.is_main:
            self._log_and_save(numbers | metrics, numbers | timing)
        return numbers | metrics

    def _log_and_save(self, metrics: dict[str, float], timing: dict[str, float]) -> None:
        """Write the epoch's metrics, the best weights and then the checkpoint to resume from.

        A resumed run repeats whatever was cut off in between.
        """
        progress = self.progress
        score = metrics.get("val_pred_psnr")
        is_best = score is None or progress.best_psnr is None or score > progress.best_psnr
        if is_best:
            progress.best_psnr = score
        metrics_log.append_epoch(self.run, metrics, timing)
        self.tracking.log(metrics, self.learner.model)
        if is_best:
            self.learner.save_best(self.run, progress)
        self._save()
        tell(console.epoch_line(metrics | timing, is_best))
        console.tell_all(self._forecast.after_epoch(progress.step, progress.minutes))

    def _save(self) -> None:
        """Write the last checkpoint. Raises `InputError` for weights that are not finite."""
        faults.check_weights(self.learner, self.progress.step)
        if self.world.is_main:
            self.learner.save(self.run, self.progress)
        self.clock.note_save()
        self._last_saved_step = self.progress.step
