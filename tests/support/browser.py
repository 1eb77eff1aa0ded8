"""Chromium without a window, driven through its DevTools protocol over two pipes."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from queue import Empty, Queue
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
PATIENCE = 240
"""Seconds until an answer that does not come fails the test."""


class Browser:
    """One page in a browser of its own; ``with Browser(folder) as page``.

    Args:
        folder: for its profile.

    `events` are those of DevTools so far, such as ``Network.requestWillBeSent``.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.events: list[dict[str, Any]] = []
        self._numbers = itertools.count(1)
        self._answers: Queue[dict[str, Any]] = Queue()

    def __enter__(self) -> "Browser":
        # Chromium reads its descriptor 3 and writes 4
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        shell = f"exec {CHROMIUM} {' '.join(FLAGS)} --user-data-dir={self.folder / 'profile'} about:blank"
        self._process = subprocess.Popen(
            ["bash", "-c", f"exec 3<&{to_browser} 4>&{from_browser}; {shell}"],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        threading.Thread(target=self._listen, daemon=True).start()
        targets = self._call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = None
        self._session = self._call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")
        self._call("Page.setLifecycleEventsEnabled", enabled=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)
        os.close(self._write)

    def open(self, place: Path | str, width: int, height: int, is_dark: bool = False) -> None:
        """Open a file or an address in a window of this size and wait until it is read."""
        self.resize(width, height, is_dark)
        self.events.clear()
        url = place if isinstance(place, str) else place.as_uri()
        loader = self._call("Page.navigate", url=url)["loaderId"]
        end = time.monotonic() + PATIENCE
        while not self._is_loaded(loader):
            assert time.monotonic() < end, f"{place} does not open"
            time.sleep(0.02)

    def _is_loaded(self, loader: str) -> bool:
        """Return whether this page is read; the load event of the page before may come late."""
        ends = (event["params"] for event in list(self.events) if event["method"] == "Page.lifecycleEvent")
        return any(end["name"] == "load" and end["loaderId"] == loader for end in ends)

    def before_page(self, script: str) -> None:
        """Run a script in every page that is opened from now on, before its own."""
        self._call("Page.addScriptToEvaluateOnNewDocument", source=script)

    def resize(self, width: int, height: int, is_dark: bool = False) -> None:
        """Give the page another size and one of the two colour schemes."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def evaluate(self, script: str) -> Any:
        """Return what an expression, awaited, is in the page. Raises `AssertionError` if it throws."""
        answer = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def mouse(self, kind: str, x: float, y: float) -> None:
        """Send ``mousePressed``, ``mouseMoved`` or ``mouseReleased`` at a place of the window."""
        held = {"button": "left", "buttons": 0 if kind == "mouseReleased" else 1, "clickCount": 1}
        self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **held)

    def touch(self, kind: str, points: list[tuple[float, float]]) -> None:
        """Send ``touchStart``, ``touchMove`` or ``touchEnd`` with fingers at these places."""
        fingers = [{"x": x, "y": y} for x, y in points]
        self._call("Input.dispatchTouchEvent", type=kind, touchPoints=fingers)

    def key(self, kind: str, key: str) -> None:
        """Send ``keyDown`` or ``keyUp`` of a key, such as ``ArrowLeft``."""
        code = {" ": 32, "Tab": 9, "Enter": 13, "Escape": 27}.get(key, 0)
        text = {"text": key if key == " " else "\r"} if key in (" ", "Enter") and kind == "keyDown" else {}
        self._call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Save what the window, or the `whole` page, shows as a PNG."""
        answer = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def requests(self) -> list[str]:
        """Return the addresses that were asked for."""
        sent = [event for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def errors(self) -> list[str]:
        """Return the errors and warnings on the console, and exceptions that nothing caught."""
        kinds = {"Runtime.exceptionThrown": lambda event: True}
        kinds["Runtime.consoleAPICalled"] = lambda event: event["type"] in ("error", "warning", "assert")
        kinds["Log.entryAdded"] = lambda event: event["entry"]["level"] in ("error", "warning")
        return [
            json.dumps(event["params"])
            for event in self.events
            if event["method"] in kinds and kinds[event["method"]](event["params"])
        ]

    def _call(self, method: str, **values: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": values}
        if getattr(self, "_session", None):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            try:
                answer = self._answers.get(timeout=PATIENCE)
            except Empty:
                raise AssertionError(f"no answer to {method}") from None
            if answer["id"] == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _listen(self) -> None:
        with open(self._read, "rb", buffering=0) as pipe:
            rest = b""
            while piece := pipe.read(2**16):
                *messages, rest = (rest + piece).split(b"\0")
                for message in map(json.loads, messages):
                    if "id" in message:
                        self._answers.put(message)
                    else:
                        self.events.append(message)
