"""Speed of training, sampling and scoring, ours and the published code's in turns, each in a process."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from data_tools.errors import InputError

from .data import make_sequence
from .measurement import Row

RECIPES = Path(__file__).parent.parent / "recipes"
SIZES = {"published": RECIPES / "bair_svg_lp.args", "quickstart": RECIPES / "quickstart.args"}
POSE_SIZES = {"dance": (RECIPES / "dance.args", 8), "published": (RECIPES / "dance_published.args", 4)}
"""Recipes of the predictor from poses, and batch sizes."""
PLAN_SIZES = {"push-sim": RECIPES / "push_sim.args", "objects": RECIPES / "push_objects.args"}
"""Recipes of models to plan with."""
PLANS = 200
IMAGINED = {"all frames": None, "the last frame alone": [9]}
"""What is drawn of each plan of ten frames."""
VIDEO = 629
LONG_VIDEO = 10_000
"""Frames predicted from the first one."""
SEQUENCES = 256
MATRIX_SIZES = (1024, 2048, 4096)
GPU_MATRIX_SIZES = (4096, 8192, 16384)
BATCHES = {"published": 4, "quickstart": 16}
GPU_BATCHES = {"published": 100, "quickstart": 256}

Work = tuple[str, dict[str, Any]]
"""Name of a workload and its parameters."""


@dataclass(frozen=True)
class Settings:
    """Settings of all measurements of a sitting; `published` is the clone of edenton/svg."""

    folder: Path
    repeats: int
    device: str
    batch_size: int | None
    n_sample: int
    compile: bool
    published: Path | None

    def batch(self, size: str) -> int:
        """Return the batch size of a recipe."""
        usual = GPU_BATCHES if self.device.startswith("cuda") else BATCHES
        return self.batch_size or usual[size]

    def spec(
        self,
        size: str,
        batch: int,
        width: int = 64,
        n_future: int = 10,
        flags: Sequence[str] = (),
        **more: Any,
    ) -> dict[str, Any]:
        """Return the parameters of a workload of ours; the data set is made when it is first asked for."""
        data = packed_data(self.folder, width, max(SEQUENCES, self.batch_size or 0))
        sizes = {"batch_size": batch, "n_future": n_future, "n_eval": n_future + 2, "image_width": width}
        return {
            "recipe": str(SIZES[size]),
            "flags": [*self.flags(data, sizes), *flags],
            "batch": batch,
            "device": self.device,
            **more,
        }

    def flags(self, data: Path, sizes: dict[str, int]) -> list[str]:
        """Return the flags of svg-train for a run of a workload on this data."""
        run = self.folder / f"run_{time.monotonic_ns()}"
        flags = ["--data_root", str(data), "--log_dir", str(run), "--device", self.device]
        for name, value in sizes.items():
            flags += [f"--{name}", str(value)]
        return [*flags, "--compile"] if self.compile else flags


def packed_data(folder: Path, width: int, sequences: int) -> Path:
    """Return the root of a packed data set of synthetic recordings, which is made if it is not there."""
    from data_tools.folders import write_sequence
    from data_tools.index import build_index
    from data_tools.pack import pack

    root = folder / f"packed_{width}"
    if not root.exists():
        source = folder / f"sequences_{width}"
        for number in range(sequences):
            write_sequence(source / "train" / str(number), *make_sequence(number, width))
        build_index(source)
        pack(source, root, workers=1)
    return root


@dataclass
class Worker:
    """A workload in its process, which answers requests through pipes."""

    requests: IO[str]
    answers: IO[str]
    errors: IO[str]
    seconds: list[float] = field(default_factory=list)
    frames: int = 0
    memory_mb: float = 0.0
    flops: float = 0.0

    def ask(self, request: str) -> float:
        """Return the seconds of a ``turn``, the ``memory`` in MB, or the ``flops`` of a turn."""
        self.requests.write(f"{request}\n")
        self.requests.flush()
        return self.report()[request]

    def report(self) -> dict[str, Any]:
        """Return the next answer. Raises `InputError` if the process has ended."""
        line = self.answers.readline()
        if not line:
            self.errors.seek(0)
            cause = self.errors.read().strip().splitlines()
            raise InputError(f"a measurement ended early: {cause[-1] if cause else 'no reason was given'}")
        return json.loads(line)

    @property
    def rates(self) -> list[float]:
        """Frames a second of each turn."""
        return [self.frames / seconds for seconds in self.seconds]

    @property
    def tflops(self) -> float:
        """Operations of the median turn, in 10^12 a second."""
        return self.flops / statistics.median(self.seconds) / 1e12


@contextmanager
def worker(name: str, spec: dict[str, Any]) -> Generator[Worker]:
    """Run a workload in a process that ends with the ``with``."""
    command = [sys.executable, "-m", "experiments.benchmarks.workloads", name, json.dumps(spec)]
    root = Path(__file__).parent.parent.parent
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True, cwd=root) as process,
    ):
        assert process.stdin is not None and process.stdout is not None  # pipes
        try:
            started = Worker(process.stdin, process.stdout, errors)
            started.frames = started.report()["frames"]
            yield started
        finally:
            process.kill()


def take_turns(repeats: int, *works: Work) -> list[Worker]:
    """Run the workloads in turns; operations are counted of the first one.

    The first two turns of each are not counted: they warm up.
    """
    with ExitStack() as stack:
        workers = [stack.enter_context(worker(*work)) for work in works]
        for turn in range(repeats + 2):
            for process in workers:
                seconds = process.ask("turn")
                if turn >= 2:
                    process.seconds.append(seconds)
        for process in workers:
            process.memory_mb = process.ask("memory")
        workers[0].flops = workers[0].ask("flops")
    return workers


def compare(what: str, settings: Settings, ours: Work, reference: Work | None, peak: float) -> Row:
    """Return a row of frames a second, with the `reference` if there is a clone of the published code."""
    works = [ours, reference] if reference and settings.published else [ours]
    first, *others = take_turns(settings.repeats, *works)
    more: dict[str, float | None] = {"memory_mb": first.memory_mb}
    if first.flops and peak:
        more |= {"tflops": first.tflops, "peak_share": first.tflops / peak}
    if others:
        more["reference_memory_mb"] = others[0].memory_mb
    return Row.of(f"{what}, frames/s", first.rates, others[0].rates if others else None, **more)


def matrix_peak(settings: Settings) -> Row:
    """Return the row of the fastest of some square matrix products, in the precision of training."""
    import torch

    from svg import runtime

    device = runtime.choose_device(settings.device)
    kind = torch.bfloat16 if runtime.uses_bfloat16(device, "auto") else torch.float32
    rates = []
    for size in MATRIX_SIZES if device.type == "cpu" else GPU_MATRIX_SIZES:
        a, b = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
        of_size = []
        for _ in range(settings.repeats + 1):
            start = time.perf_counter()
            (a @ b)[0, 0].item()
            of_size.append(2 * size**3 / (time.perf_counter() - start) / 1e12)
        rates.append(of_size[1:])
    fastest = max(rates, key=statistics.median)
    return Row.of(f"matrix product, {str(kind).removeprefix('torch.')}, TFLOP/s", fastest)


def measure(settings: Settings, parts: list[str]) -> list[Row]:
    """Return the rows of `parts`: training, sampling, scoring, imagination, poses."""
    rows = [matrix_peak(settings)] if {"training", "sampling", "poses"} & set(parts) else []
    peak = rows[0].ours if rows else 0.0
    if "training" in parts:
        rows += [row for size in SIZES for row in measure_training(settings, size, peak)]
    if "sampling" in parts:
        rows += [row for size in SIZES for row in measure_sampling(settings, size, peak)]
    if "scoring" in parts:
        rows += measure_scoring(settings)
    if "imagination" in parts:
        rows += [row for size in PLAN_SIZES for row in measure_imagination(settings, size)]
    if "poses" in parts:
        rows += [row for size in POSE_SIZES for row in measure_poses(settings, size, peak)]
    return rows


def published(settings: Settings, size: str, workload: str, **more: Any) -> Work | None:
    """Return a workload of the published code, which has one size; None for another."""
    if size != "published":
        return None
    batch = settings.batch(size)
    return workload, {"clone": str(settings.published), "device": settings.device, "batch": batch, **more}


def measure_training(settings: Settings, size: str, peak: float) -> list[Row]:
    """Return the rows of training; at the published size also that of free-running training."""
    batch = settings.batch(size)
    what = f"training, batch {batch}, {size} size"
    theirs = published(settings, size, "PublishedTraining")
    rows = [compare(what, settings, ("Training", settings.spec(size, batch)), theirs, peak)]
    if size == "published":
        free_running = ("Training", settings.spec(size, batch, flags=["--tfr", "0"]))
        rows.append(compare(f"free-running {what}", settings, free_running, None, peak))
    return rows


def measure_sampling(settings: Settings, size: str, peak: float) -> list[Row]:
    """Return the rows of sampling futures and of evaluating them."""
    batch = settings.batch(size)
    n_sample = settings.n_sample
    what = f"{n_sample} futures of {batch}, {size} size"
    theirs = published(settings, size, "PublishedSampling", n_sample=n_sample)
    sampling = ("Sampling", settings.spec(size, batch, n_sample=n_sample))
    rows = [compare(f"sampling {what}", settings, sampling, theirs, peak)]
    evaluation = ("Evaluation", settings.spec(size, batch, n_sample=n_sample))
    return [*rows, compare(f"evaluating {what}", settings, evaluation, None, peak)]


def measure_imagination(settings: Settings, size: str) -> list[Row]:
    """Return the rows of imagining many plans of ten frames from one scene, counted in frames of plans."""
    data = packed_data(settings.folder, 64, SEQUENCES)
    spec = {"recipe": str(PLAN_SIZES[size]), "device": settings.device, "plans": PLANS}
    rows = []
    for drawn, times in IMAGINED.items():
        work = "Imagination", spec | {"flags": settings.flags(data, {}), "times": times}
        rows.append(compare(f"imagining {PLANS} plans, {drawn}, {size}", settings, work, None, 0.0))
    return rows


def measure_poses(settings: Settings, size: str, peak: float) -> list[Row]:
    """Return the rows of training from poses and of rollouts, the long one once and at the small size."""
    recipe, usual_batch = POSE_SIZES[size]
    batch = settings.batch_size or usual_batch

    def spec(poses: int, **more: Any) -> dict[str, Any]:
        flags = settings.flags(pose_data(settings.folder, poses), {"batch_size": batch})
        return {"recipe": str(recipe), "flags": flags, "device": settings.device, **more}

    what = f"training from poses, batch {batch}, {size} size"
    rows = [compare(what, settings, ("Training", spec(VIDEO)), None, peak)]
    for frames, repeats in ((VIDEO, settings.repeats), (LONG_VIDEO, 1)):
        if frames == VIDEO or size == "dance":
            once = replace(settings, repeats=repeats)
            what = f"rolling out {frames:,} frames from poses, {size} size"
            rows.append(compare(what, once, ("Rollout", spec(frames, frames=frames)), None, peak))
    return rows


def pose_data(folder: Path, poses: int) -> Path:
    """Return the root of a data set of one sequence of 32x64 pixels with `poses` after the first frame."""
    import numpy as np

    from data_tools.index import build_index
    from data_tools.poses import write_sequence

    root = folder / f"poses_{poses}"
    if not root.exists():
        pictures = np.random.default_rng(0).integers(0, 256, (2, poses + 1, 32, 64, 3), np.uint8)
        write_sequence(root, "train", "0", *pictures)
        build_index(root)
    return root


def measure_scoring(settings: Settings) -> list[Row]:
    """Return the rows of PSNR and SSIM with either window."""
    rows = []
    for window, by in (("uniform", "scikit-image"), ("gaussian", "SciPy")):
        spec = {
            "batch": 4,
            "n_sample": 25,
            "window": window,
            "device": settings.device,
            "compile": settings.compile,
        }
        theirs = ("PublishedScoring", spec | {"clone": str(settings.published)})
        how = "compiled, " if settings.compile else ""
        what = f"PSNR and SSIM of 25 futures of 4, {how}{window} window ({by})"
        rows.append(compare(what, settings, ("Scoring", spec), theirs, 0.0))
    return rows


# ---------------------------------------------------------------------------------- cost against size

SWEEPS = {
    "batch size": {"published": (1, 2, 4, 8), "quickstart": (4, 8, 16, 32, 64)},
    "frames in a clip": {"published": (4, 8, 12, 20, 30), "quickstart": (4, 8, 12, 20, 30)},
    "image width": {"published": (64, 128), "quickstart": (64, 128)},
    "sampled futures": {"published": (1, 3, 10, 30), "quickstart": (1, 3, 10, 30, 100)},
}
"""What is changed, and its values at the published size and at the quickstart's."""

