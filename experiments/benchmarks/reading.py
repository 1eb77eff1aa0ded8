"""A measurement of `growth` in a process of its own: ``python -m experiments.benchmarks.reading WORK ROOT``.

It prints a line of JSON. Seconds are processor seconds, which other programs on the machine do not lengthen;
memory is in MB. Linux alone tells what is measured here.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from data_tools.command import tell

CLIP = 12
BATCH = 32
WARM = 20
"""Batches that are not counted."""
STEPS = 100
"""Batches that are."""


def memory(name: str) -> float:
    """Return MB that the kernel counts for this process, such as ``Anonymous``, or the peak ``VmHWM``."""
    file = "status" if name.startswith("Vm") else "smaps_rollup"
    lines = Path("/proc/self", file).read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def read_as_training(root: Path) -> dict[str, float]:
    """Return what opening a training split, its first batch and batches after it take.

    opening   s
    first     s until the first batch is there, after opening
    rate      clips a second of a single process, without workers
    held      MB of anonymous memory after the first batch, beyond that before opening
    growth    MB of anonymous memory that the `STEPS` batches add to that after `WARM` ones
    peak      MB of resident memory, the program and its libraries included
    """
    from svg.sequences import SequenceDataset, TrainingBatches

    before = memory("Anonymous")
    began = time.process_time()
    dataset = SequenceDataset(root, "train", CLIP)
    opened = time.process_time()
    batches = TrainingBatches(dataset, BATCH, seed=0, clip_start="random")
    reading = batches.iterate(range(1 + WARM + STEPS), workers=0, pin_memory=False)
    take(reading, 1)
    first = time.process_time()
    held = memory("Anonymous")
    take(reading, WARM)
    warm = memory("Anonymous")
    started = time.process_time()
    take(reading, STEPS)
    ended = time.process_time()
    return {
        "opening": opened - began,
        "first": first - opened,
        "rate": STEPS * BATCH / (ended - started),
        "held": held - before,
        "growth": memory("Anonymous") - warm,
        "peak": memory("VmHWM"),
    }


def take(batches: Iterator, count: int) -> None:
    """Read so many batches."""
    for _ in range(count):
        next(batches)


def index(root: Path) -> dict[str, float]:
    """Return what indexing folders takes: ``opening`` s, and ``peak`` MB of resident memory."""
    from data_tools.index import build_index

    began = time.process_time()
    build_index(root)
    return {"opening": time.process_time() - began, "peak": memory("VmHWM")}


def main() -> None:
    """Do the work that the command line names."""
    work = {"read": read_as_training, "index": index}[sys.argv[1]]
    tell(json.dumps(work(Path(sys.argv[2]))))


if __name__ == "__main__":
    main()
