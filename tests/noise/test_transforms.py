"""``biject_to_support``: bijective, onto the support, with the correct Jacobian."""

import pytest
import torch
from torch.autograd.functional import jacobian
from torch.distributions import biject_to

from noisin_pyro import noise

UNITS = 3
CONTINUOUS = [name for name in noise.families() if not noise.get(name).discrete and noise.get(name).has_innovations] + [
    "gamma:multiplicative",
    "gamma:native",
]


def law_of(name: str, spread: float = 0.4):
    return noise.get(name).law(torch.tensor(spread, dtype=torch.float64), UNITS)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_round_trip(name):
    law = law_of(name)
    transform = noise.biject_to_support(law)
    epsilon = law.rsample((50,))
    u = transform.inv(epsilon)
    assert u.shape == (50, UNITS - (name == "dirichlet"))
    torch.testing.assert_close(transform(u), epsilon)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_every_point_maps_to_the_support(name):
    law = law_of(name)
    u = 3 * torch.randn(100, UNITS - (name == "dirichlet"), dtype=torch.float64)
    assert law.log_prob(noise.biject_to_support(law)(u)).isfinite().all()


@pytest.mark.parametrize("name", CONTINUOUS)
def test_jacobian_matches_autograd(name):
    law = law_of(name)
    transform = noise.biject_to_support(law)
    u = torch.randn(UNITS - (name == "dirichlet"), dtype=torch.float64)
    by_autograd = jacobian(transform, u)[
        : len(u)
    ]  # on the simplex the density is with respect to the first coordinates
    torch.testing.assert_close(transform.log_abs_det_jacobian(u, transform(u)), torch.linalg.slogdet(by_autograd)[1])


@pytest.mark.parametrize("name", CONTINUOUS)
def test_biject_to_of_the_support(name):
    law = law_of(name)
    u = torch.randn(4, UNITS - (name == "dirichlet"), dtype=torch.float64)
    epsilon = biject_to(law.support)(u)
    torch.testing.assert_close(biject_to(law.support).inv(epsilon), u)
    assert law.log_prob(epsilon).isfinite().all()


def test_the_map_is_differentiable_in_the_spread():
    spread = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    law = noise.get("gamma:multiplicative").law(spread, UNITS)
    epsilon = noise.biject_to_support(law)(torch.zeros(UNITS, dtype=torch.float64))
    torch.testing.assert_close(epsilon, torch.zeros_like(epsilon) + (1 - 1) / 0.4)
    (slope,) = torch.autograd.grad(noise.biject_to_support(law)(torch.ones(UNITS, dtype=torch.float64)).sum(), spread)
    torch.testing.assert_close(slope, torch.tensor(-UNITS * (torch.e - 1) / 0.4**2, dtype=torch.float64))


@pytest.mark.parametrize("name", [*CONTINUOUS, "gaussian:multiplicative", "beta:multiplicative"])
def test_a_cache_returns_the_coordinates_that_a_value_came_from(name):
    """Pyro's messenger guides and ``TransformedDistribution`` rely on it."""
    law = law_of(name)
    transform = biject_to(law.support).with_cache()
    u = torch.randn(5, UNITS - (name == "dirichlet"), dtype=torch.float64)
    epsilon = transform(u)
    assert transform.inv(epsilon) is u and transform.with_cache() is transform
    torch.testing.assert_close(transform.with_cache(0).inv(epsilon), u)
    base = torch.distributions.Normal(torch.zeros_like(u), 1.0)
    pushed = torch.distributions.TransformedDistribution(base, [transform])
    assert pushed.event_shape == (UNITS,) and pushed.log_prob(pushed.sample()).shape == (5,)


def test_single_precision_has_the_digits_of_a_small_spread():
    """r = exp(u), and ε = (r − 1) / γ of u near 0 would have none of them left in float32."""
    for gamma in (1e-2, 1e-4, 1e-6):
        law = noise.get("gamma:multiplicative").law(torch.tensor(gamma), UNITS)
        transform = noise.biject_to_support(law)
        epsilon = torch.tensor([-1.5, 0.3, 2.0])
        u = transform.inv(epsilon)
        torch.testing.assert_close(transform(u), epsilon, rtol=1e-5, atol=0)
        log_det = transform.log_abs_det_jacobian(u, epsilon)
        torch.testing.assert_close(log_det, u.sum() - UNITS * torch.tensor(gamma).log(), rtol=1e-5, atol=1e-6)
