"""Plots: curves that lie under others, the best epoch, forms of the file, names that are any text."""

import dataclasses
import io
import re
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from data_tools.errors import InputError
from experiments import plot
from svg.figures.drawing import COLOURS, Curve, count_covers, draw_curves, run_looks, save
from svg.figures.plotting import (
    best_epoch,
    frame_curves,
    plot_frames,
    plot_rollouts,
    plot_training,
    rollout_curves,
    training_curves,
)
from tests.evaluation.test_results import made_up
from tests.support.samples import ODD_NAMES


def metrics(epochs: int = 14, shift: float = 0.0) -> list[dict]:
    """Lines of metrics.jsonl that are no model's; the best epoch is the third from the end."""
    lines = []
    for epoch in range(1, epochs + 1):
        score = 20 + shift + epoch - 2.5 * max(0, epoch - (epochs - 2))
        lines.append(
            {
                "epoch": epoch,
                "step": 10 * epoch,
                "loss": 1 / epoch + shift / 10,
                "mse": 1 / epoch,
                "kl": 1.0 * epoch,
                "beta": 1e-4,
            }
            | {"tfr": 0.5, "lr": 0.001, "skipped": 0, "val_pred_psnr": score, "val_rec_psnr": score + 1}
        )
    return lines


def pixels(figure: Figure) -> np.ndarray:
    """RGB of a figure as it is drawn, [H,W,3]."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return np.asarray(Image.open(file).convert("RGB")).astype(int)


def size(path: Path) -> tuple[int, int]:
    """(width, height) of a picture."""
    with Image.open(path) as picture:
        return picture.size


def count(picture: np.ndarray, colour: str) -> int:
    """How many pixels have a colour."""
    return int((np.abs(picture - np.round(255 * np.array(to_rgb(colour)))).max(-1) <= 4).sum())


@pytest.mark.parametrize("runs", [2, 3, 6])
@pytest.mark.parametrize("style", ["-", "--"])
def test_lines_that_are_the_same_are_all_seen(runs, style):
    x = np.arange(1, 15)
    looks = [{"color": COLOURS[number], "linestyle": style, "marker": ""} for number in range(runs)]
    figure = Figure(figsize=(4, 3))
    draw_curves(figure.subplots(), [Curve(x, np.sin(x / 4), look) for look in looks])
    picture = pixels(figure)
    for look in looks:
        assert count(picture, look["color"]) > 60


def test_a_line_is_wider_only_where_others_cover_it():
    x, look = np.arange(5.0), {"color": "k", "linestyle": "-", "marker": ""}
    first = Curve(x, np.array([0.0, 1, 2, 3, 4]), look)
    second = Curve(
        x, np.array([0.0, 1, 2.01, 0, 4]), look
    )  # nearer than a hundredth of 4 at the first three points
    third = Curve(x[1:3], np.array([1.0, 2]), look)  # of two epochs only
    point = Curve(np.array([4.0]), np.array([4.0]), look)
    counts = [found.tolist() for found in count_covers([first, second, third, point])]
    assert counts == [[1, 2, 0, 0], [0, 1, 0, 0], [0], [0]]
    assert count_covers([point, point])[0].tolist() == [1]
    assert [found.tolist() for found in count_covers([Curve(x, np.full(5, np.nan), look), first])] == [
        [0] * 4,
        [0] * 4,
    ]
    near_zero = [Curve(x, np.array([1.0, 1, 1, 1, value]), look) for value in (1e-3, 1e-2)]
    assert count_covers(near_zero)[0].tolist() == [1] * 4 and count_covers(near_zero, np.log)[0].tolist() == [
        1,
        1,
        1,
        0,
    ]


def test_equal_runs_are_all_seen_in_every_panel():
    looks = run_looks(3)
    for drawing in (
        training_curves({f"run {n}": metrics() for n in range(3)}),
        frame_curves({f"run {n}": made_up() for n in range(3)}),
    ):
        figure = Figure(figsize=(drawing.width, drawing.height), layout="constrained")
        drawing.draw(figure)
        picture = pixels(figure)
        boxes = [axes.get_window_extent() for axes in figure.axes]
        assert len(boxes) in (2, 6)
        scale = picture.shape[0] / figure.bbox.height
        for box in boxes:
            top = picture.shape[0] - round(box.y1 * scale)
            panel = picture[
                max(0, top - 9) : top + round(box.height * scale) + 9,
                round(box.x0 * scale) : round(box.x1 * scale),
            ]
            assert all(count(panel, colour) > 150 for colour, _ in looks)


def test_runs_look_different():
    assert len(set(run_looks(28))) == 28


def test_best_epoch():
    lines = metrics(14)
    assert best_epoch(lines)["epoch"] == 12
    lines[3]["val_pred_psnr"] = lines[11]["val_pred_psnr"]  # the first of equals, as in training
    assert best_epoch(lines)["epoch"] == 4
    assert best_epoch([{"epoch": 1, "loss": 1.0}]) is None


def drawn(drawing) -> tuple[Figure, str]:
    """A figure with all its texts."""
    figure = Figure(figsize=(drawing.width, drawing.height), layout="constrained")
    drawing.draw(figure)
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    return figure, "\n".join(text.get_text() for legend in legends for text in legend.get_texts())


def test_the_best_epoch_is_marked():
    figure, words = drawn(training_curves({"one": metrics()}))
    assert "best epoch 12: 32.00 dB" in words and words.splitlines()[:2] == ["pred", "rec"]
    for axes in figure.axes:
        assert [12, 12] in [list(line.get_xdata()) for line in axes.lines if line.get_linestyle() == ":"]
    stars = [line for line in figure.axes[3].lines if line.get_marker() == "*"]
    assert [(list(star.get_xdata()), list(star.get_ydata())) for star in stars] == [([12], [32.0])]
    figure, words = drawn(training_curves({"one": metrics(), "_two": metrics(8, shift=1)}))
    assert words.splitlines() == ["one: best epoch 12, 32.00 dB (★)", "_two: best epoch 6, 27.00 dB (★)"]
    assert len([line for line in figure.axes[3].lines if line.get_marker() == "*"]) == 2


def test_scores_before_the_first_epoch(tmp_path):
    """A run that begins with the weights of another has a first line of scores alone, perhaps no other."""
    start = {"epoch": 0, "step": 0, "val_pred_psnr": 40.0, "val_rec_psnr": 41.0}
    assert best_epoch([start, *metrics()])["epoch"] == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number, lines in enumerate(([start], [start, *metrics()], [start, *metrics(1)])):
            figure, words = drawn(training_curves({"a": lines}))
            assert "best epoch 0: 40.00 dB" in words
            points = [
                x for line in figure.axes[3].lines if line.get_linestyle() == "-" for x in line.get_xdata()
            ]
            assert not points or min(points) == 0
            plot_training({"a": lines, "b": metrics()}, tmp_path / f"{number}.png")


@pytest.mark.parametrize(("name", "value"), [("loss", 1e308), ("val_pred_psnr", -1e300), ("kl", 1e31)])
def test_values_that_cannot_be_drawn(name, value):
    lines = metrics()
    lines[2][name] = value
    with pytest.raises(
        InputError, match=rf"run: found {name} {re.escape(format(value, 'g'))} in epoch 3 of metrics.jsonl"
    ):
        training_curves({"run": lines})


@pytest.mark.parametrize("value", [0.0, -1.0, 1e29, 1e-300, 1e15])
def test_values_of_all_sizes_are_drawn(value, tmp_path):
    lines = metrics()
    for name in ("loss", "mse", "kl", "beta", "tfr", "val_pred_psnr"):
        lines[2][name] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_training({"run": lines, "other": metrics()}, tmp_path / "a.png")


def draw_all(names: tuple[str, ...]) -> list:
    """Every figure with `names` wherever names from files are shown."""
    scores = made_up()
    scores = dataclasses.replace(scores, protocol=dataclasses.replace(scores.protocol, name="".join(names)))
    curve = (np.linspace(30, 25, 9), np.linspace(30, 15, 9))
    return [
        training_curves({name: metrics() for name in names}),
        frame_curves(dict.fromkeys(names, scores), across=1),
        rollout_curves(dict.fromkeys(names[:6], curve), 2),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_names_are_shown_as_they_are_written(form, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number, drawing in enumerate(draw_all(ODD_NAMES)):
            files = [tmp_path / f"{number}.{form}", tmp_path / f"{number}_again.{form}"]
            for file in files:
                save([drawing], file)
            assert files[0].read_bytes() == files[1].read_bytes()
            if form == "svg":
                ElementTree.fromstring(files[0].read_text())
            elif form == "png":
                assert size(files[0]) == (int(130 * drawing.width), int(130 * drawing.height))
    _, words = drawn(training_curves({name: metrics() for name in ODD_NAMES}))
    for shown in (
        r"$\frac$: best",
        "\\: best",
        "a b: best",
        r"\x1b[31m: best",
        "_hidden: best",
        r"\ud800: best",
    ):
        assert shown in words
    assert max(map(len, words.splitlines())) < 90


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(st.text(max_size=120))
def test_any_name(name):
    file = io.BytesIO()
    save(draw_all((name, "other"))[1:2], file, "svg")
    text = file.getvalue().decode()
    ElementTree.fromstring(text)
    assert "dc:date" not in text


def test_figures_of_one_page_have_identifiers_of_their_own():
    texts = []
    for salt in ("a", "b"):
        file = io.BytesIO()
        save([frame_curves({"run": made_up()})], file, "svg", salt)
        texts.append(file.getvalue().decode())
    clips = [set(re.findall(r'<clipPath id="(\w+)"', text)) for text in texts]
    assert clips[0] and clips[1] and not clips[0] & clips[1]


@pytest.fixture
def runs(tmp_path):
    """Two run folders, as far as svg-plot reads them."""
    for name, gain in (("a", 0.0), ("$\\frac$", 1.0)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text(
            "".join(f"{line}\n" for line in map(str, metrics())).replace("'", '"')
        )
        made_up(gain=gain).save(folder, "test")
    return [str(tmp_path / "runs" / name) for name in ("a", "$\\frac$")]


@pytest.mark.slow
def test_the_ending_says_the_form(runs, tmp_path, capsys):
    first = {"pdf": b"%PDF-", "svg": b"<?xml", "PNG": b"\x89PNG"}
    for ending, magic in first.items():
        out = tmp_path / "new" / f"x.{ending}"
        assert plot.main([*runs, "--out", str(out)]) == 0
        assert capsys.readouterr().out == f"{out}\n" and out.read_bytes().startswith(magic)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"x.pdf", "x.svg", "x.PNG"}
    both = size(tmp_path / "new" / "x.PNG")
    for only, height in (("training", 832), ("frames", 546)):
        assert plot.main([*runs, "--out", str(tmp_path / f"{only}.png"), "--only", only]) == 0
        assert size(tmp_path / f"{only}.png") == (1560, height)
    assert both == (1560, 832 + 546)


def test_other_endings_and_folders(runs, tmp_path, capsys):
    assert plot.main([*runs, "--out", str(tmp_path / "x.eps")]) == 2
    error = capsys.readouterr().err
    assert (
        len(error.splitlines()) == 1
        and "x.eps: found the ending .eps, expected one of .pdf, .svg, .png; a folder" in error
    )
    assert not (tmp_path / "x.eps").exists()
    (tmp_path / "v1.5").mkdir()
    assert plot.main([*runs, "--out", str(tmp_path / "v1.5")]) == 0
    assert {path.name for path in (tmp_path / "v1.5").iterdir()} == {"training.png", "test_frames.png"}
    assert plot.main([*runs, "--out", str(tmp_path / "x.png"), "--only", "frames", "--scores", "none"]) == 2
    assert "found no evaluation/none.json (--scores); there: test" in capsys.readouterr().err


def test_figures_of_a_run_are_not_written_through_a_link(runs, tmp_path, capsys):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs" / "a" / "figures").symlink_to(tmp_path / "elsewhere")
    assert plot.main(runs) == 2
    assert "figures: is a link" in capsys.readouterr().err and not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.slow
def test_old_calls(tmp_path):
    """With a file and a form, and with a path alone."""
    for number, (draw, what) in enumerate(
        ((plot_training, {"a": metrics()}), (plot_frames, {"a": made_up()}))
    ):
        file = io.BytesIO()
        draw(what, file, "svg")
        draw(what, tmp_path / f"{number}.png")
        assert b"<svg" in file.getvalue() and (tmp_path / f"{number}.png").read_bytes().startswith(b"\x89PNG")
    plot_rollouts({"a": (np.ones(3), np.ones(3))}, 1, tmp_path / "r.png")
    assert size(tmp_path / "r.png") == (1430, 598)
