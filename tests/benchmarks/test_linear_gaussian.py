"""The closed-form likelihood and the maximum likelihood estimate of γ."""

import math
from typing import Any

import pytest
import torch
from pyro import poutine


@pytest.mark.parametrize("spread", [0.3, 1.2])
def test_the_likelihood_is_exact(linear_gaussian: Any, spread: float) -> None:
    # Given x, z is Gaussian, so that log p(x) = log p(x, z) - log p(z | x) at its mode is exact (Laplace's formula)
    model = linear_gaussian.linear_gaussian(spread)
    inputs, x = linear_gaussian.sample_sequences(model, 1)
    size = linear_gaussian.STEPS * linear_gaussian.UNITS

    def energy(z: torch.Tensor) -> Any:
        given = {"z_1": z.reshape(1, linear_gaussian.STEPS, linear_gaussian.UNITS)}
        return -poutine.trace(poutine.condition(model, given)).get_trace(inputs, x).log_prob_sum()

    start = torch.zeros(size).double()
    slope = torch.autograd.functional.jacobian(energy, start)
    curvature = torch.autograd.functional.hessian(energy, start)
    mode = start - torch.linalg.solve(curvature, slope)
    expected = -energy(mode).detach() + 0.5 * size * math.log(2 * math.pi) - 0.5 * torch.logdet(curvature)
    assert float(linear_gaussian.log_likelihood(x, spread)) == pytest.approx(float(expected), abs=1e-9)


def test_the_likeliest_spread_is_a_maximum_and_near_the_truth(linear_gaussian: Any) -> None:
    _, x = linear_gaussian.sample_sequences(linear_gaussian.linear_gaussian(1.0), 300)
    estimate = linear_gaussian.max_likelihood_spread(x)
    values = [float(linear_gaussian.log_likelihood(x, estimate + step).sum()) for step in (-0.01, 0.0, 0.01)]
    assert max(values) == values[1]
    # from the curvature of the likelihood: five standard errors, a false alarm in 1.7 million
    assert abs(estimate - 1.0) < 5 * (0.01**2 / (2 * values[1] - values[0] - values[2])) ** 0.5
