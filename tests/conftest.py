"""Small data and small models for all tests."""

import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from data_tools import poses
from data_tools.folders import write_sequence
from data_tools.index import build_index
from svg.config import Config, DataConfig, ModelConfig, TrainConfig
from svg.model import VideoPredictor

torch.set_num_threads(2)
# A shell has what it runs in the background ignore Ctrl-C, and so would the commands that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
ODD_NAMES = (
    "$\\frac$", "\\", "{}", "%", "a\nb", "\x1b[31m", "a" * 300, "", "\U0001f600", "_hidden", "]]>", "--><script>&", "a\0\rb",
    "\ud800",
)  # fmt: skip
"""Names that runs, sequences and data sets may have."""
RECORDINGS = Path(__file__).parent.parent.parent / "shared" / "data"  # real ones, which are not part of the project


def small_model(**changes) -> VideoPredictor:
    """A small untrained predictor; `changes` are fields of its configuration."""
    torch.manual_seed(0)
    config = {"width": 0.1, "norm": "group", "g_dim": 16, "z_dim": 3, "rnn_size": 16, "condition_dim": 4}
    model = VideoPredictor(ModelConfig(**config | changes))
    # Published initialisation is small; larger weights make differences visible in float32.
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, 0, 1.5 / parameter[0].numel() ** 0.5)
    return model.eval()


def moving_square(generator: np.random.Generator, frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A bright square whose place is the position and whose steps, in pixels, are the actions."""
    video = np.full((frames, 64, 64, 3), 40, np.uint8)
    actions = generator.integers(-4, 5, (frames, 2)).astype(np.float32)
    positions = np.empty((frames, 2), np.float32)
    place = generator.integers(12, 52, 2).astype(np.float32)
    for time in range(frames):
        positions[time] = place
        x, y = place.astype(int)
        video[time, y - 4 : y + 4, x - 4 : x + 4] = (250, 200, 30)
        actions[time] = np.clip(place + actions[time], 8, 56) - place
        place = place + actions[time]
    return video, actions, positions


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 training, 5 validation and 5 test sequences of 15 frames, indexed."""
    root, generator = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    for split, count in (("train", 12), ("validate", 5), ("test", 5)):
        for number in range(count):
            write_sequence(root / split / str(number), *moving_square(generator, 15))
    build_index(root, "squares")
    return root


@pytest.fixture
def small_config(data_root: Path, tmp_path: Path) -> Config:
    return Config(
        DataConfig(data_root=str(data_root), n_past=2, n_future=4, n_eval=6),
        ModelConfig(recurrence="spatial", model="dcgan", width=0.1, norm="group", g_dim=16, z_dim=3, rnn_size=16),
        TrainConfig(
            log_dir=str(tmp_path / "run"), batch_size=4, niter=2, epoch_size=3, lr=0.002, precision="float32", device="cpu"
        ),
    )


def walking_block(generator: np.random.Generator, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """A dark block in a room of its own light, and as its pose a red line on white where it stands."""
    video = np.full((frames, 16, 32, 3), generator.integers(120, 220), np.uint8)
    video[:, :, :4, 2] //= 2  # something that must not move
    poses = np.full_like(video, 255)
    place = int(generator.integers(4, 28))
    for time in range(frames):
        place = int(np.clip(place + generator.integers(-3, 4), 4, 28))
        video[time, 4:12, place - 2 : place + 2] = 30
        poses[time, 4:12, place] = (255, 0, 0)
    return video, poses


@pytest.fixture(scope="session")
def pose_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 training, 2 validation and 2 test sequences of 24 frames with poses, 16x32 pixels, indexed."""
    root, generator = tmp_path_factory.mktemp("blocks"), np.random.default_rng(0)
    for split, count in (("train", 5), ("validate", 2), ("test", 2)):
        for number in range(count):
            poses.write_sequence(root, split, str(number), *walking_block(generator, 24))
    build_index(root, "blocks")
    return root
