"""A fault drill: every command is killed at random moments and restarted, and must end with the same bytes.

    python -m tests.hardening.drill                      120 kills over all commands: some ten minutes
    python -m tests.hardening.drill --kills 20 train     20 of svg-train alone

Each command runs once without interruption. Then it runs again and again in another folder, each time stopped
at a random moment, by SIGKILL mostly, by SIGINT or SIGTERM at times, until it has ended by itself: its
results are compared with those of the first run, and the folder is emptied for the next round. After each
stop, every file with a final name must be as in the end or as before. Exits with 1 if anything differs.
"""

import argparse
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_tools.folders import write_sequence
from data_tools.index import build_index
from data_tools.pack_chunks import UNFINISHED_FILE
from svg.runs import checkpoint
from svg.runs.metrics_log import read_metrics
from tests.support import tfrecords
from tests.support.places import ROOT
from tests.support.recordings import contents, write_pictures, write_version

SIGNALS = (signal.SIGKILL,) * 8 + (signal.SIGINT, signal.SIGTERM)
OF_LITDATA = ("chunks",) if importlib.util.find_spec("litdata") else ()
JOBS = (
    "simulate",
    "simulate_dance",
    "bair",
    "rlds",
    "frames",
    "index",
    "pack",
    *OF_LITDATA,
    "train",
    "evaluate",
)
EXIT_CODES = (0, 130, 143, -signal.SIGKILL, -signal.SIGINT, -signal.SIGTERM)
"""The last two occur before or after Python handles signals."""
MODEL = (
    *("--model", "dcgan", "--recurrence", "spatial", "--width", "0.1", "--g_dim", "16", "--z_dim", "3"),
    *("--rnn_size", "16", "--n_past", "2", "--n_future", "4", "--n_eval", "6", "--batch_size", "4"),
    *("--niter", "4", "--epoch_size", "20", "--tfr", "0.5", "--lr_schedule", "cosine"),
    *("--optimizer", "muon", "--precision", "float32", "--device", "cpu"),
)


@dataclass(frozen=True)
class Job:
    """A command that runs in a folder of its own and works on ``out`` there.

    before   a folder that is copied to ``out`` before it begins, or None
    results  returns the contents of ``out`` that must be the same in the end: {name: content}
    """

    words: list[str]
    before: Path | None = None
    results: Callable[[Path], dict[str, object]] = field(default=lambda out: visible(contents(out)))


