"""A recorded pass computes what the pass itself does."""

import pytest
import torch
from torch import nn

from svg.training.recorded import RecordedPass

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")


def test_gradients_statistics_and_results_are_those_of_the_pass_itself():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 3)).cuda()
    reference = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 3)).cuda()
    reference.load_state_dict(model.state_dict())

    def compute_with(model):
        def compute(frames, weight):
            loss = (weight * model(frames) ** 2).mean()
            loss.backward()
            return loss.detach()

        return compute

    arguments = {"frames": torch.randn(4, 3, 16, 16, device="cuda"), "weight": torch.full((), 2.0).cuda()}
    recorded = RecordedPass(compute_with(model), model, arguments)
    assert all(parameter.grad is None for parameter in model.parameters())
    for step in range(3):
        weight = torch.full((), 1.0 + step, device="cuda")
        arguments = {"frames": torch.randn(4, 3, 16, 16, device="cuda"), "weight": weight}
        model.zero_grad(), reference.zero_grad()
        torch.testing.assert_close(recorded(arguments), compute_with(reference)(**arguments))
        for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-3)
        for ours, theirs in zip(model.buffers(), reference.buffers(), strict=True):
            torch.testing.assert_close(ours, theirs)
        with torch.no_grad():  # the weights change in place, as an optimiser changes them
            for parameter in (*model.parameters(), *reference.parameters()):
                parameter.mul_(0.9)
