"""The benchmark runs as a user runs it, at a small size, and leaves nothing behind."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from data_tools.errors import InputError
from experiments import benchmark
from experiments.benchmarks import growth, measurement, model
from experiments.benchmarks.measurement import Row
from tests.support.places import ROOT


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.slow
def test_data_path(tmp_path):
    code = f"""
from experiments import benchmark
from experiments.benchmarks import data
data.BAIR_SEQUENCES, data.MEMORY_SIZES = 200, (20, 40)
flags = ["--repeats", "1", "--folder", {str(tmp_path)!r}, "--json", {str(tmp_path / "figures.json")!r}]
raise SystemExit(benchmark.main(["data", *flags]))
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    rows = {row.what: row for row in measurement.load(tmp_path / "figures.json")}
    assert len(rows) == len(done.stdout.splitlines()) - 2 == 9
    assert all(row.spread[0] <= row.ours <= row.spread[1] and row.ours > 0 for row in rows.values())
    conversion = rows["conversion, frames/s"]
    assert conversion.ratio == pytest.approx(conversion.ours / conversion.reference)
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


@pytest.mark.slow
def test_growth(tmp_path):
    """Every store at every size, in the printed rows and in the file beside the picture."""
    code = f"""
from experiments import benchmark
from experiments.benchmarks import growth
growth.SIZES, growth.INDEXED = (10, 300), (10,)
flags = ["--repeats", "2", "--folder", {str(tmp_path)!r}, "--plot", {str(tmp_path / "growth.png")!r}]
raise SystemExit(benchmark.main(["growth", *flags]))
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    points = json.loads((tmp_path / "growth.json").read_text())["points"]
    found = [(point["store"], point["sequences"]) for point in points]
    stores = [store for store in growth.STORES if store != "litdata" or find_spec("litdata")]
    reading = [(store, sequences) for store in stores for sequences in (10, 300)]
    assert found == [*reading, ("svg-data index", 10)]
    for point in points:
        measured = point["measured"]
        assert all(len(values) == 2 for values in measured.values())
        assert min(measured["opening"]) > 0 and min(measured["peak"]) > 10
        if point["store"] in stores:
            assert min(measured["rate"]) > 0 and min(measured["held"]) > 0
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(points) and rows[2].startswith("| folders, 10 |")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["growth.json", "growth.png"]


PUBLISHED = {  # the least that has the names of github.com/edenton/svg which are measured
    "utils.py": """
def init_weights(m): pass
def mse_metric(a, b): return 0
def eval_seq(gt, pred): return [psnr_metric(a, b) for a, b in zip(gt, pred)]
def finn_psnr(a, b): return 0
def fspecial_gauss(size, sigma): return 0
def finn_ssim(a, b): return 0
def finn_eval_seq(gt, pred): return signal.fftconvolve(gt[0][0, 0], pred[0][0, 0])
""",
    "train_svg_lp.py": """
raise RuntimeError("importing this starts a training")
def kl_criterion(*values): return 0
def train(x):
    encoder_optimizer.zero_grad()
    encoder(x[0]).square().sum().backward()
    encoder_optimizer.step()
""",
    "generate_svg_lp.py": """
def make_gifs(x, idx, name):
    progress = progressbar.ProgressBar(max_value=opt.nsample).start()
    for number in range(opt.nsample):
        progress.update(number)
        encoder(x[0])
    progress.finish()
    utils.save_gif_with_text(name, [add_border(x[0][0], "red")], [""])
""",
    "models/vgg_64.py": """
import torch.nn as nn
def encoder(dim, channels): return nn.Conv2d(channels, dim, 3).cuda() if False else nn.Conv2d(channels, 4, 3)
decoder = encoder
""",
    "models/lstm.py": """
import torch, torch.nn as nn
def lstm(*sizes):
    torch.zeros(1).cuda()
    return nn.Linear(2, 2)
gaussian_lstm = lstm
""",
}


@pytest.mark.slow
def test_model_and_published(tmp_path):
    """Ours and a stand-in for the published code in turns, beside earlier figures; the sweep and its plot."""
    for name, text in PUBLISHED.items():
        (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clone" / name).write_text(text)
    (tmp_path / "small.args").write_text(
        "--recurrence spatial --model dcgan --width 0.1 --norm group --g_dim 16 --z_dim 3 --rnn_size 16 "
        "--precision float32"
    )
    (tmp_path / "objects.args").write_text(
        "--model objects --g_dim 8 --z_dim 2 --rnn_size 8 --slots 3 --objects_weight 1 --places_weight 1"
    )
    (tmp_path / "dance.args").write_text(
        "--model pose_cvae --levels 3 --g_dim 16 --pose_dim 8 --z_dim 3 --fusion_dim 16 --n_past 1 "
        "--n_future 3 --precision float32"
    )
    code = f"""
