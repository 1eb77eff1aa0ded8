"""The report: what stands in it, and what a browser makes of it."""

import base64
import html
import io
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import report, train
from svg.evaluation.tables import Table
from svg.figures.page import Group, Panel, Row
from svg.figures.plotting import frame_curves
from svg.figures.report import HEAT_LIMIT, build_report, error_map, figure_svg
from tests.evaluation.test_results import made_up
from tests.experiments.test_commands import TINY
from tests.support.browser import CHROMIUM

FRAMES = 20
COLOURS = [(10 * frame, 200 - 10 * frame, 100) for frame in range(FRAMES)]
TITLE = "best </script> <!--<script> sequence"


def panel(label: str, scores: list[str] = ()) -> Panel:
    """Every frame in one colour of its own."""
    frames = np.zeros((FRAMES, 16, 16, 3), np.uint8)
    for frame, colour in enumerate(COLOURS):
        frames[frame] = colour
    return Panel(label, frames, list(scores), given=2)


@pytest.fixture(scope="module")
def page() -> str:
    scores = ["", "", *(f"{30 - frame}.0 dB" for frame in range(FRAMES - 2))]
    rows = [Row([panel("truth"), panel("pred", scores)]), Row([panel("best"), panel("worst")], is_small=True)]
    sequence = Group(TITLE, rows)
    tables = {"Configuration": Table(["flag", "value"], [["lr", "0.002"]])}
    return build_report(
        "a <b> run",
        made_up(),
        [sequence],
        {"Curves": "<svg></svg>"},
        tables,
        fps=50,
        times=list(range(FRAMES)),
    )


