"""The page of ``svg-play``: one HTML file with a model, what it runs on, and scenes to begin with.

``play.html`` is its template, ``play.js`` its script, ``worker.js`` the part that runs beside it. The runtime
in ``vendor/`` is ONNX Runtime Web. A served page has neither model nor runtime: it asks `server`.
"""

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from data_tools.camera import Camera
from data_tools.errors import InputError
from data_tools.simulators.bounds import MAX_LIFT, REACH

from ..config import Config
from ..positions import SIMULATED_HEIGHT
from .graphs import PackedGraphs
from .scenes import Scene

FOLDER = Path(__file__).parent
RUNTIME = {
    "runtime": "ort.wasm.min.js",
    "glue": "ort-wasm-simd-threaded.mjs",
    "wasm": "ort-wasm-simd-threaded.wasm",
    "notices": "ThirdPartyNotices.txt",
}
"""Files of `vendor` by the names that the page's script has for them."""
STEP = 0.03
"""Metres by which the hand moves in a frame at most: about what the policy of the training data does."""
FPS = (5, 10, 15)
"""Frames a second at the three speeds."""
LONGEST = 300
"""Frames of a drive at most: each takes half a megabyte of the browser's memory."""

Facts = dict[str, Any]


@dataclass(frozen=True)
class About:
    """What the page says of a model.

    Args:
        name: of the run or released model.
        parameters: number of its weights.
        card: its card, as HTML; may be empty.
        computed: a sentence on where and in which numbers it runs.
    """

    name: str
    parameters: int
    card: Markup
    computed: str


def check_drivable(config: Config, run: Path) -> None:
    """Raise `InputError` for a model that is not given the actions of `svg-data simulate`'s hand."""
    model, conditions = config.model, config.data.conditions
    columns = {"all": 7, "actions": 4}.get(conditions)
    if model.takes_poses:
        found = "a model of a person from poses"
    elif model.condition_dim != columns:
        found = f"a model that is given {model.condition_dim} columns of conditions ({conditions})"
    elif model.channels != 3:
        found = f"a model of pictures with {model.channels} channels"
    else:
        return
    expected = "expected one that is given the 4 columns of actions of svg-data simulate, or all 7"
    raise InputError(f"{run}: found {found}, {expected}")


def build_play_page(about: About, packed: PackedGraphs, scenes: Sequence[Scene]) -> str:
    """Return the page. It needs no network and no server."""
    names = ("n_past", "frame", "conditions", "latent", "changed")
    facts = {name: packed.about[name] for name in names} | {"served": False}
    blocks = {"observe": packed.observe, "step": packed.step, "weights": packed.weights}
    blocks = {name: _squeezed(data) for name, data in blocks.items()}
    blocks |= {name: _vendored(file) for name, file in RUNTIME.items()}
    return _render(about, facts, scenes, blocks)


def build_served_page(about: About, config: Config, scenes: Sequence[Scene], simulated: bool) -> str:
    """Return the page for a `server.PlayServer` with a ``model`` and, if `simulated`, a ``simulator``."""
    model = config.model
    facts = {
        "n_past": config.data.n_past,
        "frame": [model.channels, *model.frame_size],
        "conditions": [model.condition_dim],
        "served": True,
        "simulated": simulated,
    }
    return _render(about, facts, scenes, {})


def _render(about: About, facts: Facts, scenes: Sequence[Scene], blocks: dict[str, str]) -> str:
    environment = Environment(
        loader=PackageLoader("svg", "play"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("play.html").render(
        about=about,
        data=_data(about, facts),
        scenes=[scene.data() for scene in scenes],
        texts={name: Markup(_text(name)) for name in ("play.css", "play.js", "worker.js")},
        licence=_text("vendor/LICENSE"),
        blocks=blocks,
    )


def _data(about: About, facts: Facts) -> Facts:
    """Return the facts that the script reads, those of the model among them."""
    _, height, width = facts["frame"]
    return facts | {
        "name": about.name,
        "camera": Camera().matrix(height, width).tolist(),
        "reach": REACH,
        "height": {
            "low": SIMULATED_HEIGHT.low,
            "step": SIMULATED_HEIGHT.step,
            "speed": SIMULATED_HEIGHT.speed,
            "most": MAX_LIFT,
        },
        "step": STEP,
        "fps": FPS,
        "longest": LONGEST,
    }


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _vendored(name: str) -> str:
    return base64.b64encode((FOLDER / "vendor" / f"{name}.gz").read_bytes()).decode()


def _squeezed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()
