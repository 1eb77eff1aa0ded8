"""Training, sampling and scoring, ours and the published implementation's in turns, each in a process of its own."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
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
VIDEO, LONG_VIDEO = 629, 10_000
"""Frames predicted from the first one."""
SEQUENCES = 256
MATRIX_SIZES = (1024, 2048, 4096)


@dataclass(frozen=True)
class Settings:
    """What all measurements of a sitting share."""

    folder: Path
    repeats: int
    device: str
    batch_size: int | None
    n_sample: int
    compile: bool
    published: Path | None  # the clone of edenton/svg

    def batch(self, size: str) -> int:
        on_gpu = self.device.startswith("cuda")
        return (
            self.batch_size
            or ({"published": 100, "quickstart": 256} if on_gpu else {"published": 4, "quickstart": 16})[size]
        )

    def spec(self, size: str, batch: int, width: int = 64, n_future: int = 10, **more: Any) -> dict:
        """What a workload of ours is told; the data set is made when it is first asked for."""
        flags = [
            "--data_root",
            str(packed_data(self.folder, width, max(SEQUENCES, self.batch_size or 0))),
            "--log_dir",
            str(self.folder / f"run_{time.monotonic_ns()}"),
        ]
        flags += [
            "--batch_size",
            batch,
            "--n_future",
            n_future,
            "--n_eval",
            n_future + 2,
            "--image_width",
            width,
        ]
        flags += ["--device", self.device, *(["--compile"] if self.compile else []), *more.pop("flags", [])]
        return {
            "recipe": str(SIZES[size]),
            "flags": [str(flag) for flag in flags],
            "batch": batch,
            "device": self.device,
            **more,
        }


def packed_data(folder: Path, width: int, sequences: int) -> Path:
    """A packed data set of synthetic recordings."""
    from data_tools.folders import write_sequence
    from data_tools.index import build_index
    from data_tools.pack import pack

    root = folder / f"packed_{width}"
    if not root.exists():
        for number in range(sequences):
            write_sequence(
                folder / f"sequences_{width}" / "train" / str(number), *make_sequence(number, width)
            )
        build_index(folder / f"sequences_{width}")
        pack(folder / f"sequences_{width}", root, workers=1)
    return root


@dataclass
class Worker:
    """A workload in its process."""

    process: subprocess.Popen
    errors: IO[str]
    seconds: list[float] = field(default_factory=list)
    frames: int = 0
    memory_mb: float = 0.0
    flops: float = 0.0

    def ask(self, request: str) -> float:
        """Seconds of a ``turn``, ``memory`` in MB, or the ``flops`` of a turn."""
        self.process.stdin.write(f"{request}\n")
        self.process.stdin.flush()
        return self.report()[request]

    def report(self) -> dict:
        line = self.process.stdout.readline()
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
        return self.flops / statistics.median(self.seconds) / 1e12


@contextmanager
def worker(name: str, spec: dict) -> Iterator[Worker]:
    command = [sys.executable, "-m", "experiments.benchmarks.workloads", name, json.dumps(spec)]
    options = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "text": True,
        "cwd": Path(__file__).parent.parent.parent,
    }
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stderr=errors, **options) as process,
    ):
        try:
            started = Worker(process, errors)
            started.frames = started.report()["frames"]
            yield started
        finally:
            process.kill()


def take_turns(repeats: int, *works: tuple[str, dict]) -> list[Worker]:
    """Runs the workloads in turns, the first two of each uncounted: they warm up. Operations are counted of the first one."""
    with ExitStack() as stack:
        workers = [stack.enter_context(worker(*work)) for work in works]
        for turn in range(repeats + 2):
            for each in workers:
                seconds = each.ask("turn")
                if turn >= 2:
                    each.seconds.append(seconds)
        for each in workers:
            each.memory_mb = each.ask("memory")
        workers[0].flops = workers[0].ask("flops")
    return workers


def compare(
    what: str, settings: Settings, ours: tuple[str, dict], reference: tuple[str, dict] | None, peak: float
) -> Row:
    """A row of frames a second; `reference` only where there is a clone of the published code."""
    works = [ours, reference] if reference and settings.published else [ours]
    workers = take_turns(settings.repeats, *works)
    first, others = workers[0], workers[1:]
    more: dict[str, float | None] = {"memory_mb": first.memory_mb}
    if first.flops:
        more |= {"tflops": first.tflops, "peak_share": first.tflops / peak}
    if others:
        more["reference_memory_mb"] = others[0].memory_mb
    return Row.of(f"{what}, frames/s", first.rates, others[0].rates if others else None, **more)


def matrix_peak(settings: Settings) -> Row:
    """TFLOP/s of the fastest of some square matrix products in the precision in which training computes."""
    import torch

    from svg import runtime

    device = runtime.choose_device(settings.device)
    kind = torch.bfloat16 if runtime.uses_bfloat16(device, "auto") else torch.float32
    found = []
    for size in MATRIX_SIZES if device.type == "cpu" else (4096, 8192, 16384):
        a, b = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
        rates = []
        for _ in range(settings.repeats + 1):
            start = time.perf_counter()
            (a @ b)[0, 0].item()
            rates.append(2 * size**3 / (time.perf_counter() - start) / 1e12)
        found.append(rates[1:])
    return Row.of(
        f"matrix product, {str(kind).removeprefix('torch.')}, TFLOP/s", max(found, key=statistics.median)
    )


def measure(settings: Settings, parts: list[str]) -> list[Row]:
    """The rows of `parts`: training, sampling, scoring."""
    rows = [matrix_peak(settings)] if {"training", "sampling", "poses"} & set(parts) else []
    peak = rows[0].ours if rows else 0.0
    if "training" in parts:
        rows += [row for size in SIZES for row in measure_training(settings, size, peak)]
    if "sampling" in parts:
        rows += [row for size in SIZES for row in measure_sampling(settings, size, peak)]
    if "scoring" in parts:
        rows += measure_scoring(settings)
    if "poses" in parts:
        rows += [row for size in POSE_SIZES for row in measure_poses(settings, size, peak)]
    return rows


def published(settings: Settings, size: str, workload: str, **more: Any) -> tuple[str, dict] | None:
    """The published code's workload; it has one size."""
    spec = {
        "clone": str(settings.published),
        "device": settings.device,
        "batch": settings.batch(size),
        **more,
    }
    return (workload, spec) if size == "published" else None


