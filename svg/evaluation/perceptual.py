"""LPIPS and the features behind FVD: networks whose weights are read from local files and never fetched."""

import hashlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_tools.errors import InputError
from data_tools.files import open_regular

from ..sequences import SequenceDataset, evaluated
from .metrics import METRICS
from .options import EvaluationOptions
from .protocols import Protocol


@dataclass(frozen=True)
class WeightsFile:
    """A published file.

    name      of the file
    checksum  ``sha256:`` or ``git:`` (the SHA-1 by which git names the content) and its first hexadecimal
              digits
    source    place to get it from
    """

    name: str
    checksum: str
    source: str

    def check(self, path: Path) -> Path:
        """Return `path` if its content is this file. Raises `InputError` otherwise."""
        kind, expected = self.checksum.split(":")
        digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
        with open_regular(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
        if not digest.hexdigest().startswith(expected):
            raise InputError(
                f"{path}: found {kind} {digest.hexdigest()}, expected {expected}; get it again: {self.source}"
            )
        return path


TORCHVISION = "https://download.pytorch.org/models/"
TRUNKS = {
    net: WeightsFile(
        name,
        f"sha256:{name[-12:-4]}",
        f"{TORCHVISION}{name} (also in ~/.cache/torch/hub/checkpoints, once used)",
    )
    for net, name in {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}.items()
}
HEADS = {
    net: WeightsFile(f"{net}.pth", f"sha256:{digest}", "pip install lpips, which carries it")
    for net, digest in {
        "alex": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        "vgg": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    }.items()
}
I3D = WeightsFile(
    "i3d_torchscript.pt",
    "git:93daef59c7ae0e9e8f76225521407e60cbafa6aa",
    "fvd/styleganv/ of https://github.com/JunyaoHu/common_metrics_on_video_quality",
)
I3D_FRAMES = 10
"""Frames that I3D needs: with fewer nothing of the time axis is left for its last pooling."""


def find_weights(file: WeightsFile, weights: Path | None) -> Path:
    """Return the path of `file` at `weights`, which is the file or its folder.

    LPIPS's heads may also lie in an installed ``lpips``. Raises `InputError` that says where to get it, or
    that its checksum is wrong.
    """
    places = []
    if weights is not None:
        places.append(weights if weights.is_file() else weights / file.name)
    package = importlib.util.find_spec("lpips") if file in HEADS.values() else None
    if package is not None:
        folders = package.submodule_search_locations or ()
        places += [Path(folder) / "weights" / "v0.1" / file.name for folder in folders]
    for place in places:
        if place.is_file() and place.name == file.name:
            return file.check(place)
    where = f"{weights} has no" if weights is not None else "needs"
    raise InputError(f"{where} {file.name}; get it from {file.source}, and name its folder here", "weights")


COMPARED = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}
"""Layers of torchvision's features, ReLUs, whose outputs are compared."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
PIXELS = {"alex": 1_000_000, "vgg": 100_000}
"""Pixels that are compared at a time: some hundred megabytes of features."""


class Lpips(nn.Module):
    """LPIPS 0.1 (Zhang et al. 2018): distance of two images in the features of a classifier.

    Args:
        net: ``alex`` or ``vgg``.
        trunk: the classifier's ``features.N.weight`` and ``.bias``, as torchvision names them.
        heads: the five ``linK.model.1.weight`` that weigh the channels.
    """

    def __init__(self, net: str, trunk: dict[str, Tensor], heads: dict[str, Tensor]):
        super().__init__()
        self.net = net
        self.features = _empty_trunk(net)
        prefix = "features."
        weights = {name[len(prefix) :]: v.float() for name, v in trunk.items() if name.startswith(prefix)}
        self.features.load_state_dict(weights, assign=True)
        self.requires_grad_(False)
        for number in range(len(COMPARED[net])):
            self.register_buffer(f"head_{number}", heads[f"lin{number}.model.1.weight"].float())
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])

    @torch.no_grad()
    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the LPIPS of each image in [0,1]: [...,C,H,W] -> [...]; smaller is nearer.

        Grey images count as RGB. `target` may lack leading dimensions of `predicted`: its features are then
        computed once.
        """
        shape = predicted.shape
        if target.shape != shape[-target.dim() :]:
            predicted, target = torch.broadcast_tensors(predicted, target)
            shape = predicted.shape
        targets = target.reshape(-1, *shape[-3:]).float()
        samples = predicted.reshape(-1, *targets.shape).float()  # [S,N,C,H,W]
        size = max(1, PIXELS[self.net] // targets[0, 0].numel())
        with torch.backends.cudnn.flags(allow_tf32=False):
            values = [
                self._distances(part, truth)
                for part, truth in zip(samples.split(size, 1), targets.split(size), strict=True)
            ]
        return torch.cat(values, 1).reshape(shape[:-3])

    def _distances(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the LPIPS [S,N] of images [S,N,C,H,W] with their targets [N,C,H,W]."""
        target_layers = list(self._layers(target))
        distances = []
        for images in predicted:
            layers = [
                F.conv2d((x - y) ** 2, self.get_buffer(f"head_{number}")).mean((1, 2, 3))
                for number, (x, y) in enumerate(zip(self._layers(images), target_layers, strict=True))
            ]
            distances.append(torch.stack(layers).sum(0))
        return torch.stack(distances)

    def _layers(self, images: Tensor) -> Iterator[Tensor]:
        """Yield normalised features of images [N,C,H,W] in [0,1], one compared layer after the other."""
        x = (2 * images.expand(-1, 3, -1, -1) - 1 - self.get_buffer("shift")) / self.get_buffer("scale")
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in COMPARED[self.net]:
                yield x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)


def _empty_trunk(net: str) -> nn.Sequential:
    """Return torchvision's layers up to the last compared one, with no memory for weights yet."""
    from torchvision.models import alexnet, vgg16

    with torch.device("meta"):
        classifier = {"alex": alexnet, "vgg": vgg16}[net](weights=None)
    return classifier.features[: COMPARED[net][-1] + 1]


def load_lpips(net: str, weights: Path | None, device: torch.device) -> Lpips:
    """Return LPIPS with the published weights, which `find_weights` finds."""
    trunk = _read(find_weights(TRUNKS[net], weights))
    heads = _read(find_weights(HEADS[net], weights))
    return Lpips(net, trunk, heads).to(device).eval()


def _read(path: Path) -> dict[str, Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)


def load_video_features(weights: Path | None, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return a function from videos [B,T,C,H,W] in [0,1] to I3D's logits [B,400], as FVD takes them."""
    path = find_weights(I3D, weights)
    with warnings.catch_warnings():
        # the published file is TorchScript, which PyTorch would like to see replaced
        warnings.simplefilter("ignore", FutureWarning)
        network = torch.jit.load(path, map_location=device).eval()
    return partial(video_features, network)


@torch.no_grad()
def video_features(network: nn.Module, videos: Tensor) -> Tensor:
    """Return features of videos [B,T,C,H,W] in [0,1].

    The network has the interface of ``i3d_torchscript.pt`` (StyleGAN-V).
    """
    videos = videos.float().expand(-1, -1, 3, -1, -1).transpose(1, 2) * 255  # [B,C,T,H,W]
    with torch.backends.cudnn.flags(allow_tf32=False):
        features = [
            network(part, rescale=True, resize=True, return_features=True).float() for part in videos.split(4)
        ]
    return torch.cat(features)


NETWORKS: dict[str, Callable[[Protocol, Path | None, torch.device], Callable[..., Tensor]]] = {
    "lpips": lambda protocol, weights, device: load_lpips(protocol.lpips, weights, device),
    "i3d": lambda protocol, weights, device: load_video_features(weights, device),
}
"""Functions that load a network which metrics need, by its name."""


def load_networks(
    options: EvaluationOptions,
    protocol: Protocol,
    dataset: SequenceDataset,
    weights: Path | None,
    device: torch.device,
) -> dict[str, Callable[..., Tensor]]:
    """Return the networks that the metrics of `options` need, by name, for `svg.evaluation.evaluate`.

    Raises `InputError` if their weights are not at `weights`, and for data that they cannot see.
    """
    names = sorted({METRICS[metric].network for metric in options.metrics} - {""})
    channels = dataset.frame_size[2]
    if names and channels not in (1, 3):
        raise InputError(
            f"found frames of {channels} channels, expected 1 or 3: the networks see grey or colour",
            "metrics",
        )
    frames = protocol.n_past + protocol.n_future
    sequences = evaluated(dataset, options.limit)
    if "i3d" in names and (frames < I3D_FRAMES or sequences < 2):
        raise InputError(
            f"--metrics fvd, kvd: found {sequences} clips of {frames} frames, "
            f"expected at least 2 of at least {I3D_FRAMES}"
        )
    return {name: NETWORKS[name](protocol, weights, device) for name in names}
