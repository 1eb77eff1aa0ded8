"""The report: what stands in it, and what a browser makes of it."""

import base64
import html
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from test_commands import TINY
from test_results import made_up

from experiments import report, train
from svg.report import HEAT_LIMIT, Panel, ShownSequence, build_report, error_map
from svg.tables import Table

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FRAMES = 20
COLOURS = [(10 * frame, 200 - 10 * frame, 100) for frame in range(FRAMES)]
TITLE = "best </script> <!--<script> sequence"


def panel(label: str, scores: list[str] = ()) -> Panel:
    """Every frame in one colour of its own."""
    frames = np.zeros((FRAMES, 16, 16, 3), np.uint8)
    for frame, colour in enumerate(COLOURS):
        frames[frame] = colour
    return Panel(label, frames, list(scores))


@pytest.fixture(scope="module")
def page() -> str:
    scores = ["", "", *(f"{30 - frame}.0 dB" for frame in range(FRAMES - 2))]
    sequence = ShownSequence(TITLE, [panel("truth"), panel("pred", scores)], [panel("best"), panel("worst")])
    tables = {"Configuration": Table(["flag", "value"], [["lr", "0.002"]])}
    return build_report("a <b> run", made_up(), [sequence], {"Curves": "<svg></svg>"}, tables, fps=50, times=list(range(FRAMES)))


def test_contents(page):
    assert "a &lt;b&gt; run" in page and "<b> run" not in page
    assert "pred (best of 10)" in page and "2 given, 3 predicted" in page and "0.002" in page and "data range 1" in page
    assert not re.search(r"<!--[A-Z]+-->", page)
    assert not re.search(r'(src|href)="?(http|/)', page)  # nothing from elsewhere
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))
    assert data["sequences"][0]["title"] == TITLE and data["given"] == 2
    sprite = data["sequences"][0]["main"][1]["sprite"].removeprefix("data:image/png;base64,")
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(sprite))))
    places = [(16 * (frame // 16) + 8, 16 * (frame % 16) + 8) for frame in range(FRAMES)]  # 16 in a row
    assert picture.shape == (32, 256, 3) and [tuple(picture[place]) for place in places] == COLOURS


def test_error_map():
    truth = np.zeros((1, 2, 2, 3), np.uint8)
    video = truth.copy()
    video[0, 0, 1] = round(255 * HEAT_LIMIT / 2)
    video[0, 1, 1] = 255
    colours = error_map(video, truth)[0]
    assert colours[0, 0].max() <= 4 and colours[1, 1].tolist() == pytest.approx([252, 255, 164], abs=1)  # the ends of inferno
    assert 4 < colours[0, 1].max() < 255


SCRIPT = """
<script>
const errors = [];
window.onerror = message => errors.push(String(message));
function pixel(number) {
  const canvas = document.querySelectorAll("canvas")[number];
  return Array.from(canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data).slice(0, 3);
}
function state() {
  return { frame: Number(slider.value), pixel: pixel(1), now: now.textContent,
           score: document.querySelectorAll(".score")[1].textContent,
           border: getComputedStyle(document.querySelector("canvas")).borderTopColor, button: play.textContent };
}
window.addEventListener("load", () => setTimeout(() => {
  const seen = { start: state(), canvases: document.querySelectorAll("canvas").length, last: Number(slider.max) };
  slider.value = 18; slider.dispatchEvent(new Event("input")); seen.slider = state();
  slider.value = 0; slider.dispatchEvent(new Event("input")); seen.given = state();
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true })); seen.right = state();
  play.click(); seen.button = play.textContent;
  setTimeout(() => {
    play.click(); seen.played = state();
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key: " ", bubbles: true })); seen.space = play.textContent;
    seen.errors = errors;
    const out = document.createElement("pre");
    out.id = "seen";
    out.textContent = JSON.stringify(seen);
    document.body.appendChild(out);
  }, 70);
}, 200));
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_in_a_browser(page, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page.replace("</body>", SCRIPT + "</body>"))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    command += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=4000", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    seen = json.loads(html.unescape(found.group(1)))
    assert seen["errors"] == [] and seen["canvases"] == 4 and seen["last"] == FRAMES - 1
    for name, frame in {"start": 2, "slider": 18, "given": 0, "right": 1}.items():
        assert seen[name]["frame"] == frame and seen[name]["pixel"] == list(COLOURS[frame]), name
    assert seen["slider"]["now"] == "frame 18, predicted 17 of 18" and seen["slider"]["score"] == "14.0 dB"
    assert seen["given"]["now"] == "frame 0, given" and seen["given"]["score"] == ""
    assert seen["given"]["border"] == "rgb(0, 158, 115)" and seen["slider"]["border"] == "rgb(213, 94, 0)"
    assert seen["button"] == "Pause" and seen["played"]["button"] == "Play" and seen["space"] == "Pause"
    assert seen["played"]["frame"] != 1 and seen["played"]["pixel"] == list(COLOURS[seen["played"]["frame"]])


def test_command(tmp_path, data_root, capsys):
    run = tmp_path / "run"
    assert train.main([*TINY.split(), "--data_root", str(data_root), "--log_dir", str(run)]) == 0
    assert report.main([str(run), "--n_sample", "4"]) == 0
    text = (run / "report_test_n4.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL).group(1))
    titles = [sequence["title"] for sequence in data["sequences"]]
    assert [title.split(":")[0] for title in titles] == ["best", "median", "worst"]
    labels = [panel["label"] for panel in data["sequences"][0]["samples"]]
    assert [label.split(",")[0] for label in labels] == ["best", "2 of 4", "3 of 4", "worst"]
    values = [float(label.split(", ")[1].removesuffix(" dB")) for label in labels]
    assert data["sequences"][0]["main"][1]["scores"][-1].endswith(" dB here")
    assert values == sorted(values, reverse=True)
    scores = json.loads((run / "evaluation" / "test_n4.json").read_text())
    assert f"{scores['methods']['pred_best']['psnr']['mean']:.2f} [" in text and "recurrence" in text
    assert capsys.readouterr().out.rstrip().splitlines()[-1].startswith(f"written: {run / 'report_test_n4.html'}")
    assert report.main([str(run), "--n_sample", "4", "--sequences", "3", "--out", str(tmp_path / "new" / "one.html")]) == 0
    assert (tmp_path / "new" / "one.html").exists()
