"""The equations of the noisy RNN, one step at a time and with nothing of the package's scans: the tests' oracle."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from noisin_pyro.models import NoisyRNN

KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class Layer(NamedTuple):
    """One layer's trajectory, each ``(..., B, T, H)``; the memory is the LSTM's."""

    mean: Tensor
    z: Tensor
    memory: Tensor | None


Draw = Callable[[int, int, Tensor], Tensor]  # z of a layer (from 1) at a step (from 0), from its mean


def weights(rnn: NoisyRNN, layer: int) -> list[Tensor]:
    """W_ih, W_hh, b_ih, b_hh of a layer, counted from 1."""
    return [getattr(rnn, f"{kind}_l{layer - 1}") for kind in KINDS]


def step(cell: str, parameters: list[Tensor], x: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The mean of z_t and the memory c_t, from x_{t-1}, z_{t-1} and c_{t-1}."""
    w_ih, w_hh, b_ih, b_hh = parameters
    inputs, states = x @ w_ih.T + b_ih, z @ w_hh.T + b_hh
    if cell == "gru":
        (x_r, x_u, x_n), (z_r, z_u, z_n) = inputs.chunk(3, -1), states.chunk(3, -1)
        update = torch.sigmoid(x_u + z_u)
        return update * z + (1 - update) * torch.tanh(x_n + torch.sigmoid(x_r + z_r) * z_n), None
    if cell == "lstm":
        i, f, g, o = (inputs + states).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
    function = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu, "identity": torch.clone}[cell]
    return function(inputs + states), None


def run(rnn: NoisyRNN, inputs: Tensor, draw: Draw, state: Tensor | tuple[Tensor, Tensor] | None = None) -> list[Layer]:
    """Every layer's trajectory: z_t = draw(layer, t, mean_t), the noisy state feeding back and upwards."""
    x, layers = inputs, []
    for layer in range(1, rnn.num_layers + 1):
        z, c = start(rnn, layer, inputs, state)
        means, path, memories = [], [], []
        for t in range(inputs.shape[-2]):
            mean, c = step(rnn.cell.name, weights(rnn, layer), x[..., t, :], z, c)
            z = draw(layer, t, mean)
            means.append(mean)
            path.append(z)
            memories.append(c)
        x = stack(path)
        layers.append(Layer(stack(means), x, None if memories[0] is None else stack(memories)))
    return layers


def stack(steps: list[Tensor]) -> Tensor:
    """A trajectory of its steps; the first ones may not yet have met the particles."""
    return torch.stack(torch.broadcast_tensors(*steps), -2)


def start(
    rnn: NoisyRNN, layer: int, inputs: Tensor, state: Tensor | tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor | None]:
    """z_0 and c_0 of a layer, counted from 1."""
    if state is None:
        zeros = inputs.new_zeros(*inputs.shape[:-2], rnn.hidden_size)
        return zeros, zeros if rnn.cell.name == "lstm" else None
    if isinstance(state, tuple):
        return state[0][layer - 1], state[1][layer - 1]
    return state[layer - 1], None


def scale(noise: str, mean: Tensor, spread: Tensor | float) -> Tensor:
    """The standard deviation of z around its mean, up to sign, as the table of families has it."""
    _, _, form = noise.partition(":")
    if noise == "beta:native":
        return spread * (mean * (1 - mean)).sqrt()
    if noise == "poisson:native":
        return spread * mean.sqrt()
    return spread * (mean if form else torch.ones_like(mean))


def noisy(noise: str, spreads: list[Tensor] | list[float], noises: list[Tensor]) -> Draw:
    """z = mean + scale·ε, for the given ε ``(..., B, T, H)`` of each layer."""
    return lambda layer, t, mean: mean + scale(noise, mean, spreads[layer - 1]) * noises[layer - 1][..., t, :]


def clean(_layer: int, _t: int, mean: Tensor) -> Tensor:
    """No noise."""
    return mean


def at_lengths(path: Tensor, beginning: Tensor, lengths: list[int]) -> Tensor:
    """Each sequence's value at its own end, ``(..., B, H)``; what it began with, at length 0."""
    beginning = beginning.expand(*path.shape[:-2], path.shape[-1])
    ends = [path[..., b, n - 1, :] if n else beginning[..., b, :] for b, n in enumerate(lengths)]
    return torch.stack(ends, -2)
