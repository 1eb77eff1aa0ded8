"""Make the model that a configuration names."""

import pkgutil
from collections.abc import Sequence

from ..config import ModelConfig
from .predictor import Predictor


def make_model(
    config: ModelConfig, condition_mean: Sequence[float] = (), condition_std: Sequence[float] = ()
) -> Predictor:
    """Return a new model with random weights.

    `condition_mean` and `condition_std` are those of the data's conditions (``dataset.json``); both are empty
    with poses, and where the weights come from a file.
    """
    predictor: type[Predictor] = pkgutil.resolve_name(config.entry.predictor)
    return predictor(config, condition_mean, condition_std)
