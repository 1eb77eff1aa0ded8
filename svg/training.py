"""The training loop: one step, one epoch, one run."""

import dataclasses
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data_tools import layout
from data_tools.layout import InputError

from . import checkpoint, distributed, runtime, schedules
from .augmentation import shift_and_scale
from .config import Config, flag_values, validate
from .evaluation import evaluate
from .inference import freeze
from .losses import kl_divergence, mean_squared_error
from .models import make_model
from .optimizers import make_optimizer
from .predictor import as_images
from .protocols import OWN, PROTOCOLS
from .sequences import Batch, ResidentBatches, SequenceDataset, TrainingBatches


def complete_config(config: Config, dataset: SequenceDataset) -> Config:
    """Fills in what the data decide (channels, width of the conditions) and checks what flags and data must agree on."""
    height, width, channels = dataset.frame_size
    model, size = config.model, config.model.image_width
    if bool(dataset.info.pose_channels) != model.with_poses:
        has, takes = ("poses", "--model pose_cvae") if dataset.info.pose_channels else ("no poses", "--model vgg or dcgan")
        raise InputError(f"--model {model.model}: the data set {dataset.root} has {has}, which {takes} takes")
    if width != size or (height != size and not model.with_poses):
        raise InputError(f"--image_width: found {size}, but the frames of {dataset.root} are {height}x{width}")
    model = dataclasses.replace(
        model, channels=channels, condition_dim=dataset.condition_dim, image_height=height if model.with_poses else 0
    )
    config = dataclasses.replace(config, model=model)
    validate(config)
    return config


