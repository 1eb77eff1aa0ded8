"""Workloads of ``svg-benchmark``: ours, and the published ones from a clone of github.com/edenton/svg.

Each runs in a process of its own, ``python -m experiments.benchmarks.workloads NAME JSON``, which reads
requests, one a line, and answers each with a line of JSON: so two of them can take turns and each has its own
peak of memory.
"""

import ast
import contextlib
import json
import math
import os
import resource
import sys
import time
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from svg import runtime
from svg.config import Config
from svg.evaluation import EvaluationOptions
from svg.evaluation.futures import futures_at_a_time, imagine_in_groups
from svg.evaluation.metrics import psnr
from svg.evaluation.protocols import OWN, PROTOCOLS
from svg.evaluation.rollout import roll_out
from svg.evaluation.scoring import evaluate
from svg.evaluation.ssim import ssim
from svg.flags import FlagParser, add_config_arguments, config_from_arguments
from svg.models.build import make_model
from svg.models.freezing import freeze
from svg.models.predictor import Predictor
from svg.sequences import SequenceDataset

N_PAST = 2
SHORTEST = 0.5
"""Seconds of a turn: while the others have theirs, caches grow cold and threads fall asleep."""


class Work(Protocol):
    """A workload: `frames` of a turn, and the turn."""

    frames: int

    def turn(self) -> None:
        """Do the work once."""
        """Do the work once."""


def configuration(spec: dict) -> Config:
    """Return the configuration of a recipe with the spec's flags added."""
    parser = FlagParser()
    add_config_arguments(parser)
    return config_from_arguments(parser.parse_args([f"@{spec['recipe']}", *spec["flags"]]))


class Training:
    """A step of the training loop, data loading included."""

    def __init__(self, spec: dict):
        from svg.training.loop import Training

        self.training = Training(configuration(spec))
        self.config = self.training.config
        self.batches = self.training.batches.iterate(range(10**6))
        self.step = 0
        self.frames = self.config.train.batch_size * self.training.training_data.clip_length
        self.training.learner.model.train()

    def turn(self) -> None:
        """Do the work once."""
        train = self.config.train
        report = self.training.learner.step(self.step, [next(self.batches)], train.lr, train.beta, train.tfr)
        report.read()  # waits for the GPU
        self.step += 1


def random_model(spec: dict) -> tuple[Predictor, Config, torch.device]:
    """Return an untrained model ready to predict, its configuration and its device."""
    from svg.training.data import complete_config

    config = configuration(spec)
    device = runtime.choose_device(config.train.device)
    runtime.prepare(device)
    torch.manual_seed(0)
    config = complete_config(config, SequenceDataset(config.data.data_root, "train", 1))
    model = make_model(config.model).to(device).to(memory_format=torch.channels_last)
    return freeze(model, config.train.precision, config.train.compile), config, device


