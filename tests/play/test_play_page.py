"""The page of ``svg-play`` in a browser: what is imagined there beside PyTorch, and what people do."""

import base64
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import svg
from data_tools.camera import Camera
from experiments import play
from svg.play.page import STEP
from svg.runs import graphs
from svg.sequences import SequenceDataset
from tests.support.browser import CHROMIUM, PATIENCE, Browser

FRAMES = 30
FLAGS = ["--scenes", "2", "--frames", str(FRAMES), "--split", "train"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    pytest.importorskip("mujoco")
    from data_tools.simulators import push

    root = tmp_path_factory.mktemp("scenes") / "push"
    push.simulate(root, 2, 2000, (1, 0, 0), 64, FRAMES, 1)
    return root


@pytest.fixture(scope="module")
def pages(scenes, push_sim_graphs, tmp_path_factory) -> dict[str, Path]:
    """The page with weights in float16 and in float32; both are made of graphs that are exported once."""

    def copy(model, folder: Path, *_) -> None:
        shutil.copytree(push_sim_graphs, folder, dirs_exist_ok=True)

    folder = tmp_path_factory.mktemp("pages")
    made = {name: folder / f"{name}.html" for name in ("float16", "float32")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "write_graphs", copy)
        for name, path in made.items():
            flags = [*FLAGS, "--data_root", str(scenes), "--out", str(path)]
            assert play.main(["push-sim", *flags, *(["--float32"] if name == "float32" else [])]) == 0
    return made


@pytest.fixture(scope="module")
def browser(pages, tmp_path_factory):
    """The page with float16 weights, when the model runs."""
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        browser.open(pages["float16"], 1440, 900)
        browser.evaluate("svgPlay.ready")
        yield browser


@pytest.fixture
def page(browser):
    """It from the start, and after the test: no error on the console, and nothing asked of anybody else."""
    browser.evaluate("chooseScene(0)")
    yield browser
    assert browser.errors() == []
    assert {address.partition(":")[0] for address in browser.requests()} <= {"file", "blob", "data"}


def wait(page: Browser, condition: str) -> None:
    end = time.monotonic() + PATIENCE
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        time.sleep(0.05)


def live_picture(page: Browser) -> tuple[float, float, float]:
    """Return left, top and width of the picture that can be driven, within its border."""
    script = "(box => [box.left + 4, box.top + 4, box.width - 8])"
    return page.evaluate(f"{script}(document.querySelector('.live canvas').getBoundingClientRect())")


def press(page: Browser, key: str) -> None:
    page.key("keyDown", key)
    page.key("keyUp", key)


def pixels(page: Browser, frames: str) -> np.ndarray:
    """Return the pixels of a list of frames, float32 [T,3,64,64]."""
    script = f"""(frames => {{
      const bytes = frames.map(({{ pixels: {{ buffer, byteOffset, byteLength }} }}) =>
        new Uint8Array(buffer, byteOffset, byteLength));
      return bytes.map(part => btoa(Array.from(part, byte => String.fromCharCode(byte)).join("")));
    }})({frames})"""
    videos = [np.frombuffer(base64.b64decode(part), np.float32) for part in page.evaluate(script)]
    return np.stack(videos).reshape(-1, 3, 64, 64)


@pytest.fixture(scope="module")
def expected(scenes) -> np.ndarray:
    """Return what PyTorch predicts of the first scene from its first two frames and its actions."""
    clip = SequenceDataset(scenes, "train", FRAMES).batch([(0, 0)])
    model = svg.load("push-sim", device="cpu", precision="float32")
    start = model.observe(clip["frames"][:, :2], clip["conditions"])
    actions = clip["conditions"][:, 1:-1, :4]
    positions = svg.integrate_positions(clip["conditions"][:, 1, 4:], actions, targets=[svg.SIMULATED_HEIGHT])
    with torch.no_grad():
        return model.imagine(start, torch.cat([actions, positions], -1)[:, None])[0, 0].numpy()


def test_it_imagines_what_pytorch_does(page, scenes, expected):
    page.evaluate("enter('truth')")
    wait(page, f"app.replay.length === {FRAMES}")
    found = pixels(page, "app.replay")
    truth = SequenceDataset(scenes, "train", FRAMES).read_frames(0, 0, FRAMES).numpy() / 255
    np.testing.assert_allclose(found[:2], truth[:2], atol=1e-7)
    assert np.abs(expected[-1] - truth[1]).max() > 0.3  # something moves
    assert 1e-5 < np.abs(found[2:] - expected).max() < 4e-3  # one level of 8 bits: weights are rounded
    # the score beside it is that of scikit-image
    metrics = pytest.importorskip("skimage.metrics")
    scores = [
        metrics.peak_signal_noise_ratio(a, b, data_range=1) for a, b in zip(truth[2:], found[2:], strict=True)
    ]
    page.evaluate("stopPlaying(), show(20)")
    note = page.evaluate("psnrNote(20)")
    assert note == f"{scores[18]:.1f} dB PSNR, mean {np.mean(scores[:19]):.1f}"
    wait(page, f"document.querySelectorAll('.note')[1].textContent === {note!r}")


def test_it_imagines_what_pytorch_does_to_the_last_digits(pages, expected, tmp_path):
    with Browser(tmp_path) as page:
        page.open(pages["float32"], 800, 800)
        page.evaluate("svgPlay.ready")
        page.evaluate("replayed().then(() => 0)")
        found = pixels(page, "app.replay.slice(2)")
        assert np.abs(found - expected).max() < 1e-4
        assert page.errors() == []


def test_size(pages):
    sizes = {name: path.stat().st_size / 1e6 for name, path in pages.items()}
    assert sizes["float16"] < 6.7 < sizes["float32"] < 9.5
    text = pages["float16"].read_text()
    assert "The above copyright notice and this permission notice" in text  # of ONNX Runtime
    assert not re.search(r'(src|href)="?(http|/)', text)


# --------------------------------------------------------------------------------------------- what people do


def at(page: Browser, place: list[float], z: float) -> tuple[float, float]:
    """Return where in the window a place on the table, in metres, is seen."""
    left, top, width = live_picture(page)
    right, down = (Camera().project([*place, z], 64, 64) + 0.5) * width / 64
    return left + right, top + down


def driven(page: Browser) -> tuple[np.ndarray, np.ndarray]:
    """Return the hand's positions [T,3] from the last seen frame on, and the actions [T-1,4] after it."""
    positions = np.array(page.evaluate("app.drive.slice(1).map(frame => frame.position)"))
    actions = page.evaluate("app.drive.slice(2).map(frame => frame.action)")
    return positions, np.array(actions).reshape(-1, 4)


@pytest.mark.parametrize("kind", ["mouse", "finger"])
def test_the_hand_follows_the_pointer(page, kind):
    """To where it is in the picture, at a limited speed; time stands still before and after."""
    start = np.array(page.evaluate("app.drive[1].position"))
    goal = [0.15 if start[0] < 0 else -0.15, -0.05]
    before = pixels(page, "app.drive.slice(-1)")
    if kind == "mouse":
        page.mouse("mousePressed", *at(page, start[:2], start[2]))
        page.mouse("mouseMoved", *at(page, goal, start[2]))
    else:
        page.touch("touchStart", [at(page, start[:2], start[2])])
        page.touch("touchMove", [at(page, goal, start[2])])
    wait(page, f"Math.hypot(now().position[0] - {goal[0]}, now().position[1] - {goal[1]}) < 0.01")
    if kind == "mouse":
        page.mouse("mouseReleased", *at(page, goal, start[2]))
    else:
        page.touch("touchEnd", [])
    wait(page, "!app.driving")
    positions, actions = driven(page)
    steps = np.linalg.norm(np.diff(positions[:, :2], axis=0), axis=1)
    assert steps.max() == pytest.approx(STEP) and len(steps) >= np.linalg.norm(start[:2] - goal) / STEP
    integrated = svg.integrate_positions(
        start, np.vstack([actions, actions[-1:]]), targets=[svg.SIMULATED_HEIGHT]
    )
    np.testing.assert_allclose(positions, integrated, atol=1e-6)
    assert np.abs(pixels(page, "app.drive.slice(-1)") - before).max() > 0.3
    count = page.evaluate("app.drive.length")
    page.evaluate("pause(300)")
    assert page.evaluate("app.drive.length") == count and page.evaluate("byId('hint').hidden")


def test_keys_alone(page):
    """Arrows, height, fingers, waiting, undo, start over: to the table's edge and not beyond."""
    page.key("keyDown", "ArrowRight")
    wait(page, "now().position[0] === about.reach[0] && app.drive.length > 4")
    page.key("keyUp", "ArrowRight")
    wait(page, "!app.driving")
    for key, condition in (
        ("3", "Math.abs(now().position[2] - 0.102) < 1e-9"),
        ("c", "now().action[3] === 1"),
        ("0", "Math.abs(now().position[2] - 0.012) < 1e-9"),
    ):
        press(page, key)
        wait(page, f"!app.driving && {condition}")
    count = page.evaluate("app.drive.length")
    press(page, "x")
    wait(page, f"!app.driving && app.drive.length === {count + 1}")
    positions, actions = driven(page)
    assert np.abs(np.diff(positions[:, 2])).max() == pytest.approx(
        0.045
    )  # metres a frame, as in the simulator
    assert (actions[:, 2] == 3).sum() == 5 and actions[-1].tolist() == [0, 0, 0, 1]
    press(page, "z")
    press(page, "Backspace")
    wait(page, f"app.time === {count - 2}")
    press(page, "x")  # goes on from there: what was undone is no longer
    wait(page, f"!app.driving && app.drive.length === {count}")
    page.evaluate("show(0)")
    press(page, "x")  # frame 0 has no state to go on from, frame 1 has
    wait(page, "!app.driving && app.drive.length === 3")
    press(page, "r")
    wait(page, "app.drive.length === 2 && app.time === 1 && app.lift === 0")
    for key, mode in (("t", "truth"), ("s", "futures"), ("d", "drive")):
        press(page, key)
        wait(page, f"app.mode === '{mode}'")
    assert page.evaluate("byId('hint').hidden")
    press(page, "i")
    wait(page, "byId('card').open")
    assert "Limitations" in page.evaluate("byId('card').innerText")
    press(page, "Escape")
    wait(page, "!byId('card').open")


def test_every_control_is_reached_by_tab(page):
    seen = set()
    page.evaluate("document.activeElement.blur()")
    for _ in range(40):
        press(page, "Tab")
        seen.add(
            page.evaluate(
                "document.activeElement.id || document.activeElement.getAttribute('aria-label')"
                " || document.activeElement.textContent"
            )
        )
    expected = {
        "info",
        "scene 1",
        "scene 2",
        "Drive",
        "What if",
        "Truth",
        "Four futures",
        "frame",
        "close",
        "wait",
    }
    expected |= {"0", "1", "2", "3", "reset", "speed", "imagined: drag the hand, or use the arrow keys"}
    assert expected <= seen
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_a_fork_has_the_same_beginning(page):
    page.key("keyDown", "ArrowLeft")
    wait(page, "app.drive.length >= 8")
    page.key("keyUp", "ArrowLeft")
    wait(page, "!app.driving")
    first = pixels(page, "app.drive")
    page.evaluate("show(4)")
    press(page, "f")
    wait(page, "app.mode === 'fork' && app.drive.length === 5")
    page.key("keyDown", "ArrowRight")
    wait(page, "app.drive.length >= 8")
    page.key("keyUp", "ArrowRight")
    wait(page, "!app.driving")
    kept, other = pixels(page, "app.kept"), pixels(page, "app.drive")
    np.testing.assert_array_equal(kept, first)
    np.testing.assert_array_equal(other[:5], first[:5])
    assert np.abs(other[7] - first[7]).max() > 0.2
    # its colour where they are most apart is that of the report's scale, inferno
    apart = np.abs(other[7] - first[7]).mean(0)
    place = int(apart.argmax())
    colours = pytest.importorskip("matplotlib").colormaps["inferno"](
        min(1.0, float(apart.max()) / 0.5), bytes=True
    )
    found = page.evaluate(
        f"Array.from(heat([app.kept[7], app.drive[7]]).data.slice(4 * {place}, 4 * {place} + 3))"
    )
    np.testing.assert_allclose(found, colours[:3], atol=12)
    assert page.evaluate("document.querySelectorAll('#stage canvas').length") == 3
    page.evaluate("document.querySelectorAll('.strip')[0].querySelectorAll('button')[3].click()")
    wait(page, "app.drive.length === 4 && app.forked === 3")


def test_four_futures_of_the_same_actions(page):
    press(page, "x")
    wait(page, "!app.driving && app.drive.length === 3")
    press(page, "s")
    wait(page, "app.futures.length === 4 && app.futures.every(frames => frames.length === 3)")
    futures = [pixels(page, f"app.futures[{number}]") for number in range(4)]
    for one, other in ((0, 1), (1, 2), (2, 3), (3, 0)):
        np.testing.assert_array_equal(futures[one][:2], futures[other][:2])
        assert np.abs(futures[one][2] - futures[other][2]).max() > 1e-3
    page.evaluate("byId('draw').click()")
    wait(page, "app.draws > 1 && app.futures.every(frames => frames.length === 3)")
    assert np.abs(pixels(page, "app.futures[0]")[2] - futures[0][2]).max() > 1e-3
    draws = np.array(page.evaluate("Array.from(normal(20000, 5))"))
    assert abs(draws.mean()) < 0.03 and abs(draws.std() - 1) < 0.03
    assert abs((np.abs(draws) < 1).mean() - 0.6827) < 0.015


def test_the_picture_that_is_shown(page, scenes):
    """The canvas has the colours of the frame, where smoothing adds little."""
    truth = SequenceDataset(scenes, "train", FRAMES).read_frames(0, 1, 2)[0].permute(1, 2, 0).numpy()
    page.evaluate("new Promise(requestAnimationFrame)")
    found = page.evaluate("""(canvas => {
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      const place = number => Math.floor((number + 0.5) * canvas.width / 64);
      return [[8, 8], [52, 12], [32, 60]].map(([x, y]) => 4 * (place(y) * canvas.width + place(x)))
        .map(start => Array.from(data.slice(start, start + 3)));
    })(document.querySelector(".live canvas"))""")
    np.testing.assert_allclose(found, [truth[8, 8], truth[12, 52], truth[60, 32]], atol=12)


def test_the_camera(page):
    places = np.array([[0.1, -0.15, 0.012], [-0.25, 0.1, 0.1], [0, 0, 0.05]])
    seen = Camera().project(places, 64, 64)
    np.testing.assert_allclose(page.evaluate(f"{places.tolist()}.map(project)"), seen, atol=1e-9)
    script = f"{seen.tolist()}.map((pixel, number) => unproject(pixel, {places[:, 2].tolist()}[number]))"
    np.testing.assert_allclose(page.evaluate(script), places[:, :2], atol=1e-9)


SIZES = [(390, 844), (768, 1024), (1440, 900)]
PARTS = """[document.documentElement.scrollWidth, document.documentElement.clientWidth,
  Array.from(document.querySelectorAll("button, select, figure canvas"))
    .filter(part => part.offsetParent && !part.closest("#scenes, .frames")).map(part => {
      const box = part.getBoundingClientRect();
      return [box.left, box.right, box.height, part.scrollWidth - part.clientWidth];
    })]"""


def test_layout(page):
    """Nothing is cut off or wider than the window, and all is large enough for a finger."""
    press(page, "x")
    wait(page, "!app.driving && app.drive.length === 3")
    for mode in ("drive", "fork", "futures", "truth"):
        page.evaluate(f"void enter('{mode}')")
        wait(page, f"app.mode === '{mode}'")
        for width, height in SIZES:
            page.resize(width, height)
            page.evaluate("new Promise(requestAnimationFrame).then(() => 0)")
            wide, inner, parts = page.evaluate(PARTS)
            assert wide <= inner, (mode, width)
            for left, right, tall, over in parts:
                assert left >= 0 and right <= inner and over <= 1 and tall >= 28, (mode, width)


def test_without_webassembly(pages, tmp_path):
    with Browser(tmp_path) as page:
        page.before_page("delete window.WebAssembly;")
        page.open(pages["float16"], 390, 844, is_dark=True)
        page.evaluate("svgPlay.ready")
        assert page.evaluate("byId('status').textContent") == (
            "The model cannot run here: WebAssembly is missing or switched off in this browser. "
            "A current Firefox or Chrome can."
        )
        assert page.evaluate("byId('loading').hidden && !byId('status').hidden")
        press(page, "ArrowLeft")
        press(page, "t")
        assert page.evaluate("[app.mode, app.drive.length]") == ["drive", 2] and page.errors() == []
