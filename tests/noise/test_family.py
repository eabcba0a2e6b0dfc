"""E[z] = mean, sd(z) as documented, gradients through z, and errors for wrong arguments."""

import math

import numpy as np
import pytest
import torch
from pyro.distributions import Delta
from torch.utils._python_dispatch import TorchDispatchMode

from noisin_pyro.noise import get

N = 40_000
GAMMA = 0.4


def table_sd(family, h, gamma):
    """Standard deviation of z, from the documentation."""
    return {
        "additive": gamma + 0 * h,
        "multiplicative": gamma * h.abs(),
        "native": {"gamma": gamma * h, "beta": gamma * (h * (1 - h)).sqrt(), "poisson": gamma * h.sqrt()}.get(
            family.name, h
        ),
    }[family.form]


def gamma_tensor(value=GAMMA):
    return torch.tensor(value, dtype=torch.float64)


def test_mean_and_spread(family, means, assert_mean):
    h = means(family)
    d = family(h, GAMMA)
    z = d.sample((N,))
    sd = table_sd(family, h, GAMMA)
    assert torch.equal(d.mean, h)
    torch.testing.assert_close(d.variance.expand(3), sd.square())
    torch.testing.assert_close(family.scale(h, gamma_tensor()).abs().expand(3), sd)
    assert_mean(torch.stack([z, (z - h).square()], -1), torch.stack([h, sd.square()], -1))


def test_mean_and_spread_in_single_precision(family, means, assert_mean):
    h = means(family).float()
    z = family(h, 0.7).sample((N,))
    assert z.dtype == torch.float32
    assert_mean(torch.stack([z, (z - h).square()], -1), torch.stack([h, table_sd(family, h, 0.7).square()], -1))


def test_law_of_innovations(with_innovations, assert_mean):
    law = with_innovations.law(gamma_tensor(), 3)
    eps = law.sample((N,))
    assert law.event_shape == (3,) and eps.dtype == torch.float64
    assert_mean(torch.stack([eps, eps.square()], -1), torch.tensor([0.0, 1.0]).expand(3, 2))
    assert law.mean.abs().max() == 0 and (law.variance == 1).all()


def test_z_is_mean_plus_scale_times_innovation(with_innovations, means):
    h = means(with_innovations)
    torch.manual_seed(3)
    z = with_innovations(h, GAMMA).rsample((5,))
    torch.manual_seed(3)
    eps = with_innovations.law(gamma_tensor(), 3).rsample((5,))
    torch.testing.assert_close(z, h + with_innovations.scale(h, gamma_tensor()) * eps)


def test_dropout_values():
    """Multiplicative bernoulli is h·b/q: 0 or h/q with q = 1/(1 + γ²)."""
    h = torch.tensor([1.0, -2.0], dtype=torch.float64)
    z = get("bernoulli:multiplicative")(h, 1.5).sample((100,))
    ratio = z / h * (1 / (1 + 1.5**2))
    assert torch.minimum(ratio.abs(), (ratio - 1).abs()).max() < 1e-12


# ---- gradients ------------------------------------------------------------------------------------------------------


def test_gradient_on_given_draws(with_innovations, means):
    """Autograd = closed form for the sampled ε = finite differences with common random numbers."""
    family = with_innovations
    h, gamma = means(family), gamma_tensor()

    def f(h, gamma):
        torch.manual_seed(5)
        return family(h, gamma).rsample((7,)).sin().sum(0)

    torch.manual_seed(5)
    z = family(h, gamma).rsample((7,))
    eps = (z - h) / family.scale(h, gamma)
    slope = torch.ones(()) if family.form == "additive" else 1 + gamma * eps
    closed = (z.cos() * slope).sum(0)
    automatic = torch.autograd.functional.jvp(lambda h: f(h, gamma), h, torch.ones_like(h))[1]
    step = 1e-6
    differences = (f(h + step, gamma) - f(h - step, gamma)) / (2 * step)
    torch.testing.assert_close(automatic, closed)
    torch.testing.assert_close(differences, closed, rtol=1e-6, atol=1e-8)

    if not family.spread_is_pathwise or getattr(family, "depends_on_spread", False):
        return  # γ is a parameter of the law of ε; test_gradient_of_an_expectation covers it
    closed = (z.cos() * eps * (1 if family.form == "additive" else h)).sum(0)
    automatic = torch.autograd.functional.jvp(lambda g: f(h, g), gamma, torch.ones_like(gamma))[1]
    differences = (f(h, gamma + step) - f(h, gamma - step)) / (2 * step)
    torch.testing.assert_close(automatic, closed)
    torch.testing.assert_close(differences, closed, rtol=1e-6, atol=1e-8)


def test_gradient_of_an_expectation(family, means, assert_mean):
    """Monte Carlo = exact for E[z + z²] = h + h² + sd²: pathwise, or by the score function for native poisson."""
    h = means(family)
    h_leaf = h.expand(N, 3).clone().requires_grad_()
    g_leaf = torch.full((N, 1), GAMMA, dtype=torch.float64).requires_grad_(family.spread_is_pathwise)
    d = family(h_leaf, g_leaf)
    z = d()
    value = z + z.square()
    if not family.has_rsample:
        assert not z.requires_grad
        value = d.log_prob(z).unsqueeze(-1) * (value - h - h.square())
        # the score of one unit times the values of the others averages to 0
    value.sum().backward()

    h_exact, g_exact = h.clone().requires_grad_(), gamma_tensor().requires_grad_()
    (h_exact + h_exact.square() + table_sd(family, h_exact, g_exact).square()).sum().backward()
    assert h_leaf.grad is not None and h_exact.grad is not None
    assert_mean(h_leaf.grad, h_exact.grad)
    if family.spread_is_pathwise:
        assert g_leaf.grad is not None and g_exact.grad is not None
        assert_mean(g_leaf.grad[:, 0], g_exact.grad)


