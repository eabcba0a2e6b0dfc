"""The likelihood that γ is measured against, and the γ that is likeliest."""

import math
from typing import Any

import pytest
import torch
from pyro import poutine


@pytest.mark.parametrize("spread", [0.3, 1.2])
def test_the_likelihood_is_exact(spreads: Any, spread: float) -> None:
    # Given x, z is Gaussian, so that log p(x) = log p(x, z) - log p(z | x) at its mode is exact (Laplace's formula)
    model, inputs = spreads.linear_gaussian(spread), torch.zeros(1, spreads.STEPS, 1).double()
    x = poutine.trace(model).get_trace(inputs).nodes["x"]["value"].detach()
    size = spreads.STEPS * spreads.UNITS

    def energy(z: torch.Tensor) -> Any:
        given = {"z_1": z.reshape(1, spreads.STEPS, spreads.UNITS)}
        return -poutine.trace(poutine.condition(model, given)).get_trace(inputs, x).log_prob_sum()

    start = torch.zeros(size).double()
    slope = torch.autograd.functional.jacobian(energy, start)
    curvature = torch.autograd.functional.hessian(energy, start)
    mode = start - torch.linalg.solve(curvature, slope)
    expected = -energy(mode).detach() + 0.5 * size * math.log(2 * math.pi) - 0.5 * torch.logdet(curvature)
    assert spreads.log_likelihood(x, spread) == pytest.approx(float(expected), abs=1e-9)


def test_the_likeliest_spread_is_a_maximum_and_near_the_truth(spreads: Any) -> None:
    inputs = torch.zeros(300, spreads.STEPS, 1).double()
    with torch.no_grad():
        x = poutine.trace(spreads.linear_gaussian(1.0)).get_trace(inputs).nodes["x"]["value"]
    found = spreads.likeliest(x)
    values = [spreads.log_likelihood(x, found + step) for step in (-0.01, 0.0, 0.01)]
    assert max(values) == values[1]
    # from the curvature of the likelihood: five standard errors, a false alarm in 1.7 million
    assert abs(found - 1.0) < 5 * (0.01**2 / (2 * values[1] - values[0] - values[2])) ** 0.5
