"""LSTMs over whole sequences or single steps, fully connected and convolutional. State goes in and comes out.

All take and return ``[B,T,...]``; a step is a sequence of T = 1. The fully connected modules are those of SVG (Denton & Fergus
2018): a linear embedding, an LSTM of one or more layers, and a linear output. Their convolutional twins work on ``[B,T,C,h,w]``.
"""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

State = tuple[Tensor, Tensor] | None
"""Hidden and cell state of a recurrent module, batch in dimension 1 (layers first); None stands for zeros."""


def repeat_state(state: State, times: int) -> State:
    """The state of each batch entry `times` times over, neighbours together: [a, b] -> [a, a, b, b] for times = 2."""
    if state is None:
        return None
    return state[0].repeat_interleave(times, dim=1), state[1].repeat_interleave(times, dim=1)


@dataclass
class Gaussian:
    """A diagonal normal distribution by mean and log variance, any equal shapes."""

    mu: Tensor
    logvar: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """z = mu + exp(logvar / 2) * noise, which is standard normal (Kingma & Welling 2014, section 2.4)."""
        return self.mu + torch.exp(0.5 * self.logvar) * noise

    def __getitem__(self, index) -> "Gaussian":
        return Gaussian(self.mu[index], self.logvar[index])

    @staticmethod
    def cat(steps: list["Gaussian"]) -> "Gaussian":
        """Joins along time (dimension 1)."""
        return Gaussian(torch.cat([g.mu for g in steps], 1), torch.cat([g.logvar for g in steps], 1))


class LSTM(nn.Module):
    """Linear -> LSTM, as ``[B,T,input_size] -> [B,T,hidden_size]``."""

    def __init__(self, input_size: int, hidden_size: int, layers: int):
        super().__init__()
        self.embed = nn.Linear(input_size, hidden_size)
        self.lstm = nn.LSTM(hidden_size, hidden_size, layers, batch_first=True)

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        # cuDNN has no backward pass in evaluation mode, which planners need to differentiate by actions
        native = x.is_cuda and not self.training and torch.is_grad_enabled()
        with torch.backends.cudnn.flags(enabled=False) if native else nullcontext():
            return self.lstm(self.embed(x), state)


class ConvLSTM(nn.Module):
    """Convolution -> convolutional LSTM (Shi et al. 2015, without peepholes), ``[B,T,input,h,w] -> [B,T,hidden,h,w]``.

    All gates of a layer are one convolution over [input, hidden]. Over a sequence, the input's part of it is done for all steps
    at once and only the hidden part goes step by step.
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
        hiddens, cells = [], []
        for conv, hidden, cell in zip(self.gates, *state, strict=True):
            if steps == 1:
                hidden, cell = _lstm_cell(conv(torch.cat([x, hidden.to(x)], 1)), cell)
                x = hidden
            else:
                of_input, of_hidden = conv.weight.to(x).split(
                    self.hidden_size, 1
                )  # cast once, not at every step
                inputs = F.conv2d(x, of_input, conv.bias, padding=1).unflatten(0, (batch, steps))
                outputs = []
                for gates in inputs.unbind(
                    1
                ):  # not sliced: the gradient of each slice would be zeros for all steps
                    hidden, cell = _lstm_cell(gates + F.conv2d(hidden.to(x), of_hidden, padding=1), cell)
                    outputs.append(hidden)
                x = torch.stack(outputs, 1).flatten(0, 1)
            hiddens.append(hidden)
            cells.append(cell)
        return x.unflatten(0, (batch, steps)), (torch.stack(hiddens), torch.stack(cells))


def _lstm_cell(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Hochreiter & Schmidhuber 1997 with forget gate; +1 keeps the cell open at the start (Jozefowicz et al. 2015)."""
    i, f, o, g = gates.chunk(4, dim=1)
    cell = torch.sigmoid(f + 1) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


class FramePredictor(nn.Module):
    """The frame predictor: recurrent core -> output layer -> tanh, in the range of the encoder's features."""

    def __init__(self, input_size: int, output_size: int, hidden_size: int, layers: int, spatial: bool):
        super().__init__()
        self.core = (ConvLSTM if spatial else LSTM)(input_size, hidden_size, layers)
        self.output = _head(hidden_size, output_size, spatial)

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        hidden, state = self.core(x, state)
        return torch.tanh(_per_step(self.output, hidden)), state


class GaussianLSTM(nn.Module):
    """Posterior or learned prior: recurrent core -> mu and logvar, two linear layers in one."""

    def __init__(self, input_size: int, output_size: int, hidden_size: int, layers: int, spatial: bool):
        super().__init__()
        self.core = (ConvLSTM if spatial else LSTM)(input_size, hidden_size, layers)
        self.output = _head(hidden_size, 2 * output_size, spatial)

    def forward(self, x: Tensor, state: State = None) -> tuple[Gaussian, State]:
        hidden, state = self.core(x, state)
        # float32: the KL takes exponentials of these
        return Gaussian(*_per_step(self.output, hidden).float().chunk(2, dim=2)), state


def _head(hidden_size: int, output_size: int, spatial: bool) -> nn.Module:
    return (
        nn.Conv2d(hidden_size, output_size, 3, padding=1) if spatial else nn.Linear(hidden_size, output_size)
    )


def _per_step(module: nn.Module, x: Tensor) -> Tensor:
    return module(x.flatten(0, 1)).unflatten(0, x.shape[:2])
