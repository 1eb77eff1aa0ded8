"""Which model a configuration stands for."""

from ..config import ModelConfig
from .pose_cvae import PoseCVAE
from .predictor import Predictor
from .video_predictor import VideoPredictor


def make_model(
    config: ModelConfig, condition_mean: list[float] = (), condition_std: list[float] = ()
) -> Predictor:
    """A new model; mean and standard deviation of the conditions are those of ``dataset.json``, and empty with poses."""
    if config.with_poses:
        return PoseCVAE(config)
    return VideoPredictor(config, condition_mean, condition_std)
