"""Small noisy layers in float64, their inputs, and Pyro programs that hold them."""

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from noisin_pyro.models import CELLS, NoisyRNN

BATCH, STEPS, FEATURES, UNITS, PARTICLES = 4, 5, 2, 3, 2
LENGTHS = torch.tensor([STEPS, 0, 3, 1])
SPREADS = [0.3, 0.2, 0.4]

ADDITIVE = ["gaussian", "gamma", "bernoulli", "dirichlet", "categorical"]
MULTIPLICATIVE = ["gaussian:multiplicative", "gamma:multiplicative", "bernoulli:multiplicative"]
NATIVE = ["gamma:native", "beta:native", "poisson:native"]  # their means must be positive: the sigmoid cell's are


def make_rnn(cell: str = "tanh", noise: str = "gaussian", num_layers: int = 1, **options: Any) -> NoisyRNN:
    """A layer in float64, its spreads those of ``SPREADS`` if none are given."""
    options.setdefault("spread", SPREADS[:num_layers])
    rnn = NoisyRNN(FEATURES, UNITS, num_layers, cell, noise, **options).double()
    if cell == "relu" and noise in MULTIPLICATIVE:  # a mean of 0 has no density
        with torch.no_grad():
            for name, parameter in rnn.named_parameters():
                parameter.mul_(0.1).add_(3.0 if name.startswith("bias_ih") else 0.0)
    return rnn


def make_inputs(batch: int = BATCH, steps: int = STEPS) -> Tensor:
    return torch.randn(batch, steps, FEATURES, dtype=torch.float64)


def make_state(rnn: NoisyRNN, *batch: int) -> Tensor | tuple[Tensor, Tensor]:
    """A state ``(L, ..., B, H)`` inside every cell's range; a pair for the LSTM."""
    shape = (rnn.num_layers, *(batch or (BATCH,)), UNITS)
    z = torch.rand(shape, dtype=torch.float64)
    return (z, torch.randn(shape, dtype=torch.float64)) if CELLS[rnn.cell.name].has_memory else z


def draw_noises(rnn: NoisyRNN, *batch: int, steps: int = STEPS) -> list[Tensor]:
    """ε of each layer, ``(..., T, H)``; of particles and a batch if no batch is given."""
    shape = (*(batch or (PARTICLES, BATCH)), steps)
    spreads = torch.tensor(list(rnn.spreads().values()), dtype=torch.float64)
    return [rnn.noise.law(spread.reshape(1), UNITS).expand(torch.Size(shape)).sample() for spread in spreads]


def in_plates(model: Callable[..., Any], particles: int | None = PARTICLES) -> Callable[..., Any]:
    """The program that runs ``model`` in a plate over sequences, inside one over particles."""

    def program(inputs: Tensor, *args: Any, **kwargs: Any) -> Any:
        with pyro.plate("sequences", inputs.shape[-3], dim=-1):
            if particles is None:
                return model(inputs, *args, **kwargs)
            with pyro.plate("particles", particles, dim=-2):
                return model(inputs, *args, **kwargs)

    return program


def traced(program: Callable[..., Any], *args: Any, **kwargs: Any) -> Trace:
    """Its trace, with the log-density of every site."""
    trace = poutine.trace(program).get_trace(*args, **kwargs)
    trace.compute_log_prob()
    return trace


def returned(trace: Trace) -> Any:
    """What the traced program returned."""
    return trace.nodes["_RETURN"]["value"]


def given(program: Callable[..., Any], values: dict[str, Tensor]) -> Callable[..., Any]:
    return poutine.condition(program, data=values)


def layer_sites(paths: list[Tensor], suffix: str = "") -> dict[str, Tensor]:
    """Values for the sites of each layer: ``z_1{suffix}``, ``z_2{suffix}``, ..."""
    return {f"z_{layer}{suffix}": path for layer, path in enumerate(paths, start=1)}


def parts(state: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """z, or z and c."""
    return state if isinstance(state, tuple) else (state,)


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