def measure_training(settings: Settings, size: str, peak: float) -> list[Row]:
    batch = settings.batch(size)
    what, theirs = f"training, batch {batch}, {size} size", published(settings, size, "PublishedTraining")
    rows = [compare(what, settings, ("Training", settings.spec(size, batch)), theirs, peak)]
    if size == "published":
        rows.append(
            compare(
                f"free-running {what}",
                settings,
                ("Training", settings.spec(size, batch, flags=["--tfr", "0"])),
                None,
                peak,
            )
        )
    return rows


def measure_sampling(settings: Settings, size: str, peak: float) -> list[Row]:
    batch, futures = settings.batch(size), {"n_sample": settings.n_sample}
    what = f"{settings.n_sample} futures of {batch}, {size} size"
    theirs = published(settings, size, "PublishedSampling", **futures)
    return [
        compare(
            f"sampling {what}", settings, ("Sampling", settings.spec(size, batch, **futures)), theirs, peak
        ),
        compare(
            f"evaluating {what}", settings, ("Evaluation", settings.spec(size, batch, **futures)), None, peak
        ),
    ]


def measure_poses(settings: Settings, size: str, peak: float) -> list[Row]:
    """Training of the predictor from poses, and rollouts; the long one, at the small size, once."""
    recipe, batch = POSE_SIZES[size]
    batch = settings.batch_size or batch

    def spec(poses: int, **more: Any) -> dict:
        flags = [
            "--data_root",
            pose_data(settings.folder, poses),
            "--log_dir",
            settings.folder / f"run_{time.monotonic_ns()}",
        ]
        flags += [
            "--batch_size",
            batch,
            "--device",
            settings.device,
            *(["--compile"] if settings.compile else []),
        ]
        return {
            "recipe": str(recipe),
            "flags": [str(flag) for flag in flags],
            "device": settings.device,
            **more,
        }

    rows = [
        compare(
            f"training from poses, batch {batch}, {size} size",
            settings,
            ("Training", spec(VIDEO)),
            None,
            peak,
        )
    ]
    for frames, repeats in ((VIDEO, settings.repeats), (LONG_VIDEO, 1)):
        if frames == VIDEO or size == "dance":
            once = replace(settings, repeats=repeats)
            what = f"rolling out {frames:,} frames from poses, {size} size"
            rows.append(compare(what, once, ("Rollout", spec(frames, frames=frames)), None, peak))
    return rows


