"""The optimisers of training, PyTorch's and Muon, and their saved state."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from data_tools.errors import InputError

from ..config import TrainConfig
from ..runs import checkpoint
from ..runs.checkpoint import Checkpoint, Damaged, Tensors
from ..runs.torch_files import read_state
from ..runtime import uses_bfloat16

STATES_PER_WEIGHT = 4
"""A bound on the numbers that an optimiser keeps for each weight."""


def make_optimizer(config: TrainConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimiser that the flags name, fused where PyTorch offers that."""
    lr = config.lr
    decay = config.weight_decay
    momentum = config.beta1
    betas = (config.beta1, 0.999)
    if config.optimizer == "muon":
        return Muon(parameters, lr, betas, decay)
    groups = _by_pace(parameters)
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr, betas, weight_decay=decay, fused=True)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr, betas, weight_decay=decay, fused=True)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr, momentum, weight_decay=decay, fused=True)
    return torch.optim.RMSprop(groups, lr, momentum=momentum, weight_decay=decay)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the next steps, times the pace of each weight (`layers.learn_faster`)."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["pace"]


def _by_pace(parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """Return the groups of parameters that an optimiser treats alike."""
    groups: dict[float, list[nn.Parameter]] = defaultdict(list)
    for parameter in parameters:
        groups[getattr(parameter, "pace", 1.0)].append(parameter)
    return [{"params": members, "pace": pace} for pace, members in groups.items()]


def step_unless(unusable: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Take a step of the optimiser, which leaves it and the weights unchanged if `unusable` (bool []).

    PyTorch's fused Adam checks it on the device, as with a gradient scaler; the others wait for its value.
    """
    if isinstance(optimizer, torch.optim.Adam):  # and AdamW, its subclass
        optimizer.found_inf = unusable.float()  # ty: ignore[missing-attribute] where fused Adam looks for it
        optimizer.step()
    elif not unusable:
        optimizer.step()


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for weights that are matrices or convolution kernels, Adam for the rest.

    The momentum of a weight, seen as a matrix [first dimension, the others], is replaced by the nearest
    semi-orthogonal matrix: all directions of an update count the same. `lr` is Adam's; Muon's own rate is
    `MATRIX_RATE` times that, so that one schedule serves both. Weights with a side under 16 (first and last
    convolutions, latents), those that `layers.output_layer` marks, and vectors are left to Adam. PyTorch's
    own Muon takes matrices alone.

    An update has the same size however small the gradient is, so that weights without a norm after them grow
    as long as the training lasts. The weight decay, relative to each one's own rate, bounds their singular
    values by its inverse.
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
        groups = []
        for matrix in (True, False):
            members = [parameter for parameter in parameters if self.is_matrix(parameter) == matrix]
            groups += [group | {"matrix": matrix} for group in _by_pace(members)]
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @staticmethod
    def is_matrix(parameter: Tensor) -> bool:
        """Return whether Muon updates this parameter, rather than Adam."""
        if getattr(parameter, "is_output", False):
            return False
        return parameter.dim() >= 2 and min(parameter.shape[0], parameter[0].numel()) >= 16

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take an optimiser step and return the loss of `closure`, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            rate = group["lr"] * (self.MATRIX_RATE if group["matrix"] else 1)
            torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
            gradients = [parameter.grad for parameter in parameters]
            if group["matrix"]:
                self._muon(parameters, gradients, rate)
            else:
                self._adam(parameters, gradients, group)
        return loss

    def _muon(self, parameters: list[Tensor], gradients: list[Tensor], rate: float) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        momenta = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - self.MOMENTUM)
        updates = torch._foreach_lerp(gradients, momenta, self.MOMENTUM)
        shapes: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, parameter in enumerate(parameters):
            shapes[len(parameter), parameter[0].numel()].append(number)
        for (rows, columns), numbers in shapes.items():
            matrices = _orthogonalise_each([updates[number].flatten(1) for number in numbers])
            tall = max(1.0, rows / columns) ** 0.5
            for number, matrix in zip(numbers, matrices, strict=True):
                parameters[number].add_(matrix.view_as(parameters[number]), alpha=-rate * tall)

    def _adam(self, parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        """Take a step of Adam (Kingma & Ba 2015, algorithm 1)."""
        beta1, beta2 = group["betas"]
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state.update(step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
            state["step"] += 1
        means, squares = ([state[name] for state in states] for name in ("mean", "square"))
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - beta2)
        scales = torch._foreach_div(squares, [1 - beta2 ** state["step"] for state in states])
        torch._foreach_sqrt_(scales)
        torch._foreach_add_(scales, 1e-8)
        rates = [-group["lr"] / (1 - beta1 ** state["step"]) for state in states]
        torch._foreach_addcdiv_(parameters, means, scales, rates)


def _orthogonalise_each(matrices: list[Tensor]) -> Iterable[Tensor]:
    """Return `orthogonalise` of matrices of one shape.

    To a GPU a small product costs no more than to start it, so they go together. A CPU has no fast product of
    several bfloat16 matrices: a step of the quickstart took 33 seconds with it instead of 0.3.
    """
    if matrices[0].is_cuda:
        return orthogonalise(torch.stack(matrices))
    return map(orthogonalise, matrices)


def orthogonalise(matrices: Tensor) -> Tensor:
    """Return matrices [...,M,N] with singular vectors kept and all singular values near 1 (0.7 to 1.2).

    Five steps of the quintic Newton-Schulz iteration X <- aX + b(XX')X + c(XX')^2 X with Jordan's
    coefficients. Precision does not matter here: in bfloat16 where the hardware supports it, in float32
    elsewhere, as emulated bfloat16 takes ten times as long.
    """
    a, b, c = 3.4445, -4.7750, 2.0315  # Jordan's coefficients
    x = matrices / (matrices.flatten(-2).norm(dim=-1)[..., None, None] + 1e-12)
    if uses_bfloat16(matrices.device, "auto"):
        x = x.bfloat16()
    is_wide = x.shape[-2] <= x.shape[-1]
    wide = x if is_wide else x.mT
    for _ in range(5):
        gram = wide @ wide.mT
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return (wide if is_wide else wide.mT).to(matrices.dtype)


# -------------------------------------------------------------------------------------------------------
# saved state


def state_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """Return copies of the optimiser's state as it is saved: ``{"<parameter>/<name>": tensor}``.

    Whole numbers, such as Muon's count of steps, become int64.
    """
    tensors = {
        f"{name}/{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    return checkpoint.stored(tensors)


def load_state(source: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load the optimiser's state of a checkpoint; its settings stay as they are. Raises `Damaged`."""
    path = source.files.get("optimizer")
    if path is None:
        raise Damaged(f"{source.path}: damaged (it names no state of the optimiser)")
    try:
        if source.version == 1:
            state = read_state(path)["state"]
        else:
            max_bytes = STATES_PER_WEIGHT * checkpoint.max_file_bytes(model)
            state = _from_tensors(checkpoint.read_tensors(path, max_bytes), model, optimizer)
        _check_state(state, optimizer)
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    except InputError:
        raise
    except (
        Exception
    ) as error:  # damaged bytes provoke any error: struct.error, UnpicklingError, RuntimeError ...
        reason = checkpoint.first_line(error)
        raise Damaged(f"{path}: damaged or of another optimiser ({reason})") from None


def _from_tensors(
    tensors: Tensors, model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[int, dict[str, Any]]:
    """Return the state by number of the parameter, as an optimiser takes it. Raises `ValueError`."""
    parameters = dict(model.named_parameters())
    states: dict[Tensor, dict[str, Any]] = {parameter: {} for parameter in parameters.values()}
    for full_name, value in tensors.items():
        name, _, key = full_name.rpartition("/")
        if name not in parameters or (value.dim() and value.shape != parameters[name].shape):
            raise ValueError(f"found {full_name} {list(value.shape)}")
        parameter = parameters[name]
        if value.dtype == torch.int64:
            states[parameter][key] = value.item()
        elif (
            value.dim()
        ):  # in the parameter's memory format: fused optimisers walk through memory in its order
            states[parameter][key] = torch.empty_like(parameter).copy_(value).detach()
        else:
            states[parameter][key] = value
    numbered = enumerate(_parameters_of(optimizer))
    return {number: states[parameter] for number, parameter in numbered if states[parameter]}


def _check_state(state: dict[int, dict[str, Any]], optimizer: torch.optim.Optimizer) -> None:
    """Raise `ValueError` unless each weight with a state has all that the optimiser's next step needs."""
    parameters = list(_parameters_of(optimizer))
    for number, values in state.items():
        parameter = parameters[number]
        if values.keys() != _state_names(optimizer, parameter):
            raise ValueError(f"found {', '.join(values)} for weight {number}")
        for name, value in values.items():
            if name == "step":
                is_valid = 0 <= float(value) < 2**53
            else:
                is_valid = isinstance(value, Tensor) and (value.shape, value.dtype) == (
                    parameter.shape,
                    parameter.dtype,
                )
            if not is_valid:
                raise ValueError(f"{name} of weight {number}")


def _parameters_of(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    """Yield the parameters in the order in which an optimiser's state numbers them."""
    for group in optimizer.param_groups:
        yield from group["params"]


def _state_names(optimizer: torch.optim.Optimizer, parameter: Tensor) -> set[str]:
    """Return the names of what the optimiser keeps for a parameter after a step."""
    if isinstance(optimizer, Muon):
        return {"momentum"} if Muon.is_matrix(parameter) else {"step", "mean", "square"}
    if isinstance(optimizer, torch.optim.Adam):  # and AdamW, its subclass
        return {"step", "exp_avg", "exp_avg_sq"}
    momentum = {"momentum_buffer"} if optimizer.defaults["momentum"] else set()
    if isinstance(optimizer, torch.optim.RMSprop):
        return momentum | {"step", "square_avg"}
    return momentum
