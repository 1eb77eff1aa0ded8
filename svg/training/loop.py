"""The training loop: one step, one epoch, one run."""

import contextlib
import dataclasses
import itertools
import math
import signal
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from tqdm import tqdm

from data_tools import layout
from data_tools.command import tell
from data_tools.errors import InputError
from data_tools.lock import locked

from .. import fingerprint, runtime
from ..config import Config
from ..evaluation.protocols import OWN, PROTOCOLS
from ..evaluation.scoring import evaluate
from ..models.freezing import freeze
from ..models.registry import MODELS
from ..runs import checkpoint, metrics_log, pretrained
from ..runs.progress import LOSSES, EpochSums, Progress
from ..sequences import Batch, ResidentBatches, SequenceDataset, TrainingBatches
from . import console, distributed, faults, resumption, schedules
from .learner import Learner
from .signals import Stopped, Stopping


def complete_config(config: Config, dataset: SequenceDataset) -> Config:
    """Fills in what the data decide (channels, width of the conditions) and checks what flags and data must agree on."""
    height, width, channels = dataset.frame_size
    model, size = config.model, config.model.image_width
    has_poses, widths = bool(dataset.info.pose_channels), model.entry.widths
    if has_poses != model.takes_poses:
        has = "poses" if has_poses else "no poses"
        takes = " or ".join(name for name, entry in MODELS.items() if entry.takes_poses == has_poses)
        raise InputError(
            f"--model {model.model}: the data set {dataset.root} has {has}, which --model {takes} takes"
        )
    if width != size or (height != size and widths):
        takes_them = not widths or (height == width and width in widths)
        copy = f"make a copy that fits with `svg-data resize {dataset.root} OUT --image_width {size}`"
        advice = f"give --image_width {width}" if takes_them else copy
        raise InputError(
            f"--image_width: found {size}, but the frames of {dataset.root} are {height}x{width}; {advice}"
        )
    model = dataclasses.replace(
        model,
        channels=channels,
        condition_dim=dataset.condition_dim,
        image_height=0 if widths else height,
    )
    return dataclasses.replace(config, model=model)


