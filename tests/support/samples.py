"""Small data and small models for all tests."""

import numpy as np
import torch

from svg.config import ModelConfig
from svg.models.video_predictor import VideoPredictor

ODD_NAMES = (
    "$\\frac$", "\\", "{}", "%", "a\nb", "\x1b[31m", "a" * 300, "", "\U0001f600", "_hidden", "]]>",
    "--><script>&", "a\0\rb", "\ud800",
)  # fmt: skip
"""Names that runs, sequences and data sets may have."""


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
