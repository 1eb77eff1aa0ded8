"""The served page: what is behind it, who gets an answer, and how it is driven beside the simulator."""

import contextlib
import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import urllib.parse
import urllib.request

import numpy as np
import pytest

import svg
from experiments import play
from svg.play.engines import ModelEngine, SimulatorEngine, States
from svg.play.scenes import Scene, read_scenes
from svg.play.server import MOST_BYTES, PlayServer
from svg.sequences import SequenceDataset
from tests.play.test_play_page import pixels, press, wait
from tests.support.browser import CHROMIUM, PATIENCE, Browser
from tests.support.places import ROOT

SEED = 2000
FRAMES = 8

# ------------------------------------------------------------------------------------------ what is behind it


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> list[Scene]:
    pytest.importorskip("mujoco")
    from data_tools.simulators import push

    root = tmp_path_factory.mktemp("scenes") / "push"
    push.simulate(root, 2, SEED, (0, 0, 1), 64, FRAMES, 1)
    return read_scenes(SequenceDataset(root, "test", FRAMES), 2)


def shown(engine, state, actions) -> tuple[np.ndarray, list]:
    """Return frames [T,C,H,W] of these actions, one after the other, and the states between them."""
    frames, states = [], [state]
    for action in actions:
        frame, state = engine.step(state, action, None)
        frames.append(frame)
        states.append(state)
    return np.stack(frames), states


def test_the_simulator_goes_on_as_the_recording_did(scenes):
    """Bit for bit, also from a state in the middle after others were visited."""
    engine = SimulatorEngine(SEED, scenes, 2)
    starts = [engine.start(number) for number in range(2)]
    states = []
    for scene, start in zip(scenes, starts, strict=True):
        recorded = scene.frames[2:].transpose(0, 3, 1, 2).astype(np.float32) / 255
        frames, between = shown(engine, start, scene.actions[1:-1])
        np.testing.assert_array_equal(frames, recorded)
        states.append(between)
        other, _ = shown(engine, between[3], [[0.05, 0.05, 3, 1]])
        assert np.abs(other[0] - recorded[3]).max() > 0.2
    for scene, between in zip(scenes, states, strict=True):
        again, _ = shown(engine, between[3], scene.actions[4:-1])
        np.testing.assert_array_equal(again, scene.frames[5:].transpose(0, 3, 1, 2).astype(np.float32) / 255)


def test_chance_follows_from_the_seed(scenes):
    model = svg.load("push-sim", device="cpu", precision="float32")
    engine = ModelEngine(model, scenes, 2)
    start = engine.start(1)
    condition = scenes[1].conditions[1]
    mean, one, again, other = (engine.step(start, condition, seed)[0] for seed in (None, 5, 5, 6))
    np.testing.assert_array_equal(one, again)
    assert min(np.abs(one - mean).max(), np.abs(one - other).max()) > 1e-3


class Sum:
    """An engine that adds up: the state is the sum of all numbers, and so is every pixel."""

    def start(self, scene):
        return 100.0 * scene

    def step(self, state, condition, seed):
        total = state + condition.sum() + (seed or 0)
        return np.full((3, 2, 2), total), total


def test_states_that_were_not_used_for_long_are_forgotten():
    states = States(Sum(), scenes=2, columns=2, most=2)

    def step(state: int) -> tuple[float, int]:
        frame, number = states.step({"state": state, "condition": [1, 2]})
        return frame[0, 0, 0], number

    assert [step(1), step(0), step(2)] == [(103, 2), (3, 3), (106, 4)]  # 3 is forgotten, not 2
    with pytest.raises(svg.InputError, match="this frame is too old to go on from"):
        step(3)
    assert [step(2), step(1), step(5)] == [(106, 5), (103, 6), (109, 7)]


# ---------------------------------------------------------------------------------------- who gets an answer


