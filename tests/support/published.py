"""Stand-ins for the published code of SVG: modules of its structure under its module paths.

They are written from the paper and from the names in its checkpoints, and serve twice: pickled, they make
files like the published ones; run step by step, they are a second opinion on what an imported run predicts.
"""

import argparse
import sys
import types
from pathlib import Path

import torch
from torch import Tensor, nn

# Stages of the encoder from full resolution down, of the decoder from the bottom up after its first layer.
VGG_64 = (["64 64", "128 128", "256 256 256", "512 512 512"], ["512 512 256", "256 256 128", "128 64", "64"])
VGG_128 = (
    ["64 64", "128 128", "256 256 256", "512 512 512", "512 512 512"],
    ["512 512 512", "512 512 256", "256 256 128", "128 64", "64"],
)
DCGAN_64 = (["64", "128", "256", "512"], ["256", "128", "64", ""])
DCGAN_128 = (["64", "128", "256", "512", "512"], ["512", "256", "128", "64", ""])
STAGES = {"vgg_64": VGG_64, "vgg_128": VGG_128, "dcgan_64": DCGAN_64, "dcgan_128": DCGAN_128}
OPTIMIZER = torch.optim.Adam


def numbers(stage: str) -> list[int]:
    return [int(word) for word in stage.split()]


class Block(nn.Module):
    """A convolution, its norm and its activation, under the name `main`."""

    def __init__(self, conv: nn.Module, outputs: int):
        super().__init__()
        self.main = nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2, inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)


class Encoder(nn.Module):
    def __init__(self, blocks: types.ModuleType, name: str, g_dim: int, channels: int):
        super().__init__()
        self.pool = name.startswith("vgg")
        inputs = channels
        for number, stage in enumerate(STAGES[name][0], start=1):
            layers = []
            for outputs in numbers(stage):
                conv = (
                    nn.Conv2d(inputs, outputs, 3, 1, 1) if self.pool else nn.Conv2d(inputs, outputs, 4, 2, 1)
                )
                layers.append((blocks.vgg_layer if self.pool else blocks.dcgan_conv)(conv, outputs))
                inputs = outputs
            setattr(self, f"c{number}", nn.Sequential(*layers) if self.pool else layers[0])
        last = nn.Sequential(nn.Conv2d(inputs, g_dim, 4), nn.BatchNorm2d(g_dim), nn.Tanh())
        setattr(self, f"c{len(STAGES[name][0]) + 1}", last)
        if self.pool:
            self.mp = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        *stages, last = (stage for name, stage in self.named_children() if name.startswith("c"))
        skips = []
        for stage in stages:
            x = stage(self.mp(x) if self.pool and skips else x)
            skips.append(x)
        return last(self.mp(x) if self.pool else x).flatten(1), skips


class Decoder(nn.Module):
    def __init__(self, blocks: types.ModuleType, name: str, g_dim: int, channels: int):
        super().__init__()
        self.is_vgg = name.startswith("vgg")
        below, stages = STAGES[name]
        self.upc1 = nn.Sequential(
            nn.ConvTranspose2d(g_dim, 512, 4), nn.BatchNorm2d(512), nn.LeakyReLU(0.2, inplace=True)
        )
        inputs = 512
        for number, (stage, skip) in enumerate(zip(stages, below[::-1], strict=True), start=2):
            inputs += numbers(skip)[-1]
            layers: list[nn.Module] = []
            for outputs in numbers(stage):
                if self.is_vgg:
                    layers.append(blocks.vgg_layer(nn.Conv2d(inputs, outputs, 3, 1, 1), outputs))
                else:
                    layers.append(blocks.dcgan_upconv(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), outputs))
                inputs = outputs
            if number == len(stages) + 1:
                conv = (3, 1, 1) if self.is_vgg else (4, 2, 1)
                layers += [nn.ConvTranspose2d(inputs, channels, *conv), nn.Sigmoid()]
            setattr(self, f"upc{number}", nn.Sequential(*layers) if len(layers) > 1 else layers[0])
        if self.is_vgg:
            self.up = nn.UpsamplingNearest2d(scale_factor=2)

    def forward(self, g: Tensor, skips: list[Tensor]) -> Tensor:
        first, *stages = (stage for name, stage in self.named_children() if name.startswith("upc"))
        x = first(g[..., None, None])
        for stage, skip in zip(stages, skips[::-1], strict=True):
            x = stage(torch.cat([self.up(x) if self.is_vgg else x, skip], 1))
        return x


