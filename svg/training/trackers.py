"""The libraries of ``--track``: one class for each, which imports its library when it is made.

A tracker gets numbers by name and films as GIF, each at a step. All its files are local unless the user has
told the library otherwise, by a login or by the library's own environment variables.
"""

import contextlib
import importlib.util
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from data_tools.errors import InputError

PROJECT = "svg-push"
"""The project of all runs, for libraries that have projects."""
FILM = "val/sequences"
"""The name of the films."""
COMPARED = ("train/loss", "val/pred_psnr", "val/rec_psnr")
"""The numbers by which TensorBoard's page of hyper-parameters compares runs."""


class Tracker(Protocol):
    """A run as a library keeps it."""

    place: str
    """Where it is and how to look at it, in words."""
    can_rewrite: bool
    """Steps that it has already can be given again, in place of those that it has."""

    def log(self, numbers: dict[str, float], step: int, film: bytes) -> None:
        """Keep the numbers and, unless it is empty, the film of a step."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard:
    """Event files in the run folder. Steps from ``begin`` on are dropped from those that are there."""

    can_rewrite = True

    def __init__(self, run: Path, identity: str, flags: dict[str, Any], begin: int):
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        self.place = f"tensorboard --logdir {run.parent}"
        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=begin)
        for summary in hparams(flags, dict.fromkeys(COMPARED, 0.0)):
            self._writer._get_file_writer().add_summary(summary)

    def log(self, numbers: dict[str, float], step: int, film: bytes) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        if film:
            self._writer._get_file_writer().add_summary(_film_summary(film), step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _film_summary(film: bytes) -> Any:
    """Return a GIF as an image of TensorBoard, which leaves it as it is: its own videos need moviepy."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    width, height = Image.open(io.BytesIO(film)).size
    image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=film)
    return Summary(value=[Summary.Value(tag=FILM, image=image)])


class Trackio:
    """A run in Trackio's folder or, where its environment variables name one, on its server."""

    can_rewrite = False

    def __init__(self, run: Path, identity: str, flags: dict[str, Any], begin: int):
        import trackio

        self.place = f"trackio show --project {PROJECT}"
        self._image = trackio.Image  # its dashboard plays GIFs as images alone
        self._finish = trackio.finish  # its run's own method would be called once more when Python ends
        with _quiet():
            self._run = trackio.init(
                PROJECT, f"{run.name}-{identity}", config=flags, resume="allow", embed=False
            )

    def log(self, numbers: dict[str, float], step: int, film: bytes) -> None:
        values: dict[str, Any] = dict(numbers)
        with tempfile.NamedTemporaryFile(suffix=".gif") as file:  # it takes files alone, and copies them
            if film:
                file.write(film)
                file.flush()
                values[FILM] = self._image(file.name)
            self._run.log(values, step)

    def close(self) -> None:
        with _quiet():
            self._finish()


@contextlib.contextmanager
def _quiet():
    """Let a library that prints on stdout print nothing."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


class WandB:
    """A run of Weights & Biases: offline in the run folder unless the user is logged in."""

    can_rewrite = False

    def __init__(self, run: Path, identity: str, flags: dict[str, Any], begin: int):
        import wandb

        self._video = wandb.Video
        usual = {"silent": True, "console": "off"}
        settings = {key: value for key, value in usual.items() if f"WANDB_{key.upper()}" not in os.environ}
        wandb.setup(wandb.Settings(**settings))
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", run.name),
            id=os.environ.get("WANDB_RUN_ID", identity),
            dir=os.environ.get("WANDB_DIR", str(run)),
            mode=None if wandb.login(prompt=False, verify=False) else "offline",
            config=flags,
            resume="allow",
            settings=wandb.Settings(**settings),
        )
        folder = Path(self._run.dir).parent.parent
        self.place = self._run.url or f"offline; wandb sync {folder}/offline-run-*"

    def log(self, numbers: dict[str, float], step: int, film: bytes) -> None:
        values: dict[str, Any] = dict(numbers)
        if film:
            values[FILM] = self._video(io.BytesIO(film), format="gif")
        self._run.log(values, step, commit=True)  # else it waits for what more there is of this step

    def close(self) -> None:
        self._run.finish()


TRACKERS: dict[str, Callable[[Path, str, dict[str, Any], int], Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": WandB,
}
"""{value of ``--track``: class}. Of a run, it is given its folder, an identity that stays the same when it is
resumed, its flags, and the step from which on it goes on."""


def require(name: str) -> None:
    """Raise `InputError` if the library of a tracker is missing."""
    if name not in TRACKERS:
        return
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:  # or a mere folder of that name
        advice = f"pip install '.[{name}]' or pip install {name}"
        raise InputError(f"--track {name}: needs the package {name}, which is not installed: {advice}")
