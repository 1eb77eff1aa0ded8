"""Measure a page of ``svg-play`` in Chromium: ``python -m tests.play.measure PAGE.html``.

Prints medians over several openings: until the scene is seen, the model is ready and has imagined a frame,
from the opening of the file; and how long a frame takes, also the fastest, which other work disturbs least.
"""

import statistics
import sys
import tempfile
from pathlib import Path

from data_tools.command import tell
from tests.support.browser import Browser

OPENINGS = 5
SCRIPT = """(async () => {
  const seen = performance.getEntriesByName("first-contentful-paint")[0].startTime;
  await svgPlay.ready;
  const ready = performance.now();
  const times = [];
  let frame = now();
  for (let count = 0; count < 30; count++) {
    const began = performance.now();
    frame = await imagine(frame, [0.01, 0, 0, 0]);
    times.push(performance.now() - began);
  }
  return [seen, ready, ready + times[0], ...times.slice(1)];
})()"""


def measure(page: Path) -> list[float]:
    """Return milliseconds until the scene is seen, the model ready and a frame imagined; then of frames."""
    with tempfile.TemporaryDirectory() as folder, Browser(Path(folder)) as browser:
        browser.open(page.resolve(), 1440, 900)
        return browser.evaluate(SCRIPT)


if __name__ == "__main__":
    rows = [measure(Path(sys.argv[1])) for _ in range(OPENINGS)]
    seen, ready, first = (statistics.median(row[part] for row in rows) / 1000 for part in range(3))
    frames = [time for row in rows for time in row[3:]]
    tell(f"seen after {seen:.1f} s, ready after {ready:.1f} s, first imagined frame after {first:.1f} s")
    usual, least = statistics.median(frames), min(frames)
    tell(f"a frame in {usual:.0f} ms ({1000 / usual:.0f} a second), the fastest in {least:.0f} ms")