def test_contents(page):
    assert "a &lt;b&gt; run" in page and "<b> run" not in page
    assert (
        "pred (best of 10)" in page
        and "2 given, 3 predicted" in page
        and "0.002" in page
        and "data range 1" in page
    )
    assert not re.search(r"<!--[A-Z]+-->", page)
    assert not re.search(r'(src|href)="?(http|/)', page)  # nothing from elsewhere
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))
    assert data["sequences"][0]["title"] == TITLE and data["start"] == 2
    sprite = data["sequences"][0]["rows"][0]["panels"][1]["sprite"].removeprefix("data:image/png;base64,")
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(sprite))))
    places = [(16 * (frame // 16) + 8, 16 * (frame % 16) + 8) for frame in range(FRAMES)]  # 16 in a row
    assert picture.shape == (32, 256, 3) and [tuple(picture[place]) for place in places] == COLOURS


def test_error_map():
    truth = np.zeros((1, 2, 2, 3), np.uint8)
    video = truth.copy()
    video[0, 0, 1] = round(255 * HEAT_LIMIT / 2)
    video[0, 1, 1] = 255
    colours = error_map(video, truth)[0]
    assert colours[0, 0].max() <= 4 and colours[1, 1].tolist() == pytest.approx(
        [252, 255, 164], abs=1
    )  # the ends of inferno
    assert 4 < colours[0, 1].max() < 255


SCRIPT = """
<script>
const errors = [];
window.onerror = message => errors.push(String(message));
function pixel(number) {
  const canvas = document.querySelectorAll("canvas")[number];
  const image = canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 2, 1, 1);
  return Array.from(image.data).slice(0, 3);
}
function state() {
  return { frame: Number(slider.value), pixel: pixel(1), now: now.textContent,
           score: document.querySelectorAll(".score")[1].textContent,
           border: getComputedStyle(document.querySelector("canvas")).borderTopColor,
           button: play.textContent };
}
window.addEventListener("load", () => setTimeout(() => {
  const canvases = document.querySelectorAll("canvas").length;
  const seen = { start: state(), canvases, last: Number(slider.max) };
  slider.value = 18; slider.dispatchEvent(new Event("input")); seen.slider = state();
  slider.value = 0; slider.dispatchEvent(new Event("input")); seen.given = state();
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
  seen.right = state();
  play.click(); seen.button = play.textContent;
  setTimeout(() => {
    play.click(); seen.played = state();
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key: " ", bubbles: true }));
    seen.space = play.textContent;
    seen.errors = errors;
    parent.postMessage(JSON.stringify(seen), "*");
  }, 70);
}, 200));
</script>"""


FRAME = """<!doctype html><body style="margin: 0">
<iframe src="report.html" style="width: {width}px; height: 900px; border: 0">
</iframe><pre id="seen"></pre><script>
window.addEventListener("message", event => {{ document.getElementById("seen").textContent = event.data; }});
</script></body>"""


def browse(page: str, folder: Path, script: str, width: int = 1280) -> dict:
    """Return what `script` posts from the page in a frame so many pixels wide.

    Chromium's own window is never narrower than 500.
    """
    (folder / "report.html").write_text(page.replace("</body>", script + "</body>"))
    path = folder / "frame.html"
    path.write_text(FRAME.format(width=width))
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-sync",
    ]
    command += [
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={folder / 'profile'}",
    ]
    command += ["--window-size=1400,1000", "--virtual-time-budget=4000", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="seen">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found.group(1)))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_in_a_browser(page, tmp_path):
    seen = browse(page, tmp_path, SCRIPT)
    assert seen["errors"] == [] and seen["canvases"] == 4 and seen["last"] == FRAMES - 1
    for name, frame in {"start": 2, "slider": 18, "given": 0, "right": 1}.items():
        assert seen[name]["frame"] == frame and seen[name]["pixel"] == list(COLOURS[frame]), name
    assert seen["slider"]["now"] == "frame 18, predicted 17 of 18" and seen["slider"]["score"] == "14.0 dB"
    assert seen["given"]["now"] == "frame 0, given" and seen["given"]["score"] == ""
    assert seen["given"]["border"] == "rgb(0, 158, 115)" and seen["slider"]["border"] == "rgb(213, 94, 0)"
    assert seen["button"] == "Pause" and seen["played"]["button"] == "Play" and seen["space"] == "Pause"
    assert seen["played"]["frame"] != 1 and seen["played"]["pixel"] == list(COLOURS[seen["played"]["frame"]])


LAYOUT = """
<script>
window.addEventListener("load", () => setTimeout(() => {
  document.querySelectorAll("details").forEach(details => { details.open = true; });
  setTimeout(() => {
    const box = element => { const { left, right, top, bottom, width } = element.getBoundingClientRect();
                             return { left, right, top, bottom, width }; };
    const shown = element => getComputedStyle(element).display !== "none"
      && element.getClientRects().length > 0;
    const texts = Array.from(document.querySelectorAll("svg")).filter(shown)
      .map(svg => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width);
    const seen = {
      inner: innerWidth, page: document.documentElement.scrollWidth,
      canvases: Array.from(document.querySelectorAll("canvas")).map(box),
      scrolls: document.querySelectorAll(".scrolls").length,
      hints: Array.from(document.querySelectorAll(".hint")).filter(shown).length,
      sticky: getComputedStyle(document.querySelector(".scroll td")).position,
      wide: Array.from(document.querySelectorAll(".wide")).filter(shown).length,
      narrow: Array.from(document.querySelectorAll(".narrow")).filter(shown).length,
      scales: texts,
    };
    parent.postMessage(JSON.stringify(seen), "*");
  }, 100);
}, 200));
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
@pytest.mark.parametrize("width", [360, 390, 720, 1280])
def test_on_screens_of_all_sizes(width, tmp_path):
    """Only tables are wider than the screen, and say so; truth and prediction share a row; curves fit."""
    long = "a/very_long/name" * 12
    main = [panel(name) for name in ("truth", "pred", "error", "rec", "copy")]
    sequence = Group(f"best: {long}", [Row(main), Row([panel("best")] * 7, "samples", is_small=True)])
    tables = {"Configuration": Table(["flag", "value"], [["data_root", long]])}
    scores = {"a run": made_up()}
    figures = {"Scores": figure_svg("scores", frame_curves(scores), frame_curves(scores, across=1))}
    page = build_report(long, made_up(), [sequence], figures, tables, fps=50, times=list(range(FRAMES)))
    seen = browse(page, tmp_path, LAYOUT, width)
    truth, prediction = seen["canvases"][:2]
    assert seen["inner"] == width and seen["page"] <= width
    assert truth["top"] == prediction["top"] and truth["right"] < prediction["left"]
    assert all(
        canvas["left"] >= 0 and canvas["right"] <= width and canvas["width"] >= 90
        for canvas in seen["canvases"]
    )
    assert truth["width"] >= 150
    is_narrow = width <= 720
    assert (seen["wide"], seen["narrow"]) == ((0, 1) if is_narrow else (1, 0))
    assert all(
        scale >= 0.8 * 96 / 72 for scale in seen["scales"]
    )  # pixels a point: text of 9 points has at least 9.6 pixels
    if width <= 390:  # only the table of scores
        assert (seen["scrolls"], seen["hints"], seen["sticky"]) == (1, 1, "sticky")
    elif width == 1280:
        assert (seen["scrolls"], seen["hints"], seen["sticky"]) == (0, 0, "static")


@pytest.mark.slow
def test_command(tmp_path, data_root, capsys):
    run = tmp_path / "run"
    assert train.main([*TINY.split(), "--data_root", str(data_root), "--log_dir", str(run)]) == 0
    assert report.main([str(run), "--n_sample", "4"]) == 0
    text = (run / "report_test_n4.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL).group(1))
    titles = [sequence["title"] for sequence in data["sequences"]]
    assert [title.split(":")[0] for title in titles] == ["best", "median", "worst"]
    labels = [panel["label"] for panel in data["sequences"][0]["rows"][1]["panels"]]
    assert [label.split(",")[0] for label in labels] == ["best", "2 of 4", "3 of 4", "worst"]
    values = [float(label.split(", ")[1].removesuffix(" dB")) for label in labels]
    assert data["sequences"][0]["rows"][0]["panels"][1]["scores"][-1].endswith(" dB here")
    assert values == sorted(values, reverse=True)
    scores = json.loads((run / "evaluation" / "test_n4.json").read_text())
    assert f"{scores['methods']['pred_best']['psnr']['mean']:.2f} [" in text and "recurrence" in text
    assert (
        capsys.readouterr()
        .out.rstrip()
        .splitlines()[-1]
        .startswith(f"written: {run / 'report_test_n4.html'}")
    )
    assert (
        report.main(
            [str(run), "--n_sample", "4", "--sequences", "3", "--out", str(tmp_path / "new" / "one.html")]
        )
        == 0
    )
    assert (tmp_path / "new" / "one.html").exists()
