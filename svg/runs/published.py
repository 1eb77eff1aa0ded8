"""Checkpoints of edenton/svg, the published code of SVG-LP and SVG-FP, as configurations and weights of ours.

Its ``model.pth`` holds whole pickled modules and the command line. The layers are those of `VideoPredictor`
without conditions, under other names; only an LSTM's layers and the two outputs of a Gaussian are put
together otherwise. The modules themselves are never made (`torch_files`).
"""

from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from data_tools.errors import InputError
from data_tools.files import read_bytes

from ..config import SCHEMA_VERSION, Config, ModelConfig
from ..models.published_names import published_names
from .checkpoint import Tensors
from .torch_files import Name, SavedObject, Shell, StoredTensor, read_saved

T = TypeVar("T")
MAX_BYTES = 2**31
"""Of a file; the largest of the published sizes takes 170 MB."""
MAX_MODULES, MAX_DEPTH = 1000, 5
"""Modules of a part, and how deep they are nested; a decoder has 60, four deep."""
BACKBONES = ("vgg_64", "vgg_128", "dcgan_64", "dcgan_128")
BATCH_NORM, LEAKY_RELU = "torch.nn.modules.batchnorm BatchNorm2d", "torch.nn.modules.activation LeakyReLU"
CLASSES = frozenset(
    {
        "argparse Namespace",
        "models.lstm lstm",
        "models.lstm gaussian_lstm",
        *(f"models.{name} {part}" for name in BACKBONES for part in ("encoder", "decoder")),
        *(f"models.{name} vgg_layer" for name in BACKBONES[:2]),
        *(f"models.{name} dcgan_{part}" for name in BACKBONES[2:] for part in ("conv", "upconv")),
        "torch.nn.modules.activation Sigmoid",
        "torch.nn.modules.activation Tanh",
        LEAKY_RELU,
        BATCH_NORM,
        "torch.nn.modules.container ModuleList",
        "torch.nn.modules.container Sequential",
        "torch.nn.modules.conv Conv2d",
        "torch.nn.modules.conv ConvTranspose2d",
        "torch.nn.modules.linear Linear",
        "torch.nn.modules.pooling MaxPool2d",
        "torch.nn.modules.rnn LSTMCell",
        "torch.nn.modules.upsampling UpsamplingNearest2d",
        "torch.optim.adam Adam",
        "torch.optim.rmsprop RMSprop",
        "torch.optim.sgd SGD",
    }
)
"""The classes that such a file names."""
SETTINGS = {BATCH_NORM: ("eps", 1e-5), LEAKY_RELU: ("negative_slope", 0.2)}
"""Numbers of layers that are no weights, and are fixed here."""
DATASETS = ("bair", "kth", "smmnist")
DATA_FLAGS = ("n_past", "n_future", "n_eval")
MODEL_FLAGS = (
    "image_width",
    "channels",
    "g_dim",
    "z_dim",
    "rnn_size",
    "predictor_rnn_layers",
    "posterior_rnn_layers",
    "prior_rnn_layers",
    "last_frame_skip",
)
TRAIN_FLAGS = ("batch_size", "niter", "epoch_size", "lr", "beta1", "beta", "seed")


def read_published(path: Path) -> tuple[Config, Tensors]:
    """Return the configuration and the weights of a published checkpoint.

    Raises `InputError` for any other file, before memory is taken for sizes that it claims.
    """
    try:
        saved = read_saved(read_bytes(path, MAX_BYTES), CLASSES)
        parts = _parts(saved.value)
        config = _config(parts, f"{path}: opt")
        return config, _weights(saved, parts, config.model)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    except ValueError as error:
        expected = "expected one that train_svg_lp.py or train_svg_fp.py has written"
        raise InputError(
            f"{path}: found no checkpoint of edenton/svg ({error}); {expected}: copy it again or name another"
        ) from None


def _parts(value: Any) -> dict[str, Shell]:
    """Return encoder, decoder, frame_predictor, posterior, perhaps prior, and opt."""
    names = {"encoder", "decoder", "frame_predictor", "posterior", "opt"}
    if not isinstance(value, dict) or not names <= value.keys() <= names | {"prior"}:
        raise ValueError("expected encoder, decoder, frame_predictor, posterior, opt and perhaps prior")
    if not all(isinstance(part, Shell) for part in value.values()):
        raise ValueError("something else than modules")
    return value


# ---------------------------------------------------------------------------------------------- configuration