def visible(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files that are not hidden."""
    return {name: data for name, data in files.items() if "/." not in f"/{name}"}


def data_job(command: str, *words: object, before: Path | None = None) -> Job:
    """Return a job of svg-data."""
    return Job([sys.executable, "-m", "data_tools", command, *map(str, words)], before)


def training_results(out: Path) -> dict[str, object]:
    """Return all files without times, and without the checkpoint before the last, which is saved by time."""
    files = {name: data for name, data in visible(contents(out)).items() if name != "timing.jsonl"}
    last = max(name.split(".")[0] for name in files if name.startswith("checkpoints/step-"))
    files = {
        name: data
        for name, data in files.items()
        if not name.startswith("checkpoints/step-") or name.startswith(last)
    }
    for name in files:
        if name.startswith("checkpoints/") and name.endswith(".json"):
            values = json.loads(files[name])
            del values["checksum"], values["progress"]["minutes"]
            files[name] = values
    return files


def make_jobs(folder: Path) -> dict[str, Job]:
    """Return the commands, each with work for some seconds."""
    generator = np.random.default_rng(0)
    shape = (30, 64, 64, 3)
    for shard in range(4):
        one = {"image_aux1": generator.integers(0, 256, shape, np.uint8)}
        record = tfrecords.record(
            tfrecords.example(tfrecords.bair_features(one, generator.normal(size=(30, 4)), None))
        )
        path = folder / "bair" / "train" / f"traj_{shard}.tfrecords"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(record * 30)
    write_version(folder / "rlds", {"train": [20] * 100})
    for name in "abcdef":
        write_pictures(folder / "pictures" / name, 300)
    for number in range(120):
        frames = generator.integers(0, 256, (10 + number % 7, 64, 64, 3), np.uint8)
        place = folder / "folders" / ("train", "validate", "test")[number % 3] / str(number)
        write_sequence(place, frames, generator.normal(size=(len(frames), 4)), None)
    build_index(folder / "folders")
    older = folder / "older"
    shutil.copytree(folder / "folders", older)
    build_index(older, "before")
    for number in range(120, 1500):
        source = folder / "folders" / "train" / str(number % 40 * 3)
        shutil.copytree(source, older / "train" / str(number), copy_function=os.link)
    train = [
        sys.executable,
        "-m",
        "experiments.train",
        "--data_root",
        str(folder / "folders"),
        "--log_dir",
        "out",
        *MODEL,
    ]
    train += ["--workers", "1", "--save_minutes", "0.01", "--resume"]
    return {
        "simulate": data_job("simulate", "out", "--sequences", 60, "--image_width", 16, "--frames", 10),
        "simulate_dance": data_job(
            "simulate_dance", "out", "--sequences", 16, "--frames", 60, "--image_width", 32
        ),
        "bair": data_job("bair", folder / "bair", "out"),
        "rlds": data_job("rlds", folder / "rlds", "out", "--image_width", 64),
        "frames": data_job("frames", folder / "pictures", "out", "--length", 7, "--image_width", 64),
        "index": data_job("index", "out", "--name", "after", before=older),
        "pack": data_job("pack", folder / "folders", "out"),
        "chunks": data_job("pack", folder / "folders", "out", "--format", "litdata", "--chunk_mb", 2),
        "train": Job(train, None, training_results),
        "evaluate": Job(
            [sys.executable, "-m", "experiments.evaluate", "out", "--n_sample", "20"], folder / "trained"
        ),
    }


def run_whole(job: Job, folder: Path) -> float:
    """Run the job to its end in a new folder and return how many seconds it took."""
    folder.mkdir(parents=True)
    put_before(job, folder)
    began = time.monotonic()
    done = subprocess.run(job.words, cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - began


def put_before(job: Job, folder: Path) -> None:
    """Copy the files that the job finds when it begins."""
    if job.before is not None:
        shutil.copytree(job.before, folder / "out", copy_function=os.link)


def environment() -> dict[str, str]:
    """Return the environment of the commands."""
    return os.environ | {"PYTHONPATH": str(ROOT)}


@dataclass
class Tally:
    """Stops at work by signal, rounds that were compared, and what was wrong."""

    stops: dict[str, int] = field(default_factory=dict)
    rounds: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def stopped(self) -> int:
        return sum(self.stops.values())


def drill(name: str, job: Job, folder: Path, kills: int, chance: random.Random) -> Tally:
    """Stop the job `kills` times, and let the last round come to its end."""
    seconds = run_whole(job, folder / "whole")
    expected, tally = job.results(folder / "whole" / "out"), Tally()
    before = {} if job.before is None else visible(contents(job.before))
    killed = folder / "killed"
    while tally.stopped < kills or killed.exists():
        if not killed.exists():
            killed.mkdir()
            put_before(job, killed)
        how = chance.choice(SIGNALS) if tally.stopped < kills else None
        process = subprocess.Popen(
            job.words,
            cwd=killed,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        ended = False
        try:
            process.wait(None if how is None else chance.uniform(0, seconds))
            ended = True
        except subprocess.TimeoutExpired:
            if how == signal.SIGKILL:
                process.kill()  # alone: its workers must notice by themselves
            else:
                os.killpg(process.pid, how)
        errors = process.communicate(timeout=300)[1]
        raw = (
            "Traceback" in errors and process.returncode != -signal.SIGKILL
        )  # after which workers that just start say what they like
        if process.returncode not in EXIT_CODES or (ended and process.returncode) or raw:
            tally.wrong.append(f"{name}: ended with {process.returncode}: {errors[-2000:]}")
            break
        if process.returncode:
            tally.stops[how.name] = tally.stops.get(how.name, 0) + 1
            tally.wrong += [
                f"{name}, after {how.name}: {what}" for what in unsound(job, killed / "out", expected, before)
            ]
            continue
        found = job.results(killed / "out")
        tally.rounds += 1
        different = sorted(
            key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key)
        )
        if different:
            count = f"{len(different)} of {len(expected)} files differ in the end"
            tally.wrong.append(f"{name}: {count}: {', '.join(different[:5])}")
        shutil.rmtree(killed)
    return tally


def unsound(job: Job, out: Path, expected: dict[str, object], before: dict[str, bytes]) -> list[str]:
    """Return the files that are neither as in the end nor as before; of a training, read what is there.

    The list of the chunks that are complete so far is there while not all of them are.
    """
    if job.results is training_results:
        if (out / "metrics.jsonl").exists():
            read_metrics(out)
        if checkpoint.exists(out, "last"):
            checkpoint.load_model(out, "last")
        return []
    time.sleep(0.3)  # workers that end what they have begun
    try:
        files = visible(contents(out))
    except FileNotFoundError:  # renamed meanwhile by one of them
        return []
    return [
        f"{name} is neither"
        for name, data in files.items()
        if data not in (expected.get(name), before.get(name)) and Path(name).name != UNFINISHED_FILE
    ]


def main() -> int:
    """Run the drill and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", nargs="*", choices=[[], *JOBS], help=f"some of {', '.join(JOBS)}")
    parser.add_argument("--kills", type=int, default=120, help="in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = make_jobs(folder)
        chosen = args.jobs or JOBS
        totals, wrong = [], []
        for number, job in enumerate(chosen):
            kills = (args.kills + number) // len(chosen)
            if job == "evaluate":
                run_whole(jobs["train"], folder / "training")
                (folder / "training" / "out").rename(folder / "trained")
            began = time.monotonic()
            tally = drill(job, jobs[job], folder / "drill" / job, kills, random.Random(f"{args.seed} {job}"))
            stops = ", ".join(f"{count} by {how}" for how, count in sorted(tally.stops.items()))
            stopped = f"stopped {tally.stopped:3d} times ({stops})"
            compared = f"{tally.rounds} rounds compared, {len(tally.wrong)} wrong"
            print(f"{job:15s} {stopped}, {compared}, {time.monotonic() - began:.0f} s", flush=True)
            for what in tally.wrong:
                print(f"  {what}")
            totals.append(tally.stopped)
            wrong += tally.wrong
    print(f"{sum(totals)} stops, {len(wrong)} wrong")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
