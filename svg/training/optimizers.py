"""The optimisers of training: PyTorch's, and Muon for convolutions and LSTMs."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from ..runtime import uses_bfloat16


def make_optimizer(config: TrainConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser that the flags name, fused where PyTorch has it so."""
    options = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.optimizer == "muon":
        return Muon(parameters, betas=(config.beta1, 0.999), **options)
    if config.optimizer in ("adam", "adamw"):
        kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
        return kind(parameters, betas=(config.beta1, 0.999), fused=True, **options)
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=config.beta1, fused=True, **options)
    return torch.optim.RMSprop(parameters, momentum=config.beta1, **options)


def state_names(optimizer: torch.optim.Optimizer, parameter: Tensor) -> set[str]:
    """What the optimiser keeps for a weight once it has taken a step."""
    if isinstance(optimizer, Muon):
        return {"momentum"} if Muon.is_matrix(parameter) else {"step", "mean", "square"}
    if isinstance(optimizer, torch.optim.Adam):  # AdamW, too, is one
        return {"step", "exp_avg", "exp_avg_sq"}
    momentum = {"momentum_buffer"} if optimizer.defaults["momentum"] else set()
    return momentum | ({"step", "square_avg"} if isinstance(optimizer, torch.optim.RMSprop) else set())


def step_unless(unusable: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """A step of the optimiser, which leaves it and the weights as they are if `unusable` (bool []).

    PyTorch's fused Adam looks at it on the device, as under a gradient scaler; for the others it is waited for.
    """
    if isinstance(optimizer, torch.optim.Adam):  # AdamW, too, is one
        optimizer.found_inf = unusable.float()
        optimizer.step()
    elif not unusable:
        optimizer.step()


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for weights that are matrices or convolution kernels, Adam for the rest.

    The momentum of a weight, as a matrix [first dimension, the others], is replaced by the nearest semi-orthogonal matrix: all
    directions of an update count the same. `lr` is Adam's; Muon's own rate is `MATRIX_RATE` times that, which keeps one
    schedule for both. Weights with a side under 16 (first and last convolutions, latents) and vectors go to Adam.
    """

    MATRIX_RATE = 20.0
    MOMENTUM = 0.95

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float],
        weight_decay: float = 0.0,
    ):
        parameters = list(parameters)
        groups = [
            {"params": [p for p in parameters if self.is_matrix(p)], "matrix": True},
            {"params": [p for p in parameters if not self.is_matrix(p)], "matrix": False},
        ]
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @staticmethod
    def is_matrix(parameter: Tensor) -> bool:
        return parameter.dim() >= 2 and min(parameter.shape[0], parameter[0].numel()) >= 16

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    (self._muon if group["matrix"] else self._adam)(parameter, group)
        return loss

    def _muon(self, parameter: Tensor, group: dict) -> None:
        state, gradient = self.state[parameter], parameter.grad
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(gradient, 1 - self.MOMENTUM)
        update = orthogonalise(gradient.lerp(momentum, self.MOMENTUM).flatten(1)).view_as(parameter)
        tall = max(1.0, parameter.shape[0] / parameter[0].numel()) ** 0.5
        parameter.add_(update, alpha=-group["lr"] * self.MATRIX_RATE * tall)

    def _adam(self, parameter: Tensor, group: dict) -> None:
        """Kingma & Ba 2015, algorithm 1."""
        state, gradient = self.state[parameter], parameter.grad
        if not state:
            state.update(step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
        state["step"] += 1
        beta1, beta2 = group["betas"]
        mean, square = state["mean"].lerp_(gradient, 1 - beta1), state["square"].lerp_(gradient**2, 1 - beta2)
        scale = (square / (1 - beta2 ** state["step"])).sqrt_().add_(1e-8)
        parameter.addcdiv_(mean, scale, value=-group["lr"] / (1 - beta1 ** state["step"]))


def orthogonalise(matrix: Tensor) -> Tensor:
    """Brings all singular values of a matrix [M,N] near 1 (0.7 to 1.2), keeping its singular vectors.

    Five steps of the quintic Newton-Schulz iteration X <- aX + b(XX')X + c(XX')^2 X with Jordan's coefficients. Precision does
    not matter here: in bfloat16 where the hardware computes in it (where it does not, that takes ten times as long as float32).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / (matrix.norm() + 1e-12)
    if uses_bfloat16(matrix.device, "auto"):
        x = x.bfloat16()
    wide = x if x.shape[0] <= x.shape[1] else x.T
    for _ in range(5):
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return (wide if x.shape[0] <= x.shape[1] else wide.T).to(matrix.dtype)