def _config(parts: dict[str, Shell], origin: str) -> Config:
    """Return the configuration that the command line and the encoder's class tell.

    Raises `InputError` that names `origin`.
    """
    flags = parts["opt"].state
    model = _flags(flags, MODEL_FLAGS)
    backbone = parts["encoder"].kind.removeprefix("models.").split("_")[0]
    width = model.get("image_width")
    for name in ("encoder", "decoder"):
        expected = f"models.{backbone}_{width} {name}"
        if parts[name].kind != expected:
            raise ValueError(f"{parts[name].kind} where its flags say {expected}")
    model |= {
        "model": backbone,
        "prior": "learned" if "prior" in parts else "fixed",
        "skips": "observed" if model.get("last_frame_skip") else "published",
    }
    dataset = flags.get("dataset")
    data_root = dataset if dataset in DATASETS else "data"
    values = {
        "schema_version": SCHEMA_VERSION,
        "data": _flags(flags, DATA_FLAGS) | {"data_root": data_root, "conditions": "none"},
        "model": model,
        "train": _flags(flags, TRAIN_FLAGS) | {"optimizer": _optimizer(flags.get("optimizer"))},
    }
    return Config.from_values(values, origin)


def _flags(flags: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: flags[name] for name in names if name in flags}


def _optimizer(flag: Any) -> str:
    """Return the name of the optimiser, whose class the published code stores."""
    return flag.text.rpartition(" ")[2].lower() if isinstance(flag, Name) else str(flag)


# ---------------------------------------------------------------------------------------------------- weights


def _weights(saved: SavedObject, parts: dict[str, Shell], config: ModelConfig) -> Tensors:
    """Return the weights under the names of `VideoPredictor`; every tensor of the file finds its place."""
    from ..models.build import make_model

    with torch.device("meta"):
        outline = make_model(config).state_dict()
    stored = {name: tensor for part in parts if part != "opt" for name, tensor in _tensors(part, parts[part])}
    sources = published_names(outline, config)
    if left := stored.keys() - {source for group in sources.values() for source in group}:
        raise ValueError(f"it holds {min(left)[:80]}, for which its model has no place")
    if sum(tensor.nbytes for tensor in stored.values()) > sum(map(len, saved.storages.values())):
        raise ValueError("tensors that are larger together than what is stored of them")
    weights = {}
    for name, like in outline.items():
        weights[name] = _read(saved, stored, sources[name], like) if name in sources else _zeros(like)
    return weights


def _read(saved: SavedObject, stored: dict[str, StoredTensor], sources: list[str], like: Tensor) -> Tensor:
    """Return the published tensors `sources` joined to one, of the shape and type of `like`.

    PyTorch before 0.4.1 did not count the batches of a batch norm, on which nothing depends here.
    """
    if like.dim() == 0 and sources[0] not in stored:
        return _zeros(like)
    expected = list(like.shape)
    if len(sources) > 1:
        expected[0] //= len(sources)
    tensors = []
    for source in sources:
        if source not in stored:
            raise ValueError(f"no {source}")
        shape, dtype = list(stored[source].shape), stored[source].storage.dtype
        if (shape, dtype) != (expected, like.dtype):
            raise ValueError(f"{source} {shape} {dtype} where its flags say {expected} {like.dtype}")
        tensors.append(saved.read(stored[source]))
    return torch.cat(tensors) if len(tensors) > 1 else tensors[0]


def _zeros(like: Tensor) -> Tensor:
    return torch.zeros(like.shape, dtype=like.dtype)


def _tensors(part: str, module: Shell) -> Generator[tuple[str, StoredTensor]]:
    """Yield the parameters and buffers of a module with their names, as `state_dict` has them."""
    rest = [(part, module)]
    for _ in range(MAX_MODULES):
        if not rest:
            return
        name, module = rest.pop()
        _check_settings(name, module)
        for kind in ("_parameters", "_buffers"):
            for own, tensor in _group(module, kind).items():
                if tensor is not None:
                    yield f"{name}.{own}", _of_type(tensor, StoredTensor)
        for own, child in _group(module, "_modules").items():
            rest.append((f"{name}.{own}", _of_type(child, Shell)))
        if name.count(".") > MAX_DEPTH:
            break
    raise ValueError(f"more modules in {part} than the published code makes")


def _check_settings(name: str, module: Shell) -> None:
    """Raise `ValueError` for a layer whose numbers, other than its weights, are not the published ones."""
    setting, expected = SETTINGS.get(module.kind, ("", None))
    if setting and module.state.get(setting) != expected:
        raise ValueError(f"{name} has another {setting} than {expected}")


def _group(module: Shell, kind: str) -> dict[str, Any]:
    return _of_type(module.state.get(kind), dict)


def _of_type(value: Any, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise ValueError(f"a {type(value).__name__} where a module has a {kind.__name__}")
    return value
