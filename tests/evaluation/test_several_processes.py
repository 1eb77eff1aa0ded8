"""Evaluation by several processes, as torchrun starts them: the result and the words of one."""

import shutil
import signal
import time
from pathlib import Path

import pytest

from svg.sequences import SequenceDataset
from svg.training.loop import Training
from tests.support.processes import free_port, launch, start
from tests.support.runs import make_config

COMMAND = "import sys\nfrom experiments.evaluate import main\nsys.exit(main(sys.argv[1:]))"
WITH_NETWORKS = """
import sys
import torch
import svg
from svg.evaluation import EvaluationOptions
from svg.processes import together

def features(videos):  # in the place of I3D, whose weights are not here
    return videos.float().mean((1, 3)).flatten(1)

def distance(predicted, target):  # in the place of LPIPS
    return (predicted - target).abs().mean((-3, -2, -1))

run, root, out = sys.argv[1:]
with together() as world:
    options = EvaluationOptions(2, metrics=("lpips", "fvd", "kvd"))
    protocol = svg.get_protocol("own").for_run(2, 4).changed(n_sample=3)
    networks = {"i3d": features, "lpips": distance}
    data = svg.SequenceDataset(root, "test", 6)
    result = svg.evaluate(svg.load(run, device="cpu"), data, protocol, options, networks, world=world)
    open(f"{out}_{world.rank}", "w").write(result.scores.to_csv() + str(result.distances.to_dict()))
"""


@pytest.fixture(scope="module")
def run(data_root, tmp_path_factory) -> Path:
    """A run that has hardly learned anything; its data have five test sequences."""
    return Training(make_config(data_root, tmp_path_factory.mktemp("runs") / "run", niter=1)).fit()


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_any_number_of_processes_writes_the_same_bytes(run, tmp_path):
    """Three batches, of which the last has one sequence; of four processes one has nothing to do."""
    other = run.with_name("other")
    shutil.copytree(run, other)
    out = tmp_path / "tables"
    words = [str(run), str(other), "--batch_size", "2", "--n_sample", "5", "--out", str(out)]
    results = []
    for count in (1, 2, 3, 4):
        for folder in (run / "evaluation", other / "evaluation", out):
            shutil.rmtree(folder, ignore_errors=True)
        done = launch("experiments.evaluate", words, count)
        assert done.returncode == 0, done.stderr
        folders = (run / "evaluation", other / "evaluation", out)
        results.append((done.stdout, *(written(folder) for folder in folders)))
    assert {"test_n5.json", "test_n5.csv", "test_n5_samples.csv"} <= results[0][1].keys()
    assert "comparison_test_n5.md" in results[0][3]
    assert results[1:] == results[:1] * 3
    again = launch("experiments.evaluate", [*words, "--reuse"], 2)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("taken as it is: ") == 2


@pytest.mark.slow
def test_networks_see_every_sequence_once(run, data_root, tmp_path):
    """Metrics of frames and of sets of videos; every process has the whole result."""
    for count in (1, 2):
        port = free_port()
        words = [str(run), str(data_root), str(tmp_path / f"of_{count}")]
        started = [start(WITH_NETWORKS, words, rank, port, count) for rank in range(count)]
        assert [process.communicate(timeout=120)[1] for process in started] == [""] * count
    results = written(tmp_path)
    assert "'pred_sample'" in results["of_1_0"].decode()
    assert results["of_1_0"] == results["of_2_0"] == results["of_2_1"]


def outcomes(words: list[str]) -> list[tuple[int, str, str]]:
    """Return exit code, stdout and stderr of each of two processes of the command."""
    port = free_port()
    started = [start(COMMAND, words, rank, port) for rank in range(2)]
    texts = [process.communicate(timeout=120) for process in started]
    return [(process.returncode, *text) for process, text in zip(started, texts, strict=True)]


@pytest.fixture
def broken_root(data_root, tmp_path) -> tuple[Path, Path]:
    """Data whose last test sequence, in the second of two batches, has a frame that is no picture."""
    root = tmp_path / "data"
    shutil.copytree(data_root, root)
    frame = root / SequenceDataset(root, "test", 6).index["path"].iloc[4] / "3.png"
    frame.write_bytes(b"x")
    return root, frame


@pytest.mark.slow
def test_an_error_in_one_process_is_one_line_of_the_main_one(run, broken_root):
    root, frame = broken_root
    words = [str(run), "--data_root", str(root), "--batch_size", "3", "--n_sample", "2"]
    line = f"svg-evaluate: {frame}: not a PNG image (1 bytes)"
    (code, _, errors), other = outcomes(words)
    assert code == 2 and errors.startswith(line) and len(errors.splitlines()) == 1
    assert other == (2, "", "")
    done = launch("experiments.evaluate", words, 2)
    assert done.returncode == 1  # torchrun's own
    assert [text.startswith(line) for text in done.stderr.splitlines() if "svg-evaluate:" in text] == [True]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--n_sample", "x"], "svg-evaluate: argument --n_sample: invalid int value"),
        (["--n_sample", "-1"], "svg-evaluate: --n_sample: found -1, expected a number of at least 0"),
        (["--device", "cuda:9"], "svg-evaluate: --device: cuda:9 is not there"),
    ],
)
def test_a_mistake_of_all_is_one_line(run, words, line):
    (code, _, errors), other = outcomes([str(run), *words])
    assert code == 2 and errors.startswith(line) and len(errors.splitlines()) == 1
    assert other == (2, "", "")


@pytest.mark.slow
def test_results_that_cannot_be_written(run):
    """Only the main process writes; the other ends with it."""
    shutil.rmtree(run / "evaluation", ignore_errors=True)
    (run / "evaluation").write_text("a file")
    try:
        (code, _, errors), other = outcomes([str(run)])
    finally:
        (run / "evaluation").unlink()
    assert code == 2 and "evaluation: is a file, expected a folder" in errors
    assert len(errors.splitlines()) == 1 and other == (2, "", "")


def begin(run: Path) -> list:
    """Start two processes of an evaluation that takes hours, and wait until they score."""
    shutil.rmtree(run / "evaluation", ignore_errors=True)
    port = free_port()
    started = [start(COMMAND, [str(run), "--n_sample", "1000000"], rank, port) for rank in range(2)]
    deadline = time.monotonic() + 120
    while not (run / "evaluation").exists():
        assert time.monotonic() < deadline and all(process.poll() is None for process in started)
        time.sleep(0.05)
    return started


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_all(run, number, code):
    started = begin(run)
    for process in started:
        process.send_signal(number)
    ends = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [code, code]
    assert ends == [("", "svg-evaluate: interrupted\n"), ("", "")]


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_the_other_process_says_that_one_is_gone(run, killed):
    started = begin(run)
    started[killed].kill()
    other = started[1 - killed]
    errors = other.communicate(timeout=60)[1]
    assert other.returncode == 2 and len(errors.splitlines()) == 1
    assert errors.startswith("svg-evaluate: the connection to the other processes is lost")
    started[killed].communicate()
