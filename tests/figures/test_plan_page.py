"""The page of episodes: what it shows in which frame, and what a browser makes of it."""

import json
import re

import numpy as np
import pytest

from svg.evaluation.tables import Table
from svg.figures.episode import NOTHING, Episode, Plan
from svg.figures.plan_page import build_plan_page
from tests.figures.test_report import browse
from tests.support.browser import CHROMIUM

GOAL = [32.0, 48.0]
FIRST, SECOND = [16.0, 8.0], [40.0, 20.0]


def grey(value: int, *shape: int) -> np.ndarray:
    return np.full((*shape, 64, 64, 3), value, np.uint8)


def plan(frame: int, value: int, point: list[float]) -> Plan:
    """Carried out for two frames; its pictures become brighter by 10 a frame."""
    pictures = np.stack([grey(value + 10 * step) for step in range(6)])
    return Plan(frame, 2, pictures, [[point]] * 6)


@pytest.fixture(scope="module")
def episode() -> Episode:
    plans = [plan(1, 50, FIRST), plan(3, 150, SECOND)]
    frames = [grey(10 * time) for time in range(7)]
    return Episode(
        "a </script> scene", frames, plans, np.array([GOAL]), grey(99), [0.08 - 0.01 * t for t in range(7)]
    )


def test_what_was_foreseen(episode):
    """Frames 2 and 3 by the plan of frame 1, 4 and 5 by that of frame 3, whose end stays."""
    shots = episode.shots()
    shown = [None if shot.imagined is None else int(shot.imagined[0, 0, 0]) for shot in shots]
    assert shown == [None, None, 50, 60, 150, 160, 160]
    assert [list(shot.points) for shot in shots] == [[], [], [FIRST], [FIRST], *[[SECOND]] * 3]
    assert [int(shot.frame[0, 0, 0]) for shot in shots] == [0, 10, 20, 30, 40, 50, 60]


def test_contents(episode):
    page = build_plan_page("a title", "push", [Table(["", "success"], [["through", "57%"]])], [episode])
    assert "<td>57%</td>" in page and not re.search(r'(src|href)="?(http|/)', page)
    (group,) = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))["sequences"]
    happens, ahead = (row["panels"] for row in group["rows"])
    assert [panel["label"] for panel in happens] == ["what happens", "as the last plan had it", "the goal"]
    assert happens[0]["scores"][::6] == ["80 mm from the goal", "20 mm from the goal"]
    assert happens[1]["crosses"] == [[], [], [FIRST], [FIRST], *[[SECOND]] * 3]
    assert all(panel["rings"] == [GOAL] for panel in happens + ahead)
    assert [panel["label"] for panel in ahead] == [f"{step} ahead" for step in range(1, 7)]
    # nothing before the first plan; a plan stays the last one until the next is made
    assert ahead[5]["scores"] == ["", "frame 7", "frame 7", *["frame 9"] * 4]
    assert ahead[5]["crosses"] == [[], [FIRST], [FIRST], *[[SECOND]] * 4]


SCRIPT = """
<script>
window.addEventListener("load", () => setTimeout(() => {
  const pixel = (number, x, y) => {
    const canvas = document.querySelectorAll("canvas")[number], scale = canvas.width / 64;
    const image = canvas.getContext("2d").getImageData((x + 0.5) * scale, (y + 0.5) * scale, 1, 1);
    return Array.from(image.data).slice(0, 3);
  };
  const look = () => ({ camera: pixel(0, 2, 2), imagined: pixel(1, 2, 2), last: pixel(8, 2, 2),
    ring: pixel(0, 32 + 5, 48), inside: pixel(0, 32, 48), cross: pixel(1, 16, 8), none: pixel(0, 16, 8),
    now: now.textContent, borders: Array.from(document.querySelectorAll("canvas")).slice(0, 3)
      .map(canvas => getComputedStyle(canvas).borderTopStyle) });
  const seen = { start: look() };
  show(3);
  seen.third = look();
  parent.postMessage(JSON.stringify(seen), "*");
}, 200));
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_in_a_browser(episode, tmp_path):
    page = build_plan_page("a title", "push", [Table(["", "success"], [["through", "57%"]])], [episode])
    seen = browse(page, tmp_path, SCRIPT)
    given, predicted = [0, 158, 115], [213, 94, 0]
    start, third = seen["start"], seen["third"]
    assert start["now"] == "frame 0" and start["imagined"] == [NOTHING] * 3 == start["last"]
    assert third["now"] == "frame 3" and third["camera"] == [30] * 3 and third["imagined"] == [60] * 3
    assert third["last"] == [200] * 3  # the plan of frame 3, six frames ahead
    assert third["ring"] == given and third["inside"] == [30] * 3
    assert third["cross"] == predicted and third["none"] == [30] * 3
    assert start["borders"] == ["double", "solid", "double"]
