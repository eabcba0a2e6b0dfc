"""The linear-Gaussian model, whose likelihood is known exactly, and a z-test."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from noisin_pyro import NoisyRNN, SequenceModel, Spread

FALSE_ALARM = 1e-6  # of each z-test below: |z| > 4.89 for a standard normal z


@pytest.fixture
def assert_mean() -> Callable[[Tensor, Tensor | float], None]:
    """Check that samples ``(N, ...)`` have a mean, each entry at the false-alarm rate 1e-6 (large N)."""

    def check(samples: Tensor, expected: Tensor | float) -> None:
        samples = samples.reshape(len(samples), -1)
        error = samples.std(0) / len(samples) ** 0.5
        z = (samples.mean(0) - torch.as_tensor(expected).reshape(-1)) / error.clamp(min=1e-300)
        limit = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(1 - FALSE_ALARM / 2))
        assert z.abs().max() < limit, f"z-scores {z}"

    return check


@pytest.fixture
def linear_gaussian() -> Callable[..., SequenceModel]:
    """A model with the identity cell, Gaussian noise and Gaussian emission, in float64: transition 0.9, unit errors."""

    def make(hidden: int = 2, spread: float | Spread = 1.0, outputs: int | None = None) -> SequenceModel:
        outputs = outputs or hidden
        rnn = NoisyRNN(1, hidden, cell="identity", noise="gaussian", spread=spread)
        model = SequenceModel(rnn, emission="gaussian", output_size=outputs).double()
        emission = 0.5 + 0.5 * torch.eye(outputs, hidden)
        with torch.no_grad():
            for name, value in {
                "weight_ih_l0": torch.zeros(hidden, 1),
                "weight_hh_l0": 0.9 * torch.eye(hidden),
                "bias_ih_l0": torch.zeros(hidden),
                "bias_hh_l0": torch.zeros(hidden),
            }.items():
                getattr(rnn, name).copy_(value)
            model.emission.linear.weight.copy_(emission)
            model.emission.linear.bias.zero_()
            model.emission.scale = torch.ones(outputs, dtype=torch.float64)
        return model

    return make


@pytest.fixture
def exact_log_likelihood() -> Callable[[Tensor, Tensor | float], Tensor]:
    """log p(x_{1:T}) ``(B,)`` of that model, from the joint covariance of x ``(B, T, D)``, and differentiable in γ."""

    def log_likelihood(x: Tensor, spread: Tensor | float, hidden: int = 2) -> Tensor:
        steps, outputs = x.shape[-2:]
        lag = torch.arange(steps)[:, None] - torch.arange(steps)
        # z_t = Σ_{s<=t} 0.9^(t-s) γ ε_s, the same in each unit
        powers = torch.where(lag >= 0, 0.9 ** lag.clamp(min=0).double(), 0.0)
        emission = (0.5 + 0.5 * torch.eye(outputs, hidden)).double()
        covariance = torch.kron(powers @ powers.T, emission @ emission.T) * torch.as_tensor(spread) ** 2
        covariance = covariance + torch.eye(steps * outputs).double()
        law = torch.distributions.MultivariateNormal(torch.zeros(steps * outputs).double(), covariance)
        return law.log_prob(x.flatten(-2))

    return log_likelihood


@pytest.fixture
def exact_posterior() -> Callable[[Tensor, Tensor | float], tuple[Tensor, Tensor]]:
    """Of that model's z_{1:T} given x ``(B, T, D)``: the mean ``(B, T, H)``, and the covariance ``(T·H, T·H)``, whose
    diagonal the Kalman smoother finds; here at once, from the precision of the joint Gaussian."""

    def smoothed(x: Tensor, spread: Tensor | float, hidden: int = 2) -> tuple[Tensor, Tensor]:
        steps, outputs = x.shape[-2:]
        emission = (0.5 + 0.5 * torch.eye(outputs, hidden)).double()
        # ε_t = (z_t - 0.9 z_{t-1}) / γ
        innovate = (torch.eye(steps) - 0.9 * torch.diag(torch.ones(steps - 1), -1)).double() / spread
        precision = torch.kron(innovate.T @ innovate, torch.eye(hidden).double())
        precision = precision + torch.kron(torch.eye(steps).double(), emission.T @ emission)
        covariance = precision.inverse()
        return ((x @ emission).flatten(1) @ covariance).unflatten(1, (steps, hidden)), covariance

    return smoothed