from pathlib import Path
from experiments import benchmark
from experiments.benchmarks import model
small = Path({str(tmp_path / "small.args")!r})
model.SIZES, model.SEQUENCES = {{"published": small, "quickstart": small}}, 4
model.MATRIX_SIZES = (64,)
model.POSE_SIZES = {{"dance": (Path({str(tmp_path / "dance.args")!r}), 4)}}
model.PLAN_SIZES = {{"small": small, "objects": Path({str(tmp_path / "objects.args")!r})}}
model.PLANS = 3
model.VIDEO, model.LONG_VIDEO = 40, 70
futures, batches = {{"published": (1, 2), "quickstart": (1,)}}, {{"published": (1,), "quickstart": (2,)}}
model.SWEEPS = {{"sampled futures": futures, "batch size": batches}}
flags = ["--repeats", "1", "--n_sample", "2", "--batch_size", "2", "--device", "cpu"]
flags += ["--folder", {str(tmp_path)!r}]
figures = {str(tmp_path / "figures.json")!r}
parts = ["training", "sampling", "scoring", "imagination", "poses"]
done = benchmark.main([*parts, *flags, "--json", figures, "--published", {str(tmp_path / "clone")!r}])
flags += ["--compare", figures, "--plot", {str(tmp_path / "cost.png")!r}]
raise SystemExit(done or benchmark.main(["cost", "scoring", *flags]))
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    rows = {row.what: row for row in measurement.load(tmp_path / "figures.json")}
    training = rows["training, batch 2, published size, frames/s"]
    assert training.ratio == pytest.approx(training.ours / training.reference) and training.memory_mb > 100
    (peak,) = (
        row.ours for what, row in rows.items() if what.startswith("matrix product")
    )  # in the processor's precision
    assert training.peak_share == pytest.approx(training.tflops / peak)
    assert rows["training, batch 2, quickstart size, frames/s"].reference is None
    for size in ("small", "objects"):
        for drawn in ("all frames", "the last frame alone"):
            assert rows[f"imagining 3 plans, {drawn}, {size}, frames/s"].memory_mb > 100
    assert rows["training from poses, batch 2, dance size, frames/s"].ours > 0
    assert rows["rolling out 40 frames from poses, dance size, frames/s"].memory_mb > 100
    assert rows["rolling out 70 frames from poses, dance size, frames/s"].ours > 0
    assert "now/before" in done.stdout
    costs = json.loads((tmp_path / "cost.json").read_text())["costs"]
    assert [point["value"] for point in costs["sampled futures"]["published"]] == [1, 2]
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")


def test_table_and_comparison(tmp_path):
    rows = [
        Row.of(
            "one, frames/s",
            [1.0, 3.0, 2.0],
            [1.0, 0.5, 4.0],
            memory_mb=300.0,
            reference_memory_mb=600.0,
            peak_share=0.25,
            tflops=0.5,
        ),
        Row.of("two, s", [0.04]),
    ]
    measurement.save(tmp_path / "figures.json", {"cores": "2"}, rows)
    again = measurement.load(tmp_path / "figures.json")
    assert again == rows
    lines = measurement.table(rows, [Row.of("two, s", [0.02])]).splitlines()
    assert lines[0].split() == [
        "ours", "min", "max", "reference", "ratio", "TFLOP/s", "of", "peak", "MB", "ref.", "MB",
        "ratio", "before", "now/before",
    ]  # fmt: skip
    assert lines[1].split() == [
        "one,",
        "frames/s",
        "2",
        "1",
        "3",
        "1",
        "2.00",
        "0.5",
        "25",
        "%",
        "300",
        "600",
        "0.50",
    ]
    assert lines[2].split() == ["two,", "s", "0.04", "0.04", "0.04", "0.02", "2.00"]
    assert "reference" not in measurement.table(rows[1:])


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            ["speed"],
            "PART: found 'speed', expected training, sampling, scoring, imagination, poses, data, cost, "
            "growth",
        ),
        (
            ["cost", "growth", "--plot", "x.png"],
            "--plot: found both cost and growth, expected one of them; or leave it out",
        ),
        (["--repeats", "0"], "--repeats: found 0, expected 1 or more"),
        (
            ["--published", "."],
            "--published: no train_svg_lp.py in .; git clone https://github.com/edenton/svg",
        ),
        (
            ["--compare", "setup.py"],
            "--compare: setup.py is not a file that svg-benchmark --json has written",
        ),
        (["--compare", "nowhere.json"], "--compare: nowhere.json cannot be read (No such file or directory)"),
    ],
)
def test_mistakes_are_one_line(flags, expected, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert benchmark.main(flags) == 2
    assert capsys.readouterr().err == f"svg-benchmark: {expected}\n"


@pytest.mark.slow
def test_a_measurement_that_fails_says_why(tmp_path):
    from experiments.benchmarks.model import take_turns

    with pytest.raises(InputError, match=r"a measurement ended early: .*nowhere"):
        take_turns(
            1, ("PublishedTraining", {"clone": str(tmp_path / "nowhere"), "batch": 1, "device": "cpu"})
        )


def test_costs_are_drawn_in_the_form_of_the_ending(tmp_path, capsys):
    points = [{"value": value, "seconds": value / 10, "memory_mb": 100.0 * value} for value in (1, 2, 4)]
    costs = {what: {"published": points, "quickstart": points} for what in ("batch size", "sampled futures")}
    for name, magic in {"a.png": b"\x89PNG", "b.pdf": b"%PDF", "c.svg": b"<?xml"}.items():
        model.plot_costs(costs, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(magic)
    assert benchmark.main(["cost", "--plot", str(tmp_path / "x.eps")]) == 2  # before anything is measured
    assert "x.eps: found the ending .eps, expected one of .pdf, .svg, .png" in capsys.readouterr().err
