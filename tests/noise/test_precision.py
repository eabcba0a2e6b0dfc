"""Densities, draws and gradients where float32 has few digits: means near 0, small and large spreads."""

import math

import pytest
import torch
from scipy import stats

from noisin_pyro.noise import get

N = 300
CONTINUOUS_RATIOS = ["gamma:multiplicative", "gamma:native", "beta:native"]
DISCRETE_RATIOS = ["bernoulli:multiplicative", "poisson:multiplicative", "poisson:native"]


def both_precisions(name, h, gamma, z):
    """log p(z) and its gradients in h and γ, from float32 and from the same numbers in float64.

    In float64 a value is off the lattice of a discrete law if it was rounded to float32; so z is given in float64.
    """
    results = []
    for dtype in (torch.float32, torch.float64):
        family = get(name)
        mean = torch.tensor([h], dtype=torch.float32).to(dtype).requires_grad_()
        spread = torch.tensor(gamma, dtype=torch.float32).to(dtype).requires_grad_(family.spread_is_pathwise)
        log_prob = family(mean, spread).log_prob(z.to(dtype))
        finite = log_prob.isfinite()
        log_prob = torch.where(finite, log_prob, 0.0)
        if log_prob.requires_grad:
            log_prob.sum().backward()
        results.append((finite, log_prob.detach().double(), mean.grad, spread.grad))
    return results


def agree(single, double, rtol):
    """Draws on the edge of a support may be outside it in float64, whose tolerance is smaller."""
    assert single[0].all() and double[0].double().mean() > 0.98
    torch.testing.assert_close(single[1][double[0]], double[1][double[0]], rtol=rtol, atol=10 * rtol)
    if double[0].all():
        for a, b in zip(single[2:], double[2:], strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a.double(), b, rtol=50 * rtol, atol=10 * rtol)