@pytest.fixture(scope="module")
def server():
    with PlayServer("<p>page</p>", {"model": States(Sum(), 1, 2)}) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def ask(server, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers["State"]


def test_page_and_steps(server):
    assert ask(server, "GET", server.root)[:2] == (200, b"<p>page</p>")
    host = f"localhost:{server.server_port}"
    wanted = b'{"state": 0, "condition": [1, 0.5], "seed": 7}'
    status, body, number = ask(server, "POST", f"{server.root}model", wanted, Host=host)
    assert (status, np.frombuffer(body, "<f4").tolist()) == (200, [8.5] * 12)
    wanted = json.dumps({"state": int(number), "condition": [0, 1]}).encode()
    assert np.frombuffer(ask(server, "POST", f"{server.root}model", wanted)[1], "<f4")[0] == 9.5


def test_others_are_answered_nothing(server):
    wanted = b'{"state": 0, "condition": [1, 1]}'
    port = server.server_port
    wrong = f"/{'A' * (len(server.root) - 2)}/"
    for path in ("/", wrong, server.root.rstrip("/"), f"{server.root}simulator"):
        assert ask(server, "GET", path) == (404, b"nothing here", None)
    for path in ("/model", f"{wrong}model", server.root):
        assert ask(server, "POST", path, wanted) == (404, b"nothing here", None)
    for host in (f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", ""):
        for method, name in (("GET", ""), ("POST", "model")):
            found = ask(server, method, f"{server.root}{name}", wanted, Host=host)
            assert found == (403, b"another host", None)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "request: found no JSON (Expecting value: line 1 column 1 (char 0))"),
        (b"\xff", "request: found no JSON"),
        (b"[" * MOST_BYTES, "request: found no JSON"),
        (b"[0]", "expected an object with named values"),
        (b'{"condition": [0, 0]}', "state"),
        (b'{"state": 99, "condition": [0, 0]}', "this frame is too old to go on from"),
        (b'{"state": -1, "condition": [0, 0]}', "state"),
        (b'{"state": 0.5, "condition": [0, 0]}', "state"),
        (b'{"state": 0, "condition": [0]}', "condition: found 1 numbers, expected 2"),
        (b'{"state": 0, "condition": [0, NaN]}', "condition"),
        (b'{"state": 0, "condition": [0, 1e999]}', "condition"),
        (b'{"state": 0, "condition": [0, "a"]}', "condition"),
        (b'{"state": 0, "condition": [0, 0], "seed": -1}', "seed"),
        (b'{"state": 0, "condition": [0, 0], "more": 1}', "more"),
    ],
)
def test_malformed_requests_are_one_line(server, body, reason):
    status, answer, number = ask(server, "POST", f"{server.root}model", body)
    assert (status, number) == (400, None)
    assert reason in answer.decode() and len(answer.splitlines()) == 1


def test_long_requests_are_not_read(server):
    path = f"{server.root}model"
    reason = b"expected at most 4096 bytes, and a header Content-Length"
    for length in ("4097", "99999999999", "-1", "x"):
        assert ask(server, "POST", path, b"", **{"Content-Length": length})[:2] == (413, reason)
    chunks = {"Transfer-Encoding": "chunked"}
    assert ask(server, "POST", path, b"2\r\n{}\r\n0\r\n\r\n", **chunks)[:2] == (413, reason)


def test_flags_that_exclude_each_other_are_one_line(server, data_root, capsys):
    def refused(*flags: str) -> str:
        assert play.main(["push-sim", *flags]) == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1
        return error

    assert "--simulate: expected --serve beside it" in refused("--simulate")
    assert "--out: expected no --serve beside it" in refused("--serve", "--out", "page.html")
    flags = ("--serve", "--simulate", "--data_root", str(data_root))
    assert "--simulate: expected no --data_root beside it" in refused(*flags)
    assert "--port: found 65536, expected 0 to 65535" in refused("--serve", "--port", "65536")
    with pytest.raises(svg.InputError, match=f"port: found {server.server_port}, which cannot be had"):
        PlayServer("", {}, server.server_port)


# ---------------------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def address():
    """The address of a server with a simulator, which Ctrl-C then ends."""
    pytest.importorskip("mujoco")
    words = ["push-sim", "--serve", "--simulate", "--scenes", "2", "--frames", str(FRAMES), "--device", "cpu"]
    command = subprocess.Popen(
        [sys.executable, "-m", "experiments.play", *words], cwd=ROOT, stdout=-1, stderr=-1, text=True
    )
    try:
        lines = iter(command.stdout.readline, "")
        yield next(filter(None, (re.search(r"on cpu: (http://127\S+/) ", line) for line in lines)))[1]
    finally:
        command.send_signal(signal.SIGINT)
        _, error = command.communicate(timeout=PATIENCE)
    assert (command.returncode, error) == (130, "svg-play: interrupted\n")


