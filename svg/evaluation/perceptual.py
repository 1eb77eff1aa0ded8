"""LPIPS and the features behind FVD: networks whose weights are read from local files and never fetched."""

import hashlib
import importlib.util
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_tools.errors import InputError
from data_tools.files import open_regular


@dataclass(frozen=True)
class WeightsFile:
    """A published file: its name, the beginning of its checksum and where to get it.

    `checksum` is ``sha256:`` or ``git:`` (the SHA-1 by which git names the content) and hexadecimal digits.
    """

    name: str
    checksum: str
    source: str

    def check(self, path: Path) -> Path:
        """`path`, if its content is this file. Raises `InputError` otherwise."""
        kind, expected = self.checksum.split(":")
        found = hashlib.sha256() if kind == "sha256" else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
        with open_regular(path) as file:
            while block := file.read(1 << 20):
                found.update(block)
        if not found.hexdigest().startswith(expected):
            raise InputError(
                f"{path}: found {kind} {found.hexdigest()}, expected {expected}; get it again: {self.source}"
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
"""Fewer leave nothing of the time axis for I3D's last pooling."""


def find_weights(file: WeightsFile, weights: Path | None) -> Path:
    """`file` at `weights`, which is it or a folder that holds it; LPIPS's small heads also in an installed ``lpips``.

    Raises `InputError` saying where to get it, or that its checksum is wrong.
    """
    places = (
        [weights]
        if weights is not None and weights.is_file()
        else [weights / file.name]
        if weights is not None
        else []
    )
    package = importlib.util.find_spec("lpips") if file in HEADS.values() else None
    if package is not None:
        places += [
            Path(folder) / "weights" / "v0.1" / file.name
            for folder in package.submodule_search_locations or ()
        ]
    for place in places:
        if place.is_file() and place.name == file.name:
            return file.check(place)
    where = f"{weights} has no" if weights is not None else "needs"
    raise InputError(f"{where} {file.name}; get it from {file.source}, and name its folder here", "weights")


CONVOLUTIONS = {
    # of torchvision's features: place of each convolution, with its stride, its padding and whether a pooling comes before it
    "alex": {0: (4, 2, False), 3: (1, 2, True), 6: (1, 1, True), 8: (1, 1, False), 10: (1, 1, False)},
    "vgg": {n: (1, 1, n in (5, 10, 17, 24)) for n in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)},
}
POOLING = {"alex": 3, "vgg": 2}
COMPARED = {"alex": (0, 3, 6, 8, 10), "vgg": (2, 7, 14, 21, 28)}
"""Convolutions whose outputs, after the ReLU, are compared."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
PIXELS = {"alex": 1_000_000, "vgg": 100_000}
"""Pixels that are compared at a time: some hundred megabytes of features."""


class Lpips(nn.Module):
    """LPIPS 0.1 (Zhang et al. 2018): distance of two images in the features of a classifier.

    `trunk` holds the classifier's ``features.N.weight`` and ``.bias`` as torchvision names them, `heads` the five
    ``linK.model.1.weight`` that weigh the channels.
    """

    def __init__(self, net: str, trunk: dict[str, Tensor], heads: dict[str, Tensor]):
        super().__init__()
        self.net = net
        for place in CONVOLUTIONS[net]:
            for kind in ("weight", "bias"):
                self.register_buffer(f"{kind}_{place}", trunk[f"features.{place}.{kind}"].float())
        for number, place in enumerate(COMPARED[net]):
            self.register_buffer(f"head_{place}", heads[f"lin{number}.model.1.weight"].float())
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])

    @torch.no_grad()
    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """LPIPS of each image in [0,1]: [...,C,H,W] -> [...], smaller is nearer; grey images count as RGB.

        `target` may lack leading dimensions of `predicted`: its features are then computed once.
        """
        shape = predicted.shape
        if target.shape != shape[-target.dim() :]:
            predicted, target = torch.broadcast_tensors(predicted, target)
            shape = predicted.shape
        targets = target.reshape(-1, *shape[-3:]).float()
        each = predicted.reshape(-1, *targets.shape).float()  # [S,N,C,H,W]
        size = max(1, PIXELS[self.net] // targets[0, 0].numel())
        with torch.backends.cudnn.flags(allow_tf32=False):
            values = [
                self._distances(some, of)
                for some, of in zip(each.split(size, 1), targets.split(size), strict=True)
            ]
        return torch.cat(values, 1).reshape(shape[:-3])

    def _distances(self, predicted: Tensor, target: Tensor) -> Tensor:
        """[S,N,C,H,W] and [N,C,H,W] -> [S,N]."""
        of_target = list(self._features(target))
        distances = []
        for images in predicted:
            of_images = zip(self._features(images), of_target, COMPARED[self.net], strict=True)
            layers = [
                F.conv2d((x - y) ** 2, self.get_buffer(f"head_{place}")).mean((1, 2, 3))
                for x, y, place in of_images
            ]
            distances.append(torch.stack(layers).sum(0))
        return torch.stack(distances)

    def _features(self, images: Tensor):
        """Normalised features of images [N,C,H,W] in [0,1], one compared layer after the other."""
        x = (2 * images.expand(-1, 3, -1, -1) - 1 - self.shift) / self.scale
        for place, (stride, padding, pooled) in CONVOLUTIONS[self.net].items():
            if pooled:
                x = F.max_pool2d(x, POOLING[self.net], 2)
            x = F.relu(
                F.conv2d(
                    x, self.get_buffer(f"weight_{place}"), self.get_buffer(f"bias_{place}"), stride, padding
                )
            )
            if place in COMPARED[self.net]:
                yield x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)


def load_lpips(net: str, weights: Path | None, device: torch.device) -> Lpips:
    """LPIPS with the published weights, which `find_weights` finds."""
    trunk, heads = (_read(find_weights(files[net], weights)) for files in (TRUNKS, HEADS))
    return Lpips(net, trunk, heads).to(device).eval()


def _read(path: Path) -> dict[str, Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)


def load_video_features(weights: Path | None, device: torch.device) -> partial:
    """A function from videos [B,T,C,H,W] in [0,1] to I3D's logits [B,400], as FVD takes them."""
    path = find_weights(I3D, weights)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", FutureWarning
        )  # the published file is TorchScript, which PyTorch would see replaced
        network = torch.jit.load(path, map_location=device).eval()
    return partial(video_features, network)


@torch.no_grad()
def video_features(network: nn.Module, videos: Tensor) -> Tensor:
    """Features of videos [B,T,C,H,W] in [0,1] by a network with the interface of ``i3d_torchscript.pt`` (StyleGAN-V)."""
    videos = videos.float().expand(-1, -1, 3, -1, -1).transpose(1, 2) * 255  # [B,C,T,H,W]
    with torch.backends.cudnn.flags(allow_tf32=False):
        return torch.cat(
            [
                network(some, rescale=True, resize=True, return_features=True).float()
                for some in videos.split(4)
            ]
        )