class Training:
    """A run in progress: data, model, optimiser and how far they are.

    All randomness of a step comes from (seed, step); with `max_minutes` the learning rate also depends on the time taken. Under
    torchrun each process takes its share of every batch and the first one writes. `progress` is all that there is besides weights
    and the optimiser's state: a run that is stopped anywhere and resumed is the run that never stopped.
    """

    def __init__(self, config: Config, resume: bool = False, take_over: bool = False):
        """Opens data, model and, to `resume`, the last checkpoint; writes nothing.

        With `take_over` a run goes on under flags and circumstances that change what becomes of it. Raises `InputError`.
        """
        distributed.check_batch_size(config.train.batch_size)
        self.run = Path(config.train.log_dir)
        self._open_data(config)
        self.device = runtime.choose_device(config.train.device)
        if config.data.data_device == "cuda" and self.device.type != "cuda":
            raise InputError(
                f"--data_device cuda: the training runs on the {self.device.type}; use --data_device cpu"
            )
        runtime.prepare(self.device)
        self.world = distributed.join(self.device)
        self.progress = Progress()
        last = resumption.find_last(self.config, resume, self.world)
        changed = {}
        if last is not None:
            changed = resumption.accept_changes(
                last, self.config, self.circumstances, take_over, self.world.first
            )
        if self.world.first:  # before any of them is read
            changed |= self._look_at_files(last is not None, take_over)
        self._prepare_batches()
        mean, std = self.training_data.condition_mean, self.training_data.condition_std
        self.learner = Learner(self.config, mean, std, self.device, self.world, self.share)
        self._resumed_from = None if last is None else last.step
        if last is None and self.config.train.init_from:
            self._start_from(self.config.train.init_from)
        if last is not None:
            self.learner.load(last)
            self.progress = last.progress
            self.progress.best_psnr = resumption.score_to_beat(self.run, changed)
        self.progress.circumstances = self.circumstances
        self.progress.flags = resumption.flags_with_effect(self.config)
        self._skipped: list[dict[str, Any]] = []  # the steps in a row, up to now
        self._stop_agreed = False
        self.stopping = Stopping()

    @property
    def circumstances(self) -> dict[str, Any]:
        """What changes a run besides its flags."""
        on_cpu = self.device.type == "cpu"  # whose sums depend on how many threads add them up
        return {
            "data": self.training_data.digest(), "processes": self.world.size, "device type": self.device.type,
            "bfloat16": runtime.uses_bfloat16(self.device, self.config.train.precision), "torch": torch.__version__,
            "threads": torch.get_num_threads() if on_cpu else 0,
        }  # fmt: skip

    def _look_at_files(self, resumed: bool, take_over: bool) -> dict[str, tuple[str, str]]:
        """Takes the fingerprints of the data set's files and, of a run that is resumed, compares them with those that it noted.

        Returns what `resumption.accept_changes` would return if validation is not as it was. Raises `InputError`.
        """
        validation = (
            {}
            if self.validation_data is None
            else self.validation_data.files(self.config.train.validate_sequences)
        )
        files = self.training_data.files() | validation
        if not resumed:
            self._fingerprints = fingerprint.take(files)
            return {}
        changed, self._fingerprints = resumption.accept_files(self.run, files, take_over)
        scored = set(itertools.chain.from_iterable(validation.values()))
        return {"data": ("as noted", "changed")} if scored.intersection(changed) else {}

    def _start_from(self, model: str) -> None:
        """Takes over weights. Raises `InputError` unless all processes find the same."""
        try:
            digest, share, afresh = self.learner.start_from(pretrained.run_folder(model))
        except InputError as error:
            raise InputError(f"--init_from: {error}") from None
        number = float(int(digest[:12], 16))
        if self.world.agree(number) != number:
            raise InputError(
                f"--init_from: process {self.world.rank} finds other weights in {model} than the first; share them"
            )
        if self.world.first:
            tell(
                f"{self.run}: begins with {share:.1%} of its weights from {model}; afresh: {', '.join(afresh) or 'none'}"
            )
            if note := console.unlike_conditions(self.training_data, model, self.learner.model):
                tell(note)

    def _open_data(self, config: Config) -> None:
        """Looks at the index: no image is opened."""
        data = config.data
        self.training_data = SequenceDataset(
            data.data_root, "train", data.n_past + data.n_future, data.conditions
        )
        self.config = complete_config(config, self.training_data)
        self.validation_data = None
        if (layout.read_index(Path(data.data_root))["split"] == "validate").any():
            self.validation_data = SequenceDataset(data.data_root, "validate", data.n_eval, data.conditions)

    def _prepare_batches(self) -> None:
        data, train = self.config.data, self.config.train
        self.share = self.world.share(train.batch_size)
        self.batches = TrainingBatches(
            self.training_data, train.batch_size, train.seed, data.clip_start, self.share, data.far_start
        )
        self.resident = None
        if data.data_device != "disk":
            self.resident = ResidentBatches(
                self.batches, self.device if data.data_device == "cuda" else torch.device("cpu")
            )

    def fit(self) -> Path:
        """Trains to the end and returns the run folder: for every epoch its steps, scores, a line of metrics, checkpoints.

        The step is the only counter: an epoch that was cut short goes on where it was. A signal that asks to stop ends it with
        `Stopped` after the step at hand, all saved. Raises `InputError` for what cannot go on; the last checkpoint stays.
        """
        with contextlib.ExitStack() as stack:
            if self.world.first:
                self.run.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self.run))
                self._check_still_last()
            self.stopping = stack.enter_context(Stopping())
            train = self.config.train
            steps = range(
                self.progress.step * train.accumulate, train.niter * train.epoch_size * train.accumulate
            )
            self._ahead = stack.enter_context(contextlib.closing(self.batches_of(steps)))
            try:
                self._fit()
            except (RuntimeError, OSError) as error:
                told = faults.explain(error, self.world.size)
                if told is None:
                    raise
                raise InputError(f"{told}{self._kept()}") from error
        return self.run

    def _check_still_last(self) -> None:
        found = checkpoint.find_any(self.run, "last")
        if (found.step if found else None) != self._resumed_from:
            raise InputError(
                f"{self.run}: another process has trained there since; begin again with --resume"
            )

    def _fit(self) -> None:
        self._start = time.monotonic() - 60 * self.progress.minutes
        self._saved_at = time.monotonic()
        total = self.config.train.niter * self.config.train.epoch_size
        if not self._is_work_left(total):
            if self.world.first:
                tell(
                    f"{self.run}: nothing left to do after {self.progress.step} steps and {self.progress.minutes:.1f} "
                    "minutes; raise --niter or --max_minutes"
                )
            return
        if self.world.first:
            metrics_log.truncate(self.run, -1 if self._resumed_from is None else self._resumed_from)
            checkpoint.remove_after(self.run, self.progress.step)
            checkpoint.save_config(self.run, self.config)
            fingerprint.write(self.run, self._fingerprints)
            self._tell_start()
        self._forecast = console.Forecast(total, self.config.train.max_minutes)
        self._look_at_the_clock()
        if self._resumed_from is None and self.config.train.init_from and self.validation_data is not None:
            self._finish_epoch(self._score_or_stop())  # "epoch 0", which the others have to beat
        while self._is_work_left(total):
            self._epoch()
            scores = self._score_or_stop()
            self._look_at_the_clock()
            self._finish_epoch(scores)
        if self.world.first:
            self._tell_end()
        self.world.wait()

    def _tell_start(self) -> None:
        """Says with what the training begins, or goes on."""
        weights = sum(parameter.numel() for parameter in self.learner.model.parameters())
        device = runtime.describe(self.device, self.config.train.precision)
        device += f", {self.world.size} processes" if self.world.size > 1 else ""
        console.tell_all(
            console.start(
                self.config, self.training_data, self.validation_data, weights, device, self.progress.step
            )
        )

    def _tell_end(self) -> None:
        """Says if the training came to nothing better than what it began with."""
        verdict = console.worse_than_start(self.run, metrics_log.read_metrics(self.run), self.config.train.lr)
        if verdict:
            tell(verdict)

    def _is_work_left(self, total: int) -> bool:
        """Steps, or the scores and the line of an epoch that was stopped before them."""
        step = self.progress.step
        return (step < total and not self._out_of_time()) or (self._steps_of_epoch > 0 and step <= total)

    @property
    def _steps_of_epoch(self) -> int:
        """Steps that were done and are in no line of metrics yet."""
        return self.progress.sums.steps

    def _score_or_stop(self) -> dict[str, float]:
        """Return the scores that `_score_together` takes. Raises `Stopped`, all saved, if a signal asked to stop."""
        scores = None if self._stop_agreed else self._score_together()
        if scores is None:
            self._stop()
        return scores

    def _score_together(self) -> dict[str, float] | None:
        """The scores, which the first process takes while the others wait; None if a signal asked to stop meanwhile."""
        scores = {}
        if self.world.first:
            with contextlib.suppress(Stopped), self.stopping.interruptible():
                scores = self.score()
        return None if self.world.agree(float(self.stopping.asked is not None)) else scores

    def _stop(self) -> NoReturn:
        step = self.progress.step
        if step:  # else there is nothing yet but what --init_from names
            self._save()
        self.world.wait()
        asked = self.stopping.asked or signal.SIGTERM  # it may have reached another process alone
        again = f"`svg-train --log_dir {self.run} --resume`"
        if not step:
            raise Stopped(asked, f"{asked.name}: stopped before the first step; {again} begins again")
        raise Stopped(
            asked, f"{asked.name}: stopped after step {step}, all is saved; {again} goes on from there"
        )

    def _look_at_the_clock(self) -> None:
        """Takes the time, on which a schedule by time depends: the first process's, where there are several."""
        minutes = (time.monotonic() - self._start) / 60
        self.progress.minutes = self.world.agree(minutes) if self.config.train.max_minutes else minutes

    def _out_of_time(self) -> bool:
        limit = self.config.train.max_minutes
        return bool(limit) and self.progress.minutes >= limit

    def _learning_rate(self, step: int) -> float:
        train = self.config.train
        progress = (step + 0.5) / (train.niter * train.epoch_size)
        if train.max_minutes:
            progress = min(1.0, max(progress, self.progress.minutes / train.max_minutes))
        return schedules.learning_rate(train, progress)

    def batches_of(self, steps: range) -> Iterator[Batch]:
        """The batches of `steps`, wherever they lie."""
        pin_memory = self.device.type == "cuda"
        if self.resident is not None:
            return self.resident.iterate(steps, pin_memory)
        return self.batches.iterate(
            steps, self.config.data.workers, pin_memory, lambda: self.stopping.asked is not None
        )

    def _epoch(self) -> None:
        """The steps of the epoch, or of what is left of it; fewer if the time is over or a signal asks to stop."""
        train, first = self.config.train, self.progress.step
        epoch = (first - 1 if self._steps_of_epoch else first) // train.epoch_size
        self._beta = train.beta * schedules.kl_annealing(train, epoch)
        self._tfr = schedules.teacher_forcing_ratio(train, epoch)
        last = (epoch + 1) * train.epoch_size
        self.learner.model.train()
        began, frames, self._rate, self._lr = time.monotonic(), 0, 0.0, self._learning_rate(max(first - 1, 0))
        quiet = None if self.world.first else True  # None: where there is no terminal
        bar = tqdm(range(first, last), desc=f"epoch {epoch + 1}", unit="step", disable=quiet, leave=False)
        ahead = deque()  # losses, on a GPU read while it works on the next step
        for step in bar:
            self._lr = lr = self._learning_rate(step)
            some = [next(self._ahead) for _ in range(train.accumulate)]
            losses = self.learner.step(step, some, lr, self._beta, self._tfr, self.stopping.asked is not None)
            ahead.append((step, lr, losses))
            # after a fault at once: the weights are those that led to it
            self._count(ahead, 1 if self.device.type == "cuda" and not self._skipped else 0)
            frames += train.batch_size * train.accumulate * self.training_data.clip_length
            self.progress.step = step + 1
            self._rate = frames / (time.monotonic() - began)
            shown = {name: f"{value:.4g}" for name, value in self.progress.sums.means().items()}
            bar.set_postfix({**shown, "beta": self._beta, "tfr": self._tfr, "frames/s": f"{self._rate:.0f}"})
            self._look_at_the_clock()
            if self.world.first:
                console.tell_all(self._forecast.after_step(step + 1, self.progress.minutes))
            self._stop_agreed |= self.world.size == 1 and self.stopping.asked is not None
            if self._out_of_time() or self._stop_agreed:
                break
            if self._is_save_due() and step + 1 < last:
                self._count(ahead, 0)
                self._save()
        self._count(ahead, 0)

    def _count(self, ahead: deque, left: int) -> None:
        """Adds the losses of steps that were given out to the epoch's sums, but of the newest `left`; ends a hopeless run."""
        while len(ahead) > left:
            step, lr, losses = ahead.popleft()
            *values, skipped, stop = losses()
            values, sums = dict(zip(LOSSES, values, strict=True)), self.progress.sums
            self._stop_agreed |= stop > 0
            if skipped:
                sums.skipped += 1
                self.progress.skipped_in_a_row += 1
                self._skipped.append(
                    {"step": step, "lr": lr, "beta": self._beta, **values, "clips": self._clips_of(step)}
                )
            else:
                sums.add(values)
                self.progress.skipped_in_a_row, self._skipped = 0, []
            if self.progress.skipped_in_a_row >= self.config.train.max_skipped:
                raise self._hopeless()

    def _clips_of(self, step: int) -> list[list[Any]]:
        """(sequence, first frame) of the clips of this process in a step."""
        names = self.training_data.index["path"]
        batches = range(step * self.config.train.accumulate, (step + 1) * self.config.train.accumulate)
        return [
            [names.iloc[sequence], start]
            for batch in batches
            for sequence, start, _ in self.batches.clips(batch)
        ]

    def _hopeless(self) -> InputError:
        last, count = self._skipped[-1], self.progress.skipped_in_a_row
        told = ", ".join(f"{name} {last[name]:g}" for name in LOSSES)
        where = ""
        if self.world.first:
            where = f"; what led to it is in {faults.save_what_led_to_it(self.run, self.learner.model, self._skipped)}"
        cure = faults.likely_cure(self.config.train, last)
        return InputError(
            f"{count} steps in a row were skipped up to step {last['step']} ({told}); {cure}{where}{self._kept()}"
        )

    def _kept(self) -> str:
        return f"; {self.run} keeps its last checkpoint" if checkpoint.exists(self.run, "last") else ""

    def _is_save_due(self) -> bool:
        return (
            bool(self.config.train.save_minutes)
            and time.monotonic() - self._saved_at >= 60 * self.config.train.save_minutes
        )

    def _check_weights(self) -> None:
        """Before they are saved."""
        if not self.learner.is_finite():
            cure = faults.likely_cure(self.config.train, dict.fromkeys(LOSSES, math.nan))
            raise InputError(
                f"weights are not finite after step {self.progress.step - 1}; {cure}{self._kept()}"
            )

    def _save(self) -> None:
        """Writes the last checkpoint."""
        self._check_weights()
        if self.world.first:
            self.learner.save(self.run, self.progress)
        self._saved_at, self._resumed_from = time.monotonic(), self.progress.step

    def score(self) -> dict[str, float]:
        """PSNR and SSIM of the first validation sequences: rec, and pred with the mean latent. Empty without a validate split."""
        if self.validation_data is None:
            return {}
        train = self.config.train
        data = self.config.data
        protocol = dataclasses.replace(PROTOCOLS[OWN], n_sample=0).for_run(
            data.n_past, data.n_eval - data.n_past
        )
        result = evaluate(
            freeze(self.learner.model, train.precision), self.validation_data, protocol, self.device, train.precision,
            batch_size=max(train.batch_size, 16), limit=train.validate_sequences,
        )  # fmt: skip
        return {
            f"val_{method}_{metric}": float(result.per_sequence(method, metric).mean())
            for method in ("rec", "pred")
            for metric in ("psnr", "ssim")
        }

    def _finish_epoch(self, scores: dict[str, float]) -> None:
        """Metrics first and the last checkpoint at the end: whatever is cut off in between is done again by a resumed run."""
        self._check_weights()
        progress, step = self.progress, self.progress.step
        metrics = dict(scores)
        if step:  # else it is what the run begins with
            steps = {
                "skipped": progress.sums.skipped,
                "beta": self._beta,
                "tfr": self._tfr,
                "lr": self._lr,
            }
            metrics = self.progress.sums.means() | steps | scores
        if not np.isfinite(list(metrics.values())).all():
            raise InputError(
                f"scores are not finite after step {step - 1}; lower --lr or set --max_grad_norm 1{self._kept()}"
            )
        progress.sums = EpochSums()
        if not self.world.first:
            return
        epoch = math.ceil(step / self.config.train.epoch_size)
        score = metrics.get("val_pred_psnr")
        best = score is None or progress.best_psnr is None or score > progress.best_psnr
        timing = {"minutes": round(progress.minutes, 3)}
        if step:
            timing["frames_per_second"] = round(self._rate, 1)
        if best:
            progress.best_psnr = score
        metrics_log.append_epoch(
            self.run, {"epoch": epoch, "step": step, **metrics}, {"epoch": epoch, "step": step, **timing}
        )
        if best:
            checkpoint.save_best(self.run, checkpoint.stored(self.learner.model.state_dict()), progress)
        self._save()
        tell(console.epoch_line(epoch, step, progress.minutes, metrics | timing, best))
        console.tell_all(self._forecast.after_epoch(step, progress.minutes))