def pose_data(folder: Path, poses: int) -> Path:
    """A data set of one sequence of 32x64 pixels with so many poses after the first frame."""
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


# -------------------------------------------------------------------------------------------------- cost against size

SWEEPS = {  # what is changed, and its values at the published size and at the quickstart's
    "batch size": {"published": (1, 2, 4, 8), "quickstart": (4, 8, 16, 32, 64)},
    "frames in a clip": {"published": (4, 8, 12, 20, 30), "quickstart": (4, 8, 12, 20, 30)},
    "image width": {"published": (64, 128), "quickstart": (64, 128)},
    "sampled futures": {"published": (1, 3, 10, 30), "quickstart": (1, 3, 10, 30, 100)},
}


def measure_costs(settings: Settings) -> dict[str, dict[str, list[dict]]]:
    """{what is changed: {size: [{value, seconds, memory_mb}]}}: of a training step, and of sampling for a batch."""
    costs: dict[str, dict[str, list[dict]]] = {}
    for what, values in SWEEPS.items():
        for size in SIZES:
            points = []
            for value in values[size]:
                batch = value if what == "batch size" else settings.batch(size)
                options = {"frames in a clip": {"n_future": value - 2}, "image width": {"width": value}}.get(
                    what, {}
                )
                name = "Training"
                if what == "sampled futures":
                    name, options = "Sampling", {"n_sample": value}
                (done,) = take_turns(settings.repeats, (name, settings.spec(size, batch, **options)))
                points.append(
                    {"value": value, "seconds": statistics.median(done.seconds), "memory_mb": done.memory_mb}
                )
            costs.setdefault(what, {})[size] = points
    return costs


def plot_costs(costs: dict[str, dict[str, list[dict]]], path: Path) -> None:
    """Draw time and peak memory over batch size, clip length, image width and number of futures, as PDF, SVG or PNG."""
    from svg.figures.drawing import Drawing, save

    save([Drawing(12, 5.54, lambda figure: _draw_costs(figure, costs))], path)


def _draw_costs(figure: Any, costs: dict[str, dict[str, list[dict]]]) -> None:
    import numpy as np
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, ScalarFormatter

    from svg.figures.drawing import COLOURS, Curve, draw_curves, draw_legend

    axes = figure.subplots(2, len(costs), sharex="col")
    for column, (what, sizes) in zip(axes.T, costs.items(), strict=True):
        step = "sampling for a batch" if what == "sampled futures" else "training step"
        for axis, key, label in zip(
            column, ("seconds", "memory_mb"), (f"{step} (s)", "peak memory (MB)"), strict=True
        ):
            curves = [
                Curve(
                    *np.array([(p["value"], p[key]) for p in points]).T,
                    {"color": colour, "linestyle": "-", "marker": "o"},
                )
                for colour, points in zip(COLOURS, sizes.values(), strict=False)
            ]
            draw_curves(axis, curves)
            axis.set_ylabel(label)
            axis.grid(alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
        column[0].set_yscale("log")
        column[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        column[0].yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
        column[0].yaxis.set_minor_locator(NullLocator())
        column[1].set_ylim(bottom=0)
        column[1].set_xscale("log")
        column[1].set_xticks(sorted({point["value"] for points in sizes.values() for point in points}))
        column[1].xaxis.set_major_formatter(ScalarFormatter())
        column[1].xaxis.set_minor_locator(NullLocator())
        column[1].set_xlabel(what)
    entries = [curve.entry(f"{size} size") for curve, size in zip(curves, sizes, strict=True)]
    draw_legend(figure, entries, loc="outside upper center", ncols=2)