@pytest.mark.parametrize("name", ["gamma:multiplicative", "gamma:native", "beta:native"])
def test_implicit_gradient_against_quadrature(name, assert_mean):
    """Laws sampled by rejection: d E[cos z] by autograd against finite differences of ∫ cos z p(z) dz."""
    family, h = get(name), torch.tensor([0.6], dtype=torch.float64)
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(400))
    top = 1.0 if name == "beta:native" else 12.0
    grid, weights = (nodes + 1) * top / 2, weights * top / 2

    def exact(h, gamma):
        return (weights * grid.cos() * family(h, gamma).log_prob(grid.unsqueeze(-1)).exp()).sum()

    h_leaf = h.expand(N, 1).clone().requires_grad_()
    g_leaf = torch.full((N, 1), GAMMA, dtype=torch.float64).requires_grad_()
    family(h_leaf, g_leaf).rsample().cos().sum().backward()
    step = 1e-4
    by_mean = (exact(h + step, GAMMA) - exact(h - step, GAMMA)) / (2 * step)
    by_spread = (exact(h, GAMMA + step) - exact(h, GAMMA - step)) / (2 * step)
    assert h_leaf.grad is not None and g_leaf.grad is not None
    assert_mean(torch.stack([h_leaf.grad[:, 0], g_leaf.grad[:, 0]], -1), torch.stack([by_mean, by_spread]))


# ---- no noise, and wrong arguments ----------------------------------------------------------------------------------


def test_spread_zero_is_a_point_mass(family):
    h = torch.tensor([[-0.3, 0.0, 2.0]])
    d = family(h, 0)
    assert isinstance(d, Delta) and d.event_shape == (3,)
    assert torch.equal(d(), h) and torch.equal(family(h, 0.0).mean, h)


class _NoSync(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert "_local_scalar_dense" not in str(func) and "nonzero" not in str(func), (
            f"{func} synchronizes with the device"
        )
        return func(*args, **(kwargs or {}))


def test_no_host_synchronization_without_validation(family, means, no_validation):
    h, gamma = means(family), gamma_tensor()
    with _NoSync():
        family(h, gamma)()
        family(h, 0.3)()
        if family.has_innovations:
            family.law(gamma, 3).expand((4, 2)).rsample()


def test_mean_outside_the_range():
    tanh = torch.tensor([0.3, -0.2])
    for name in ("gamma:native", "poisson:native", "beta:native"):
        with pytest.raises(ValueError, match=r"mean: .*native noise needs .* got -0.2; use a cell .*sigmoid"):
            get(name)(tanh, 0.3)
    with pytest.raises(ValueError, match=r"mean: beta:native .*\(0, 1\), got 1.5"):
        get("beta:native")(torch.tensor([1.5]), 0.3)


@pytest.mark.parametrize("spread", [1.0, 1.2])
def test_native_beta_spread_below_one(spread):
    for given in (spread, torch.tensor(spread)):
        with pytest.raises(ValueError, match=r"spread: beta:native .* 0 < spread < 1, got 1"):
            get("beta:native")(torch.tensor([0.5]), given)


def test_spread_must_be_positive(family):
    for given in (-0.1, math.nan, "large", torch.tensor(0.0), torch.tensor([0.3, -1.0, 0.2])):
        with pytest.raises(ValueError, match="spread: "):
            family(torch.full((3,), 0.5), given)


def test_spread_inside_a_discrete_law_cannot_be_learned(discrete):
    spread = torch.tensor(0.3, requires_grad=True)
    h = torch.tensor([0.4, 0.5])
    if discrete.spread_is_pathwise:
        discrete(h, spread)().sum().backward()
        assert spread.grad is not None
        return
    with pytest.raises(ValueError, match=r"spread: .* cannot be learned; fix it"):
        discrete(h, spread)
    if discrete.has_innovations:
        with pytest.raises(ValueError, match="cannot be learned"):
            discrete.law(spread, 2)
    with torch.no_grad():
        assert discrete(h, spread)().shape == (2,)


def test_mean_must_be_a_floating_point_tensor(family):
    for given in (0.5, torch.tensor([1, 2]), torch.tensor(0.5)):
        with pytest.raises(ValueError, match="mean: expected a floating-point tensor"):
            family(given, 0.3)


@pytest.mark.parametrize("name", ["categorical", "dirichlet", "categorical:multiplicative", "dirichlet:multiplicative"])
def test_coupled_laws_need_two_units(name):
    with pytest.raises(ValueError, match="use 2 or more"):
        get(name)(torch.tensor([0.5]), 0.3)
    with pytest.raises(ValueError, match="use 2 or more"):
        get(name).law(torch.tensor(0.3), 1)


@pytest.mark.parametrize("name", ["beta:native", "poisson:native"])
def test_natives_without_innovations(name):
    with pytest.raises(ValueError, match="no law of ε that is independent of the mean"):
        get(name).law(torch.tensor(0.3), 2)


def test_str_and_repr():
    assert str(get("gamma")) == "gamma" and str(get("gamma:native")) == "gamma:native"
    assert "gamma:native" in repr(get("gamma:native"))
