"""A linear-Gaussian model with a closed-form log p(x): z_t = 0.9 z_{t-1} + γ ε_t, x_t = C z_t + N(0, I)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from pyro import poutine
from scipy.optimize import minimize_scalar
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro.inference.guides.affine import Affine
from noisin_pyro.inference.guides.amortized import Guide, GuideSteps
from noisin_pyro.models import StepwiseRNN

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
def sample_sequences(model: nz.SequenceModel, count: int, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    """Sample inputs (zeros, ``(B, T, 1)``) and x ``(B, T, D)`` from the model."""
    inputs = torch.zeros(count, steps, 1).double()
    with poutine.block():
        nodes: Any = poutine.trace(model).get_trace(inputs).nodes
    return inputs, nodes["x"]["value"]


def log_likelihood(x: Tensor, spread: float | Tensor) -> Tensor:
    """log p(x) of x ``(B, T, D)``, shape ``(B,)``, by the joint covariance of a sequence; differentiable in γ."""
    steps = x.shape[-2]
    lag = torch.arange(steps)[:, None] - torch.arange(steps)
    powers = torch.where(lag >= 0, TRANSITION ** lag.clamp(min=0).double(), 0.0)
    emission = torch.tensor(EMISSION).double()
    covariance = spread**2 * torch.kron(powers @ powers.T, emission @ emission.T) + torch.eye(steps * UNITS)
    distribution = torch.distributions.MultivariateNormal(torch.zeros(steps * UNITS).double(), covariance)
    return distribution.log_prob(x.flatten(-2))


def posterior(x: Tensor, spread: float) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of z given x ``(B, T, D)``, each ``(B, T, H)``, by the joint precision."""
    steps, emission = x.shape[-2], torch.tensor(EMISSION).double()
    innovate = (torch.eye(steps).double() - TRANSITION * torch.diag(torch.ones(steps - 1).double(), -1)) / spread
    precision = torch.kron(innovate.T @ innovate, torch.eye(UNITS).double())
    covariance = (precision + torch.kron(torch.eye(steps).double(), emission.T @ emission)).inverse()
    mean = ((x @ emission).flatten(1) @ covariance).unflatten(1, (steps, UNITS))
    return mean, covariance.diagonal().sqrt().unflatten(0, (steps, UNITS)).expand_as(mean)


class ExactGuide(Guide):
    """The exact conditional q(ε_t | z_{t-1}, x_{1:T}) = p(ε_t | z_{t-1}, x_{t:T}) at the model's γ, detached."""

    def __init__(self, model: nz.SequenceModel) -> None:
        super().__init__("exact", model, bidirectional=True, uses_states=True, covariance="full")

    def along(
        self, walk: StepwiseRNN, targets: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None
    ) -> GuideSteps:
        assert lengths is None and mask is None and walk.spreads[1] is not None
        gamma = float(walk.spreads[1].detach())
        emission, identity = torch.tensor(EMISSION).double(), torch.eye(UNITS).double()
        # p(x_{t:T} | z_t) ∝ exp(-z' Ω z / 2 + η' z), backward in time
        omega, eta = torch.zeros_like(identity), torch.zeros_like(targets[:, 0])
        omegas, etas = [], []
        for x_t in reversed(targets.unbind(1)):
            omega, eta = omega + emission.T @ emission, eta + x_t @ emission
            omegas.append(omega)
            etas.append(eta)
            inverse = (identity + gamma**2 * omega).inverse()
            eta = TRANSITION * (eta - gamma**2 * eta @ inverse @ omega)
            omega = TRANSITION**2 * (omega - gamma**2 * omega @ inverse @ omega)
        precisions = torch.stack(omegas[::-1]).flatten(1).expand(len(targets), -1, -1)
        context = torch.cat([torch.stack(etas[::-1], 1), precisions], -1)
        heads: Any = {1: partial(_exact_map, gamma)}
        return GuideSteps(walk, heads, {1: context}, True, None)


def _exact_map(gamma: float, context: Tensor, features: Tensor, real: None) -> Affine:
    """ε ~ N(γ Λ⁻¹ (η - Ω m), Λ⁻¹) with Λ = I + γ² Ω and the mean m of z_t."""
    eta, omega = context[..., :UNITS], context[0, UNITS:].reshape(UNITS, UNITS)
    inverse = (torch.eye(UNITS).double() + gamma**2 * omega).inverse()
    factor = torch.linalg.cholesky(inverse)
    shift = gamma * (eta - features[..., -UNITS:] @ omega) @ inverse
    return Affine(shift, factor.diagonal().log(), factor[1:, 0])


def max_likelihood_spread(x: Tensor) -> float:
    """The maximum likelihood estimate of γ."""
    optimum: Any = minimize_scalar(lambda spread: -float(log_likelihood(x, spread).sum()), bounds=(0.05, 5.0))
    return float(optimum.x)
