"""log_prob against the sampler, against 1, against scipy, and outside the support."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from pyro.distributions.testing.gof import auto_goodness_of_fit
from scipy import stats

from noisin_pyro.noise import get

GAMMA = 0.4
GUMBEL_SCALE = GAMMA * math.sqrt(6) / math.pi
H = torch.tensor([0.3, 0.6, 0.45], dtype=torch.float64)


def quadrature(low, high, num_panels=60):
    """Composite Gauss-Legendre nodes and weights on an interval, finer towards both ends."""
    nodes, weights = np.polynomial.legendre.leggauss(30)
    edges = low + (high - low) * (1 - np.cos(np.linspace(0, math.pi, num_panels + 1))) / 2
    half, middle = np.diff(edges) / 2, (edges[1:] + edges[:-1]) / 2
    points, weights = middle[:, None] + half[:, None] * nodes, half[:, None] * weights
    return torch.from_numpy(points.ravel()), torch.from_numpy(weights.ravel())


# ---- agreement with the sampler -------------------------------------------------------------------------------------


# The test loses nearest neighbors across a sharp edge: in three dimensions it would reject Pyro's own Exponential.
@pytest.mark.parametrize("size", [1, 2])
def test_density_fits_samples(continuous, size, false_alarm_rate):
    d = continuous(H[:size], GAMMA)
    z = d.sample((10_000,))
    assert auto_goodness_of_fit(z, d.log_prob(z).exp()) > false_alarm_rate


# For the same reason the flat density has fewer than three dimensions.
@pytest.mark.parametrize("size, concentration", [(2, 1.0), (3, 1.0), (2, 2.5), (3, 2.5), (4, 2.5)])
@pytest.mark.parametrize("form", ["additive", "multiplicative"])
def test_dirichlet_density_fits_samples(size, concentration, form, false_alarm_rate):
    """The noise sums to 0, so the density is with respect to all coordinates except the last."""
    d = get("dirichlet", form, concentration=concentration)(H.repeat(2)[:size], GAMMA)
    z = d.sample((10_000,))
    assert auto_goodness_of_fit(z[:, :-1].contiguous(), d.log_prob(z).exp()) > false_alarm_rate


def test_probabilities_fit_samples(discrete, false_alarm_rate):
    d = discrete(H, GAMMA)
    z = d.sample((20_000,))
    # samples of the same atom may differ in their last digits
    _, atom, counts = torch.unique(z.mul(1e6).round(), dim=0, return_inverse=True, return_counts=True)
    masses = d.log_prob(z[torch.zeros_like(counts).scatter_(0, atom, torch.arange(len(z)))]).exp()
    expected = masses * len(z)
    often = expected > 10
    # all rare atoms are pooled, including those never sampled
    observed = [*counts[often].tolist(), len(z) - counts[often].sum().item()]
    expected = [*expected[often].tolist(), len(z) - expected[often].sum().item()]
    if observed[-1] == 0:
        assert expected[-1] == pytest.approx(0, abs=1e-6)
        observed, expected = observed[:-1], expected[:-1]
    assert stats.chisquare(observed, expected).pvalue > false_alarm_rate


# ---- total probability ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("h", [0.6, -0.6])
def test_density_integrates_to_one(continuous, h):
    low, high = continuous.mean_range
    if not low < h < high:
        return
    d = continuous(torch.tensor([h], dtype=torch.float64), GAMMA)
    # split at the mean, where laplace has its kink; a bounded support ends where its bounds are
    reach = 40 * GAMMA
    ends = [max(h - reach, low), h, min(h + reach, high)]
    if continuous.name in ("gamma", "exponential", "chi2", "beta") and continuous.form != "native":
        edges = [h + continuous.scale(h, GAMMA) * bound for bound in noise_bounds(continuous)]
        ends = [max(ends[0], min(edges)), h, min(ends[2], max(edges))]
    total = 0.0
    for a, b in pairwise(ends):
        z, weights = quadrature(a, b)
        total += (weights * d.log_prob(z.unsqueeze(-1)).exp()).sum().item()
    assert total == pytest.approx(1, abs=1e-6)


def noise_bounds(family):
    """Bounds of ε: gamma and exponential from −√k, chi2 from −√(ν/2), beta(2, 2) within ±√5."""
    if family.name == "gamma" and family.form == "multiplicative":
        return -1 / GAMMA, math.inf
    return {
        "gamma": (-math.sqrt(2), math.inf),
        "exponential": (-1.0, math.inf),
        "chi2": (-math.sqrt(1.5), math.inf),
        "beta": (-math.sqrt(5), math.sqrt(5)),
    }[family.name]


@pytest.mark.parametrize("concentration", [1.0, 2.5])
@pytest.mark.parametrize("form", ["additive", "multiplicative"])
def test_dirichlet_density_integrates_to_one(concentration, form):
    family = get("dirichlet", form, concentration=concentration)
    h = H[:2]
    d = family(h, GAMMA)
    scale = family.scale(h, torch.tensor(GAMMA, dtype=torch.float64)).expand(2)
    # two units: ε = (u, −u), u between −b and b, with b = (1/2) / sd of a Beta(α, α)
    bound = 0.5 * math.sqrt(4 * (2 * concentration + 1))
    u, weights = quadrature(-bound, bound)
    z = h + scale * torch.stack([u, -u], -1)
    assert (weights * scale[0] * d.log_prob(z).exp()).sum().item() == pytest.approx(1, abs=1e-6)


def atoms(family, h, count=120):
    """Every atom of z around three means h, and its probability, from the documentation; one unit at a time."""
    k = torch.arange(count, dtype=torch.float64).unsqueeze(-1)
    q = 1 / (1 + GAMMA**2)
    match family.name, family.form:
        case "bernoulli", "additive":
            return h + GAMMA * torch.tensor([[-1.0], [1.0]]), [[0.5]] * 2
        case "bernoulli", "multiplicative":
            return h / q * torch.tensor([[0.0], [1.0]]), [[1 - q], [q]]
        case "poisson", "additive":
            return h + GAMMA * (k - 4) / 2, stats.poisson.pmf(k, 4)
        case "poisson", "multiplicative" if family.shape:
            return h * (1 + GAMMA * (k - 4) / 2), stats.poisson.pmf(k, 4)
        case "poisson", "multiplicative":
            return h * GAMMA**2 * k, stats.poisson.pmf(k, 1 / GAMMA**2)
        case "poisson", "native":
            return GAMMA**2 * k.expand(-1, 3), stats.poisson.pmf(k, h / GAMMA**2)
    pytest.fail(f"{family} is discrete, and its probabilities are not in this table")


def test_probabilities_of_the_atoms(discrete):
    if discrete.name == "categorical":
        eps = (torch.eye(3, dtype=torch.float64) - 1 / 3) / math.sqrt(2 / 9)
        d = discrete(H, GAMMA)
        z = H + discrete.scale(H, GAMMA) * eps
        torch.testing.assert_close(d.log_prob(z), torch.full((3,), -math.log(3), dtype=torch.float64))
        return
    z, masses = atoms(discrete, H)
    masses = torch.as_tensor(np.array(masses), dtype=torch.float64).expand(z.shape)
    d = discrete(H.unsqueeze(-1), GAMMA)  # a batch of single units
    torch.testing.assert_close(d.log_prob(z.unsqueeze(-1)).exp(), masses)
    torch.testing.assert_close(masses.sum(0), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize(
    "name, law",
    [
        ("gaussian", stats.norm(0.3, GAMMA)),
        ("laplace", stats.laplace(0.3, GAMMA / math.sqrt(2))),
        ("logistic", stats.logistic(0.3, GAMMA * math.sqrt(3) / math.pi)),
        ("gumbel", stats.gumbel_r(0.3 - GUMBEL_SCALE * np.euler_gamma, GUMBEL_SCALE)),
        ("gamma", stats.gamma(2, 0.3 - GAMMA * math.sqrt(2), GAMMA / math.sqrt(2))),
        ("exponential", stats.expon(0.3 - GAMMA, GAMMA)),
        ("chi2", stats.chi2(3, 0.3 - 3 * GAMMA / math.sqrt(6), GAMMA / math.sqrt(6))),
        ("beta", stats.beta(2, 2, 0.3 - GAMMA * math.sqrt(5), 2 * GAMMA * math.sqrt(5))),
        ("gamma:native", stats.gamma(GAMMA**-2, scale=0.3 * GAMMA**2)),
        ("gamma:multiplicative", stats.gamma(GAMMA**-2, scale=0.3 * GAMMA**2)),
        ("beta:native", stats.beta(0.3 * (GAMMA**-2 - 1), 0.7 * (GAMMA**-2 - 1))),
    ],
)
def test_density_against_scipy(name, law):
    z = np.linspace(0.05, 0.9, 12)
    d = get(name)(torch.tensor([0.3], dtype=torch.float64), GAMMA)
    np.testing.assert_allclose(d.log_prob(torch.from_numpy(z[:, None])).numpy(), law.logpdf(z), rtol=1e-9, atol=1e-9)


# ---- outside the support, and near its edge -------------------------------------------------------------------------


def test_outside_the_support_is_minus_infinity_and_never_nan(family):
    gamma = torch.tensor(GAMMA, dtype=torch.float64, requires_grad=family.spread_is_pathwise)
    h = H.clone().requires_grad_()
    inside = family(H, GAMMA).sample()
    for far in (-50.0, 77.7, math.inf, -math.inf):
        z = inside.clone()
        z[1] = far
        z.requires_grad_()
        log_prob = family(h, gamma).log_prob(z)
        unbounded = family.name in ("gaussian", "laplace", "logistic", "gumbel")
        one_sided = family.name in ("gamma", "exponential", "chi2") and far == 77.7
        if math.isinf(far) or not (unbounded or one_sided):
            assert log_prob.item() == -math.inf
        if log_prob.requires_grad:
            log_prob.backward()
            assert all(x.grad is None or x.grad.isfinite().all() for x in (h, gamma, z))


def test_probability_between_the_atoms_is_zero(discrete):
    d = discrete(H, GAMMA)
    z = d.sample()
    step = GAMMA**2 * H.min() if discrete.name == "poisson" else GAMMA * H.min()
    assert d.log_prob(z).isfinite()
    assert d.log_prob(z + 0.3 * step).item() == -math.inf


def test_density_off_the_plane_is_zero():
    for form in ("additive", "multiplicative"):
        d = get("dirichlet", form)(H, GAMMA)
        z = d.sample()
        assert d.log_prob(z).isfinite()
        assert d.log_prob(z + torch.tensor([0.0, 0.0, 1e-6])).item() == -math.inf
        assert get("categorical", form)(H, GAMMA).log_prob(H).item() == -math.inf


def test_samples_have_a_density_in_single_precision(family):
    """Rounding never puts a sample outside the support, even if the mean is recomputed in a different order."""
    torch.manual_seed(4)
    h = 0.05 + 0.9 * torch.rand(200, 256)
    for gamma in (0.05, 0.4, 0.95):
        z = family(h, gamma)()
        again = h * (1 + 2e-7 * torch.randn(h.shape))
        assert family(h, gamma).log_prob(z).isfinite().all()
        assert family(again, gamma).log_prob(z).isfinite().all()


def test_atom_of_multiplicative_noise_at_zero(family):
    h = torch.tensor([0.0, 0.5, 0.2])
    if family.form == "additive":
        assert family(h, 0.3).log_prob(family(h, 0.3)()).isfinite()
    elif family.form == "multiplicative":
        d = family(h, 0.3)
        assert d()[0] == 0
        with pytest.raises(ValueError, match=r'atom.*use form="additive".* that of ε$'):
            d.log_prob(d())
        d = family(h.bfloat16(), 0.3)
        with pytest.raises(ValueError, match=r"or float32, since torch\.bfloat16 rounds small means to 0"):
            d.log_prob(h.bfloat16())


def test_units_are_not_broadcast(family):
    with pytest.raises(ValueError, match="value: expected 3 units on the last axis"):
        family(H, GAMMA).log_prob(torch.zeros(5, 1, dtype=torch.float64))