def first_clips(config: Config, device: torch.device, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return frames and conditions of the first clip of each of `count` sequences, on `device`."""
    data = config.data
    dataset = SequenceDataset(data.data_root, "train", data.n_past + data.n_future)
    clips = dataset.batch([(number, 0) for number in range(count)])
    return clips["frames"].to(device), clips["conditions"].to(device)


class Sampling:
    """Futures and reconstruction of a batch of clips with two observed frames, brought to the host.

    That is what the published code does in one go; the rate counts the sampled frames.
    """

    def __init__(self, spec: dict):
        self.model, self.config, self.device = random_model(spec)
        data, batch = self.config.data, self.config.train.batch_size
        self.frames_of_clips, self.conditions = first_clips(self.config, self.device, batch)
        self.shape = (batch, spec["n_sample"], data.n_future, *self.model.latent_shape)
        self.frames = math.prod(self.shape[:3])

    @torch.no_grad()
    def turn(self) -> None:
        """Do the work once."""
        self.model.reconstruct(self.frames_of_clips, self.conditions, N_PAST).cpu()
        start = self.model.observe(self.frames_of_clips[:, :N_PAST], self.conditions)
        group = futures_at_a_time(self.model, self.shape[0], self.shape[2])
        noise = torch.randn(self.shape, device=self.device).split(group, dim=1)
        future = self.conditions[:, N_PAST - 1 :]
        for futures in imagine_in_groups(self.model, start, future, noise):
            futures.cpu()


class Imagination:
    """Plans of ten frames from one scene, as a planner asks for them; the rate counts the plans' frames.

    Drawn are the frames `times` of each, or all of them.
    """

    def __init__(self, spec: dict):
        self.model, self.config, self.device = random_model(spec)
        frames, self.conditions = first_clips(self.config, self.device, 1)
        self.past = frames[:, :N_PAST]
        plans = self.conditions[:, None, N_PAST - 1 : -1]
        self.plans = plans.expand(-1, spec["plans"], -1, -1).contiguous()
        self.times = spec["times"]
        self.frames = math.prod(self.plans.shape[:3])

    @torch.no_grad()
    def turn(self) -> None:
        """Do the work once."""
        start = self.model.observe(self.past, self.conditions)
        self.model.imagine(start, self.plans, times=self.times).cpu()


class Rollout:
    """A long video from its first frame and poses, handed over a stretch at a time."""

    def __init__(self, spec: dict):
        self.model, self.config, self.device = random_model(spec)
        self.dataset = SequenceDataset(self.config.data.data_root, "train", 1)
        self.frames = spec["frames"]

    def turn(self) -> None:
        """Do the work once."""
        for stretch in roll_out(self.model, self.dataset, 0, 1, self.frames, seed=1):
            stretch.predicted.sum()


class Evaluation:
    """`svg.evaluation.evaluate`: reading, reconstruction, sampling, PSNR and SSIM."""

    def __init__(self, spec: dict):
        self.model, self.config, self.device = random_model(spec)
        data = self.config.data
        self.dataset = SequenceDataset(data.data_root, "train", data.n_past + data.n_future)
        self.n_sample, self.sequences = spec["n_sample"], self.config.train.batch_size
        self.frames = self.sequences * self.n_sample * data.n_future

    def turn(self) -> None:
        """Do the work once."""
        protocol = PROTOCOLS[OWN].changed(n_sample=self.n_sample).for_run(N_PAST, self.config.data.n_future)
        options = EvaluationOptions(limit=self.sequences, compile=self.config.train.compile)
        evaluate(self.model, self.dataset, protocol, options)


def sampled_scores(spec: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a truth [B,F,3,64,64] and futures [S,B,F,3,64,64] that are like it, with random noise."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(spec["batch"], 10, 3, 64, 64, generator=generator)
    noise = torch.randn(spec["n_sample"], *truth.shape, generator=generator)
    return truth, (truth + 0.1 * noise).clamp_(0, 1)


class Scoring:
    """PSNR and SSIM of all frames of all futures."""

    def __init__(self, spec: dict):
        device = runtime.choose_device(spec["device"])
        runtime.prepare(device)
        self.truth, self.futures = (frames.to(device) for frames in sampled_scores(spec))
        self.window = spec["window"]
        self.compile = spec["compile"]
        self.frames = math.prod(self.futures.shape[:3])

    def turn(self) -> None:
        """Do the work once."""
        psnr(self.futures, self.truth).sum().item()
        ssim(self.futures, self.truth, self.window, compile=self.compile).sum().item()


# ------------------------------------------------------------------------- the published implementation


class Published:
    """Parts of a clone of edenton/svg, whose functions are run as they stand there."""

    def __init__(self, spec: dict):
        self.root = Path(spec["clone"])
        self.device = runtime.choose_device(spec["device"])
        # it asks for a GPU wherever it makes a tensor
        setattr(torch.Tensor, "cuda", lambda tensor, *_, **__: tensor.to(self.device))  # noqa: B010
        self.batch = spec["batch"]
        self.options = types.SimpleNamespace(
            n_past=N_PAST, n_future=10, n_eval=12, batch_size=self.batch, beta=1e-4,
            last_frame_skip=False, log_dir="", nsample=spec.get("n_sample"),
        )  # fmt: skip
        self.names: dict[str, Any] = {
            "torch": torch,
            "np": np,
            "math": math,
            "opt": self.options,
            "mse_criterion": torch.nn.MSELoss(),
        }

    def module(self, name: str) -> types.ModuleType:
        """Return a module of its models."""
        module = types.ModuleType(name)
        path = self.root / "models" / f"{name}.py"
        exec(compile(path.read_text(), path, "exec"), module.__dict__)
        return module

    def take(self, file: str, *functions: str) -> None:
        """Define functions of one of its scripts, which starts a training when it is imported."""
        tree = ast.parse((self.root / file).read_text())
        tree.body = [
            node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in functions
        ]
        exec(compile(tree, file, "exec"), self.names)

    def build(self) -> None:
        """Define the networks at the published sizes, with their optimisers."""
        vgg = self.module("vgg_64")
        lstm = self.module("lstm")
        parts = {
            "frame_predictor": lstm.lstm(128 + 64, 128, 256, 2, self.batch),
            "posterior": lstm.gaussian_lstm(128, 64, 256, 1, self.batch),
            "prior": lstm.gaussian_lstm(128, 64, 256, 1, self.batch),
            "encoder": vgg.encoder(128, 3),
            "decoder": vgg.decoder(128, 3),
        }
        self.take("utils.py", "init_weights")
        for name, part in parts.items():
            part.apply(self.names["init_weights"])
            part.to(self.device)
            self.names[f"{name}_optimizer"] = torch.optim.Adam(
                part.parameters(), lr=0.002, betas=(0.9, 0.999)
            )
        self.names |= parts

    def clip(self) -> list[torch.Tensor]:
        """Return random frames of a batch of clips, in time order."""
        return [torch.rand(self.batch, 3, 64, 64).to(self.device) for _ in range(12)]


class PublishedTraining(Published):
    """``train`` of train_svg_lp.py on frames that are in memory."""

    def __init__(self, spec: dict):
        super().__init__(spec)
        self.build()
        self.take("train_svg_lp.py", "train", "kl_criterion")
        self.frames = self.batch * 12
        self.x = self.clip()

    def turn(self) -> None:
        """Do the work once."""
        self.names["train"](self.x)


class PublishedSampling(Published):
    """``make_gifs`` of generate_svg_lp.py without its scoring and drawing."""

    def __init__(self, spec: dict):
        super().__init__(spec)
        self.build()
        for name in ("frame_predictor", "posterior", "prior"):
            self.names[name].eval()
        nothing = types.SimpleNamespace(update=lambda number: None, finish=lambda: None)
        zeros = np.zeros((self.batch, 10))
        self.names |= {
            "utils": types.SimpleNamespace(
                eval_seq=lambda truth, predicted: (None, zeros, zeros), clear_progressbar=lambda: None,
                save_gif_with_text=lambda *_: None,
            ),
            "progressbar": types.SimpleNamespace(
                ProgressBar=lambda max_value: types.SimpleNamespace(start=lambda: nothing)
            ),
            "add_border": lambda frame, colour: frame,
        }  # fmt: skip
        self.take("generate_svg_lp.py", "make_gifs")
        self.frames = self.batch * spec["n_sample"] * 10
        self.x = self.clip()

    def turn(self) -> None:
        """Do the work once."""
        self.names["make_gifs"](self.x, 0, "test")


class PublishedScoring(Published):
    """``eval_seq`` (scikit-image) or, with the Gaussian window, ``finn_eval_seq`` (SciPy) of utils.py."""

    def __init__(self, spec: dict):
        from scipy import signal
        from skimage.metrics import peak_signal_noise_ratio, structural_similarity

        super().__init__(spec)
        # the names that scikit-image had for them then, with the data range that it now insists on
        self.names |= {
            "signal": signal,
            "ssim_metric": lambda a, b: structural_similarity(a, b, data_range=1),
            "psnr_metric": lambda a, b: peak_signal_noise_ratio(a, b, data_range=1),
        }
        self.take(
            "utils.py", "eval_seq", "mse_metric", "finn_eval_seq", "finn_psnr", "fspecial_gauss", "finn_ssim"
        )
        self.score = self.names["eval_seq" if spec["window"] == "uniform" else "finn_eval_seq"]
        truth, futures = sampled_scores(spec)
        self.truth = truth.transpose(0, 1).numpy()
        self.futures = futures.transpose(1, 2).numpy()
        self.frames = math.prod(self.futures.shape[:3])

    def turn(self) -> None:
        """Do the work once."""
        for future in self.futures:
            self.score(list(self.truth), list(future))


WORKLOADS: dict[str, Callable[[dict], Work]] = {
    "Training": Training,
    "Sampling": Sampling,
    "Imagination": Imagination,
    "Rollout": Rollout,
    "Evaluation": Evaluation,
    "Scoring": Scoring,
    "PublishedTraining": PublishedTraining,
    "PublishedSampling": PublishedSampling,
    "PublishedScoring": PublishedScoring,
}


def synchronise(device: torch.device) -> None:
    """Wait for the work that a GPU has been given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> float:
    """Return the peak in MB of the GPU's memory or, on a CPU, of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # the system's own count includes the parent at the time of the fork
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def count_flops(work: Work) -> int:
    """Return the floating-point operations of the matrix products and convolutions of a turn, both ways."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work.turn()
    return counter.get_total_flops()


def serve(
    work: Work, device: torch.device, requests: Iterable[str], report: Callable[[dict[str, float]], None]
) -> None:
    """Answer requests: seconds of a ``turn``, peak of ``memory``, ``flops`` of a turn.

    A short turn is done again and again for half a second.
    """
    report({"frames": work.frames})
    repeats = 1
    for request in map(str.strip, requests):
        if request == "memory":
            report({"memory": peak_memory(device)})
            continue
        if request == "flops":  # to be asked for last: counting takes memory, too
            report({"flops": count_flops(work)})
            continue
        synchronise(device)
        start = time.perf_counter()
        for _ in range(repeats):
            work.turn()
        synchronise(device)
        seconds = (time.perf_counter() - start) / repeats
        repeats = max(repeats, math.ceil(SHORTEST / seconds))
        report({"turn": seconds})


def main() -> None:
    """Run the workload that the command line names until its requests end."""
    channel = os.fdopen(os.dup(1), "w")  # for reports alone: whatever else is printed goes to standard error
    os.dup2(2, 1)
    with contextlib.redirect_stdout(sys.stderr):
        spec = json.loads(sys.argv[2])
        work = WORKLOADS[sys.argv[1]](spec)

        def report(values: dict[str, float]) -> None:
            print(json.dumps(values), file=channel, flush=True)

        serve(work, torch.device(spec["device"]), sys.stdin, report)


if __name__ == "__main__":
    main()
