"""A soak: train, score and evaluate for long, and watch memory, open files, threads and the run folder.

    python -m tests.hardening.soak                30 minutes
    python -m tests.hardening.soak --minutes 5

Each turn resumes the run for some epochs, with a process that reads its data, then evaluates it, all within
this one process. Exits with 1 if open files or threads grow, or memory by more than 2 % over the second half.
"""

import argparse
import contextlib
import io
import os
import sys
import tempfile
import threading
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from data_tools.folders import write_sequence
from data_tools.index import build_index
from experiments import evaluate, train
from svg.runs.metrics_log import last_step
from tests.support.samples import moving_square

EPOCHS, STEPS = 4, 10  # a turn
GROWTH = 0.02


@dataclass(frozen=True)
class Reading:
    """The resources that are in use after a turn."""

    turn: int
    steps: int
    minutes: float
    memory_mb: float
    files: int
    threads: int
    run_mb: float


def prepare(folder: Path) -> list[str]:
    """Write a small data set and return the flags of the run."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 24), ("validate", 8), ("test", 8)):
        for number in range(count):
            write_sequence(folder / "data" / split / str(number), *moving_square(generator, 15))
    build_index(folder / "data", "squares")
    flags = (
        f"--data_root {folder / 'data'} --log_dir {folder / 'run'} --model dcgan --recurrence spatial "
        "--width 0.1 --g_dim 16 --z_dim 3 --rnn_size 16 --n_past 2 --n_future 6 --n_eval 8 --batch_size 4 "
        f"--epoch_size {STEPS} --tfr 0.5 --workers 1 --device cpu"
    )
    return flags.split()


def turn(flags: list[str], number: int) -> None:
    """Continue the run for some epochs and evaluate it."""
    run = flags[flags.index("--log_dir") + 1]
    with contextlib.redirect_stdout(io.StringIO()):
        assert train.main([*flags, "--niter", str(EPOCHS * (number + 1)), "--resume"]) == 0
        assert evaluate.main([run, "--n_sample", "5", "--device", "cpu"]) == 0


def read(folder: Path, number: int, began: float) -> Reading:
    """Return the resources in use after a turn; `began` is the monotonic time of the start."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    size = sum(path.stat().st_size for path in (folder / "run").rglob("*") if path.is_file())
    return Reading(
        turn=number,
        steps=last_step(folder / "run"),
        minutes=(time.monotonic() - began) / 60,
        memory_mb=pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        files=len(os.listdir("/proc/self/fd")),
        threads=threading.active_count(),
        run_mb=size / 1e6,
    )


def main() -> int:
    """Run the soak and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    args = parser.parse_args()
    titles = [field.name for field in fields(Reading)]
    print(" ".join(f"{title:>9s}" for title in titles))
    with tempfile.TemporaryDirectory() as name:
        flags, began, readings, shown = prepare(Path(name)), time.monotonic(), [], 0.0
        while not readings or readings[-1].minutes < args.minutes:
            turn(flags, len(readings))
            readings.append(read(Path(name), len(readings), began))
            if readings[-1].minutes >= shown:
                values = astuple(readings[-1])
                print(
                    " ".join(
                        f"{value:9.2f}" if isinstance(value, float) else f"{value:9d}" for value in values
                    ),
                    flush=True,
                )
                shown += args.minutes / 15
    half = readings[len(readings) // 2 :]
    minutes, memory = ([getattr(reading, title) for reading in half] for title in ("minutes", "memory_mb"))
    slope = np.polyfit(minutes, memory, 1)[0] if len(half) > 2 else 0.0
    growth = slope * (half[-1].minutes - half[0].minutes) / half[0].memory_mb
    print(f"{len(readings)} turns; memory over the second half: {slope:+.3f} MB a minute, {growth:+.2%}")
    grown = [
        title for title in ("files", "threads") if len({getattr(reading, title) for reading in half}) > 1
    ]
    print(
        f"grown: {', '.join(grown)}"
        if grown
        else "open files and threads: the same all through the second half"
    )
    return int(bool(grown) or growth > GROWTH)


if __name__ == "__main__":
    sys.exit(main())