Costs = dict[str, dict[str, list[dict[str, float]]]]
"""By what is changed and by size, points of value, seconds and memory_mb."""


def measure_costs(settings: Settings) -> Costs:
    """Return the costs of a training step and of sampling for a batch, over the sizes of `SWEEPS`."""
    costs: Costs = {}
    for what, values in SWEEPS.items():
        costs[what] = {}
        for size in SIZES:
            points = []
            for value in values[size]:
                (done,) = take_turns(settings.repeats, _sweep_work(settings, what, size, value))
                seconds = statistics.median(done.seconds)
                points.append({"value": value, "seconds": seconds, "memory_mb": done.memory_mb})
            costs[what][size] = points
    return costs


def _sweep_work(settings: Settings, what: str, size: str, value: int) -> Work:
    """Return the workload in which one quantity has another value than usual."""
    batch = settings.batch(size)
    if what == "batch size":
        return "Training", settings.spec(size, value)
    if what == "frames in a clip":
        return "Training", settings.spec(size, batch, n_future=value - 2)
    if what == "image width":
        return "Training", settings.spec(size, batch, width=value)
    return "Sampling", settings.spec(size, batch, n_sample=value)


def plot_costs(costs: Costs, path: Path) -> None:
    """Draw time and peak memory over the sizes of `SWEEPS`, as PDF, SVG or PNG."""
    from svg.figures.drawing import Drawing, save

    save([Drawing(12, 5.54, lambda figure: _draw_costs(figure, costs))], path)


