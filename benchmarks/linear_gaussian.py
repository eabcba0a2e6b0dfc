"""A linear-Gaussian model with a closed-form log p(x): z_t = 0.9 z_{t-1} + γ ε_t, x_t = C z_t + N(0, I)."""

from __future__ import annotations

from typing import Any

import torch
from pyro import poutine
from scipy.optimize import minimize_scalar
from torch import Tensor

import noisin_pyro as nz

STEPS, UNITS = 10, 2
TRANSITION, EMISSION, TRUTH = 0.9, ((1.0, 0.5), (0.5, 1.0)), 1.0


def linear_gaussian(spread: float | nz.Spread) -> nz.SequenceModel:
    """The model with all parameters but γ fixed at the truth."""
    rnn = nz.NoisyRNN(1, UNITS, cell="identity", noise="gaussian", spread=spread)
    model = nz.SequenceModel(rnn, emission="gaussian", output_size=UNITS).double()
    values: dict[str, Any] = {
        "weight_ih_l0": torch.zeros(UNITS, 1),
        "weight_hh_l0": TRANSITION * torch.eye(UNITS).double(),  # in float64, so that 0.9 is not rounded to float32
        "bias_ih_l0": torch.zeros(UNITS),
        "bias_hh_l0": torch.zeros(UNITS),
    }
    with torch.no_grad():
        for name, value in values.items():
            getattr(rnn, name).copy_(value)
        model.emission.linear.weight.copy_(torch.tensor(EMISSION))
        model.emission.linear.bias.zero_()
        model.emission.scale = torch.ones(UNITS, dtype=torch.float64)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("excess" in name)
    return model


@torch.no_grad()
def sample_sequences(model: nz.SequenceModel, count: int) -> tuple[Tensor, Tensor]:
    """Sample inputs (zeros, ``(B, T, 1)``) and x ``(B, T, D)`` from the model."""
    inputs = torch.zeros(count, STEPS, 1).double()
    with poutine.block():
        nodes: Any = poutine.trace(model).get_trace(inputs).nodes
    return inputs, nodes["x"]["value"]


def log_likelihood(x: Tensor, spread: float) -> Tensor:
    """log p(x) of x ``(B, T, D)``, shape ``(B,)``, by the joint covariance of a sequence."""
    lag = torch.arange(STEPS)[:, None] - torch.arange(STEPS)
    powers = torch.where(lag >= 0, TRANSITION ** lag.clamp(min=0).double(), 0.0)
    emission = torch.tensor(EMISSION).double()
    covariance = spread**2 * torch.kron(powers @ powers.T, emission @ emission.T) + torch.eye(STEPS * UNITS)
    distribution = torch.distributions.MultivariateNormal(torch.zeros(STEPS * UNITS).double(), covariance)
    return distribution.log_prob(x.flatten(-2))


def max_likelihood_spread(x: Tensor) -> float:
    """The maximum likelihood estimate of γ."""
    optimum: Any = minimize_scalar(lambda spread: -float(log_likelihood(x, spread).sum()), bounds=(0.05, 5.0))
    return float(optimum.x)