class Training:
    """A run in progress: data, model, optimiser and how far they are.

    All randomness of a step comes from (seed, step); with `max_minutes` the learning rate also depends on the time taken. Under
    torchrun each process takes its share of every batch and the first one writes.
    """

    def __init__(self, config: Config, resume: bool = False):
        validate(config)
        self.run = Path(config.train.log_dir)
        self.device = runtime.choose_device(config.train.device)
        runtime.prepare(self.device)
        self.world = distributed.join(self.device)
        self.share = self.world.share(config.train.batch_size)
        self.progress = {"step": 0, "minutes": 0.0, "best_psnr": None}
        if checkpoint.exists(self.run, "last"):
            self._check_resumable(config, resume)
        self.world.wait()
        self._open_data(config)
        self._build_model()
        if resume and checkpoint.exists(self.run, "last"):
            options = [{key: group[key] for key in group if key != "params"} for group in self.optimizer.param_groups]
            self.progress |= checkpoint.load(self.run, "last", self.model, self.optimizer)
            for group, given in zip(self.optimizer.param_groups, options, strict=True):
                group.update(given)  # flags given anew count
        if self.world.first:
            checkpoint.truncate_metrics(self.run, self.progress["step"])
            checkpoint.save_config(self.run, self.config)

    def _open_data(self, config: Config) -> None:
        data, train = config.data, config.train
        if data.data_device == "cuda" and self.device.type != "cuda":
            raise InputError(f"--data_device cuda: the training runs on the {self.device.type}; use --data_device cpu")
        self.training_data = SequenceDataset(data.data_root, "train", data.n_past + data.n_future, data.conditions)
        self.config = complete_config(config, self.training_data)
        self.validation_data = None
        if (layout.read_index(Path(data.data_root))["split"] == "validate").any():
            self.validation_data = SequenceDataset(data.data_root, "validate", data.n_eval, data.conditions)
        self.batches = TrainingBatches(
            self.training_data, train.batch_size, train.seed, data.clip_start, self.share, data.far_start
        )
        self.resident = None
        if data.data_device != "disk":
            self.resident = ResidentBatches(self.batches, self.device if data.data_device == "cuda" else torch.device("cpu"))

    def _build_model(self) -> None:
        train = self.config.train
        torch.manual_seed(train.seed)
        self.model = make_model(self.config.model, self.training_data.condition_mean, self.training_data.condition_std).to(
            self.device, memory_format=torch.channels_last
        )
        if self.world.size > 1:
            self.model = distributed.synchronise_norms(self.model, self.device)
        self.predictor = self.parallel = distributed.wrap(self.model, self.world, self.device)
        if train.compile:
            # CUDA graphs write the gradients of each batch where those of the batch before still lie
            graphs = self.device.type == "cuda" and train.accumulate == 1
            self.predictor = torch.compile(self.parallel, mode="reduce-overhead" if graphs else "default")
        self.optimizer = make_optimizer(train, self.model.parameters())

    def _check_resumable(self, config: Config, resume: bool) -> None:
        if not resume:
            raise InputError(f"--log_dir: {self.run} holds a run already; add --resume to go on with it, or choose another folder")
        before, now = flag_values(checkpoint.load_config(self.run)), flag_values(config)
        for flag in ("optimizer", *(item.name for item in dataclasses.fields(config.model) if item.name in now)):
            if now[flag] != before[flag]:
                raise InputError(f"--{flag}: found {now[flag]}, expected {before[flag]}, with which {self.run} was begun")

    def fit(self) -> Path:
        """Trains to the end and returns the run folder: for every epoch its steps, scores, a line of metrics, checkpoints.

        The step is the only counter: an epoch that was cut short by time goes on where it was.
        """
        self._start = time.monotonic() - 60 * self.progress["minutes"]
        total = self.config.train.niter * self.config.train.epoch_size
        if self.world.first and (self.progress["step"] >= total or self._out_of_time()):
            tqdm.write(
                f"{self.run}: nothing left to do after {self.progress['step']} steps and {self.progress['minutes']:.1f} minutes; "
                "raise --niter or --max_minutes"
            )
        self._look_at_the_clock()
        while self.progress["step"] < total and not self._out_of_time():
            metrics = self._epoch()
            metrics |= self.score() if self.world.first else {}
            self._look_at_the_clock()
            self._check_finite(metrics)
            if self.world.first:
                self._finish_epoch(metrics)
        self.world.wait()
        return self.run

    def _look_at_the_clock(self) -> None:
        """Takes the time, on which a schedule by time depends: the first process's, where there are several."""
        minutes = (time.monotonic() - self._start) / 60
        self.progress["minutes"] = self.world.agree(minutes) if self.config.train.max_minutes else minutes

    def _out_of_time(self) -> bool:
        limit = self.config.train.max_minutes
        return bool(limit) and self.progress["minutes"] >= limit

    def _learning_rate(self, step: int) -> float:
        train = self.config.train
        progress = (step + 0.5) / (train.niter * train.epoch_size)
        if train.max_minutes:
            progress = min(1.0, max(progress, self.progress["minutes"] / train.max_minutes))
        return schedules.learning_rate(train, progress)

    def batches_of(self, steps: range) -> Iterator[Batch]:
        """The batches of `steps`, wherever they lie."""
        pin_memory = self.device.type == "cuda"
        if self.resident is not None:
            return self.resident.iterate(steps, pin_memory)
        return self.batches.iterate(steps, self.config.data.workers, pin_memory)

    def _epoch(self) -> dict[str, float]:
        train, first = self.config.train, self.progress["step"]
        epoch = first // train.epoch_size
        beta = train.beta * schedules.kl_annealing(train, epoch)
        tfr = schedules.teacher_forcing_ratio(train, epoch)
        last = (epoch + 1) * train.epoch_size
        batches = self.batches_of(range(first * train.accumulate, last * train.accumulate))
        self.model.train()
        sums, began, frames = defaultdict(float), time.monotonic(), 0
        quiet = None if self.world.first else True  # None: where there is no terminal
        bar = tqdm(range(first, last), desc=f"epoch {epoch + 1}", unit="step", disable=quiet, leave=False)
        before = None  # losses of the step before, read while the device works on the next one
        for step in bar:
            lr = self._learning_rate(step)
            losses = self.step(step, [next(batches) for _ in range(train.accumulate)], lr, beta, tfr)
            if before is not None:
                self._count(sums, before, step - 1)
            before = losses
            frames += train.batch_size * train.accumulate * self.training_data.clip_length
            self.progress["step"] = step + 1
            rate = frames / (time.monotonic() - began)
            means = {name: f"{total / (step - first):.4g}" for name, total in sums.items()}
            bar.set_postfix({**means, "beta": beta, "tfr": tfr, "frames/s": f"{rate:.0f}"})
            self._look_at_the_clock()
            if self._out_of_time():
                break
        self._count(sums, before, step)
        done = self.progress["step"] - first
        means = {name: value / done for name, value in sums.items()}
        rate = frames / (time.monotonic() - began)
        return {**means, "beta": beta, "tfr": tfr, "lr": lr, "frames_per_second": round(rate, 1)}

    def _count(self, sums: dict[str, float], losses: Callable[[], list[float]], step: int) -> None:
        """Adds a step's losses to `sums`."""
        values = dict(zip(("loss", "mse", "kl"), losses(), strict=True))
        if not np.isfinite(values["loss"]):
            raise self._diverged(f"the loss is {values['loss']} (mse {values['mse']}, kl {values['kl']}) at step {step}")
        for name, value in values.items():
            sums[name] += value

    def step(self, step: int, batches: list[Batch], lr: float, beta: float, tfr: float) -> Callable[[], list[float]]:
        """One optimiser step over `batches`, whose gradients are averaged. Returns what waits for its loss, mse and kl."""
        config = self.config
        teacher_forcing = bool(np.random.default_rng((config.train.seed, step, 2)).random() < tfr)
        random = runtime.generator(self.device, config.train.seed, step)
        sums = torch.zeros(3, device=self.device)
        for number, batch in enumerate(batches, start=1):
            frames, conditions = self._to_device(batch)
            if config.data.augment:
                amounts = torch.rand(config.train.batch_size, 2, 2, generator=random, device=self.device) * 2 - 1
                frames, conditions = shift_and_scale(frames, conditions, config.data.augment * amounts[self.share])
            # drawn for the whole batch, so that it does not depend on the number of processes
            shape = config.train.batch_size, frames.shape[1] - 1, *self.model.latent_shape
            noise = torch.randn(shape, generator=random, device=self.device)[self.share]
            with distributed.without_exchange(self.parallel, number == len(batches)):
                with runtime.autocast(self.device, config.train.precision):
                    rollout = self.predictor(frames, conditions, config.data.n_past, teacher_forcing, noise)
                mse = mean_squared_error(rollout.frames, as_images(frames[:, 1:]))
                kl = kl_divergence(rollout.posterior, rollout.prior)
                loss = (mse + beta * kl) / len(batches)
                loss.backward()
            sums += torch.stack([loss.detach(), mse.detach() / len(batches), kl.detach() / len(batches)])
        if config.train.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.train.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad()
        return runtime.fetch(self.world.mean(sums))

    def _check_finite(self, metrics: dict[str, float]) -> None:
        """A step that ruins the weights shows in the loss of the next one only: look before they are saved."""
        weights = all(parameter.isfinite().all() for parameter in self.model.parameters())
        if not weights or not np.isfinite(list(metrics.values())).all():
            raise self._diverged(f"{'scores' if weights else 'weights'} are not finite after step {self.progress['step'] - 1}")

    def _diverged(self, what: str) -> InputError:
        kept = f"; {self.run} keeps its last checkpoint" if checkpoint.exists(self.run, "last") else ""
        return InputError(f"{what}; lower --lr, set --max_grad_norm or use --kl_anneal{kept}")

    def score(self) -> dict[str, float]:
        """PSNR and SSIM of the first validation sequences: rec, and pred with the mean latent. Empty without a validate split."""
        if self.validation_data is None:
            return {}
        train = self.config.train
        data = self.config.data
        protocol = dataclasses.replace(PROTOCOLS[OWN], n_sample=0).for_run(data.n_past, data.n_eval - data.n_past)
        result = evaluate(
            freeze(self.model, train.precision), self.validation_data, protocol, self.device, train.precision,
            batch_size=max(train.batch_size, 16), limit=train.validate_sequences,
        )  # fmt: skip
        return {
            f"val_{method}_{metric}": float(result.per_sequence(method, metric).mean())
            for method in ("rec", "pred")
            for metric in ("psnr", "ssim")
        }

    def _to_device(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return batch["frames"].to(self.device, non_blocking=True), batch["conditions"].to(self.device, non_blocking=True)

    def _finish_epoch(self, metrics: dict[str, float]) -> None:
        """Metrics first and the last checkpoint at the end: whatever is cut off in between is done again by a resumed run."""
        progress = self.progress
        epoch = math.ceil(progress["step"] / self.config.train.epoch_size)
        score = metrics.get("val_pred_psnr")
        best = score is None or progress["best_psnr"] is None or score > progress["best_psnr"]
        if best:
            progress["best_psnr"] = score
        line = {"epoch": epoch, "step": progress["step"], "minutes": round(progress["minutes"], 3), **metrics}
        checkpoint.append_metrics(self.run, line)
        if best:
            checkpoint.save(self.run, "best", self.model, progress, None)
        checkpoint.save(self.run, "last", self.model, progress, self.optimizer)
        shown = " ".join(
            f"{label} {metrics[name]:{form}}"
            for label, name, form in (
                ("loss", "loss", ".5f"), ("mse", "mse", ".5f"), ("kl", "kl", ".2f"), ("tfr", "tfr", ".2f"),
                ("rec", "val_rec_psnr", ".2f"), ("pred", "val_pred_psnr", ".2f"), ("frames/s", "frames_per_second", ".0f"),
            )
            if name in metrics
        )  # fmt: skip
        tqdm.write(f"epoch {epoch:3d} step {progress['step']:6d} {progress['minutes']:6.1f} min  {shown}{' *' if best else ''}")
