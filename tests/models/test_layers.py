"""The layers that save time or memory give the values and gradients of their plain forms."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import nn
from torch.nn import functional as F

from svg.models.layers import (
    AddHeld,
    LevelEnd,
    SkipConv,
    conv_block,
    hold_last,
    upsampling_kernel,
    warp,
)
from svg.models.recomputation import _hooked, recomputed_activations
from tests.support.samples import small_model


def close(a, b):
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("upsample", "width"), [(True, 16), (True, 8), (False, 8)])
def test_skip_conv_is_the_plain_convolution(upsample, width):
    """Compare with a convolution over [up-sampled, skip]; the last three frames have the second skip."""
    torch.manual_seed(0)
    layer = SkipConv(5, 6, 7, upsample)
    below, skip = torch.randn(2 * 4, 5, width // 2, width // 2), torch.randn(2, 2, 6, width, width)
    if not upsample:  # a transposed convolution up-samples both halves
        skip = torch.randn(2, 2, 6, width // 2, width // 2)
    below.requires_grad_(), skip.requires_grad_()
    held = skip[:, [0, 1, 1, 1]].flatten(0, 1)
    up = F.interpolate(below, scale_factor=2, mode="nearest") if upsample else below
    plain = layer.conv(torch.cat([up, held], 1))
    ours = layer(below, layer.prepare(skip))
    close(ours, plain)
    weight, inputs = torch.randn_like(plain), (below, skip, layer.conv.weight, layer.conv.bias)
    for mine, expected in zip(
        *(torch.autograd.grad((x * weight).sum(), inputs) for x in (ours, plain)), strict=True
    ):
        close(mine, expected)


def test_upsampling_kernel_by_hand():
    """Of taps (1, 10, 100) an odd output sees 1 + 10 of its own pixel and 100 of the next.

    An even one sees 10 + 100 of its own and 1 of the one before.
    """
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 1] = torch.tensor([1.0, 10.0, 100.0])
    row = F.conv_transpose2d(torch.tensor([[[[1.0, 2.0]]]]), upsampling_kernel(weight), None, 2, 1)[0, 0, 0]
    assert row.tolist() == [110, 11 + 200, 1 + 220, 22]  # of 1 1 2 2 between zeros


def test_add_held():
    x, term = (
        torch.zeros(2 * 3, 1, 1, 1),
        torch.tensor([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 2, 1, 1, 1).requires_grad_(),
    )
    y = AddHeld.apply(x, term)
    assert y.flatten().tolist() == [1, 2, 2, 3, 4, 4] == hold_last(term, 3).flatten().tolist()
    (y.flatten() * torch.tensor([1.0, 10, 100, 1000, 1e4, 1e5])).sum().backward()
    assert term.grad.flatten().tolist() == [1, 110, 1000, 110000]


def test_hold_last():
    x = torch.tensor([[1, 2], [3, 4]])
    assert hold_last(x, 4).tolist() == [[1, 2, 2, 2], [3, 4, 4, 4]]
    assert hold_last(x, 2) is x


def test_warp_is_interpolation_at_the_moved_places():
    """Compare with SciPy, and by hand: with a flow of one to the right a pixel shows its right neighbour."""
    torch.manual_seed(0)
    frames, flow = torch.rand(2, 3, 2, 6, 9), 4 * torch.randn(2, 3, 2, 6, 9)
    found, (down, right) = warp(frames, flow), np.indices((6, 9))
    for index in np.ndindex(2, 3, 2):
        dx, dy = flow[index[:2]].numpy()
        expected = map_coordinates(
            frames[index].double().numpy(), [down + dy, right + dx], order=1, mode="nearest"
        )
        torch.testing.assert_close(found[index].double(), torch.from_numpy(expected), atol=1e-5, rtol=0)
    one = torch.stack([torch.ones(1, 1, 1, 3), torch.zeros(1, 1, 1, 3)], 2)
    close(warp(torch.tensor([[[[[0.1, 0.5, 0.2]]]]]), one), torch.tensor([[[[[0.5, 0.2, 0.2]]]]]))


def test_a_flow_that_is_not_a_number_ends_no_process():
    """PyTorch's own backward pass ends it with a segmentation fault, so a process of its own tries."""
    code = """
import torch
from svg.models.layers import warp
flow = torch.zeros(1, 4, 2, 64, 64)
flow[0, 1, :, 3:40, 5] = float("nan")
frames = torch.rand(1, 4, 3, 64, 64, requires_grad=True)
warp(frames, flow.requires_grad_()).sum().backward()
assert frames.grad.isfinite().all()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize("sources", [2, -1])
def test_level_end_is_pooling_and_a_slice(pool, sources):
    torch.manual_seed(0)
    x = torch.randn(2 * 3, 4, 8, 8, requires_grad=True)
    frames = slice(0, 2) if sources == 2 else slice(2, 3)
    plain = (F.max_pool2d(x, 2) if pool else x), x.unflatten(0, (2, 3))[:, frames]
    ours = LevelEnd.apply(x, 2, sources, pool)
    weights = [torch.randn_like(part) for part in plain]
    for mine, expected in zip(ours, plain, strict=True):
        assert torch.equal(mine, expected)
    gradients = [
        torch.autograd.grad(sum((a * b).sum() for a, b in zip(parts, weights, strict=True)), x)[0]
        for parts in (ours, plain)
    ]
    close(*gradients)


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("training", [True, False])
def test_recomputed_activations_change_nothing(norm, training):
    """Compare values, gradients and running means of two blocks in a row, also of a second backward pass."""
    torch.manual_seed(0)
    ours = nn.Sequential(conv_block(3, 4, norm), conv_block(4, 8, norm)).train(training)
    plain = nn.Sequential(*(nn.Sequential(*block) for block in copy.deepcopy(ours)))
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    with recomputed_activations():
        total = (ours(x) ** 2).sum()
    expected = plain(x)
    close(total, (expected**2).sum())
    mine = torch.autograd.grad(total, [x, *ours.parameters()], retain_graph=True)
    again = torch.autograd.grad(total, [x, *ours.parameters()])
    for a, b, c in zip(
        mine, again, torch.autograd.grad((expected**2).sum(), [x, *plain.parameters()]), strict=True
    ):
        assert torch.equal(a, b)
        close(a, c)
    for a, b in zip(ours.buffers(), plain.buffers(), strict=True):
        close(a, b)


def test_an_activation_is_not_kept():
    """Its own backward pass and that of the next convolution keep nothing but how to compute it."""
    with _hooked() as hook:
        y = conv_block(3, 4, "batch")(torch.randn(2, 3, 8, 8))
        total = nn.Conv2d(4, 4, 3)(y).sum()
    assert hook.latest.uses == 2
    total.backward()
    assert hook.latest.uses == 0 and hook.latest.value is None


def test_an_activation_is_computed_again_as_in_the_forward_pass():
    """The mode may change before the backward pass; weights must not, and that is checked."""
    torch.manual_seed(0)
    block = conv_block(3, 4, "batch").eval()
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    (expected,) = torch.autograd.grad(nn.Sequential(*block)(x).square().sum(), x)
    with recomputed_activations():
        total = block(x).square().sum()
    block.train()
    close(torch.autograd.grad(total, x, retain_graph=True)[0], expected)
    with torch.no_grad():
        block[1].bias += 1
    with pytest.raises(
        RuntimeError, match=r"a tensor of shape \(4,\) that the backward pass needs was changed in place"
    ):
        torch.autograd.grad(total, x)


def test_nothing_is_recomputed_where_nothing_needs_a_gradient():
    with _hooked() as hook:
        conv_block(3, 4, "batch").requires_grad_(False)(torch.randn(2, 3, 8, 8))
    assert hook.latest is None


class PlainModel:
    """Encoder and decoder as published, with the modules of ours: one convolution over [up-sampled, skip]."""

    def __init__(self, model):
        self.encoder, self.decoder = model.encoder, model.decoder

    def encode(self, frames):
        x, skips = frames, []
        for level in self.encoder.levels:
            x = nn.Sequential(*level)(x)
            skips.append(x)
            x = F.max_pool2d(x, 2) if self.encoder.pool else x
        h = self.encoder.output(x)
        return h if self.encoder.spatial else h.flatten(1), skips

    def decode(self, g, skips):
        decoder = self.decoder
        x = decoder.input(g if g.dim() == 4 else g[..., None, None])
        for skip_conv, level, skip in zip(decoder.skip_convs, decoder.levels, reversed(skips), strict=True):
            x = F.interpolate(x, scale_factor=2, mode="nearest") if skip_conv.upsample else x
            x = level(skip_conv.conv(torch.cat([x, skip], 1)))
        return torch.sigmoid(x.float())


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize(
    ("backbone", "recurrence"),
    [("vgg", "vector"), ("dcgan", "vector"), ("vgg", "spatial"), ("dcgan", "spatial")],
)
def test_encoder_and_decoder_equal_the_plain_ones(backbone, recurrence, norm):
    """Compare frames and all gradients for 2 clips of 4 frames; the last three have the second skips."""
    model = small_model(model=backbone, recurrence=recurrence, norm=norm, condition_dim=0).double().train()
    twin = copy.deepcopy(model)
    frames = torch.rand(2, 4, 3, 64, 64, dtype=torch.float64)
    h, skips = model.encoder(frames, 2)
    ours, _ = model.decoder(h, model.decoder.prepare(skips), frames[:, :2], frames[:, :2])
    plain = PlainModel(twin)
    h, skips = plain.encode(frames.flatten(0, 1))
    expected = plain.decode(h, [skip.unflatten(0, (2, 4))[:, [0, 1, 1, 1]].flatten(0, 1) for skip in skips])
    torch.testing.assert_close(ours.flatten(0, 1), expected)
    weight = torch.randn_like(expected)
    for result, who in ((ours.flatten(0, 1), model), (expected, twin)):
        (result * weight).sum().backward()
        assert all(
            (p.grad is not None) == n.startswith(("encoder", "decoder")) for n, p in who.named_parameters()
        )
    for (name, mine), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        if mine.grad is not None:
            torch.testing.assert_close(
                mine.grad, theirs.grad, atol=1e-6, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
            )
