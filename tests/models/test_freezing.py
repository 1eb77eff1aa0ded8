"""The form for prediction predicts what the model predicts."""

import pytest
import torch
from torch import nn

from svg.evaluation.ssim import ssim
from svg.models.freezing import freeze
from svg.training.distributed import SynchronisedBatchNorm
from tests.support.samples import small_model


@pytest.fixture(
    params=[("vgg", "vector"), ("dcgan", "vector"), ("vgg", "spatial"), ("dcgan", "spatial")], ids="-".join
)
def model(request):
    """Batch norms whose scales, shifts and running moments are all different from their beginnings."""
    backbone, recurrence = request.param
    model = small_model(
        model=backbone,
        recurrence=recurrence,
        norm="batch",
        blend=recurrence == "spatial",
        warp="before" if recurrence == "spatial" else "none",
    )
    torch.manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in (
                (module.weight, 0.5),
                (module.bias, -0.5),
                (module.running_mean, -0.5),
                (module.running_var, 0.5),
            ):
                nn.init.uniform_(tensor, low, low + 1)
    return model


def future(model, actions):
    frames = torch.linspace(0, 1, 2 * 3 * 64 * 64).reshape(1, 2, 3, 64, 64)
    start = model.observe(frames, actions)
    return model.imagine(start, actions[:, 1:], torch.full((1, 2, 3, *model.latent_shape), 0.3))


def test_the_same_predictions_and_gradients(model):
    actions = torch.randn(1, 4, 4, requires_grad=True)
    frozen = freeze(model, "float32")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules()), (
        "the model itself stays as it was"
    )
    expected, found = future(model, actions), future(frozen, actions)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    gradients = [torch.autograd.grad(frames[..., :32, :].sum(), actions)[0] for frames in (expected, found)]
    scale = gradients[0].abs().max().item()
    assert scale > 0
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-3 * scale, rtol=1e-3)


def test_bfloat16(model):
    actions = torch.randn(1, 4, 4)
    with torch.no_grad():
        found = future(freeze(model, "bfloat16"), actions)  # which sees to the precision itself
        with torch.autocast("cpu", torch.bfloat16):
            expected = future(model, actions)
    assert found.dtype == torch.float32
    assert (found - expected).abs().mean() < 0.01
    assert (found - expected).abs().mean() < 0.2 * (expected - expected.mean()).abs().mean()


def test_a_frozen_model_knows_its_device_and_precision(model):
    assert model.device == freeze(model, "float32").device == torch.device("cpu")
    precisions = {name: freeze(model, name).precision for name in ("float32", "bfloat16")}
    assert precisions == {"float32": "float32", "bfloat16": "bfloat16"} and model.precision == "float32"


def test_norms_synchronised_over_processes_fold_likewise(model):
    expected = future(freeze(model, "float32"), torch.ones(1, 4, 4))
    for parent in list(model.modules()):
        for name, norm in list(parent.named_children()):
            if type(norm) is nn.BatchNorm2d:
                other = SynchronisedBatchNorm(norm.num_features)
                other.load_state_dict(norm.state_dict())
                setattr(parent, name, other)
    torch.testing.assert_close(future(freeze(model, "float32"), torch.ones(1, 4, 4)), expected)


@pytest.mark.slow
def test_compiled_model_trains_and_predicts_alike():
    """One graph for training, free running and all, without a break; and the compiled parts of prediction."""
    model = small_model(
        model="dcgan", recurrence="spatial", feedback="feature", blend=True, warp="before"
    ).train()
    frames, actions, noise = (
        torch.rand(2, 4, 3, 64, 64),
        torch.randn(2, 4, 4),
        torch.randn(2, 3, *model.latent_shape),
    )
    gradients = []
    for forward in (model, torch.compile(model, fullgraph=True)):
        model.zero_grad()
        rollout = forward(frames, actions, 2, False, noise)
        rollout.frames.square().sum().backward()
        gradients.append(
            [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]
        )
    for eager, compiled in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled, eager, atol=1e-3 * eager.abs().max().item() + 1e-6, rtol=1e-3)
    model.eval()
    with torch.no_grad():
        expected, found = (
            future(model, actions[:1]),
            future(freeze(model, "float32", compile=True), actions[:1]),
        )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    for window in ("uniform", "gaussian"):
        eager, compiled = (ssim(found, frames[:1, 1:], window, compile=compile) for compile in (False, True))
        torch.testing.assert_close(compiled, eager, atol=1e-5, rtol=1e-5)