# ---- means near 0 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("h", [1e-2, -1e-4, 1e-6, -1e-7, 1e-9, -1e-20])
@pytest.mark.parametrize("name", ["gaussian", "laplace", "gumbel", "exponential", "chi2", "beta", "gamma"])
def test_density_around_a_mean_near_zero(name, h):
    """p(z) = p(z/h) / |h|: float32 has all digits of z/h."""
    family = get(name, "multiplicative")
    torch.manual_seed(1)
    z = family(torch.tensor([h]), 0.7).sample((N,))
    agree(*both_precisions(f"{name}:multiplicative", h, 0.7, z), rtol=2e-5)
    unit = family(torch.ones(1, dtype=torch.float64), 0.7)
    expected = unit.log_prob(z.double() / torch.tensor(h).double()) - math.log(abs(h))
    inside = expected.isfinite()
    actual = family(torch.tensor([h]), 0.7).log_prob(z)
    torch.testing.assert_close(actual[inside].double(), expected[inside], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("h", [0.3, -1e-4, 1e-7, -1e-20])
@pytest.mark.parametrize("name", ["bernoulli", "poisson", "categorical", "dirichlet"])
def test_draws_around_a_mean_near_zero_have_a_density(name, h):
    family = get(name, "multiplicative")
    d = family(torch.full((4,), h), 0.7)
    assert d.log_prob(d.sample((N,))).isfinite().all()
    assert (d.log_prob(d.sample((5,)) + 0.3 * abs(h)) == -math.inf).all()


def test_outside_the_support_around_a_mean_near_zero():
    """A tolerance for rounding is relative to the mean."""
    for name, sign in (("exponential", 1), ("gamma", -1), ("chi2", 1), ("beta", -1)):
        d = get(name, "multiplicative")(torch.tensor([sign * 1e-7]), 0.7)
        assert d.log_prob(torch.tensor([-sign * 2e-7])).item() == -math.inf


# ---- small spreads --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.3, 0.03, 3e-3, 3e-4, 3e-5])
@pytest.mark.parametrize("name", [*CONTINUOUS_RATIOS, *DISCRETE_RATIOS])
def test_density_with_a_small_spread(name, gamma):
    for h in (0.6, 0.05) if name.endswith("native") else (0.6, -1.3):
        family, h_single = get(name), torch.tensor([h])
        torch.manual_seed(2)
        z = family(h_single.double() if family.discrete else h_single, float(torch.tensor(gamma))).sample((N,))
        # a count is rounded to float32 as well, by 1e-7 / γ standard deviations
        agree(*both_precisions(name, h, gamma, z), rtol=2e-5 + 1e-6 * family.discrete / gamma)


@pytest.mark.parametrize("gamma", [1e-2, 1e-4, 1e-6, 1e-8, 1e-10])
@pytest.mark.parametrize("name", CONTINUOUS_RATIOS)
def test_density_tends_to_the_normal_law(name, gamma):
    """log p(ε) + ½ε² + ½ log 2π = O(γ) for |ε| ≤ 2, and its gradient in γ is (ε³ − 3ε) · O(1)."""
    family = get(name)
    h = torch.full((9, 1), 0.5, dtype=torch.float64)
    scale = family.scale(h, torch.tensor(gamma, dtype=torch.float64))
    epsilon = torch.linspace(-2, 2, 9, dtype=torch.float64).unsqueeze(-1)
    z = h + scale * epsilon
    epsilon = ((z - h) / scale).squeeze(-1)  # that of the rounded z
    error = family(h, gamma).log_prob(z) + scale.log().sum(-1) + epsilon.square() / 2 + math.log(2 * math.pi) / 2
    # the third term is the skewness: 2γ of a Gamma law, 0 of a Beta law around 1/2; at z a rounding is ε · 1e-16 / γ
    assert error.abs().max() < 2 * gamma + 1e-15 / gamma
    if family.has_innovations:
        law = family.law(torch.tensor([gamma], dtype=torch.float64), 1)
        values = law.log_prob(epsilon.unsqueeze(-1)) + epsilon.square() / 2 + math.log(2 * math.pi) / 2
        assert values.abs().max() < 2 * gamma + 1e-15 / gamma


@pytest.mark.parametrize("gamma", [0.4, 0.02, 1e-3])
def test_density_against_scipy(gamma):
    z = torch.tensor([0.3], dtype=torch.float64) * (
        1 + gamma * torch.linspace(-1.5, 2.0, 7, dtype=torch.float64)[:, None]
    )
    h = torch.tensor([0.3], dtype=torch.float64)
    k, nu = gamma**-2, gamma**-2 - 1
    laws = {"gamma:native": stats.gamma(k, scale=0.3 / k), "beta:native": stats.beta(0.3 * nu, 0.7 * nu)}
    for name, law in laws.items():
        expected = torch.from_numpy(law.logpdf(z[:, 0].numpy()))
        torch.testing.assert_close(get(name)(h, gamma).log_prob(z), expected, rtol=1e-7, atol=1e-7)
    counts = torch.tensor([[0.0], [1.0], [round(0.3 * k)], [round(0.33 * k)]], dtype=torch.float64)
    expected = torch.from_numpy(stats.poisson(0.3 * k).logpmf(counts[:, 0].numpy()))
    torch.testing.assert_close(
        get("poisson:native")(h, gamma).log_prob(gamma**2 * counts), expected, rtol=1e-7, atol=1e-7
    )


@pytest.mark.parametrize("gamma", [0.5, 1e-2, 2.4e-4, 1e-5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dropout_with_a_small_spread(gamma, dtype):
    """r = 0 with probability γ²/(1 + γ²), else 1 + γ²; once NaN where 1 + γ² rounds to 1."""
    h = torch.tensor([1.0, -2.0], dtype=dtype)
    d = get("bernoulli:multiplicative")(h, gamma)
    torch.testing.assert_close(d.sample((50,)).abs().amax(0), (h * (1 + gamma**2)).abs())
    dropped = math.log(gamma**2 / (1 + gamma**2))
    log_prob = d.log_prob(torch.stack([h * (1 + gamma**2), torch.zeros_like(h)]))
    torch.testing.assert_close(log_prob.double(), torch.tensor([-2 * math.log1p(gamma**2), 2 * dropped]).double())
    law = get("bernoulli:multiplicative").law(torch.tensor(gamma, dtype=dtype), 2)
    torch.testing.assert_close(law.sample((50,)).amax(0), torch.full((2,), gamma, dtype=dtype), rtol=1e-6, atol=0)


# ---- extreme spreads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_draw_is_nan(family, dtype):
    h = torch.tensor([0.3, 0.9, 1e-6], dtype=dtype)
    for gamma in (1e-12, 1e-8, 1e-4, 0.999, 0.9999999, 30.0, 1e6):
        if not family.min_spread < gamma < family.max_spread:
            with pytest.raises(ValueError, match=f"noise needs {family.min_spread:g} < spread < .*got {gamma}"):
                family(h, gamma)
            continue
        d = family(h, gamma)
        z = d.sample((20,))
        assert z.isfinite().all() and not d.log_prob(z).isnan().any()
        if family.max_spread == math.inf and gamma < 1e-4:  # a draw of a small spread is near the mean
            torch.testing.assert_close(z, h.expand_as(z), rtol=1e-3, atol=40 * gamma)
        if family.has_innovations:
            law = family.law(torch.tensor(gamma, dtype=dtype), 3)
            epsilon = law.sample((20,))
            assert epsilon.isfinite().all() and not law.log_prob(epsilon).isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [0.9, 0.999, 0.99999])
def test_native_beta_with_a_large_spread(gamma, dtype, assert_mean):
    """Near γ = 1 almost all draws are 0 or 1, where both Gamma variables of a Beta law underflow."""
    h = torch.tensor([0.2, 0.7], dtype=dtype)
    z = get("beta:native")(h, gamma).sample((4000,))
    assert_mean(z, h)
    assert_mean((z - h).square(), gamma**2 * h * (1 - h))
    if gamma > 0.9999:
        assert ((z < 1e-3) | (z > 1 - 1e-3)).double().mean() > 0.99


def test_nearly_continuous_lattices_have_a_density():
    """Where rounding hides the lattice, a draw still has the probability of its atom."""
    for name in ("poisson", "bernoulli", "categorical", "poisson:multiplicative", "bernoulli:multiplicative"):
        for gamma in (1e-4, 1e-6, 1e-8):
            d = get(name)(torch.tensor([0.7, 0.2, 0.4]), gamma)
            assert d.log_prob(d.sample((50,))).isfinite().all()


# ---- half precision -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_what_float32_computes(family, dtype):
    """Also where torch samples in float32 and float64 only (gamma, beta, chi2, dirichlet)."""
    mean = torch.tensor([0.25, 0.5, 0.75])
    draws = []
    for each in (torch.float32, dtype):
        torch.manual_seed(0)
        d = family(mean.to(each), 0.25)
        z = d.sample((200,))
        assert z.dtype == d.log_prob(z).dtype == each and not d.log_prob(z).isnan().any()
        draws.append(z.float())
    if family.name in ("gamma", "beta", "chi2", "dirichlet"):  # the others draw other random numbers
        torch.testing.assert_close(draws[1], draws[0], rtol=4 * torch.finfo(dtype).eps, atol=8 * torch.finfo(dtype).eps)
