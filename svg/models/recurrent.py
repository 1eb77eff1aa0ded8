"""LSTMs over whole sequences or single steps, fully connected and convolutional.

They keep no state: it goes in and out. All take and return [B,T,...]; a step is a sequence of T = 1. The
fully connected modules are those of SVG (Denton & Fergus 2018): a linear embedding, an LSTM of one or more
layers, and a linear output. Their convolutional twins work on [B,T,C,h,w].
"""

from contextlib import nullcontext
from dataclasses import dataclass
from types import EllipsisType
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

State = tuple[Tensor, Tensor] | None
"""Hidden and cell state of a recurrent module, batch in dimension 1 (layers first); None stands for zeros."""
Index = int | slice | Tensor | EllipsisType | None


def repeat_state(state: State, times: int) -> State:
    """Repeat the state of each batch entry, neighbours together: [a, b] -> [a, a, b, b] for times = 2."""
    if state is None:
        return None
    return state[0].repeat_interleave(times, dim=1), state[1].repeat_interleave(times, dim=1)


@dataclass
class Gaussian:
    """A diagonal normal distribution by mean and log variance, of any equal shapes."""

    mu: Tensor
    logvar: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Return mu + exp(logvar / 2) * noise, with standard normal noise (Kingma & Welling 2014, 2.4)."""
        return self.mu + torch.exp(0.5 * self.logvar) * noise

    def __getitem__(self, index: Index | tuple[Index, ...]) -> "Gaussian":
        return Gaussian(self.mu[index], self.logvar[index])

    @staticmethod
    def cat(steps: list["Gaussian"]) -> "Gaussian":
        """Join distributions along time (dimension 1)."""
        mu = torch.cat([step.mu for step in steps], 1)
        logvar = torch.cat([step.logvar for step in steps], 1)
        return Gaussian(mu, logvar)


class LSTM(nn.Module):
    """Linear layer and LSTM, [B,T,input_size] -> [B,T,hidden_size]."""

    def __init__(self, input_size: int, hidden_size: int, layers: int):
        super().__init__()
        self.embed = nn.Linear(input_size, hidden_size)
        self.lstm = nn.LSTM(hidden_size, hidden_size, layers, batch_first=True)

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        # cuDNN has no backward pass in evaluation mode, which planners need to differentiate by actions.
        native = x.is_cuda and not self.training and torch.is_grad_enabled()
        with torch.backends.cudnn.flags(enabled=False) if native else nullcontext():
            return self.lstm(self.embed(x), state)


class ConvLSTM(nn.Module):
    """Convolution and convolutional LSTM, [B,T,input,h,w] -> [B,T,hidden,h,w].

    The LSTM is that of Shi et al. 2015 without peepholes. All gates of a layer are one convolution over
    [input, hidden]. Over a sequence, the input's part of it is computed for all steps at once and only the
    hidden part goes step by step.
    """

    def __init__(self, input_size: int, hidden_size: int, layers: int):
        super().__init__()
        self.hidden_size = hidden_size
        self.embed = nn.Conv2d(input_size, hidden_size, 3, padding=1)
        self.gates = nn.ModuleList(
            nn.Conv2d(2 * hidden_size, 4 * hidden_size, 3, padding=1) for _ in range(layers)
        )

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        batch, steps = x.shape[:2]
        x = F.leaky_relu(self.embed(x.flatten(0, 1)), 0.2)
        if state is None:
            zeros = x.new_zeros(len(self.gates), batch, *x.shape[1:])
            state = zeros, zeros
        hiddens = []
        cells = []
        for conv, hidden, cell in zip(cast(list[nn.Conv2d], self.gates), *state, strict=True):
            if steps == 1:
                hidden, cell = lstm_cell(conv(torch.cat([x, hidden.to(x)], 1)), cell)
                x = hidden
            else:
                x, hidden, cell = self._sequence(conv, x, hidden, cell)
            hiddens.append(hidden)
            cells.append(cell)
        return x.unflatten(0, (batch, steps)), (torch.stack(hiddens), torch.stack(cells))

    def _sequence(
        self, conv: nn.Conv2d, x: Tensor, hidden: Tensor, cell: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run one layer over all steps of `x` [B*T,C,h,w]; return its outputs, hidden and cell state."""
        # Cast once, not at every step.
        input_weight, hidden_weight = conv.weight.to(x).split(self.hidden_size, 1)
        inputs = F.conv2d(x, input_weight, conv.bias, padding=1).unflatten(0, (hidden.shape[0], -1))
        outputs = []
        # Unbound, not sliced: the gradient of each slice would be zeros for all steps.
        for gates in inputs.unbind(1):
            hidden, cell = lstm_cell(gates + F.conv2d(hidden.to(x), hidden_weight, padding=1), cell)
            outputs.append(hidden)
        return torch.stack(outputs, 1).flatten(0, 1), hidden, cell


def lstm_cell(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Return hidden and cell state (Hochreiter & Schmidhuber 1997, with forget gate).

    +1 keeps the cell open at the start (Jozefowicz et al. 2015).
    """
    i, f, o, g = gates.chunk(4, dim=1)
    cell = torch.sigmoid(f + 1) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


class FramePredictor(nn.Module):
    """The frame predictor: recurrent core, output layer and tanh, the range of the encoder's features."""

    def __init__(self, input_size: int, output_size: int, hidden_size: int, layers: int, spatial: bool):
        super().__init__()
        self.core = (ConvLSTM if spatial else LSTM)(input_size, hidden_size, layers)
        self.output = _head(hidden_size, output_size, spatial)

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        hidden, state = self.core(x, state)
        return torch.tanh(_per_step(self.output, hidden)), state


class GaussianLSTM(nn.Module):
    """Posterior or learned prior: recurrent core, then mu and logvar from two linear layers in one."""

    def __init__(self, input_size: int, output_size: int, hidden_size: int, layers: int, spatial: bool):
        super().__init__()
        self.core = (ConvLSTM if spatial else LSTM)(input_size, hidden_size, layers)
        self.output = _head(hidden_size, 2 * output_size, spatial)

    def forward(self, x: Tensor, state: State = None) -> tuple[Gaussian, State]:
        hidden, state = self.core(x, state)
        # float32: the KL takes exponentials of these
        mu, logvar = _per_step(self.output, hidden).float().chunk(2, dim=2)
        return Gaussian(mu, logvar), state


def _head(hidden_size: int, output_size: int, spatial: bool) -> nn.Module:
    if spatial:
        return nn.Conv2d(hidden_size, output_size, 3, padding=1)
    return nn.Linear(hidden_size, output_size)


def _per_step(module: nn.Module, x: Tensor) -> Tensor:
    return module(x.flatten(0, 1)).unflatten(0, x.shape[:2])