@pytest.fixture
def page(address, tmp_path):
    with Browser(tmp_path) as page:
        page.open(address, 1440, 900)
        page.evaluate("svgPlay.ready")
        yield page
        assert {urllib.parse.urlsplit(place).netloc for place in page.requests()} == {
            urllib.parse.urlsplit(address).netloc,
            "",  # pictures in the page itself
        }


def go(page: Browser, key: str, count: int) -> None:
    """Hold an arrow key until the film has `count` frames or more."""
    page.key("keyDown", key)
    wait(page, f"app.drive.length >= {count}")
    page.key("keyUp", key)
    wait(page, "!app.driving")


def expected(scene: Scene, actions: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Return what the model imagines and what the simulator shows, [T,3,64,64], of the first scene."""
    from data_tools.simulators.push import make_scene

    pusher, _, renderer = make_scene(SEED, 0, 64)
    pusher.step(scene.actions[0])
    truth = []
    for action in actions:
        pusher.step(np.array(action))
        truth.append(renderer.render(pusher.data).transpose(2, 0, 1).astype(np.float32) / 255)
    commands = np.array(actions, np.float32)
    places = svg.integrate_positions(scene.positions[1], commands, targets=[svg.SIMULATED_HEIGHT])
    conditions = np.concatenate([scene.conditions[:1], np.concatenate([commands, places], -1)])
    model = svg.load("push-sim", device="cpu", precision="float32")
    imagined = model.predict(scene.frames[:2], conditions, len(actions), latent="mean")
    return imagined[0].transpose(0, 3, 1, 2), np.stack(truth)


def check(page: Browser, scene: Scene) -> np.ndarray:
    """Compare the film with model and simulator; return what is imagined."""
    actions = page.evaluate("app.drive.slice(2).map(frame => frame.action)")
    imagined, truth = expected(scene, actions)
    found = pixels(page, "app.drive.slice(2)")
    assert np.abs(found - imagined).max() < 1e-5
    np.testing.assert_array_equal(pixels(page, "app.drive.slice(2).map(frame => frame.simulated)"), truth)
    return found


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_model_and_simulator_side_by_side(page, scenes):
    """Through drive, undo and fork; other futures differ; nothing is wider than a small window."""
    go(page, "ArrowUp", 5)
    press(page, "3")
    wait(page, "!app.driving && app.drive.length >= 8")
    press(page, "z")
    press(page, "z")
    go(page, "ArrowLeft", 9)
    first = check(page, scenes[0])
    scores = pytest.importorskip("skimage.metrics")
    page.evaluate("show(6)")
    score = scores.peak_signal_noise_ratio(
        pixels(page, "[app.drive[6].simulated]")[0], first[4], data_range=1
    )
    wait(page, f"document.querySelector('.note').textContent === '{score:.1f} dB PSNR'")
    labels = "Array.from(document.querySelectorAll('figcaption, .strip > .words'), part => part.textContent)"
    assert page.evaluate(labels) == ["imagined", "simulated", "difference", "your film", "simulated"]
    page.evaluate("show(3)")
    press(page, "f")
    wait(page, "app.mode === 'fork' && app.drive.length === 4")
    go(page, "ArrowRight", 7)
    other = check(page, scenes[0])
    np.testing.assert_array_equal(other[:2], first[:2])
    assert np.abs(other[4] - first[4]).max() > 0.2
    page.resize(390, 844)
    wait(page, "document.querySelectorAll('#stage canvas').length === 6")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    press(page, "s")
    wait(page, "app.futures.length === 4 && app.futures.every(frames => frames.length === app.drive.length)")
    futures = [pixels(page, f"app.futures[{number}].slice(2)") for number in range(2)]
    assert np.abs(futures[0] - futures[1]).max() > 1e-3
    assert page.errors() == []


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_a_frame_that_is_too_old(page):
    page.evaluate("void (now().state = { state: 999999 })")
    press(page, "x")
    reason = "this frame is too old to go on from; choose a later one, or start over"
    wait(page, f"byId('status').textContent === 'The model stopped: {reason}'")
    page.evaluate("chooseScene(1)")
    press(page, "x")
    wait(page, "!app.driving && app.drive.length === 3 && byId('status').hidden")
