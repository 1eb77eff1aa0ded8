"""Measure a page of ``svg-play`` in Chromium: ``python -m tests.play.measure PAGE.html``, or its address.

Prints medians over several openings: until the scene is seen, the model is ready and has imagined a frame,
from the opening of the page; and how long a frame takes, also the fastest, which other work disturbs least.
Without a page: how long a server takes that computes nothing.
"""

import statistics
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from data_tools.command import tell
from svg.play.engines import States
from svg.play.server import PlayServer
from tests.support.browser import Browser

OPENINGS = 5
SCRIPT = """(async () => {
  await svgPlay.ready;
  const ready = performance.now();
  const times = [];
  let frame = now();
  for (let count = 0; count < 30; count++) {
    const began = performance.now();
    frame = await imagine(frame, [0.01, 0, 0, 0]);
    times.push(performance.now() - began);
  }
  const seen = performance.getEntriesByName("first-contentful-paint")[0].startTime;  // is noted late
  return [seen, ready, ready + times[0], ...times.slice(1)];
})()"""


TRIPS = """(async () => {
  const times = [];
  for (let count = 0; count < 300; count++) {
    const began = performance.now();
    const body = JSON.stringify({ state: 0, condition: [0.01, 0, 0, 0, 0.1, 0.2, 0.3] });
    await (await fetch("model", { method: "POST", body })).arrayBuffer();
    times.push(performance.now() - began);
  }
  return times;
})()"""


class Idle:
    """An engine that computes nothing."""

    def start(self, scene: int) -> None:
        """Begin with nothing."""

    def step(self, state: None, condition: np.ndarray, seed: int | None) -> tuple[np.ndarray, None]:
        """Return a black picture."""
        return np.zeros((3, 64, 64)), None


def measure(page: Path | str, script: str = SCRIPT) -> list[float]:
    """Return milliseconds until the scene is seen, the model ready and a frame imagined; then of frames."""
    with tempfile.TemporaryDirectory() as folder, Browser(Path(folder)) as browser:
        browser.open(page, 1440, 900)
        return browser.evaluate(script)


def measure_trips() -> list[float]:
    """Return milliseconds from asking a server for a picture until it is there."""
    with PlayServer("<link rel=icon href=data:,>", {"model": States(Idle(), 1, 7)}) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        times = measure(server.address, TRIPS)
        server.shutdown()
    return times


def main(place: str | None = None) -> None:
    """Measure and print."""
    if place is None:
        times = measure_trips()
        tell(f"a round trip {statistics.median(times):.1f} ms, the fastest {min(times):.1f} ms")
        return
    page = place if place.startswith("http:") else Path(place).resolve()
    rows = [measure(page) for _ in range(OPENINGS)]
    seen, ready, first = (statistics.median(row[part] for row in rows) / 1000 for part in range(3))
    frames = [time for row in rows for time in row[3:]]
    tell(f"seen after {seen:.1f} s, ready after {ready:.1f} s, first imagined frame after {first:.1f} s")
    usual, least = statistics.median(frames), min(frames)
    tell(f"a frame in {usual:.0f} ms ({1000 / usual:.0f} a second), the fastest in {least:.0f} ms")


if __name__ == "__main__":
    main(*sys.argv[1:2])
