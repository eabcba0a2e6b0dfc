"""The closed-form likelihood and the maximum likelihood estimate of γ."""

import math
from typing import Any

import pytest
import torch
from pyro import poutine

from noisin_pyro import PriorAsGuide_ELBO


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


@pytest.mark.parametrize("threshold", [0.0, 0.9])
def test_with_the_exact_conditional_a_filter_without_resampling_is_exact(
    linear_gaussian: Any, threshold: float
) -> None:
    torch.manual_seed(0)
    model = linear_gaussian.linear_gaussian(0.8)
    inputs, x = linear_gaussian.sample_sequences(model, 5)
    bound = PriorAsGuide_ELBO(4, bound="filtering", threshold=threshold)(model, linear_gaussian.ExactGuide(model))
    bound(inputs, x)
    errors = (bound.returned.log_likelihood - linear_gaussian.log_likelihood(x, 0.8)).abs()
    assert errors.max() < 1e-10 if threshold == 0 else errors.min() > 1e-3


def test_the_posterior_is_that_of_the_joint_gaussian(linear_gaussian: Any) -> None:
    model = linear_gaussian.linear_gaussian(0.8)
    inputs, x = linear_gaussian.sample_sequences(model, 1)
    mean, deviation = linear_gaussian.posterior(x, 0.8)
    z = mean.clone().requires_grad_(True)
    log_joint: Any = poutine.trace(poutine.condition(model, {"z_1": z})).get_trace(inputs, x).log_prob_sum()
    (slope,) = torch.autograd.grad(log_joint, z, create_graph=True)  # 0 at the mode
    assert slope.abs().max() < 1e-10
    rows = [torch.autograd.grad(slope.flatten()[i], z, retain_graph=True)[0].flatten() for i in range(slope.numel())]
    torch.testing.assert_close((-torch.stack(rows)).inverse().diagonal().sqrt(), deviation.flatten())