def _draw_costs(figure: Any, costs: Costs) -> None:
    from svg.figures.drawing import COLOURS, draw_curves, draw_legend

    axes = figure.subplots(2, len(costs), sharex="col")
    colours = dict(zip(SIZES, COLOURS, strict=False))
    curves = []
    for (upper, lower), (what, sizes) in zip(axes.T, costs.items(), strict=True):
        step = "sampling for a batch" if what == "sampled futures" else "training step"
        for axis, key, label in ((upper, "seconds", "(s)"), (lower, "memory_mb", "peak memory (MB)")):
            curves = [_cost_curve(points, key, colours[size]) for size, points in sizes.items()]
            draw_curves(axis, curves)
            axis.set_ylabel(f"{step} {label}" if axis is upper else label)
            axis.grid(alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
        _scale_costs(upper, lower, what, [point["value"] for points in sizes.values() for point in points])
    entries = [
        curve.entry(f"{size} size") for curve, size in zip(curves, next(iter(costs.values())), strict=True)
    ]
    draw_legend(figure, entries, loc="outside upper center", ncols=2)


def _cost_curve(points: list[dict[str, float]], key: str, colour: str) -> Any:
    import numpy as np

    from svg.figures.drawing import Curve

    x = np.array([point["value"] for point in points])
    y = np.array([point[key] for point in points])
    return Curve(x, y, {"color": colour, "linestyle": "-", "marker": "o"})


def _scale_costs(upper: Any, lower: Any, what: str, values: list[float]) -> None:
    """Give the two panels of one quantity their scales."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, ScalarFormatter

    upper.set_yscale("log")
    upper.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    upper.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
    upper.yaxis.set_minor_locator(NullLocator())
    lower.set_ylim(bottom=0)
    lower.set_xscale("log")
    lower.set_xticks(sorted(set(values)))
    lower.xaxis.set_major_formatter(ScalarFormatter())
    lower.xaxis.set_minor_locator(NullLocator())
    lower.set_xlabel(what)
