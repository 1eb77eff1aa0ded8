"""The names that the layers of `VideoPredictor` have in the published code of SVG, edenton/svg.

The layers are the same but for two things. Layers of an LSTM are modules of their own there, and the two
outputs of a Gaussian are two linear layers.
"""

import re
from collections.abc import Iterable

from ..config import ModelConfig
from .backbones import level_channels
from .video_predictor import STATISTICS

Layers = dict[str, tuple[str, ...]]
"""The published layers that are joined into one of ours, by our name."""


def published_names(names: Iterable[str], config: ModelConfig) -> dict[str, list[str]]:
    """Return the published names of the tensors that are joined into each of ours, by our `names`.

    What standardises conditions has none. `config` is of a published form.
    """
    layers = _encoder_layers(config) | _decoder_layers(config) | _recurrent_layers()
    return {name: _sources(name, layers) for name in names if name not in STATISTICS}


def _sources(name: str, layers: Layers) -> list[str]:
    """Return the published names of the tensors that are joined into one of ours."""
    layer, _, tensor = name.rpartition(".")
    cell = re.fullmatch(r"(\w+)_l(\d+)", tensor)  # of an LSTM, whose layers are modules there
    if cell:
        tensor = f"{cell[2]}.{cell[1]}"
    return [f"{source}.{tensor}" for source in layers[layer]]


def _levels(config: ModelConfig) -> list[list[int]]:
    return level_channels(config.backbone, config.image_width, 1.0, 0)


def _block(stage: str, number: int, config: ModelConfig) -> str:
    """Return the name of a published block of convolution and norm; a DCGAN stage is a single one."""
    return f"{stage}.{number}.main" if config.backbone == "vgg" else f"{stage}.main"


def _encoder_layers(config: ModelConfig) -> Layers:
    """Return the published layers by the names of ours."""
    levels = _levels(config)
    layers: Layers = {}
    for part in (0, 1):  # convolution and norm
        layers[f"encoder.output.{part}"] = (f"encoder.c{len(levels) + 1}.{part}",)
        for stage, level in enumerate(levels):
            for number in range(len(level)):
                block = _block(f"encoder.c{stage + 1}", number, config)
                layers[f"encoder.levels.{stage}.{number}.{part}"] = (f"{block}.{part}",)
    return layers


def _decoder_layers(config: ModelConfig) -> Layers:
    """Return the published layers by the names of ours, where the first convolution of a level is apart."""
    levels = _levels(config)[::-1]
    last = len(levels) - 1
    layers: Layers = {f"decoder.input.{part}": (f"decoder.upc1.{part}",) for part in (0, 1)}
    for number, level in enumerate(levels):
        stage = f"decoder.upc{number + 2}"
        first = _block(stage, 0, config)
        layers[f"decoder.skip_convs.{number}.conv"] = (f"{first}.0",)
        layers[f"decoder.levels.{number}.0"] = (f"{first}.1",)
        for block in range(1, len(level) if number < last else 1):
            for part in (0, 1):
                published = f"{_block(stage, block, config)}.{part}"
                layers[f"decoder.levels.{number}.{block + 1}.{part}"] = (published,)
    if config.backbone == "vgg":
        layers[f"decoder.levels.{last}.2"] = (f"decoder.upc{last + 2}.1",)
    else:
        layers[f"decoder.skip_convs.{last}.conv"] = (f"decoder.upc{last + 2}.0",)
    return layers


def _recurrent_layers() -> Layers:
    """Return the published layers by the names of ours, where a Gaussian's two outputs are one layer."""
    layers: Layers = {"predictor.output": ("frame_predictor.output.0",)}
    for ours, theirs in (("predictor", "frame_predictor"), ("posterior", "posterior"), ("prior", "prior")):
        layers[f"{ours}.core.embed"] = (f"{theirs}.embed",)
        layers[f"{ours}.core.lstm"] = (f"{theirs}.lstm",)
        if ours != "predictor":
            layers[f"{ours}.output"] = (f"{theirs}.mu_net", f"{theirs}.logvar_net")
    return layers