class Recurrent(nn.Module):
    """A linear layer and cells; `hidden` is stored with the module, as the published code leaves it there."""

    def __init__(self, inputs: int, size: int, layers: int):
        super().__init__()
        self.embed = nn.Linear(inputs, size)
        self.lstm = nn.ModuleList(nn.LSTMCell(size, size) for _ in range(layers))
        self.hidden = [(torch.zeros(2, size), torch.zeros(2, size)) for _ in range(layers)]

    def step(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for number, cell in enumerate(self.lstm):
            self.hidden[number] = cell(x, self.hidden[number])
            x = self.hidden[number][0]
        return x


class FramePredictor(Recurrent):
    def __init__(self, inputs: int, outputs: int, size: int, layers: int):
        super().__init__(inputs, size, layers)
        self.output = nn.Sequential(nn.Linear(size, outputs), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.step(x))


class Gaussian(Recurrent):
    def __init__(self, inputs: int, outputs: int, size: int, layers: int):
        super().__init__(inputs, size, layers)
        self.mu_net = nn.Linear(size, outputs)
        self.logvar_net = nn.Linear(size, outputs)

    def forward(self, x: Tensor, noise: Tensor | float = 0.0) -> Tensor:
        h = self.step(x)
        return self.mu_net(h) + torch.exp(self.logvar_net(h) / 2) * noise


def install(monkeypatch) -> None:
    """Make the stand-ins importable as the published modules, by whose paths they are then pickled."""
    named = {"models.lstm": {"lstm": FramePredictor, "gaussian_lstm": Gaussian}}
    for name in STAGES:
        blocks = ["vgg_layer"] if name.startswith("vgg") else ["dcgan_conv", "dcgan_upconv"]
        named[f"models.{name}"] = {"encoder": Encoder, "decoder": Decoder, **dict.fromkeys(blocks, Block)}
    monkeypatch.setitem(sys.modules, "models", types.ModuleType("models"))
    for path, classes in named.items():
        module = types.ModuleType(path)
        monkeypatch.setitem(sys.modules, path, module)
        for name, base in classes.items():
            setattr(module, name, type(name, (base,), {"__module__": path}))


def make_checkpoint(name: str, prior: str, **changes) -> dict:
    """Return a checkpoint as the published training saves it, after some batches for its batch norms."""
    torch.manual_seed(3)
    backbone, width = name.split("_")
    flags = {
        "model": backbone, "image_width": int(width), "channels": 3, "g_dim": 16, "z_dim": 3, "rnn_size": 12,
        "predictor_rnn_layers": 2, "posterior_rnn_layers": 2, "prior_rnn_layers": 1, "last_frame_skip": False,
        "n_past": 2, "n_future": 3, "n_eval": 6, "batch_size": 2, "niter": 1, "epoch_size": 2, "lr": 0.002,
        "beta1": 0.9, "beta": 1e-4, "seed": 1, "dataset": "bair", "optimizer": OPTIMIZER, "data_root": "data",
    } | changes  # fmt: skip
    opt = argparse.Namespace(**flags)
    lstm, blocks = sys.modules["models.lstm"], sys.modules[f"models.{name}"]
    parts = {
        "encoder": blocks.encoder(blocks, name, opt.g_dim, opt.channels),
        "decoder": blocks.decoder(blocks, name, opt.g_dim, opt.channels),
        "frame_predictor": lstm.lstm(
            opt.g_dim + opt.z_dim, opt.g_dim, opt.rnn_size, opt.predictor_rnn_layers
        ),
        "posterior": lstm.gaussian_lstm(opt.g_dim, opt.z_dim, opt.rnn_size, opt.posterior_rnn_layers),
    }
    if prior == "learned":
        parts["prior"] = lstm.gaussian_lstm(opt.g_dim, opt.z_dim, opt.rnn_size, opt.prior_rnn_layers)
    _use(parts, opt)
    return parts | {"opt": opt}


@torch.no_grad()
def _use(parts: dict[str, nn.Module], opt: argparse.Namespace) -> None:
    """Let weights, running means and variances differ from what they are at the start."""
    for part in parts.values():
        for module in part.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.7, 1.3)
                module.bias.uniform_(-0.2, 0.2)
    for _ in range(3):
        h, skips = parts["encoder"](torch.rand(2, opt.channels, opt.image_width, opt.image_width))
        parts["decoder"](h, skips)


@torch.no_grad()
def rollout(checkpoint: dict, frames: Tensor, noise: Tensor) -> Tensor:
    """Return the frames [B,F,C,H,W] that follow `frames` [B,n_past,C,H,W], a step at a time.

    The encoder sees every frame, given or predicted. While frames are given, latents are the posterior's
    means, and skips are kept of each frame that another given one follows; after that they are the prior's
    with `noise` [B,F,z_dim], and skips stay, unless they are of each last frame.
    """
    opt = checkpoint["opt"]
    parts = {name: part.eval() for name, part in checkpoint.items() if name != "opt"}
    for name in parts.keys() - {"encoder", "decoder"}:
        size, layers = opt.rnn_size, len(parts[name].lstm)
        parts[name].hidden = [(torch.zeros(len(frames), size), torch.zeros(len(frames), size))] * layers
    given = frames.shape[1]
    last = frames[:, 0]
    skips: list[Tensor] = []
    predicted = []
    for time in range(1, given + noise.shape[1]):
        h, own_skips = parts["encoder"](last)
        if time < given or opt.last_frame_skip:
            skips = own_skips
        if time < given:
            z = parts["posterior"](parts["encoder"](frames[:, time])[0])
            if "prior" in parts:
                parts["prior"](h)
            parts["frame_predictor"](torch.cat([h, z], 1))
            last = frames[:, time]
        else:
            draw = noise[:, time - given]
            z = parts["prior"](h, draw) if "prior" in parts else draw
            last = parts["decoder"](parts["frame_predictor"](torch.cat([h, z], 1)), skips)
            predicted.append(last)
    return torch.stack(predicted, 1)


def save(checkpoint: dict, path: Path, legacy: bool) -> Path:
    """Write a checkpoint as PyTorch did before version 1.6 (`legacy`), or as it does since."""
    torch.save(checkpoint, path, _use_new_zipfile_serialization=not legacy)
    return path
